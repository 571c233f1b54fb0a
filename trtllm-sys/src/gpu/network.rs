//! A network for TensorRT: asked for node by node, then compiled into a plan.

use std::ffi::{CStr, CString, c_char, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use crate::HostSignals;

use super::bindings::{
    TRTLLM_GPU_ACTIVATION, TRTLLM_GPU_CAST, TRTLLM_GPU_CONCATENATION, TRTLLM_GPU_CONSTANT, TRTLLM_GPU_ELEMENT_WISE,
    TRTLLM_GPU_GATHER, TRTLLM_GPU_MATRIX_MULTIPLY, TRTLLM_GPU_PLUGIN, TRTLLM_GPU_REDUCE, TRTLLM_GPU_SHUFFLE,
    TRTLLM_GPU_UNARY, trtllm_gpu_build, trtllm_gpu_network, trtllm_gpu_network_input, trtllm_gpu_network_node,
    trtllm_gpu_plugin_field,
};
use super::executor::{ErrorBuffer, function};
use super::library::{Log, Table, take_line};
use super::nodes::{DataType, NetworkInput, NetworkNode, NetworkOp, PluginField, PluginValues};
use super::{GpuError, GpuLibrary, LogLine};

/// How far TensorRT is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildPhase<'a> {
    /// What it does.
    pub phase: &'a str,
    /// What that belongs to.
    pub parent: Option<&'a str>,
    /// Steps that are done, from 0 when the phase begins to `steps` when it ends.
    pub step: i32,
    /// Steps of the phase.
    pub steps: i32,
}

/// How a network is compiled.
pub struct GpuBuild<'a> {
    /// What an earlier build gave to `write_timing_cache`, or nothing.
    pub timing_cache: &'a [u8],
    /// Takes what TensorRT measured.
    pub write_timing_cache: &'a mut (dyn FnMut(&[u8]) -> bool + Send),
    /// Takes the plan, piece by piece; `false` when it cannot be kept.
    pub write_plan: &'a mut (dyn FnMut(&[u8]) -> bool + Send),
    /// Told how far TensorRT is; `false` to stop.
    pub progress: &'a mut (dyn FnMut(BuildPhase<'_>) -> bool + Send),
}

/// A network of nvinfer1. Constants' elements are read where they are, until it is dropped.
pub struct GpuNetwork<'w> {
    table: Table,
    raw: *mut trtllm_gpu_network,
    tensors: u32,
    /// What the network's log goes to; it outlives the network.
    _log: Box<Log>,
    weights: PhantomData<&'w [u8]>,
}

impl GpuLibrary {
    /// Version of TensorRT that is loaded; `None` where the shim was built without its headers and makes no networks.
    pub fn tensorrt_version(&self) -> Option<String> {
        let version = self.table().get().tensorrt_version?;
        // SAFETY: no duty; the result is a constant text.
        let text = super::library::to_text(unsafe { version() });
        text.filter(|text| !text.is_empty())
    }

    /// Version of TensorRT whose headers the shim was compiled against; empty without.
    pub fn tensorrt_built_against(&self) -> String {
        super::library::to_text(self.table().get().tensorrt_built_against).unwrap_or_default()
    }
}

fn text(text: &str) -> Result<CString, GpuError> {
    CString::new(text).map_err(|_| GpuError::Nul { what: format!("`{}`", text.replace('\0', "?")) })
}

/// What a call on a network says: its exceptions are TensorRT's or the shim's own, and not TensorRT-LLM's.
fn check(error: &ErrorBuffer, status: i32) -> Result<(), GpuError> {
    error.check(status).map_err(|error| match error {
        GpuError::Exception { message } => GpuError::Network { message },
        error => error,
    })
}

