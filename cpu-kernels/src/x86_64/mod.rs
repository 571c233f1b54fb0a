//! The instruction sets of x86-64.

pub(crate) mod amx;
pub(crate) mod avx2;
pub(crate) mod avx512;
mod code_multiply_adds;

/// Whether CPUID names Intel as the CPU's maker.
pub(crate) fn made_by_intel() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
}
