//! Evaluates recorded networks: the ranks that share layers together, layer by layer.

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::Value;

use crate::attention::{Cache, attention};
use crate::plan::{Data, Layer, Plan, Tensor};

/// How bfloat16 is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    /// As fp32: nothing is rounded.
    Fp32,
    /// Each tensor of that type is rounded to it; sums are in fp32.
    Bf16,
}

impl Arithmetic {
    pub(crate) fn round(self, value: f32) -> f32 {
        match self {
            Self::Fp32 => value,
            Self::Bf16 => trtllm::engine_format::bf16::from_f32(value).to_f32(),
        }
    }
}

pub(crate) type Tensors = HashMap<String, Rc<Tensor>>;

/// One rank: its network and its KV cache.
pub(crate) struct Rank {
    pub(crate) plan: Plan,
    pub(crate) cache: Cache,
    /// Halves of adapters; the address of the first is 1.
    pub(crate) adapters: Vec<Vec<f32>>,
}

/// The outputs of a group of ranks that share layers.
pub(crate) fn evaluate(ranks: &mut [Rank], inputs: &Tensors, arithmetic: Arithmetic) -> Vec<HashMap<String, Tensor>> {
    for rank in ranks.iter() {
        check_inputs(&rank.plan, inputs);
    }
    let mut tensors: Vec<Tensors> = vec![inputs.clone(); ranks.len()];
    for index in 0..ranks[0].plan.layers.len() {
        let kind = ranks[0].plan.layers[index].kind.clone();
        let made: Vec<Tensor> = match kind.as_str() {
            "Plugin:AllReduce" | "Plugin:AllGather" => {
                let group = ranks[0].plan.layers[index].field("group");
                assert_eq!(group.len(), ranks.len(), "a group is the ranks that share layers");
                let parts: Vec<_> = ranks
                    .iter()
                    .zip(&tensors)
                    .map(|(rank, tensors)| Rc::clone(&tensors[&rank.plan.layers[index].inputs[0]]))
                    .collect();
                let whole = if kind == "Plugin:AllReduce" { sum(&parts) } else { stack(&parts) };
                vec![rounded(whole, arithmetic); ranks.len()]
            }
            _ => ranks
                .iter_mut()
                .zip(&tensors)
                .map(|(rank, tensors)| {
                    let layer = &rank.plan.layers[index];
                    let inputs: Vec<&Tensor> = layer
                        .inputs
                        .iter()
                        .map(|id| {
                            tensors.get(id).map(Rc::as_ref).unwrap_or_else(|| panic!("{}: no {id}", layer.name()))
                        })
                        .collect();
                    match kind.as_str() {
                        "Plugin:Lora" => rounded(lora(layer, &inputs, &rank.adapters, arithmetic), arithmetic),
                        "Plugin:GPTAttention" => attention(layer, &inputs, &mut rank.cache, arithmetic),
                        _ => rounded(plain(layer, &inputs), arithmetic),
                    }
                })
                .collect(),
        };
        for ((rank, tensors), made) in ranks.iter().zip(&mut tensors).zip(made) {
            let layer = &rank.plan.layers[index];
            check_made(layer, &made);
            tensors.insert(layer.id.clone(), Rc::new(made));
        }
    }
    let outputs = |(rank, tensors): (&Rank, &Tensors)| {
        rank.plan.outputs.iter().map(|(name, id)| (name.clone(), (*tensors[id]).clone())).collect()
    };
    ranks.iter().zip(&tensors).map(outputs).collect()
}

/// Where TensorRT-LLM's runtime goes over to the next profile, by the tokens of the step.
const SPLIT_POINTS: [usize; 5] = [64, 128, 256, 512, 1024];

