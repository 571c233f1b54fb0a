//! Fuzz target; what it checks stands in [`trtllm_fuzz::lora_config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = trtllm_fuzz::lora_config(bytes);
});
