//! What hosts of containers give a program: a folder with the model, and a variable with the port. Hugging Face's Inference Endpoints do.

use std::path::{Path, PathBuf};

use engine_format::EngineDir;

/// Where the host puts the model.
pub const REPOSITORY: &str = "/repository";

const NEEDED: &str = "--engine DIR is needed: `build-engine --model MODEL --output DIR` makes one";

/// The variable that has the port.
pub const PORT: &str = "PORT";

/// The engine: the one that was given, or that of the host's folder, which is the folder or the only engine directly in it.
///
/// # Errors
/// There is none, or there are several; a sentence.
pub fn engine(given: Option<&Path>, repository: &Path) -> Result<PathBuf, String> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    if EngineDir::open(repository).is_ok() {
        return Ok(repository.to_owned());
    }
    let Ok(entries) = std::fs::read_dir(repository) else { return Err(NEEDED.to_owned()) };
    let mut engines: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| is_engine(path)).collect();
    engines.sort();
    match &engines[..] {
        [engine] => Ok(engine.clone()),
        [] => Err(format!(
            "--engine DIR is needed: {} holds no engine; make one of the model by build-engine",
            repository.display()
        )),
        [first, second, ..] => Err(format!(
            "--engine DIR is needed: {} holds several, {} and {} among them",
            repository.display(),
            first.display(),
            second.display()
        )),
    }
}

fn is_engine(path: &Path) -> bool {
    path.is_dir() && EngineDir::open(path).is_ok()
}

/// The port that the host asks for.
///
/// # Errors
/// It is none; a sentence.
pub fn port(variable: Option<&str>) -> Result<Option<u16>, String> {
    let given = variable.filter(|port| !port.is_empty());
    given.map(|port| port.parse().map_err(|_| format!("{PORT} must be from 0 to 65535, not `{port}`"))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_a_number_or_not_there() {
        assert_eq!(port(Some("80")), Ok(Some(80)));
        assert_eq!((port(None), port(Some(""))), (Ok(None), Ok(None)));
        assert_eq!(port(Some("tcp://1")), Err("PORT must be from 0 to 65535, not `tcp://1`".to_owned()));
    }
}
