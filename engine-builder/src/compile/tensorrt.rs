//! TensorRT: a network replayed on nvinfer1, weights read where the checkpoint is mapped, the plan written as it comes.
//!
//! Source of the builder's settings: TensorRT-LLM 1.x, `builder.py`: a strongly typed network, one optimization profile, layer
//! names in the engine, a timing cache, and TensorRT's defaults for the rest. `IS_BUILDING`, which keeps TensorRT-LLM's plugins
//! from running while TensorRT times them, is the shim's.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};

use engine_format::build_config::engine_file;
use engine_format::manifest::FileRecord;
use engine_format::{FormatError, Mapping};
use trtllm_sys::GpuLibrary;
use trtllm_sys::gpu::{
    Activation, BuildPhase, DataType as GpuDataType, ElementWise as GpuElementWise, GpuBuild, GpuError, GpuNetwork,
    NetworkInput, NetworkNode, NetworkOp, PluginField, PluginValues, Reduce, Severity, Unary,
};

use crate::error::{BuildError, Result};
use crate::network::graph::{Graph, Node};
use crate::network::ops::{ElementWise, Op, Value};
use crate::network::plugin::{FieldValues, PLUGIN_NAMESPACE, PLUGIN_VERSION, Plugin};
use crate::network::{DataType, NetworkError, RankNetwork};
use crate::output::write_whole;
use crate::progress::{Interrupt, Progress};
use crate::source::Source;

/// Steps of one rank, as progress counts them.
const STEPS: u64 = 1000;

/// Where and how ranks are compiled.
pub(crate) struct TensorRt<'a> {
    pub(crate) library: &'a GpuLibrary,
    /// CUDA's numbers of the GPUs, at least one.
    pub(crate) devices: &'a [usize],
    /// Ranks at the same time.
    pub(crate) workers: usize,
    /// What TensorRT measured before, and where it is kept.
    pub(crate) timing_cache: Option<&'a Path>,
}

impl TensorRt<'_> {
    /// Compiles every rank into `folder`, and gives the engine files' records, in the order of the ranks.
    ///
    /// # Errors
    /// [`BuildError::TensorRt`] with the rank that failed first; an interrupt; what the system said to a write.
    pub(crate) fn compile(
        &self,
        checkpoint: &Source,
        mapping: Mapping,
        networks: &[RankNetwork],
        folder: &Path,
        progress: &dyn Progress,
        interrupt: &Interrupt,
    ) -> Result<Vec<FileRecord>> {
        let timing_cache = match self.timing_cache.map(|path| (path, std::fs::read(path))) {
            Some((_, Ok(content))) => content,
            Some((path, Err(error))) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(FormatError::io("read", path)(error).into());
            }
            _ => Vec::new(),
        };
        let work = Work {
            tensorrt: self,
            checkpoint,
            mapping,
            folder,
            progress,
            interrupt,
            timing_cache: Mutex::new(timing_cache),
            failed: AtomicBool::new(false),
        };
        let what = match networks {
            [_] => format!("compiling {}", engine_file(0)),
            networks => format!("compiling {} engines", networks.len()),
        };
        progress.begin_steps(&what, STEPS * networks.len() as u64);
        let results = work.every_rank(networks);
        progress.end();
        let mut records = Vec::new();
        let mut interrupted = None;
        for result in results {
            match result {
                Ok(record) => records.push(record),
                // The others were stopped because of the one that failed.
                Err(error) if error.is_interrupted() => interrupted = Some(error),
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = interrupted {
            return Err(error);
        }
        if let Some(path) = self.timing_cache {
            let content = work.timing_cache.into_inner().unwrap_or_else(PoisonError::into_inner);
            write_whole(path, &content)?;
        }
        Ok(records)
    }
}

/// What the threads that compile share.
struct Work<'a> {
    tensorrt: &'a TensorRt<'a>,
    checkpoint: &'a Source,
    mapping: Mapping,
    folder: &'a Path,
    progress: &'a dyn Progress,
    interrupt: &'a Interrupt,
    timing_cache: Mutex<Vec<u8>>,
    failed: AtomicBool,
}

