//! From a prepared request to its outputs: the one call that every API translates to.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`cell`] | where outputs wait to be taken |
//! | [`admission`] | how much is taken at once, and when to come again |
//! | [`pool`] | the threads that prepare requests |
//! | [`queue`] | requests that have waited too long |
//! | [`flight`] | requests under way: cancelled when nobody waits for them any more |

pub mod admission;
pub mod cell;
pub mod flight;
pub mod pool;
pub mod queue;

pub use flight::{Flight, Generator, Prepared};
