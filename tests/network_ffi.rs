//! The boundary to TensorRT's builder, over the stand-in: what is asked for comes out, and what is wrong is told by its name.

#![allow(clippy::unwrap_used, reason = "a test may fail where it likes")]

#[path = "common/mod.rs"]
mod common;
#[path = "common/stand_in.rs"]
mod stand_in;

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, RwLock};

use serde_json::{Value, json};
use trtllm::trtllm_sys::gpu::{
    Activation, BuildPhase, DataType, ElementWise, GpuBuild, GpuError, GpuNetwork, LogLine, NetworkInput, NetworkNode,
    NetworkOp, PluginField, PluginValues, Reduce, Severity, Unary,
};

use DataType::{Bf16, Float, Int32};

/// Read while a network is built.
static BUILDING: RwLock<()> = RwLock::new(());

/// Between builds, the environment says nothing of any.
fn assert_nothing_is_said() {
    let _nobody_builds = BUILDING.write().unwrap();
    assert_eq!(std::env::var_os("IS_BUILDING"), None);
}

type Lines = Arc<Mutex<Vec<(Severity, String)>>>;

/// A network, and what TensorRT says of it.
fn network<'w>() -> (GpuNetwork<'w>, Lines) {
    let lines = Lines::default();
    let log = Arc::clone(&lines);
    let library = stand_in::library();
    library.capture_log(|_| {});
    let take = move |line: LogLine<'_>| log.lock().unwrap().push((line.severity, line.text.to_owned()));
    (GpuNetwork::new(&library, "hand-made", 0, take).unwrap(), lines)
}

fn input(network: &mut GpuNetwork<'_>, name: &str, dtype: DataType, shape: &[i64]) -> u32 {
    ranged(network, name, dtype, shape, ("n", [1, 4, 8])).unwrap()
}

/// An input whose dynamic sizes have this name and this range.
fn ranged(
    network: &mut GpuNetwork<'_>,
    name: &str,
    dtype: DataType,
    shape: &[i64],
    (dimension, range): (&str, [i64; 3]),
) -> Result<u32, GpuError> {
    let names: Vec<_> = shape.iter().map(|&size| (size < 0).then_some(dimension)).collect();
    let sizes = range.map(|size| shape.iter().map(|&fixed| if fixed < 0 { size } else { fixed }).collect());
    network.add_input(&NetworkInput { name, dtype, shape, dimension_names: &names, profiles: &[sizes] })
}

fn node(
    network: &mut GpuNetwork<'_>,
    name: &str,
    op: NetworkOp<'_>,
    inputs: &[u32],
    dtype: DataType,
    shape: &[i64],
) -> Result<u32, GpuError> {
    network.add_node(&NetworkNode { name, op, inputs, dtype, shape })
}

/// Builds, with nothing known before; the plan and the timing cache.
fn build(network: &mut GpuNetwork<'_>) -> Result<(Vec<u8>, Vec<u8>), GpuError> {
    build_with(network, &[], |_| true)
}

