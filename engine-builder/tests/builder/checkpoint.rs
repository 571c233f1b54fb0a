//! TensorRT-LLM checkpoints, against expectations that an independent script worked out.

use std::fs;
use std::path::Path;

use engine_builder::checkpoint::write::{CheckpointRequest, write_checkpoint};
use engine_builder::progress::{Interrupt, Quiet};
use engine_builder::{BuildError, Outline, Source};
use engine_format::{EngineDir, Mapping};
use safetensors::SafeTensors;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::{Model, build, checkpoint_request, entries, fixtures};

const fn mapping(tp_size: usize, pp_size: usize) -> Mapping {
    Mapping { tp_size, pp_size }
}

fn write(model: &Path, mapping: Mapping, output: &Path) -> Result<(), BuildError> {
    let source = Source::open(model)?;
    let request = CheckpointRequest { mapping, ..checkpoint_request(output) };
    write_checkpoint(&source, &request, &Quiet, &Interrupt::new()).map(|_| ())
}

/// Every key of `expected` is in `found` with the same value, in nested objects too.
fn assert_contains(found: &Value, expected: &Value, place: &str) {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            for (key, value) in expected {
                let place = format!("{place}.{key}");
                assert!(found.contains_key(key), "{place} is missing");
                assert_contains(&found[key], value, &place);
            }
        }
        (Value::Number(found), Value::Number(expected)) => {
            assert_eq!(found.as_f64(), expected.as_f64(), "{place}");
        }
        _ => assert_eq!(found, expected, "{place}"),
    }
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_split_has_the_expected_tensors() {
    let mut cases = 0;
    for model in fixtures("checkpoint") {
        for case in entries(&model) {
            if !case.starts_with("tp") {
                continue;
            }
            cases += 1;
            let expected: Value = serde_json::from_slice(&fs::read(model.join(&case)).unwrap()).unwrap();
            let size = |field: &str| expected[field].as_u64().unwrap() as usize;
            let dir = tempfile::tempdir().unwrap();
            let output = dir.path().join("checkpoint");
            write(&model, mapping(size("tp_size"), size("pp_size")), &output).unwrap();
            check(&output, &expected, &format!("{} {case}", model.display()));
        }
    }
    assert_eq!(cases, 12);
}

