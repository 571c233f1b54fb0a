//! What can be asked for, and what is refused because TensorRT-LLM would not do it.

use std::sync::Arc;
use std::time::Duration;

use trtllm::engine_format::Mapping;
use trtllm::engine_format::lora::LoraAdapter;
use trtllm::runner::executor::tensorrt_llm::{DecodingMode, TensorRtLlmExecutor};
use trtllm::runner::executor::{
    EnqueueError, Executor, ExecutorConfig, FinishReason, GuidedDecodingParams, KvCacheRetentionConfig, LoraRequest,
    OutputConfig, RequestSpec, Response, TokenRangeRetention, TokenResult,
};

use crate::deadline::{enqueue, gather, request};
use crate::stand_in::StandInEngine;

const MODEL: &str = "parity/mistral-gqa";

fn open(settings: &str) -> TensorRtLlmExecutor {
    StandInEngine::new(MODEL, settings).open(&ExecutorConfig::default())
}

pub(crate) fn results(executor: &dyn Executor, spec: RequestSpec) -> Vec<TokenResult> {
    enqueue(executor, spec);
    let result = |response| match response {
        Response::Result(result) => result,
        error => panic!("{error:?}"),
    };
    gather(executor, 1).into_iter().map(result).collect()
}

pub(crate) fn tokens(results: &[TokenResult]) -> Vec<u32> {
    results.iter().flat_map(|result| result.output_token_ids.clone()).collect()
}

