//! Servers under test, and a client of nothing but sockets, so that what goes over them is what a test says.

#![allow(unreachable_pub, reason = "helpers are for every module of the tests")]

pub mod client;
pub mod engine;
pub mod in_process;
pub mod scripted;

use std::time::{Duration, Instant};

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
