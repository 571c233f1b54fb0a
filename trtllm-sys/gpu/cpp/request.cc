#include "request.h"

#include <list>
#include <vector>

#include "features.h"

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

}  // namespace

tle::Request to_request(trtllm_gpu_request const& asked) {
    tle::Request request(to_tokens(asked.input_token_ids), asked.max_tokens);
    request.setStreaming(asked.streaming);
    request.setSamplingConfig(to_sampling(asked));
    tle::OutputConfig output;
    output.returnLogProbs = asked.return_log_probs;
    output.returnContextLogits = asked.return_context_logits;
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
        std::vector<tle::Shape::DimType64> const dims{static_cast<tle::Shape::DimType64>(asked.embedding_bias_len)};
        // `of` borrows; the copy is the request's own.
        auto const borrowed = tle::Tensor::of(tle::DataType::kFP32, const_cast<float*>(asked.embedding_bias),
                                              tle::Shape(dims.data(), dims.size()));
        request.setEmbeddingBias(borrowed.copyToCpu());
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
    return request;
}

tle::ExecutorConfig to_config(trtllm_gpu_config const& asked) {
    tle::ExecutorConfig config;
    config.setMaxBeamWidth(asked.max_beam_width);
    config.setSchedulerConfig(
        tle::SchedulerConfig(static_cast<tle::CapacitySchedulerPolicy>(asked.capacity_scheduler_policy)));
    config.setEnableChunkedContext(asked.enable_chunked_context);
    // Its default has changed between releases.
    config.setNormalizeLogProbs(false);
    config.setIterStatsMaxIterations(asked.iter_stats_max_iterations);
    config.setBatchingType(tle::BatchingType::kINFLIGHT);
    if (asked.max_batch_size > 0) {
        config.setMaxBatchSize(asked.max_batch_size);
    }
    if (asked.max_num_tokens > 0) {
        config.setMaxNumTokens(asked.max_num_tokens);
    }
    if (asked.max_queue_size > 0) {
        config.setMaxQueueSize(asked.max_queue_size);
    }
    tle::KvCacheConfig cache;
    cache.setEnableBlockReuse(asked.enable_block_reuse);
    if (asked.kv_cache_max_tokens > 0) {
        cache.setMaxTokens(asked.kv_cache_max_tokens);
    }
    if (asked.kv_cache_free_gpu_memory_fraction > 0) {
        cache.setFreeGpuMemoryFraction(asked.kv_cache_free_gpu_memory_fraction);
    }
    if (asked.kv_cache_host_bytes > 0) {
        cache.setHostCacheSize(static_cast<std::size_t>(asked.kv_cache_host_bytes));
    }
    config.setKvCacheConfig(cache);
    if (asked.is_orchestrator) {
        tle::OrchestratorConfig orchestrator;
        orchestrator.setIsOrchestrator(true);
        if (asked.worker_executable != nullptr) {
            orchestrator.setWorkerExecutablePath(asked.worker_executable);
        }
        tle::ParallelConfig parallel;
        parallel.setCommunicationMode(tle::CommunicationMode::kORCHESTRATOR);
        parallel.setOrchestratorConfig(orchestrator);
        config.setParallelConfig(parallel);
    }
    if (asked.tokenizer_json != nullptr) {
        std::vector<std::string> const vocabulary(asked.vocabulary, asked.vocabulary + asked.vocabulary_len);
        config.setGuidedDecodingConfig(
            tle::GuidedDecodingConfig(tle::GuidedDecodingConfig::GuidedDecodingBackend::kXGRAMMAR, vocabulary,
                                      std::string(asked.tokenizer_json), to_tokens(asked.stop_token_ids)));
    }
    return config;
}

}  // namespace shim
