//! TensorRT-LLM's executor, over the stand-in for its library.

use std::sync::Arc;

use crate::stand_in::StandInEngine;
use crate::subject::Subject;

/// A pause in each iteration, so that there is time to cancel.
fn subject() -> Subject {
    let engine = StandInEngine::new("parity/mistral-gqa", "latency_us 200\n");
    Subject { open: Box::new(move |config| Arc::new(engine.open(config))) }
}

crate::keeps_its_promises!(super::subject);

/// The same with responses of several tokens, and ends that come alone.
mod in_pieces {
    use super::*;

    fn subject() -> Subject {
        let engine = StandInEngine::new("parity/mistral-gqa", "latency_us 200\ntokens_per_response 3\nempty_final 1\n");
        Subject { open: Box::new(move |config| Arc::new(engine.open(config))) }
    }

    crate::keeps_its_promises!(super::subject);
}
