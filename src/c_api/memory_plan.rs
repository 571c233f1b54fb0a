//! What would fit where.

use engine_builder::memory_plan::{Executor, MemoryPlan};
use engine_builder::progress::{Interrupt, Quiet};
use engine_format::Target;
use engine_format::target::GPUS;

use super::build::{cannot_build, settings, trtllm_build_options};
use super::entry::entry;
use super::options::{self, Options};
use super::status::{Failure, trtllm_status};
use super::strings::trtllm_str;

/// The memory plan of a model on a target, for the rank that needs most. An estimate: what a TensorRT engine takes is known
/// when it is built.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct trtllm_memory_plan {
    /// `sizeof(trtllm_memory_plan)`: set it before the call.
    pub struct_size: usize,
    /// The target's name, as `gpu` takes it: `none` where `auto` found no GPU. Always valid.
    pub target: trtllm_str,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of weights.
    pub weights_bytes: u64,
    /// Bytes of activations at these limits.
    pub activation_bytes: u64,
    /// Bytes set aside for the runtime.
    pub reserve_bytes: u64,
    /// Bytes of keys and values of one token.
    pub kv_bytes_per_token: u64,
    /// Bytes that the KV cache gets.
    pub kv_cache_bytes: u64,
    /// Bytes that are lacking before one sequence of `max_seq_len` tokens can run; 0 when it fits.
    pub missing_bytes: u64,
    /// Most sequences of `max_seq_len` tokens at once.
    pub largest_batch: u64,
    /// Tokens of the longest sequence that fits alone.
    pub longest_sequence: u64,
    /// The limits asked for, or chosen.
    pub max_seq_len: usize,
    /// See `max_seq_len`.
    pub max_batch_size: usize,
    /// See `max_seq_len`.
    pub max_num_tokens: usize,
    /// Tensor-parallel size.
    pub tp_size: usize,
    /// Pipeline-parallel size.
    pub pp_size: usize,
    /// When it does not fit on a GPU: the smallest larger tensor-parallel size with which it would; else 0.
    pub smallest_tp_size: usize,
}

// SAFETY: `repr(C)`, begins with its size, and holds numbers and raw pointers only.
unsafe impl Options for trtllm_memory_plan {
    const FIRST_SIZE: usize = 144;

    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            target: trtllm_str::EMPTY,
            memory_bytes: 0,
            weights_bytes: 0,
            activation_bytes: 0,
            reserve_bytes: 0,
            kv_bytes_per_token: 0,
            kv_cache_bytes: 0,
            missing_bytes: 0,
            largest_batch: 0,
            longest_sequence: 0,
            max_seq_len: 0,
            max_batch_size: 0,
            max_num_tokens: 0,
            tp_size: 0,
            pp_size: 0,
            smallest_tp_size: 0,
        }
    }
}

impl trtllm_memory_plan {
    fn of(plan: &MemoryPlan) -> Self {
        let gpu = GPUS.iter().find(|gpu| gpu.name == plan.place.target);
        let target = match plan.place.executor {
            Executor::Cpu => Target::Cpu,
            Executor::TensorRtLlm => gpu.map_or(Target::Auto, Target::Gpu),
        };
        Self {
            target: trtllm_str::of(target.name()),
            memory_bytes: plan.place.memory_bytes,
            weights_bytes: plan.weights_bytes,
            activation_bytes: plan.activation_bytes,
            reserve_bytes: plan.reserve_bytes,
            kv_bytes_per_token: plan.kv_bytes_per_token,
            kv_cache_bytes: plan.kv_cache_bytes,
            missing_bytes: plan.missing_bytes,
            largest_batch: plan.largest_batch,
            longest_sequence: plan.longest_sequence,
            max_seq_len: plan.limits.max_seq_len,
            max_batch_size: plan.limits.max_batch_size,
            max_num_tokens: plan.limits.max_num_tokens,
            tp_size: plan.mapping.tp_size,
            pp_size: plan.mapping.pp_size,
            smallest_tp_size: plan.smallest_tp_size.unwrap_or(0),
            ..Self::defaults()
        }
    }
}

/// Plans the memory of the engine that `options` ask for, from any machine and with only the model's `config.json` at hand;
/// `output` and `checkpoint` are not looked at, and without `gpu` it is `auto`. Set `plan->struct_size` before the call.
///
/// Errors: as `trtllm_build_engine`. An engine that does not fit is no error: see `missing_bytes`. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_plan_memory(
    options: *const trtllm_build_options,
    plan: *mut trtllm_memory_plan,
) -> trtllm_status {
    entry(|| {
        // SAFETY: as the caller promises, for the options, their texts, and the size of the plan.
        let (mut settings, struct_size) = unsafe {
            let options = options::read(options, "options")?;
            (settings(&options)?, options::size_of_output(plan, "plan")?)
        };
        settings.target.get_or_insert(Target::Auto);
        let plans =
            engine_builder::build::plan(&settings, &Quiet, &Interrupt::new()).map_err(|error| cannot_build(&error))?;
        let found = plans.plans.first().ok_or_else(|| Failure::argument("there is no such target"))?;
        // SAFETY: as the caller promises.
        unsafe { options::write(plan, struct_size, &trtllm_memory_plan::of(found), "plan") }
    })
}
