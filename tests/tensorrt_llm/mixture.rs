//! The stand-in and real libraries are not mixed, and a shim knows which release it is for. No real library is at hand: the stand-in's,
//! without the symbol that says what it is, has that part.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{program, run};
use crate::stand_in::{prefix, shim};

/// The stand-in's libraries by their place, and by the name that they are loaded by.
const LIBRARIES: [(&str, &str); 4] = [
    ("lib/libtensorrt_llm.so", "libtensorrt_llm.so"),
    ("lib/libnvinfer_plugin_tensorrt_llm.so", "libnvinfer_plugin_tensorrt_llm.so"),
    ("lib/libnvinfer.so.10", "libnvinfer.so.10"),
    ("lib/mpi/libmpi.so.40", "libmpi.so.40"),
];

/// A copy of `from` in `to`, with every `old` replaced by `new`, of the same length.
fn copy_with(from: &Path, to: &Path, old: &[u8], new: &[u8]) {
    let mut content = std::fs::read(from).unwrap();
    let places: Vec<_> = (0..content.len() - old.len()).filter(|&start| content[start..].starts_with(old)).collect();
    assert!(!places.is_empty() && old.len() == new.len(), "{}", from.display());
    for start in places {
        content[start..start + old.len()].copy_from_slice(new);
    }
    std::fs::write(to, content).unwrap();
}

fn examine(shim: &Path, variables: &[(&str, &Path)]) -> String {
    let mut command = program("run-engine");
    command.arg("doctor").env_remove("LD_LIBRARY_PATH").env("TRTLLM_GPU_LIB", shim);
    run(command.envs(variables.iter().copied())).stdout
}

#[test]
fn a_real_library_is_neither_found_by_the_stand_ins_shim_nor_taken() {
    let dir = tempfile::tempdir().unwrap();
    for (place, name) in LIBRARIES {
        copy_with(&prefix().join(place), &dir.path().join(name), b"trtllm_stand_in_", b"trtllm_realised_");
    }
    // Its own come first.
    let report = examine(&shim(), &[("LD_LIBRARY_PATH", dir.path())]);
    assert!(report.contains("ok  libtrtllm_gpu.so") && report.contains("ok  TensorRT-LLM"), "{report}");
    // What is there already is what is used.
    for (_, name) in LIBRARIES {
        let library = dir.path().join(name);
        let report = examine(&shim(), &[("LD_PRELOAD", &library)]);
        let told = format!("in `{}` is not the stand-in's", dir.path().display());
        assert!(report.contains("missing  libtrtllm_gpu.so") && report.contains(&told), "{report}");
        assert!(report.contains("LD_PRELOAD"), "{report}");
    }
}

#[test]
fn a_shim_for_tensorrt_llm_refuses_the_stand_in() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().join("libtrtllm_gpu.so");
    copy_with(&shim(), &real, b"1.2.0-trtllm-stand-in", b"1.2.0-as-nvidia-built");
    let report = examine(&real, &[]);
    assert!(report.contains("it was built for TensorRT-LLM, and `libtensorrt_llm.so` in"), "{report}");
    assert!(report.contains("is the stand-in's"), "{report}");
}

/// The shim as Cargo builds it for headers that do not say their version, as those of NVIDIA's image, in an environment that says
/// `version`.
fn shim_without_version_header(version: Option<&str>) -> PathBuf {
    let root = prefix().with_file_name("versionless");
    let header = |name: &str| root.join("include/tensorrt_llm/executor").join(name);
    std::fs::create_dir_all(header("")).unwrap();
    let include = prefix().join("include");
    let folder = include.join("tensorrt_llm/executor");
    for file in std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()) {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        if name != "version.h" && !header(&name).exists() {
            std::fs::copy(&file, header(&name)).unwrap();
        }
    }
    for (from, to) in [(include.join("NvInfer.h"), "include/NvInfer.h"), (prefix().join("lib"), "lib")] {
        if !root.join(to).exists() {
            std::os::unix::fs::symlink(from, root.join(to)).unwrap();
        }
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "-p", "trtllm-gpu", "--target-dir"]).arg(root.with_extension("cargo"));
    cargo.env("TRTLLM_ROOT", &root).env("TENSORRT_ROOT", "").env_remove("TRT_LLM_VERSION");
    let status = cargo.envs(version.map(|version| ("TRT_LLM_VERSION", version))).status().unwrap();
    assert!(status.success());
    root.with_extension("cargo").join("debug/libtrtllm_gpu.so")
}

#[test]
fn the_release_is_the_headers_or_the_environments_and_never_unknown() {
    let report = examine(&shim_without_version_header(None), &[]);
    let words = ["built without TensorRT-LLM: `tensorrt_llm/executor/version.h` is not in", "set TRT_LLM_VERSION"];
    assert!(words.iter().all(|word| report.contains(word)), "{report}");
    // NVIDIA's image says it.
    let report = examine(&shim_without_version_header(Some("1.3.0-trtllm-stand-in")), &[]);
    let words = ["compiled against TensorRT-LLM 1.3.0-trtllm-stand-in, but 1.2.0-trtllm-stand-in was loaded"];
    assert!(words.iter().all(|word| report.contains(word)), "{report}");
}
