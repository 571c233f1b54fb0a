//! The ABI does not change by accident: names, sizes and offsets are those of a committed list.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// What is promised to hosts that were built already. A line may be added; none may change within a major version.
const LIST: &str = include_str!("abi.txt");

struct Header {
    functions: Vec<String>,
    /// Fields by struct.
    structs: BTreeMap<String, Vec<String>>,
    constants: Vec<String>,
}

/// Takes the generated header apart, as far as its own regular form needs.
fn header() -> Header {
    let text = include_str!("../../include/trtllm.h");
    let mut code = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("/*") {
        code.push_str(&rest[..start]);
        rest = &rest[start + rest[start..].find("*/").unwrap() + 2..];
    }
    code.push_str(rest);
    let mut header = Header { functions: Vec::new(), structs: BTreeMap::new(), constants: Vec::new() };
    let mut inside: Option<String> = None;
    for line in code.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("typedef struct ").and_then(|line| line.strip_suffix(" {")) {
            inside = Some(name.to_owned());
        } else if let Some((name, _)) = line.split_once(" = ").filter(|(name, _)| name.starts_with("TRTLLM_")) {
            header.constants.push(name.to_owned());
        } else if line.starts_with('}') {
            inside = None;
        } else if let (Some(name), Some(field)) = (&inside, line.strip_suffix(';')) {
            let field = field.rsplit([' ', '*']).next().unwrap().to_owned();
            header.structs.entry(name.clone()).or_default().push(field);
        } else if let Some(constant) = line.strip_prefix("#define TRTLLM_") {
            let mut words = constant.split_whitespace();
            let (name, value) = (words.next().unwrap(), words.next());
            if value.is_some() && !name.contains('(') && !name.starts_with("VERSION_") {
                header.constants.push(format!("TRTLLM_{name}"));
            }
        } else if let Some((before, _)) = line.split_once('(')
            && !line.starts_with("typedef")
            && let Some(name) = before.rsplit([' ', '*']).next().filter(|name| name.starts_with("trtllm_"))
        {
            header.functions.push(name.to_owned());
        }
    }
    header.functions.sort();
    header
}