fn check(output: &Path, expected: &Value, case: &str) {
    let config = fs::read(output.join("config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_contains(&config, &expected["config"], case);
    let ranks = expected["ranks"].as_array().unwrap();
    let rank_files = entries(output).iter().filter(|name| name.starts_with("rank")).count();
    assert_eq!(rank_files, ranks.len(), "{case}");
    for rank in ranks {
        let file = rank["file"].as_str().unwrap();
        let content = fs::read(output.join(file)).unwrap();
        let stored = SafeTensors::deserialize(&content).unwrap();
        let tensors = rank["tensors"].as_array().unwrap();
        assert_eq!(stored.len(), tensors.len(), "{case} {file}");
        for tensor in tensors {
            let name = tensor["name"].as_str().unwrap();
            let place = format!("{case} {file} {name}");
            let found = stored.tensor(name).expect(&place);
            let shape: Vec<_> = tensor["shape"].as_array().unwrap().to_vec();
            let shape: Vec<_> = shape.iter().map(|n| n.as_u64().unwrap() as usize).collect();
            assert_eq!(found.shape(), shape, "{place}");
            assert_eq!(format!("{:?}", found.dtype()), tensor["dtype"].as_str().unwrap(), "{place}");
            assert_eq!(sha256(found.data()), tensor["sha256"].as_str().unwrap(), "{place}");
        }
    }
}

#[test]
fn a_whole_checkpoint_is_as_good_a_source_as_the_model() {
    for model in fixtures("checkpoint").into_iter().chain(fixtures("parity")) {
        let dir = tempfile::tempdir().unwrap();
        let config = Source::open(&model).unwrap().config().clone();
        let whole = dir.path().join("whole");
        write(&model, Mapping::SINGLE, &whole).unwrap();
        for (index, mapping) in [Mapping::SINGLE, mapping(2, 1)].into_iter().enumerate() {
            if mapping.validate(&config).is_err() {
                continue;
            }
            let (direct, again) = (dir.path().join(format!("direct{index}")), dir.path().join(format!("again{index}")));
            write(&model, mapping, &direct).unwrap();
            write(&whole, mapping, &again).unwrap();
            assert_same(&direct, &again);
        }
        let (direct, again) = (dir.path().join("engine"), dir.path().join("engine2"));
        build(&model, &direct).unwrap();
        build(&whole, &again).unwrap();
        let weights = |engine: &Path| EngineDir::open(engine).unwrap().manifest().tensors.clone();
        assert_eq!(weights(&direct), weights(&again));
        assert_eq!(EngineDir::open(&direct).unwrap().config(), EngineDir::open(&again).unwrap().config());
    }
}

fn assert_same(one: &Path, other: &Path) {
    assert_eq!(entries(one), entries(other));
    for name in entries(one) {
        let read = |dir: &Path| fs::read(dir.join(&name)).unwrap();
        assert!(read(one) == read(other), "{name} differs");
    }
}

#[test]
fn a_whole_checkpoint_splits_like_the_model_and_a_split_one_is_only_copied() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let model = &fixtures("checkpoint")[1];
    write(model, Mapping::SINGLE, &path("whole")).unwrap();
    write(model, mapping(2, 3), &path("split")).unwrap();
    write(&path("whole"), mapping(2, 3), &path("split of whole")).unwrap();
    assert_same(&path("split"), &path("split of whole"));
    write(&path("split"), mapping(2, 3), &path("copy")).unwrap();
    assert_same(&path("split"), &path("copy"));

    for other in [Mapping::SINGLE, mapping(4, 1)] {
        let error = write(&path("split"), other, &path("refused")).unwrap_err();
        assert!(matches!(error, BuildError::SplitCheckpoint { tp_size: 2, pp_size: 3, .. }));
        assert!(error.to_string().contains("start from the model"), "{error}");
    }
    let error = build(&path("split"), &path("refused")).unwrap_err();
    assert!(matches!(error, BuildError::SplitCheckpoint { .. }), "{error}");
    assert!(!path("refused").exists());
}

#[test]
fn a_damaged_checkpoint_is_refused_with_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    write(&fixtures("checkpoint")[0], mapping(2, 1), &path).unwrap();
    let rank = path.join("rank1.safetensors");
    let content = fs::read(&rank).unwrap();
    fs::write(&rank, &content[..content.len() - 1]).unwrap();
    let error = Source::open(&path).unwrap_err().to_string();
    assert!(error.contains("rank1.safetensors") && error.contains("damaged"), "{error}");
    fs::remove_file(&rank).unwrap();
    let error = Source::open(&path).unwrap_err().to_string();
    assert!(error.contains("rank1.safetensors") && error.contains("missing"), "{error}");
    fs::copy(path.join("rank0.safetensors"), &rank).unwrap();
    Source::open(&path).unwrap();
}

#[test]
fn a_checkpoint_that_asks_for_a_quantized_kv_cache_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    write(&fixtures("checkpoint")[0], Mapping::SINGLE, &path).unwrap();
    let file = path.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    config["quantization"]["kv_cache_quant_algo"] = "FP8".into();
    fs::write(&file, config.to_string()).unwrap();
    for error in [Source::open(&path).unwrap_err(), Outline::read(&path).unwrap_err()] {
        let error = error.to_string();
        assert!(error.contains("`quantization.kv_cache_quant_algo` is `FP8`"), "{error}");
    }
}

#[test]
fn splits_that_do_not_work_out_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    Model::tiny().write(&dir.path().join("model"));
    for (split, word) in
        [(mapping(3, 1), "attention heads"), (mapping(1, 3), "2 layers"), (mapping(0, 1), "at least 1")]
    {
        let output = dir.path().join("out");
        let error = write(&dir.path().join("model"), split, &output).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
        assert_eq!(entries(dir.path()), ["model"]);
    }
}
