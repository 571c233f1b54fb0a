//! What a host is told: the right status, the field that is wrong, and nothing that only a command line knows.

use std::path::Path;
use std::ptr;

use trtllm::c_api::build::{trtllm_build_engine, trtllm_build_options, trtllm_init_build_options};
use trtllm::c_api::engine::{
    trtllm_engine, trtllm_engine_config, trtllm_engine_info, trtllm_init_engine_config, trtllm_open_engine,
};
use trtllm::c_api::request::{TRTLLM_GUIDE_REGEX, trtllm_request, trtllm_token_bias};
use trtllm::c_api::request_queue::trtllm_enqueue;
use trtllm::c_api::status::{
    TRTLLM_STATUS_INVALID_ARGUMENT, TRTLLM_STATUS_INVALID_FILES, TRTLLM_STATUS_SYSTEM, TRTLLM_STATUS_UNSUPPORTED,
    trtllm_status,
};
use trtllm::c_api::strings::{trtllm_ids, trtllm_str};
use trtllm::c_api::version::trtllm_diagnose;
use trtllm::engine_format::staging::StagedDir;

use crate::common;
use crate::support::{Host, copied, is, last_error, ok, request, taken, text_of};

/// Fields that are wrong, each by its name.
type Cases<'a, T> = &'a [(&'a str, &'a dyn Fn(&mut T))];

/// Checks the status of a call that has just failed, and its message.
#[track_caller]
fn refused(found: trtllm_status, expected: trtllm_status, names: &str) {
    let message = last_error();
    assert_eq!(found, expected, "{message}");
    assert!(message.contains(names), "`{message}` does not name {names}");
    assert!(!without_commands(&message).contains("--"), "`{message}` names a flag");
}

/// A message without the whole commands that it gives for a shell: to the end of the line, or of what is between backticks.
fn without_commands(message: &str) -> String {
    let mut rest = message.to_owned();
    for program in ["build-engine ", "run-engine ", "trtllm-build "] {
        while let Some(start) = rest.find(program) {
            let end = rest[start..].find(['`', '\n']).map_or(rest.len(), |length| start + length);
            rest.replace_range(start..end, "");
        }
    }
    rest
}

#[test]
fn a_request_that_is_refused_names_its_field() {
    let host = Host::demo();
    let enqueue = |change: &dyn Fn(&mut trtllm_request)| {
        let (mut asked, mut id) = (request(), 0);
        asked.prompt = text_of("Jupiter is");
        change(&mut asked);
        // SAFETY: the request and what it points to live through the call.
        unsafe { trtllm_enqueue(host.engine, &asked, &mut id) }
    };
    let unknown = [u32::MAX];
    let ids = trtllm_ids { data: unknown.as_ptr(), len: 1 };
    let (words, no_words) = ([ids], [trtllm_ids { data: ptr::null(), len: 0 }]);
    let no_text = [text_of("")];
    let biases = [(u32::MAX, 1.0), (1, f32::NAN)].map(|(token_id, bias)| trtllm_token_bias { token_id, bias });
    let long = "Jupiter ".repeat(20_000);
    let cases: Cases<'_, trtllm_request> = &[
        ("beam_width", &|request| request.beam_width = usize::MAX),
        ("beam_width", &|request| request.beam_width = 0),
        ("beam_width", &|request| (request.beam_width, request.top_log_probs) = (2, 1)),
        ("num_return_sequences", &|request| request.num_return_sequences = usize::MAX),
        ("temperature", &|request| request.temperature = f32::NAN),
        ("top_p", &|request| request.top_p = 7.0),
        ("min_p", &|request| request.min_p = 2.0),
        ("repetition_penalty", &|request| request.repetition_penalty = 0.0),
        ("presence_penalty", &|request| request.presence_penalty = f32::INFINITY),
        ("frequency_penalty", &|request| request.frequency_penalty = f32::NAN),
        ("length_penalty", &|request| request.length_penalty = f32::NAN),
        ("priority", &|request| request.priority = 2.0),
        ("retention_priority", &|request| request.retention_priority = 101),
        ("guide_kind", &|request| request.guide_kind = 99),
        ("early_stopping", &|request| request.early_stopping = 99),
        ("guide", &|request| (request.guide_kind, request.guide) = (TRTLLM_GUIDE_REGEX, text_of("("))),
        ("end_ids", &|request| request.end_ids = ids),
        ("stop_words", &|request| (request.stop_words, request.num_stop_words) = (words.as_ptr(), 1)),
        ("stop_words", &|request| (request.stop_words, request.num_stop_words) = (no_words.as_ptr(), 1)),
        ("bad_token_words", &|request| (request.bad_token_words, request.num_bad_token_words) = (words.as_ptr(), 1)),
        ("bad_token_words", &|request| (request.bad_token_words, request.num_bad_token_words) = (no_words.as_ptr(), 1)),
        ("bad_words", &|request| (request.bad_words, request.num_bad_words) = (no_text.as_ptr(), 1)),
        ("stop", &|request| (request.stop, request.num_stop) = (no_text.as_ptr(), 1)),
        ("stop", &|request| request.num_stop = 1),
        ("embedding_bias", &|request| (request.embedding_bias, request.num_embedding_bias) = (&biases[0], 1)),
        ("embedding_bias", &|request| (request.embedding_bias, request.num_embedding_bias) = (&biases[1], 1)),
        ("prompt", &|request| request.prompt = text_of("")),
        ("token_ids", &|request| request.token_ids = ids),
        ("token_ids", &|request| (request.prompt.data, request.prompt.len, request.token_ids) = (ptr::null(), 0, ids)),
        ("max_seq_len", &|request| request.prompt = text_of(&long)),
    ];
    for (names, change) in cases {
        refused(enqueue(change), TRTLLM_STATUS_INVALID_ARGUMENT, names);
    }
    refused(enqueue(&|request| request.lora = text_of("/nowhere")), TRTLLM_STATUS_UNSUPPORTED, "lora");
    let messages = |request: &mut trtllm_request| {
        request.prompt = trtllm_str { data: ptr::null(), len: 0 };
        request.messages = text_of(r#"[{"content": "without a role"}]"#);
    };
    refused(enqueue(&messages), TRTLLM_STATUS_INVALID_ARGUMENT, "messages");
}

