//! Ids of a rendered conversation, in which only the template writes special tokens.
//!
//! The steps are those of the tokenizers library, which has no way to say where in a text special tokens are tokens: added tokens
//! are found in the text, then in what the normalizer made of the rest; what lies between them is split and encoded.

use std::ops::Range;

use aho_corasick::{AhoCorasick, Input, MatchKind};
use tokenizers::tokenizer::OffsetType;
use tokenizers::tokenizer::normalizer::Range as Part;
use tokenizers::{
    AddedToken, AddedVocabulary, Encoding, Model, NormalizedString, Normalizer, NormalizerWrapper, PreTokenizedString,
    PreTokenizer, Token, Tokenizer,
};

type Failure = tokenizers::Error;

/// The added tokens of a tokenizer.
#[derive(Debug)]
pub(super) struct TemplateText {
    /// Those that are found in the text as it is, and in what the normalizer makes of it.
    plain: Patterns,
    normalized: Patterns,
    /// Special tokens, by their text; none where the normalizer has a say in what is one.
    special: Option<AhoCorasick>,
}

#[derive(Debug)]
struct Patterns {
    finder: AhoCorasick,
    tokens: Vec<(u32, AddedToken)>,
}

impl TemplateText {
    pub(super) fn of(tokenizer: &Tokenizer) -> Result<Self, Failure> {
        let added: Vec<(u32, AddedToken)> = tokenizer.get_added_tokens_decoder().into_iter().collect();
        let added = added.into_iter().filter(|(_, token)| !token.content.is_empty());
        let (normalized, plain): (Vec<_>, Vec<_>) = added.partition(|(_, token)| token.normalized);
        let special = plain.iter().chain(&normalized).filter(|(_, token)| token.special);
        let special = finder(special.map(|(_, token)| &token.content))?;
        let has_a_say = normalized.iter().any(|(_, token)| token.special) && tokenizer.get_normalizer().is_some();
        let in_normal_form = |token: &AddedToken| -> Result<String, Failure> {
            let mut text = NormalizedString::from(token.content.as_str());
            tokenizer.get_normalizer().map_or(Ok(()), |normalizer| normalizer.normalize(&mut text))?;
            Ok(text.get().to_owned())
        };
        let forms = normalized.iter().map(|(_, token)| in_normal_form(token)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            plain: Patterns { finder: finder(plain.iter().map(|(_, token)| &token.content))?, tokens: plain },
            normalized: Patterns { finder: finder(&forms)?, tokens: normalized },
            special: (!has_a_say).then_some(special),
        })
    }

    /// Whether the text may have a special token that is, or is partly, of the input.
    pub(super) fn concerns(&self, text: &str, input: &[Range<usize>]) -> bool {
        let Some(special) = &self.special else { return !input.is_empty() };
        let mut at = 0;
        while let Some(found) = special.find(Input::new(text).span(at..text.len())) {
            if overlaps(input, &found.range()) {
                return true;
            }
            at = found.start() + 1;
        }
        false
    }

    /// The tokens of the text; special tokens that overlap the input's ranges are text.
    pub(super) fn encode(
        &self,
        tokenizer: &Tokenizer,
        text: &str,
        input: &[Range<usize>],
        offsets: OffsetType,
    ) -> Result<Encoding, Failure> {
        let is_token = |token: &AddedToken, place: Range<usize>| !token.special || !overlaps(input, &place);
        let mut splits = PreTokenizedString::from(text);
        splits.split(|_, text| Ok(self.plain.split(&text, is_token)))?;
        splits.split(|_, mut text| {
            tokenizer
                .get_normalizer()
                .map_or(Ok(()), |normalizer: &NormalizerWrapper| normalizer.normalize(&mut text))?;
            Ok(self.normalized.split(&text, is_token))
        })?;
        if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut splits)?;
        }
        let added = tokenizer.get_added_vocabulary();
        splits.tokenize(|text| {
            let tokens = tokenizer.get_model().tokenize(text.get())?;
            match tokens.iter().find(|token| is_written(added, token, text.get())) {
                None => Ok(tokens),
                Some(token) => Err(format!(
                    "a message has the special token `{}`, which this tokenizer cannot write as plain text: take it out of the \
                     message, or allow special tokens in messages",
                    token.value
                )
                .into()),
            }
        })?;
        splits.into_encoding(None, 0, offsets)
    }
}