/// Types, and shapes inside the profile that TensorRT-LLM's runtime would take.
fn check_inputs(plan: &Plan, inputs: &Tensors) {
    let tokens = ["input_ids", "hidden_states_input"].into_iter().find_map(|name| inputs.get(name)).unwrap().shape[0];
    for (name, recorded) in &plan.inputs {
        let input = inputs.get(name).unwrap_or_else(|| panic!("input {name} is not filled"));
        assert_eq!(recorded["dtype"], input.dtype, "{name}");
        let profile = match recorded["profiles"].as_array().unwrap().as_slice() {
            [one] => one,
            several => &several[SPLIT_POINTS.partition_point(|&point| point < tokens)],
        };
        let bound = |which: &str, axis: usize| profile[which][axis].as_u64().unwrap() as usize;
        assert_eq!(recorded["shape"].as_array().unwrap().len(), input.shape.len(), "{name}");
        for (axis, &size) in input.shape.iter().enumerate() {
            let range = bound("min", axis)..=bound("max", axis);
            assert!(range.contains(&size), "{name}: {size} is not in {range:?}");
        }
    }
}

/// What was made is what TensorRT was told.
fn check_made(layer: &Layer, made: &Tensor) {
    assert_eq!(layer.json["dtype"], made.dtype, "{}", layer.name());
    let shape = layer.json["shape"].as_array().unwrap();
    let fits = |(recorded, &size): (&Value, &usize)| recorded == -1 || *recorded == size as u64;
    assert!(
        shape.len() == made.shape.len() && shape.iter().zip(&made.shape).all(fits),
        "{}: {:?}, recorded {shape:?}",
        layer.name(),
        made.shape
    );
}

fn rounded(mut tensor: Tensor, arithmetic: Arithmetic) -> Tensor {
    if let ("BF16", Data::Floats(data)) = (tensor.dtype.as_str(), &mut tensor.data) {
        data.iter_mut().for_each(|value| *value = arithmetic.round(*value));
    }
    tensor
}

fn sum(parts: &[Rc<Tensor>]) -> Tensor {
    let mut whole = vec![0.0; parts[0].floats().len()];
    for part in parts {
        whole.iter_mut().zip(part.floats()).for_each(|(sum, value)| *sum += value);
    }
    Tensor { data: Data::Floats(whole), ..(*parts[0]).clone() }
}

fn stack(parts: &[Rc<Tensor>]) -> Tensor {
    let data = parts.iter().flat_map(|part| part.floats().to_vec()).collect();
    let shape = vec![parts.len() * parts[0].shape[0], parts[0].shape[1]];
    Tensor { data: Data::Floats(data), shape, ..(*parts[0]).clone() }
}

