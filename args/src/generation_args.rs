//! Flags about what to generate: one for each of [`GenerationOptions::FIELDS`], its name with dashes; and those of them that say
//! how tokens are chosen.

use clap::{Arg, ArgAction, ArgMatches, Command, Error, FromArgMatches};
use runner::generation_options::{GenerationOptions, OptionField};

/// What the flags ask for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationArgs {
    /// The options that were given.
    pub options: GenerationOptions,
}

/// Options that say how tokens are chosen, and not when a sequence ends or what is returned.
const SAMPLING: [&str; 11] = [
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "prompt_ignore_length",
    "no_repeat_ngram_size",
    "logit_bias",
    "bad_words",
];

/// What the flags about choosing tokens ask for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SamplingArgs {
    /// The options that were given.
    pub options: GenerationOptions,
    /// The same as they were typed, for example `--top-k 5`.
    pub typed: Vec<String>,
}

fn sampling_fields() -> impl Iterator<Item = &'static OptionField> {
    GenerationOptions::FIELDS.iter().filter(|field| SAMPLING.contains(&field.name))
}

impl clap::Args for SamplingArgs {
    fn augment_args(command: Command) -> Command {
        command.next_help_heading("Sampling").args(sampling_fields().map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SamplingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        for field in sampling_fields() {
            for text in given(field, matches) {
                set(&mut self.options, field, text)?;
                self.typed.push(format!("--{} {text}", field.name.replace('_', "-")));
            }
        }
        Ok(())
    }
}

impl clap::Args for GenerationArgs {
    fn augment_args(command: Command) -> Command {
        command.next_help_heading("Generation").args(GenerationOptions::FIELDS.iter().map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for GenerationArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        for field in GenerationOptions::FIELDS {
            for text in given(field, matches) {
                set(&mut self.options, field, text)?;
            }
        }
        Ok(())
    }
}

/// The values of a flag that were typed; of a switch, `true`.
fn given<'a>(field: &OptionField, matches: &'a ArgMatches) -> Vec<&'a str> {
    match field.is_switch() {
        true => Vec::from_iter(matches.get_flag(field.name).then_some("true")),
        false => matches.get_many::<String>(field.name).into_iter().flatten().map(String::as_str).collect(),
    }
}

fn set(options: &mut GenerationOptions, field: &OptionField, text: &str) -> Result<(), Error> {
    (field.set)(options, text).map_err(|problem| Error::raw(clap::error::ErrorKind::ValueValidation, problem))
}

fn flag(field: &'static OptionField) -> Arg {
    let excluded = GenerationOptions::EXCLUSIVE.into_iter().filter(|names| names.contains(&field.name)).flatten();
    let flag = Arg::new(field.name)
        .long(field.name.replace('_', "-"))
        .help(field.help.trim())
        .conflicts_with_all(excluded.filter(|name| **name != field.name));
    let flag = if field.name == "n" { flag.visible_alias("num-return-sequences") } else { flag };
    if field.is_switch() {
        return flag.action(ArgAction::SetTrue);
    }
    // Text may begin with a dash, numbers may be negative; anything else that begins with a dash is the next flag.
    let is_text = ["TEXT", "PATTERN", "ID=BIAS", "WHEN", "JSON"].contains(&field.value_name);
    flag.value_name(field.value_name)
        .allow_hyphen_values(is_text)
        .allow_negative_numbers(!is_text)
        .action(if field.repeats { ArgAction::Append } else { ArgAction::Set })
        .value_parser(move |text: &str| parse(field, text))
}

