#include "request.h"

#include <list>
#include <optional>
#include <vector>

#include "probes.h"
#include "settings.h"

// Only constructors of one or two arguments and setters are used: TensorRT-LLM has put new arguments into the middle of the
// others between releases.
namespace shim {

namespace tle = tensorrt_llm::executor;

namespace {

tle::VecTokens to_tokens(trtllm_gpu_ids ids) { return {ids.data, ids.data + ids.len}; }

std::list<tle::VecTokens> to_words(trtllm_gpu_ids const* words, std::size_t count) {
    std::list<tle::VecTokens> list;
    for (std::size_t i = 0; i < count; i++) {
        list.push_back(to_tokens(words[i]));
    }
    return list;
}

template <typename Sampling>
void set_prompt_ignore_length(Sampling& sampling, std::int32_t length) {
    if constexpr (has_prompt_ignore_length<Sampling>::value) {
        sampling.setPromptIgnoreLength(length);
    } else if (length > 0) {
        throw Unsupported("prompt_ignore_length");
    }
}

template <typename Request>
void set_cache_salt_id(Request& request, std::uint64_t salt) {
    if constexpr (has_cache_salt_id<Request>::value) {
        request.setCacheSaltID(salt);
    } else {
        throw Unsupported("cache_salt_id");
    }
}

tle::SamplingConfig to_sampling(trtllm_gpu_request const& asked) {
    tle::SamplingConfig sampling;
    sampling.setBeamWidth(asked.beam_width);
    sampling.setSeed(asked.seed);
    sampling.setNumReturnSequences(asked.num_return_sequences);
    sampling.setRepetitionPenalty(asked.repetition_penalty);
    sampling.setPresencePenalty(asked.presence_penalty);
    sampling.setFrequencyPenalty(asked.frequency_penalty);
    set_prompt_ignore_length(sampling, asked.prompt_ignore_length);
    if (asked.min_tokens > 0) {
        sampling.setMinTokens(asked.min_tokens);
    }
    if (asked.no_repeat_ngram_size > 0) {
        sampling.setNoRepeatNgramSize(asked.no_repeat_ngram_size);
    }
    if (asked.beam_width > 1) {
        sampling.setLengthPenalty(asked.length_penalty);
        sampling.setEarlyStopping(asked.early_stopping);
        return sampling;
    }
    sampling.setTopK(asked.top_k);
    sampling.setTopP(asked.top_p);
    sampling.setMinP(asked.min_p);
    sampling.setTemperature(asked.temperature);
    return sampling;
}

tle::Tensor to_tensor(tle::DataType type, void const* data, std::vector<tle::Shape::DimType64> const& dims) {
    // `of` borrows; the copy is the request's own.
    auto const borrowed = tle::Tensor::of(type, const_cast<void*>(data), tle::Shape(dims.data(), dims.size()));
    return borrowed.copyToCpu();
}

tle::LoraConfig to_lora(trtllm_gpu_lora const& asked) {
    if (asked.weights == nullptr) {
        return tle::LoraConfig(asked.task_id);
    }
    auto const rows = static_cast<tle::Shape::DimType64>(asked.rows);
    auto const columns = static_cast<tle::Shape::DimType64>(asked.columns);
    auto const configColumns = static_cast<tle::Shape::DimType64>(asked.config_columns);
    return tle::LoraConfig(asked.task_id, to_tensor(tle::DataType::kBF16, asked.weights, {rows, columns}),
                           to_tensor(tle::DataType::kINT32, asked.config, {rows, configColumns}));
}

std::optional<tle::MillisecondsType> to_duration(std::uint64_t milliseconds) {
    if (milliseconds == 0) {
        return std::nullopt;
    }
    return tle::MillisecondsType(milliseconds);
}

tle::KvCacheRetentionConfig to_retention(trtllm_gpu_retention const& asked) {
    using Range = tle::KvCacheRetentionConfig::TokenRangeRetentionConfig;
    std::vector<Range> ranges;
    for (std::size_t i = 0; i < asked.num_ranges; i++) {
        trtllm_gpu_retention_range const& range = asked.ranges[i];
        std::optional<tle::SizeType32> end;
        if (range.token_end >= 0) {
            end = range.token_end;
        }
        ranges.emplace_back(range.token_start, end, range.priority, to_duration(range.duration_ms));
    }
    return tle::KvCacheRetentionConfig(ranges, asked.decode_priority, to_duration(asked.decode_duration_ms));
}

}  // namespace

tle::Request to_request(trtllm_gpu_request const& asked) {
    tle::Request request(to_tokens(asked.input_token_ids), asked.max_tokens);
    request.setStreaming(asked.streaming);
    request.setSamplingConfig(to_sampling(asked));
    tle::OutputConfig output;
    output.returnLogProbs = asked.return_log_probs;
    output.returnContextLogits = asked.return_context_logits;
    output.returnPerfMetrics = asked.return_perf_metrics;
    output.returnGenerationLogits = asked.return_generation_logits;
    output.excludeInputFromOutput = true;
    request.setOutputConfig(output);
    request.setEndId(asked.end_id);
    request.setPriority(asked.priority);
    if (asked.num_stop_words > 0) {
        request.setStopWords(to_words(asked.stop_words, asked.num_stop_words));
    }
    if (asked.num_bad_words > 0) {
        request.setBadWords(to_words(asked.bad_words, asked.num_bad_words));
    }
    if (asked.embedding_bias != nullptr) {
        auto const size = static_cast<tle::Shape::DimType64>(asked.embedding_bias_len);
        request.setEmbeddingBias(to_tensor(tle::DataType::kFP32, asked.embedding_bias, {size}));
    }
    if (asked.allotted_time_ms > 0) {
        request.setAllottedTimeMs(tle::MillisecondsType(asked.allotted_time_ms));
    }
    if (asked.has_cache_salt_id) {
        set_cache_salt_id(request, asked.cache_salt_id);
    }
    if (asked.guide_type >= 0) {
        auto const type = static_cast<tle::GuidedDecodingParams::GuideType>(asked.guide_type);
        std::optional<std::string> guide;
        if (asked.guide != nullptr) {
            guide = asked.guide;
        }
        request.setGuidedDecodingParams(tle::GuidedDecodingParams(type, guide));
    }
    if (asked.lora != nullptr) {
        request.setLoraConfig(to_lora(*asked.lora));
    }
    if (asked.retention != nullptr) {
        request.setKvCacheRetentionConfig(to_retention(*asked.retention));
    }
    return request;
}

}  // namespace shim