#[track_caller]
fn refused(executor: &dyn Executor, change: impl FnOnce(&mut RequestSpec), feature: &str) {
    let mut spec = RequestSpec::new(vec![1, 2], 5);
    change(&mut spec);
    let error = executor.enqueue(request(executor, spec)).unwrap_err();
    assert!(matches!(error, EnqueueError::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains(feature), "{error}");
}

#[test]
fn what_it_does_not_know_is_refused_by_name() {
    let executor = open("");
    refused(&executor, |spec| spec.guided_decoding = Some(GuidedDecodingParams::LarkGrammar("a".into())), "Lark");
    refused(&executor, |spec| (spec.sampling.min_tokens, spec.end_ids) = (2, vec![1, 2]), "min_tokens");
    refused(&executor, |spec| (spec.sampling.top_k, spec.sampling.temperature) = (5000, 1.0), "top_k");
    refused(&executor, |spec| spec.sampling.beam_width = 5, "beam_width");

    let mut config = ExecutorConfig::default();
    config.tensorrt_llm.guided_decoding = false;
    let engine = StandInEngine::new(MODEL, "");
    engine.edit(|config| {
        config["build_config"]["gather_context_logits"] = false.into();
        config["build_config"]["gather_generation_logits"] = false.into();
        config["build_config"]["plugin_config"]["lora_plugin"] = serde_json::Value::Null;
    });
    let executor = engine.open(&config);
    refused(&executor, |spec| spec.guided_decoding = Some(GuidedDecodingParams::Json), "guided_decoding is off");
    refused(&executor, |spec| spec.output.return_prompt_log_probs = true, "gather_context_logits");
    refused(&executor, |spec| spec.output.prompt_top_log_probs = 2, "prompt_top_log_probs with an engine that");
    refused(&executor, |spec| spec.output.top_log_probs = 2, "top_log_probs with an engine that was built without");
    refused(&executor, |spec| spec.output.return_context_logits = true, "gather_context_logits");
    refused(&executor, |spec| spec.output.return_generation_logits = true, "gather_generation_logits");
    refused(&executor, |spec| spec.lora = Some(LoraRequest { task_id: 1, adapter: None }), "lora_plugin");
}

#[test]
fn what_a_decoding_mode_would_ignore_is_refused() {
    let open = |mode| {
        let mut config = ExecutorConfig::default();
        config.tensorrt_llm.decoding.mode = Some(mode);
        StandInEngine::new(MODEL, "").open(&config)
    };
    for mode in [DecodingMode::Medusa, DecodingMode::Lookahead, DecodingMode::Eagle, DecodingMode::ExplicitDraftTokens]
    {
        let executor = open(mode);
        refused(&executor, |spec| spec.sampling.repetition_penalty = 1.5, "repetition_penalty");
        refused(&executor, |spec| spec.sampling.presence_penalty = 1.0, "presence_penalty");
        refused(&executor, |spec| spec.bad_words = vec![vec![1]], "bad_words");
        refused(&executor, |spec| spec.sampling.no_repeat_ngram_size = 2, "no_repeat_ngram_size");
        assert_eq!(tokens(&results(&executor, RequestSpec::new(vec![1], 4))).len(), 4);
    }
    refused(&open(DecodingMode::Eagle), |spec| spec.sampling.min_tokens = 2, "min_tokens");
    let executor = open(DecodingMode::BeamSearch);
    refused(&executor, |spec| (spec.sampling.min_p, spec.sampling.temperature) = (0.5, 1.0), "min_p");
}

#[test]
fn a_stream_with_log_probabilities_ends_for_its_client_at_once() {
    let executor = open("latency_us 20000\n");
    let mut spec = RequestSpec::new(vec![1], 200);
    spec.output.return_log_probs = true;
    let id = enqueue(&executor, spec);
    let began = std::time::Instant::now();
    executor.cancel(id);
    let responses = gather(&executor, 1);
    assert!(began.elapsed() < Duration::from_millis(200 * 20), "it was waited for");
    let Some(Response::Result(last)) = responses.last() else { panic!("{responses:?}") };
    assert_eq!(last.finish_reason, Some(FinishReason::Cancelled));
    // It runs out unseen, beside others.
    assert_eq!(tokens(&results(&executor, RequestSpec::new(vec![2], 3))).len(), 3);
    assert_eq!(executor.load().num_active_requests, 1);
}

#[test]
fn a_stream_with_log_probabilities_is_cancelled_where_that_is_asked_for() {
    let mut config = ExecutorConfig::default();
    config.tensorrt_llm.cancel_streams_with_log_probs = true;
    let executor = StandInEngine::new(MODEL, "latency_us 20000\n").open(&config);
    let mut spec = RequestSpec::new(vec![1], 200);
    spec.output.return_log_probs = true;
    let id = enqueue(&executor, spec);
    executor.cancel(id);
    let responses = gather(&executor, 1);
    let Some(Response::Result(last)) = responses.last() else { panic!("{responses:?}") };
    assert_eq!(last.finish_reason, Some(FinishReason::Cancelled));
    assert_eq!(executor.load().num_active_requests, 0, "it runs on");
}

/// TensorRT-LLM's runtime does not look at the `max_input_len` of config.json, whose default is 1024 for those who build by hand.
#[test]
fn a_prompt_is_as_long_as_the_runtime_takes_it() {
    let engine = StandInEngine::new(MODEL, "");
    engine.edit(|config| config["build_config"]["max_input_len"] = 16.into());
    let of = |prompt: usize, max_tokens| RequestSpec::new(vec![1; prompt], max_tokens);
    let executor = engine.open(&ExecutorConfig::default());
    assert_eq!(executor.limits().max_seq_len, 512);
    assert_eq!(tokens(&results(&executor, of(511, 1))).len(), 1);
    // It generates a token also where none is asked for.
    let error = executor.enqueue(request(&executor, of(512, 0))).unwrap_err().to_string();
    assert!(error.contains("512 tokens") && error.contains("511 at most"), "{error}");

    let executor = engine.open(&ExecutorConfig { enable_chunked_context: false, ..ExecutorConfig::default() });
    assert_eq!(tokens(&results(&executor, of(256, 1))).len(), 1);
    let error = executor.enqueue(request(&executor, of(257, 1))).unwrap_err().to_string();
    assert!(error.contains("257 tokens") && error.contains("max_num_tokens"), "{error}");
}

#[test]
fn adapters_change_the_output_and_are_known_by_number_afterwards() {
    let executor = open("");
    let plain = tokens(&results(&executor, RequestSpec::new(vec![1, 2], 8)));
    let adapter = LoraAdapter { weights: vec![0; 8], rows: 2, columns: 4, config: vec![[1, 0, 2, 0], [2, 0, 2, 0]] };
    let with =
        |adapter| RequestSpec { lora: Some(LoraRequest { task_id: 7, adapter }), ..RequestSpec::new(vec![1, 2], 8) };
    enqueue(&executor, with(None));
    let unknown = gather(&executor, 1);
    assert!(matches!(&unknown[0], Response::Error { message, .. } if message.contains("LoRA task 7")), "{unknown:?}");
    let adapted = tokens(&results(&executor, with(Some(Arc::new(adapter)))));
    assert_ne!(adapted, plain);
    assert_eq!(tokens(&results(&executor, with(None))), adapted);
}

#[test]
fn metrics_statistics_and_events_are_given_where_asked_for() {
    let mut config = ExecutorConfig::default();
    config.tensorrt_llm.request_stats_max_iterations = Some(100);
    config.tensorrt_llm.kv_cache.event_buffer_max_size = Some(100);
    let executor = StandInEngine::new(MODEL, "latency_us 500\n").open(&config);
    let spec = RequestSpec {
        output: OutputConfig { return_perf_metrics: true, ..OutputConfig::default() },
        kv_cache_retention: Some(KvCacheRetentionConfig {
            ranges: vec![TokenRangeRetention { tokens: (0, Some(2)), priority: 80, duration: None }],
            decode_priority: 10,
            decode_duration: Some(Duration::from_secs(1)),
        }),
        ..RequestSpec::new(vec![1, 2, 3], 6)
    };
    let results = results(&executor, spec);
    let (last, earlier) = results.split_last().unwrap();
    assert!(earlier.iter().all(|result| result.perf_metrics.is_none()));
    let metrics = last.perf_metrics.as_ref().unwrap();
    assert!(metrics.first_token > Duration::ZERO && metrics.last_token >= metrics.first_token, "{metrics:?}");
    assert_eq!(metrics.new_blocks, 1);

    let lines = executor.request_stats().unwrap();
    assert!(lines.lines().count() >= 5 && lines.contains("numGeneratedTokens"), "{lines}");
    let events = executor.kv_cache_events(Duration::ZERO).unwrap();
    let events: Vec<serde_json::Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["type"], "created");
    assert_eq!(events[1]["type"], "stored");
    assert_eq!(events[1]["blocks"][0]["tokens"], serde_json::json!([1, 2, 3]));
    assert!(executor.kv_cache_events(Duration::ZERO).unwrap().is_empty());

    // Without a buffer TensorRT-LLM would give an empty list for ever, and to an orchestrator nothing.
    let no_events = |executor: &TensorRtLlmExecutor| executor.kv_cache_events(Duration::ZERO).unwrap_err().to_string();
    assert!(no_events(&open("")).contains("set kv_cache.event_buffer_max_size"));
    let ranks = Mapping { tp_size: 2, pp_size: 1 };
    let executor = StandInEngine::with_ranks(MODEL, "workers 2\n", ranks).open(&config);
    assert!(no_events(&executor).contains("leader mode"));
}