fn build_with(
    network: &mut GpuNetwork<'_>,
    timing_cache: &[u8],
    mut progress: impl FnMut(BuildPhase<'_>) -> bool + Send,
) -> Result<(Vec<u8>, Vec<u8>), GpuError> {
    let _building = BUILDING.read().unwrap();
    let (mut plan, mut cache) = (Vec::new(), Vec::new());
    let mut keep_plan = |bytes: &[u8]| {
        plan.extend_from_slice(bytes);
        true
    };
    let mut keep_cache = |bytes: &[u8]| {
        cache.extend_from_slice(bytes);
        true
    };
    network.build(GpuBuild {
        timing_cache,
        write_timing_cache: &mut keep_cache,
        write_plan: &mut keep_plan,
        progress: &mut progress,
    })?;
    Ok((plan, cache))
}

/// What the stand-in wrote: the network, and the constants' bytes.
fn read(plan: &[u8]) -> (Value, &[u8]) {
    let rest = plan.strip_prefix(b"TRTLLM-STAND-IN-PLAN\n").unwrap();
    let (length, rest) = rest.split_at(8);
    let (text, bytes) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
    (serde_json::from_slice(text).unwrap(), bytes)
}

fn message<T: std::fmt::Debug>(result: Result<T, GpuError>) -> String {
    result.unwrap_err().to_string()
}

fn assert_says<T: std::fmt::Debug>(result: Result<T, GpuError>, words: &[&str]) {
    let message = message(result);
    assert!(words.iter().all(|word| message.contains(word)), "{message}");
}

/// A network with one of everything, whose weight is `weight`, `[2, 4]` of bf16.
fn one_of_everything<'w>(network: &mut GpuNetwork<'w>, weight: &'w [u8], numbers: &'w [u8]) {
    let x = input(network, "x", Bf16, &[-1, 4]);
    let rows = input(network, "rows", Int32, &[-1]);
    let two = network.add_constant("two", Float, &[1, 1], numbers, None).unwrap();
    let weight = network.add_constant("w", Bf16, &[2, 4], weight, Some("layer.weight")).unwrap();
    let any = &[-1, 4];
    let wide = node(network, "wide", NetworkOp::Cast, &[x], Float, any).unwrap();
    let power = node(network, "power", NetworkOp::ElementWise(ElementWise::Pow), &[wide, two], Float, any).unwrap();
    let reduce = NetworkOp::Reduce { op: Reduce::Avg, axes: 2 };
    let mean = node(network, "mean", reduce, &[power], Float, &[-1, 1]).unwrap();
    let root = node(network, "root", NetworkOp::Unary(Unary::Sqrt), &[mean], Float, &[-1, 1]).unwrap();
    let part = node(network, "part", NetworkOp::ElementWise(ElementWise::Div), &[wide, root], Float, any).unwrap();
    let gate = node(network, "gate", NetworkOp::Activation(Activation::Sigmoid), &[part], Float, any).unwrap();
    let narrow = node(network, "narrow", NetworkOp::Cast, &[gate], Bf16, any).unwrap();
    let picked = node(network, "picked", NetworkOp::Gather { axis: 0 }, &[narrow, rows], Bf16, any).unwrap();
    let product = NetworkOp::MatrixMultiply { transpose: true };
    let product = node(network, "product", product, &[picked, weight], Bf16, &[-1, 2]).unwrap();
    let fields = [
        PluginField { name: "group", values: PluginValues::Int32(&[0, 1]) },
        PluginField { name: "type_id", values: PluginValues::Int32(&[7]) },
    ];
    let plugin = NetworkOp::Plugin { name: "AllGather", version: "1", namespace: "tensorrt_llm", fields: &fields };
    let gathered = node(network, "all", plugin, &[product], Bf16, &[-1, 2]).unwrap();
    let shuffle = NetworkOp::Shuffle { reshape: &[2, -1, 2], permutation: Some(&[1, 0, 2]) };
    let split = node(network, "split", shuffle, &[gathered], Bf16, &[-1, 2, 2]).unwrap();
    network.mark_output(split, "y").unwrap();
}

