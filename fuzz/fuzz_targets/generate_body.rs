//! Fuzz target; what it checks stands in `http::generate_body`.
#![no_main]

#[allow(dead_code, unreachable_pub, reason = "each target uses one of its functions")]
#[path = "../src/http.rs"]
mod http;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = http::generate_body(bytes);
});
