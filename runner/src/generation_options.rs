//! What can be asked of a completion, at the level of text: one list of names for flags, for the fields of JSON lines and for
//! hosts. [`RequestBuilder`](crate::request_builder::RequestBuilder) makes requests of them.

mod from_json;
mod from_text;

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value as Json};
use text::chat::ChatOptions;

use crate::executor::{EarlyStopping, GuidedDecodingParams, TokenId};

use from_text::FromText;

pub use from_text::whole_number;

/// An option, as a program shows it.
#[derive(Debug, Clone, Copy)]
pub struct OptionField {
    /// The name, in snake_case; a flag's has dashes.
    pub name: &'static str,
    /// What its value is called in help, or empty for a switch. `FILE` stands for a file with the value in it.
    pub value_name: &'static str,
    /// What it does, a sentence.
    pub help: &'static str,
    /// Whether it may be given several times.
    pub repeats: bool,
    /// What its value in JSON must be, as in "must be a number".
    pub expected: &'static str,
    /// Sets it from text.
    pub set: fn(&mut GenerationOptions, &str) -> Result<(), String>,
}

impl OptionField {
    /// Whether it is given without a value.
    pub fn is_switch(&self) -> bool {
        self.value_name.is_empty()
    }
}

/// Makes the struct, the list of fields and the merging of two structs from one list. A field's documentation is its help.
macro_rules! generation_options {
    ($(
        $(#[doc = $doc:literal])+
        $(#[serde($($serde:tt)*)])?
        $name:ident: $type:ty, $value_name:literal;
    )+) => {
        /// What is asked of a completion; what is `None` has its default.
        #[derive(Debug, Clone, Default, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct GenerationOptions {
            $($(#[doc = $doc])+ $(#[serde($($serde)*)])? pub $name: Option<$type>,)+
        }

        impl GenerationOptions {
            /// Every option, in the order of help.
            pub const FIELDS: &'static [OptionField] = &[$(OptionField {
                name: stringify!($name),
                value_name: $value_name,
                help: concat!($($doc),+),
                repeats: <$type as FromText>::REPEATS,
                expected: <$type as FromText>::EXPECTED,
                set: |options, text| <$type as FromText>::set(&mut options.$name, text),
            },)+];

            /// These options where given, else those of `defaults`.
            fn filled(self, defaults: &Self) -> Self {
                Self { $($name: self.$name.or_else(|| defaults.$name.clone()),)+ }
            }
        }
    };
}

