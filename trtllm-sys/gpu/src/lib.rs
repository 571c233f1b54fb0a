//! `libtrtllm_gpu.so`: the C++ shim over TensorRT-LLM (`cpp/`), behind the one function that `trtllm-sys` looks for. Built
//! without TensorRT-LLM, it says why.

#[path = "../../src/gpu/bindings.rs"]
mod bindings;

use bindings::trtllm_gpu_table;

#[cfg(tensorrt_llm)]
unsafe extern "C" {
    fn trtllm_gpu_shim_table() -> *const trtllm_gpu_table;
}

/// The table of `trtllm_gpu.h`; never null, and valid for ever.
#[cfg(tensorrt_llm)]
#[unsafe(no_mangle)]
pub extern "C" fn trtllm_gpu() -> *const trtllm_gpu_table {
    // SAFETY: no duty.
    unsafe { trtllm_gpu_shim_table() }
}

/// The table of `trtllm_gpu.h`; never null, and valid for ever.
#[cfg(not(tensorrt_llm))]
#[unsafe(no_mangle)]
pub extern "C" fn trtllm_gpu() -> *const trtllm_gpu_table {
    use std::ffi::CStr;
    use std::sync::OnceLock;

    struct Table(trtllm_gpu_table);
    // SAFETY: what the table points to is constant.
    unsafe impl Send for Table {}
    // SAFETY: as for `Send`.
    unsafe impl Sync for Table {}

    const UNAVAILABLE: &CStr = match CStr::from_bytes_with_nul(concat!(env!("TRTLLM_GPU_UNAVAILABLE"), "\0").as_bytes())
    {
        Ok(text) => text,
        Err(_) => c"the reason has a NUL byte",
    };
    static TABLE: OnceLock<Table> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        // SAFETY: numbers, null pointers, and functions that may be absent.
        let mut table: trtllm_gpu_table = unsafe { std::mem::zeroed() };
        table.abi = bindings::TRTLLM_GPU_ABI;
        table.unavailable = UNAVAILABLE.as_ptr();
        Table(table)
    });
    &raw const table.0
}
