//! NeMo archives made on the spot, which tests change before they write them.

use std::fs;
use std::path::Path;

/// A tensor of a checkpoint: its name, its shape, the class of its storage, and its bytes.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) class: &'static str,
    pub(crate) bytes: Vec<u8>,
}

/// An archive before it is written.
#[derive(Clone)]
pub(crate) struct NemoFile {
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) others: Vec<(String, Vec<u8>)>,
}

impl NemoFile {
    /// A model of one layer: hidden 32, two heads of 8, one of keys and values, a vocabulary of 40.
    pub(crate) fn tiny() -> Self {
        let layer = "model.decoder.layers.0";
        let tensors: [(String, &[usize]); 9] = [
            ("model.embedding.word_embeddings.weight".into(), &[40, 32]),
            (format!("{layer}.self_attention.linear_qkv.layer_norm_weight"), &[32]),
            (format!("{layer}.self_attention.linear_qkv.weight"), &[32, 32]),
            (format!("{layer}.self_attention.linear_proj.weight"), &[32, 16]),
            (format!("{layer}.mlp.linear_fc1.layer_norm_weight"), &[32]),
            (format!("{layer}.mlp.linear_fc1.weight"), &[96, 32]),
            (format!("{layer}.mlp.linear_fc2.weight"), &[32, 48]),
            ("model.decoder.final_layernorm.weight".into(), &[32]),
            ("model.output_layer.weight".into(), &[40, 32]),
        ];
        let mut file = Self { settings: Vec::new(), tensors: Vec::new(), others: Vec::new() };
        for (name, shape) in tensors {
            let numbers = (0..shape.iter().product::<usize>()).map(|i| (i % 61) as f32 / 64.0 - 0.4);
            let bytes = numbers.flat_map(f32::to_le_bytes).collect();
            file.tensors.push(Tensor { name, shape: shape.to_vec(), class: "FloatStorage", bytes });
        }
        for (key, value) in [
            ("num_layers", "1"),
            ("hidden_size", "32"),
            ("ffn_hidden_size", "48"),
            ("num_attention_heads", "2"),
            ("num_query_groups", "1"),
            ("kv_channels", "8"),
            ("max_position_embeddings", "64"),
            ("layernorm_epsilon", "1.0e-05"),
            ("make_vocab_size_divisible_by", "8"),
            ("activation", "fast-swiglu"),
            ("bias", "false"),
            ("normalization", "rmsnorm"),
            ("position_embedding_type", "rope"),
            ("share_embeddings_and_output_weights", "false"),
        ] {
            file.set(key, value);
        }
        file
    }

    /// Gives a setting another value, or adds it.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.settings.retain(|(other, _)| other != key);
        self.settings.push((key.to_owned(), value.to_owned()));
    }

    pub(crate) fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name.ends_with(name)).unwrap()
    }

    /// The members of the archive.
    pub(crate) fn members(&self) -> Vec<(String, Vec<u8>)> {
        let yaml: String = self.settings.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
        let mut members = vec![("./model_config.yaml".to_owned(), yaml.into_bytes())];
        members.push(("./model_weights.ckpt".to_owned(), checkpoint(&self.tensors)));
        members.extend(self.others.iter().cloned());
        members
    }

    pub(crate) fn write(&self, path: &Path) {
        fs::write(path, tar(&self.members())).unwrap();
    }
}

/// A tar archive of files.
pub(crate) fn tar(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, content.as_slice()).unwrap();
    }
    archive.into_inner().unwrap()
}

/// A checkpoint as `torch.save` writes it.
pub(crate) fn checkpoint(tensors: &[Tensor]) -> Vec<u8> {
    let mut entries = vec![("m/data.pkl".to_owned(), pickle(tensors))];
    for (key, tensor) in tensors.iter().enumerate() {
        entries.push((format!("m/data/{key}"), tensor.bytes.clone()));
    }
    entries.push(("m/byteorder".to_owned(), b"little".to_vec()));
    zip(&entries)
}

/// A zip archive of stored entries.
pub(crate) fn zip(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let (at, size, length) = (file.len() as u32, content.len() as u32, name.len() as u16);
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        common.extend([size.to_le_bytes(), size.to_le_bytes()].concat());
        common.extend(length.to_le_bytes());
        // Content begins at a multiple of 64, as in files of PyTorch.
        let padding = (file.len() + 30 + name.len()).next_multiple_of(64) - (file.len() + 30 + name.len());
        file.extend([b"PK\x03\x04".as_slice(), &common, &(padding as u16).to_le_bytes(), name.as_bytes()].concat());
        file.resize(file.len() + padding, 0);
        file.extend(content);
        directory
            .extend([b"PK\x01\x02\x14\0".as_slice(), &common, &[0; 12], &at.to_le_bytes(), name.as_bytes()].concat());
    }
    let (at, size, count) = (file.len() as u32, directory.len() as u32, entries.len() as u16);
    file.extend(directory);
    file.extend([b"PK\x05\x06\0\0\0\0".as_slice(), &count.to_le_bytes(), &count.to_le_bytes()].concat());
    file.extend([size.to_le_bytes(), at.to_le_bytes()].concat());
    file.extend([0, 0]);
    file
}

/// `data.pkl` of tensors, the first in storage `0` and so on.
fn pickle(tensors: &[Tensor]) -> Vec<u8> {
    let text = |text: &str| [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let number = |number: usize| [b"J".as_slice(), &(number as i32).to_le_bytes()].concat();
    let numbers = |all: &[usize]| {
        let all: Vec<u8> = all.iter().flat_map(|&one| number(one)).collect();
        [b"(".as_slice(), &all, b"t"].concat()
    };
    let mut pickle = b"\x80\x02}(".to_vec();
    for (key, Tensor { name, shape, class, bytes }) in tensors.iter().enumerate() {
        let elements = bytes.len() / if *class == "FloatStorage" { 4 } else { 2 };
        let strides: Vec<_> = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
        pickle.extend(text(name));
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        pickle.extend([text("storage"), format!("ctorch\n{class}\n").into_bytes(), text(&key.to_string())].concat());
        pickle.extend([text("cpu"), number(elements), b"tQ".to_vec(), number(0)].concat());
        pickle.extend([numbers(shape), numbers(&strides)].concat());
        pickle.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    pickle.extend(b"u.");
    pickle
}
