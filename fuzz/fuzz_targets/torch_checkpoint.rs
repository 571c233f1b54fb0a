//! Fuzz target; what it checks stands in [`trtllm_fuzz::torch_checkpoint`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = trtllm_fuzz::torch_checkpoint(bytes);
});
