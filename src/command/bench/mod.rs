//! `flip bench`: how long a training step takes, apart from loading data.

mod gemm;
mod times;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use dfdx::prelude::*;
use rand::{Rng, RngCore};
use serde::Serialize;

use crate::command::number::whole;
use crate::device::DeviceConfig;
use crate::interpreter;
#[cfg(feature = "cuda")]
use crate::kernel::cuda::driver::CudaGpu;
use crate::kernel::cuda::phase::Phase;
use crate::kernel::cuda::rates::Rate;
use crate::kernel::element::Bf16;
use crate::mask::{Captions, ImageMask, Ratio, TextMask};
#[cfg(feature = "cuda")]
use crate::model::{gpu_rates, ModelError};
use crate::model::{Flip, GraphDevice, ImageInput, ModelConfig, PatchValues, TextInput};
use crate::optimizer::{AdamW, AdamWConfig};
use crate::parameter::Tower;
use crate::recipe::memory::{Memory, Update};
use crate::recipe::{Compute, Fusion, Precision, Recipe};
use crate::seed::{rng, Purpose};
use crate::terminal::say;
use crate::train::{Stage, TrainingConfig};

use super::{read_recipe, Failure, Outcome, RecipeArgs};
use gemm::{dfdx_gemm_rate, kernel_gemm_rate};
use times::{median, Times};

const MIB: f64 = 1_048_576.0;

/// Steps before the clock starts.
const WARM_UP: usize = 2;

#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Share of the patches dropped at random [default: the first training stage's mask].
    #[arg(long)]
    mask: Option<f64>,
    /// Pairs of a step, 2 to 1,048,576 [default: the first training stage's].
    #[arg(long, value_parser = whole(2..=1 << 20))]
    batch: Option<usize>,
    /// Numbers inside the encoders [default: the recipe's].
    #[arg(long, ignore_case = true)]
    precision: Option<PrecisionArg>,
    /// Implementation of the encoders [default: the recipe's].
    #[arg(long, ignore_case = true)]
    compute: Option<ComputeArg>,
    /// Device: auto, cpu, cuda (the first GPU) or cuda:1 [default: the recipe's].
    #[arg(long, value_parser = device)]
    device: Option<DeviceConfig>,
    /// Steps that are timed, 1 to 1,000,000; medians are reported.
    #[arg(long, default_value_t = 5, value_parser = whole(1..=1_000_000))]
    steps: usize,
    /// Print one JSON object, last and on one line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PrecisionArg {
    #[value(name = "F32")]
    F32,
    #[value(name = "Bf16")]
    Bf16,
}

