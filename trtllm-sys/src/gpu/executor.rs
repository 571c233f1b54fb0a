//! TensorRT-LLM's executor.

use std::ffi::CStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use crate::HostSignals;

use super::bindings::{
    TRTLLM_GPU_BUSY, TRTLLM_GPU_CANCELLED, TRTLLM_GPU_OK, TRTLLM_GPU_UNSUPPORTED, trtllm_gpu_error,
    trtllm_gpu_executor, trtllm_gpu_ids, trtllm_gpu_text, trtllm_gpu_tokenizer,
};
use super::library::{Table, to_text};
use super::request::RawRequest;
use super::settings::{Settings, to_c};
use super::{GpuError, GpuLibrary, GpuRequest, GpuTokenizer, Responses, Setting};

pub use super::bindings::trtllm_gpu_iteration_stats as GpuIterationStats;

/// An executor that runs; all its methods may be called from any thread. [`GpuExecutor::close`] ends it; dropped without
/// that, it runs on, because ending it may take for ever.
#[derive(Debug)]
pub struct GpuExecutor {
    table: Table,
    /// Read-locked by every call, so that none of them meets a closed executor.
    raw: RwLock<Raw>,
}

/// Null when closed.
#[derive(Debug)]
struct Raw(*mut trtllm_gpu_executor);

// SAFETY: the executor's functions may be called on any thread.
unsafe impl Send for Raw {}
// SAFETY: as for `Send`: several at a time, too; `close` is kept apart by the lock.
unsafe impl Sync for Raw {}

/// A function of the table; the shim sets all of them.
macro_rules! function {
    ($table:expr, $name:ident) => {
        $table
            .get()
            .$name
            .ok_or_else(|| GpuError::Unsupported { feature: concat!("`", stringify!($name), "`").to_owned() })
    };
}
pub(super) use function;

impl GpuExecutor {
    /// Opens an engine. Blocks until it is loaded; in orchestrator mode until every worker is there, which may be never.
    ///
    /// # Errors
    /// [`GpuError`]; [`GpuError::Busy`] while this process builds engines.
    pub fn open(
        library: &GpuLibrary,
        engine: &Path,
        settings: &[Setting],
        tokenizer: Option<&GpuTokenizer>,
    ) -> Result<Self, GpuError> {
        let table = library.table();
        let engine = std::ffi::CString::new(engine.as_os_str().as_bytes())
            .map_err(|_| GpuError::Nul { what: "the engine's path".to_owned() })?;
        let settings = Settings::new(settings)?;
        let texts = tokenizer
            .map(|tokenizer| {
                let vocabulary = tokenizer.vocabulary.iter();
                let vocabulary: Result<Vec<_>, _> = vocabulary.map(|token| to_c(token, "a token")).collect();
                Ok::<_, GpuError>((to_c(&tokenizer.tokenizer_json, "tokenizer.json")?, vocabulary?, tokenizer))
            })
            .transpose()?;
        let pointers: Vec<_> =
            texts.iter().flat_map(|(_, vocabulary, _)| vocabulary.iter().map(|token| token.as_ptr())).collect();
        let raw_tokenizer = texts.as_ref().map(|(json, _, tokenizer)| trtllm_gpu_tokenizer {
            tokenizer_json: json.as_ptr(),
            vocabulary: pointers.as_ptr(),
            vocabulary_len: pointers.len(),
            stop_token_ids: trtllm_gpu_ids {
                data: tokenizer.stop_token_ids.as_ptr().cast(),
                len: tokenizer.stop_token_ids.len(),
            },
        });
        let open = function!(table, open)?;
        let mut raw = std::ptr::null_mut();
        let mut error = ErrorBuffer::new();
        let tokenizer = raw_tokenizer.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let _signals = HostSignals::note();
        // SAFETY: every pointer is valid for the call, and lengths are those of what they belong to.
        let status = unsafe {
            let array = &settings.array;
            open(engine.as_ptr(), array.as_ptr(), array.len(), tokenizer, &raw mut raw, error.get())
        };
        error.check(status)?;
        Ok(Self { table, raw: RwLock::new(Raw(raw)) })
    }

