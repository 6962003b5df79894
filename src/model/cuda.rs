//! The model on an NVIDIA GPU: the composed graph, on dfdx's own Cuda kernels, or whole encoders on ours.
//!
//! dfdx keeps masters, gradients and moments, as on the CPU. It lends the storage of gradients and moments, which ours read
//! and write where they are, but not that of a tensor: values of a master come out, and an update goes in, through dfdx's
//! own rules. Both launch on one stream.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys::CUresult;
use cudarc::driver::{DevicePtr, DevicePtrMut, DeviceSlice, DriverError};
use dfdx::prelude::*;
use dfdx::tensor::{Cuda, CudaError};

use super::engine::{Back, Engine, Moments, Node};
use super::input::{ImageInput, TextInput};
use super::layer::Matrix;
use super::machine::{machine_lacks, MachineEncoders, MachineTower};
use super::{Flip, Fusion, GraphDevice, ModelError, Precision};
use crate::kernel::adamw::{self, AdamW};
use crate::kernel::contrastive::cuda::add_scaled;
use crate::kernel::cuda::driver::Gpu;
use crate::kernel::cuda::{Machine, MachineError, View, ViewMut};
use crate::kernel::encoder::Pass;
use crate::kernel::Cpu as Kernels;
use crate::parameter::{blend, blend_into, Parameter, Role, Walk};

impl GraphDevice for Cuda {
    fn fuse(mut flip: Flip<f32, Cuda>, how: Fusion) -> Result<Flip<f32, Cuda>, ModelError> {
        if how.precision == Precision::F32 {
            return Err(ModelError::FusedF32OnGpu);
        }
        if let Some(lack) = machine_lacks(&flip.config) {
            return Err(ModelError::NoGpuKernels(lack));
        }
        let kernels = how.kernels()?;
        let device = flip.logit_scale.master.device().clone();
        // Gradients and temporary tensors of a step use the memory of the step before.
        device.try_enable_cache().map_err(ModelError::device)?;
        let storage: Values = device.try_alloc_len(1).map_err(ModelError::device)?;
        let gpu = Gpu::new(storage.device()).map_err(ModelError::device)?;
        let encoders = MachineEncoders::new(&gpu, &flip.config, how.recompute).map_err(ModelError::device)?;
        let Fusion { precision, recompute, .. } = how;
        tracing::info!(target: "flip::model", ?precision, ?recompute, "fused encoders on the GPU");
        let stale = [AtomicBool::new(true), AtomicBool::new(true)];
        let shared = Arc::new(Shared { gpu, encoders: Mutex::new(encoders), stale });
        let (images, texts) = (flip.image.parameters(), flip.text.parameters());
        let most = images.iter().chain(&texts).map(|parameter| parameter.len()).max().unwrap_or_default();
        let places = [(MachineTower::Images, images), (MachineTower::Texts, texts)];
        let places = places.into_iter().flat_map(|(tower, parameters)| {
            let named = parameters.into_iter().map(|parameter| parameter.name.clone()).enumerate();
            named.map(move |(i, name)| (name, (tower, i)))
        });
        flip.engine = Some(Arc::new(FusedOnGpu {
            shared,
            kernels,
            embed_dim: flip.config.embed_dim,
            places: places.collect(),
            zeros: device.try_alloc_len(most).map_err(ModelError::device)?,
        }));
        Ok(flip)
    }
}

/// What dfdx holds the values of a tensor in.
type Values = <Cuda as Storage<f32>>::Vec;

/// Encoders and loss of a model on a GPU.
struct FusedOnGpu {
    shared: Arc<Shared>,
    kernels: Kernels,
    embed_dim: usize,
    /// The tower of each parameter, and its number there.
    places: HashMap<String, (MachineTower, usize)>,
    /// As many as the longest parameter has.
    zeros: Values,
}

