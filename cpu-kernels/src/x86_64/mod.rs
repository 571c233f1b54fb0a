//! The instruction sets of x86-64.

pub(crate) mod amx;
pub(crate) mod avx2;
pub(crate) mod avx512;
mod code_multiply_adds;

use std::arch::x86_64::__cpuid;

use crate::preference::Cpu;

/// This CPU, as CPUID names it.
pub(crate) fn cpu() -> Cpu {
    let (vendor, signature) = (__cpuid(0), __cpuid(1).eax);
    let mut name = [0; 12];
    name.copy_from_slice([vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened());
    Cpu::new(name, signature)
}