impl Work<'_> {
    fn every_rank(&self, networks: &[RankNetwork]) -> Vec<Result<FileRecord>> {
        let next = AtomicUsize::new(0);
        let results = Mutex::new(Vec::new());
        let work = |device: usize| {
            while let Some(network) = networks.get(next.fetch_add(1, Ordering::Relaxed)) {
                let result = self.rank(network, device);
                self.failed.fetch_or(result.is_err(), Ordering::Relaxed);
                results.lock().unwrap_or_else(PoisonError::into_inner).push((network.rank, result));
            }
        };
        let devices = self.tensorrt.devices;
        std::thread::scope(|scope| {
            for worker in 0..self.tensorrt.workers.clamp(1, networks.len()) {
                let (work, device) = (&work, devices[worker % devices.len()]);
                scope.spawn(move || work(device));
            }
        });
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_by_key(|(rank, _)| *rank);
        results.into_iter().map(|(_, result)| result).collect()
    }

    fn goes_on(&self) -> bool {
        !self.interrupt.is_set() && !self.failed.load(Ordering::Relaxed)
    }

    /// One rank, on the GPU with this number.
    fn rank(&self, network: &RankNetwork, device: usize) -> Result<FileRecord> {
        if !self.goes_on() {
            return Err(BuildError::Interrupted);
        }
        let failed = |source| match source {
            GpuError::Cancelled => BuildError::Interrupted,
            source => BuildError::TensorRt { rank: network.rank, source },
        };
        std::thread::scope(|scope| {
            let (log, lines) = mpsc::channel();
            // TensorRT logs on threads of its own; the sender goes with the network, and this thread with it.
            scope.spawn(move || {
                for (severity, text) in lines {
                    match severity {
                        Severity::Error => self.progress.note(&format!("TensorRT: {text}")),
                        Severity::Warning | Severity::Info => self.progress.detail(&format!("TensorRT: {text}")),
                        Severity::Debug => {}
                    }
                }
            });
            let graph = &network.graph;
            let to_log = Mutex::new(log);
            let mut replayed = GpuNetwork::new(self.tensorrt.library, &graph.name, device as i32, move |line| {
                let log = to_log.lock().unwrap_or_else(PoisonError::into_inner);
                // A receiver that is gone has nobody to tell.
                let _ = log.send((line.severity, line.text.to_owned()));
            })
            .map_err(failed)?;
            self.replay(&mut replayed, network)?;
            let path = self.folder.join(engine_file(network.rank));
            let mut plan = PlanFile::create(&path)?;
            let mut timing_cache = Vec::new();
            let known = self.timing_cache.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut share = Share::default();
            let built = replayed.build(GpuBuild {
                timing_cache: &known,
                write_timing_cache: &mut |bytes| {
                    timing_cache.extend_from_slice(bytes);
                    true
                },
                write_plan: &mut |bytes| plan.write(bytes),
                progress: &mut |phase| {
                    self.progress.advance(share.more(&phase, STEPS));
                    self.goes_on()
                },
            });
            // A disk that is full is the reason where TensorRT only knows that something failed.
            let record = plan.finish();
            if built.is_err()
                && let Err(error) = record
            {
                return Err(error.into());
            }
            built.map_err(failed)?;
            self.progress.advance(share.rest(STEPS));
            if !timing_cache.is_empty() {
                *self.timing_cache.lock().unwrap_or_else(PoisonError::into_inner) = timing_cache;
            }
            Ok(record?)
        })
    }

    /// Asks TensorRT for everything in the graph.
    fn replay<'w>(&'w self, replayed: &mut GpuNetwork<'w>, network: &'w RankNetwork) -> Result<()> {
        let failed = |source| BuildError::TensorRt { rank: network.rank, source };
        let graph = &network.graph;
        let mut numbers = Vec::with_capacity(graph.tensors.len());
        for input in &graph.inputs {
            let tensor = graph.tensor(input.tensor);
            let names: Vec<_> = input.dimensions.iter().map(|&name| Some(name)).collect();
            let profile = &input.profile;
            let described = NetworkInput {
                name: input.name,
                dtype: data_type(tensor.dtype),
                shape: &tensor.shape,
                dimension_names: &names,
                profiles: &[[profile.min.clone(), profile.opt.clone(), profile.max.clone()]],
            };
            numbers.push(replayed.add_input(&described).map_err(failed)?);
        }
        for node in &graph.nodes {
            let made = graph.tensor(node.output);
            let number = match &node.op {
                Op::Constant { shape, value } => {
                    let (bytes, weight) = self.constant(value, network.rank)?;
                    replayed.add_constant(&node.name, data_type(made.dtype), shape, bytes, weight)
                }
                _ => add_node(replayed, graph, node, &numbers),
            };
            numbers.push(number.map_err(failed)?);
        }
        for output in &graph.outputs {
            replayed.mark_output(numbers[output.tensor.0], output.name).map_err(failed)?;
        }
        Ok(())
    }

    /// A constant's bytes where they are: in the mapped checkpoint, or in the graph.
    fn constant<'w>(&'w self, value: &'w Value, rank: usize) -> Result<(&'w [u8], Option<&'w str>)> {
        match value {
            Value::Floats(numbers) => Ok((bytemuck::cast_slice(numbers), None)),
            Value::Integers(numbers) => Ok((bytemuck::cast_slice(numbers), None)),
            Value::Weight(name) => {
                let refuse = |problem: &str| NetworkError::Weight { weight: name.clone(), problem: problem.into() };
                let missing = || refuse("is not in the rank's checkpoint");
                let view = self.checkpoint.rank_tensor(self.mapping, rank, name)?.ok_or_else(missing)?;
                let unusable = || refuse("is not bfloat16 at an even place in its file: write the checkpoint again");
                let elements = view.as_bf16(0..view.row_count()).ok_or_else(unusable)?;
                Ok((bytemuck::cast_slice(elements), Some(name)))
            }
        }
    }
}

