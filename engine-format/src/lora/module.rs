//! The projections that adapters change, by TensorRT-LLM's names.
//!
//! Source: TensorRT-LLM 1.2, `runtime/loraModule.h` (ids and names).

use std::str::FromStr;

/// A projection that an adapter can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum LoraModule {
    /// `self_attn.q_proj`.
    AttnQ = 1,
    /// `self_attn.k_proj`.
    AttnK = 2,
    /// `self_attn.v_proj`.
    AttnV = 3,
    /// `self_attn.o_proj`.
    AttnDense = 4,
    /// `mlp.gate_proj`, through SiLU.
    MlpHTo4h = 5,
    /// `mlp.down_proj`.
    Mlp4hToH = 6,
    /// `mlp.up_proj`, linear.
    MlpGate = 7,
}

impl LoraModule {
    /// Every one, by ascending id.
    pub const ALL: [Self; 7] =
        [Self::AttnQ, Self::AttnK, Self::AttnV, Self::AttnDense, Self::MlpHTo4h, Self::Mlp4hToH, Self::MlpGate];

    /// TensorRT-LLM's id, as in a request.
    pub const fn id(self) -> i32 {
        self as i32
    }

    /// TensorRT-LLM's name, as in `lora_target_modules` and in the names of an engine's inputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AttnQ => "attn_q",
            Self::AttnK => "attn_k",
            Self::AttnV => "attn_v",
            Self::AttnDense => "attn_dense",
            Self::MlpHTo4h => "mlp_h_to_4h",
            Self::Mlp4hToH => "mlp_4h_to_h",
            Self::MlpGate => "mlp_gate",
        }
    }
}

impl FromStr for LoraModule {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|module| module.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{name}` is no module that adapters change here: {names}")
        })
    }
}
