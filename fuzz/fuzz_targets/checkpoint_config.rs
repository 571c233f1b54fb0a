//! Fuzz target; what it checks stands in [`trtllm_fuzz::checkpoint_config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = trtllm_fuzz::checkpoint_config(bytes);
});
