//! `flip bench`: how long a training step takes, apart from loading data.

use clap::{Args, ValueEnum};
use dfdx::prelude::*;
use rand::{Rng, RngCore};
use serde::Serialize;

use crate::device::DeviceConfig;
use crate::interpreter;
#[cfg(feature = "cuda")]
use crate::kernel::cuda::{driver::Gpu, Machine};
use crate::kernel::element::{Bf16, Element};
use crate::kernel::gemm::epilogue::{Grid, Write};
#[cfg(feature = "cuda")]
use crate::kernel::gemm::{self, cuda::Weight};
use crate::kernel::gemm::{product, Left, Packed, Right};
use crate::mask::{Captions, ImageMask, Ratio, TextMask};
#[cfg(feature = "cuda")]
use crate::model::ModelError;
use crate::model::{Flip, GraphDevice, ImageInput, ModelConfig, PatchValues, TextInput};
use crate::optimizer::{AdamW, AdamWConfig};
use crate::recipe::{Compute, Fusion, Precision, Recipe};
use crate::seed::{rng, Purpose};
use crate::stage::Stage;

use super::{read_recipe, Failure, Outcome, RecipeArgs};

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
    /// Pairs of a step [default: the first training stage's].
    #[arg(long)]
    batch: Option<usize>,
    /// Numbers inside the encoders [default: the recipe's].
    #[arg(long, ignore_case = true)]
    precision: Option<PrecisionArg>,
    /// Which implementation of the encoders [default: the recipe's].
    #[arg(long, ignore_case = true)]
    compute: Option<ComputeArg>,
    /// Where to compute: auto, cpu, cuda (the first GPU) or cuda:1 [default: the recipe's].
    #[arg(long, value_parser = device)]
    device: Option<DeviceConfig>,
    /// Steps that are timed; medians are reported.
    #[arg(long, default_value_t = 5)]
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

/// What was measured: medians over the timed steps.
#[derive(Debug, Serialize)]
struct Measured {
    images_per_s: f64,
    ms_step: f64,
    ms_min: f64,
    ms_max: f64,
    ms_forward: f64,
    ms_backward: f64,
    ms_optimizer: f64,
    gflop_per_s: f64,
    /// Rate of a bare matrix product by the same kernels, right after the steps: 1600x768x3072; of the fused encoders on a
    /// GPU 8192x8192x8192.
    gemm_gflop_per_s: f64,
    /// Largest resident memory of the process so far; on a GPU, its memory in use after the steps, which dfdx does
    /// not give back.
    peak_mib: f64,
    /// What fused encoders hold for activations, of which `flip validate` says how much it will be.
    activations_mib: f64,
    /// `CPU`, or the GPU's name.
    device: String,
    batch: usize,
    kept_patches: usize,
    steps: usize,
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
    let measured = setting.measure(&recipe.model, recipe.seed, place.gpu)?;
    if args.json {
        println!("{}", serde_json::to_string(&measured)?);
    } else {
        println!("{}", table(&measured));
    }
    Ok(Outcome::Done)
}