/// What a C compiler makes of the header.
fn measured(header: &Header) -> String {
    let mut program = String::from("#include \"trtllm.h\"\n#include <stdio.h>\nint main(void) {\n");
    for (name, fields) in &header.structs {
        writeln!(program, "printf(\"struct {name} size %zu align %zu\\n\", sizeof({name}), _Alignof({name}));")
            .unwrap();
        for field in fields {
            writeln!(
                program,
                "printf(\"field {name}.{field} offset %zu size %zu\\n\", offsetof({name}, {field}), \
                 sizeof((({name} *)0)->{field}));"
            )
            .unwrap();
        }
    }
    for name in &header.constants {
        writeln!(program, "printf(\"constant {name} %llu\\n\", (unsigned long long){name});").unwrap();
    }
    program.push_str("return 0;\n}\n");
    let dir = tempfile::tempdir().unwrap();
    let (source, binary) = (dir.path().join("abi.c"), dir.path().join("abi"));
    std::fs::write(&source, program).unwrap();
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let mut compile = Command::new("cc");
    compile.arg("-std=c11").arg("-I").arg(include).arg(&source).arg("-o").arg(&binary);
    assert!(compile.status().unwrap().success());
    let output = Command::new(binary).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn names_sizes_and_offsets_are_those_that_were_promised() {
    let header = header();
    let functions: String = header.functions.iter().map(|name| format!("function {name}\n")).collect();
    let found = functions + &measured(&header);
    if found != LIST {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("abi.txt");
        std::fs::write(&path, &found).unwrap();
        panic!("the ABI is not that of tests/c_abi/abi.txt: compare it with {}", path.display());
    }
}

/// Every end that a struct has had: its name, its bytes, and its last field then.
const ENDS: &str = include_str!("ends.txt");

#[test]
fn new_fields_begin_behind_every_end_that_a_struct_has_had() {
    let header = header();
    let found = measured(&header);
    let size = |line: &str| {
        let line =
            found.lines().find(|found| found.starts_with(&format!("{line} "))).unwrap_or_else(|| panic!("{line}"));
        line.split(' ').collect::<Vec<_>>()[3].parse::<usize>().unwrap()
    };
    let words = |line: &'static str| <[&str; 3]>::try_from(line.split(' ').collect::<Vec<_>>()).unwrap();
    let ends: Vec<_> = ENDS.lines().filter(|line| !line.starts_with('#')).map(words).collect();
    for &[name, bytes, last] in &ends {
        let bytes: usize = bytes.parse().unwrap();
        let fields = &header.structs[name];
        let place = fields.iter().position(|field| field == last).unwrap_or_else(|| panic!("{name} has lost {last}"));
        for (number, field) in fields.iter().enumerate() {
            let offset = size(&format!("field {name}.{field} offset"));
            assert_eq!(offset < bytes, number <= place, "{name}.{field} must begin where {name} ended, at {bytes}");
        }
    }
    for (name, fields) in header.structs.iter().filter(|(_, fields)| fields[0] == "struct_size") {
        let bytes = size(&format!("struct {name} size")).to_string();
        let line = [name, bytes.as_str(), fields.last().unwrap()];
        assert!(ends.contains(&line), "tests/c_abi/ends.txt lacks the line `{}`", line.join(" "));
    }
}

#[test]
fn comments_hold_nothing_that_documentation_tools_take_for_markup() {
    for comment in
        include_str!("../../include/trtllm.h").split("/*").skip(1).map(|rest| rest.split("*/").next().unwrap())
    {
        let code = |text: &str| text.split('`').step_by(2).collect::<String>();
        for word in code(comment).split_whitespace() {
            assert!(!word.starts_with('@') && !word.contains('\\'), "{word} in {comment}");
        }
        let is_tag = |place: usize| comment[place + 1..].starts_with(|c: char| c.is_alphabetic() || c == '/');
        assert!(!comment.match_indices('<').any(|(place, _)| is_tag(place)), "{comment}");
    }
}

#[test]
fn every_function_is_misused_in_the_test_host() {
    let host = include_str!("../hosts/misuse.c");
    let missing: Vec<_> = header().functions.into_iter().filter(|name| !host.contains(&format!("{name}("))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// A declaration of what another header declares too breaks the hosts that include both.
#[test]
fn the_header_declares_nothing_but_its_own_names() {
    let text = include_str!("../../include/trtllm.h");
    let declarations =
        text.lines().filter(|line| line.starts_with(char::is_alphabetic) && !line.starts_with("extern \"C\""));
    let mut count = 0;
    for line in declarations {
        let code = line.trim_end_matches([' ', '{', ';']);
        let name = match code.split_once("(*") {
            Some((_, pointer)) => pointer.split(')').next().unwrap(),
            None => code.split('(').next().unwrap().rsplit([' ', '*']).next().unwrap(),
        };
        assert!(name.starts_with("trtllm_"), "{line}");
        count += 1;
    }
    assert!(count > 80, "{count}");
}

#[test]
fn the_headers_compile_without_a_warning() {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let strict = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", "-fsyntax-only", "-I"];
    for (compiler, language, standard, name) in [
        ("cc", "c", "gnu89", "trtllm.h"),
        ("cc", "c", "c11", "trtllm.h"),
        ("cc", "c", "c17", "trtllm.h"),
        ("c++", "c++", "c++17", "trtllm.h"),
        ("c++", "c++", "c++17", "trtllm.hpp"),
        ("c++", "c++", "c++20", "trtllm.hpp"),
    ] {
        let mut compile = Command::new(compiler);
        compile.args(strict).arg(&include).arg(format!("-std={standard}")).args(["-x", language]);
        assert!(compile.arg(include.join(name)).status().unwrap().success(), "{name} as {standard}");
    }
}
