//! Whole encoders on a [`Machine`] as an engine of the graph, on a dfdx device whose storage that machine can use.
//!
//! dfdx keeps masters, gradients and moments, as on the CPU. It lends the storage of gradients and moments, which kernels
//! read and write where they are, but not that of a tensor: values of a master come out, and an update goes in, through
//! dfdx's own rules.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfdx::prelude::*;

use super::agenda::{Agenda, Coming, Held};
use super::engine::{Back, Engine, Moments, Node};
use super::input::{ImageInput, TextInput};
use super::layer::Matrix;
use super::machine::{machine_lacks, MachineEncoders, MachineTower};
use super::{Flip, Fusion, ModelError, Precision};
use crate::kernel::adamw::{self, AdamW};
use crate::kernel::contrastive::cuda::add_scaled;
use crate::kernel::cuda::phase::Phase;
use crate::kernel::cuda::{Machine, MachineError, View, ViewMut};
use crate::kernel::encoder::Pass;
use crate::kernel::Cpu as Kernels;
use crate::parameter::{blend, blend_into, Parameter, Role, Walk};

/// What a device of dfdx holds the values of a tensor in.
pub type Values<D> = <D as Storage<f32>>::Vec;

/// A dfdx device that lends what it holds values in to the kernels of a machine.
///
/// # Safety
/// Kernels of `M` may read, and write after `place_mut`, as many numbers as are named at the address that is named, for as
/// long as the storage lives, in the order in which dfdx and the machine are called.
pub unsafe trait Lends<M: Machine>: Device<f32> {
    /// Where the values are, and how many.
    fn place(storage: &Values<Self>) -> (u64, usize);
    fn place_mut(storage: &mut Values<Self>) -> (u64, usize);
    /// What dfdx says of an error of the machine.
    fn failed(error: &MachineError) -> Self::Err;
}

/// Makes a model compute whole encoders at a time on a machine.
///
/// # Errors
/// The machine has no kernels for the precision or for the sizes of the model, or no room.
pub fn fuse_on<D: Lends<M>, M: Machine + 'static>(
    mut flip: Flip<f32, D>,
    machine: M,
    how: Fusion,
) -> Result<Flip<f32, D>, ModelError> {
    if how.precision == Precision::F32 {
        return Err(ModelError::FusedF32OnGpu);
    }
    if let Some(lack) = machine_lacks(&flip.config) {
        return Err(ModelError::NoGpuKernels(lack));
    }
    let kernels = how.kernels()?;
    let device = flip.logit_scale.master.device().clone();
    let encoders = MachineEncoders::new(&machine, &flip.config, how.recompute)?;
    let stale = [AtomicBool::new(true), AtomicBool::new(true)];
    let (encoders, ahead) = (Mutex::new(encoders), Mutex::default());
    let shared = Arc::new(Shared { machine, encoders, ahead, stale });
    let (images, texts) = (flip.image.parameters(), flip.text.parameters());
    let most = images.iter().chain(&texts).map(|parameter| parameter.len()).max().unwrap_or_default();
    let places = [(MachineTower::Images, images), (MachineTower::Texts, texts)];
    let places = places.into_iter().flat_map(|(tower, parameters)| {
        let named = parameters.into_iter().map(|parameter| parameter.name.clone()).enumerate();
        named.map(move |(i, name)| (name, (tower, i)))
    });
    flip.engine = Some(Arc::new(FusedOnMachine {
        shared,
        kernels,
        embed_dim: flip.config.embed_dim,
        places: places.collect(),
        zeros: Storage::<f32>::try_alloc_len(&device, most).map_err(ModelError::device)?,
    }));
    Ok(flip)
}

/// Encoders and loss of a model on a machine.
struct FusedOnMachine<D: Storage<f32>, M: Machine> {
    shared: Arc<Shared<M>>,
    kernels: Kernels,
    embed_dim: usize,
    /// The tower of each parameter, and its number there.
    places: HashMap<String, (MachineTower, usize)>,
    /// As many as the longest parameter has.
    zeros: Values<D>,
}

