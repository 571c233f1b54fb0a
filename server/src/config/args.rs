//! What can be typed, and what comes of it with the file and the environment.

use std::path::{Path, PathBuf};

use ::args::ExecutorArgs;
use ::args::executor_args::SERVER_TABLE;
use clap::Parser;
use runner::executor::{ExecutorConfig, TensorRtLlmConfig};

use super::{Settings, SettingsArgs, container};

/// Serve an engine over HTTP: OpenAI's completions and chat, TGI's API, and a page for browsers.
///
/// Flags can be set as variables too (`--max-body-bytes` as SERVE_MAX_BODY_BYTES), and in the table `[server]` of the file of
/// --config; flags go before variables, variables before the file. Exit codes: 0 drained after a signal; 2 bad input or usage; 3 the engine
/// cannot be opened on this machine; 130 a second signal; 1 anything else.
#[derive(Debug, Parser)]
#[command(name = "serve-engine", version, max_term_width = 110)]
pub struct Args {
    /// `serve`, which containers of some hosts are started with, changes nothing
    #[arg(value_parser = ["serve"], hide = true)]
    pub word: Option<String>,

    /// Engine directory, made by `build-engine` [default: the engine in /repository, where Inference Endpoints puts it]
    #[arg(long, value_name = "DIR")]
    pub engine: Option<PathBuf>,

    /// Print the settings that the server would run with, as TOML, and do nothing else
    #[arg(long)]
    pub print_config: bool,

    /// Show the libraries' information messages too, not only their warnings and errors
    #[arg(long, short)]
    pub verbose: bool,

    /// How to serve
    #[command(flatten)]
    pub server: SettingsArgs,

    /// How to run the engine
    #[command(flatten)]
    pub executor: ExecutorArgs,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file, or what it says of the executor.
    #[error(transparent)]
    Executor(#[from] ::args::executor_args::ConfigError),
    /// What the file says of the server.
    #[error("`{path}`: [server]: {problem}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the setting.
        problem: String,
    },
    /// A setting, wherever it was made.
    #[error("{0}")]
    Setting(String),
}

/// The server's and the executor's settings.
///
/// # Errors
/// [`ConfigError`].
pub fn load(args: &Args) -> Result<(Settings, ExecutorConfig), ConfigError> {
    // It reads the file first, and says what is wrong with it.
    let executor = args.executor.config()?;
    let mut settings = match &args.executor.config {
        Some(path) => of_file(path)?,
        None => Settings::default(),
    };
    let port = std::env::var(container::PORT).ok();
    if let Some(port) = container::port(port.as_deref()).map_err(ConfigError::Setting)? {
        settings.port = port;
    }
    let settings = args.server.clone().over(settings);
    settings.validate().map_err(ConfigError::Setting)?;
    Ok((settings, executor))
}

fn of_file(path: &Path) -> Result<Settings, ConfigError> {
    let said = |problem: String| ConfigError::File { path: path.to_owned(), problem };
    let text = std::fs::read_to_string(path).map_err(|error| said(error.to_string()))?;
    let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| said(error.message().to_owned()))?;
    match table.remove(SERVER_TABLE) {
        Some(server) => {
            let settings: Settings = server.try_into().map_err(|error| said(error.message().to_owned()))?;
            settings.validate().map_err(said)?;
            Ok(settings)
        }
        None => Ok(Settings::default()),
    }
}

/// The text of a file that says all of it: what the server would run with.
///
/// # Errors
/// A setting cannot be written, which none of ours is.
pub fn shown(settings: &Settings, executor: &ExecutorConfig) -> Result<String, toml::ser::Error> {
    let mut table = toml::Table::try_from(executor)?;
    // What is not sent to TensorRT-LLM by its own names has to be added.
    let TensorRtLlmConfig { guided_decoding, start_up_timeout, stall_timeout, shutdown_timeout, .. } =
        executor.tensorrt_llm;
    if let Some(toml::Value::Table(gpu)) = table.get_mut("tensorrt_llm") {
        gpu.retain(|_, value| !value.as_table().is_some_and(toml::Table::is_empty));
        gpu.insert("guided_decoding".to_owned(), guided_decoding.into());
        for (name, value) in [
            ("start_up_timeout", start_up_timeout),
            ("stall_timeout", stall_timeout),
            ("shutdown_timeout", shutdown_timeout),
        ] {
            gpu.insert(name.to_owned(), toml::Value::try_from(value)?);
        }
    }
    table.insert(SERVER_TABLE.to_owned(), toml::Value::try_from(settings)?);
    toml::to_string(&table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(arguments: &str) -> Args {
        let arguments = format!("serve-engine --engine e {arguments}");
        Args::try_parse_from(arguments.split_whitespace()).unwrap()
    }

    #[test]
    fn flags_go_before_the_file_and_the_file_before_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("server.toml");
        std::fs::write(&file, "max_batch_size = 3\n[server]\nport = 1\nhost = '::1'\nserved_model_name = ['a']\n")
            .unwrap();
        let (settings, executor) = load(&typed(&format!("--config {} --port 2 --no-auth", file.display()))).unwrap();
        let expected = Settings {
            port: 2,
            host: "::1".to_owned(),
            served_model_name: vec!["a".to_owned()],
            no_auth: true,
            ..Settings::default()
        };
        assert_eq!((settings, executor.max_batch_size), (expected, Some(3)));
        std::fs::write(&file, "[server]\nprot = 1\n").unwrap();
        let error = load(&typed(&format!("--config {}", file.display()))).unwrap_err().to_string();
        assert!(error.contains("prot") && error.contains("[server]") && error.contains("server.toml"), "{error}");
    }

    #[test]
    fn what_is_shown_can_be_read_and_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("server.toml");
        let lines = [
            "max_batch_size = 3",
            "iter_stats_max_iterations = 7",
            "capacity_scheduler_policy = \"max_utilization\"",
            "[kv_cache]",
            "max_tokens = 64",
            "[tensorrt_llm]",
            "max_beam_width = 2",
            "guided_decoding = false",
            "start_up_timeout = 1",
            "stall_timeout = 2",
            "shutdown_timeout = 3",
            "[tensorrt_llm.kv_cache]",
            "use_uvm = true",
            "[server]",
            "port = 1",
        ];
        std::fs::write(&file, lines.join("\n")).unwrap();
        let loaded = |flags: &str| load(&typed(&format!("--config {} {flags}", file.display()))).unwrap();
        let (settings, executor) = loaded("--threads 2");
        let text = shown(&settings, &executor).unwrap();
        for line in lines.iter().chain(&["threads = 2", "enable_chunked_context = true", "tokens_per_block = 32"]) {
            assert!(text.lines().any(|found| found == *line), "{line}: {text}");
        }
        std::fs::write(&file, &text).unwrap();
        assert_eq!(loaded(""), (settings, executor));
    }

    #[test]
    fn the_first_word_may_be_serve() {
        assert_eq!(typed("serve").word.as_deref(), Some("serve"));
        assert!(Args::try_parse_from(["serve-engine", "--engine", "e", "run"]).is_err());
    }

    #[test]
    fn the_flags_are_valid_for_clap() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }
}
