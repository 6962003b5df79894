//! Devices and links as data sheets have them, and how much of them training reaches.

use serde::Serialize;

use super::error::ClusterError;

/// A device as its data sheet has it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Device {
    /// Name as given to `--device`.
    pub name: &'static str,
    /// Dense, with sums in 32 bits; FLOP a second.
    pub bf16: f64,
    /// FLOP a second in single precision.
    pub f32: f64,
    /// Bytes.
    pub memory: f64,
    /// Bytes a second to the other devices of its host, one way.
    pub nvlink: f64,
    /// Share of the peak that training is assumed to reach where nothing was measured.
    pub utilisation: f64,
    /// Origin of that share, in words.
    pub utilisation_from: &'static str,
}

const GIB: f64 = (1u64 << 30) as f64;

/// A share that others published, not ours.
const ON_A100: &str = "assumed, as large batches of CLIP reach it on an A100";
const ON_H100: &str = "assumed, a little above the 21 % that NeMo publishes for CLIP on H100";
const ON_NEWER: &str = "assumed, as on H100; nothing is published";

/// Peaks of NVIDIA's data sheets, for SXM modules; without sparsity, and F32 without TF32.
pub const DEVICES: [Device; 4] = [
    Device {
        name: "a100",
        bf16: 312e12,
        f32: 19.5e12,
        memory: 80.0 * GIB,
        nvlink: 300e9,
        utilisation: 0.35,
        utilisation_from: ON_A100,
    },
    Device {
        name: "h100",
        bf16: 989e12,
        f32: 67e12,
        memory: 80.0 * GIB,
        nvlink: 450e9,
        utilisation: 0.23,
        utilisation_from: ON_H100,
    },
    Device {
        name: "h200",
        bf16: 989e12,
        f32: 67e12,
        memory: 141.0 * GIB,
        nvlink: 450e9,
        utilisation: 0.23,
        utilisation_from: ON_NEWER,
    },
    Device {
        name: "b200",
        bf16: 2250e12,
        f32: 75e12,
        memory: 180.0 * GIB,
        nvlink: 900e9,
        utilisation: 0.23,
        utilisation_from: ON_NEWER,
    },
];

/// A device by its name.
///
/// # Errors
/// None of the known ones is called so.
pub fn device(name: &str) -> Result<Device, ClusterError> {
    let found = DEVICES.into_iter().find(|device| device.name == name.to_ascii_lowercase());
    found.ok_or_else(|| {
        let known = DEVICES.map(|device| device.name).join(", ");
        ClusterError::Device { found: name.into(), known }
    })
}

/// Bytes a second of `400Gb`, `50GB`, `1.6Tb`, with or without `/s`.
///
/// # Errors
/// It reads otherwise.
pub fn link(text: &str) -> Result<f64, ClusterError> {
    let wrong = || ClusterError::Link(text.into());
    let bare = text.strip_suffix("/s").unwrap_or(text);
    let at = bare.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (number, unit) = bare.split_at(at);
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    let (prefix, unit) = unit.split_at(unit.len() - 1);
    let prefix = match prefix {
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        _ => return Err(wrong()),
    };
    let bits = match unit {
        "b" => 1.0 / 8.0,
        "B" => 1.0,
        _ => return Err(wrong()),
    };
    let speed = number * prefix * bits;
    if speed > 0.0 && speed.is_finite() {
        Ok(speed)
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_in_bits_and_bytes() {
        assert_eq!(link("400Gb"), Ok(50e9));
        assert_eq!(link("50GB/s"), Ok(50e9));
        assert_eq!(link("1.6Tb"), Ok(200e9));
        for wrong in ["400", "fast", "400Kb", "-1Gb", "Gb", ""] {
            assert!(link(wrong).is_err(), "{wrong}");
        }
    }
}
