#include "config.h"

#include <utility>

#include "probes.h"

// Classes with setters are made empty and set. Those without are made with their constructors, whose first parameters have
// kept their places from 1.0 to 1.2.
namespace shim {

namespace tle = tensorrt_llm::executor;

namespace {

// Calls `set` with the value, where there is one.
template <typename Value, typename Set>
void when(std::optional<Value> const& value, Set set) {
    if (value) {
        set(*value);
    }
}

tle::CapacitySchedulerPolicy to_policy(std::string const& name) {
    if (name == "max_utilization") {
        return tle::CapacitySchedulerPolicy::kMAX_UTILIZATION;
    }
    if (name == "guaranteed_no_evict") {
        return tle::CapacitySchedulerPolicy::kGUARANTEED_NO_EVICT;
    }
    throw Unsupported("capacity_scheduler_policy " + name);
}

tle::ContextChunkingPolicy to_chunking(std::string const& name) {
    if (name == "first_come_first_served") {
        return tle::ContextChunkingPolicy::kFIRST_COME_FIRST_SERVED;
    }
    if (name == "equal_progress") {
        return tle::ContextChunkingPolicy::kEQUAL_PROGRESS;
    }
    throw Unsupported("context_chunking_policy " + name);
}

tle::SchedulerConfig to_scheduler(Settings& settings) {
    auto policy = tle::CapacitySchedulerPolicy::kGUARANTEED_NO_EVICT;
    when(settings.text("scheduler.capacity_scheduler_policy"), [&](auto const& name) { policy = to_policy(name); });
    std::optional<tle::ContextChunkingPolicy> chunking;
    when(settings.text("scheduler.context_chunking_policy"), [&](auto const& name) { chunking = to_chunking(name); });
    std::optional<tle::DynamicBatchConfig> dynamic;
    if (settings.has("scheduler.dynamic_batch")) {
        bool const batch = settings.boolean("scheduler.dynamic_batch.enable_batch_size_tuning").value_or(false);
        bool const tokens = settings.boolean("scheduler.dynamic_batch.enable_max_num_tokens_tuning").value_or(false);
        auto const window = settings.integer32("scheduler.dynamic_batch.dynamic_batch_moving_average_window");
        dynamic = window ? tle::DynamicBatchConfig(batch, tokens, *window) : tle::DynamicBatchConfig(batch, tokens);
    }
    return tle::SchedulerConfig(policy, chunking, dynamic);
}

template <typename Cache>
void set_use_uvm(Cache& cache, Settings& settings) {
    if constexpr (has_use_uvm<Cache>::value) {
        when(settings.boolean("kv_cache.use_uvm"), [&](bool value) { cache.setUseUvm(value); });
    }
}

template <typename Cache>
void set_max_gpu_total_bytes(Cache& cache, Settings& settings) {
    if constexpr (has_max_gpu_total_bytes<Cache>::value) {
        when(settings.integer("kv_cache.max_gpu_total_bytes"),
             [&](std::int64_t value) { cache.setMaxGpuTotalBytes(static_cast<std::uint64_t>(value)); });
    }
}

template <typename Cache>
void set_onboard_blocks(Cache& cache, Settings& settings) {
    if constexpr (has_onboard_blocks<Cache>::value) {
        when(settings.boolean("kv_cache.onboard_blocks"), [&](bool value) { cache.setOnboardBlocks(value); });
    }
}

tle::KvCacheConfig to_kv_cache(Settings& settings) {
    tle::KvCacheConfig cache;
    when(settings.boolean("kv_cache.enable_block_reuse"), [&](bool value) { cache.setEnableBlockReuse(value); });
    when(settings.boolean("kv_cache.enable_partial_reuse"), [&](bool value) { cache.setEnablePartialReuse(value); });
    when(settings.boolean("kv_cache.copy_on_partial_reuse"), [&](bool value) { cache.setCopyOnPartialReuse(value); });
    when(settings.integer32("kv_cache.max_tokens"), [&](std::int32_t value) { cache.setMaxTokens(value); });
    when(settings.integers("kv_cache.max_attention_window"),
         [&](auto const& value) { cache.setMaxAttentionWindowVec(value); });
    when(settings.integer32("kv_cache.sink_token_length"), [&](std::int32_t value) { cache.setSinkTokenLength(value); });
    when(settings.number("kv_cache.free_gpu_memory_fraction"),
         [&](double value) { cache.setFreeGpuMemoryFraction(static_cast<float>(value)); });
    when(settings.integer("kv_cache.host_cache_size"),
         [&](std::int64_t value) { cache.setHostCacheSize(static_cast<std::size_t>(value)); });
    when(settings.integer32("kv_cache.secondary_offload_min_priority"),
         [&](std::int32_t value) { cache.setSecondaryOffloadMinPriority(value); });
    when(settings.integer("kv_cache.event_buffer_max_size"),
         [&](std::int64_t value) { cache.setEventBufferMaxSize(static_cast<std::size_t>(value)); });
    set_onboard_blocks(cache, settings);
    set_use_uvm(cache, settings);
    set_max_gpu_total_bytes(cache, settings);
    return cache;
}

tle::ExtendedRuntimePerfKnobConfig to_perf_knobs(Settings& settings) {
    tle::ExtendedRuntimePerfKnobConfig knobs;
    std::string const group = "extended_runtime_perf_knob.";
    when(settings.boolean(group + "multi_block_mode"), [&](bool value) { knobs.setMultiBlockMode(value); });
    when(settings.boolean(group + "enable_context_fmha_fp32_acc"),
         [&](bool value) { knobs.setEnableContextFMHAFP32Acc(value); });
    when(settings.boolean(group + "cuda_graph_mode"), [&](bool value) { knobs.setCudaGraphMode(value); });
    when(settings.integer32(group + "cuda_graph_cache_size"), [&](std::int32_t value) { knobs.setCudaGraphCacheSize(value); });
    return knobs;
}

tle::PeftCacheConfig to_peft_cache(Settings& settings) {
    tle::PeftCacheConfig const standard;
    auto const integer = [&](char const* name, std::int32_t otherwise) {
        return settings.integer32(std::string("peft_cache.") + name).value_or(otherwise);
    };
    std::optional<float> percent = standard.getDeviceCachePercent();
    when(settings.number("peft_cache.device_cache_percent"), [&](double value) { percent = static_cast<float>(value); });
    std::optional<std::size_t> host = standard.getHostCacheSize();
    when(settings.integer("peft_cache.host_cache_size"),
         [&](std::int64_t value) { host = static_cast<std::size_t>(value); });
    return tle::PeftCacheConfig(integer("num_host_module_layer", standard.getNumHostModuleLayer()),
                                integer("num_device_module_layer", standard.getNumDeviceModuleLayer()),
                                integer("optimal_adapter_size", standard.getOptimalAdapterSize()),
                                integer("max_adapter_size", standard.getMaxAdapterSize()),
                                integer("num_put_workers", standard.getNumPutWorkers()),
                                integer("num_ensure_workers", standard.getNumEnsureWorkers()),
                                integer("num_copy_streams", standard.getNumCopyStreams()),
                                integer("max_pages_per_block_host", standard.getMaxPagesPerBlockHost()),
                                integer("max_pages_per_block_device", standard.getMaxPagesPerBlockDevice()), percent, host);
}

tle::DecodingMode to_mode(std::string const& name) {
    using Mode = tle::DecodingMode;
    static std::pair<char const*, Mode> const modes[] = {
        {"auto", Mode::Auto()},           {"top_k", Mode::TopK()},
        {"top_p", Mode::TopP()},          {"top_k_top_p", Mode::TopKTopP()},
        {"beam_search", Mode::BeamSearch()}, {"medusa", Mode::Medusa()},
        {"lookahead", Mode::Lookahead()}, {"explicit_draft_tokens", Mode::ExplicitDraftTokens()},
        {"external_draft_tokens", Mode::ExternalDraftTokens()}, {"eagle", Mode::Eagle()},
    };
    for (auto const& [known, mode] : modes) {
        if (name == known) {
            return mode;
        }
    }
    throw Unsupported("decoding mode " + name);
}

tle::EagleConfig to_eagle(Settings& settings) {
    std::optional<float> threshold;
    when(settings.number("decoding.eagle.posterior_threshold"), [&](double value) { threshold = static_cast<float>(value); });
    return tle::EagleConfig(settings.lists("decoding.eagle.choices"),
                            settings.boolean("decoding.eagle.greedy_sampling").value_or(true), threshold,
                            settings.boolean("decoding.eagle.use_dynamic_tree").value_or(false),
                            settings.integer32("decoding.eagle.dynamic_tree_max_top_k"));
}

tle::DecodingConfig to_decoding(Settings& settings) {
    tle::DecodingConfig decoding;
    when(settings.text("decoding.mode"), [&](auto const& name) { decoding.setDecodingMode(to_mode(name)); });
    if (settings.has("decoding.lookahead")) {
        using Lookahead = tle::LookaheadDecodingConfig;
        Lookahead const standard;
        decoding.setLookaheadDecodingConfig(Lookahead(
            settings.integer32("decoding.lookahead.window_size").value_or(standard.getWindowSize()),
            settings.integer32("decoding.lookahead.ngram_size").value_or(standard.getNgramSize()),
            settings.integer32("decoding.lookahead.verification_set_size").value_or(standard.getVerificationSetSize())));
    }
    when(settings.lists("decoding.medusa_choices"), [&](auto const& choices) { decoding.setMedusaChoices(choices); });
    if (settings.has("decoding.eagle")) {
        decoding.setEagleConfig(to_eagle(settings));
    }
    return decoding;
}

tle::ParallelConfig to_parallel(Settings& settings) {
    tle::ParallelConfig parallel;
    when(settings.integers("parallel.device_ids"), [&](auto const& ids) { parallel.setDeviceIds(ids); });
    when(settings.integers("parallel.participant_ids"), [&](auto const& ids) { parallel.setParticipantIds(ids); });
    auto const mode = settings.text("parallel.communication_mode").value_or("leader");
    if (mode == "leader") {
        return parallel;
    }
    if (mode != "orchestrator") {
        throw Unsupported("communication_mode " + mode);
    }
    parallel.setCommunicationMode(tle::CommunicationMode::kORCHESTRATOR);
    tle::OrchestratorConfig orchestrator;
    orchestrator.setIsOrchestrator(true);
    when(settings.boolean("parallel.spawn_processes"), [&](bool value) { orchestrator.setSpawnProcesses(value); });
    when(settings.text("parallel.worker_executable_path"),
         [&](auto const& path) { orchestrator.setWorkerExecutablePath(path); });
    parallel.setOrchestratorConfig(orchestrator);
    return parallel;
}

template <typename Config>
void set_fail_fast(Config& config, Settings& settings) {
    if constexpr (has_fail_fast<Config>::value) {
        when(settings.boolean("fail_fast_on_attention_window_too_large"),
             [&](bool value) { config.setFailFastOnAttentionWindowTooLarge(value); });
    }
}

template <typename Config>
void set_use_gpu_direct_storage(Config& config, Settings& settings) {
    if constexpr (has_use_gpu_direct_storage<Config>::value) {
        when(settings.boolean("use_gpu_direct_storage"), [&](bool value) { config.setUseGpuDirectStorage(value); });
    }
}

}  // namespace

tle::ExecutorConfig to_config(Settings& settings, trtllm_gpu_tokenizer const* tokenizer) {
    tle::ExecutorConfig config;
    config.setBatchingType(tle::BatchingType::kINFLIGHT);
    // Their defaults have changed between releases.
    config.setNormalizeLogProbs(settings.boolean("normalize_log_probs").value_or(false));
    config.setEnableChunkedContext(settings.boolean("enable_chunked_context").value_or(true));
    when(settings.integer32("max_beam_width"), [&](std::int32_t value) { config.setMaxBeamWidth(value); });
    when(settings.integer32("max_batch_size"), [&](std::int32_t value) { config.setMaxBatchSize(value); });
    when(settings.integer32("max_num_tokens"), [&](std::int32_t value) { config.setMaxNumTokens(value); });
    when(settings.integer32("max_queue_size"), [&](std::int32_t value) { config.setMaxQueueSize(value); });
    when(settings.integer32("iter_stats_max_iterations"),
         [&](std::int32_t value) { config.setIterStatsMaxIterations(value); });
    when(settings.integer32("request_stats_max_iterations"),
         [&](std::int32_t value) { config.setRequestStatsMaxIterations(value); });
    when(settings.number("gpu_weights_percent"),
         [&](double value) { config.setGpuWeightsPercent(static_cast<float>(value)); });
    when(settings.integer32("recv_poll_period_ms"), [&](std::int32_t value) { config.setRecvPollPeriodMs(value); });
    when(settings.integer("max_seq_idle_microseconds"), [&](std::int64_t value) {
        config.setMaxSeqIdleMicroseconds(static_cast<std::uint64_t>(value));
    });
    when(settings.boolean("enable_trt_overlap"), [&](bool value) { config.setEnableTrtOverlap(value); });
    when(settings.boolean("gather_generation_logits"), [&](bool value) { config.setGatherGenerationLogits(value); });
    set_use_gpu_direct_storage(config, settings);
    set_fail_fast(config, settings);
    config.setSchedulerConfig(to_scheduler(settings));
    config.setKvCacheConfig(to_kv_cache(settings));
    if (settings.has("extended_runtime_perf_knob")) {
        config.setExtendedRuntimePerfKnobConfig(to_perf_knobs(settings));
    }
    if (settings.has("peft_cache")) {
        config.setPeftCacheConfig(to_peft_cache(settings));
    }
    if (settings.has("decoding")) {
        config.setDecodingConfig(to_decoding(settings));
    }
    if (settings.has("parallel")) {
        config.setParallelConfig(to_parallel(settings));
    }
    if (tokenizer != nullptr) {
        tle::GuidedDecodingConfig guided(tle::GuidedDecodingConfig::GuidedDecodingBackend::kXGRAMMAR);
        guided.setEncodedVocab(
            std::vector<std::string>(tokenizer->vocabulary, tokenizer->vocabulary + tokenizer->vocabulary_len));
        guided.setTokenizerStr(std::string(tokenizer->tokenizer_json));
        auto const ids = tokenizer->stop_token_ids;
        guided.setStopTokenIds(std::vector<tle::TokenIdType>(ids.data, ids.data + ids.len));
        config.setGuidedDecodingConfig(guided);
    }
    settings.check_all_taken();
    return config;
}

}  // namespace shim
