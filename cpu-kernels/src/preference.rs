//! Which instruction set is the best of a CPU that has several: a table by maker, family and model.
//!
//! CPUs with the same instructions start them at different rates. What a CPU has is not asked here: the first instruction set of an
//! order that it has is taken. `docs/performance.md` has the measurements.

#![forbid(unsafe_code)]

use std::ops::RangeInclusive;

use crate::isa::Isa;

/// A CPU as CPUID names it; zeros where nothing does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    vendor: [u8; 12],
    family: u32,
    model: u32,
}

impl Cpu {
    /// Of CPUID's leaf 0 (the vendor) and EAX of its leaf 1: the base fields, to which the extended ones are added where the
    /// base family is 15, and for the model also where it is 6.
    pub(crate) fn new(vendor: [u8; 12], signature: u32) -> Cpu {
        let field = |from: u32, bits: u32| signature >> from & ((1 << bits) - 1);
        let (family, model) = (field(8, 4), field(4, 4));
        Cpu {
            vendor,
            family: if family == 15 { family + field(20, 8) } else { family },
            model: if family == 6 || family == 15 { field(16, 4) << 4 | model } else { model },
        }
    }

    /// All instruction sets, best first for this CPU.
    pub(crate) fn best_first(self) -> [Isa; 5] {
        TABLE.iter().find(|row| row.is_of(self)).map_or(PAIRS_FIRST, |row| row.best_first)
    }
}

/// Products of pairs of bf16 before products in fp32: a VDPBF16PS does twice the multiplications of an FMA. Zen 4 starts both at the
/// same rate: measured. Taken for every CPU that the table does not have.
const PAIRS_FIRST: [Isa; 5] = [Isa::Amx, Isa::Avx512, Isa::Avx512f, Isa::Avx2, Isa::Portable];

/// Products in fp32 first, for CPUs that start FMA more than twice as often as VDPBF16PS.
const FP32_FIRST: [Isa; 5] = [Isa::Amx, Isa::Avx512f, Isa::Avx512, Isa::Avx2, Isa::Portable];

struct Row {
    vendor: &'static [u8; 12],
    families: RangeInclusive<u32>,
    models: RangeInclusive<u32>,
    best_first: [Isa; 5],
}

impl Row {
    fn is_of(&self, cpu: Cpu) -> bool {
        *self.vendor == cpu.vendor && self.families.contains(&cpu.family) && self.models.contains(&cpu.model)
    }
}

const ANY: RangeInclusive<u32> = 0..=u32::MAX;

/// The first row that a CPU is of counts.
const TABLE: [Row; 2] = [
    // Cooper Lake, and Skylake-SP and Cascade Lake, which have no BF16. Not measured here: Intel gives up to 1.64 times the speed of fp32
    // (intel.com, "Intel and Facebook Accelerate PyTorch Performance with 3rd Gen Intel Xeon Processors").
    Row { vendor: b"GenuineIntel", families: 6..=6, models: 0x55..=0x55, best_first: PAIRS_FIRST },
    // A Xeon of Sapphire Rapids' kind whose AMX is hidden starts four FMA for one VDPBF16PS: measured. Other CPUs of Intel with
    // AVX-512 BF16 are taken for it.
    Row { vendor: b"GenuineIntel", families: ANY, models: ANY, best_first: FP32_FIRST },
];

#[cfg(test)]
mod tests {
    use super::*;
    use Isa::{Amx, Avx2, Avx512, Avx512f, Portable};

    const BF16: &[Isa] = &[Avx512, Avx512f, Avx2, Portable];
    const FP32: &[Isa] = &[Avx512f, Avx2, Portable];
    const NARROW: &[Isa] = &[Avx2, Portable];

    /// What it is, its vendor, CPUID's signature, family and model, the instruction sets that it has, and the one to be taken.
    type Example = (&'static str, &'static [u8; 12], u32, (u32, u32), &'static [Isa], Isa);

    const EXAMPLES: [Example; 17] = [
        ("Haswell", b"GenuineIntel", 0x000306c3, (6, 0x3c), NARROW, Avx2),
        ("Skylake-SP", b"GenuineIntel", 0x00050654, (6, 0x55), FP32, Avx512f),
        ("Cooper Lake", b"GenuineIntel", 0x0005065b, (6, 0x55), BF16, Avx512),
        ("Ice Lake-SP", b"GenuineIntel", 0x000606a6, (6, 0x6a), FP32, Avx512f),
        ("Alder Lake", b"GenuineIntel", 0x00090672, (6, 0x97), NARROW, Avx2),
        ("Sapphire Rapids", b"GenuineIntel", 0x000806f8, (6, 0x8f), &Isa::ALL, Amx),
        ("Sapphire Rapids without AMX", b"GenuineIntel", 0x000806f8, (6, 0x8f), BF16, Avx512f),
        ("Granite Rapids", b"GenuineIntel", 0x000a06d1, (6, 0xad), &Isa::ALL, Amx),
        ("a later Intel", b"GenuineIntel", 0x00400f10, (19, 0x01), &Isa::ALL, Amx),
        ("Zen 2", b"AuthenticAMD", 0x00830f10, (0x17, 0x31), NARROW, Avx2),
        ("Zen 3", b"AuthenticAMD", 0x00a00f11, (0x19, 0x01), NARROW, Avx2),
        ("Zen 4", b"AuthenticAMD", 0x00a10f11, (0x19, 0x11), BF16, Avx512),
        ("Zen 5", b"AuthenticAMD", 0x00b00f21, (0x1a, 0x02), BF16, Avx512),
        ("a later AMD", b"AuthenticAMD", 0x00c00f10, (0x1b, 0x01), &Isa::ALL, Amx),
        ("Dhyana", b"HygonGenuine", 0x00900f02, (0x18, 0x00), NARROW, Avx2),
        ("another maker", b"CentaurHauls", 0x000107b0, (7, 0x0b), NARROW, Avx2),
        ("nothing known", &[0; 12], 0, (0, 0), &[Portable], Portable),
    ];

    #[test]
    fn each_cpu_gets_the_best_that_it_has() {
        for (name, vendor, signature, numbers, has, best) in EXAMPLES {
            let cpu = Cpu::new(*vendor, signature);
            assert_eq!((cpu.family, cpu.model), numbers, "{name}");
            assert_eq!(cpu.best_first().into_iter().find(|isa| has.contains(isa)), Some(best), "{name}");
        }
    }

    #[test]
    fn every_order_has_every_instruction_set_once() {
        for order in TABLE.iter().map(|row| row.best_first).chain([PAIRS_FIRST]) {
            for isa in Isa::ALL {
                assert_eq!(order.iter().filter(|&&other| other == isa).count(), 1, "{isa} in {order:?}");
            }
        }
    }
}
