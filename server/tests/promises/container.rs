//! What hosts of containers give the program.

use std::os::unix::fs::symlink;
use std::path::Path;

use server::config::container::engine;

use crate::common::engine::{demo_engine, program};

#[test]
fn an_engine_is_found_where_a_host_puts_it() {
    let repository = tempfile::tempdir().unwrap();
    let find = || engine(None, repository.path());
    assert!(find().unwrap_err().contains("holds no engine; make one of the model by build-engine"));
    std::fs::create_dir(repository.path().join("model")).unwrap();
    assert!(find().is_err());
    symlink(demo_engine(), repository.path().join("b")).unwrap();
    assert_eq!(find(), Ok(repository.path().join("b")));
    symlink(demo_engine(), repository.path().join("a")).unwrap();
    assert!(find().unwrap_err().contains("holds several"));
    assert_eq!(engine(Some(Path::new("x")), repository.path()), Ok("x".into()));
    assert_eq!(engine(None, demo_engine()), Ok(demo_engine().to_owned()));
    assert_eq!(
        engine(None, Path::new("/nonexistent/repository")),
        Err("--engine DIR is needed: `build-engine --model MODEL --output DIR` makes one".to_owned())
    );
}

/// The settings that the program would run with.
fn shown(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = program();
    command.arg("--print-config").args(arguments).env_remove("PORT").envs(variables.iter().copied());
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_port_is_the_hosts_unless_another_is_set() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[server]\nport = 1\n").unwrap();
    let config = ["--config", file.path().to_str().unwrap()];
    let port = |arguments: &[&str], variables: &[(&str, &str)]| {
        let (code, said, problem) = shown(arguments, variables);
        assert_eq!(code, Some(0), "{problem}");
        said.lines().find_map(|line| line.strip_prefix("port = ").map(str::to_owned)).unwrap()
    };
    assert_eq!(port(&[], &[]), "8000");
    assert_eq!(port(&config, &[]), "1");
    assert_eq!(port(&config, &[("PORT", "2")]), "2");
    assert_eq!(port(&config, &[("PORT", "2"), ("SERVE_PORT", "3")]), "3");
    assert_eq!(port(&["--port", "4"], &[("PORT", "2"), ("SERVE_PORT", "3")]), "4");
    let (code, _, problem) = shown(&[], &[("PORT", "http")]);
    assert!(code == Some(2) && problem.contains("PORT must be from 0 to 65535, not `http`"), "{problem}");
}
