//! Fuzz target; what it checks stands in [`trtllm_fuzz::gguf`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = trtllm_fuzz::gguf(bytes);
});
