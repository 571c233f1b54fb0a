//! `config.json` and `generation_config.json`.

use super::Refused::{Always, Contradicting, UnlessFalse, UnlessOne, UnlessOneOf};
use super::Treatment::{Followed, PutAside, Refused};
use super::{Field, Table};

const fn followed(names: &'static [&'static str], effect: &'static str) -> Field {
    Field { names, treatment: Followed, effect, transformers_4: "" }
}

const fn put_aside(names: &'static [&'static str], effect: &'static str) -> Field {
    Field { names, treatment: PutAside, effect, transformers_4: "" }
}

/// `config.json`.
pub const CONFIG: Table = Table {
    name: "config.json",
    fields: &[
        followed(
            &["architectures"],
            "the first is `MistralForCausalLM` or `LlamaForCausalLM`; any other is refused. Transformers goes by `model_type`",
        ),
        followed(&["model_type"], "where there is no architecture: `mistral` or `llama`; any other is refused"),
        followed(
            &["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"],
            "sizes; required, where Transformers has defaults",
        ),
        Field {
            names: &["num_key_value_heads"],
            treatment: Followed,
            effect: "`null` means as many as query heads, and so does its absence in a Llama model. Its absence in a Mistral model \
                     means 8",
            transformers_4: "the same; Transformers 5 refuses `null` in a Mistral model",
        },
        followed(&["head_dim"], "otherwise `hidden_size` divided by `num_attention_heads`"),
        followed(&["max_position_embeddings"], "otherwise 131072 (Mistral) or 2048 (Llama)"),
        followed(&["rms_norm_eps"], "otherwise 1e-6"),
        Field {
            names: &["tie_word_embeddings"],
            treatment: Followed,
            effect: "otherwise false. A head among the weights that is not the embedding is used all the same",
            transformers_4: "`null` means false, as here; Transformers 5 refuses it",
        },
        followed(
            &["attention_bias"],
            "otherwise false; followed in a Llama model, put aside in a Mistral model, which has no biases",
        ),
        followed(
            &["sliding_window"],
            "followed in a Mistral model, where `null` means none and absence means 4096; put aside in a Llama model",
        ),
        followed(&["rope_theta"], "otherwise 10000. The one inside `rope_scaling` or `rope_parameters` comes first"),
        Field {
            names: &["rope_scaling"],
            treatment: Followed,
            effect: "see the next table. It counts before `rope_parameters` where both are filled; `{}` counts as absent",
            transformers_4: "refuses `{}`",
        },
        Field {
            names: &["rope_parameters"],
            treatment: Followed,
            effect: "see the next table",
            transformers_4: "put aside: models saved by Transformers 5 run with other positions there",
        },
        Field {
            names: &["original_max_position_embeddings"],
            treatment: Followed,
            effect: "of `llama3`; comes before the one inside the rotary settings",
            transformers_4: "put aside",
        },
        followed(
            &["eos_token_id"],
            "where there is no `generation_config.json`: an id or a list of ids, each of which ends an output",
        ),
        Field {
            names: &["layer_types"],
            treatment: Refused(Contradicting),
            effect: "each layer must be what the window says of all of them: `sliding_attention` with one, `full_attention` \
                     without. Transformers warns and goes by the window",
            transformers_4: "",
        },
        Field {
            names: &["hidden_act"],
            treatment: Refused(UnlessOneOf(&["silu", "swish"])),
            effect: "the MLP has no other function",
            transformers_4: "",
        },
        Field {
            names: &["mlp_bias"],
            treatment: Refused(UnlessFalse),
            effect: "the MLP has no biases. In a Mistral model Transformers puts it aside",
            transformers_4: "",
        },
        Field {
            names: &["partial_rotary_factor"],
            treatment: Refused(UnlessOne),
            effect: "heads are rotated whole. Transformers 5 puts it aside in these models",
            transformers_4: "fails on it",
        },
        Field {
            names: &["quantization_config", "compression_config"],
            treatment: Refused(Always { instead: "none: weights in bfloat16, float16 or float32" }),
            effect: "the weights are no plain matrices",
            transformers_4: "",
        },
        Field {
            names: &["torch_dtype", "dtype"],
            treatment: PutAside,
            effect: "the weights' files have their types, and engines compute in bf16",
            transformers_4: "computes in fp32 unless it is told otherwise",
        },
        put_aside(&["use_sliding_window"], "`sliding_window` decides"),
        put_aside(&["attention_dropout", "initializer_range"], "for training"),
        put_aside(
            &["bos_token_id", "pad_token_id", "use_cache", "pretraining_tp", "chunk_size_feed_forward"],
            "of no effect on results",
        ),
        put_aside(&["attn_implementation", "_attn_implementation"], "of Transformers' own kernels"),
        put_aside(&["auto_map", "_name_or_path", "transformers_version"], "code is never loaded from a model"),
        put_aside(
            &["is_decoder", "add_cross_attention", "output_attentions", "output_hidden_states"],
            "of no effect on these families",
        ),
    ],
};

/// `rope_scaling` and `rope_parameters` of `config.json`.
pub const ROPE: Table = Table {
    name: "rope_scaling and rope_parameters",
    fields: &[
        Field {
            names: &["rope_type", "type"],
            treatment: Followed,
            effect: "`default`, `linear` or `llama3`; others are refused. The first counts where both are there",
            transformers_4: "in a Llama model the second counts where both are there",
        },
        Field {
            names: &["rope_theta"],
            treatment: Followed,
            effect: "comes before the one outside",
            transformers_4: "put aside",
        },
        followed(&["factor"], "of `linear` and `llama3`; required there"),
        followed(&["low_freq_factor", "high_freq_factor"], "of `llama3`; required there"),
        Field {
            names: &["original_max_position_embeddings"],
            treatment: Followed,
            effect: "of `llama3`; otherwise `max_position_embeddings`",
            transformers_4: "required there",
        },
        Field {
            names: &["full_attention", "sliding_attention"],
            treatment: Refused(Always { instead: "one setting for every layer" }),
            effect: "settings of some layers",
            transformers_4: "",
        },
        Field {
            names: &["partial_rotary_factor"],
            treatment: Refused(UnlessOne),
            effect: "as outside",
            transformers_4: "",
        },
        put_aside(
            &[
                "attention_factor",
                "beta_fast",
                "beta_slow",
                "mscale",
                "mscale_all_dim",
                "short_factor",
                "long_factor",
                "truncate",
            ],
            "of kinds that are refused",
        ),
    ],
};

/// `generation_config.json`.
pub const GENERATION_CONFIG: Table = Table {
    name: "generation_config.json",
    fields: &[
        followed(
            &["eos_token_id"],
            "an id or a list of ids, each of which ends an output. Ids outside the vocabulary are left out. The tokenizer's \
             `eos_token` ends an output too, which it does not in Transformers",
        ),
        put_aside(
            &["do_sample", "temperature", "top_p", "top_k", "min_p", "repetition_penalty"],
            "put aside by `run-engine`, which says them once; `serve-engine`'s defaults",
        ),
        put_aside(&["max_length", "max_new_tokens", "…"], "requests say how long an output may be"),
    ],
};
