// Responses, copied out of TensorRT-LLM's.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "tensorrt_llm/executor/executor.h"
#include "trtllm_gpu.h"

// Responses, and what they point to. Deques do not move what they hold.
struct trtllm_gpu_responses {
    std::vector<trtllm_gpu_response> responses;
    std::deque<std::vector<trtllm_gpu_output>> outputs;
    std::deque<tensorrt_llm::executor::VecTokens> tokens;
    std::deque<tensorrt_llm::executor::VecLogProbs> log_probs;
    // Their memory is TensorRT-LLM's, and stays for as long as somebody has the tensor.
    std::deque<tensorrt_llm::executor::Tensor> logits;
    std::deque<std::string> errors;
    std::deque<trtllm_gpu_perf_metrics> perf_metrics;
};

namespace shim {

// Appends `response` to `batch`, in whose `responses` there must be room. One that cannot be converted becomes that response's error.
void add_response(trtllm_gpu_responses& batch, tensorrt_llm::executor::Response const& response) noexcept;

}  // namespace shim
