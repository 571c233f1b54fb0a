//! The library names options as its fields, here they are flags.

use clap::{Arg, CommandFactory};

use super::flags::Args;

/// Makes flags of the options that a sentence of the library names: `` `max_seq_len` `` becomes `--max-seq-len`. A sentence that
/// may name files or fields between backticks too must not come here.
pub(super) fn as_flags(sentence: &str) -> String {
    let command = Args::command();
    let flags = command.get_arguments().filter_map(Arg::get_long);
    flags.fold(sentence.to_owned(), |sentence, flag| {
        sentence.replace(&format!("`{}`", flag.replace('-', "_")), &format!("--{flag}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_options_become_flags_and_nothing_else_does() {
        let found = as_flags("`max_seq_len` 9 is more than `model.layers`; set `force`, not `forced`");
        assert_eq!(found, "--max-seq-len 9 is more than `model.layers`; set --force, not `forced`");
    }
}
