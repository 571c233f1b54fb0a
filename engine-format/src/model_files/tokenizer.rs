//! `tokenizer.json` and the files beside it.

use super::Refused::{UnlessFalse, UnlessOneOf};
use super::Treatment::{Followed, PutAside, Refused};
use super::{Field, Table};

const fn followed(names: &'static [&'static str], effect: &'static str) -> Field {
    Field { names, treatment: Followed, effect, transformers_4: "" }
}

const fn put_aside(names: &'static [&'static str], effect: &'static str) -> Field {
    Field { names, treatment: PutAside, effect, transformers_4: "" }
}

/// `tokenizer.json`.
pub const TOKENIZER: Table = Table {
    name: "tokenizer.json",
    fields: &[
        Field {
            names: &["model", "normalizer", "pre_tokenizer"],
            treatment: Followed,
            effect: "except where `tokenizer_class` builds the tokenizer anew (below)",
            transformers_4: "builds none anew from this file",
        },
        followed(&["added_tokens"], "together with the tokens of the files below"),
        followed(
            &["post_processor"],
            "what it puts before and after a text is put around each prompt; one that leaves the text out is refused",
        ),
        followed(
            &["decoder"],
            "one that cannot be decoded token by token is a warning of the build, and the engine then takes and gives token ids \
             only",
        ),
        put_aside(&["model.dropout"], "it is for training. Transformers applies it"),
        put_aside(&["truncation", "padding"], "requests say how long they are"),
        Field {
            names: &["version"],
            treatment: Refused(UnlessOneOf(&["1.0"])),
            effect: "there is no other",
            transformers_4: "",
        },
    ],
};

/// `tokenizer_config.json`.
pub const TOKENIZER_CONFIG: Table = Table {
    name: "tokenizer_config.json",
    fields: &[
        Field {
            names: &[
                "bos_token",
                "eos_token",
                "unk_token",
                "sep_token",
                "pad_token",
                "cls_token",
                "mask_token",
                "…_token",
            ],
            treatment: Followed,
            effect: "names a special token, and adds it to the tokenizer where it lacks it. `null` means that there is none",
            transformers_4: "puts names aside that are not among the first seven",
        },
        Field {
            names: &["extra_special_tokens", "additional_special_tokens"],
            treatment: Followed,
            effect: "special tokens, as a list or an object of names and tokens; the second counts where the first is absent or \
                     empty",
            transformers_4: "the first must be an object",
        },
        Field {
            names: &["model_specific_special_tokens"],
            treatment: Followed,
            effect: "an object of names and tokens; counts where the file has no other names of the model's own",
            transformers_4: "put aside",
        },
        followed(
            &["added_tokens_decoder"],
            "the tokens are added in the order of their ids. The ids themselves have no say: a new token gets the next free one. \
             Where the field is there, `special_tokens_map.json` and `added_tokens.json` are not read",
        ),
        Field {
            names: &["tokenizer_class"],
            treatment: Followed,
            effect: "with and without the ending `Fast`. `LlamaTokenizer` and `GPT2Tokenizer` build a BPE tokenizer anew from the \
                     vocabulary, the merges and the post-processor of `tokenizer.json`, unless the model is of the Mistral family \
                     or, for `LlamaTokenizer`, the file says `ByteLevel`. Where they do, special tokens that no file names are \
                     `<unk>`, `<s>` and `</s>` (Llama) or `<\\|endoftext\\|>` (GPT-2). Other classes change nothing",
            transformers_4: "builds none anew; refuses classes that it does not know; without the field it takes the class of \
                             `model_type`, with its names for tokens",
        },
        Field {
            names: &["add_prefix_space"],
            treatment: Followed,
            effect: "where the class builds the tokenizer anew",
            transformers_4: "`LlamaTokenizer` needs SentencePiece's file then",
        },
        Field {
            names: &["legacy"],
            treatment: Followed,
            effect: "where `LlamaTokenizer` builds the tokenizer anew",
            transformers_4: "put aside",
        },
        followed(&["chat_template"], "where no file has a template: one template, or several with names"),
        Field {
            names: &["split_special_tokens"],
            treatment: Refused(UnlessFalse),
            effect: "special tokens in a text are tokens",
            transformers_4: "",
        },
        Field {
            names: &["fix_mistral_regex", "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"],
            treatment: Refused(UnlessFalse),
            effect: "they change texts or ids in Transformers",
            transformers_4: "4.57.1 puts them aside",
        },
        Field {
            names: &["add_bos_token", "add_eos_token"],
            treatment: PutAside,
            effect: "the post-processor of `tokenizer.json` decides",
            transformers_4: "`LlamaTokenizer` follows them",
        },
        Field {
            names: &["clean_up_tokenization_spaces"],
            treatment: PutAside,
            effect: "texts are decoded as they are",
            transformers_4: "removes blanks before punctuation when it decodes",
        },
        put_aside(
            &["model_max_length", "padding_side", "truncation_side", "pad_token_type_id", "model_input_names"],
            "of batches of texts for training",
        ),
        put_aside(
            &[
                "spaces_between_special_tokens",
                "use_default_system_prompt",
                "sp_model_kwargs",
                "errors",
                "do_lower_case",
            ],
            "of tokenizers in Python",
        ),
        put_aside(
            &[
                "auto_map",
                "backend",
                "from_slow",
                "is_local",
                "name_or_path",
                "processor_class",
                "tokenizer_file",
                "use_fast",
            ],
            "how Transformers finds its classes and files",
        ),
    ],
};

/// A token in a file.
pub const TOKEN: Table = Table {
    name: "A token",
    fields: &[
        followed(&["content"], "its text; required"),
        followed(
            &["special"],
            "whether generated text leaves it out. Tokens with a name are special, whatever it says",
        ),
        followed(
            &["lstrip", "rstrip", "single_word", "normalized"],
            "what it takes with it in a text, and where it is one; otherwise false, `normalized` otherwise true for a token that is \
             not special",
        ),
        put_aside(&["__type"], "it says what the object is"),
    ],
};

/// `special_tokens_map.json`.
pub const SPECIAL_TOKENS_MAP: Table = Table {
    name: "special_tokens_map.json",
    fields: &[
        followed(&["bos_token", "eos_token", "…_token"], "replaces the one of `tokenizer_config.json`"),
        Field {
            names: &["extra_special_tokens"],
            treatment: Followed,
            effect: "joins those of `tokenizer_config.json`",
            transformers_4: "must be an object",
        },
        followed(&["additional_special_tokens"], "where no file has named extra tokens before"),
    ],
};

/// `added_tokens.json`.
pub const ADDED_TOKENS: Table = Table {
    name: "added_tokens.json",
    fields: &[followed(
        &["…"],
        "an object of tokens and ids: the tokens are added in the order of their ids, and the ids themselves have no say",
    )],
};