/// What is timed.
struct Setting {
    compute: Compute,
    fusion: Fusion,
    image_mask: ImageMask,
    text_mask: TextMask,
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
        let first = recipe.stages.iter().find_map(|stage| match stage {
            Stage::Pretrain(config) => {
                Some((config.batch, config.image_mask.clone(), config.text_mask.clone()))
            }
            Stage::Unmask(config) => Some((config.batch, ImageMask::Keep, TextMask::Keep)),
            Stage::Evaluate(_) => None,
        });
        let (batch, image_mask, text_mask) =
            first.ok_or_else(|| Failure::Usage("the recipe has no training stage to time".into()))?;
        let image_mask = match args.mask {
            None => image_mask,
            Some(0.0) => ImageMask::Keep,
            Some(ratio) => ImageMask::Random(
                Ratio::try_from(ratio).map_err(|error| Failure::Usage(format!("--mask: {error}")))?,
            ),
        };
        let batch = args.batch.unwrap_or(batch.get());
        if batch < 2 || args.steps == 0 {
            return Err(Failure::Usage("--batch must be at least 2 and --steps at least 1".into()));
        }
        let fusion = Fusion { precision, ..recipe.fusion() };
        Ok(Setting { compute, fusion, image_mask, text_mask, batch, steps: args.steps })
    }

    /// On the CPU, or on the GPU of an ordinal.
    fn measure(&self, model: &ModelConfig, seed: u64, gpu: Option<usize>) -> Result<Measured, Failure> {
        let Some(ordinal) = gpu else {
            let device = Cpu::default();
            let products = || match (self.compute, self.fusion.precision) {
                (Compute::Reference, _) => Ok(dfdx_gemm_rate(&device)),
                (Compute::Fused, Precision::F32) => kernel_gemm_rate::<f32>(self.fusion),
                (Compute::Fused, Precision::Bf16) => kernel_gemm_rate::<Bf16>(self.fusion),
            };
            return self.measure_on(&device, "CPU".into(), model, seed, products);
        };
        let gpu = crate::device::gpu(ordinal)?;
        #[cfg(feature = "cuda")]
        {
            let device = dfdx::tensor::Cuda::try_build(ordinal, seed);
            let device = device.map_err(|error| ModelError::Device(error.to_string()))?;
            let products = || match self.compute {
                Compute::Reference => Ok(dfdx_gemm_rate(&device)),
                Compute::Fused => gpu_gemm_rate(ordinal),
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
        products: impl Fn() -> Result<f64, Failure>,
    ) -> Result<Measured, Failure> {
        let flip = Flip::<f32, D>::new(device, model, seed)?;
        let mut flip = match self.compute {
            Compute::Reference => flip,
            Compute::Fused => D::fuse(flip, self.fusion)?,
        };
        let mut optimizer = AdamW::new(&AdamWConfig::default());
        let (mut steps, mut forward, mut backward, mut update) = (vec![], vec![], vec![], vec![]);
        for step in 0..WARM_UP + self.steps {
            let (image, text) = self.random_inputs(model, seed, step as u64);
            device.synchronize();
            let started = std::time::Instant::now();
            let result = flip.loss_and_gradients(&[image], &[text])?;
            device.synchronize();
            let updating = std::time::Instant::now();
            optimizer.update(&mut flip, result.gradients, 1e-6, 1.0)?;
            device.synchronize();
            if step >= WARM_UP {
                steps.push(started.elapsed().as_secs_f64() * 1e3);
                forward.push(result.seconds.forward * 1e3);
                // The loss is read between the two, so what is launched before it has ended then.
                backward.push((updating - started).as_secs_f64() * 1e3 - result.seconds.forward * 1e3);
                update.push(updating.elapsed().as_secs_f64() * 1e3);
            }
        }
        let grid = model.image.size / model.image.patch;
        let kept_patches = self.image_mask.kept(grid);
        let flops = model.flops_per_pair(kept_patches, self.text_mask.kept(model.text.context), self.batch);
        let ms_step = median(&steps);
        let images_per_s = self.batch as f64 * 1e3 / ms_step;
        Ok(Measured {
            images_per_s,
            ms_step,
            ms_min: steps.iter().copied().fold(f64::INFINITY, f64::min),
            ms_max: steps.iter().copied().fold(0.0, f64::max),
            ms_forward: median(&forward),
            ms_backward: median(&backward),
            ms_optimizer: median(&update),
            gflop_per_s: images_per_s * flops / 1e9,
            peak_mib: crate::device::used_bytes().map_or_else(peak_resident_mib, |bytes| bytes as f64 / MIB),
            activations_mib: flip.arena_bytes() as f64 / MIB,
            gemm_gflop_per_s: products()?,
            device: name,
            batch: self.batch,
            kept_patches,
            steps: self.steps,
        })
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

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    }
}

/// Sizes of the product that the rate of a step is held against.
const PRODUCT: (usize, usize, usize) = (1600, 768, 3072);

/// GFLOP/s of a bare product of [`PRODUCT`] by the kernels in the precision of the run, its right operand packed beforehand
/// as weights are.
fn kernel_gemm_rate<K: Element>(fusion: Fusion) -> Result<f64, Failure> {
    let (m, k, n) = PRODUCT;
    let kernels = fusion.kernels()?;
    let mut right = Packed::<K>::zeroed(&kernels, k, n);
    right.pack(&kernels, &vec![1.0; k * n]);
    let left = vec![K::from_f32(1.0); m * k];
    let mut out = vec![K::default(); m * n];
    Ok(rate(|| {
        let to = Write { to: Grid::new(&mut out, n), bias: None };
        product(&kernels, &to, Left::whole(&left, k), Right::Packed(&right), PRODUCT);
    }))
}

/// Of a GPU, whose products are over sooner than they are launched: sizes that take some milliseconds.
#[cfg(feature = "cuda")]
const GPU_PRODUCT: usize = 8192;

/// GFLOP/s of a bare product in bfloat16, by what the fused encoders multiply with on a GPU; the clock is the GPU's own.
#[cfg(feature = "cuda")]
fn gpu_gemm_rate(ordinal: usize) -> Result<f64, Failure> {
    let device = cudarc::driver::CudaDevice::new(ordinal)
        .map_err(|error| ModelError::Device(format!("{:?}", error.0)))?;
    let gpu = Gpu::new(device).map_err(ModelError::from)?;
    let n = GPU_PRODUCT;
    let ones = || gpu.upload(&vec![Bf16::from_f32(1.0); n * n]).map_err(ModelError::from);
    let (left, right, mut to) = (ones()?, ones()?, ones()?);
    let mut fastest = f64::INFINITY;
    for _ in 0..10 {
        let seconds = gpu.seconds(|| {
            let weight = Weight { values: gpu.view(&right), k: n, n };
            gemm::cuda::forward(&gpu, gpu.view_mut(&mut to), gpu.view(&left), weight)
        });
        fastest = fastest.min(seconds.map_err(ModelError::from)?);
    }
    Ok(2.0 * (n as f64).powi(3) / fastest / 1e9)
}

/// As [`kernel_gemm_rate`], of dfdx in 32 bits.
fn dfdx_gemm_rate<D: GraphDevice + Synchronize>(device: &D) -> f64 {
    let (m, k, n) = PRODUCT;
    let a: Tensor<(usize, usize), f32, D> = device.ones_like(&(m, k));
    let b: Tensor<(usize, usize), f32, D> = device.ones_like(&(k, n));
    rate(|| {
        drop(a.clone().matmul(b.clone()));
        device.synchronize();
    })
}

/// GFLOP/s of something that multiplies [`PRODUCT`], the best of ten.
fn rate(mut multiply: impl FnMut()) -> f64 {
    let times = (0..10).map(|_| {
        let started = std::time::Instant::now();
        multiply();
        started.elapsed().as_secs_f64()
    });
    let (m, k, n) = PRODUCT;
    2.0 * (m * k * n) as f64 / times.fold(f64::INFINITY, f64::min) / 1e9
}

/// The process's largest resident memory, MiB; 0 where the system does not say.
fn peak_resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<f64>().ok()).map_or(0.0, |kib| kib / 1024.0)
}

fn table(measured: &Measured) -> String {
    format!(
        "{}\n{:.1} images/s   {:.1} ms/step ({:.1}-{:.1})\nforward {:.1} ms   backward {:.1} ms   optimizer {:.1} ms\n\
         {:.1} GFLOP/s, {:.0} % of a bare matrix product ({:.1})\npeak memory {:.0} MiB, activations {:.0} MiB",
        measured.device,
        measured.images_per_s,
        measured.ms_step,
        measured.ms_min,
        measured.ms_max,
        measured.ms_forward,
        measured.ms_backward,
        measured.ms_optimizer,
        measured.gflop_per_s,
        100.0 * measured.gflop_per_s / measured.gemm_gflop_per_s,
        measured.gemm_gflop_per_s,
        measured.peak_mib,
        measured.activations_mib,
    )
}