fn device(text: &str) -> Result<DeviceConfig, String> {
    match text.to_ascii_lowercase().as_str() {
        "auto" => Ok(DeviceConfig::Auto),
        "cpu" => Ok(DeviceConfig::Cpu),
        "cuda" => Ok(DeviceConfig::Cuda(0)),
        other => match other.strip_prefix("cuda:").map(str::parse) {
            Some(Ok(ordinal)) => Ok(DeviceConfig::Cuda(ordinal)),
            _ => Err("expected auto, cpu, cuda or cuda:ORDINAL".into()),
        },
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ComputeArg {
    #[value(name = "Fused")]
    Fused,
    #[value(name = "Reference")]
    Reference,
}

/// Medians over the timed steps.
#[derive(Debug, Serialize)]
struct Measured {
    images_per_s: f64,
    ms_step: f64,
    ms_min: f64,
    ms_max: f64,
    /// Of the parts: by the host's clock, which waits between them; of the fused encoders on a GPU by events in its stream,
    /// and waited for only where training does.
    ms_forward: f64,
    ms_backward: f64,
    ms_optimizer: f64,
    /// The same in more parts, where events take the time.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    phases_ms: BTreeMap<&'static str, f64>,
    gflop_per_s: f64,
    /// Rate of a bare matrix product by the same kernels, right after the steps: 1600x768x3072; of the fused encoders on a
    /// GPU 8192x8192x8192.
    gemm_gflop_per_s: f64,
    share_of_gemm: f64,
    /// Largest resident memory of the process so far; on a GPU, the most that was taken of its memory at a time, without
    /// the driver's own.
    peak_mib: f64,
    /// Of a GPU: what is in use after the steps, by the driver and other processes as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    used_mib: Option<f64>,
    /// Activations that fused encoders hold; `flip validate` tells them beforehand.
    activations_mib: f64,
    /// `CPU`, or the GPU's name.
    device: String,
    batch: usize,
    kept_patches: usize,
    steps: usize,
    /// Each kernel of the image encoder by itself, of the fused encoders on a GPU.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kernels: Vec<Rate>,
}

/// Measurements after the steps.
struct Ceiling {
    gemm_gflop_per_s: f64,
    kernels: Vec<Rate>,
}

impl From<f64> for Ceiling {
    fn from(gemm_gflop_per_s: f64) -> Self {
        Ceiling { gemm_gflop_per_s, kernels: Vec::new() }
    }
}

pub fn bench(args: &BenchArgs) -> Result<Outcome, Failure> {
    let recipe = read_recipe(&args.recipe)?;
    let setting = Setting::of(args, &recipe)?;
    let asked = Recipe {
        device: args.device.unwrap_or(recipe.device),
        compute: setting.compute,
        precision: setting.fusion.precision,
        ..recipe.clone()
    };
    let place = interpreter::place(&asked).map_err(|error| Failure::Usage(error.to_string()))?;
    setting.fits_into_memory(&recipe.model, place.gpu)?;
    let measured = setting.measure(&recipe.model, recipe.seed, place.gpu)?;
    if args.json {
        say!("{}", serde_json::to_string(&measured)?);
    } else {
        say!("{}", table(&measured));
    }
    Ok(Outcome::Done)
}

/// Setting that is timed.
struct Setting {
    compute: Compute,
    fusion: Fusion,
    image_mask: ImageMask,
    text_mask: TextMask,
    /// Towers that do not learn.
    frozen: Vec<Tower>,
    batch: usize,
    steps: usize,
}

impl Setting {
    fn of(args: &BenchArgs, recipe: &Recipe) -> Result<Setting, Failure> {
        let precision = match args.precision {
            None => recipe.precision,
            Some(PrecisionArg::F32) => Precision::F32,
            Some(PrecisionArg::Bf16) => Precision::Bf16,
        };
        let compute = match args.compute {
            None => recipe.compute,
            Some(ComputeArg::Fused) => Compute::Fused,
            Some(ComputeArg::Reference) => Compute::Reference,
        };
        if compute == Compute::Reference && precision == Precision::Bf16 {
            return Err(Failure::Usage("--precision Bf16 needs --compute Fused".into()));
        }
        let first = recipe.stages.iter().find_map(Stage::training);
        let TrainingConfig { batch, image_mask, text_mask, freeze, .. } =
            first.ok_or_else(|| Failure::Usage("the recipe has no training stage to time".into()))?;
        let image_mask = match args.mask {
            None => image_mask,
            Some(0.0) => ImageMask::Keep,
            Some(ratio) => ImageMask::Random(
                Ratio::try_from(ratio).map_err(|error| Failure::Usage(format!("--mask: {error}")))?,
            ),
        };
        let batch = args.batch.unwrap_or(batch.get());
        if batch < 2 {
            return Err(Failure::Usage("--batch must be at least 2".into()));
        }
        let fusion = Fusion { precision, ..recipe.fusion() };
        let frozen = freeze.into_iter().map(|part| part.tower()).collect();
        Ok(Setting { compute, fusion, image_mask, text_mask, frozen, batch, steps: args.steps })
    }

    /// Refuses a step that the CPU's memory cannot hold.
    fn fits_into_memory(&self, model: &ModelConfig, gpu: Option<usize>) -> Result<(), Failure> {
        let kept_patches = self.image_mask.kept(model.image.grid());
        let kept_tokens = self.text_mask.kept(model.text.context);
        let update = Update {
            kept_patches,
            kept_tokens,
            batch: self.batch,
            micro_batch: self.batch,
            ema: false,
            frozen: self.frozen.clone(),
        };
        let needed = Memory::of(model, self.compute, self.fusion, &update).total;
        match crate::device::beyond_host("a step", needed).filter(|_| gpu.is_none()) {
            Some(message) => Err(Failure::Usage(format!("{message}; a smaller --batch needs less"))),
            None => Ok(()),
        }
    }

    /// On the CPU, or on the GPU of an ordinal.
    fn measure(&self, model: &ModelConfig, seed: u64, gpu: Option<usize>) -> Result<Measured, Failure> {
        let Some(ordinal) = gpu else {
            let device = Cpu::default();
            let products = || match (self.compute, self.fusion.precision) {
                (Compute::Reference, _) => Ok(dfdx_gemm_rate(&device).into()),
                (Compute::Fused, Precision::F32) => kernel_gemm_rate::<f32>(self.fusion).map(Ceiling::from),
                (Compute::Fused, Precision::Bf16) => kernel_gemm_rate::<Bf16>(self.fusion).map(Ceiling::from),
            };
            return self.measure_on(&device, "CPU".into(), model, seed, products);
        };
        let gpu = crate::device::gpu(ordinal)?;
        #[cfg(feature = "cuda")]
        {
            let device = dfdx::tensor::Cuda::try_build(ordinal, seed);
            let device = device.map_err(|error| ModelError::Device(error.to_string()))?;
            let products = || match self.compute {
                Compute::Reference => Ok(dfdx_gemm_rate(&device).into()),
                Compute::Fused => self.gpu_ceiling(ordinal, model),
            };
            self.measure_on(&device, gpu.name, model, seed, products)
        }
        #[cfg(not(feature = "cuda"))]
        unreachable!("{gpu} without the feature `cuda`")
    }

    fn measure_on<D: GraphDevice + Synchronize>(
        &self,
        device: &D,
        name: String,
        model: &ModelConfig,
        seed: u64,
        ceiling: impl FnOnce() -> Result<Ceiling, Failure>,
    ) -> Result<Measured, Failure> {
        let flip = Flip::<f32, D>::new(device, model, seed)?;
        let mut flip = match self.compute {
            Compute::Reference => flip,
            Compute::Fused => D::fuse(flip, self.fusion)?,
        };
        flip.freeze(&self.frozen);
        let times = self.time_steps(device, &mut flip, model, seed)?;
        let grid = model.image.size / model.image.patch;
        let kept_patches = self.image_mask.kept(grid);
        let kept_tokens = self.text_mask.kept(model.text.context);
        let flops = model.flops_per_pair_without(&self.frozen, kept_patches, kept_tokens, self.batch);
        let ms_step = median(&times.steps);
        let images_per_s = self.batch as f64 * 1e3 / ms_step;
        let gflop_per_s = images_per_s * flops / 1e9;
        let peak = crate::device::peak_bytes().or_else(crate::device::used_bytes);
        let peak_mib = peak.map_or_else(peak_resident_mib, |bytes| bytes as f64 / MIB);
        let used_mib = crate::device::used_bytes().map(|bytes| bytes as f64 / MIB);
        let activations_mib = flip.arena_bytes() as f64 / MIB;
        // Room for what comes now.
        drop(flip);
        let Ceiling { gemm_gflop_per_s, kernels } = ceiling()?;
        Ok(Measured {
            images_per_s,
            ms_step,
            ms_min: times.steps.iter().copied().fold(f64::INFINITY, f64::min),
            ms_max: times.steps.iter().copied().fold(0.0, f64::max),
            ms_forward: median(&times.forward),
            ms_backward: median(&times.backward),
            ms_optimizer: median(&times.update),
            phases_ms: times.phases(),
            gflop_per_s,
            gemm_gflop_per_s,
            share_of_gemm: gflop_per_s / gemm_gflop_per_s,
            peak_mib,
            used_mib,
            activations_mib,
            device: name,
            batch: self.batch,
            kept_patches,
            steps: self.steps,
            kernels,
        })
    }

    /// Times of training steps on random input, those of the warm-up left out.
    fn time_steps<D: GraphDevice + Synchronize>(
        &self,
        device: &D,
        flip: &mut Flip<f32, D>,
        model: &ModelConfig,
        seed: u64,
    ) -> Result<Times, Failure> {
        let mut optimizer = AdamW::new(&AdamWConfig::default());
        let mut times = Times::default();
        let inputs = |step: usize| {
            let (image, text) = self.random_inputs(model, seed, step as u64);
            (Arc::new(vec![vec![image]]), [text])
        };
        let mut ahead = None;
        // Where the clock is in the stream, nothing else needs to wait.
        let events = flip.prefetches();
        for step in 0..WARM_UP + self.steps {
            let (images, texts) = ahead.take().unwrap_or_else(|| inputs(step));
            if events {
                // As in training: the images of the next step travel in this one.
                let next = inputs(step + 1);
                flip.prefetch(&images, Some(&next.0));
                ahead = Some(next);
            }
            device.synchronize();
            flip.lap()?;
            let started = Instant::now();
            let result = flip.loss_and_gradients(&images[0], &texts)?;
            if !events {
                device.synchronize();
            }
            let updating = Instant::now();
            optimizer.update(flip, result.gradients, 1e-6, 1.0)?;
            device.synchronize();
            let ended = Instant::now();
            let taken = flip.lap()?;
            if step < WARM_UP {
                continue;
            }
            if taken.is_empty() {
                // The loss is read after the forward pass, so what is launched before it has ended then.
                let forward = Duration::from_secs_f64(result.seconds.forward);
                times.by_clock(forward, (updating - started).saturating_sub(forward), ended - updating);
            } else {
                times.by_events(ended - started, &taken);
            }
        }
        Ok(times)
    }

    /// Of the fused encoders on a GPU, when the model has given up its memory.
    #[cfg(feature = "cuda")]
    fn gpu_ceiling(&self, ordinal: usize, model: &ModelConfig) -> Result<Ceiling, Failure> {
        /// Launches before the clock starts, and timed ones.
        const LAUNCHES: (usize, usize) = (3, 20);
        /// Parameters that make an update long enough to be timed, and leave room beside whatever is there.
        const PARAMETERS: usize = 100_000_000;
        let device = cudarc::driver::CudaDevice::new(ordinal)
            .map_err(|error| ModelError::Device(format!("{:?}", error.0)))?;
        let gpu = CudaGpu::new(device).map_err(ModelError::from)?;
        let gemm_gflop_per_s = gemm::gpu_gemm_rate(&gpu)?;
        let kept = self.image_mask.kept(model.image.size / model.image.patch);
        let kernels = gpu_rates(&gpu, model, (self.batch, kept), PARAMETERS, |launch| {
            (0..LAUNCHES.0).try_for_each(|_| launch())?;
            let seconds = gpu.seconds(|| (0..LAUNCHES.1).try_for_each(|_| launch()))?;
            Ok(seconds / LAUNCHES.1 as f64)
        });
        Ok(Ceiling { gemm_gflop_per_s, kernels: kernels.map_err(ModelError::from)? })
    }

    fn random_inputs(&self, model: &ModelConfig, seed: u64, step: u64) -> (ImageInput, TextInput) {
        let mut rng = rng(seed, Purpose::Bench, step, 0);
        let grid = model.image.size / model.image.patch;
        let kept = self.image_mask.draw(grid, self.batch, seed, step, 0);
        let mut bytes = vec![0; kept.ids.len() * model.image.patch * model.image.patch * 3];
        rng.fill_bytes(&mut bytes);
        let context = model.text.context;
        let tokens: Vec<u32> =
            (0..self.batch * context).map(|_| rng.gen_range(0..model.text.vocab_size as u32)).collect();
        let lengths = vec![context as u32; self.batch];
        let captions = Captions { tokens: &tokens, lengths: &lengths, context, keep_end: false };
        let kept_tokens = self.text_mask.draw(&captions, None, seed, step, 0);
        let tokens = kept_tokens
            .ids
            .chunks_exact(kept_tokens.kept)
            .zip(tokens.chunks_exact(context))
            .flat_map(|(ids, row)| ids.iter().map(|&id| row[id as usize]))
            .collect();
        (
            ImageInput { patches: PatchValues::Bytes(bytes), kept, grid },
            TextInput { tokens, kept: kept_tokens },
        )
    }
}

/// The process's largest resident memory, MiB; 0 where the system does not say.
fn peak_resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<f64>().ok()).map_or(0.0, |kib| kib / 1024.0)
}

