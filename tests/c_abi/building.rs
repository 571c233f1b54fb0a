//! Engines built through the C ABI.

use std::ffi::c_void;
use std::path::Path;
use std::ptr;

use trtllm::c_api::build::{
    trtllm_build_engine, trtllm_build_options, trtllm_init_build_options, trtllm_progress, trtllm_verify_engine,
};
use trtllm::c_api::engine::{trtllm_close_engine, trtllm_describe_engine, trtllm_engine_info, trtllm_open_engine};
use trtllm::c_api::memory_plan::{trtllm_memory_plan, trtllm_plan_memory};
use trtllm::c_api::status::{
    TRTLLM_STATUS_CANCELLED, TRTLLM_STATUS_INVALID_ARGUMENT, TRTLLM_STATUS_INVALID_FILES, TRTLLM_STATUS_UNAVAILABLE,
};
use trtllm::c_api::strings::trtllm_str;
use trtllm::c_api::version::{TRTLLM_EXECUTOR_CPU, TRTLLM_EXECUTOR_TENSORRT_LLM, trtllm_query_executor};

use crate::common;
use crate::support::{copied, is, last_error, ok, taken, text_of};

fn model() -> String {
    common::fixture("parity").join("mistral-gqa").to_str().unwrap().to_owned()
}

fn options(model: &str) -> trtllm_build_options {
    let mut options = std::mem::MaybeUninit::uninit();
    // SAFETY: the place has that size; a success initialises it.
    unsafe {
        ok(trtllm_init_build_options(options.as_mut_ptr(), size_of::<trtllm_build_options>()));
        let mut options: trtllm_build_options = options.assume_init();
        options.model = text_of(model);
        options
    }
}

#[derive(Default)]
struct Seen {
    tasks: Vec<(String, u64, u64)>,
    notes: Vec<String>,
    stops_after: usize,
}

unsafe extern "C" fn see(user_data: *mut c_void, progress: *const trtllm_progress) -> i32 {
    // SAFETY: both are valid during the call.
    let (seen, progress) = unsafe { (&mut *user_data.cast::<Seen>(), &*progress) };
    if progress.note.len > 0 {
        seen.notes.push(copied(progress.note));
    } else {
        seen.tasks.push((copied(progress.task), progress.done_bytes, progress.total_bytes));
    }
    i32::from(seen.stops_after > 0 && seen.tasks.len() >= seen.stops_after)
}

#[test]
fn an_engine_is_the_one_that_the_program_builds() {
    let dir = tempfile::tempdir().unwrap();
    let (model, output) = (model(), dir.path().join("engine"));
    let mut seen = Seen::default();
    let mut options = options(&model);
    options.output = text_of(output.to_str().unwrap());
    options.gpu = text_of("none");
    options.max_num_tokens = 64;
    options.max_batch_size = 8;
    options.on_progress = Some(see);
    options.user_data = ptr::from_mut(&mut seen).cast();
    // SAFETY: the options and what they point to live through the call, here and below.
    ok(unsafe { trtllm_build_engine(&options) });
    for (before, after) in seen.tasks.iter().zip(&seen.tasks[1..]) {
        assert!(before.0 != after.0 || before.1 <= after.1, "{:?}", seen.tasks);
    }
    assert!(seen.tasks.last().is_some_and(|(task, done, total)| !task.is_empty() && done == total), "{:?}", seen.tasks);
    let (task, done, total) = seen.tasks.iter().rfind(|(task, ..)| !task.is_empty()).unwrap();
    assert!(task.contains("rank0.weights") && done == total && *total > 0, "{:?}", seen.tasks);
    assert!(seen.notes.iter().any(|note| note.contains("wrote the CPU engine")), "{:?}", seen.notes);

    let same = common::build(Path::new(&model), 64);
    let weights = |dir: &Path| std::fs::read(dir.join("rank0.weights")).unwrap();
    assert!(weights(&output) == weights(&same.path));

    // SAFETY: as above.
    assert_eq!(unsafe { trtllm_build_engine(&options) }, TRTLLM_STATUS_INVALID_FILES);
    assert!(last_error().contains("exists"), "{}", last_error());
    options.force = true.into();
    // SAFETY: as above.
    unsafe {
        ok(trtllm_build_engine(&options));
        ok(trtllm_verify_engine(text_of(output.to_str().unwrap()), None, ptr::null_mut()));
    }

    let mut bytes = weights(&output);
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(output.join("rank0.weights"), bytes).unwrap();
    // SAFETY: as above.
    let verified = unsafe { trtllm_verify_engine(text_of(output.to_str().unwrap()), None, ptr::null_mut()) };
    assert_eq!(verified, TRTLLM_STATUS_INVALID_FILES);
}

