//! HTTP/1.1: connections and their limits, who may ask, bodies in, answers out.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`accept`] | the accept loop |
//! | [`connection`] | a connection's timeouts |
//! | [`routes`] | every path, and what it leads to |
//! | [`guard`] | hosts, origins and keys |
//! | [`read`] | a request's body |
//! | [`reply`] | answers |
//! | [`sse`] | answers that stream |

pub mod accept;
pub mod connection;
pub mod guard;
pub mod read;
pub mod reply;
pub mod routes;
pub mod sse;
