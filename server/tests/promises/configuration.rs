//! `docs/configuration.md` shows every setting of the server, at its default.

use std::path::Path;

use server::config::Settings;

/// The block of TOML under the server's heading.
fn block() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, section) = page.split_once("\n## The server's settings\n").unwrap();
    let (_, block) = section.split_once("\n```toml\n[server]\n").unwrap();
    block.split_once("\n```\n").unwrap().0.to_owned()
}

#[test]
fn the_page_has_every_setting_at_its_default() {
    let shown: toml::Table = block().parse().unwrap();
    let default = toml::Table::try_from(Settings::default()).unwrap();
    assert_eq!(shown, default);
}