const fn data_type(dtype: DataType) -> GpuDataType {
    match dtype {
        DataType::Float => GpuDataType::Float,
        DataType::Int32 => GpuDataType::Int32,
        DataType::Bf16 => GpuDataType::Bf16,
        DataType::Int64 => GpuDataType::Int64,
    }
}

/// Adds an operation that is no constant.
fn add_node(
    replayed: &mut GpuNetwork<'_>,
    graph: &Graph,
    node: &Node,
    numbers: &[u32],
) -> std::result::Result<u32, GpuError> {
    let made = graph.tensor(node.output);
    let axes: Vec<i32>;
    let fields: Vec<PluginField<'_>>;
    let op = match &node.op {
        Op::Constant { .. } => return Err(GpuError::Exception { message: format!("`{}` is a constant", node.name) }),
        Op::Gather => NetworkOp::Gather { axis: 0 },
        Op::MatrixMultiply => NetworkOp::MatrixMultiply { transpose: true },
        Op::ElementWise(op) => NetworkOp::ElementWise(match op {
            ElementWise::Sum => GpuElementWise::Sum,
            ElementWise::Prod => GpuElementWise::Prod,
            ElementWise::Sub => GpuElementWise::Sub,
            ElementWise::Div => GpuElementWise::Div,
            ElementWise::Pow => GpuElementWise::Pow,
        }),
        Op::Sqrt => NetworkOp::Unary(Unary::Sqrt),
        Op::Mean => NetworkOp::Reduce { op: Reduce::Avg, axes: 1 << (made.shape.len() - 1) },
        Op::Sigmoid => NetworkOp::Activation(Activation::Sigmoid),
        Op::Cast(_) => NetworkOp::Cast,
        Op::Shuffle { reshape, permutation } => {
            axes = permutation.iter().map(|&axis| axis as i32).collect();
            NetworkOp::Shuffle { reshape, permutation: (!axes.is_empty()).then_some(axes.as_slice()) }
        }
        Op::Plugin(plugin) => {
            fields = plugin_fields(plugin);
            NetworkOp::Plugin {
                name: plugin.name,
                version: PLUGIN_VERSION,
                namespace: PLUGIN_NAMESPACE,
                fields: &fields,
            }
        }
    };
    let inputs: Vec<_> = node.inputs.iter().map(|id| numbers[id.0]).collect();
    replayed.add_node(&NetworkNode {
        name: &node.name,
        op,
        inputs: &inputs,
        dtype: data_type(made.dtype),
        shape: &made.shape,
    })
}