/// What is known of pictures before they are encoded.
#[derive(Default)]
struct Ahead {
    agenda: Agenda,
    /// Of the next step, to be sent when the way back has begun: then there is most to do beside it.
    due: Option<Held>,
}

/// What the way back needs too.
struct Shared<M: Machine> {
    /// First, as it lets everything arrive before the memory for it is given back.
    machine: M,
    encoders: Mutex<MachineEncoders<M>>,
    ahead: Mutex<Ahead>,
    /// Whether the copies of a tower may be behind its masters.
    stale: [AtomicBool; 2],
}

impl<D: Storage<f32>, M: Machine> std::fmt::Debug for FusedOnMachine<D, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FusedOnMachine")
    }
}

/// dfdx's errors have no room for a text of ours, so the log says it.
fn told<D: Lends<M>, M: Machine>(error: MachineError) -> D::Err {
    tracing::error!(target: "flip::model", "{error}");
    D::failed(&error)
}

/// Reads a master into the velocity: v <- g + p.
const LOOK: SgdConfig =
    SgdConfig { lr: 0.0, momentum: Some(Momentum::Classic(0.0)), weight_decay: Some(WeightDecay::L2(1.0)) };

/// # Safety
/// The storage is neither dropped nor written for `'a` by anyone but kernels launched before.
unsafe fn view<'a, D: Lends<M>, M: Machine>(storage: &Values<D>) -> View<'a, f32> {
    let (address, len) = D::place(storage);
    View::new(address, len)
}

/// # Safety
/// The storage is neither dropped nor used for `'a` by anyone but kernels launched before.
unsafe fn view_mut<'a, D: Lends<M>, M: Machine>(storage: &mut Values<D>) -> ViewMut<'a, f32> {
    let (address, len) = D::place_mut(storage);
    ViewMut::new(address, len)
}

