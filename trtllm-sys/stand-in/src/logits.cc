#include "logits.h"

#include <cstring>

#include "tokens.h"

namespace tensorrt_llm::executor {
namespace {

// For numbers from 0 to 65504; what a half cannot hold is cut off.
std::uint16_t to_half(float value) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    std::int32_t const exponent = static_cast<std::int32_t>(bits >> 23) - 127 + 15;
    return exponent <= 0 ? 0 : static_cast<std::uint16_t>(exponent << 10 | (bits >> 13 & 0x3ff));
}

std::uint16_t to_bfloat16(float value) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    return static_cast<std::uint16_t>(bits >> 16);
}

// In the type and the memory that the settings name.
Tensor to_tensor(Settings const& settings, std::vector<float> const& values, std::vector<std::int64_t> const& dims) {
    auto const name = settings.text("logits_dtype", "float32");
    auto const type = name == "float16"    ? DataType::kFP16
                      : name == "bfloat16" ? DataType::kBF16
                      : name == "int8"     ? DataType::kINT8
                                           : DataType::kFP32;
    Tensor tensor = Tensor::cpu(type, Shape(dims.data(), dims.size()));
    auto* const halves = static_cast<std::uint16_t*>(tensor.getData());
    for (std::size_t i = 0; i < values.size(); i++) {
        switch (type) {
        case DataType::kFP16: halves[i] = to_half(values[i]); break;
        case DataType::kBF16: halves[i] = to_bfloat16(values[i]); break;
        case DataType::kFP32: static_cast<float*>(tensor.getData())[i] = values[i]; break;
        default: break;
        }
    }
    tensor.pretend(settings.text("logits_memory", "pinned") == "gpu" ? MemoryType::kGPU : MemoryType::kCPU_PINNED);
    return tensor;
}

}  // namespace

Tensor context_logits(Settings const& settings, std::int64_t rows, TokenIdType vocab) {
    std::vector<float> values(static_cast<std::size_t>(rows * vocab));
    for (std::size_t i = 0; i < values.size(); i++) {
        values[i] = static_cast<float>(mix(1, i) % 100) / 10.0f;
    }
    return to_tensor(settings, values, {rows, vocab});
}

Tensor generation_logits(Settings const& settings, VecTokens const& tokens, bool streams, TokenIdType vocab) {
    auto const rows = static_cast<std::int64_t>(tokens.size());
    std::vector<float> values;
    for (TokenIdType const token : tokens) {
        for (TokenIdType id = 0; id < vocab; id++) {
            values.push_back(id == token ? 10.0f : static_cast<float>(id % 7));
        }
    }
    return to_tensor(settings, values, {streams ? rows : 1, streams ? 1 : rows, vocab});
}

}  // namespace tensorrt_llm::executor