/// Whether a token of the model is a special one that stands in the text. The token for unknown text does not.
fn is_written(added: &AddedVocabulary, token: &Token, text: &str) -> bool {
    added.is_special_token(&token.value) && text.contains(&token.value)
}

fn finder<P: AsRef<[u8]>>(patterns: impl IntoIterator<Item = P>) -> Result<AhoCorasick, Failure> {
    Ok(AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(patterns)?)
}

/// Whether ascending ranges have a byte of this place.
fn overlaps(ranges: &[Range<usize>], place: &Range<usize>) -> bool {
    let after = ranges.partition_point(|range| range.end <= place.start);
    ranges.get(after).is_some_and(|range| range.start < place.end)
}

impl Patterns {
    /// Tokens and the text between them. `is_token` is asked with a token's place in the whole text.
    fn split(
        &self,
        text: &NormalizedString,
        is_token: impl Fn(&AddedToken, Range<usize>) -> bool,
    ) -> Vec<(NormalizedString, Option<Vec<Token>>)> {
        let whole = text.get();
        let (mut splits, mut from, mut at) = (Vec::new(), 0, 0);
        let mut push = |range: Range<usize>, id: Option<u32>| {
            if let Some(part) = text.slice(Part::Normalized(range)) {
                let tokens = id.map(|id| vec![Token::new(id, part.get().to_owned(), (0, part.get().len()))]);
                splits.push((part, tokens));
            }
        };
        while let Some(found) = self.finder.find(Input::new(whole).span(at..whole.len())) {
            let (id, token) = &self.tokens[found.pattern()];
            let (mut start, mut end) = (found.start(), found.end());
            let place = text.convert_offsets(Part::Normalized(start..end)).unwrap_or(0..0);
            let shift = text.offsets_original().0;
            if !is_token(token, place.start + shift..place.end + shift) {
                at = start + whole[start..].chars().next().map_or(1, char::len_utf8);
                continue;
            }
            at = end;
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            if token.single_word && (whole[..start].ends_with(is_word) || whole[end..].starts_with(is_word)) {
                continue;
            }
            if token.lstrip {
                start = from.max(whole[..start].trim_end().len());
            }
            if token.rstrip {
                end = whole.len() - whole[end..].trim_start().len();
            }
            if from < start {
                push(from..start, None);
            }
            push(start..end, Some(*id));
            from = end;
        }
        if from < whole.len() || whole.is_empty() {
            push(from..whole.len(), None);
        }
        splits
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use proptest::prelude::*;

    /// The fixtures' tokenizers, and each with further tokens of every kind.
    fn tokenizers() -> Vec<Tokenizer> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/tokenizer");
        let mut all = Vec::new();
        for name in ["tokenizer.json", "byte-fallback/tokenizer.json"] {
            let plain = Tokenizer::from_file(dir.join(name)).unwrap();
            let mut more = plain.clone();
            let token = |content: &str, special| AddedToken::from(content, special);
            more.add_tokens([
                token("<|a|>", true),
                token("<|left|>", true).lstrip(true),
                token("<|right|>", true).rstrip(true),
                token("[WORD]", true).single_word(true),
                token("NORMAL", true).normalized(true),
                token("plain", false),
                token("tool", false).normalized(false).lstrip(true),
            ])
            .unwrap();
            all.extend([plain, more]);
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Where nothing is of the input the ids are the library's, and where all is, those that it gives without special tokens.
        #[test]
        fn ids_are_the_librarys(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "<s>", "</s>", "<|a|>", "<|left|>", "<|right|>", "[WORD]", "NORMAL", "plain", "tool", " ", "  ", "\n", "a", "Hello",
                    "é🙂", "<", "s>", "<|", "123",
                ]),
                0..12,
            ),
        ) {
            let text = parts.concat();
            for mut tokenizer in tokenizers() {
                let added = TemplateText::of(&tokenizer).unwrap();
                let library = |tokenizer: &Tokenizer| tokenizer.encode_fast(text.as_str(), false).unwrap().get_ids().to_vec();
                let ids = |input: &[Range<usize>]| {
                    added.encode(&tokenizer, &text, input, OffsetType::None).map(|encoding| encoding.get_ids().to_vec())
                };
                prop_assert_eq!(ids(&[]).unwrap(), library(&tokenizer), "{}", &text);
                let all = 0..text.len();
                if let Ok(ids) = ids(std::slice::from_ref(&all)) {
                    tokenizer.set_encode_special_tokens(true);
                    prop_assert_eq!(ids, library(&tokenizer), "{}", &text);
                }
            }
        }
    }
}
