//! Statistics of an executor's iterations.

use std::ptr;
use std::time::Duration;

use runner::executor::IterationStats;
use trtllm_sys::gpu::GpuError;

use super::engine::{ENGINES, trtllm_engine};
use super::entry::entry;
use super::handles::{Kind, Table};
use super::pointers::Out;
use super::status::{Failure, TRTLLM_STATUS_SYSTEM, TRTLLM_STATUS_UNSUPPORTED, trtllm_status};
use super::strings::{new_string, trtllm_string};

/// What one iteration did, in TensorRT-LLM's terms. The library fills it; later versions may make it longer.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct trtllm_iteration_stats {
    /// Bytes of this struct.
    pub struct_size: usize,
    /// Number of the iteration, from 0.
    pub iter: u64,
    /// Nanoseconds of the whole iteration.
    pub iter_latency_ns: u64,
    /// Nanoseconds of it inside the model.
    pub model_latency_ns: u64,
    /// Nanoseconds that the requests which started in it had waited, in all.
    pub new_active_requests_queue_latency_ns: u64,
    /// Requests that started in it.
    pub num_new_active_requests: usize,
    /// Requests that have started and not ended.
    pub num_active_requests: usize,
    /// Requests that wait.
    pub num_queued_requests: usize,
    /// Requests that ended in it.
    pub num_completed_requests: usize,
    /// Sequences in it.
    pub num_scheduled_requests: usize,
    /// Sequences in their context phase.
    pub num_context_requests: usize,
    /// Sequences in their generation phase.
    pub num_gen_requests: usize,
    /// Sequences that were paused to make room.
    pub num_paused_requests: usize,
    /// Prompt tokens processed.
    pub num_ctx_tokens: usize,
    /// Blocks of the KV cache.
    pub kv_cache_max_num_blocks: usize,
    /// Blocks that nobody uses.
    pub kv_cache_free_num_blocks: usize,
    /// Blocks in use.
    pub kv_cache_used_num_blocks: usize,
    /// Tokens of one block.
    pub kv_cache_tokens_per_block: usize,
    /// Blocks handed to sequences, new and reused, since the start.
    pub kv_cache_alloc_total_blocks: u64,
    /// Blocks handed to sequences to be filled, since the start.
    pub kv_cache_alloc_new_blocks: u64,
    /// Blocks handed to sequences already filled, since the start.
    pub kv_cache_reused_blocks: u64,
    /// Full blocks of prompts that were looked for and not found, since the start.
    pub kv_cache_missed_blocks: u64,
}

/// Statistics that the library made and the host frees, with `trtllm_free_iteration_stats`.
pub struct trtllm_iteration_stats_list(());

static LISTS: Table<StatsList, trtllm_iteration_stats_list> = Table::new(Kind::IterationStats);

struct StatsList {
    pointers: Vec<*const trtllm_iteration_stats>,
    /// What `pointers` point to.
    _stats: Vec<trtllm_iteration_stats>,
}

// SAFETY: nothing changes after it was made, and the pointers are into its own vector.
unsafe impl Send for StatsList {}
// SAFETY: as above.
unsafe impl Sync for StatsList {}

/// Takes the statistics of the iterations since the last call, oldest first, as a new list, which may be empty. The engine
/// keeps the newest `iter_stats_max_iterations`. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_take_iteration_stats(
    engine: *mut trtllm_engine,
    list: *mut *mut trtllm_iteration_stats_list,
) -> trtllm_status {
    entry(|| {
        let open = ENGINES.get(engine)?;
        // SAFETY: as the caller promises.
        let out = unsafe { Out::new(list, "list") }?;
        let stats: Vec<_> = open.session.executor().iteration_stats().iter().map(view).collect();
        out.write(LISTS.insert(StatsList { pointers: stats.iter().map(ptr::from_ref).collect(), _stats: stats })?);
        Ok(())
    })
}

/// Looks into a list of statistics: writes to `array` where pointers to them are, and to `count` how many. All of it is valid
/// until the list is freed. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_view_iteration_stats(
    list: *const trtllm_iteration_stats_list,
    array: *mut *const *const trtllm_iteration_stats,
    count: *mut usize,
) -> trtllm_status {
    entry(|| {
        let list = LISTS.get(list)?;
        // SAFETY: as the caller promises, for both.
        let (array, count) = unsafe { (Out::new(array, "array")?, Out::new(count, "count")?) };
        array.write(list.pointers.as_ptr());
        count.write(list.pointers.len());
        Ok(())
    })
}