impl<'w> GpuNetwork<'w> {
    /// A network without anything in it, to be compiled on the GPU that CUDA calls `device`; `log` takes what TensorRT says of it, on any thread.
    ///
    /// # Errors
    /// [`GpuError`]; [`GpuError::Unsupported`] where the shim was built without TensorRT, [`GpuError::Busy`] where this process has an
    /// executor open.
    pub fn new(
        library: &GpuLibrary,
        name: &str,
        device: i32,
        log: impl Fn(LogLine<'_>) + Send + Sync + 'static,
    ) -> Result<Self, GpuError> {
        extern "C" fn take(user_data: *mut c_void, severity: i32, line: *const c_char) {
            // SAFETY: the pointer was made from the network's own `Log` below, which lives as long as the network.
            take_line(unsafe { &*user_data.cast::<Log>() }, severity, line);
        }
        let table = library.table();
        let create = function!(table, network_create)?;
        let name = text(name)?;
        let log: Box<Log> = Box::new(Box::new(log));
        let (mut raw, mut error) = (std::ptr::null_mut(), ErrorBuffer::new());
        let _signals = HostSignals::note();
        let user_data = std::ptr::from_ref::<Log>(&log).cast_mut().cast();
        // SAFETY: the name is valid for the call, the log as long as the network.
        let status = unsafe { create(name.as_ptr(), device, Some(take), user_data, &raw mut raw, error.get()) };
        check(&error, status)?;
        Ok(Self { table, raw, tensors: 0, _log: log, weights: PhantomData })
    }

    fn next(&mut self) -> u32 {
        self.tensors += 1;
        self.tensors - 1
    }

    /// Adds an input, and gives its tensor's number.
    ///
    /// # Errors
    /// [`GpuError`].
    pub fn add_input(&mut self, input: &NetworkInput<'_>) -> Result<u32, GpuError> {
        let add = function!(self.table, network_add_input)?;
        let rank = input.shape.len();
        let is_whole = |shapes: &[Vec<i64>; 3]| shapes.iter().all(|shape| shape.len() == rank);
        if input.dimension_names.len() != rank || !input.profiles.iter().all(is_whole) {
            let message = format!("input `{}`: names and profiles are not of {rank} dimensions", input.name);
            return Err(GpuError::Network { message });
        }
        let name = text(input.name)?;
        let names = input.dimension_names.iter().map(|name| name.map(text).transpose());
        let names: Vec<_> = names.collect::<Result<_, _>>()?;
        let names: Vec<_> =
            names.iter().map(|name| name.as_ref().map_or(std::ptr::null(), |name| name.as_ptr())).collect();
        let profiles: Vec<i64> = input.profiles.iter().flatten().flatten().copied().collect();
        let raw = trtllm_gpu_network_input {
            name: name.as_ptr(),
            dtype: input.dtype as i32,
            rank,
            shape: input.shape.as_ptr(),
            dimension_names: names.as_ptr(),
            profiles: profiles.as_ptr(),
            num_profiles: input.profiles.len(),
        };
        let mut error = ErrorBuffer::new();
        // SAFETY: the network is open; every pointer is valid for the call, and lengths are those of what they belong to.
        let status = unsafe { add(self.raw, &raw, error.get()) };
        check(&error, status)?;
        Ok(self.next())
    }

    /// Adds a constant, and gives its tensor's number. `weight` is the name of the weight that it is.
    ///
    /// # Errors
    /// [`GpuError`]; elements that are not as many as the shape says.
    pub fn add_constant(
        &mut self,
        name: &str,
        dtype: DataType,
        shape: &[i64],
        data: &'w [u8],
        weight: Option<&str>,
    ) -> Result<u32, GpuError> {
        let size = match dtype {
            DataType::Int64 => 8,
            DataType::Float | DataType::Int32 => 4,
            DataType::Half | DataType::Bf16 => 2,
            DataType::Int8 | DataType::Bool => 1,
        };
        let count = shape.iter().try_fold(1i64, |product, &size| product.checked_mul(size)).unwrap_or(-1);
        if count.checked_mul(size) != i64::try_from(data.len()).ok() {
            let message = format!("constant `{name}` of shape {shape:?} has {} bytes", data.len());
            return Err(GpuError::Network { message });
        }
        let weight = weight.map(text).transpose()?;
        let raw = trtllm_gpu_network_node {
            dtype: dtype as i32,
            data: data.as_ptr().cast(),
            count,
            weight: weight.as_ref().map_or(std::ptr::null(), |weight| weight.as_ptr()),
            ..empty(TRTLLM_GPU_CONSTANT, shape, &[])
        };
        self.add(name, raw)
    }

    /// Adds a node, and gives its tensor's number.
    ///
    /// # Errors
    /// [`GpuError`] with the node's name where TensorRT refuses it, or makes something else of it.
    pub fn add_node(&mut self, node: &NetworkNode<'_>) -> Result<u32, GpuError> {
        let raw = |op| trtllm_gpu_network_node { dtype: node.dtype as i32, ..empty(op, node.shape, node.inputs) };
        match node.op {
            NetworkOp::Gather { axis } => {
                self.add(node.name, trtllm_gpu_network_node { axis, ..raw(TRTLLM_GPU_GATHER) })
            }
            NetworkOp::MatrixMultiply { transpose } => {
                self.add(node.name, trtllm_gpu_network_node { transpose, ..raw(TRTLLM_GPU_MATRIX_MULTIPLY) })
            }
            NetworkOp::ElementWise(kind) => {
                self.add(node.name, trtllm_gpu_network_node { kind: kind as i32, ..raw(TRTLLM_GPU_ELEMENT_WISE) })
            }
            NetworkOp::Unary(kind) => {
                self.add(node.name, trtllm_gpu_network_node { kind: kind as i32, ..raw(TRTLLM_GPU_UNARY) })
            }
            NetworkOp::Reduce { op, axes } => {
                let (kind, axis) = (op as i32, axes as i32);
                self.add(node.name, trtllm_gpu_network_node { kind, axis, ..raw(TRTLLM_GPU_REDUCE) })
            }
            NetworkOp::Activation(kind) => {
                self.add(node.name, trtllm_gpu_network_node { kind: kind as i32, ..raw(TRTLLM_GPU_ACTIVATION) })
            }
            NetworkOp::Cast => self.add(node.name, raw(TRTLLM_GPU_CAST)),
            NetworkOp::Shuffle { reshape, permutation } => {
                if permutation.is_some_and(|permutation| permutation.len() != reshape.len()) {
                    let message = format!("node `{}`: its permutation is not of its {} axes", node.name, reshape.len());
                    return Err(GpuError::Network { message });
                }
                let shuffle = trtllm_gpu_network_node {
                    reshape: reshape.as_ptr(),
                    reshape_rank: reshape.len(),
                    permutation: permutation.map_or(std::ptr::null(), <[i32]>::as_ptr),
                    ..raw(TRTLLM_GPU_SHUFFLE)
                };
                self.add(node.name, shuffle)
            }
            NetworkOp::Concatenation { axis } => {
                self.add(node.name, trtllm_gpu_network_node { axis, ..raw(TRTLLM_GPU_CONCATENATION) })
            }
            NetworkOp::Plugin { name, version, namespace, fields } => {
                let (plugin, version, namespace) = (text(name)?, text(version)?, text(namespace)?);
                let names: Vec<_> = fields.iter().map(|field| text(field.name)).collect::<Result<_, _>>()?;
                let fields: Vec<_> = fields.iter().zip(&names).map(|(field, name)| raw_field(field, name)).collect();
                let plugin = trtllm_gpu_network_node {
                    plugin: plugin.as_ptr(),
                    plugin_version: version.as_ptr(),
                    plugin_namespace: namespace.as_ptr(),
                    fields: fields.as_ptr(),
                    num_fields: fields.len(),
                    ..raw(TRTLLM_GPU_PLUGIN)
                };
                self.add(node.name, plugin)
            }
        }
    }

    /// Adds `node`, whose pointers are valid for the call, a constant's data for `'w`.
    fn add(&mut self, name: &str, node: trtllm_gpu_network_node) -> Result<u32, GpuError> {
        let add = function!(self.table, network_add_node)?;
        let name = text(name)?;
        let node = trtllm_gpu_network_node { name: name.as_ptr(), ..node };
        let mut error = ErrorBuffer::new();
        // SAFETY: the network is open, and the callers made the node of what outlives this call; constants outlive the network.
        let status = unsafe { add(self.raw, &node, error.get()) };
        check(&error, status)?;
        Ok(self.next())
    }

    /// Makes a tensor an output of this name.
    ///
    /// # Errors
    /// [`GpuError`].
    pub fn mark_output(&mut self, tensor: u32, name: &str) -> Result<(), GpuError> {
        let mark = function!(self.table, network_mark_output)?;
        let name = text(name)?;
        let mut error = ErrorBuffer::new();
        // SAFETY: the network is open, and the name is valid for the call.
        let status = unsafe { mark(self.raw, tensor, name.as_ptr(), error.get()) };
        check(&error, status)
    }

    /// Compiles the network. The environment variable `IS_BUILDING` is set meanwhile, which TensorRT-LLM's plugins look at: see
    /// [`GpuLibrary::begin_build`].
    ///
    /// # Errors
    /// [`GpuError::Cancelled`] when `progress` said to stop; else [`GpuError`] with what TensorRT said last.
    pub fn build(&mut self, build: GpuBuild<'_>) -> Result<(), GpuError> {
        let compile = function!(self.table, network_build)?;
        let (timing_cache, timing_cache_len) = (build.timing_cache.as_ptr().cast(), build.timing_cache.len());
        // TensorRT calls from threads of its own.
        let shared = Mutex::new(build);
        let raw = trtllm_gpu_build {
            timing_cache,
            timing_cache_len,
            write_timing_cache: Some(write_timing_cache),
            write_plan: Some(write_plan),
            progress: Some(progress),
            user_data: (&raw const shared).cast_mut().cast(),
        };
        let mut error = ErrorBuffer::new();
        // SAFETY: the network is open; the callbacks get `shared`, which outlives the call and is locked by each.
        let status = unsafe { compile(self.raw, &raw, error.get()) };
        check(&error, status)
    }
}

impl Drop for GpuNetwork<'_> {
    fn drop(&mut self) {
        if let Some(free) = self.table.get().free_network {
            // SAFETY: the network is this value's own, and nothing uses it from now on.
            unsafe { free(self.raw) };
        }
    }
}

