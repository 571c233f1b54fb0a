//! What can be typed about the executor, in the programs that start one.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use runner::executor::tensorrt_llm::{CaptureLog, CommunicationMode};
use runner::executor::{CapacitySchedulerPolicy, ExecutorConfig, KvCacheDtype, Limits};

use crate::number::{positive, whole};

/// How the executor runs, in the terms of TensorRT-LLM's `ExecutorConfig`.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Executor")]
pub struct ExecutorArgs {
    /// Read settings from this TOML file, in which they have the names of docs/configuration.md. Command-line
    /// flags override the file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Worker threads of the CPU engine [default: one for each physical core]
    #[arg(long, value_name = "N", value_parser = whole::<u16>(1..=1024))]
    pub threads: Option<u16>,

    /// Most tokens of one sequence, prompt included; can only lower the engine's limit
    #[arg(long, value_name = "N", value_parser = positive)]
    pub max_seq_len: Option<usize>,

    /// Most sequences in one step; can only lower the engine's limit
    #[arg(long, value_name = "N", value_parser = positive)]
    pub max_batch_size: Option<usize>,

    /// Most tokens in one step; can only lower the engine's limit
    #[arg(long, value_name = "N", value_parser = positive)]
    pub max_num_tokens: Option<usize>,

    /// Which requests run when the KV cache cannot hold all: `max_utilization` starts what fits now and may pause
    /// it later, `guaranteed_no_evict` only what fits to its end [default: guaranteed_no_evict]
    #[arg(long, value_name = "POLICY", value_enum)]
    pub capacity_scheduler_policy: Option<Policy>,

    /// Process long prompts over several steps, together with the tokens of other sequences [default: true]
    #[arg(long, value_name = "BOOL")]
    pub enable_chunked_context: Option<bool>,

    /// Tokens in the KV cache, where memory allows [default: what the limits can use, within 90 % of the memory that the
    /// process may still take]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub kv_cache_tokens: Option<usize>,

    /// Most bytes of the KV cache, on each rank [default: no limit but those of tokens and memory]
    #[arg(long, value_name = "BYTES", value_parser = positive)]
    pub kv_cache_bytes: Option<usize>,

    /// What the CPU engine stores keys and values as; `int8` takes about half the memory of `bf16` [default: bf16]
    #[arg(long, value_name = "DTYPE", value_enum)]
    pub kv_cache_dtype: Option<CacheDtype>,

    /// Tokens of a block of the KV cache [default: 32]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub tokens_per_block: Option<usize>,

    /// Share KV-cache blocks between requests whose prompts begin alike [default: true]
    #[arg(long, value_name = "BOOL")]
    pub enable_block_reuse: Option<bool>,

    /// Requests that may wait [default: 65536]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub max_queue_size: Option<usize>,

    /// Who starts the ranks of a TensorRT engine: this program (`orchestrator`), or `mpirun` or Slurm (`leader`)
    /// [default: as this process was started]
    #[arg(long, value_name = "MODE", value_enum)]
    pub parallel_mode: Option<Mode>,

    /// The program that an orchestrator starts for each rank [default: TensorRT-LLM's executorWorker]
    #[arg(long, value_name = "FILE")]
    pub worker_executable: Option<PathBuf>,

    /// Seconds that an orchestrator's workers have to start [default: 300]
    #[arg(long, value_name = "SECONDS", value_parser = whole::<u64>(0..=u64::MAX))]
    pub start_up_timeout: Option<u64>,
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read `{path}`: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A setting of the file is outside its range.
    #[error("`{path}`: {source}", path = path.display())]
    Setting {
        /// The file.
        path: PathBuf,
        /// Which setting, and what it may be.
        source: runner::executor::ConfigError,
    },
    /// It is not TOML, or has a name or value that no setting has.
    #[error("`{path}` cannot be read as a configuration: {source}", path = path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its line.
        source: Box<toml::de::Error>,
    },
}

fn read(path: &Path) -> Result<ExecutorConfig, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let config: ExecutorConfig =
        parse(&text).map_err(|source| ConfigError::Toml { path: path.to_owned(), source: Box::new(source) })?;
    config.validate().map_err(|source| ConfigError::Setting { path: path.to_owned(), source })?;
    Ok(config)
}

/// The table of a configuration file that is the server's, and nothing to an executor.
pub const SERVER_TABLE: &str = "server";

/// The executor's settings of a file that may have the server's too.
fn parse(text: &str) -> Result<ExecutorConfig, toml::de::Error> {
    if let Ok(mut table) = text.parse::<toml::Table>()
        && table.remove(SERVER_TABLE).is_some()
    {
        return table.try_into();
    }
    // This reader says where what is wrong stands.
    toml::from_str(text)
}

