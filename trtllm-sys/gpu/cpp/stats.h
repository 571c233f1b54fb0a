// Statistics and events, as the table has them.
#pragma once

#include <deque>
#include <memory>
#include <string>

#include "tensorrt_llm/executor/executor.h"
#include "trtllm_gpu.h"

namespace shim {

trtllm_gpu_iteration_stats to_stats(tensorrt_llm::executor::IterationStats const& stats);

// One JSON object a line.
std::string to_lines(std::deque<tensorrt_llm::executor::RequestStatsPerIteration> const& iterations);
std::string to_lines(std::deque<tensorrt_llm::executor::KVCacheEvent> const& events);

}  // namespace shim
