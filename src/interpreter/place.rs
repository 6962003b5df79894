//! Device that a recipe is computed on.

use crate::device::{self, DeviceConfig};
use crate::model::{gpu_lacks, ModelError};
use crate::recipe::{Compute, Precision, Recipe};

use super::error::InterpreterError;

/// A device, and why a recipe is computed there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The ordinal of a GPU; `None` is the CPU.
    pub gpu: Option<usize>,
    /// In words.
    pub why: String,
}

/// Device of this machine that the recipe is computed on.
///
/// # Errors
/// This build or this machine cannot do what the recipe asks for; nothing was read or written.
pub fn place(recipe: &Recipe) -> Result<Place, InterpreterError> {
    if recipe.precision == Precision::Bf16 && recipe.compute == Compute::Reference {
        return Err(InterpreterError::Device(
            "precision: Bf16 needs compute: Fused; the composed graph computes in 32 bits (--set precision=F32)"
                .into(),
        ));
    }
    let cpu = |why: String| Ok(Place { gpu: None, why });
    match recipe.device {
        DeviceConfig::Cpu => cpu("the recipe says device: Cpu".into()),
        DeviceConfig::Cuda(ordinal) => {
            let gpu = device::gpu(ordinal).map_err(|why| {
                let advice = "use device: Auto or Cpu to compute on the CPU";
                InterpreterError::Device(format!("device: Cuda({ordinal}) is not available: {why}; {advice}"))
            })?;
            if let Some(problem) = refused(recipe, &gpu) {
                return Err(InterpreterError::Device(format!(
                    "device: Cuda({ordinal}): {problem}, or use device: Cpu"
                )));
            }
            Ok(Place { gpu: Some(ordinal), why: format!("the recipe asks for {gpu}") })
        }
        DeviceConfig::Auto => match device::gpus().as_deref() {
            Err(why) => cpu(why.to_string()),
            Ok([]) => cpu(device::NoGpu::None.to_string()),
            Ok([gpu, ..]) => match refused(recipe, gpu) {
                None => Ok(Place { gpu: Some(gpu.ordinal), why: format!("the driver offers {gpu}") }),
                Some(problem) => cpu(format!("{gpu} is there, but {problem}")),
            },
        },
    }
}

/// Reason for which a GPU cannot compute a recipe, and what would change that; `None` where it can.
fn refused(recipe: &Recipe, gpu: &device::Gpu) -> Option<String> {
    const COMPOSED: &str = "set compute=Reference and precision=F32 for the composed graph";
    if recipe.compute == Compute::Reference {
        return None;
    }
    if recipe.precision == Precision::F32 {
        return Some(format!("{}; set precision=Bf16, or compute=Reference", ModelError::FusedF32OnGpu));
    }
    if gpu.capability < OLDEST {
        let (major, minor) = OLDEST;
        return Some(format!("compute: Fused needs compute capability {major}.{minor} or later; {COMPOSED}"));
    }
    let lack = gpu_lacks(&recipe.model)?;
    Some(format!("{}; {COMPOSED}", ModelError::NoGpuKernels(lack)))
}

/// The oldest compute capability that has bfloat16 in its tensor cores.
const OLDEST: (i32, i32) = (8, 0);