impl<M: Machine> Shared<M> {
    fn lock(&self) -> MutexGuard<'_, MachineEncoders<M>> {
        self.encoders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stale(&self, tower: MachineTower) -> &AtomicBool {
        &self.stale[(tower == MachineTower::Texts) as usize]
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends pictures beside what the machine has been given to do.
    fn send(&self, encoders: &mut MachineEncoders<M>, held: Option<Held>) -> Result<(), MachineError> {
        match held.filter(|held| !held.as_ref().is_empty()) {
            Some(held) => encoders.send_ahead(&self.machine, Arc::new(held)),
            None => Ok(()),
        }
    }

    /// Sees to what comes after pictures whose encoder has been launched.
    fn look_ahead(&self, input: &ImageInput, recorded: bool) -> Result<(), MachineError> {
        let mut ahead = self.ahead();
        let now = match ahead.agenda.after(input, recorded) {
            Some(Coming::Now(held)) => held,
            Some(Coming::Next(held)) => {
                ahead.due = Some(held);
                return Ok(());
            }
            None => return Ok(()),
        };
        // The way back takes the two locks in the other order.
        drop(ahead);
        self.send(&mut self.lock(), Some(now))
    }

    /// Copies the masters of a tower that may have changed.
    fn load<D: Lends<M>>(
        &self,
        encoders: &mut MachineEncoders<M>,
        tower: MachineTower,
        parameters: &[&Parameter<f32, D>],
    ) -> Result<(), D::Err> {
        if !self.stale(tower).load(Ordering::Acquire) {
            return Ok(());
        }
        for (i, parameter) in parameters.iter().enumerate().filter(|(_, parameter)| !parameter.given_up) {
            let mut values = Gradients::leaky();
            blend(&mut values, parameter, 0.0, parameter.master.clone())?;
            // SAFETY: `values` lives until the copy is launched, and frees its memory in the order of the stream.
            let master = unsafe { view::<D, M>(values.get_or_alloc_mut(&parameter.master)?) };
            encoders.copies(tower).load(&self.machine, i, master).map_err(told::<D, M>)?;
        }
        self.stale(tower).store(false, Ordering::Release);
        self.machine.mark(Phase::Copies).map_err(told::<D, M>)
    }
}

impl<D: Lends<M>, M: Machine + 'static> FusedOnMachine<D, M> {
    /// Embeddings [batch, embed_dim] that `encode` leaves, as a node whose way back is that of its pass.
    fn node(
        &self,
        tower: MachineTower,
        parameters: &[&Parameter<f32, D>],
        batch: usize,
        encode: impl FnOnce(&mut MachineEncoders<M>, &M, ViewMut<f32>) -> Result<Option<Pass<M>>, MachineError>,
    ) -> Result<Node<(usize, usize), f32, D>, D::Err> {
        let mut encoders = self.shared.lock();
        self.shared.load(&mut encoders, tower, parameters)?;
        let device = parameters[0].master.device();
        let like = device.try_zeros_like(&(batch, self.embed_dim))?;
        let mut held = Gradients::leaky();
        // SAFETY: `held` lives until its values have been made a tensor, and nobody else has them.
        let z = unsafe { view_mut::<D, M>(held.get_or_alloc_mut(&like)?) };
        let pass = encode(&mut encoders, &self.shared.machine, z).map_err(told::<D, M>)?;
        let (forward, backward) = match tower {
            MachineTower::Images => (Phase::Images, Phase::ImagesBack),
            MachineTower::Texts => (Phase::Texts, Phase::TextsBack),
        };
        self.shared.machine.mark(forward).map_err(told::<D, M>)?;
        let value = held.get(&like);
        let to = value.ghost();
        let masters: Vec<_> =
            parameters.iter().map(|parameter| (parameter.master.ghost(), parameter.len())).collect();
        let (device, shared) = (device.clone(), self.shared.clone());
        let back = pass.map(|pass| -> Back<f32, D> {
            Box::new(move |gradients| {
                // SAFETY: an entry stays where it is while others are made, and only these kernels use it.
                let dz = unsafe { view::<D, M>(gradients.get_or_alloc_mut(&to)?) };
                let mut views = Vec::with_capacity(masters.len());
                for (master, len) in &masters {
                    let own = gradients.get_or_alloc_mut(master)?;
                    // dfdx takes a master that was given up for a single value.
                    if D::place(own).1 != *len {
                        *own = Storage::<f32>::try_alloc_len(&device, *len)?;
                    }
                    // SAFETY: as above; masters are apart from each other.
                    views.push(unsafe { view_mut::<D, M>(own) });
                }
                let mut encoders = shared.lock();
                let sent = encoders.send_back(&shared.machine, tower, pass, dz, &mut views);
                let marked = sent.and_then(|()| shared.machine.mark(backward));
                let due = shared.ahead().due.take();
                marked.and_then(|()| shared.send(&mut encoders, due)).map_err(told::<D, M>)
            })
        });
        Ok(Node { value, back })
    }
}