fn empty(op: u32, shape: &[i64], inputs: &[u32]) -> trtllm_gpu_network_node {
    trtllm_gpu_network_node {
        op: op as i32,
        name: std::ptr::null(),
        inputs: inputs.as_ptr(),
        num_inputs: inputs.len(),
        kind: 0,
        axis: 0,
        transpose: false,
        dtype: 0,
        shape: shape.as_ptr(),
        rank: shape.len(),
        data: std::ptr::null(),
        count: 0,
        weight: std::ptr::null(),
        reshape: std::ptr::null(),
        permutation: std::ptr::null(),
        reshape_rank: 0,
        plugin: std::ptr::null(),
        plugin_version: std::ptr::null(),
        plugin_namespace: std::ptr::null(),
        fields: std::ptr::null(),
        num_fields: 0,
    }
}

fn raw_field(field: &PluginField<'_>, name: &CStr) -> trtllm_gpu_plugin_field {
    // nvinfer1::PluginFieldType.
    let (kind, data, len): (i32, *const c_void, usize) = match field.values {
        PluginValues::Float32(values) => (1, values.as_ptr().cast(), values.len()),
        PluginValues::Int8(values) => (3, values.as_ptr().cast(), values.len()),
        PluginValues::Int32(values) => (5, values.as_ptr().cast(), values.len()),
    };
    trtllm_gpu_plugin_field { name: name.as_ptr(), type_: kind, data, len: i32::try_from(len).unwrap_or(i32::MAX) }
}

