//! What the process may take of its machine.
//!
//! In reading order:
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`memory`] | how many bytes the process may still take, and why no more |
//! | `cgroup` | what the control groups of version 1 and 2 allow |
//! | [`promise`] | memory that parts of the process count on and have not touched yet |
//! | [`threads`] | threads that are named, and take neither the host's signals nor its floating-point mode |
//! | [`pool`] | such threads that share work, and end with their pool |
//! | [`cores`] | how many threads can compute at once |

mod cgroup;
pub mod cores;
pub mod memory;
pub mod pool;
pub mod promise;
pub mod threads;

pub use memory::{Available, Machine};
pub use pool::{Pool, PoolError};
pub use promise::Promise;
