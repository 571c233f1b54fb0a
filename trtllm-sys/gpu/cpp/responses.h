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
    std::deque<std::vector<float>> logits;
    std::deque<std::string> errors;
    std::deque<trtllm_gpu_perf_metrics> perf_metrics;
};

namespace shim {

// Appends `response` to `batch`, in whose `responses` there must be room.
void add_response(trtllm_gpu_responses& batch, tensorrt_llm::executor::Response const& response);

}  // namespace shim