    /// The open executor, which stays open as long as the guard is held.
    fn raw(&self) -> Result<RwLockReadGuard<'_, Raw>, GpuError> {
        let raw = self.raw.read().unwrap_or_else(PoisonError::into_inner);
        if raw.0.is_null() {
            Err(GpuError::Exception { message: "the executor is closed".to_owned() })
        } else {
            Ok(raw)
        }
    }

    /// Whether this process may enqueue and await: of several ranks, the leader; the orchestrator.
    pub fn can_enqueue(&self) -> bool {
        match (self.raw(), self.table.get().can_enqueue) {
            // SAFETY: the executor is open; see `close`.
            (Ok(raw), Some(can_enqueue)) => unsafe { can_enqueue(raw.0) },
            _ => false,
        }
    }

    /// Ends the executor: waits for calls that are under way and for all that was enqueued, on a rank that may not enqueue
    /// for the leader's end. The second call does nothing; other calls are refused from then on.
    ///
    /// # Errors
    /// [`GpuError`]; the executor is no more all the same.
    pub fn close(&self) -> Result<(), GpuError> {
        let mut guard = self.raw.write().unwrap_or_else(PoisonError::into_inner);
        let raw = std::mem::replace(&mut guard.0, std::ptr::null_mut());
        drop(guard);
        if raw.is_null() {
            return Ok(());
        }
        let close = function!(self.table, close)?;
        let mut error = ErrorBuffer::new();
        // SAFETY: the executor was open; no call was under way when the lock was taken, and none finds it from then on.
        let status = unsafe { close(raw, error.get()) };
        error.check(status)
    }

    /// Queues a request and gives it an id. Its first response may come before this returns.
    ///
    /// # Errors
    /// [`GpuError`].
    pub fn enqueue(&self, request: &GpuRequest<'_>) -> Result<u64, GpuError> {
        let enqueue = function!(self.table, enqueue)?;
        let mut request = RawRequest::new(request)?;
        let (mut id, mut error) = (0, ErrorBuffer::new());
        let raw = self.raw()?;
        // SAFETY: the executor is open, and the request points to what outlives the call; the shim copies all of it.
        let status = unsafe { enqueue(raw.0, request.get(), &raw mut id, error.get()) };
        error.check(status).map(|()| id)
    }

    /// Waits for responses, at most `timeout_ms`; `None` where none came.
    ///
    /// # Errors
    /// [`GpuError`].
    pub fn await_responses(&self, timeout_ms: u64) -> Result<Option<Responses>, GpuError> {
        let await_ = function!(self.table, await_)?;
        let (mut responses, mut error) = (std::ptr::null_mut(), ErrorBuffer::new());
        let raw = self.raw()?;
        // SAFETY: the executor is open; the function writes one pointer.
        let status = unsafe { await_(raw.0, timeout_ms, &raw mut responses, error.get()) };
        error.check(status)?;
        Ok((!responses.is_null()).then(|| Responses::new(self.table, responses)))
    }

    /// Asks for a request's end. An unknown id is ignored.
    ///
    /// # Errors
    /// [`GpuError`].
    pub fn cancel(&self, id: u64) -> Result<(), GpuError> {
        let cancel = function!(self.table, cancel)?;
        let mut error = ErrorBuffer::new();
        let raw = self.raw()?;
        // SAFETY: the executor is open.
        let status = unsafe { cancel(raw.0, id, error.get()) };
        error.check(status)
    }

    /// Statistics of the iterations since the last call, oldest first.
    ///
    /// # Errors
    /// [`GpuError`].
    pub fn iteration_stats(&self) -> Result<Vec<GpuIterationStats>, GpuError> {
        const PIECE: usize = 256;
        let take = function!(self.table, iteration_stats)?;
        let mut all = Vec::new();
        let raw = self.raw()?;
        loop {
            let mut piece = [GpuIterationStats::default(); PIECE];
            let (mut count, mut error) = (0, ErrorBuffer::new());
            // SAFETY: the executor is open; the function writes at most `PIECE` structs and one number.
            let status = unsafe { take(raw.0, piece.as_mut_ptr(), PIECE, &raw mut count, error.get()) };
            error.check(status)?;
            all.extend_from_slice(&piece[..count.min(PIECE)]);
            if count < PIECE {
                return Ok(all);
            }
        }
    }

    /// Statistics of each request in each iteration since the last call, as TensorRT-LLM's JSON, one object a line.
    ///
    /// # Errors
    /// [`GpuError`].
    pub fn request_stats(&self) -> Result<String, GpuError> {
        let take = function!(self.table, request_stats)?;
        let (mut text, mut error) = (std::ptr::null_mut(), ErrorBuffer::new());
        let raw = self.raw()?;
        // SAFETY: the executor is open; the function writes one pointer.
        let status = unsafe { take(raw.0, &raw mut text, error.get()) };
        error.check(status)?;
        self.take_text(text)
    }

    /// Events of the KV cache since the last call, one JSON object a line; waits at most `timeout_ms` for one.
    ///
    /// # Errors
    /// [`GpuError`]; [`GpuError::Unsupported`] without `kv_cache.event_buffer_max_size`.
    pub fn kv_cache_events(&self, timeout_ms: u64) -> Result<String, GpuError> {
        let take = function!(self.table, kv_cache_events)?;
        let (mut text, mut error) = (std::ptr::null_mut(), ErrorBuffer::new());
        let raw = self.raw()?;
        // SAFETY: the executor is open; the function writes one pointer.
        let status = unsafe { take(raw.0, timeout_ms, &raw mut text, error.get()) };
        error.check(status)?;
        self.take_text(text)
    }

    fn take_text(&self, text: *mut trtllm_gpu_text) -> Result<String, GpuError> {
        let (data, free) = (function!(self.table, text_data)?, function!(self.table, free_text)?);
        // SAFETY: the text is this function's own, and is freed after its content was copied.
        unsafe {
            let copy = to_text(data(text)).unwrap_or_default();
            free(text);
            Ok(copy)
        }
    }
}

/// Where the shim writes why a call failed.
pub(super) struct ErrorBuffer(trtllm_gpu_error);

impl ErrorBuffer {
    pub(super) fn new() -> Self {
        Self(trtllm_gpu_error { message: [0; 2048] })
    }

    pub(super) fn get(&mut self) -> *mut trtllm_gpu_error {
        &raw mut self.0
    }

    pub(super) fn check(&self, status: i32) -> Result<(), GpuError> {
        if status == TRTLLM_GPU_OK as i32 {
            return Ok(());
        }
        if status == TRTLLM_GPU_CANCELLED as i32 {
            return Err(GpuError::Cancelled);
        }
        let bytes = self.0.message.map(|byte| byte as u8);
        let text = CStr::from_bytes_until_nul(&bytes).unwrap_or_default().to_string_lossy().into_owned();
        if status == TRTLLM_GPU_UNSUPPORTED as i32 {
            return Err(GpuError::Unsupported { feature: text });
        }
        if status == TRTLLM_GPU_BUSY as i32 {
            return Err(GpuError::Busy { message: text });
        }
        Err(GpuError::Exception { message: text })
    }
}
