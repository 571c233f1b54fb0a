//! HTTP/1.1: connections and their limits, who may ask, bodies in, answers out.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`listener`] | where the server listens |
//! | [`accept`] | the accept loop |
//! | [`head`] | a request's head, checked before hyper reads it |
//! | [`framing`] | where a body ends |
//! | [`connection`] | a connection: its heads and its timeouts |
//! | [`routes`] | every path, and what it leads to |
//! | [`caught`] | a panic is one answer's error |
//! | [`gzip`] | bodies that come compressed |
//! | [`guard`] | hosts, origins and keys |
//! | [`read`] | a request's body |
//! | [`record`] | what the log says of a request |
//! | [`reply`] | answers |
//! | [`sse`] | answers that stream |

pub mod accept;
pub mod caught;
pub mod connection;
pub mod framing;
pub mod guard;
pub mod gzip;
pub mod head;
pub mod listener;
pub mod read;
pub mod record;
pub mod reply;
pub mod routes;
pub mod sse;