/// [`CapacitySchedulerPolicy`], by TensorRT-LLM's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Policy {
    /// Start what fits now; pause the latest when blocks run out.
    MaxUtilization,
    /// Start only what fits to its end.
    GuaranteedNoEvict,
}

impl Policy {
    fn get(self) -> CapacitySchedulerPolicy {
        match self {
            Self::MaxUtilization => CapacitySchedulerPolicy::MaxUtilization,
            Self::GuaranteedNoEvict => CapacitySchedulerPolicy::GuaranteedNoEvict,
        }
    }
}

/// [`KvCacheDtype`], by its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum CacheDtype {
    /// bfloat16.
    Bf16,
    /// Eight bits, with a scale for each 32 elements of a token.
    Int8,
}

impl CacheDtype {
    fn get(self) -> KvCacheDtype {
        match self {
            Self::Bf16 => KvCacheDtype::Bf16,
            Self::Int8 => KvCacheDtype::Int8,
        }
    }
}

/// [`CommunicationMode`], by TensorRT-LLM's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Mode {
    /// `mpirun` or Slurm has started one process for each; the first takes requests, the others serve it.
    Leader,
    /// This process, which stays free of GPUs, starts a worker for each.
    Orchestrator,
}

impl Mode {
    fn get(self) -> CommunicationMode {
        match self {
            Self::Leader => CommunicationMode::Leader,
            Self::Orchestrator => CommunicationMode::Orchestrator,
        }
    }
}

/// A limit that is above the engine's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} {asked} is above the engine's {limit}: a run may only lower it; build the engine with a higher one")]
pub struct AboveLimit {
    /// The flag, or the file and its setting.
    setting: String,
    asked: usize,
    limit: usize,
}

impl ExecutorArgs {
    /// The executor's configuration: the file's, or [`ExecutorConfig::default`], with the flags over it.
    pub fn config(&self) -> Result<ExecutorConfig, ConfigError> {
        let mut config = match &self.config {
            Some(path) => read(path)?,
            None => ExecutorConfig::default(),
        };
        let ExecutorConfig { kv_cache, tensorrt_llm, .. } = &mut config;
        set(&mut kv_cache.tokens_per_block, self.tokens_per_block);
        set(&mut kv_cache.enable_block_reuse, self.enable_block_reuse);
        set(&mut kv_cache.dtype, self.kv_cache_dtype.map(CacheDtype::get));
        kv_cache.max_tokens = self.kv_cache_tokens.or(kv_cache.max_tokens);
        kv_cache.max_bytes = self.kv_cache_bytes.or(kv_cache.max_bytes);
        tensorrt_llm.parallel.communication_mode =
            self.parallel_mode.map(Mode::get).or(tensorrt_llm.parallel.communication_mode);
        let worker = self.worker_executable.as_ref().map(|path| path.display().to_string());
        tensorrt_llm.parallel.worker_executable_path = worker.or(tensorrt_llm.parallel.worker_executable_path.take());
        set(&mut tensorrt_llm.start_up_timeout, self.start_up_timeout);
        // A program's standard output is its own.
        tensorrt_llm.capture_log = CaptureLog::Everything;
        set(&mut config.enable_chunked_context, self.enable_chunked_context);
        set(&mut config.max_queue_size, self.max_queue_size);
        set(&mut config.capacity_scheduler_policy, self.capacity_scheduler_policy.map(Policy::get));
        config.threads = self.threads.map(usize::from).or(config.threads);
        config.max_seq_len = self.max_seq_len.or(config.max_seq_len);
        config.max_batch_size = self.max_batch_size.or(config.max_batch_size);
        config.max_num_tokens = self.max_num_tokens.or(config.max_num_tokens);
        Ok(config)
    }