#[test]
fn an_engine_without_a_template_says_so_in_the_terms_of_a_host() {
    let host = Host::parity("mistral-gqa");
    let (mut asked, mut id) = (request(), 0);
    asked.messages = text_of("Hello");
    // SAFETY: the request and what it points to live through the call.
    refused(unsafe { trtllm_enqueue(host.engine, &asked, &mut id) }, TRTLLM_STATUS_UNSUPPORTED, "messages");
}

#[test]
fn a_configuration_that_is_refused_names_its_field() {
    let host = Host::parity("mistral-gqa");
    let path = host.built.path.to_str().unwrap();
    let open = |path: &str, change: &dyn Fn(&mut trtllm_engine_config)| {
        let mut config = std::mem::MaybeUninit::uninit();
        let mut engine: *mut trtllm_engine = ptr::null_mut();
        // SAFETY: the places have their sizes, and a success initialises the first.
        unsafe {
            ok(trtllm_init_engine_config(config.as_mut_ptr(), size_of::<trtllm_engine_config>()));
            let mut config = config.assume_init();
            change(&mut config);
            trtllm_open_engine(text_of(path), &config, &mut engine)
        }
    };
    let cases: Cases<'_, trtllm_engine_config> = &[
        ("threads", &|config| config.threads = usize::MAX),
        ("max_seq_len", &|config| config.max_seq_len = usize::MAX),
        ("max_batch_size", &|config| config.max_batch_size = usize::MAX),
        ("max_num_tokens", &|config| config.max_num_tokens = usize::MAX),
        ("kv_cache_max_tokens", &|config| config.kv_cache_max_tokens = 1),
        ("kv_cache_max_bytes", &|config| config.kv_cache_max_bytes = 1),
        ("kv_cache_free_memory_fraction", &|config| config.kv_cache_free_memory_fraction = 2.0),
        ("tokens_per_block", &|config| config.tokens_per_block = 0),
        ("max_queue_size", &|config| config.max_queue_size = 0),
        ("capacity_scheduler_policy", &|config| config.capacity_scheduler_policy = 9),
        ("kv_cache_dtype", &|config| config.kv_cache_dtype = text_of("int4")),
        ("tensorrt_llm", &|config| config.tensorrt_llm = text_of("no_such_setting = 1")),
    ];
    for (names, change) in cases {
        refused(open(path, change), TRTLLM_STATUS_INVALID_ARGUMENT, names);
    }
    refused(open("/nowhere", &|_| ()), TRTLLM_STATUS_INVALID_FILES, "/nowhere");
    refused(open(env!("CARGO_MANIFEST_DIR"), &|_| ()), TRTLLM_STATUS_INVALID_FILES, "not an engine");
}

