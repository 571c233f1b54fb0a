//! Tokenizers that Transformers 5 builds anew: for some values of `tokenizer_class` it takes vocabulary, merges and
//! post-processor of `tokenizer.json`, and what the class says in place of its normalizer, pre-tokenizer, decoder and added
//! tokens. Models of the Mistral family and byte-level Llama models keep their file's.

use std::borrow::Cow;
use std::path::Path;

use engine_format::python_json;
use serde_json::Value;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::Replace;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::{DecoderWrapper, ModelWrapper, Tokenizer};

use super::config::TokenizerConfig;

/// The mark of a blank in SentencePiece's vocabularies.
const BLANK: char = '▁';

/// The tokenizer as its class has it; `file` is the text of `tokenizer.json`.
pub(super) fn apply(
    parsed: Tokenizer,
    config: &TokenizerConfig,
    file: &[u8],
    dir: &Path,
) -> Result<Tokenizer, tokenizers::Error> {
    let ModelWrapper::BPE(model) = parsed.get_model() else { return Ok(parsed) };
    if !rebuilds(&config.class, dir, || file.into()) {
        return Ok(parsed);
    }
    let mut built =
        if config.class == "LlamaTokenizer" { llama(model.clone(), config)? } else { gpt2(model.clone(), config) };
    built.with_post_processor(parsed.get_post_processor().cloned());
    Ok(built)
}

/// Whether a class builds its tokenizer anew for the model in `dir`.
pub(super) fn rebuilds<'a>(class: &str, dir: &Path, file: impl FnOnce() -> Cow<'a, [u8]>) -> bool {
    match class {
        "LlamaTokenizer" => !is_mistral(dir) && !file().windows(11).any(|window| window == b"\"ByteLevel\""),
        "GPT2Tokenizer" => !is_mistral(dir),
        _ => false,
    }
}

fn llama(model: BPE, config: &TokenizerConfig) -> Result<Tokenizer, tokenizers::Error> {
    let mut tokenizer = Tokenizer::new(plain(model, true));
    let add_prefix_space = config.add_prefix_space.unwrap_or(true);
    let scheme = match (add_prefix_space, config.legacy.unwrap_or(false)) {
        (false, _) => PrependScheme::Never,
        (true, false) => PrependScheme::First,
        (true, true) => PrependScheme::Always,
    };
    tokenizer.with_pre_tokenizer(Some(Metaspace::new(BLANK, scheme, false)));
    let mut steps: Vec<DecoderWrapper> =
        vec![Replace::new(BLANK.to_string(), " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
    if add_prefix_space {
        steps.push(Strip::new(' ', 1, 0).into());
    }
    tokenizer.with_decoder(Some(Sequence::new(steps)));
    Ok(tokenizer)
}

fn gpt2(model: BPE, config: &TokenizerConfig) -> Tokenizer {
    let mut tokenizer = Tokenizer::new(plain(model, false));
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(config.add_prefix_space.unwrap_or(false), true, true)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    tokenizer
}

/// Vocabulary and merges, and nothing else of the model. SentencePiece's have bytes for what they lack.
fn plain(mut model: BPE, sentencepiece: bool) -> BPE {
    (model.fuse_unk, model.byte_fallback, model.ignore_merges) = (sentencepiece, sentencepiece, false);
    (model.unk_token, model.continuing_subword_prefix, model.end_of_word_suffix) = (None, None, None);
    model.dropout = None;
    model
}

/// Whether the model is of the Mistral family, as its `config.json` has it: Transformers', a checkpoint's or an engine's.
fn is_mistral(dir: &Path) -> bool {
    let Some(config) = std::fs::read(dir.join("config.json")).ok().and_then(|text| python_json::parse(&text).ok())
    else {
        return false;
    };
    let names = [
        config.pointer("/model_type"),
        config.pointer("/architectures/0"),
        config.pointer("/architecture"),
        config.pointer("/pretrained_config/architecture"),
    ];
    let name = names.into_iter().flatten().find_map(Value::as_str);
    name.is_some_and(|name| name.to_ascii_lowercase().starts_with("mistral"))
}