    /// Compares what was asked for, by flags and in the file, with what the engine was built for.
    pub fn check(&self, config: &ExecutorConfig, engine: Limits) -> Result<(), AboveLimit> {
        let limits = [
            ("max_seq_len", self.max_seq_len, config.max_seq_len, engine.max_seq_len),
            ("max_batch_size", self.max_batch_size, config.max_batch_size, engine.max_batch_size),
            ("max_num_tokens", self.max_num_tokens, config.max_num_tokens, engine.max_num_tokens),
        ];
        for (name, typed, asked, limit) in limits {
            if let Some(asked) = asked.filter(|&asked| asked > limit) {
                let setting = match (typed, &self.config) {
                    (None, Some(file)) => format!("`{}`: {name}", file.display()),
                    _ => format!("--{}", name.replace('_', "-")),
                };
                return Err(AboveLimit { setting, asked, limit });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use runner::executor::{KvCacheConfig, TensorRtLlmConfig};

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        executor: ExecutorArgs,
    }

    fn typed(arguments: &str) -> ExecutorArgs {
        Typed::try_parse_from(["program"].into_iter().chain(arguments.split_whitespace())).unwrap().executor
    }

    #[test]
    fn what_is_not_given_is_the_default() {
        let mut config = typed("").config().unwrap();
        config.tensorrt_llm.capture_log = CaptureLog::Nothing;
        assert_eq!(config, ExecutorConfig::default());
    }

    #[test]
    fn every_flag_reaches_its_field() {
        let config = typed(
            "--threads 2 --max-seq-len 3 --max-batch-size 4 --max-num-tokens 5 --max-queue-size 9
             --capacity-scheduler-policy max_utilization --enable-chunked-context false --kv-cache-tokens 64 --kv-cache-bytes 5000
             --tokens-per-block 8 --enable-block-reuse false --kv-cache-dtype int8",
        )
        .config()
        .unwrap();
        let expected = ExecutorConfig {
            threads: Some(2),
            max_seq_len: Some(3),
            max_batch_size: Some(4),
            max_num_tokens: Some(5),
            capacity_scheduler_policy: CapacitySchedulerPolicy::MaxUtilization,
            enable_chunked_context: false,
            kv_cache: KvCacheConfig {
                max_tokens: Some(64),
                max_bytes: Some(5000),
                tokens_per_block: 8,
                enable_block_reuse: false,
                dtype: KvCacheDtype::Int8,
                ..KvCacheConfig::default()
            },
            max_queue_size: 9,
            tensorrt_llm: TensorRtLlmConfig { capture_log: CaptureLog::Everything, ..TensorRtLlmConfig::default() },
            ..ExecutorConfig::default()
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn a_file_is_read_and_flags_go_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("executor.toml");
        std::fs::write(
            &file,
            "max_batch_size = 3\nmax_queue_size = 5\ncapacity_scheduler_policy = 'max_utilization'\n
             [kv_cache]\nmax_tokens = 64\nmax_bytes = 100\ndtype = 'int8'\n[tensorrt_llm]\nmax_beam_width = 2\n[tensorrt_llm.kv_cache]\nuse_uvm = true\n",
        )
        .unwrap();
        let config = typed(&format!("--config {} --max-batch-size 2", file.display())).config().unwrap();
        assert_eq!((config.max_batch_size, config.max_queue_size), (Some(2), 5));
        assert_eq!(config.capacity_scheduler_policy, CapacitySchedulerPolicy::MaxUtilization);
        assert_eq!((config.kv_cache.max_tokens, config.kv_cache.max_bytes), (Some(64), Some(100)));
        assert_eq!(config.kv_cache.dtype, KvCacheDtype::Int8);
        assert_eq!(config.tensorrt_llm.kv_cache.use_uvm, Some(true));
        std::fs::write(&file, "max_batch_size = 3\n[server]\nport = 1\n").unwrap();
        assert_eq!(typed(&format!("--config {}", file.display())).config().unwrap().max_batch_size, Some(3));
        std::fs::write(&file, "max_batch_sise = 3\n").unwrap();
        let error = typed(&format!("--config {}", file.display())).config().unwrap_err().to_string();
        assert!(error.contains("max_batch_sise") && error.contains("executor.toml"), "{error}");
    }

    #[test]
    fn limits_may_be_lowered_only() {
        let engine = Limits { max_seq_len: 100, max_batch_size: 8, max_num_tokens: 64 };
        let check =
            |typed: ExecutorArgs| typed.check(&typed.config().unwrap(), engine).map_err(|error| error.to_string());
        assert_eq!(check(typed("--max-seq-len 100 --max-batch-size 1 --max-num-tokens 64")), Ok(()));
        let error = check(typed("--max-batch-size 9")).unwrap_err();
        assert!(error.starts_with("--max-batch-size 9 is above the engine's 8"), "{error}");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"max_batch_size = 9").unwrap();
        let file = file.path().display();
        let error = check(typed(&format!("--config {file}"))).unwrap_err();
        assert!(error.starts_with(&format!("`{file}`: max_batch_size 9 is above the engine's 8")), "{error}");
        assert_eq!(check(typed(&format!("--config {file} --max-batch-size 8"))), Ok(()));
    }
}