#[test]
fn what_is_asked_for_is_what_is_built() {
    let (weight, two): (Vec<u8>, _) = ((0..16).collect(), 2f32.to_le_bytes());
    let (mut network, lines) = network();
    one_of_everything(&mut network, &weight, &two);
    let mut phases = Vec::new();
    let progress = |phase: BuildPhase<'_>| {
        phases.push((phase.phase.to_owned(), phase.parent.map(str::to_owned), phase.step, phase.steps));
        true
    };
    let (plan, _) = build_with(&mut network, &[], progress).unwrap();
    let (network, bytes) = read(&plan);
    assert_eq!(network["name"], "hand-made");
    let expected = json!({
        "name": "x", "dtype": "BF16", "shape": [-1, 4], "dims": {"0": "n"},
        "profiles": [{"min": [1, 4], "opt": [4, 4], "max": [8, 4]}],
    });
    assert_eq!(network["inputs"][0], expected);
    let layers = network["layers"].as_array().unwrap();
    let kinds: Vec<_> = layers.iter().map(|layer| layer["kind"].as_str().unwrap()).collect();
    let expected = "Constant Constant Cast ElementWise Reduce Unary ElementWise Activation Cast Gather MatrixMultiply";
    assert_eq!(kinds.join(" "), format!("{expected} Plugin:AllGather Shuffle"));
    assert_eq!(layers[1]["of"], "layer.weight");
    let offset = layers[1]["offset"].as_u64().unwrap() as usize;
    assert_eq!(bytes[offset..][..layers[1]["bytes"].as_u64().unwrap() as usize], weight);
    assert_eq!(layers[9]["in"], json!(["%8", "rows"]));
    assert_eq!(layers[11]["fields"], json!([["group", "INT32", [0, 1]], ["type_id", "INT32", [7]]]));
    assert_eq!(network["outputs"], json!([["y", "BF16", [-1, 2, 2], "%12"]]));

    let whole = Some(("Building engine".to_owned(), None, 0, 1));
    assert_eq!(phases.first().cloned(), whole);
    assert!(phases.contains(&("Tactics".to_owned(), Some("Building engine".to_owned()), 11, 11)), "{phases:?}");
    let said = lines.lock().unwrap();
    assert!(said.iter().any(|(severity, text)| *severity == Severity::Info && text.contains("A100")), "{said:?}");
    assert_nothing_is_said();
}

#[test]
fn progress_stops_a_build() {
    let (mut network, _) = network();
    one_of_everything(&mut network, &[0; 16], &[0; 4]);
    let stopped = build_with(&mut network, &[], |phase| phase.step < 3);
    assert_eq!(stopped.unwrap_err(), GpuError::Cancelled);
    // A panic may not go through C++.
    let panicked = build_with(&mut network, &[], |phase| phase.step < 3 || std::panic::panic_any("told to"));
    assert_eq!(panicked.unwrap_err(), GpuError::Cancelled);
    assert_nothing_is_said();
    // The network is as it was.
    build(&mut network).unwrap();
}

#[test]
fn a_timing_cache_goes_round_and_a_foreign_one_is_left_out() {
    let (mut network, lines) = network();
    one_of_everything(&mut network, &[0; 16], &[0; 4]);
    let (plan, cache) = build(&mut network).unwrap();
    assert!(!cache.is_empty());
    let (again, same) = build_with(&mut network, &cache, |_| true).unwrap();
    assert_eq!((again, same), (plan, cache));
    assert!(lines.lock().unwrap().iter().any(|(_, text)| text.contains("a timing cache with")), "{lines:?}");
    build_with(&mut network, b"of another program", |_| true).unwrap();
    let warned = |(severity, text): &(_, String)| *severity == Severity::Warning && text.contains("left out");
    assert!(lines.lock().unwrap().iter().any(warned), "{lines:?}");
}

#[test]
fn a_plan_that_cannot_be_kept_and_a_gpu_that_is_not_there_are_told() {
    let (mut network, _) = network();
    one_of_everything(&mut network, &[0; 16], &[0; 4]);
    let building = BUILDING.read().unwrap();
    let built = network.build(GpuBuild {
        timing_cache: &[],
        write_timing_cache: &mut |_| true,
        write_plan: &mut |_| false,
        progress: &mut |_| true,
    });
    drop(building);
    assert_says(built, &["plan was not kept"]);
    assert_says(GpuNetwork::new(&stand_in::library(), "elsewhere", 5, |_| ()).map(drop), &["GPU 5"]);
}

