//! Weights that are infinite or not a number.

use std::path::Path;

use engine_builder::checkpoint::write::{CheckpointRequest, write_checkpoint};
use engine_builder::compile::cpu::{CpuEngineRequest, build_cpu_engine};
use engine_builder::progress::{Interrupt, Quiet};
use engine_builder::{BuildError, NonFiniteWeights, Source};
use engine_format::{EngineDir, Mapping, WeightType, bf16};
use half::f16;
use safetensors::Dtype;

use crate::support::{Model, checkpoint_request, entries, request};

const DOWN: &str = "model.layers.1.mlp.down_proj.weight";

/// A matrix that `int4` has in four bits, unlike the one above.
const UP: &str = "model.layers.1.mlp.up_proj.weight";

/// The bytes of a number of this type.
fn bytes(dtype: Dtype, value: f32) -> Vec<u8> {
    match dtype {
        Dtype::F32 => value.to_le_bytes().to_vec(),
        Dtype::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
        _ => bf16::from_f32(value).to_le_bytes().to_vec(),
    }
}

/// A tiny model whose tensors are of one type, and hold `value` at these places.
fn model(dtype: Dtype, places: &[(&str, usize)], value: f32) -> Model {
    let mut model = Model::tiny();
    for (name, tensor) in &mut model.tensors {
        let elements: usize = tensor.shape.iter().product();
        tensor.dtype = dtype;
        tensor.bytes = (0..elements).flat_map(|element| bytes(dtype, element as f32 / 1000.0)).collect();
        for &(_, place) in places.iter().filter(|(damaged, _)| damaged == name) {
            let size = dtype.bitsize() / 8;
            tensor.bytes[place * size..][..size].copy_from_slice(&bytes(dtype, value));
        }
    }
    model
}

/// What building an engine, and writing a checkpoint for two ranks, say of the model; nothing may be left behind.
fn found(model: &Model) -> [NonFiniteWeights; 2] {
    let dir = tempfile::tempdir().unwrap();
    model.write(&dir.path().join("model"));
    let (source, output) = (Source::open(&dir.path().join("model")).unwrap(), dir.path().join("out"));
    let (quiet, interrupt) = (Quiet, Interrupt::new());
    let split = CheckpointRequest { mapping: Mapping { tp_size: 2, pp_size: 1 }, ..checkpoint_request(&output) };
    let results = [
        build_cpu_engine(&source, &request(&output), &quiet, &interrupt),
        write_checkpoint(&source, &split, &quiet, &interrupt),
    ];
    let found = results.map(|result| match result.unwrap_err() {
        BuildError::NonFinite(found) => *found,
        other => panic!("{other:?}"),
    });
    assert_eq!(entries(dir.path()), ["model"]);
    found
}

#[test]
fn each_type_and_each_way_of_not_being_a_number_is_named_with_its_place() {
    let too_large = f32::MAX;
    let cases = [
        (Dtype::BF16, f32::NAN),
        (Dtype::BF16, f32::NEG_INFINITY),
        (Dtype::F16, f32::INFINITY),
        (Dtype::F16, f32::NAN),
        (Dtype::F32, f32::NAN),
        (Dtype::F32, f32::INFINITY),
        (Dtype::F32, too_large),
    ];
    for (dtype, value) in cases {
        for found in found(&model(dtype, &[(DOWN, 3 * 40 + 5)], value)) {
            assert_eq!((found.tensor.as_str(), found.position), (DOWN, (3, 5)), "{dtype:?} {value}");
            assert_eq!((found.count, found.tensors), (1, 1), "{dtype:?} {value}");
            assert_eq!(found.value.to_bits() & 0x7fff_ffff, (value.to_bits() & 0x7fff_ffff), "{dtype:?} {value}");
            let text = found.to_string();
            let says = ["model.safetensors", DOWN, "at [3, 5]", "1 weight is infinite or NaN, in 1 tensor"];
            assert!(says.iter().all(|part| text.contains(part)), "{text}");
            assert_eq!(text.contains("infinite as a bfloat16"), value == too_large, "{text}");
        }
    }
    // What fp32 has and bfloat16 has too is no reason to refuse.
    let dir = tempfile::tempdir().unwrap();
    model(Dtype::F32, &[(DOWN, 0)], 3.3e38).write(dir.path());
    crate::support::build(dir.path(), &dir.path().join("out")).unwrap();
}

