//! Makes the C header in the output folder, and gives the shared library its name.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a build script that fails says so by panicking")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

fn main() {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap());
    let output = PathBuf::from(std::env::var_os("OUT_DIR").unwrap());
    println!("cargo:rerun-if-changed=src/c_api");
    println!("cargo:rerun-if-changed=cbindgen.toml");
    println!("cargo:rerun-if-changed=include/head.h");

    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml is well-formed");
    config.header = Some(std::fs::read_to_string(root.join("include/head.h")).expect("include/head.h can be read"));
    let bindings = cbindgen::Builder::new().with_crate(&root).with_config(config).generate();
    let mut header = Vec::new();
    bindings.expect("src/c_api is what cbindgen reads").write(&mut header);
    let header = String::from_utf8(header).expect("the header is UTF-8");
    // A comment of C, so that hosts of older standards can read it too.
    let header = header.replace("// __cplusplus", "/* __cplusplus */").replace("// extern \"C\"", "/* extern \"C\" */");
    std::fs::write(output.join("trtllm.h"), with_enums(&header, &kinds(&root.join("src/c_api")))).unwrap();

    // The part of the version within which hosts stay compatible; scripts/install has the same.
    let version = |part| std::env::var(format!("CARGO_PKG_VERSION_{part}")).unwrap();
    let abi = match version("MAJOR").as_str() {
        "0" => format!("0.{}", version("MINOR")),
        major => major.to_owned(),
    };
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libtrtllm.so.{abi}");
    // Crates below export C symbols of their own, which are nobody's business.
    println!("cargo:rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
    // Worker threads may still be on their way out when a host closes the library.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}

/// The type of each constant that is a value of one, such as `trtllm_status`.
fn kinds(sources: &Path) -> HashMap<String, String> {
    let mut kinds = HashMap::new();
    for entry in std::fs::read_dir(sources).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let constants = text.lines().filter_map(|line| line.strip_prefix("pub const ")?.split_once(": trtllm_"));
        kinds.extend(
            constants
                .filter_map(|(name, rest)| Some((name.to_owned(), format!("trtllm_{}", rest.split_once(" = ")?.0)))),
        );
    }
    kinds
}

/// Makes enumerators of the constants that are values of a type, so that `switch` and debuggers know them. The type itself stays
/// of fixed width.
fn with_enums(header: &str, kinds: &HashMap<String, String>) -> String {
    let (mut made, mut comment) = (String::new(), String::new());
    let mut open: Option<&str> = None;
    for line in header.lines() {
        // The comment of what follows it.
        if line.starts_with("/**") || !comment.is_empty() && line.starts_with(" *") {
            comment += &format!("{line}\n");
            continue;
        }
        let words: Vec<_> = line.split(' ').collect();
        let value = match words[..] {
            ["#define", name, value] => kinds.get(name).map(|kind| (kind.as_str(), name, value)),
            _ => None,
        };
        // Blank lines stay inside.
        if !line.is_empty() && open.is_some() && open != value.map(|(kind, ..)| kind) {
            made.truncate(made.trim_end().trim_end_matches(',').len());
            made += "\n};\n\n";
            open = None;
        }
        match value {
            None => made += &format!("{comment}{line}\n"),
            Some((kind, name, value)) => {
                if open.is_none() {
                    made +=
                        &format!("/**\n * The values of `{kind}` that this header knows.\n */\nenum {kind}_code {{\n");
                    open = Some(kind);
                }
                comment.lines().for_each(|line| made += &format!("    {line}\n"));
                made += &format!("    {name} = {value},\n");
            }
        }
        comment.clear();
    }
    made
}
