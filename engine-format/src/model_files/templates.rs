//! Where chat templates are.

use super::Treatment::Followed;
use super::{Field, Table};

/// The files of chat templates.
pub const TEMPLATES: Table = Table {
    name: "Chat templates",
    fields: &[
        Field {
            names: &["chat_template.jinja"],
            treatment: Followed,
            effect: "the file is the template called `default`",
            transformers_4: "",
        },
        Field {
            names: &["additional_chat_templates/….jinja"],
            treatment: Followed,
            effect: "each file is a template, called as the file is",
            transformers_4: "",
        },
        Field {
            names: &["chat_template.json"],
            treatment: Followed,
            effect: "its `chat_template` counts where neither those files nor `tokenizer_config.json` have a template. Transformers \
                     reads it for processors of images or sound only",
            transformers_4: "",
        },
    ],
};