/// Frees a list of statistics. Views of it are no longer valid. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn trtllm_free_iteration_stats(list: *mut trtllm_iteration_stats_list) -> trtllm_status {
    entry(|| LISTS.remove(list).map(drop))
}

fn view(stats: &IterationStats) -> trtllm_iteration_stats {
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let (batch, kv_cache) = (stats.inflight_batching, stats.kv_cache);
    trtllm_iteration_stats {
        struct_size: size_of::<trtllm_iteration_stats>(),
        iter: stats.iter,
        iter_latency_ns: nanoseconds(stats.iter_latency),
        model_latency_ns: nanoseconds(stats.model_latency),
        new_active_requests_queue_latency_ns: nanoseconds(stats.new_active_requests_queue_latency),
        num_new_active_requests: stats.num_new_active_requests,
        num_active_requests: stats.num_active_requests,
        num_queued_requests: stats.num_queued_requests,
        num_completed_requests: stats.num_completed_requests,
        num_scheduled_requests: batch.num_scheduled_requests,
        num_context_requests: batch.num_context_requests,
        num_gen_requests: batch.num_gen_requests,
        num_paused_requests: batch.num_paused_requests,
        num_ctx_tokens: batch.num_ctx_tokens,
        kv_cache_max_num_blocks: kv_cache.max_num_blocks,
        kv_cache_free_num_blocks: kv_cache.free_num_blocks,
        kv_cache_used_num_blocks: kv_cache.used_num_blocks,
        kv_cache_tokens_per_block: kv_cache.tokens_per_block,
        kv_cache_alloc_total_blocks: kv_cache.alloc_total_blocks,
        kv_cache_alloc_new_blocks: kv_cache.alloc_new_blocks,
        kv_cache_reused_blocks: kv_cache.reused_blocks,
        kv_cache_missed_blocks: kv_cache.missed_blocks,
    }
}

/// Takes the statistics of each request in each iteration since the last call, as TensorRT-LLM's JSON, one object a line: writes a
/// new string to `lines`. Empty without `request_stats_max_iterations` in the configuration. TensorRT-LLM's executor only
/// (`TRTLLM_STATUS_UNSUPPORTED`). Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_take_request_stats(
    engine: *const trtllm_engine,
    lines: *mut *mut trtllm_string,
) -> trtllm_status {
    entry(|| {
        let open = ENGINES.get(engine)?;
        // SAFETY: as the caller promises.
        let out = unsafe { Out::new(lines, "lines") }?;
        let text = open.tensorrt_llm()?.request_stats().map_err(|error| gpu_failure(&error))?;
        out.write(new_string(&text)?);
        Ok(())
    })
}

/// Takes what has happened to blocks of the KV cache since the last call, one JSON object a line (`event_id`, `type`: `created`,
/// `stored`, `removed` or `updated`): writes a new string to `lines`, after at most `timeout_ms` where nothing has. Needs
/// `kv_cache.event_buffer_max_size` in the configuration, and no orchestrator. TensorRT-LLM's executor only
/// (`TRTLLM_STATUS_UNSUPPORTED`).
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_take_kv_cache_events(
    engine: *const trtllm_engine,
    timeout_ms: u64,
    lines: *mut *mut trtllm_string,
) -> trtllm_status {
    entry(|| {
        let open = ENGINES.get(engine)?;
        // SAFETY: as the caller promises.
        let out = unsafe { Out::new(lines, "lines") }?;
        let events = open.tensorrt_llm()?.kv_cache_events(Duration::from_millis(timeout_ms));
        out.write(new_string(&events.map_err(|error| gpu_failure(&error))?)?);
        Ok(())
    })
}

fn gpu_failure(error: &GpuError) -> Failure {
    let status = match error {
        GpuError::Unsupported { .. } | GpuError::Unavailable { .. } => TRTLLM_STATUS_UNSUPPORTED,
        _ => TRTLLM_STATUS_SYSTEM,
    };
    Failure::from_error(status, error)
}