impl<D: Lends<M>, M: Machine + 'static> Engine<f32, D> for FusedOnMachine<D, M> {
    fn masters_change(&self) {
        self.shared.stale.iter().for_each(|stale| stale.store(true, Ordering::Release));
    }

    fn copies_weights(&self) -> bool {
        true
    }

    fn load(
        &self,
        images: &[&Parameter<f32, D>],
        texts: &[&Parameter<f32, D>],
        supply: &mut dyn FnMut(&mut [f32]),
    ) -> Result<(), D::Err> {
        let (machine, mut encoders) = (&self.shared.machine, self.shared.lock());
        for (tower, parameters) in [(MachineTower::Images, images), (MachineTower::Texts, texts)] {
            self.shared.stale(tower).store(true, Ordering::Release);
            self.shared.load(&mut encoders, tower, parameters)?;
            let weights = parameters.iter().enumerate();
            for (i, parameter) in weights.filter(|(_, parameter)| parameter.role == Role::Weight) {
                let mut values = match parameter.given_up {
                    true => vec![0.0; parameter.len()],
                    false => parameter.master.as_vec(),
                };
                supply(&mut values);
                let values = machine.upload(&values).map_err(told::<D, M>)?;
                encoders.copies(tower).load(machine, i, machine.view(&values)).map_err(told::<D, M>)?;
            }
        }
        Ok(())
    }

    fn take_gradient(
        &self,
        parameter: &Parameter<f32, D>,
        gradients: &mut Gradients<f32, D>,
    ) -> Result<Vec<f32>, D::Err> {
        // SAFETY: the entry lives until its values have been read.
        let own = unsafe { view::<D, M>(gradients.get_or_alloc_mut(&parameter.master)?) };
        let mut values = self.shared.machine.read(own).map_err(told::<D, M>)?;
        values.resize(parameter.len(), 0.0);
        Ok(values)
    }

    fn put_gradient(
        &self,
        parameter: &Parameter<f32, D>,
        gradients: &mut Gradients<f32, D>,
        values: Vec<f32>,
    ) -> Result<(), D::Err> {
        // SAFETY: the entry lives until its values have been written.
        let own = unsafe { view_mut::<D, M>(gradients.get_or_alloc_mut(&parameter.master)?) };
        self.shared.machine.write(own, &values).map_err(told::<D, M>)
    }

    fn show(
        &self,
        parameter: &Parameter<f32, D>,
        held: &mut Gradients<f32, D>,
        see: &mut dyn FnMut(&[f32]),
    ) -> Result<(), D::Err> {
        // SAFETY: the entry lives until its values have been read.
        let own = unsafe { view::<D, M>(held.get_or_alloc_mut(&parameter.master)?) };
        see(&self.shared.machine.read(own).map_err(told::<D, M>)?);
        Ok(())
    }

    fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    fn listens(&self) -> bool {
        true
    }

    fn announce(&self, agenda: Agenda) {
        *self.shared.ahead() = Ahead { agenda, due: None };
    }

    fn lap(&self) -> Result<Vec<(Phase, f64)>, D::Err> {
        self.shared.machine.lap().map_err(told::<D, M>)
    }

    fn arena_bytes(&self) -> usize {
        self.shared.lock().arena_bytes()
    }

    fn images(
        &self,
        parameters: &[&Parameter<f32, D>],
        input: &ImageInput,
        record: bool,
    ) -> Result<Node<(usize, usize), f32, D>, D::Err> {
        let node =
            self.node(MachineTower::Images, parameters, input.kept.batch, |encoders, machine, z| {
                encoders.encode_images(machine, input, z, record)
            })?;
        self.shared.look_ahead(input, record).map_err(told::<D, M>)?;
        Ok(node)
    }

    fn texts(
        &self,
        parameters: &[&Parameter<f32, D>],
        input: &TextInput,
        record: bool,
    ) -> Result<Node<(usize, usize), f32, D>, D::Err> {
        self.node(MachineTower::Texts, parameters, input.kept.batch, |encoders, machine, z| {
            encoders.encode_texts(machine, input, z, record)
        })
    }

    fn square_sum(
        &self,
        parameters: &[&Parameter<f32, D>],
        gradients: &mut Gradients<f32, D>,
    ) -> Result<f64, D::Err> {
        let mut views = Vec::with_capacity(parameters.len());
        for parameter in parameters {
            // SAFETY: an entry stays where it is while others are made, and is only read.
            views.push(unsafe { view::<D, M>(gradients.get_or_alloc_mut(&parameter.master)?) });
        }
        let machine = &self.shared.machine;
        let sum = self.shared.lock().update.sum_of_squares(machine, views).map_err(told::<D, M>)?;
        machine.mark(Phase::Norm).map_err(told::<D, M>)?;
        Ok(sum)
    }

    fn adamw(
        &self,
        parameters: Vec<&mut Parameter<f32, D>>,
        moments: Moments<'_, f32, D>,
        mut gradients: Gradients<f32, D>,
        rule: &dyn Fn(Role) -> AdamW,
    ) -> Result<(), D::Err> {
        self.masters_change();
        let Some(first) = parameters.first() else { return Ok(()) };
        // Steps do not depend on the decay, which is all that differs from role to role.
        let of_all = rule(first.role);
        let mut tensors = Vec::with_capacity(parameters.len());
        for parameter in &parameters {
            let master = &parameter.master;
            // SAFETY: an entry stays where it is while others are made, and only this update uses it.
            let m = unsafe { view_mut::<D, M>(moments.first.get_or_alloc_mut(master)?) };
            // SAFETY: as above.
            let v = unsafe { view_mut::<D, M>(moments.second.get_or_alloc_mut(master)?) };
            // SAFETY: as above.
            let g = unsafe { view_mut::<D, M>(gradients.get_or_alloc_mut(master)?) };
            tensors.push(adamw::cuda::Moments { m, v, g });
        }
        self.shared.lock().update.steps(&self.shared.machine, &tensors, &of_all).map_err(told::<D, M>)?;
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
            let master = unsafe { view::<D, M>(step) };
            encoders.copies(tower).load(&self.shared.machine, i, master).map_err(told::<D, M>)?;
            loaded[(tower == MachineTower::Texts) as usize] += 1;
        }
        for (tower, loaded) in [MachineTower::Images, MachineTower::Texts].into_iter().zip(loaded) {
            if loaded == encoders.copies(tower).count() {
                self.shared.stale(tower).store(false, Ordering::Release);
            }
        }
        self.shared.machine.mark(Phase::Update).map_err(told::<D, M>)
    }

    fn loss(
        &self,
        images: &Matrix<f32, D>,
        texts: &Matrix<f32, D>,
        logit_scale: &Parameter<f32, D>,
        scale: f64,
        learning: bool,
    ) -> Result<Node<(), f32, D>, D::Err> {
        let mut z = Gradients::leaky();
        blend_into(&mut z, images, 0.0, images.clone())?;
        blend_into(&mut z, texts, 0.0, texts.clone())?;
        let mut own = Gradients::leaky();
        let factor = scale.exp();
        let loss = {
            // SAFETY: an entry stays where it is while others are made, and only these kernels use it.
            let of_images = unsafe { view_mut::<D, M>(own.get_or_alloc_mut(images)?) };
            // SAFETY: as above.
            let of_texts = unsafe { view_mut::<D, M>(own.get_or_alloc_mut(texts)?) };
            // SAFETY: as above.
            let z_images = unsafe { view::<D, M>(z.get_or_alloc_mut(images)?) };
            // SAFETY: as above.
            let z_texts = unsafe { view::<D, M>(z.get_or_alloc_mut(texts)?) };
            let (to, from) = ((of_images, of_texts), (z_images, z_texts));
            let mut encoders = self.shared.lock();
            let width = images.shape().1;
            encoders.loss.loss_and_gradients(&self.shared.machine, to, from, factor as f32, width)
        };
        let loss = loss.map_err(told::<D, M>)?;
        let value = images.device().try_tensor_from_vec(vec![loss.loss as f32], ())?;
        // The parameter is the logarithm of the factor. Where it does not learn, its gradient is zero.
        let of_scale = if learning { loss.dscale * factor } else { 0.0 };
        // SAFETY: as above.
        let held = unsafe { view_mut::<D, M>(own.get_or_alloc_mut(&logit_scale.master)?) };
        self.shared.machine.write(held, &[of_scale as f32]).map_err(told::<D, M>)?;
        let (to, to_images, to_texts) = (value.ghost(), images.ghost(), texts.ghost());
        let to_scale = logit_scale.master.ghost();
        let shared = self.shared.clone();
        let back: Back<f32, D> = Box::new(move |gradients| {
            let machine = &shared.machine;
            // SAFETY: an entry stays where it is while others are made, and only these kernels use it.
            let outer = unsafe { view::<D, M>(gradients.get_or_alloc_mut(&to)?) };
            for of in [&to_images, &to_texts, &to_scale] {
                // SAFETY: as above.
                let from = unsafe { view::<D, M>(own.get_or_alloc_mut(of)?) };
                // SAFETY: as above.
                let into = unsafe { view_mut::<D, M>(gradients.get_or_alloc_mut(of)?) };
                add_scaled(machine, into, from, outer).map_err(told::<D, M>)?;
            }
            machine.mark(Phase::Loss).map_err(told::<D, M>)
        });
        Ok(Node { value, back: Some(back) })
    }
}
