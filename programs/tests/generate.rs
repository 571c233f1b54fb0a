//! `--generate` of every program.

#![allow(clippy::unwrap_used, reason = "a program that does not start is a test that fails")]

use std::process::Command;

/// The programs, each with a flag that it alone has.
const PROGRAMS: [(&str, &str, &str); 3] = [
    ("build-engine", env!("CARGO_BIN_EXE_build-engine"), "checkpoint-only"),
    ("run-engine", env!("CARGO_BIN_EXE_run-engine"), "prompt-ids"),
    ("bench-engine", env!("CARGO_BIN_EXE_bench-engine"), "shared-prefix-len"),
];

#[test]
fn every_kind_names_the_program_and_its_flags() {
    for (name, path, flag) in PROGRAMS {
        // A man page escapes every dash.
        let in_man = |text: &str| text.replace('-', "\\-");
        for (kind, name, flag) in [
            ("man", in_man(name), in_man(&format!("--{flag}"))),
            ("complete-bash", name.to_owned(), format!("--{flag}")),
            ("complete-zsh", format!("#compdef {name}"), format!("--{flag}")),
            ("complete-fish", format!("complete -c {name}"), format!("-l {flag}")),
        ] {
            let output = Command::new(path).args(["--generate", kind]).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()), "{name} {kind}");
            assert!(text.contains(&name) && text.contains(&flag), "{name} {kind}: {text}");
            if kind == "man" {
                let synopsis = text.split(".SH SYNOPSIS\n").nth(1).unwrap().split(".SH").next().unwrap();
                assert!(synopsis.starts_with(&format!("{name} [OPTIONS] \\-\\-")), "{synopsis}");
                assert!(synopsis.lines().all(|line| line == ".br" || line.len() < 100), "{synopsis}");
            }
            assert!(kind != "man" || !text.contains("(1)"), "{name}: its man page names one that does not exist");
        }
    }
}

#[test]
fn nothing_else_goes_with_it() {
    for (name, path, _) in PROGRAMS {
        for wrong in [&["--generate", "man", "--threads", "1"] as &[_], &["--generate", "html"], &[]] {
            let output = Command::new(path).args(wrong).output().unwrap();
            assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), b"".as_slice()), "{name} {wrong:?}");
        }
    }
}