#[test]
fn layers_that_do_not_fit_are_refused_by_name() {
    type Case = (&'static str, &'static [(DataType, &'static [i64])], NetworkOp<'static>, &'static str);
    const SUM: NetworkOp<'static> = NetworkOp::ElementWise(ElementWise::Sum);
    const PRODUCT: NetworkOp<'static> = NetworkOp::MatrixMultiply { transpose: true };
    const MEAN: NetworkOp<'static> = NetworkOp::Reduce { op: Reduce::Avg, axes: 4 };
    const HALVES: NetworkOp<'static> = NetworkOp::Shuffle { reshape: &[3, -1], permutation: None };
    const TWICE: NetworkOp<'static> = NetworkOp::Shuffle { reshape: &[4, -1], permutation: Some(&[1, 1]) };
    let cases: &[Case] = &[
        ("types", &[(Bf16, &[-1, 4]), (Float, &[-1, 4])], SUM, "same input types"),
        ("ranks", &[(Float, &[-1, 4]), (Float, &[4])], SUM, "follow broadcast rules"),
        ("sizes", &[(Float, &[-1, 4]), (Float, &[-1, 5])], SUM, "follow broadcast rules"),
        ("inner", &[(Bf16, &[-1, 4]), (Bf16, &[2, 5])], PRODUCT, "must match"),
        ("matrix types", &[(Bf16, &[-1, 4]), (Float, &[2, 4])], PRODUCT, "same input types"),
        ("indices", &[(Bf16, &[-1, 4]), (Float, &[-1])], NetworkOp::Gather { axis: 0 }, "Int64 or Int32"),
        ("gather axis", &[(Bf16, &[-1, 4]), (Int32, &[-1])], NetworkOp::Gather { axis: 2 }, "invalid axis"),
        ("axes", &[(Float, &[-1, 4])], MEAN, "reduction dimension 2"),
        ("volume", &[(Float, &[4, 4])], HALVES, "changes volume"),
        ("order", &[(Float, &[4, 4])], TWICE, "not valid"),
        ("whole numbers", &[(Int32, &[-1, 4])], NetworkOp::Unary(Unary::Sqrt), "must have type Float"),
        ("inputs", &[(Float, &[-1, 4])], SUM, "reads 1 tensors"),
    ];
    for (name, inputs, op, problem) in cases {
        let (mut network, lines) = network();
        let numbers = inputs
            .iter()
            .enumerate()
            .map(|(i, (dtype, shape))| input(&mut network, &format!("input{i}"), *dtype, shape));
        let numbers: Vec<_> = numbers.collect();
        let added = node(&mut network, name, *op, &numbers, inputs[0].0, inputs[0].1);
        assert_says(added, &[&format!("`{name}`"), problem]);
        if *name != "inputs" {
            assert!(lines.lock().unwrap().iter().any(|(severity, _)| *severity == Severity::Error), "{name}");
        }
    }
}

#[test]
fn what_comes_out_is_compared_with_what_was_said() {
    let (mut network, _) = network();
    let x = input(&mut network, "x", Bf16, &[-1, 4]);
    let add = |network: &mut _, name, dtype, shape: &[i64]| node(network, name, NetworkOp::Cast, &[x], dtype, shape);
    assert_says(add(&mut network, "wide", Float, &[-1, 5]), &["`wide`", "[-1, 4]", "[-1, 5]"]);
    let sum = NetworkOp::ElementWise(ElementWise::Sum);
    assert_says(node(&mut network, "sum", sum, &[x, x], Float, &[-1, 4]), &["`sum`", "type 7"]);
    assert_says(node(&mut network, "lost", NetworkOp::Cast, &[9], Float, &[-1, 4]), &["`lost`", "tensor 9"]);
    assert_says(network.mark_output(9, "y"), &["`y`", "tensor 9"]);
    assert_says(network.mark_output(x, "y"), &["`y`", "`x`"]);
    assert_says(network.add_constant("c", Float, &[2], &[0; 4], None), &["`c`"]);
    assert_eq!(message(network.add_constant("a\0b", Float, &[1], &[0; 4], None)), "`a?b` contains a NUL byte");
    assert_says(network.mark_output(x, "\0"), &["NUL"]);
}

#[test]
fn inputs_and_profiles_that_do_not_fit_are_refused() {
    let (mut network, _) = network();
    input(&mut network, "x", Bf16, &[-1, 4]);
    assert_says(ranged(&mut network, "x", Bf16, &[-1], ("n", [1, 1, 1])), &["input `x` is refused", "knownInput"]);

    /// Builds a sum of an input to itself, after `add` has added it.
    fn sum(add: impl FnOnce(&mut GpuNetwork<'_>) -> Result<u32, GpuError>) -> Result<(Vec<u8>, Vec<u8>), GpuError> {
        let (mut network, _) = self::network();
        let x = add(&mut network).unwrap();
        let op = NetworkOp::ElementWise(ElementWise::Sum);
        let y = node(&mut network, "sum", op, &[x, x], Float, &[-1]).unwrap();
        network.mark_output(y, "y").unwrap();
        build(&mut network)
    }
    let described =
        |profiles| NetworkInput { name: "x", dtype: Float, shape: &[-1], dimension_names: &[None], profiles };
    assert_says(sum(|network| network.add_input(&described(&[]))), &["no optimization profile has been defined"]);
    let lone = &[[vec![1], vec![3], vec![2]]];
    assert_says(
        sum(|network| network.add_input(&described(lone))),
        &["profile 0 is not valid", "input tensors x", "MIN<=OPT<=MAX"],
    );
    let fixed = |network: &mut GpuNetwork<'_>| {
        let two = [vec![2], vec![2], vec![3]];
        let fixed = NetworkInput { name: "z", shape: &[2], ..described(&[]) };
        network.add_input(&NetworkInput { profiles: std::slice::from_ref(&two), ..fixed })?;
        Ok(input(network, "x", Float, &[-1]))
    };
    assert_says(sum(fixed), &["Input tensor z", "static", "kMAX"]);
    let other_range = |network: &mut GpuNetwork<'_>| {
        ranged(network, "z", Int32, &[-1], ("n", [1, 5, 9]))?;
        Ok(input(network, "x", Float, &[-1]))
    };
    assert_says(sum(other_range), &["Dimensions with name n must be equal"]);
    let (mut silent, _) = self::network();
    input(&mut silent, "x", Float, &[-1]);
    assert_says(build(&mut silent), &["at least one output"]);
}

#[test]
fn names_that_tensorrt_does_not_take_are_errors() {
    let weights = [0; 8];
    let (mut network, _) = network();
    let x = input(&mut network, "x", Bf16, &[-1, 4]);
    let cast = |network: &mut _, name: &str| node(network, name, NetworkOp::Cast, &[x], Float, &[-1, 4]);
    let first = cast(&mut network, "first").unwrap();
    let in_use = ["its name is not taken", "already in use"];
    assert_says(cast(&mut network, "first"), &[&["node `first`"], &in_use[..]].concat());
    assert_says(network.mark_output(first, "x"), &[&["output `x`"], &in_use[..]].concat());
    // A layer may be called as a tensor is.
    cast(&mut network, "x").unwrap();
    let long = "a".repeat(4096);
    let too_long = "exceeds the limit";
    assert_says(cast(&mut network, &long), &["its name is not taken", too_long]);
    assert_says(network.mark_output(first, &long), &["its name is not taken", too_long]);
    assert_says(ranged(&mut network, &long, Bf16, &[-1], ("n", [1, 4, 8])), &["is refused", too_long]);
    let dimension = ranged(&mut network, "z", Bf16, &[-1], (&long, [1, 4, 8]));
    assert_says(dimension, &["dimension 0 of input `z`: its name is not taken", too_long]);
    network.add_constant("one", Bf16, &[2], &weights[..4], Some("w")).unwrap();
    let other = network.add_constant("other", Bf16, &[2], &weights[4..], Some("w"));
    assert_says(other, &["node `other`", "cannot be called `w`", "different sets of weights"]);
    assert_says(GpuNetwork::new(&stand_in::library(), &long, 0, |_| ()).map(drop), &["the network", too_long]);
}

/// Runs the program that asks a builder for the networks of a table, over the stand-in.
fn small_networks(folder: &Path, table: &Path) -> std::process::Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (lib, program) = (stand_in::prefix().join("lib"), folder.join("small_networks"));
    if !program.exists() {
        let mut compile = Command::new("c++");
        compile.args(["-std=c++17", "-Wall", "-Wextra", "-Wshadow", "-Werror", "-o"]).arg(&program);
        compile
            .arg("-I")
            .arg(stand_in::prefix().join("include"))
            .arg(root.join("trtllm-sys/referee/small_networks.cc"));
        compile.arg(lib.join("libnvinfer.so")).arg(format!("-Wl,--disable-new-dtags,-rpath,{}", lib.display()));
        assert!(compile.status().unwrap().success());
    }
    Command::new(program).arg(table).output().unwrap()
}

/// `scripts/check-real-builder` compiles it, against headers that are not here.
#[test]
fn the_shim_without_plugins_compiles() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut compile = Command::new("c++");
    compile.args(["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", "-fsyntax-only"]);
    compile.args(["-DTRTLLM_GPU_TENSORRT=1", "-DTRTLLM_GPU_REFEREE=80", "-I"]).arg(root.join("trtllm-sys/include"));
    compile.arg("-isystem").arg(root.join("trtllm-sys/stand-in/include"));
    assert!(compile.arg(root.join("trtllm-sys/gpu/cpp/network_referee.cc")).status().unwrap().success());
}

