//! docs/configuration.md shows every setting, at its default.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a page that is wrong is a test that fails")]

use std::fmt::Write;
use std::path::Path;

use runner::executor::ExecutorConfig;

/// The first block of TOML under "Defaults".
fn defaults() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, section) = page.split_once("\n## Defaults\n").expect("there is a section `Defaults`");
    let (_, block) = section.split_once("\n```toml\n").expect("the section has a block of TOML");
    block.split_once("\n```\n").expect("the block has an end").0.to_owned()
}

/// The block with every setting that is commented out put in.
fn everything() -> String {
    defaults().lines().map(|line| line.strip_prefix("# ").unwrap_or(line).to_owned() + "\n").collect()
}

#[test]
fn the_block_changes_nothing() {
    assert_eq!(toml::from_str::<ExecutorConfig>(&defaults()).unwrap(), ExecutorConfig::default());
}

#[test]
fn what_is_commented_out_can_be_set() {
    let config: ExecutorConfig = toml::from_str(&everything()).unwrap_or_else(|error| panic!("{error}"));
    assert_ne!(config, ExecutorConfig::default());
}

#[test]
fn no_setting_is_missing() {
    let document: toml::Table = toml::from_str(&everything()).unwrap();
    let mut missing = String::new();
    for path in ["", "kv_cache", "tensorrt_llm"].map(str::to_owned).into_iter().chain(tables(&document)) {
        // A name that no setting has makes the reader list those that there are.
        let heading = if path.is_empty() { String::new() } else { format!("[{path}]\n") };
        let error = toml::from_str::<ExecutorConfig>(&format!("{heading}no_such_setting = 1\n")).unwrap_err();
        let (_, names) = error.message().split_once("expected").expect("the error lists the names");
        let shown = path
            .split('.')
            .filter(|part| !part.is_empty())
            .fold(&document, |table, part| table[part].as_table().expect("a heading is a table"));
        for name in names.split('`').skip(1).step_by(2).filter(|name| !shown.contains_key(*name)) {
            writeln!(missing, "[{path}] {name}").unwrap();
        }
    }
    assert!(missing.is_empty(), "docs/configuration.md does not show:\n{missing}");
}

/// The tables of `[tensorrt_llm]`.
fn tables(document: &toml::Table) -> Vec<String> {
    let inner = document["tensorrt_llm"].as_table().expect("a heading is a table");
    inner.iter().filter(|(_, value)| value.is_table()).map(|(name, _)| format!("tensorrt_llm.{name}")).collect()
}
