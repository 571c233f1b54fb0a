//! docs/model-files.md shows every field of the tables, in their words, and no others.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a page that is wrong is a test that fails")]

use std::path::Path;

use engine_format::engine_dir::{CHAT_TEMPLATES_DIR, COMPANION_FILES};
use engine_format::model_files::TABLES;

fn page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/model-files.md")).unwrap()
}

/// The first table of a section, without what is before and after it.
fn table_of(section: &str) -> String {
    let lines = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn every_table_is_on_the_page() {
    let page = page();
    let sections: Vec<&str> = page.split("\n##").collect();
    for table in TABLES {
        let is_its = |section: &&&str| section.lines().next().unwrap().trim_start_matches('#').trim() == table.name;
        let section = sections.iter().find(is_its);
        let shown = section.map_or(String::new(), |section| table_of(section));
        assert!(shown == table.to_string(), "`{}` of docs/model-files.md should be:\n\n{table}", table.name);
    }
    let tables = page.lines().filter(|line| line.starts_with("| ---")).count();
    assert_eq!(tables, TABLES.len(), "the page has tables that the code does not know");
}

#[test]
fn every_file_that_a_run_reads_is_on_the_page() {
    let page = page();
    for name in COMPANION_FILES.into_iter().chain([CHAT_TEMPLATES_DIR]) {
        assert!(page.contains(name), "{name}");
    }
}