/// Everything that is no collective and no attention.
fn plain(layer: &Layer, inputs: &[&Tensor]) -> Tensor {
    let like = |tensor: &Tensor, data: Vec<f32>| Tensor { data: Data::Floats(data), ..tensor.clone() };
    let op = || layer.json["op"].as_str().unwrap();
    match (layer.kind.as_str(), inputs) {
        ("Constant", []) => layer.constant.clone().unwrap(),
        ("Gather", [data, indices]) => {
            let axis = layer.json["axis"].as_u64().unwrap() as usize;
            let (size, width) = (data.shape[axis], data.shape[axis + 1..].iter().product::<usize>());
            let outer = data.floats().chunks_exact(size * width);
            let part = |outer: &[f32], index: i64| outer[index as usize * width..][..width].to_vec();
            let gathered =
                outer.flat_map(|outer| indices.ints().iter().flat_map(|&index| part(outer, index)).collect::<Vec<_>>());
            Tensor {
                shape: [&data.shape[..axis], &indices.shape, &data.shape[axis + 1..]].concat(),
                data: Data::Floats(gathered.collect()),
                ..(*data).clone()
            }
        }
        ("MatrixMultiply", [a, b]) => {
            assert_eq!((&layer.json["opA"], &layer.json["opB"]), (&"NONE".into(), &"TRANSPOSE".into()));
            product(a, b)
        }
        ("Plugin:Gemm", [a, b]) => {
            assert_eq!((layer.scalar("transa"), layer.scalar("transb"), layer.scalar("alpha")), (0.0, 1.0, 1.0));
            product(a, b)
        }
        ("ElementWise", [a, b]) => element_wise(op(), a, b),
        ("Unary", [x]) if op() == "SQRT" => like(x, x.floats().iter().map(|value| value.sqrt()).collect()),
        ("Reduce", [x]) if op() == "AVG" => {
            let axis = x.shape.len() - 1;
            assert_eq!((layer.json["axes"].as_u64(), &layer.json["keep"]), (Some(1 << axis), &true.into()));
            let width = x.shape[axis];
            let mean = |row: &[f32]| row.iter().sum::<f32>() / width as f32;
            let mut shape = x.shape.clone();
            shape[axis] = 1;
            Tensor { shape, ..like(x, x.floats().chunks_exact(width).map(mean).collect()) }
        }
        ("Activation", [x]) if op() == "SIGMOID" => {
            like(x, x.floats().iter().map(|value| 1.0 / (1.0 + (-value).exp())).collect())
        }
        ("Cast", [x]) => Tensor { dtype: layer.json["to"].as_str().unwrap().to_owned(), ..(*x).clone() },
        ("Shuffle", [x]) => shuffle(layer, x),
        ("Concatenation", parts) => {
            assert_eq!(layer.json["axis"], 1);
            let row =
                |row: usize| parts.iter().flat_map(move |part| &part.floats()[row * part.shape[1]..][..part.shape[1]]);
            let data = (0..parts[0].shape[0]).flat_map(row).copied().collect();
            let width = parts.iter().map(|part| part.shape[1]).sum();
            Tensor { shape: vec![parts[0].shape[0], width], ..like(parts[0], data) }
        }
        ("Plugin:Send" | "Plugin:Recv", [x]) => (*x).clone(),
        (kind, inputs) => panic!("{}: {kind} of {} inputs", layer.name(), inputs.len()),
    }
}

/// B A x of each sequence's adapter, zeros without one: what the Lora plugin's kernels do, A x rounded as their workspace is.
fn lora(layer: &Layer, inputs: &[&Tensor], adapters: &[Vec<f32>], arithmetic: Arithmetic) -> Tensor {
    let [x, types, ranks, pointers, lengths] = inputs else { panic!("{}: {} inputs", layer.name(), inputs.len()) };
    let (columns, outputs) = (layer.scalar("in_hidden_size") as usize, layer.scalar("out_hidden_size_0") as usize);
    assert_eq!((x.shape[1], pointers.shape[1]), (columns, 3));
    assert_eq!((layer.scalar("transa"), layer.scalar("transb"), layer.scalar("num_lora_modules")), (0.0, 1.0, 1.0));
    assert_eq!((layer.scalar("remove_input_padding"), layer.scalar("weight_index")), (1.0, 0.0));
    let (mut data, mut token) = (Vec::new(), 0);
    for (sequence, &rank) in ranks.ints().iter().enumerate() {
        assert!(rank as f64 <= layer.scalar("max_low_rank"));
        let rank = rank as usize;
        let count = if types.ints()[sequence] == 0 { lengths.ints()[sequence] as usize } else { 1 };
        for _ in 0..count {
            let x = &x.floats()[token * columns..(token + 1) * columns];
            token += 1;
            if rank == 0 {
                data.extend(vec![0.0; outputs]);
                continue;
            }
            let half = |which: usize| {
                adapters[pointers.ints()[sequence * 3 + which] as usize - 1].chunks_exact([columns, rank][which])
            };
            let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f32>();
            let low: Vec<f32> = half(0).map(|row| arithmetic.round(dot(row, x))).collect();
            assert_eq!((low.len(), half(1).len()), (rank, outputs));
            data.extend(half(1).map(|row| dot(row, &low)));
        }
    }
    assert_eq!(token, x.shape[0], "{}: every token belongs to a request", layer.name());
    Tensor { shape: vec![token, outputs], data: Data::Floats(data), ..(*x).clone() }
}