/// Calls `act` with the build behind `user_data`; a panic may not leave through C++ and is a `false`.
fn with_build(user_data: *mut c_void, act: impl FnOnce(&mut GpuBuild<'_>) -> bool) -> bool {
    // SAFETY: `GpuNetwork::build` gave a pointer to this type, which outlives the call that TensorRT calls back from.
    let shared = unsafe { &*user_data.cast::<Mutex<GpuBuild<'_>>>() };
    let mut build = shared.lock().unwrap_or_else(PoisonError::into_inner);
    catch_unwind(AssertUnwindSafe(|| act(&mut build))).unwrap_or(false)
}

/// The bytes that C gave.
fn bytes<'a>(data: *const c_void, len: usize) -> &'a [u8] {
    if data.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: `trtllm_gpu_build_write` is given `len` bytes that are valid during the call, for which the slice is used.
    unsafe { std::slice::from_raw_parts(data.cast(), len) }
}

extern "C" fn write_plan(user_data: *mut c_void, data: *const c_void, len: usize) -> bool {
    with_build(user_data, |build| (build.write_plan)(bytes(data, len)))
}

extern "C" fn write_timing_cache(user_data: *mut c_void, data: *const c_void, len: usize) -> bool {
    with_build(user_data, |build| (build.write_timing_cache)(bytes(data, len)))
}

extern "C" fn progress(
    user_data: *mut c_void,
    phase: *const c_char,
    parent: *const c_char,
    step: i32,
    steps: i32,
) -> bool {
    let phase = super::library::to_text(phase).unwrap_or_default();
    let parent = super::library::to_text(parent);
    with_build(user_data, |build| {
        (build.progress)(BuildPhase { phase: &phase, parent: parent.as_deref(), step, steps })
    })
}