#[test]
fn every_setting_reaches_the_library() {
    let settings = r#"
        max_batch_size = 8
        capacity_scheduler_policy = "max_utilization"
        [kv_cache]
        max_tokens = 4096
        free_memory_fraction = 0.5
        [tensorrt_llm]
        max_beam_width = 2
        gpu_weights_percent = 0.5
        recv_poll_period_ms = 1
        max_seq_idle_microseconds = 1000000
        enable_trt_overlap = true
        use_gpu_direct_storage = true
        fail_fast_on_attention_window_too_large = true
        request_stats_max_iterations = 3
        [tensorrt_llm.scheduler]
        context_chunking_policy = "equal_progress"
        dynamic_batch = { enable_batch_size_tuning = true, enable_max_num_tokens_tuning = true, dynamic_batch_moving_average_window = 64 }
        [tensorrt_llm.kv_cache]
        enable_partial_reuse = false
        copy_on_partial_reuse = false
        max_attention_window = [128, 64]
        sink_token_length = 4
        host_cache_size = 1000000
        onboard_blocks = false
        secondary_offload_min_priority = 30
        event_buffer_max_size = 16
        use_uvm = true
        max_gpu_total_bytes = 1000000000
        [tensorrt_llm.extended_runtime_perf_knob]
        multi_block_mode = false
        enable_context_fmha_fp32_acc = true
        cuda_graph_mode = true
        cuda_graph_cache_size = 8
        [tensorrt_llm.peft_cache]
        num_host_module_layer = 1
        num_device_module_layer = 2
        optimal_adapter_size = 4
        max_adapter_size = 32
        num_put_workers = 2
        num_ensure_workers = 2
        num_copy_streams = 2
        max_pages_per_block_host = 8
        max_pages_per_block_device = 4
        device_cache_percent = 0.1
        host_cache_size = 1000000
        [tensorrt_llm.decoding]
        mode = "lookahead"
        lookahead = { window_size = 5, ngram_size = 4, verification_set_size = 5 }
        medusa_choices = [[0], [0, 0]]
        eagle = { choices = [[0]], greedy_sampling = false, posterior_threshold = 0.5, use_dynamic_tree = true, dynamic_tree_max_top_k = 3 }
        [tensorrt_llm.parallel]
        device_ids = [0]
        participant_ids = [0]
    "#;
    let config: ExecutorConfig = toml::from_str(settings).unwrap();
    let engine = StandInEngine::new(MODEL, "");
    engine.edit(|config| {
        let plugins = &mut config["build_config"]["plugin_config"];
        (plugins["streamingllm"], plugins["use_paged_context_fmha"]) = (true.into(), false.into());
    });
    let executor = engine.open(&config);
    assert_eq!(tokens(&results(&executor, RequestSpec::new(vec![1], 3))).len(), 3);

    // What TensorRT-LLM refuses is said with its words.
    let mut config = ExecutorConfig::default();
    config.kv_cache.free_memory_fraction = 1.5;
    let error = StandInEngine::new(MODEL, "").try_open(&config).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("freeGpuMemoryFraction"), "{cause}");
}
