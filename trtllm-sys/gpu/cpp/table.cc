#include "table.h"

#include "log.h"

#if __has_include("tensorrt_llm/executor/version.h")
#include "tensorrt_llm/executor/version.h"
static char const* built_against() { return tensorrt_llm::executor::kTensorRtLlmVersion; }
#else
// The version of the build's environment: NVIDIA's image has headers without that one.
static char const* built_against() { return TRTLLM_GPU_BUILT_AGAINST; }
#endif

// Named by the crate's own library, which exports it as TRTLLM_GPU_ENTRY.
extern "C" trtllm_gpu_table const* trtllm_gpu_shim_table() {
    static trtllm_gpu_table const table = [] {
        trtllm_gpu_table whole{};
        whole.abi = TRTLLM_GPU_ABI;
        whole.built_against = built_against();
        whole.capture_log = shim::capture_log;
        shim::add_executor(whole);
        shim::add_network(whole);
        return whole;
    }();
    return &table;
}
