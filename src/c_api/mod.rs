//! The C ABI: what `libtrtllm.so` exports and `include/trtllm.h` declares.
//!
//! The header is generated from this module (the root `build.rs`), so its documentation is written here, for readers of C.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`views`] | truth, texts and lists of ids, as C sees them |
//! | [`status`] | status codes, the message of the last failure |
//! | `fork` | children of a process that had an engine |
//! | `entry` | the border: no panic crosses it |
//! | `pointers` | every conversion of what C hands in and takes out |
//! | `options` | structs that begin with their size |
//! | `handles` | handles that know when they are stale |
//! | [`strings`] | texts and lists of ids that the host owns |
//! | [`version`] | versions, and what this build can run |
//! | [`log`] | what the library logs, brought to the host |
//! | [`engine`] | opening, describing and closing engines |
//! | [`request`], [`response`], [`logits`], [`fail`] | requests, what comes of them, the logits hook, how callbacks fail |
//! | `owned_response` | a response of the session as C sees it |
//! | `submission`, [`request_queue`] | a request of C as one of the session; queued, cancelled |
//! | [`queue`] | response queues, and descriptors that say when responses wait |
//! | [`stats`] | statistics of iterations |
//! | [`tokenizer`] | tokens, text, chat |
//! | [`build`], [`memory_plan`] | building engines |

#![allow(non_camel_case_types, reason = "these are the names of the C header")]
#![allow(
    clippy::missing_safety_doc,
    reason = "the text of the header, which is the documentation here, is the contract"
)]
#![allow(unsafe_code, reason = "pointers come from C; `pointers` holds every conversion")]

pub mod build;
pub mod engine;
mod entry;
pub mod fail;
mod fork;
mod handles;
pub mod log;
pub mod logits;
pub mod memory_plan;
mod options;
mod owned_response;
mod pointers;
pub mod queue;
pub mod request;
pub mod request_queue;
pub mod response;
pub mod stats;
pub mod status;
pub mod strings;
mod submission;
pub mod tokenizer;
pub mod version;
pub mod views;

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_header_is_the_generated_one() {
        let (generated, committed) =
            (include_str!(concat!(env!("OUT_DIR"), "/trtllm.h")), include_str!("../../include/trtllm.h"));
        assert!(generated == committed, "include/trtllm.h is not what src/c_api says: run scripts/update-header");
    }
}
