//! The logits hook: what TensorRT-LLM calls a logits post-processor.

use std::ffi::c_void;

use runner::executor::{LogitsContext, LogitsPostProcessor};

use super::entry::callback;
use super::strings::trtllm_ids;

/// What a logits post-processor is told. The library fills it; later versions may make it longer.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct trtllm_logits_context {
    /// Bytes of this struct.
    pub struct_size: usize,
    /// The request.
    pub request_id: u64,
    /// Number of the sequence, from 0; in a beam search the number of the beam, whose tokens can change between calls.
    pub sequence_index: usize,
    /// Prompt and output so far; the logits are those of the token that follows.
    pub token_ids: trtllm_ids,
    /// How many of the tokens are the prompt.
    pub num_prompt_tokens: usize,
}

/// Sees and edits the raw logits of the next token of a request, `vocab_size` numbers, before everything else that chooses a
/// token: bias, temperature, penalties, guide and filters come after it. Minus infinity excludes a token.
/// Log-probabilities that the request asks for are of the logits before the call.
///
/// Returns 0; anything else, `trtllm_fail`, a logit that is plus infinity or NaN, or no token left ends the request with an error.
///
/// Called once for each token of each sequence, on any thread, and for several sequences at the same time. Generation waits
/// for it. There is no call after the request's final response, which waits for those that run. The pointers are valid during the call. It must not unwind (no C++ exception may leave it), and must not call a
/// function that waits for the engine.
pub type trtllm_logits_post_processor = Option<
    unsafe extern "C" fn(
        user_data: *mut c_void,
        context: *const trtllm_logits_context,
        logits: *mut f32,
        vocab_size: usize,
    ) -> i32,
>;

/// A pointer that the host gave and gets back; the library never looks behind it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UserData(*mut c_void);

// SAFETY: only the host's callbacks look behind the pointer, and the header says on which threads they run.
unsafe impl Send for UserData {}
// SAFETY: as above.
unsafe impl Sync for UserData {}

impl UserData {
    pub(crate) fn new(user_data: *mut c_void) -> Self {
        Self(user_data)
    }

    pub(crate) fn get(self) -> *mut c_void {
        self.0
    }
}

/// The Rust side of a hook.
pub(crate) fn post_processor(hook: trtllm_logits_post_processor, user_data: UserData) -> Option<LogitsPostProcessor> {
    let hook = hook?;
    Some(LogitsPostProcessor::new(move |context: &LogitsContext<'_>, logits: &mut [f32]| {
        let context = trtllm_logits_context {
            struct_size: size_of::<trtllm_logits_context>(),
            request_id: context.request_id.0,
            sequence_index: context.sequence_index,
            token_ids: trtllm_ids::of(context.token_ids),
            num_prompt_tokens: context.num_prompt_tokens,
        };
        // SAFETY: the host promises a function of this type that does not unwind; the pointers are valid during the call.
        match callback(|| unsafe { hook(user_data.get(), &context, logits.as_mut_ptr(), logits.len()) }) {
            (_, Some(message)) => Err(message),
            (0, None) => Ok(()),
            (other, None) => Err(format!("it returned {other}")),
        }
    }))
}