#[test]
fn quantized_matrices_are_looked_at_too_and_refuse_what_no_scale_reaches() {
    let cases = [
        (WeightType::Int8, DOWN, 3 * 40 + 5, 1e7),
        (WeightType::Int4, UP, 3 * 24 + 5, 1e6),
        (WeightType::Int4, DOWN, 3 * 40 + 5, 1e7),
    ];
    for (weights, matrix, place, too_large) in cases {
        for value in [f32::NAN, f32::INFINITY, too_large] {
            let dir = tempfile::tempdir().unwrap();
            let (path, output) = (dir.path().join("model"), dir.path().join("engine"));
            model(Dtype::F32, &[(matrix, place)], value).write(&path);
            let source = Source::open(&path).unwrap();
            let request = CpuEngineRequest { weights, ..request(&output) };
            let error = build_cpu_engine(&source, &request, &Quiet, &Interrupt::new()).unwrap_err().to_string();
            assert!(error.contains(matrix) && error.contains("at [3, 5]"), "{error}");
            assert_eq!(error.contains("too large for integer codes"), value == too_large, "{error}");
            assert!(!output.exists());
        }
    }
}

#[test]
fn every_tensor_is_looked_at_and_the_first_place_is_named() {
    for (name, tensor) in Model::tiny().tensors {
        let (elements, columns) = (tensor.shape.iter().product::<usize>(), tensor.shape.get(1).copied().unwrap_or(1));
        let places = [(name.as_str(), elements - 1), (name.as_str(), elements / 2), (name.as_str(), elements - 2)];
        let [engine, checkpoint] = found(&model(Dtype::BF16, &places, f32::NAN));
        for found in [&engine, &checkpoint] {
            assert_eq!(found.tensor, name);
            assert_eq!(found.position, (elements / 2 / columns, elements / 2 % columns), "{name}");
        }
        assert_eq!(engine.count, 3, "{name}");
    }
    let [engine, _] =
        found(&model(Dtype::BF16, &[(DOWN, 7), ("lm_head.weight", 9), ("model.norm.weight", 1)], f32::NAN));
    assert_eq!((engine.tensor.as_str(), engine.count, engine.tensors), ("lm_head.weight", 3, 3));
}

#[test]
fn where_it_is_allowed_such_weights_are_built_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    model(Dtype::F32, &[("model.norm.weight", 3)], f32::MAX).write(&path("model"));
    let source = Source::open(&path("model")).unwrap();
    let (quiet, interrupt) = (Quiet, Interrupt::new());
    let checkpoint = path("checkpoint");
    let allowed = CheckpointRequest { allow_non_finite: true, ..checkpoint_request(&checkpoint) };
    write_checkpoint(&source, &allowed, &quiet, &interrupt).unwrap();

    // Our own checkpoint is a source like any other.
    let source = Source::open(&checkpoint).unwrap();
    let refused = build_cpu_engine(&source, &request(&path("engine")), &quiet, &interrupt).unwrap_err();
    assert!(refused.to_string().contains("`transformer.ln_f.weight` has inf at [3, 0]"), "{refused}");
    let allowed = CpuEngineRequest { allow_non_finite: true, ..request(&path("engine")) };
    build_cpu_engine(&source, &allowed, &quiet, &interrupt).unwrap();
    assert_eq!(norm(&path("engine"))[3], bf16::INFINITY);
}

fn norm(engine: &Path) -> Vec<bf16> {
    let engine = EngineDir::open(engine).unwrap();
    let weights = engine.weights().unwrap();
    let entry = weights.tensors().find(|entry| entry.name == "transformer.ln_f.weight").unwrap().clone();
    let content = std::fs::read(engine.path().join("rank0.weights")).unwrap();
    let (bytes, _) = content[entry.offset..entry.offset + entry.bytes].as_chunks();
    bytes.iter().map(|&bytes| bf16::from_le_bytes(bytes)).collect()
}