/// `[rows, k]` times the transposed `[columns, k]`.
fn product(a: &Tensor, b: &Tensor) -> Tensor {
    let (k, columns) = (a.shape[1], b.shape[0]);
    assert_eq!(k, b.shape[1]);
    let dot = |x: &[f32], y: &[f32]| {
        // Eight sums: quicker, and closer to a sum in double precision.
        let mut sums = [0.0f32; 8];
        let (x8, x_rest) = x.as_chunks::<8>();
        let (y8, y_rest) = y.as_chunks::<8>();
        for (x, y) in x8.iter().zip(y8) {
            for lane in 0..8 {
                sums[lane] += x[lane] * y[lane];
            }
        }
        sums.iter().sum::<f32>() + x_rest.iter().zip(y_rest).map(|(x, y)| x * y).sum::<f32>()
    };
    let rows = a.floats().chunks_exact(k);
    let data = rows.flat_map(|x| b.floats().chunks_exact(k).map(move |y| dot(x, y))).collect();
    Tensor { dtype: a.dtype.clone(), shape: vec![a.shape[0], columns], data: Data::Floats(data) }
}

fn element_wise(op: &str, a: &Tensor, b: &Tensor) -> Tensor {
    assert_eq!((&a.dtype, a.shape.len()), (&b.dtype, b.shape.len()));
    let shape: Vec<usize> = a.shape.iter().zip(&b.shape).map(|(&a, &b)| if a == 1 { b } else { a }).collect();
    // The element of a tensor that broadcasts to element `index` of the result.
    let place = |tensor: &Tensor, index: usize| {
        let (mut rest, mut place, mut stride) = (index, 0, 1);
        for (axis, &size) in shape.iter().enumerate().rev() {
            let coordinate = rest % size;
            rest /= size;
            if tensor.shape[axis] != 1 {
                place += coordinate * stride;
            }
            stride *= tensor.shape[axis];
        }
        place
    };
    let count = 0..shape.iter().product();
    let data = match (&a.data, &b.data) {
        (Data::Integers(x), Data::Integers(y)) if op == "SUB" => {
            Data::Integers(count.map(|index| x[place(a, index)] - y[place(b, index)]).collect())
        }
        (Data::Floats(x), Data::Floats(y)) => {
            let apply = |x: f32, y: f32| match op {
                "SUM" => x + y,
                "PROD" => x * y,
                "SUB" => x - y,
                "DIV" => x / y,
                "POW" => x.powf(y),
                other => panic!("element-wise {other}"),
            };
            Data::Floats(count.map(|index| apply(x[place(a, index)], y[place(b, index)])).collect())
        }
        _ => panic!("element-wise {op} of {} and {}", a.dtype, b.dtype),
    };
    Tensor { dtype: a.dtype.clone(), shape, data }
}

fn shuffle(layer: &Layer, x: &Tensor) -> Tensor {
    let numbers =
        |value: &Value| value.as_array().map(|list| list.iter().map(|n| n.as_i64().unwrap()).collect::<Vec<_>>());
    let reshape = numbers(&layer.json["reshape"]).unwrap();
    let known: i64 = reshape.iter().filter(|&&size| size >= 0).product();
    let left = x.floats().len() as i64 / known.max(1);
    let shape: Vec<usize> = reshape.iter().map(|&size| if size < 0 { left } else { size } as usize).collect();
    assert_eq!(shape.iter().product::<usize>(), x.floats().len(), "{}", layer.name());
    let Some(permutation) = numbers(&layer.json["permutation"]) else {
        return Tensor { shape, ..x.clone() };
    };
    let made: Vec<usize> = permutation.iter().map(|&axis| shape[axis as usize]).collect();
    let strides: Vec<usize> = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
    let element = |index: usize| {
        let (mut rest, mut place) = (index, 0);
        for (axis, &size) in made.iter().enumerate().rev() {
            place += rest % size * strides[permutation[axis] as usize];
            rest /= size;
        }
        x.floats()[place]
    };
    let data = (0..x.floats().len()).map(element).collect();
    Tensor { dtype: x.dtype.clone(), shape: made, data: Data::Floats(data) }
}