/// The text of a value that is one; of a file, its content.
fn parse(field: &OptionField, text: &str) -> Result<String, String> {
    let text = match field.value_name {
        "FILE" | "DIR" if text.is_empty() => return Err("the path is empty".to_owned()),
        "FILE" => std::fs::read_to_string(text).map_err(|error| format!("cannot read the file: {error}"))?,
        _ => text.to_owned(),
    };
    (field.set)(&mut GenerationOptions::default(), &text).map(|()| text)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use clap::Parser;
    use runner::executor::EarlyStopping;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        generation: GenerationArgs,
    }

    fn parse(arguments: &[&str]) -> Result<GenerationOptions, String> {
        let program = Program::try_parse_from(["program"].iter().chain(arguments));
        program.map(|program| program.generation.options).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_set_the_options_of_their_names() {
        let mut schema = tempfile::NamedTempFile::new().unwrap();
        schema.write_all(b"{}").unwrap();
        let given = parse(&[
            "--max-new-tokens=5",
            "--temperature",
            "-0.5",
            "--stop",
            "-a",
            "--stop",
            "b",
            "--logit-bias",
            "7=-1.5",
            "--num-return-sequences",
            "2",
            "--early-stopping",
            "-1",
            "--ignore-eos",
            "--json-schema",
            schema.path().to_str().unwrap(),
        ]);
        let expected = GenerationOptions {
            max_new_tokens: Some(5),
            temperature: Some(-0.5),
            stop: Some(vec!["-a".into(), "b".into()]),
            logit_bias: Some(vec![(7, -1.5)]),
            n: Some(2),
            early_stopping: Some(EarlyStopping::Never),
            ignore_eos: Some(true),
            json_schema: Some("{}".into()),
            ..GenerationOptions::default()
        };
        assert_eq!(given, Ok(expected));
        assert_eq!(parse(&[]), Ok(GenerationOptions::default()));
    }

    #[test]
    fn wrong_values_and_pairs_are_refused_by_name() {
        let check = |arguments: &[&str], expected: &[&str]| {
            let error = parse(arguments).unwrap_err();
            assert!(expected.iter().all(|part| error.contains(part)), "{error}");
        };
        check(&["--top-k", "x"], &["'x'", "--top-k <K>", "must be a whole number from 0"]);
        check(&["--top-p", "x"], &["'x'", "--top-p <P>", "must be a number"]);
        check(&["--max-length=1", "--max-new-tokens=1"], &["--max-length", "--max-new-tokens", "cannot be used with"]);
        check(&["--json", "--regex=a"], &["--json", "--regex", "cannot be used with"]);
        check(&["--grammar=/no/such/file"], &["--grammar <FILE>", "cannot read the file"]);
        check(&["--temperature", "--top-k", "3"], &["a value is required for '--temperature <T>'"]);
        check(&["--lora="], &["--lora <DIR>"]);
        check(&["--retention-priority=101"], &["--retention-priority <N>", "must be a whole number from 0 to 100"]);
        check(&["--seed=1", "--seed=2"], &["--seed", "cannot be used multiple times"]);
    }

    #[test]
    fn sampling_flags_are_those_that_say_how_tokens_are_chosen() {
        #[derive(Parser)]
        struct Sampling {
            #[command(flatten)]
            sampling: SamplingArgs,
        }
        assert_eq!(sampling_fields().count(), SAMPLING.len(), "each is an option");
        let typed = ["program", "--top-k", "5", "--bad-words", "a", "--bad-words", "b", "--temperature", "0.5"];
        let SamplingArgs { options, typed } = Sampling::try_parse_from(typed).unwrap().sampling;
        let bad_words = Some(vec!["a".to_owned(), "b".to_owned()]);
        let expected = GenerationOptions { top_k: Some(5), temperature: Some(0.5), bad_words, ..Default::default() };
        assert_eq!(options, expected);
        assert_eq!(typed, ["--temperature 0.5", "--top-k 5", "--bad-words a", "--bad-words b"]);
        assert!(Sampling::try_parse_from(["program", "--stop", "a"]).is_err());
    }

    #[test]
    fn the_flags_are_valid_for_clap() {
        <Program as clap::CommandFactory>::command().debug_assert();
    }
}
