//! Makes the C header in the output folder, and gives the shared library its name and its list of symbols.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a build script that fails says so by panicking")]

use std::path::PathBuf;

fn main() {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap());
    let output = PathBuf::from(std::env::var_os("OUT_DIR").unwrap());
    println!("cargo:rerun-if-changed=src/c_api");
    println!("cargo:rerun-if-changed=cbindgen.toml");
    println!("cargo:rerun-if-changed=include/head.h");

    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml is well-formed");
    config.header = Some(std::fs::read_to_string(root.join("include/head.h")).expect("include/head.h can be read"));
    cbindgen::Builder::new()
        .with_crate(&root)
        .with_config(config)
        .generate()
        .expect("src/c_api is what cbindgen reads")
        .write_to_file(output.join("trtllm.h"));

    let major = std::env::var("CARGO_PKG_VERSION_MAJOR").unwrap();
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libtrtllm.so.{major}");
    // Crates below export C symbols of their own, which are nobody's business.
    println!("cargo:rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
    // Worker threads may still be on their way out when a host closes the library.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
