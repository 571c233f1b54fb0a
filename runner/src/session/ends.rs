//! What ends the sequences of a request by their tokens, and which of it has ended one.

use crate::executor::{FinishReason, RequestSpec, TokenId};

use super::StopReason;

/// The end ids and stop words of a request.
#[derive(Debug)]
pub(super) struct Ends {
    end_ids: Vec<TokenId>,
    stop_words: Vec<Vec<TokenId>>,
    /// The end of the prompt, in which a stop word may begin.
    prompt: Vec<TokenId>,
}

/// The last tokens of a sequence, as many as the longest stop word has, and one at least.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail(Vec<TokenId>);

impl Ends {
    pub(super) fn of(spec: &RequestSpec) -> Self {
        let (end_ids, stop_words) = (spec.end_ids.clone(), spec.stop_words.clone());
        let mut ends = Self { end_ids, stop_words, prompt: Vec::new() };
        let prompt = &spec.input_token_ids;
        ends.prompt = prompt[prompt.len().saturating_sub(ends.reach() - 1)..].to_vec();
        ends
    }

    /// The tail of a sequence that has no tokens yet.
    pub(super) fn tail(&self) -> Tail {
        Tail(self.prompt.clone())
    }

    /// How many tokens tell what has ended a sequence.
    fn reach(&self) -> usize {
        self.stop_words.iter().map(Vec::len).max().unwrap_or(0).max(1)
    }

    /// Adds tokens to a sequence's tail.
    pub(super) fn follow(&self, tail: &mut Tail, tokens: &[TokenId]) {
        tail.0.extend_from_slice(&tokens[tokens.len().saturating_sub(self.reach())..]);
        let surplus = tail.0.len().saturating_sub(self.reach());
        tail.0.drain(..surplus);
    }

    /// What ended a sequence of this tail: of several stop words the longest.
    pub(super) fn reason(&self, tail: &Tail, finish_reason: Option<FinishReason>) -> Option<StopReason> {
        let last = tail.0.last()?;
        let tokens = match finish_reason? {
            FinishReason::EndId => self.end_ids.contains(last).then(|| vec![*last]),
            FinishReason::StopWords => {
                self.stop_words.iter().filter(|word| tail.0.ends_with(word)).max_by_key(|word| word.len()).cloned()
            }
            _ => None,
        };
        tokens.map(StopReason::Tokens)
    }
}