fn plugin_fields(plugin: &Plugin) -> Vec<PluginField<'_>> {
    fn values(values: &FieldValues) -> PluginValues<'_> {
        match values {
            FieldValues::Int8(values) => PluginValues::Int8(values),
            FieldValues::Int32(values) => PluginValues::Int32(values),
            FieldValues::Float32(values) => PluginValues::Float32(values),
        }
    }
    plugin.fields.iter().map(|field| PluginField { name: field.name, values: values(&field.values) }).collect()
}

/// An engine file that is written in pieces and hashed on the way.
struct PlanFile<'a> {
    path: &'a Path,
    file: File,
    hasher: blake3::Hasher,
    bytes: u64,
    error: Option<std::io::Error>,
}

impl<'a> PlanFile<'a> {
    fn create(path: &'a Path) -> Result<Self, FormatError> {
        let file = File::create(path).map_err(FormatError::io("create", path))?;
        Ok(Self { path, file, hasher: blake3::Hasher::new(), bytes: 0, error: None })
    }

    /// Whether the bytes could be kept.
    fn write(&mut self, bytes: &[u8]) -> bool {
        if self.error.is_none() {
            self.hasher.update(bytes);
            self.bytes += bytes.len() as u64;
            self.error = self.file.write_all(bytes).err();
        }
        self.error.is_none()
    }

    fn finish(self) -> Result<FileRecord, FormatError> {
        let io = FormatError::io("write", self.path);
        match self.error {
            Some(error) => Err(io(error)),
            None => {
                self.file.sync_all().map_err(io)?;
                let blake3 = self.hasher.finalize().to_hex().to_string();
                Ok(FileRecord { bytes: self.bytes, blake3, head_blake3: None })
            }
        }
    }
}

/// How much of a rank is done, from phases inside phases.
#[derive(Default)]
struct Share {
    /// Name, step and steps of each phase that has begun and not ended, outermost first.
    phases: Vec<(String, i32, i32)>,
    told: u64,
}

impl Share {
    /// Steps of `whole` that this phase has added to those told before.
    fn more(&mut self, phase: &BuildPhase<'_>, whole: u64) -> u64 {
        let known = self.phases.iter().position(|(name, ..)| name == phase.phase);
        match known {
            Some(index) if phase.step >= phase.steps => self.phases.truncate(index),
            Some(index) => {
                self.phases.truncate(index + 1);
                self.phases[index].1 = phase.step;
            }
            None => {
                let depth = self.phases.iter().position(|(name, ..)| Some(name.as_str()) == phase.parent);
                self.phases.truncate(depth.map_or(0, |depth| depth + 1));
                self.phases.push((phase.phase.to_owned(), phase.step, phase.steps));
            }
        }
        let (mut done, mut width) = (0.0, 1.0);
        for (_, step, steps) in &self.phases {
            width /= f64::from(*steps).max(1.0);
            done += f64::from(*step) * width;
        }
        // The last one comes when the engine is there.
        let done = ((done * whole as f64) as u64).min(whole - 1).max(self.told);
        let more = done - self.told;
        self.told = done;
        more
    }

    /// What is left of `whole` when the engine is there.
    fn rest(&self, whole: u64) -> u64 {
        whole - self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_inside_phases_add_up_and_never_go_back() {
        let mut share = Share::default();
        let mut tell = |phase, parent, step, steps| share.more(&BuildPhase { phase, parent, step, steps }, 1000);
        assert_eq!(tell("engine", None, 0, 4), 0);
        assert_eq!(tell("engine", None, 1, 4), 250);
        assert_eq!(tell("tactics", Some("engine"), 0, 10), 0);
        assert_eq!(tell("tactics", Some("engine"), 5, 10), 125);
        assert_eq!(tell("tactics", Some("engine"), 10, 10), 0);
        assert_eq!(tell("engine", None, 2, 4), 125);
        assert_eq!(tell("engine", None, 4, 4), 0);
        assert_eq!(share.rest(1000), 500);
    }
}
