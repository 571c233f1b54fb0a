//! Why the program ends without success: what is printed, and the exit code.

use std::io;
use std::process::ExitCode;

use args::exit::{INPUT, INTERRUPTED, MACHINE, OTHER};
use engine_format::error::with_causes;
use engine_format::{FormatError, Target};

use super::options::as_flags;
use super::report::line;
use engine_builder::build::BuildFailure;
use engine_builder::error::BuildError;
use engine_builder::settings::SettingsError;

/// Why the program ends without success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The library's failure.
    #[error(transparent)]
    Build(#[from] BuildFailure),
    /// Signals cannot be handled.
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
    /// The plan cannot be written to stdout.
    #[error("cannot write to stdout")]
    Stdout(#[source] io::Error),
}

impl Failure {
    /// The program's exit code, as `docs/reference/build-engine.md` lists them.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    fn code(&self) -> u8 {
        match self {
            Self::Signals(_) | Self::Stdout(_) => OTHER,
            Self::Build(BuildFailure::Machine { .. } | BuildFailure::Memory { .. }) => MACHINE,
            Self::Build(BuildFailure::Build(error)) => build_code(error),
            Self::Build(_) => INPUT,
        }
    }

    /// Writes the error, its causes and what to do about it to stderr.
    pub(crate) fn print(&self) {
        if let Self::Build(BuildFailure::Build(BuildError::Interrupted)) = self {
            return line(&self.to_string());
        }
        line(&format!("error: {}", self.text()));
        if let Self::Build(BuildFailure::Machine { details, commands, .. }) = self {
            for detail in details {
                line(&format!("  {detail}"));
            }
            if let Self::Build(BuildFailure::Machine { target: Target::Auto, .. }) = self {
                line(
                    "\nhint: `--gpu none` builds an engine for this machine's CPU; for a GPU, on a machine with it and TensorRT-LLM:",
                );
            } else {
                line("\nhint: on a machine with that GPU and TensorRT-LLM:");
            }
            let mut commands = commands.iter();
            for command in commands.by_ref().take(1) {
                line(&format!("  {command}"));
            }
            for command in commands {
                line(&format!("or with TensorRT-LLM's own tool:\n  {command}"));
            }
        }
        if let Some(hint) = self.hint() {
            line(&format!("\nhint: {hint}"));
        }
    }

    /// The error and its causes; options are flags.
    fn text(&self) -> String {
        let text = with_causes(self);
        let part = match self {
            Self::Build(BuildFailure::Settings(error)) => error.to_string(),
            Self::Build(BuildFailure::Memory { problem, .. }) => problem.clone(),
            Self::Build(BuildFailure::Machine { reason, .. }) => reason.clone(),
            Self::Build(BuildFailure::Build(BuildError::NoModel { tried, .. })) => tried.clone(),
            Self::Build(BuildFailure::Build(BuildError::NonFinite(_))) => "`allow_non_finite`".to_owned(),
            Self::Build(BuildFailure::Build(BuildError::Hub { problem, .. })) => problem.clone(),
            Self::Build(BuildFailure::Build(BuildError::Format(FormatError::Exists { hint, .. }))) => hint.clone(),
            _ => return text,
        };
        text.replacen(&part, &as_flags(&part), 1)
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Build(BuildFailure::Build(error)) if error.is_disk_full() => {
                Some("make room there, or choose a directory on another file system")
            }
            _ => None,
        }
    }
}

fn build_code(error: &BuildError) -> u8 {
    match error {
        BuildError::Interrupted => INTERRUPTED,
        error if error.is_disk_full() => INPUT,
        BuildError::Pool(_) | BuildError::Thread(_) => MACHINE,
        BuildError::Hub { .. }
        | BuildError::TensorRt { .. }
        | BuildError::TrtllmBuild { .. }
        | BuildError::Busy { .. } => OTHER,
        BuildError::Format(FormatError::Io { source, .. }) => io_code(source),
        _ => INPUT,
    }
}

/// A place that cannot be used as asked is bad input; a device that fails is not.
fn io_code(error: &io::Error) -> u8 {
    use io::ErrorKind::{
        AlreadyExists, InvalidFilename, InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied,
        ReadOnlyFilesystem,
    };
    match error.kind() {
        AlreadyExists | InvalidFilename | InvalidInput | IsADirectory | NotADirectory | NotFound | PermissionDenied
        | ReadOnlyFilesystem => INPUT,
        _ => OTHER,
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::Build(error.into())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn of(error: BuildError) -> Failure {
        Failure::Build(error.into())
    }

    #[test]
    fn exit_codes_are_those_of_the_guide() {
        let io = |kind| of(FormatError::io("write", Path::new("file"))(io::Error::from(kind)).into());
        let hub = BuildError::Hub {
            model: "a/b".into(),
            file: "config.json".into(),
            endpoint: "there".into(),
            problem: "timed out".into(),
        };
        let cases = [
            (io(io::ErrorKind::StorageFull), 2),
            (io(io::ErrorKind::FileTooLarge), 2),
            (io(io::ErrorKind::PermissionDenied), 2),
            (io(io::ErrorKind::BrokenPipe), 1),
            (of(hub), 1),
            (of(BuildError::Interrupted), 130),
            (SettingsError::TooFewTokens { tokens: 1, batch: 2 }.into(), 2),
        ];
        for (failure, code) in cases {
            assert_eq!(failure.code(), code, "{failure}");
        }
    }

    #[test]
    fn a_cause_is_told_once() {
        let error = FormatError::io("read", Path::new("f"))(io::Error::other("it broke"));
        assert_eq!(with_causes(&of(error.into())), "cannot read `f`: it broke");
        let error = Failure::Stdout(io::Error::other("it broke"));
        assert_eq!(with_causes(&error), "cannot write to stdout: it broke");
    }
}