#[test]
fn a_build_that_is_refused_names_its_field() {
    let dir = tempfile::tempdir().unwrap();
    let (model, output) = (common::fixture("parity").join("mistral-gqa"), dir.path().join("engine"));
    let (model, output) = (model.to_str().unwrap(), output.to_str().unwrap());
    let build = |change: &dyn Fn(&mut trtllm_build_options)| {
        let mut options = std::mem::MaybeUninit::uninit();
        // SAFETY: the place has that size, a success initialises it, and the texts live through the call.
        unsafe {
            ok(trtllm_init_build_options(options.as_mut_ptr(), size_of::<trtllm_build_options>()));
            let mut options = options.assume_init();
            (options.model, options.output, options.gpu) = (text_of(model), text_of(output), text_of("none"));
            change(&mut options);
            trtllm_build_engine(&options)
        }
    };
    let checkpoint = |options: &mut trtllm_build_options, tp_size| {
        (options.output, options.checkpoint, options.tp_size) = (text_of(""), text_of(output), tp_size);
    };
    let cases: Cases<'_, trtllm_build_options> = &[
        ("model", &|options| options.model = text_of("")),
        ("output", &|options| options.output = text_of("")),
        ("checkpoint", &|options| options.checkpoint = text_of(output)),
        ("gpu", &|options| options.gpu = text_of("z9")),
        ("tp_size", &|options| checkpoint(options, 3)),
        ("tp_size", &|options| checkpoint(options, usize::MAX)),
        ("tp_size", &|options| options.tp_size = 2),
        ("pp_size", &|options| options.pp_size = 2),
        ("max_seq_len", &|options| options.max_seq_len = usize::MAX),
        ("max_num_tokens", &|options| (options.max_num_tokens, options.max_batch_size) = (1, 2)),
        ("compiler", &|options| options.compiler = text_of("none")),
        ("workers", &|options| options.workers = 2),
        ("max_beam_width", &|options| options.max_beam_width = 2),
        ("opt_num_tokens", &|options| options.opt_num_tokens = 2),
        ("timing_cache", &|options| options.timing_cache = text_of("file")),
        ("gemm_plugin", &|options| options.gemm_plugin = true.into()),
        ("residual_dtype", &|options| options.residual_dtype = text_of("float16")),
        ("residual_dtype", &|options| options.residual_dtype = text_of("bfloat16")),
        ("gather_context_logits", &|options| options.gather_context_logits = true.into()),
        ("gather_generation_logits", &|options| options.gather_generation_logits = true.into()),
    ];
    for (names, change) in cases {
        refused(build(change), TRTLLM_STATUS_INVALID_ARGUMENT, names);
    }
    let absent = build(&|options| options.model = text_of("no-such-organisation/no-such-model"));
    refused(absent, TRTLLM_STATUS_INVALID_FILES, "`download`");
    ok(build(&|_| ()));
    refused(build(&|_| ()), TRTLLM_STATUS_INVALID_FILES, "`force`");
    std::fs::remove_file(Path::new(output).join("engine.json")).unwrap();
    refused(build(&|options| options.force = true.into()), TRTLLM_STATUS_INVALID_FILES, "`force`");

    let other = dir.path().join("other");
    let staged = StagedDir::create(&other, false, "engine.json").unwrap();
    let busy = build(&|options| options.output = text_of(other.to_str().unwrap()));
    refused(busy, TRTLLM_STATUS_SYSTEM, "another build is writing");
    drop(staged);
}

#[test]
fn an_engine_for_the_cpu_is_healthy_and_says_what_it_is() {
    let host = Host::parity("mistral-gqa");
    let (mut healthy, mut report) = (false.into(), ptr::null_mut());
    // SAFETY: the places are valid.
    ok(unsafe { trtllm_diagnose(text_of(host.built.path.to_str().unwrap()), &mut healthy, &mut report) });
    let report = taken(report);
    assert!(is(healthy) && report.contains("for the CPU") && !report.contains("missing"), "{report}");

    let mut info = std::mem::MaybeUninit::<trtllm_engine_info>::zeroed();
    // SAFETY: all zeros is such a struct, whose size is set.
    let info = unsafe {
        (*info.as_mut_ptr()).struct_size = size_of::<trtllm_engine_info>();
        ok(trtllm::c_api::engine::trtllm_describe_engine(host.engine, info.as_mut_ptr()));
        info.assume_init()
    };
    assert!(copied(info.model).ends_with("mistral-gqa"), "{}", copied(info.model));
    assert_eq!((copied(info.dtype).as_str(), copied(info.target).as_str()), ("bfloat16", "none"));
    assert!(info.max_beam_width > 1 && info.max_beam_width <= info.max_batch_size);
}
