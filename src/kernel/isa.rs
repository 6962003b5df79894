//! The instruction set of the kernels, decided once at run time. One binary runs on all of them.

use super::lanes::portable::Portable;

/// An instruction set the kernels are compiled for, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// 512-bit lanes and a dot product of bf16 pairs.
    Avx512Bf16,
    /// 512-bit lanes.
    Avx512,
    /// 256-bit lanes with fused multiply-add.
    Avx2,
    /// Portable code, for any processor.
    Portable,
}

impl Isa {
    /// All of them, best first.
    pub const ALL: [Isa; 4] = [Isa::Avx512Bf16, Isa::Avx512, Isa::Avx2, Isa::Portable];

    /// Its name as `FLIP_ISA` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Portable => "portable",
        }
    }

    /// True if this processor has it.
    pub fn available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq");
            match self {
                Isa::Avx512Bf16 => avx512 && is_x86_feature_detected!("avx512bf16"),
                Isa::Avx512 => avx512,
                Isa::Avx2 => avx2,
                Isa::Portable => true,
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Isa::Portable
        }
    }

    /// The fastest that this processor has, or the one that the environment variable `FLIP_ISA` names.
    ///
    /// # Errors
    /// If `FLIP_ISA` names none, or one that this processor lacks.
    pub fn detect() -> Result<Isa, String> {
        let best = Isa::ALL
            .into_iter()
            .find(|isa| isa.available() && !(*isa == Isa::Avx512Bf16 && slow_dot()))
            .unwrap_or(Isa::Portable);
        let Ok(name) = std::env::var("FLIP_ISA") else { return Ok(best) };
        let names = Isa::ALL.map(Isa::name).join(", ");
        let isa = Isa::ALL
            .into_iter()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| format!("FLIP_ISA: expected one of {names}, got `{name}`"))?;
        if isa.available() {
            Ok(isa)
        } else {
            Err(format!("FLIP_ISA: this processor has no {name}; its best is {}", best.name()))
        }
    }
}

/// True if the dot product of bf16 pairs is no faster than the multiply-adds it stands for. Intel's takes
/// four times as long as one multiply-add (measured on Emerald Rapids: 93 GFLOP/s a core, 197 in f32), AMD's
/// as long as one. The vendor decides, not a stopwatch: the two round differently, and the same machine has to
/// give the same numbers every time.
fn slow_dot() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let vendor = std::arch::x86_64::__cpuid(0);
        [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Runs `f` compiled for an instruction set: everything inlined into it may use the instructions of `L`.
pub(crate) trait Compiled: Sized {
    fn call<R>(self, f: impl FnOnce(Self) -> R) -> R;
}

impl Compiled for Portable {
    #[inline(always)]
    fn call<R>(self, f: impl FnOnce(Self) -> R) -> R {
        f(self)
    }
}

/// Evaluates an expression once per instruction set, with `$lanes` bound to the [`Lanes`](super::lanes::Lanes)
/// of the one in use. What the expression calls must be `#[inline(always)]` to be compiled for it.
macro_rules! dispatch {
    ($isa:expr, $lanes:ident => $body:expr) => {{
        use $crate::kernel::isa::{Compiled, Isa};
        use $crate::kernel::lanes;
        match $isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => lanes::avx512::Avx512Bf16::assume().call(
                #[inline(always)]
                |$lanes| $body,
            ),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => lanes::avx512::Avx512::assume().call(
                #[inline(always)]
                |$lanes| $body,
            ),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => lanes::avx2::Avx2::assume().call(
                #[inline(always)]
                |$lanes| $body,
            ),
            _ => lanes::portable::Portable.call(
                #[inline(always)]
                |$lanes| $body,
            ),
        }
    }};
}
pub(crate) use dispatch;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_portable_set_is_always_there() {
        assert!(Isa::Portable.available());
        assert!(Isa::detect().is_ok());
    }
}