/// What the way back needs too.
struct Shared {
    gpu: Gpu,
    encoders: Mutex<MachineEncoders<Gpu>>,
    /// Whether the copies of a tower may be behind its masters.
    stale: [AtomicBool; 2],
}

impl std::fmt::Debug for FusedOnGpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FusedOnGpu").field("gpu", &self.shared.gpu).finish()
    }
}

/// dfdx's errors have no room for a text of ours, so the log says it.
fn told(error: MachineError) -> CudaError {
    tracing::error!(target: "flip::model", "{error}");
    let out_of_memory = error.to_string().contains("OUT_OF_MEMORY");
    CudaError::Driver(DriverError(match out_of_memory {
        true => CUresult::CUDA_ERROR_OUT_OF_MEMORY,
        false => CUresult::CUDA_ERROR_UNKNOWN,
    }))
}

/// Reads a master into the velocity: v <- g + p.
const LOOK: SgdConfig =
    SgdConfig { lr: 0.0, momentum: Some(Momentum::Classic(0.0)), weight_decay: Some(WeightDecay::L2(1.0)) };

/// # Safety
/// The storage is neither dropped nor written for `'a` by anyone but kernels launched before.
unsafe fn view<'a>(storage: &Values) -> View<'a, f32> {
    View::new(*storage.device_ptr(), storage.len())
}

