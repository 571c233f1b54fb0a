//! Token ids and text: everything between what people write and what a model reads. No executor is known here.
//!
//! In reading order:
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`tokenizer`] | text to ids, and the bytes that each token stands for |
//! | [`detokenizer`] | ids to text as they arrive, whole characters only |
//! | [`stop_strings`] | texts that end an output, found across tokens |
//! | [`text_stream`] | detokenizer and stop strings together: the text of one sequence |
//! | [`mod@end_ids`] | which tokens end a sequence |
//! | [`chat`] | chat templates: messages to a prompt |
//! | [`model_files`] | tokenizer and template of a model, checked as a run will open them |
//! | [`guide`] | what an output must look like: JSON schemas, regexes and grammars, as masks over tokens |

#![forbid(unsafe_code)]

pub mod chat;
pub mod detokenizer;
pub mod end_ids;
pub mod guide;
pub mod model_files;
pub mod stop_strings;
pub mod text_stream;
pub mod tokenizer;

pub use guide::GuidedDecodingParams;

/// A token's id.
pub type TokenId = u32;
