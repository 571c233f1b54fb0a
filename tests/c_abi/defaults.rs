//! The header says what every field of a struct that a host fills is before the host changes it.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use trtllm::c_api::build::{trtllm_build_options, trtllm_init_build_options};
use trtllm::c_api::engine::{trtllm_engine_config, trtllm_init_engine_config};
use trtllm::c_api::request::{trtllm_init_request, trtllm_request};
use trtllm::c_api::status::trtllm_status;

use crate::support::ok;

/// The bytes of a struct that was initialised.
fn bytes<T>(init: unsafe extern "C" fn(*mut T, usize) -> trtllm_status) -> Vec<u8> {
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: the place has that size.
    ok(unsafe { init(value.as_mut_ptr(), size_of::<T>()) });
    // SAFETY: the place was zeroed, so every byte of it is initialised.
    unsafe { std::slice::from_raw_parts(value.as_ptr().cast(), size_of::<T>()) }.to_vec()
}

/// Each field of a struct of the header, and what its comment says is its default.
fn documented(name: &str) -> Vec<(String, String)> {
    let header = include_str!("../../include/trtllm.h");
    let body = header.split(&format!("typedef struct {name} {{")).nth(1).unwrap();
    let body = body.split(&format!("}} {name};")).next().unwrap();
    let fields = body.split("/**").skip(2).map(|field| field.split_once("*/").unwrap());
    let one = |(comment, field): (&str, &str)| {
        let words: Vec<_> = comment.split_whitespace().filter(|word| *word != "*").collect();
        let place = words.iter().position(|word| *word == "Default:");
        let place = place.unwrap_or_else(|| panic!("a comment of {name} does not end with `Default: `: {comment}"));
        let default = words[place + 1..].join(" ");
        let field = field.trim().trim_end_matches(';').rsplit([' ', '*']).next().unwrap().to_owned();
        (field, default.strip_suffix('.').unwrap_or_else(|| panic!("{comment}")).replace('`', ""))
    };
    fields.map(one).collect()
}

#[test]
fn every_default_is_in_the_header() {
    let mut program =
        String::from("#include \"trtllm.h\"\n#include <stdio.h>\n#include <string.h>\nint main(void) {\n");
    for (name, bytes) in [
        ("trtllm_engine_config", bytes::<trtllm_engine_config>(trtllm_init_engine_config)),
        ("trtllm_request", bytes::<trtllm_request>(trtllm_init_request)),
        ("trtllm_build_options", bytes::<trtllm_build_options>(trtllm_init_build_options)),
    ] {
        writeln!(program, "{{ static const {name} none; {name} found; static const unsigned char bytes[] = {{")
            .unwrap();
        bytes.iter().for_each(|byte| write!(program, "{byte},").unwrap());
        writeln!(program, "}};\nmemcpy(&found, bytes, sizeof found);").unwrap();
        for (field, default) in documented(name) {
            let holds = match default.as_str() {
                "none" => format!("memcmp(&found.{field}, &none.{field}, sizeof none.{field}) == 0"),
                value => format!("found.{field} == (__typeof__(found.{field}))({value})"),
            };
            writeln!(program, "if (!({holds})) puts(\"the default of {name}.{field} is not {default}\");").unwrap();
        }
        program.push_str("}\n");
    }
    program.push_str("return 0;\n}\n");
    let dir = tempfile::tempdir().unwrap();
    let (source, binary) = (dir.path().join("defaults.c"), dir.path().join("defaults"));
    std::fs::write(&source, program).unwrap();
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let compiled =
        Command::new("cc").arg("-std=gnu11").arg("-I").arg(include).arg(&source).arg("-o").arg(&binary).status();
    assert!(compiled.unwrap().success());
    let found = Command::new(binary).output().unwrap();
    assert_eq!(String::from_utf8(found.stdout).unwrap(), "");
}