fn table(measured: &Measured) -> String {
    let mut lines = vec![
        measured.device.clone(),
        format!(
            "{:.1} images/s   {:.1} ms/step ({:.1}-{:.1})",
            measured.images_per_s, measured.ms_step, measured.ms_min, measured.ms_max
        ),
        format!(
            "forward {:.1} ms   backward {:.1} ms   optimizer {:.1} ms",
            measured.ms_forward, measured.ms_backward, measured.ms_optimizer
        ),
    ];
    if !measured.phases_ms.is_empty() {
        let named = Phase::ALL.map(Phase::name).into_iter();
        let parts = named.filter_map(|name| Some(format!("{name} {:.2} ms", measured.phases_ms.get(name)?)));
        lines.push(format!("of these: {}", parts.collect::<Vec<_>>().join("   ")));
    }
    lines.push(format!(
        "{:.1} GFLOP/s, {:.0} % of a bare matrix product ({:.1})",
        measured.gflop_per_s,
        100.0 * measured.share_of_gemm,
        measured.gemm_gflop_per_s
    ));
    let used = measured.used_mib.map_or(String::new(), |mib| format!(", in use on the GPU {mib:.0} MiB"));
    lines.push(format!(
        "peak memory {:.0} MiB, activations {:.0} MiB{used}",
        measured.peak_mib, measured.activations_mib
    ));
    lines.extend(measured.kernels.iter().map(|Rate { kernel, ms, gb_per_s, tflop_per_s }| {
        let rate = tflop_per_s.map_or(String::new(), |rate| format!(" {rate:8.1} TFLOP/s"));
        format!("{kernel:28} {ms:9.3} ms {gb_per_s:8.0} GB/s{rate}")
    }));
    lines.join("\n")
}