generation_options! {
    /// Tokens to generate at most [default: 128]
    max_new_tokens: usize, "N";
    /// Tokens of prompt and output together at most
    max_length: usize, "N";
    /// Randomness: 0 is greedy [default: 0, or 1 when --top-k, --top-p or --min-p is given]
    temperature: f32, "T";
    /// Draw among the K best tokens; 0 for all
    top_k: usize, "K";
    /// Draw among the fewest best tokens whose probabilities reach P
    top_p: f32, "P";
    /// Draw among tokens at least P times as probable as the best
    min_p: f32, "P";
    /// Seed of the draws; the same seed gives the same tokens [default: 0]
    seed: u64, "N";
    /// Divide positive logits of tokens already seen by X and multiply negative ones; 1 changes nothing
    repetition_penalty: f32, "X";
    /// Subtract X once from the logit of every token already seen
    presence_penalty: f32, "X";
    /// Subtract X from a token's logit once for each time it was seen
    frequency_penalty: f32, "X";
    /// Exclude the first N prompt tokens from the presence and frequency penalties
    prompt_ignore_length: usize, "N";
    /// Allow no N tokens in a row to occur twice; 0 for no limit
    no_repeat_ngram_size: usize, "N";
    /// Add BIAS to the logit of token ID; may be given several times
    #[serde(deserialize_with = "from_json::biases")]
    logit_bias: Vec<(TokenId, f32)>, "ID=BIAS";
    /// Never generate this text; may be given several times
    #[serde(deserialize_with = "from_json::one_or_many")]
    bad_words: Vec<String>, "TEXT";
    /// End before this text, which may name special tokens; may be given several times
    #[serde(deserialize_with = "from_json::one_or_many")]
    stop: Vec<String>, "TEXT";
    /// Keep the stop text that ended an output in its text
    include_stop_str_in_output: bool, "";
    /// `false` shows special tokens in the text [default: true]
    skip_special_tokens: bool, "BOOL";
    /// End at this token instead of the model's end tokens, also with --ignore-eos; may be given several times
    #[serde(deserialize_with = "from_json::one_or_many")]
    end_id: Vec<TokenId>, "ID";
    /// Generate these tokens only, for example 5,42. The model's end tokens come only if they are among them
    #[serde(deserialize_with = "from_json::one_or_many")]
    allowed_token_ids: Vec<TokenId>, "IDS";
    /// Generate at least N tokens before the model may end
    min_tokens: usize, "N";
    /// Go on after the model's end token
    ignore_eos: bool, "";
    /// Sequences to generate for each prompt, with seeds SEED, SEED+1, … [default: 1, or all beams]
    #[serde(alias = "num_return_sequences")]
    n: usize, "N";
    /// Search with this many beams; 1 for none
    beam_width: usize, "N";
    /// Divide a beam's summed log-probability by its length to the power X; above 0 favours long beams [default: 0]
    length_penalty: f32, "X";
    /// When to end the search. `true`: when `beam_width` beams have ended. `false`: when the best running beam, if it ended now,
    /// would not beat the worst ended one. `never`: when no running beam can ever beat it [default: true]
    #[serde(deserialize_with = "from_json::early_stopping")]
    early_stopping: EarlyStopping, "WHEN";
    /// Generate a JSON value
    json: bool, "";
    /// Generate JSON that conforms to the schema in this file
    #[serde(deserialize_with = "from_json::schema")]
    json_schema: String, "FILE";
    /// Generate text that the whole pattern matches
    regex: String, "PATTERN";
    /// Generate text of the grammar in this file, in Lark or EBNF
    grammar: String, "FILE";
    /// From 0 to 1; prompts of higher priority are started first [default: 0.5]
    priority: f32, "P";
    /// End a prompt's sequences after this many milliseconds
    allotted_time_ms: u64, "N";
    /// Share cached prefixes only with prompts of the same salt
    cache_salt_id: u64, "N";
    /// Apply the LoRA adapter in this PEFT directory (TensorRT engines)
    lora: PathBuf, "DIR";
    /// Priority for keeping the KV-cache blocks of prompt and output: from 0, evicted first, to 100 (TensorRT engines)
    retention_priority: u8, "N";
    /// Use the model's chat template of this name (with --chat) [default: `tool_use` with --tools where there is one, or `default`]
    chat_template: String, "NAME";
    /// Give the chat template further variables, for example {"enable_thinking": false} (with --chat)
    chat_template_kwargs: Map<String, Json>, "JSON";
    /// Describe functions that the model may call: a JSON list, given to the chat template (with --chat)
    tools: Vec<Json>, "FILE";
    /// Texts that the model may use: a JSON list, given to the chat template (with --chat)
    documents: Vec<Json>, "FILE";
    /// Begin conversations that have no system message with this one (with --chat)
    system: String, "TEXT";
    /// `false` ends the prompt with the last message, without what begins an answer [default: true] (with --chat)
    add_generation_prompt: bool, "BOOL";
    /// Let the model go on with the last message instead of answering it (with --chat)
    continue_final_message: bool, "";
    /// Let special tokens that stand in messages, tools, documents and variables be tokens, rather than text (with --chat)
    allow_special_tokens_in_messages: bool, "";
    /// Report the log-probability of each generated token (with --format json)
    logprobs: bool, "";
    /// Report the N most probable tokens at each position (with --format json)
    top_logprobs: usize, "N";
    /// Report the log-probability of each prompt token after the first (with --format json)
    prompt_logprobs: bool, "";
    /// Report the N most probable tokens at the position of each prompt token after the first (with --format json)
    prompt_top_logprobs: usize, "N";
}

