//! What comes out is what Rust's API gives.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;
use std::sync::Mutex;

use trtllm::c_api::engine::{
    TRTLLM_SHUTDOWN_DRAIN, trtllm_close_engine, trtllm_describe_engine, trtllm_end_ids, trtllm_engine_config,
    trtllm_engine_info, trtllm_init_engine_config, trtllm_shutdown_engine,
};
use trtllm::c_api::request::{TRTLLM_GUIDE_REGEX, trtllm_request, trtllm_token_bias};
use trtllm::c_api::request_queue::{trtllm_cancel, trtllm_enqueue};
use trtllm::c_api::response::{
    TRTLLM_FINISH_REASON_CANCELLED, TRTLLM_FINISH_REASON_LENGTH, TRTLLM_FINISH_REASON_STOP_WORDS, TRTLLM_WAIT_FOREVER,
    trtllm_await_responses, trtllm_response,
};
use trtllm::c_api::stats::{trtllm_free_iteration_stats, trtllm_take_iteration_stats, trtllm_view_iteration_stats};
use trtllm::c_api::status::{TRTLLM_STATUS_INVALID_ARGUMENT, TRTLLM_STATUS_SHUT_DOWN, TRTLLM_STATUS_TIMED_OUT};
use trtllm::c_api::strings::{trtllm_free_token_ids, trtllm_ids, trtllm_str, trtllm_view_token_ids};
use trtllm::c_api::tokenizer::{
    trtllm_apply_chat_template, trtllm_decode, trtllm_detokenize, trtllm_encode, trtllm_free_detokenizer,
    trtllm_id_to_token, trtllm_new_detokenizer, trtllm_token_to_id,
};
use trtllm::runner::executor::{Executor, ExecutorConfig, OutputConfig, Request, RequestSpec, Response};
use trtllm::runner::inflight::CpuExecutor;

use crate::support::{Host, asleep_in, copied, ids, is, last_error, ok, open, request, taken, text_of};

fn view(ids: &[u32]) -> trtllm_ids {
    trtllm_ids { data: ids.as_ptr(), len: ids.len() }
}

/// `count` numbers at `data`.
fn numbers<T: Copy>(data: *const T, count: usize) -> Vec<T> {
    assert!(!data.is_null());
    // SAFETY: a response said so, and is valid still.
    unsafe { std::slice::from_raw_parts(data, count) }.to_vec()
}

#[test]
fn tokens_and_log_probabilities_are_those_of_the_rust_api() {
    let host = Host::parity("mistral-gqa");
    let prompts: Vec<Vec<u32>> = (1..6).map(|n| (n..n + 9).collect()).collect();

    let executor = CpuExecutor::open(&host.built.engine, &ExecutorConfig::default()).unwrap();
    let output = OutputConfig {
        return_log_probs: true,
        top_log_probs: 3,
        return_prompt_log_probs: true,
        ..OutputConfig::default()
    };
    let mut expected = Vec::new();
    for prompt in &prompts {
        let spec = RequestSpec { output, streaming: false, ..RequestSpec::new(prompt.clone(), 12) };
        executor.enqueue(Request::new(spec, executor.limits(), executor.vocab_size()).unwrap()).unwrap();
        match executor.await_responses(None).remove(0) {
            Response::Result(result) => expected.push(result),
            Response::Error { message, .. } => panic!("{message}"),
        }
    }

    let mut places = HashMap::new();
    for (place, prompt) in prompts.iter().enumerate() {
        let mut request = request();
        request.token_ids = view(prompt);
        request.max_new_tokens = 12;
        request.return_log_probs = true.into();
        request.return_prompt_log_probs = true.into();
        request.top_log_probs = 3;
        request.user_data = ptr::without_provenance_mut(place + 1);
        places.insert(host.enqueue(&request), place);
    }
    let mut found = vec![(Vec::new(), Vec::new(), Vec::new(), Vec::new()); prompts.len()];
    host.await_all(prompts.len(), |response| {
        let place = places[&response.request_id];
        assert_eq!(response.user_data.addr(), place + 1);
        let (tokens, log_probs, top, prompt) = &mut found[place];
        let new = ids(response);
        log_probs.extend(numbers(response.log_probs, new.len()));
        assert_eq!(response.num_top_log_probs, 3);
        top.extend(numbers(response.top_log_probs, 3 * new.len()).iter().map(|top| (top.token_id, top.log_prob)));
        tokens.extend(new);
        if !response.prompt_log_probs.is_null() {
            prompt.extend(numbers(response.prompt_log_probs, response.num_prompt_log_probs));
        }
        if is(response.is_final) {
            assert_eq!(response.finish_reason, TRTLLM_FINISH_REASON_LENGTH);
            assert_eq!((response.num_prompt_tokens, response.num_output_tokens), (9, 12));
            // A session that was not woken for a while takes all tokens at once, and no time is between the first and the last.
            assert!(response.time_to_first_token_ns > 0);
            assert_eq!(response.cum_log_prob.to_bits(), expected[place].cum_log_prob.unwrap().to_bits());
        }
    });
    for ((tokens, log_probs, top, prompt), expected) in found.into_iter().zip(expected) {
        assert_eq!(tokens, expected.output_token_ids);
        assert_eq!(Some(log_probs), expected.log_probs);
        assert_eq!(Some(prompt), expected.prompt_log_probs);
        let rows = expected.top_log_probs.unwrap();
        assert_eq!(top, rows.iter().flatten().map(|top| (top.token_id, top.log_prob)).collect::<Vec<_>>());
    }
}