/// # Safety
/// The storage is neither dropped nor used for `'a` by anyone but kernels launched before.
unsafe fn view_mut<'a>(storage: &mut Values) -> ViewMut<'a, f32> {
    ViewMut::new(*storage.device_ptr_mut(), storage.len())
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, MachineEncoders<Gpu>> {
        self.encoders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stale(&self, tower: MachineTower) -> &AtomicBool {
        &self.stale[(tower == MachineTower::Texts) as usize]
    }

    /// Copies the masters of a tower that may have changed.
    fn load(
        &self,
        encoders: &mut MachineEncoders<Gpu>,
        tower: MachineTower,
        parameters: &[&Parameter<f32, Cuda>],
    ) -> Result<(), CudaError> {
        if !self.stale(tower).load(Ordering::Acquire) {
            return Ok(());
        }
        for (i, parameter) in parameters.iter().enumerate() {
            let mut values = Gradients::leaky();
            blend(&mut values, parameter, 0.0, parameter.master.clone())?;
            // SAFETY: `values` lives until the copy is launched, and frees its memory in the order of the stream.
            let master = unsafe { view(values.get_or_alloc_mut(&parameter.master)?) };
            encoders.copies(tower).load(&self.gpu, i, master).map_err(told)?;
        }
        self.stale(tower).store(false, Ordering::Release);
        Ok(())
    }
}

impl FusedOnGpu {
    /// Embeddings [batch, embed_dim] that `encode` leaves, as a node whose way back is that of its pass.
    fn node(
        &self,
        tower: MachineTower,
        parameters: &[&Parameter<f32, Cuda>],
        batch: usize,
        encode: impl FnOnce(
            &mut MachineEncoders<Gpu>,
            &Gpu,
            ViewMut<f32>,
        ) -> Result<Option<Pass<Gpu>>, MachineError>,
    ) -> Result<Node<(usize, usize), f32, Cuda>, CudaError> {
        let mut encoders = self.shared.lock();
        self.shared.load(&mut encoders, tower, parameters)?;
        let device = parameters[0].master.device();
        let like = device.try_zeros_like(&(batch, self.embed_dim))?;
        let mut held = Gradients::leaky();
        // SAFETY: `held` lives until its values have been made a tensor, and nobody else has them.
        let z = unsafe { view_mut(held.get_or_alloc_mut(&like)?) };
        let pass = encode(&mut encoders, &self.shared.gpu, z).map_err(told)?;
        let value = held.get(&like);
        let to = value.ghost();
        let masters: Vec<_> = parameters.iter().map(|parameter| parameter.master.ghost()).collect();
        let shared = self.shared.clone();
        let back = pass.map(|pass| -> Back<f32, Cuda> {
            Box::new(move |gradients| {
                // SAFETY: an entry stays where it is while others are made, and only these kernels use it.
                let dz = unsafe { view(gradients.get_or_alloc_mut(&to)?) };
                let mut views = Vec::with_capacity(masters.len());
                for master in &masters {
                    // SAFETY: as above; masters are apart from each other.
                    views.push(unsafe { view_mut(gradients.get_or_alloc_mut(master)?) });
                }
                shared.lock().send_back(&shared.gpu, tower, pass, dz, &mut views).map_err(told)
            })
        });
        Ok(Node { value, back })
    }
}

impl Engine<f32, Cuda> for FusedOnGpu {
    fn masters_change(&self) {
        self.shared.stale.iter().for_each(|stale| stale.store(true, Ordering::Release));
    }

    fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    fn arena_bytes(&self) -> usize {
        self.shared.lock().arena_bytes()
    }

    fn images(
        &self,
        parameters: &[&Parameter<f32, Cuda>],
        input: &ImageInput,
        record: bool,
    ) -> Result<Node<(usize, usize), f32, Cuda>, CudaError> {
        self.node(MachineTower::Images, parameters, input.kept.batch, |encoders, gpu, z| {
            encoders.encode_images(gpu, input, z, record)
        })
    }

    fn texts(
        &self,
        parameters: &[&Parameter<f32, Cuda>],
        input: &TextInput,
        record: bool,
    ) -> Result<Node<(usize, usize), f32, Cuda>, CudaError> {
        self.node(MachineTower::Texts, parameters, input.kept.batch, |encoders, gpu, z| {
            encoders.encode_texts(gpu, input, z, record)
        })
    }

    fn square_sum(
        &self,
        parameters: &[&Parameter<f32, Cuda>],
        gradients: &mut Gradients<f32, Cuda>,
    ) -> Result<f64, CudaError> {
        let mut views = Vec::with_capacity(parameters.len());
        for parameter in parameters {
            // SAFETY: an entry stays where it is while others are made, and is only read.
            views.push(unsafe { view(gradients.get_or_alloc_mut(&parameter.master)?) });
        }
        self.shared.lock().update.sum_of_squares(&self.shared.gpu, views).map_err(told)
    }

    fn adamw(
        &self,
        parameters: Vec<&mut Parameter<f32, Cuda>>,
        moments: Moments<'_, f32, Cuda>,
        mut gradients: Gradients<f32, Cuda>,
        rule: &dyn Fn(Role) -> AdamW,
    ) -> Result<(), CudaError> {
        self.masters_change();
        let Some(first) = parameters.first() else { return Ok(()) };
        // Steps do not depend on the decay, which is all that differs from role to role.
        let of_all = rule(first.role);
        let mut tensors = Vec::with_capacity(parameters.len());
        for parameter in &parameters {
            let master = &parameter.master;
            // SAFETY: an entry stays where it is while others are made, and only this update uses it.
            let m = unsafe { view_mut(moments.first.get_or_alloc_mut(master)?) };
            // SAFETY: as above.
            let v = unsafe { view_mut(moments.second.get_or_alloc_mut(master)?) };
            // SAFETY: as above.
            let g = unsafe { view_mut(gradients.get_or_alloc_mut(master)?) };
            tensors.push(adamw::cuda::Moments { m, v, g });
        }
        self.shared.lock().update.steps(&self.shared.gpu, &tensors, &of_all).map_err(told)?;
        drop(tensors);
        let mut encoders = self.shared.lock();
        let mut loaded = [0, 0];
        for parameter in parameters {
            // p -= step + decay * p. Without momentum, what stands in its place is left as it is.
            let descent = SgdConfig {
                lr: 1.0,
                momentum: None,
                weight_decay: Some(WeightDecay::Decoupled(rule(parameter.role).decay_of_update())),
            };
            let unused = moments.first.get_or_alloc_mut(&parameter.master)?;
            let step = gradients.get_or_alloc_mut(&parameter.master)?;
            descent.try_update(&mut parameter.master, unused, step)?;
            let Some(&(tower, i)) = self.places.get(&parameter.name) else { continue };
            // The values once more, where the step was: v <- 0 v + (0 + p), as in `blend`, which would copy a master that it
            // cannot change. dfdx reads as many zeros as the master has values.
            LOOK.try_update(&mut parameter.master, step, &self.zeros)?;
            // SAFETY: the entry lives until the copy is launched, and frees its memory in the order of the stream.
            let master = unsafe { view(step) };
            encoders.copies(tower).load(&self.shared.gpu, i, master).map_err(told)?;
            loaded[(tower == MachineTower::Texts) as usize] += 1;
        }
        for (tower, loaded) in [MachineTower::Images, MachineTower::Texts].into_iter().zip(loaded) {
            if loaded == encoders.copies(tower).count() {
                self.shared.stale(tower).store(false, Ordering::Release);
            }
        }
        Ok(())
    }

    fn loss(
        &self,
        images: &Matrix<f32, Cuda>,
        texts: &Matrix<f32, Cuda>,
        logit_scale: &Parameter<f32, Cuda>,
        scale: f64,
        learning: bool,
    ) -> Result<Node<(), f32, Cuda>, CudaError> {
        let mut z = Gradients::leaky();
        blend_into(&mut z, images, 0.0, images.clone())?;
        blend_into(&mut z, texts, 0.0, texts.clone())?;
        let mut own = Gradients::leaky();
        let factor = scale.exp();
        let loss = {
            // SAFETY: an entry stays where it is while others are made, and only these kernels use it.
            let of_images = unsafe { view_mut(own.get_or_alloc_mut(images)?) };
            // SAFETY: as above.
            let of_texts = unsafe { view_mut(own.get_or_alloc_mut(texts)?) };
            // SAFETY: as above.
            let z_images = unsafe { view(z.get_or_alloc_mut(images)?) };
            // SAFETY: as above.
            let z_texts = unsafe { view(z.get_or_alloc_mut(texts)?) };
            let (to, from) = ((of_images, of_texts), (z_images, z_texts));
            let mut encoders = self.shared.lock();
            let width = images.shape().1;
            encoders.loss.loss_and_gradients(&self.shared.gpu, to, from, factor as f32, width)
        };
        let loss = loss.map_err(told)?;
        let value = images.device().try_tensor_from_vec(vec![loss.loss as f32], ())?;
        // The parameter is the logarithm of the factor. Where it does not learn, its gradient is zero.
        let of_scale = if learning { loss.dscale * factor } else { 0.0 };
        // SAFETY: as above.
        let held = unsafe { view_mut(own.get_or_alloc_mut(&logit_scale.master)?) };
        self.shared.gpu.write(held, &[of_scale as f32]).map_err(told)?;
        let (to, to_images, to_texts) = (value.ghost(), images.ghost(), texts.ghost());
        let to_scale = logit_scale.master.ghost();
        let shared = self.shared.clone();
        let back: Back<f32, Cuda> = Box::new(move |gradients| {
            let gpu = &shared.gpu;
            // SAFETY: an entry stays where it is while others are made, and only these kernels use it.
            let outer = unsafe { view(gradients.get_or_alloc_mut(&to)?) };
            for of in [&to_images, &to_texts, &to_scale] {
                // SAFETY: as above.
                let from = unsafe { view(own.get_or_alloc_mut(of)?) };
                // SAFETY: as above.
                let into = unsafe { view_mut(gradients.get_or_alloc_mut(of)?) };
                add_scaled(gpu, into, from, outer).map_err(told)?;
            }
            Ok(())
        });
        Ok(Node { value, back: Some(back) })
    }
}