#[test]
fn weights_are_of_the_type_that_was_asked_for_and_an_engine_says_so() {
    let model = model();
    for (asked, found) in [("", "bf16"), ("bf16", "bf16"), ("int8", "int8"), ("int4", "int4")] {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("engine");
        let mut options = options(&model);
        options.output = text_of(output.to_str().unwrap());
        options.gpu = text_of("none");
        options.weights = text_of(asked);
        // SAFETY: the options and what they point to live through the call, here and below.
        ok(unsafe { trtllm_build_engine(&options) });
        let mut engine = ptr::null_mut();
        let mut info = std::mem::MaybeUninit::<trtllm_engine_info>::zeroed();
        // SAFETY: the path lives through the call, and the engine and its description are written to; a success initialises them.
        let weights = unsafe {
            (*info.as_mut_ptr()).struct_size = size_of::<trtllm_engine_info>();
            ok(trtllm_open_engine(text_of(output.to_str().unwrap()), ptr::null(), &mut engine));
            ok(trtllm_describe_engine(engine, info.as_mut_ptr()));
            let weights = copied(info.assume_init().weights);
            ok(trtllm_close_engine(engine));
            weights
        };
        assert_eq!(weights, found);
    }
    let mut options = options(&model);
    options.weights = text_of("int5");
    options.output = text_of("never");
    // SAFETY: as above.
    assert_eq!(unsafe { trtllm_build_engine(&options) }, TRTLLM_STATUS_INVALID_ARGUMENT);
    assert!(last_error().contains("weights: `int5` is no type of weights: bf16, int8 or int4"), "{}", last_error());
}

#[test]
fn a_callback_that_stops_a_build_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (model, output) = (model(), dir.path().join("engine"));
    for stops_after in [1, 2] {
        let mut seen = Seen { stops_after, ..Seen::default() };
        let mut options = options(&model);
        options.output = text_of(output.to_str().unwrap());
        options.gpu = text_of("none");
        options.on_progress = Some(see);
        options.user_data = ptr::from_mut(&mut seen).cast();
        // SAFETY: the options and what they point to live through the call.
        assert_eq!(unsafe { trtllm_build_engine(&options) }, TRTLLM_STATUS_CANCELLED);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_target_that_is_not_here_says_what_to_type_and_the_checkpoint_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (model, checkpoint, output) = (model(), dir.path().join("checkpoint"), dir.path().join("engine"));
    let mut options = options(&model);
    options.gpu = text_of("a100");
    options.output = text_of(output.to_str().unwrap());
    options.checkpoint = text_of(checkpoint.to_str().unwrap());
    // SAFETY: the options and what they point to live through the calls, here and below.
    assert_eq!(unsafe { trtllm_build_engine(&options) }, TRTLLM_STATUS_UNAVAILABLE);
    assert!(last_error().contains("build-engine --model") && last_error().contains("--gpu a100"), "{}", last_error());
    assert!(checkpoint.join("rank0.safetensors").is_file() && !output.exists());

    options.output = trtllm_str { data: ptr::null(), len: 0 };
    options.force = true.into();
    options.tp_size = 2;
    // SAFETY: as above.
    ok(unsafe { trtllm_build_engine(&options) });
    assert!(checkpoint.join("rank1.safetensors").is_file());
}

#[test]
fn a_plan_needs_the_configuration_only() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(Path::new(&model()).join("config.json"), dir.path().join("config.json")).unwrap();
    let mut options = options(dir.path().to_str().unwrap());
    options.gpu = text_of("a100");
    let mut plan = std::mem::MaybeUninit::<trtllm_memory_plan>::zeroed();
    // SAFETY: all zeros is a plan, whose size is set; the options live through the calls.
    let plan = unsafe {
        let plan = plan.assume_init_mut();
        plan.struct_size = size_of::<trtllm_memory_plan>();
        ok(trtllm_plan_memory(&options, plan));
        plan
    };
    assert_eq!(copied(plan.target), "a100");
    assert!(plan.memory_bytes > 70_000_000_000 && plan.missing_bytes == 0 && plan.weights_bytes > 0);
    assert!(plan.kv_cache_bytes + plan.weights_bytes < plan.memory_bytes);
    assert!(plan.largest_batch > 0 && plan.max_batch_size > 0 && plan.longest_sequence as usize == plan.max_seq_len);

    options.gpu = text_of("none");
    options.max_batch_size = 3;
    // SAFETY: as above.
    ok(unsafe { trtllm_plan_memory(&options, plan) });
    assert_eq!((copied(plan.target), plan.max_batch_size), ("none".to_owned(), 3));
}

#[test]
fn what_can_be_run_is_explained() {
    for (executor, expected) in [(TRTLLM_EXECUTOR_CPU, Some(true)), (TRTLLM_EXECUTOR_TENSORRT_LLM, None)] {
        let (mut available, mut explanation) = (false.into(), ptr::null_mut());
        // SAFETY: the places are valid.
        ok(unsafe { trtllm_query_executor(executor, &mut available, &mut explanation) });
        let explanation = taken(explanation);
        assert!(explanation.len() > 20, "{explanation}");
        assert!(expected.is_none_or(|expected| is(available) == expected), "{explanation}");
    }
}

#[test]
fn weights_that_are_no_numbers_are_refused_unless_they_are_allowed() {
    let damaged = common::with_nan(Path::new(&model()), "model.norm.weight", 3);
    let (dir, model) = (tempfile::tempdir().unwrap(), damaged.path().to_str().unwrap().to_owned());
    let output = dir.path().join("engine");
    let mut options = options(&model);
    options.output = text_of(output.to_str().unwrap());
    options.gpu = text_of("none");
    // SAFETY: the options and what they point to live through the call, here and below.
    assert_eq!(unsafe { trtllm_build_engine(&options) }, TRTLLM_STATUS_INVALID_FILES);
    let error = last_error();
    for part in ["model.safetensors", "`model.norm.weight`", "NaN at [3, 0]", "`allow_non_finite`"] {
        assert!(error.contains(part), "{error}");
    }
    options.allow_non_finite = true.into();
    // SAFETY: as above.
    ok(unsafe { trtllm_build_engine(&options) });
}