#[test]
fn logits_are_those_of_the_rust_api() {
    let host = Host::parity("mistral-gqa");
    let prompt = [5, 6, 7, 8];
    let executor = CpuExecutor::open(&host.built.engine, &ExecutorConfig::default()).unwrap();
    let output = OutputConfig {
        prompt_top_log_probs: 3,
        return_context_logits: true,
        return_generation_logits: true,
        ..OutputConfig::default()
    };
    let spec = RequestSpec { output, streaming: false, ..RequestSpec::new(prompt.to_vec(), 6) };
    executor.enqueue(Request::new(spec, executor.limits(), executor.vocab_size()).unwrap()).unwrap();
    let Response::Result(expected) = executor.await_responses(None).remove(0) else { panic!("no result") };

    let mut request = request();
    request.token_ids = view(&prompt);
    request.max_new_tokens = 6;
    request.prompt_top_log_probs = 3;
    request.return_context_logits = true.into();
    request.return_generation_logits = true.into();
    host.enqueue(&request);
    let (mut context, mut generation, mut top) = (Vec::new(), Vec::new(), Vec::new());
    host.await_all(1, |response| {
        let (new, columns) = (ids(response).len(), executor.vocab_size());
        assert_eq!(response.vocab_size, columns);
        generation.extend(numbers(response.generation_logits, new * columns));
        if !response.context_logits.is_null() {
            assert_eq!(response.num_context_logits, 4);
            context.extend(numbers(response.context_logits, 4 * columns));
        }
        if !response.prompt_top_log_probs.is_null() {
            assert_eq!((response.num_prompt_log_probs, response.num_prompt_top_log_probs), (3, 3));
            assert!(response.prompt_log_probs.is_null(), "not asked for");
            top.extend(numbers(response.prompt_top_log_probs, 9).iter().map(|top| (top.token_id, top.log_prob)));
        }
    });
    assert!(Some(context) == expected.context_logits.map(|logits| logits.values));
    assert!(Some(generation) == expected.generation_logits.map(|logits| logits.values));
    let rows = expected.prompt_top_log_probs.unwrap();
    assert_eq!(top, rows.iter().flatten().map(|top| (top.token_id, top.log_prob)).collect::<Vec<_>>());
}

