//! Prints the licences of everything that is compiled into the packages named on the command line and is not of this
//! workspace: each crate of their normal dependencies with the licence files in its source, equal texts once.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use crate::notices::{Component, Notices};

mod notices;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What is compiled in and no crate: name, licence, and the folder from the workspace's root.
const FONT: (&str, &str, &str) = ("DejaVu Sans 2.37", "Bitstream-Vera", "assets/fonts");

fn main() -> Result<()> {
    let packages: Vec<String> = std::env::args().skip(1).collect();
    if packages.is_empty() {
        return Err("usage: third-party-licenses PACKAGE...".into());
    }
    let mut notices = Notices::default();
    for component in components(&packages)? {
        notices.add(component)?;
    }
    Ok(std::io::stdout().write_all(notices.text().as_bytes())?)
}

/// The normal dependencies of `packages`, by name, and what is no crate.
fn components(packages: &[String]) -> Result<Vec<Component>> {
    let mut tree = vec!["tree", "--locked", "--edges=normal", "--prefix=none", "--format={p}"];
    tree.extend(packages.iter().flat_map(|package| ["-p", package]));
    let tree = cargo(&tree)?;
    let host = cargo(&["-vV"])?;
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("cargo -vV names no host")?;
    let metadata = cargo(&["metadata", "--locked", "--format-version=1", "--filter-platform", host])?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let root = PathBuf::from(metadata["workspace_root"].as_str().ok_or("cargo metadata names no workspace_root")?);

    let mut components = vec![Component { name: FONT.0.into(), license: FONT.1.into(), folder: root.join(FONT.2) }];
    for package in metadata["packages"].as_array().ok_or("cargo metadata names no packages")? {
        let text = |field: &str| package[field].as_str().unwrap_or_default();
        let name = format!("{} {}", text("name"), text("version"));
        // What has no source is the workspace's own. In the tree's lines versions begin with a v, and more words may follow.
        let line = format!("{} v{}", text("name"), text("version"));
        let is_used = tree.lines().any(|found| found == line || found.starts_with(&format!("{line} ")));
        if package["source"].is_null() || !is_used {
            continue;
        }
        let mut folder = PathBuf::from(text("manifest_path"));
        folder.pop();
        components.push(Component { name, license: text("license").into(), folder });
    }
    components.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(components)
}

/// What cargo prints.
fn cargo(arguments: &[&str]) -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(arguments).output()?;
    if !output.status.success() {
        return Err(format!("cargo {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