/// The table has what real builders of TensorRT for RTX said; `scripts/check-real-builder` asks them.
#[test]
fn the_stand_in_says_of_small_networks_what_real_builders_say() {
    let folder = tempfile::tempdir().unwrap();
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("trtllm-sys/referee/small_networks.txt");
    let output = small_networks(folder.path(), &table);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.trim(), "96 networks, 0 other than recorded");
    // A table that is wrong is not what is found.
    let wrong = folder.path().join("wrong.txt");
    std::fs::write(&wrong, "root\n input x fp32 [4]\n sqrt y x\n is y bf16 [4]\n output y y\n refused\n says no\n")
        .unwrap();
    let output = small_networks(folder.path(), &wrong);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{said}");
    for part in ["y is [4] of type 0", "it is `builds`, and not `refused`", "nothing says `no`", "1 other"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn plugins_take_their_fields_only() {
    let group = PluginField { name: "group", values: PluginValues::Int32(&[0, 1]) };
    let type_id = PluginField { name: "type_id", values: PluginValues::Int32(&[7]) };
    let add = |network: &mut GpuNetwork<'_>, name: &str, dtype, fields: &[PluginField<'_>]| {
        let x = input(network, "x", dtype, &[-1, 4]);
        let plugin = NetworkOp::Plugin { name, version: "1", namespace: "tensorrt_llm", fields };
        let y = node(network, "gathered", plugin, &[x], dtype, &[-1, 4])?;
        network.mark_output(y, "y")
    };
    let refused: [(&str, &[PluginField<'_>], &str); 4] = [
        ("NoSuch", &[group, type_id], "not registered"),
        ("AllGather", &[group], "type_id"),
        ("AllGather", &[group, PluginField { values: PluginValues::Int8(&[7]), ..type_id }], "type_id"),
        ("AllGather", &[group, PluginField { values: PluginValues::Int32(&[7, 7]), ..type_id }], "type_id"),
    ];
    for (name, fields, problem) in refused {
        let (mut network, _) = network();
        let plugin = format!("`{name}`");
        assert_says(add(&mut network, name, Bf16, fields), &["`gathered`", &plugin, problem]);
    }
    // One too many is only told in TensorRT-LLM's log.
    let (mut network, _) = network();
    let more = PluginField { name: "more", values: PluginValues::Float32(&[0.5]) };
    add(&mut network, "AllGather", Bf16, &[group, more, type_id]).unwrap();
    build(&mut network).unwrap();
    // What it reads is looked at when an engine is built.
    let (mut network, _) = self::network();
    add(&mut network, "AllGather", Float, &[group, type_id]).unwrap();
    assert_says(build(&mut network), &["gathered", "type_id"]);
}

#[test]
fn networks_are_built_at_the_same_time() {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (mut network, _) = network();
                one_of_everything(&mut network, &[0; 16], &[0; 4]);
                build(&mut network).unwrap();
            });
        }
    });
}

#[test]
fn versions_are_told() {
    let library = stand_in::library();
    assert_eq!(library.tensorrt_version().as_deref(), Some("10.14.1"));
    assert_eq!(library.tensorrt_built_against(), "10.14.1");
}