#[test]
fn text_goes_in_and_comes_out_and_stop_texts_end_it() {
    let host = Host::demo();
    let complete = |change: &dyn Fn(&mut trtllm::c_api::request::trtllm_request)| {
        let mut request = request();
        request.prompt = text_of("Complete the paragraph: our solar system is");
        request.max_new_tokens = 16;
        change(&mut request);
        host.enqueue(&request);
        let (mut text, mut tokens, mut reason) = (String::new(), Vec::new(), 0);
        host.await_all(1, |response| {
            text.push_str(&copied(response.text));
            tokens.extend(ids(response));
            reason = response.finish_reason;
        });
        (text, tokens, reason)
    };
    let (whole, tokens, _) = complete(&|_| ());
    assert!(!whole.is_empty() && tokens.len() <= 16, "{whole}");

    let word = whole.split_whitespace().nth(2).unwrap();
    let stops = [text_of(word)];
    let (cut, fewer, reason) = complete(&|request| (request.stop, request.num_stop) = (stops.as_ptr(), 1));
    assert_eq!(cut, whole[..whole.find(word).unwrap()]);
    assert!(fewer.len() < tokens.len() && tokens.starts_with(&fewer));
    assert_eq!(reason, TRTLLM_FINISH_REASON_STOP_WORDS);

    let words = [text_of(word)];
    let (without, ..) = complete(&|request| (request.bad_words, request.num_bad_words) = (words.as_ptr(), 1));
    assert!(!without.contains(word), "{without}");

    let bias = [trtllm_token_bias { token_id: tokens[0], bias: -1000.0 }];
    let (_, biased, _) = complete(&|request| (request.embedding_bias, request.num_embedding_bias) = (bias.as_ptr(), 1));
    assert!(!biased.contains(&tokens[0]));

    let pattern = " [0-9]{3}";
    let (digits, ..) =
        complete(&|request| (request.guide_kind, request.guide) = (TRTLLM_GUIDE_REGEX, text_of(pattern)));
    assert!(digits.len() == 4 && digits[1..].bytes().all(|byte| byte.is_ascii_digit()), "{digits}");

    let (silent, same, _) = complete(&|request| request.return_text = false.into());
    assert_eq!((silent.as_str(), &same), ("", &tokens));

    let (answer, ..) = complete(&|request| {
        request.prompt = text_of("");
        request.prompt.data = ptr::null();
        request.messages = text_of(r#"[{"role": "user", "content": "What is Jupiter?"}]"#);
    });
    assert!(!answer.is_empty());
}

#[test]
fn a_chat_template_is_given_what_the_request_has() {
    let host = Host::demo();
    const NONE: trtllm_str = trtllm_str { data: ptr::null(), len: 0 };
    let mut request = request();
    request.prompt = NONE;
    request.messages = text_of(r#"[{"role": "user", "content": "What is Jupiter?"}]"#);
    let refused = |request: &trtllm_request, part: &str| {
        let mut id = 0;
        // SAFETY: the request's texts are static.
        let status = unsafe { trtllm_enqueue(host.engine, request, &mut id) };
        assert_eq!(status, TRTLLM_STATUS_INVALID_ARGUMENT);
        assert!(last_error().contains(part), "{}", last_error());
    };
    refused(&trtllm_request { tools: text_of("{}"), ..request }, "tools must be a JSON list");
    refused(&trtllm_request { documents: text_of("[1]"), ..request }, "documents: number 1");
    refused(&trtllm_request { chat_template_kwargs: text_of("[]"), ..request }, "chat_template_kwargs must be");
    refused(&trtllm_request { chat_template: text_of("rag"), ..request }, "`rag`");
    refused(&trtllm_request { messages: text_of(r#"[{"role":"#), ..request }, "not valid JSON");
    let prompt = trtllm_request { messages: NONE, prompt: text_of("a"), system: text_of("b"), ..request };
    refused(&prompt, "system is for conversations");
}

#[test]
fn several_sequences_each_end_once() {
    let host = Host::parity("mistral-gqa");
    let mut request = request();
    request.token_ids = view(&[1, 2, 3]);
    request.max_new_tokens = 5;
    request.num_return_sequences = 4;
    request.temperature = 1.0;
    host.enqueue(&request);
    let mut tokens: HashMap<usize, Vec<u32>> = HashMap::new();
    let (mut ends, mut finals) = (Vec::new(), 0);
    host.await_all(1, |response| {
        tokens.entry(response.sequence_index).or_default().extend(ids(response));
        if is(response.is_sequence_final) {
            ends.push(response.sequence_index);
        }
        finals += usize::from(is(response.is_final));
    });
    ends.sort_unstable();
    assert_eq!((ends, finals), (vec![0, 1, 2, 3], 1));
    assert!(tokens.values().all(|tokens| tokens.len() == 5));

    // Sequence i is what seed + i draws alone.
    request.num_return_sequences = 1;
    request.seed = 2;
    host.enqueue(&request);
    let mut alone = Vec::new();
    host.await_all(1, |response| alone.extend(ids(response)));
    assert_eq!(alone, tokens[&2]);
}

#[test]
fn waiting_ends_in_time_and_at_the_end() {
    let host = Host::parity("mistral-gqa");
    let mut list = ptr::null_mut();
    // SAFETY: the place is valid.
    unsafe {
        assert_eq!(trtllm_await_responses(host.engine, 0, &mut list), TRTLLM_STATUS_TIMED_OUT);
        assert_eq!(trtllm_await_responses(host.engine, 20, &mut list), TRTLLM_STATUS_TIMED_OUT);
    }
    assert!(list.is_null());

    let mut long = request();
    long.token_ids = view(&[1, 2, 3]);
    long.max_new_tokens = 200;
    let id = host.enqueue(&long);
    ok(trtllm_cancel(host.engine, id));
    ok(trtllm_cancel(host.engine, 12345));
    let mut reason = 0;
    host.await_all(1, |response| reason = response.finish_reason);
    assert_eq!(reason, TRTLLM_FINISH_REASON_CANCELLED);

    long.max_new_tokens = 3;
    host.enqueue(&long);
    ok(trtllm_shutdown_engine(host.engine, TRTLLM_SHUTDOWN_DRAIN));
    ok(trtllm_shutdown_engine(host.engine, TRTLLM_SHUTDOWN_DRAIN));
    let mut count = 0;
    host.await_all(1, |response| count += response.token_ids.len);
    assert_eq!(count, 3);
    let mut id = 0;
    // SAFETY: the places and the request are valid.
    unsafe {
        assert_eq!(trtllm_await_responses(host.engine, TRTLLM_WAIT_FOREVER, &mut list), TRTLLM_STATUS_SHUT_DOWN);
        assert_eq!(trtllm_enqueue(host.engine, &long, &mut id), TRTLLM_STATUS_SHUT_DOWN);
    }
    assert!(last_error().contains("shut down"));
}

#[test]
fn a_close_wakes_who_waits_and_ends_callbacks() {
    static SEEN: Mutex<Vec<(usize, bool)>> = Mutex::new(Vec::new());
    unsafe extern "C" fn see(user_data: *mut c_void, response: *const trtllm_response) {
        // SAFETY: valid during the call.
        let response = unsafe { &*response };
        SEEN.lock().unwrap().push((user_data.addr(), is(response.is_final)));
    }
    let mut host = Host::parity("mistral-gqa");
    let mut endless = request();
    endless.token_ids = view(&[1, 2, 3]);
    endless.max_new_tokens = 250;
    endless.ignore_eos = true.into();
    endless.on_response = Some(see);
    for number in 1..=20 {
        endless.user_data = ptr::without_provenance_mut(number);
        host.enqueue(&endless);
    }
    let engine = host.engine.addr();
    let waiter = asleep_in(move || {
        let mut list = ptr::null_mut();
        // SAFETY: the place is valid.
        unsafe { trtllm_await_responses(ptr::without_provenance_mut(engine), TRTLLM_WAIT_FOREVER, &mut list) }
    });
    while SEEN.lock().unwrap().is_empty() {
        std::thread::yield_now();
    }
    ok(trtllm_close_engine(host.engine));
    assert_eq!(waiter.join().unwrap(), TRTLLM_STATUS_SHUT_DOWN);
    host.engine = ptr::null_mut();
    let seen = std::mem::take(&mut *SEEN.lock().unwrap());
    for number in 1..=20 {
        let of_one: Vec<_> = seen.iter().filter(|(user_data, _)| *user_data == number).collect();
        assert_eq!(of_one.iter().filter(|(_, is_final)| *is_final).count(), 1);
        assert!(of_one.last().unwrap().1);
    }
}

#[test]
fn text_and_ids_are_those_of_the_tokenizer() {
    let host = Host::demo();
    let (mut list, mut found) = (ptr::null_mut(), view(&[]));
    // SAFETY: everything that is passed lives through the calls.
    let encoded = unsafe {
        ok(trtllm_encode(host.engine, text_of("Jupiter is größer"), false.into(), &mut list));
        ok(trtllm_view_token_ids(list, &mut found));
        let encoded = numbers(found.data, found.len);
        ok(trtllm_free_token_ids(list));
        encoded
    };
    let mut string = ptr::null_mut();
    // SAFETY: as above.
    unsafe { ok(trtllm_decode(host.engine, view(&encoded), false.into(), &mut string)) };
    assert_eq!(taken(string), "Jupiter is größer");

    let mut detokenizer = ptr::null_mut();
    // SAFETY: as above.
    unsafe { ok(trtllm_new_detokenizer(host.engine, view(&[]), true.into(), &mut detokenizer)) };
    let mut text = String::new();
    for (place, id) in encoded.iter().enumerate() {
        let is_last = place + 1 == encoded.len();
        // SAFETY: as above.
        unsafe { ok(trtllm_detokenize(detokenizer, view(std::slice::from_ref(id)), is_last.into(), &mut string)) };
        text.push_str(&taken(string));
    }
    assert_eq!(text, "Jupiter is größer");
    ok(trtllm_free_detokenizer(detokenizer));

    // SAFETY: as above.
    unsafe {
        ok(trtllm_id_to_token(host.engine, encoded[0], &mut string));
        let (token, mut id) = (taken(string), u32::MAX);
        ok(trtllm_token_to_id(host.engine, text_of(&token), &mut id));
        assert_eq!(id, encoded[0]);

        ok(trtllm_apply_chat_template(host.engine, text_of("Hello"), true.into(), &mut string));
        assert!(taken(string).contains("Hello"));

        ok(trtllm_end_ids(host.engine, &mut list));
        ok(trtllm_view_token_ids(list, &mut found));
        assert!(found.len > 0);
        ok(trtllm_free_token_ids(list));
    }
}

#[test]
fn a_configuration_is_followed_and_described() {
    let mut host = Host::parity("mistral-gqa");
    ok(trtllm_close_engine(std::mem::replace(&mut host.engine, ptr::null_mut())));
    let mut config = std::mem::MaybeUninit::<trtllm_engine_config>::uninit();
    let mut info = std::mem::MaybeUninit::<trtllm_engine_info>::zeroed();
    // SAFETY: the places have the sizes that are given; a success initialises them.
    let (info, in_int8) = unsafe {
        ok(trtllm_init_engine_config(config.as_mut_ptr(), size_of::<trtllm_engine_config>()));
        let config = config.assume_init_mut();
        config.threads = 1;
        config.max_seq_len = 100;
        config.tokens_per_block = 8;
        config.kv_cache_max_tokens = 60;
        let info = info.assume_init_mut();
        info.struct_size = size_of::<trtllm_engine_info>();
        let dtypes = ["int8", ""].map(|dtype| {
            if !host.engine.is_null() {
                ok(trtllm_close_engine(std::mem::replace(&mut host.engine, ptr::null_mut())));
            }
            config.kv_cache_dtype = text_of(dtype);
            host.engine = open(&host.built.path, config);
            ok(trtllm_describe_engine(host.engine, info));
            *info
        });
        (dtypes[1], dtypes[0])
    };
    assert_eq!((copied(info.kv_cache_dtype), copied(in_int8.kv_cache_dtype)), ("bf16".to_owned(), "int8".to_owned()));
    assert_eq!(in_int8.kv_cache_tokens, 64);
    // Heads of eight elements: as many codes and a scale of two bytes, rather than 16 bytes.
    assert_eq!(16 * in_int8.kv_cache_bytes, 10 * info.kv_cache_bytes);
    assert_eq!((info.threads, info.kv_cache_tokens, info.max_seq_len), (1, 64, 64));
    assert!(!is(info.has_tokenizer) && !is(info.has_chat_template));
    assert!(["amx", "avx512f", "avx512", "avx2", "portable"].contains(&copied(info.instruction_set).as_str()));
    assert!(info.vocab_size > 0 && info.kv_cache_bytes > 0);

    let mut short = request();
    short.token_ids = view(&[1, 2, 3]);
    short.max_new_tokens = 4;
    host.enqueue(&short);
    host.await_all(1, |_| ());
    let (mut list, mut array, mut count) = (ptr::null_mut(), ptr::null(), 0);
    // SAFETY: the places are valid, and the views until the list is freed.
    unsafe {
        ok(trtllm_take_iteration_stats(host.engine, &mut list));
        ok(trtllm_view_iteration_stats(list, &mut array, &mut count));
        let stats: Vec<_> = std::slice::from_raw_parts(array, count).iter().map(|&stats| *stats).collect();
        assert_eq!(stats.len(), 4);
        assert_eq!(stats.iter().map(|stats| stats.num_ctx_tokens).sum::<usize>(), 3);
        assert!(stats.iter().enumerate().all(|(place, stats)| stats.iter == place as u64 && stats.iter_latency_ns > 0));
        assert_eq!((stats[0].kv_cache_max_num_blocks, stats[0].kv_cache_tokens_per_block), (8, 8));
        ok(trtllm_free_iteration_stats(list));
    }
}
