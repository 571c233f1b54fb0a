//! A plan of the stand-in: a mark, the length of a JSON text, the text, the bytes of the constants.

use std::path::Path;

use serde_json::Value;

const MARK: &[u8] = b"TRTLLM-STAND-IN-PLAN\n";

/// Elements of a tensor; bfloat16 is held in fp32.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
}

/// A tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Data,
}

impl Tensor {
    pub(crate) fn integers(dtype: &str, shape: &[usize], data: Vec<i64>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), data.len());
        Self { dtype: dtype.to_owned(), shape: shape.to_vec(), data: Data::Integers(data) }
    }

    pub(crate) fn floats(&self) -> &[f32] {
        match &self.data {
            Data::Floats(data) => data,
            Data::Integers(_) => panic!("{} is not floating point", self.dtype),
        }
    }

    pub(crate) fn ints(&self) -> &[i64] {
        match &self.data {
            Data::Integers(data) => data,
            Data::Floats(_) => panic!("{} is no integer", self.dtype),
        }
    }
}

/// A layer of the recorded network.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) inputs: Vec<String>,
    /// Everything that was recorded.
    pub(crate) json: Value,
    /// Of a constant.
    pub(crate) constant: Option<Tensor>,
}

impl Layer {
    pub(crate) fn name(&self) -> &str {
        self.json["name"].as_str().unwrap()
    }

    /// The values of a plugin's field.
    pub(crate) fn field(&self, name: &str) -> Vec<f64> {
        let field = self.json["fields"].as_array().unwrap().iter().find(|field| field[0] == name);
        let field = field.unwrap_or_else(|| panic!("{}: no field `{name}`", self.name()));
        field[2].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
    }

    /// The one value of a plugin's field.
    pub(crate) fn scalar(&self, name: &str) -> f64 {
        self.field(name)[0]
    }
}

/// A recorded network.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Name, and everything that was recorded.
    pub(crate) inputs: Vec<(String, Value)>,
    pub(crate) layers: Vec<Layer>,
    /// Name and tensor.
    pub(crate) outputs: Vec<(String, String)>,
}

impl Plan {
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let rest = bytes.strip_prefix(MARK).unwrap_or_else(|| panic!("{} is no plan of the stand-in", path.display()));
        let (length, rest) = rest.split_first_chunk().unwrap();
        let (text, blob) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let json: Value = serde_json::from_slice(text).unwrap();
        assert!(json["flags"].as_array().unwrap().contains(&"STRONGLY_TYPED".into()));
        let list = |name: &str| json[name].as_array().unwrap().clone();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Self {
            inputs: list("inputs").into_iter().map(|input| (text(&input["name"]), input)).collect(),
            layers: list("layers").into_iter().map(|layer| read_layer(layer, blob)).collect(),
            outputs: list("outputs").iter().map(|output| (text(&output[0]), text(&output[3]))).collect(),
        }
    }

    pub(crate) fn has_input(&self, name: &str) -> bool {
        self.inputs.iter().any(|(input, _)| input == name)
    }
}

fn read_layer(json: Value, blob: &[u8]) -> Layer {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let kind = text(&json["kind"]);
    let constant = (kind == "Constant").then(|| {
        let offset = json["offset"].as_u64().unwrap() as usize;
        let bytes = &blob[offset..offset + json["bytes"].as_u64().unwrap() as usize];
        let dtype = text(&json["dtype"]);
        let data = match dtype.as_str() {
            "BF16" => Data::Floats(
                bytes.as_chunks().0.iter().map(|&b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)).collect(),
            ),
            "FLOAT" => Data::Floats(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()),
            "INT32" => Data::Integers(bytes.as_chunks().0.iter().map(|&b| i32::from_le_bytes(b).into()).collect()),
            other => panic!("a constant of {other}"),
        };
        let shape = json["shape"].as_array().unwrap().iter().map(|size| size.as_u64().unwrap() as usize).collect();
        Tensor { dtype, shape, data }
    });
    let inputs = json["in"].as_array().map(|inputs| inputs.iter().map(text).collect()).unwrap_or_default();
    Layer { id: text(&json["id"]), kind, inputs, constant, json }
}