impl GenerationOptions {
    /// Options of which at most one can be given: those for the length, and the guides.
    pub const EXCLUSIVE: [&'static [&'static str]; 2] =
        [&["max_new_tokens", "max_length"], &["json", "json_schema", "regex", "grammar"]];

    /// These options where given, else those of `defaults`. Options that exclude each other give way together.
    pub fn or(self, defaults: &Self) -> Self {
        let mut defaults = defaults.clone();
        if self.max_new_tokens.is_some() || self.max_length.is_some() {
            (defaults.max_new_tokens, defaults.max_length) = (None, None);
        }
        if self.json.is_some() || !self.guides().is_empty() {
            (defaults.json, defaults.json_schema, defaults.regex, defaults.grammar) = (None, None, None, None);
        }
        self.filled(&defaults)
    }

    /// The temperature; where none is given 0, or 1 with a filter, as whoever filters wants to draw.
    pub fn temperature_or_default(&self) -> f32 {
        let filters = self.top_k.is_some() || self.top_p.is_some() || self.min_p.is_some();
        self.temperature.unwrap_or(if filters { 1.0 } else { 0.0 })
    }

    /// Whether log-probabilities of any kind are asked for.
    pub fn asks_for_log_probs(&self) -> bool {
        self.logprobs == Some(true)
            || self.prompt_logprobs == Some(true)
            || self.top_logprobs.unwrap_or(0) > 0
            || self.prompt_top_logprobs.unwrap_or(0) > 0
    }

    /// Sets an option by its name from text, as a flag does.
    ///
    /// # Errors
    /// The text is no value of it, or there is no such option.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let field = Self::FIELDS.iter().find(|field| field.name == name).ok_or("is no option")?;
        (field.set)(self, text)
    }

    /// An option that only conversations have, if one is set: its name.
    pub fn chat_only(&self) -> Option<&'static str> {
        [
            ("chat_template", self.chat_template.is_some()),
            ("chat_template_kwargs", self.chat_template_kwargs.is_some()),
            ("tools", self.tools.is_some()),
            ("documents", self.documents.is_some()),
            ("system", self.system.is_some()),
            ("add_generation_prompt", self.add_generation_prompt == Some(false)),
            ("continue_final_message", self.continue_final_message == Some(true)),
            ("allow_special_tokens_in_messages", self.allow_special_tokens_in_messages == Some(true)),
        ]
        .into_iter()
        .find_map(|(name, set)| set.then_some(name))
    }

    /// Those for conversations.
    pub fn chat(&self) -> ChatOptions {
        ChatOptions {
            chat_template: self.chat_template.clone(),
            tools: self.tools.clone(),
            documents: self.documents.clone(),
            chat_template_kwargs: self.chat_template_kwargs.clone().unwrap_or_default(),
            system: self.system.clone(),
            add_generation_prompt: self.add_generation_prompt,
            continue_final_message: self.continue_final_message == Some(true),
        }
    }

    /// What the output must look like, by the option's name; at most one entry once it is known that no two exclude each other.
    pub fn guides(&self) -> Vec<(&'static str, GuidedDecodingParams)> {
        let json = (self.json == Some(true)).then_some(GuidedDecodingParams::Json);
        [
            ("json", json),
            ("json_schema", self.json_schema.clone().map(GuidedDecodingParams::JsonSchema)),
            ("regex", self.regex.clone().map(GuidedDecodingParams::Regex)),
            ("grammar", self.grammar.clone().map(GuidedDecodingParams::grammar)),
        ]
        .into_iter()
        .filter_map(|(name, guide)| Some((name, guide?)))
        .collect()
    }
}

#[cfg(test)]
mod tests;
