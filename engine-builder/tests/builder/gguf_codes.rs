//! Codes of GGUF files in engines of integer codes: as they are where the layout can hold them.

use cpu_kernels::Quantization;
use cpu_kernels::packed::PackedMatrix;
use engine_builder::Source;
use engine_builder::compile::cpu::{CpuEngineRequest, build_cpu_engine};
use engine_builder::progress::{Interrupt, Progress, Quiet};
use engine_format::weights_file::{Layout, WeightsFile};
use engine_format::{Weight, WeightType, bf16};

use crate::gguf::all_rows;
use crate::gguf_file::{GgufFile, Tensor, Value as Field};
use crate::support::request;

/// The tiny model with rows of 64 in blocks of the given types, all bits of which are random; so the scales have either sign.
fn in_types(embedding: u32, matrices: u32) -> GgufFile {
    let mut file = GgufFile::tiny();
    for (key, value) in [("embedding_length", 64), ("feed_forward_length", 64), ("attention.head_count", 8)] {
        file.set(&format!("llama.{key}"), Field::U32(value));
    }
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    for tensor in &mut file.tensors {
        let rows = match tensor.name.as_str() {
            "token_embd.weight" => 40,
            "blk.0.attn_k.weight" | "blk.0.attn_v.weight" => 8,
            name if name.ends_with("norm.weight") => {
                *tensor = Tensor::f32(&tensor.name, &[64]);
                continue;
            }
            _ => 64,
        };
        tensor.kind = if tensor.name == "token_embd.weight" { embedding } else { matrices };
        tensor.extents = vec![64, rows];
        let block = match tensor.kind {
            2 | 20 => 18,
            3 => 20,
            6 => 22,
            _ => 34,
        };
        let blocks = (0..2 * rows).flat_map(|_| {
            // Scale and minimum from 2^-9 to 2^-7, then the rest.
            let mut small = || [random(), 0x18 | random() & 0x87];
            let scales = if tensor.kind == 3 { vec![small(), small()] } else { vec![small()] }.concat();
            let rest = scales.len()..block;
            scales.into_iter().chain(rest.map(|_| random())).collect::<Vec<_>>()
        });
        tensor.bytes = blocks.collect();
    }
    file
}

#[derive(Default)]
struct Notes(std::sync::Mutex<Vec<String>>);

impl Progress for Notes {
    fn begin(&self, _: &str, _: u64) {}
    fn begin_steps(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn end(&self) {}
    fn detail(&self, _: &str) {}
    fn note(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

/// Builds an engine of the file and checks whether each matrix has the source's numbers, exactly; what was said of that.
fn codes_kept(file: &GgufFile, weights: WeightType, expected: fn(Weight) -> bool) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (model, engine) = (dir.path().join("m.gguf"), dir.path().join("engine"));
    file.write(&model);
    let source = Source::open(&model).unwrap();
    let notes = Notes::default();
    let request = CpuEngineRequest { weights, ..request(&engine) };
    build_cpu_engine(&source, &request, &notes, &Interrupt::new()).unwrap();
    let written = WeightsFile::open(&engine.join("rank0.weights")).unwrap();
    let mut seen = 0;
    for weight in Weight::all(source.config()).into_iter().filter(|weight| weight.is_matmul()) {
        // Queries, keys and values, where they are not one tensor.
        let whole = written.contains(&weight.name(0)) || weight.parts().len() == 1;
        for parts in weight.parts().chunks(if whole { weight.parts().len() } else { 1 }) {
            let name = if whole { weight.name(0) } else { weight.part_name(parts[0], 0) };
            let entry = written.tensors().find(|entry| entry.name == name).unwrap();
            let quantization = match entry.layout {
                Layout::PanelsInt8 => Quantization::Int8,
                Layout::PanelsInt4 => Quantization::Int4,
                other => panic!("{other:?}"),
            };
            let &[rows, columns] = entry.shape.as_slice() else { panic!("{:?}", entry.shape) };
            let matrix = PackedMatrix::quantized(quantization, written.bytes_of(entry), rows, columns).unwrap();
            let mut stored = vec![bf16::ZERO; rows * columns];
            stored.chunks_mut(columns).enumerate().for_each(|(row, out)| matrix.row(row, out));
            let numbers: Vec<bf16> =
                parts.iter().flat_map(|&part| all_rows(&source.part(weight, part).unwrap())).collect();
            assert_eq!(stored == numbers, expected(weight), "{name}");
            seen += 1;
        }
    }
    assert_eq!(seen, if weights == WeightType::Int4 { 8 } else { 6 });
    notes.0.into_inner().unwrap().join("\n")
}

#[test]
fn codes_that_a_layout_can_hold_are_the_engines() {
    let (q4_0, q4_1, q5_0, q8_0, iq4_nl) = (2, 3, 6, 8, 20);
    for (kind, name) in [(q8_0, "Q8_0"), (q4_0, "Q4_0"), (q5_0, "Q5_0"), (iq4_nl, "IQ4_NL")] {
        let said = codes_kept(&in_types(kind, kind), WeightType::Int8, |_| true);
        assert!(said.contains(&format!("stay as they are: 6 of {name}")), "{said}");
    }
    let said = codes_kept(&in_types(q8_0, q4_0), WeightType::Int4, |_| true);
    assert!(said.contains("stay as they are: 7 of Q4_0; 1 of Q8_0"), "{said}");
    let said = codes_kept(&in_types(q4_0, q4_1), WeightType::Int8, |weight| weight == Weight::LmHead);
    assert!(said.contains("stay as they are: 1 of Q4_0; rounded anew: 5 of Q4_1"), "{said}");
}

#[test]
fn a_scale_that_is_no_number_is_found_among_codes() {
    let mut file = in_types(8, 8);
    let bytes = &mut file.tensor("blk.0.ffn_up.weight").bytes;
    bytes[34 * 2 * 5..][..2].copy_from_slice(&0x7c00u16.to_le_bytes());
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m.gguf");
    file.write(&model);
    for weights in WeightType::ALL {
        let source = Source::open(&model).unwrap();
        let request = CpuEngineRequest { weights, ..request(&dir.path().join("engine")) };
        let error = build_cpu_engine(&source, &request, &Quiet, &Interrupt::new()).unwrap_err().to_string();
        assert!(error.contains("blk.0.ffn_up.weight` has ") && error.contains("at [5, 0]"), "{weights}: {error}");
    }
}
