//! Where each weight lies in the mapped file.

use cpu_kernels::{PackError, PackedMatrix, Quantization, bf16};
use engine_format::weights_file::{Layout, Located, WeightsFile};
use engine_format::{EngineDir, FormatError, ModelConfig, Part, Result, Weight, WeightType};

/// The model's weights, mapped and checked.
#[derive(Debug)]
pub(super) struct ModelWeights {
    file: WeightsFile,
    embedding: Option<Located>,
    pub(super) layers: Vec<LayerWeights>,
    pub(super) final_norm: Located,
    pub(super) lm_head: Matrix,
}

/// The weights of one layer.
#[derive(Debug)]
pub(super) struct LayerWeights {
    pub(super) input_norm: Located,
    pub(super) qkv: Stack,
    pub(super) qkv_bias: Option<Located>,
    pub(super) dense: Matrix,
    pub(super) dense_bias: Option<Located>,
    pub(super) post_norm: Located,
    pub(super) mlp_fc: Matrix,
    pub(super) mlp_gate: Matrix,
    pub(super) mlp_proj: Matrix,
}

/// A matrix that the file may have in parts, stacked by rows.
#[derive(Debug)]
pub(super) struct Stack(Vec<Matrix>);

/// A packed matrix of the file, `[n, k]`.
#[derive(Debug)]
pub(super) struct Matrix {
    located: Located,
    weight_type: WeightType,
    n: usize,
    k: usize,
}

impl ModelWeights {
    /// Maps the engine's weights and finds every tensor that the configuration asks for.
    pub(super) fn open(engine: &EngineDir) -> Result<Self> {
        let config = engine.config();
        let file = engine.weights()?;
        let vector = |weight: Weight| file.locate(&weight.name(0), Layout::RowMajor, &weight.shape(config));
        let matrix = |weight: Weight| Matrix::find(&file, config, weight, Part::Whole);
        let layer = |index: usize| -> Result<LayerWeights> {
            let bias = |weight| config.attention_bias.then(|| vector(weight)).transpose();
            Ok(LayerWeights {
                input_norm: vector(Weight::InputNorm(index))?,
                qkv: Stack::find(&file, config, Weight::Qkv(index))?,
                qkv_bias: bias(Weight::QkvBias(index))?,
                dense: matrix(Weight::Dense(index))?,
                dense_bias: bias(Weight::DenseBias(index))?,
                post_norm: vector(Weight::PostNorm(index))?,
                mlp_fc: matrix(Weight::MlpFc(index))?,
                mlp_gate: matrix(Weight::MlpGate(index))?,
                mlp_proj: matrix(Weight::MlpProj(index))?,
            })
        };
        let embedding = (!config.tie_word_embeddings).then(|| vector(Weight::Embedding)).transpose()?;
        let layers = (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?;
        let (final_norm, lm_head) = (vector(Weight::FinalNorm)?, matrix(Weight::LmHead)?);
        Ok(Self { file, embedding, layers, final_norm, lm_head })
    }

    /// What the matrices are stored as.
    pub(super) fn weight_type(&self) -> WeightType {
        self.file.weight_type()
    }

    /// The elements of a vector.
    pub(super) fn vector(&self, located: &Located) -> &[bf16] {
        self.file.elements(located)
    }

    /// A matrix, as the kernels take it.
    pub(super) fn matrix(&self, matrix: &Matrix) -> PackedMatrix<'_> {
        match matrix.view(&self.file) {
            Ok(view) => view,
            Err(error) => unreachable!("the matrix was checked when the file was opened: {error}"),
        }
    }

    /// The matrices of a stack, as the kernels take them.
    pub(super) fn stack(&self, stack: &Stack) -> Vec<PackedMatrix<'_>> {
        stack.0.iter().map(|matrix| self.matrix(matrix)).collect()
    }

    /// The embedding of `token`, `[hidden]`; from the head when the two are tied.
    pub(super) fn embed(&self, token: usize, out: &mut [bf16]) {
        match &self.embedding {
            Some(embedding) => {
                let start = token * out.len();
                out.copy_from_slice(&self.vector(embedding)[start..start + out.len()]);
            }
            None => self.matrix(&self.lm_head).row(token, out),
        }
    }
}

impl Stack {
    fn find(file: &WeightsFile, config: &ModelConfig, weight: Weight) -> Result<Self> {
        let in_parts = weight.parts().iter().any(|&part| file.contains(&weight.part_name(part, 0)));
        let parts = if in_parts { weight.parts() } else { &[Part::Whole] };
        let matrices = parts.iter().map(|&part| Matrix::find(file, config, weight, part));
        matrices.collect::<Result<_>>().map(Self)
    }
}

impl Matrix {
    fn find(file: &WeightsFile, config: &ModelConfig, weight: Weight, part: Part) -> Result<Self> {
        let (name, shape) = (weight.part_name(part, 0), weight.part_shape(part, config));
        let (located, weight_type) = file.locate_matrix(&name, &shape)?;
        let matrix = Self { located, weight_type, n: shape[0], k: shape[1] };
        if let Err(error) = matrix.view(file) {
            let problem = format!("tensor `{name}` is not packed as it should be: {error}");
            return Err(FormatError::damaged(file.file().path(), problem));
        }
        Ok(matrix)
    }

    fn view<'a>(&self, file: &'a WeightsFile) -> Result<PackedMatrix<'a>, PackError> {
        let codes = |quantization| PackedMatrix::quantized(quantization, file.bytes_at(&self.located), self.n, self.k);
        match self.weight_type {
            WeightType::Bf16 => PackedMatrix::new(file.elements(&self.located), self.n, self.k),
            WeightType::Int8 => codes(Quantization::Int8),
            WeightType::Int4 => codes(Quantization::Int4),
        }
    }
}
