//! Whole encoders on a [`Machine`] as an engine of the graph, on a dfdx device whose storage that machine can use: masters,
//! gradients and moments are read and written where they lie.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfdx::prelude::*;

use super::agenda::{Agenda, Coming, Held};
use super::engine::{Back, Engine, LogitScale, Node, Update};
use super::input::{ImageInput, TextInput};
use super::layer::Matrix;
use super::machine::{machine_lacks, MachineEncoders};
use super::{Flip, Fusion, ModelError, Precision};
use crate::kernel::adamw::cuda::Tensor as Updated;
use crate::kernel::contrastive::cuda::add_scaled;
use crate::kernel::cuda::phase::Phase;
use crate::kernel::cuda::{Machine, MachineError, View, ViewMut};
use crate::kernel::encoder::Pass;
use crate::kernel::Cpu as Kernels;
use crate::parameter::{Flat, Layout, Parameter, Ranges, Tower, Values};

/// A dfdx device that lends what it holds values in to the kernels of a machine.
///
/// # Safety
/// Kernels of `M` may read, and write after `place_mut`, as many numbers as are named at the address that is named, for as
/// long as the storage lives, in the order in which dfdx and the machine are called.
pub unsafe trait Lends<M: Machine>: Ranges<f32> {
    /// Where the values are, and how many.
    fn place(storage: &Values<f32, Self>) -> (u64, usize);
    fn place_mut(storage: &mut Values<f32, Self>) -> (u64, usize);
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
    let encoders = MachineEncoders::new(&machine, &flip.config, how.recompute)?;
    let stale = Tower::ALL.map(|_| AtomicBool::new(true));
    let (encoders, ahead) = (Mutex::new(encoders), Mutex::default());
    let shared = Arc::new(Shared { machine, encoders, ahead, stale });
    let (embed_dim, parameters) = (flip.config.embed_dim, flip.parameters.clone());
    flip.engine = Some(Arc::new(FusedOnMachine { shared, kernels, embed_dim, parameters }));
    Ok(flip)
}

/// Encoders and loss of a model on a machine.
struct FusedOnMachine<M: Machine> {
    shared: Arc<Shared<M>>,
    kernels: Kernels,
    embed_dim: usize,
    parameters: Arc<Vec<Parameter>>,
}

/// What is known of images before they are encoded.
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
    stale: [AtomicBool; Tower::ALL.len()],
}

impl<M: Machine> std::fmt::Debug for FusedOnMachine<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FusedOnMachine")
    }
}

/// dfdx's errors have no room for a text of ours, so the log says it.
fn told<D: Lends<M>, M: Machine>(error: MachineError) -> D::Err {
    tracing::error!(target: "flip::model", "{error}");
    D::failed(&error)
}

/// # Safety
/// The storage is neither dropped nor written for `'a` by anyone but kernels launched before.
unsafe fn view<'a, D: Lends<M>, M: Machine>(storage: &Values<f32, D>) -> View<'a, f32> {
    let (address, len) = D::place(storage);
    View::new(address, len)
}

/// # Safety
/// The storage is neither dropped nor used for `'a` by anyone but kernels launched before.
unsafe fn view_mut<'a, D: Lends<M>, M: Machine>(storage: &mut Values<f32, D>) -> ViewMut<'a, f32> {
    let (address, len) = D::place_mut(storage);
    ViewMut::new(address, len)
}

/// Ranges of one buffer, as a layout has them: apart from each other.
///
/// # Safety
/// As of [`view_mut`].
unsafe fn parts<'a, D: Lends<M>, M: Machine>(
    storage: &mut Values<f32, D>,
    ranges: impl Iterator<Item = Range<usize>>,
) -> Vec<ViewMut<'a, f32>> {
    let (address, len) = D::place_mut(storage);
    let part = |range: Range<usize>| {
        assert!(range.end <= len, "values {range:?} of {len}");
        ViewMut::new(address + (range.start * size_of::<f32>()) as u64, range.len())
    };
    ranges.map(part).collect()
}

impl<M: Machine> Shared<M> {
    fn lock(&self) -> MutexGuard<'_, MachineEncoders<M>> {
        self.encoders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stale(&self, tower: Tower) -> &AtomicBool {
        &self.stale[tower as usize]
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends images beside what the machine has been given to do.
    fn send(&self, encoders: &mut MachineEncoders<M>, held: Option<Held>) -> Result<(), MachineError> {
        match held.filter(|held| !held.as_ref().is_empty()) {
            Some(held) => encoders.send_ahead(&self.machine, Arc::new(held)),
            None => Ok(()),
        }
    }

    /// Sees to what comes after images whose encoder has been launched.
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
        tower: Tower,
        masters: &Flat<f32, D>,
        parameters: &[Parameter],
    ) -> Result<(), D::Err> {
        if !self.stale(tower).load(Ordering::Acquire) {
            return Ok(());
        }
        let first = first_of(parameters, tower);
        // SAFETY: masters live until the copies are launched, and free their memory in the order of the stream.
        let values = unsafe { view::<D, M>(masters.tower(tower)) };
        for (place, range) in masters.layout().ranges(tower) {
            let master = values.part(range.start, range.len());
            let loaded = encoders.copies(tower).load(&self.machine, place - first, master);
            loaded.map_err(told::<D, M>)?;
        }
        self.stale(tower).store(false, Ordering::Release);
        self.machine.mark(Phase::Copies).map_err(told::<D, M>)
    }
}

/// The place of a tower's first parameter.
fn first_of(parameters: &[Parameter], tower: Tower) -> usize {
    parameters.iter().position(|parameter| parameter.tower == tower).unwrap_or_default()
}

impl<M: Machine + 'static> FusedOnMachine<M> {
    /// Embeddings [batch, embed_dim] that `encode` leaves, as a node whose backward pass is that of its pass.
    fn node<D: Lends<M>>(
        &self,
        tower: Tower,
        masters: &Flat<f32, D>,
        batch: usize,
        encode: impl FnOnce(&mut MachineEncoders<M>, &M, ViewMut<f32>) -> Result<Option<Pass<M>>, MachineError>,
    ) -> Result<Node<(usize, usize), f32, D>, D::Err> {
        let mut encoders = self.shared.lock();
        self.shared.load(&mut encoders, tower, masters, &self.parameters)?;
        let like = masters.device().try_zeros_like(&(batch, self.embed_dim))?;
        let mut held = Gradients::leaky();
        // SAFETY: `held` lives until its values have been made a tensor, and nobody else has them.
        let z = unsafe { view_mut::<D, M>(held.get_or_alloc_mut(&like)?) };
        let pass = encode(&mut encoders, &self.shared.machine, z).map_err(told::<D, M>)?;
        let (forward, backward) = match tower {
            Tower::Image => (Phase::Images, Phase::ImagesBack),
            _ => (Phase::Texts, Phase::TextsBack),
        };
        self.shared.machine.mark(forward).map_err(told::<D, M>)?;
        let value = held.get(&like);
        let (to, shared) = (value.ghost(), self.shared.clone());
        let back = pass.map(|pass| -> Back<f32, D> {
            Box::new(move |entries, all| {
                // SAFETY: an entry stays where it is, and only these kernels use it.
                let dz = unsafe { view::<D, M>(entries.get_or_alloc_mut(&to)?) };
                let layout = all.layout().clone();
                let ranges = layout.ranges(tower).map(|(_, range)| range);
                // SAFETY: gradients live until what is launched here has run, and only these kernels use them.
                let mut views = unsafe { parts::<D, M>(all.tower_mut(tower), ranges) };
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

impl<D: Lends<M>, M: Machine + 'static> Engine<f32, D> for FusedOnMachine<M> {
    fn masters_change(&self) {
        self.shared.stale.iter().for_each(|stale| stale.store(true, Ordering::Release));
    }

    fn copies_weights(&self) -> bool {
        true
    }

    fn load(&self, masters: &Flat<f32, D>) -> Result<(), D::Err> {
        let mut encoders = self.shared.lock();
        for tower in [Tower::Image, Tower::Text] {
            self.shared.load(&mut encoders, tower, masters, &self.parameters)?;
        }
        Ok(())
    }

    fn copy_weight(&self, place: usize, values: &[f32]) -> Result<(), D::Err> {
        let tower = self.parameters[place].tower;
        let i = place - first_of(&self.parameters, tower);
        let (machine, mut encoders) = (&self.shared.machine, self.shared.lock());
        let values = machine.upload(values).map_err(told::<D, M>)?;
        encoders.copies(tower).load(machine, i, machine.view(&values)).map_err(told::<D, M>)
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
        masters: &Flat<f32, D>,
        input: &ImageInput,
        record: bool,
    ) -> Result<Node<(usize, usize), f32, D>, D::Err> {
        let node = self.node(Tower::Image, masters, input.kept.batch, |encoders, machine, z| {
            encoders.encode_images(machine, input, z, record)
        })?;
        self.shared.look_ahead(input, record).map_err(told::<D, M>)?;
        Ok(node)
    }

    fn texts(
        &self,
        masters: &Flat<f32, D>,
        input: &TextInput,
        record: bool,
    ) -> Result<Node<(usize, usize), f32, D>, D::Err> {
        self.node(Tower::Text, masters, input.kept.batch, |encoders, machine, z| {
            encoders.encode_texts(machine, input, z, record)
        })
    }

    fn square_sum(&self, gradients: &Flat<f32, D>, places: &[usize]) -> Result<f64, D::Err> {
        let views = places.iter().map(|&place| {
            let range = gradients.layout().range(place).unwrap_or_default();
            // SAFETY: gradients live until their sum has been read, and are only read.
            let all = unsafe { view::<D, M>(gradients.tower(self.parameters[place].tower)) };
            all.part(range.start, range.len())
        });
        let machine = &self.shared.machine;
        let sum = self.shared.lock().update.sum_of_squares(machine, views).map_err(told::<D, M>)?;
        machine.mark(Phase::Norm).map_err(told::<D, M>)?;
        Ok(sum)
    }

    fn adamw(&self, update: Update<'_, f32, D>) -> Result<(), D::Err> {
        let Update { masters, moments: [first, second], gradients, rule } = update;
        let own = first.layout().clone();
        let layouts = [masters.layout().clone(), own.clone(), own.clone(), gradients.layout().clone()];
        let mut encoders = self.shared.lock();
        let mut tensors = Vec::with_capacity(self.parameters.len());
        for tower in Tower::ALL {
            let held = |layout: &Layout| -> Vec<Range<usize>> {
                let all = layout.ranges(tower);
                all.filter(|(place, _)| own.range(*place).is_some()).map(|(_, range)| range).collect()
            };
            let [p, m, v, g] = layouts.each_ref().map(|layout| held(layout).into_iter());
            // SAFETY: all of them live until the update has been launched, in the order of the stream, and only it uses them.
            let (p, m) = unsafe {
                (parts::<D, M>(masters.tower_mut(tower), p), parts::<D, M>(first.tower_mut(tower), m))
            };
            // SAFETY: as above.
            let (v, g) = unsafe {
                (parts::<D, M>(second.tower_mut(tower), v), parts::<D, M>(gradients.tower_mut(tower), g))
            };
            let places = own.ranges(tower).map(|(place, _)| place);
            for ((place, (p, m)), (v, g)) in places.zip(p.into_iter().zip(m)).zip(v.into_iter().zip(g)) {
                let decays = self.parameters[place].role.decays();
                let copy = (tower != Tower::Loss).then(|| {
                    let i = place - first_of(&self.parameters, tower);
                    // SAFETY: copies are apart from each other, live as long as the encoders do, and only the update uses them.
                    unsafe { encoders.copies(tower).target(&self.shared.machine, i) }
                });
                tensors.push(Updated { p, m, v, g, copy, decays });
            }
        }
        // What differs from role to role is the decay, which is that of weights or none.
        let rule = rule(crate::parameter::Role::Weight);
        encoders.update.adamw(&self.shared.machine, &tensors, &rule).map_err(told::<D, M>)?;
        for tower in Tower::ALL {
            let all = self.parameters.iter().filter(|parameter| parameter.tower == tower).count();
            if own.ranges(tower).count() == all {
                self.shared.stale(tower).store(false, Ordering::Release);
            }
        }
        self.shared.machine.mark(Phase::Update).map_err(told::<D, M>)
    }

    fn loss(
        &self,
        images: &Matrix<f32, D>,
        texts: &Matrix<f32, D>,
        logit_scale: LogitScale,
    ) -> Result<Node<(), f32, D>, D::Err> {
        let (mut z_images, mut z_texts) = (storage_of(images)?, storage_of(texts)?);
        let device = images.device();
        let zeros = |of: &Matrix<f32, D>| device.allocate(of.shape().0 * of.shape().1);
        let (mut dimages, mut dtexts) = (zeros(images)?, zeros(texts)?);
        let factor = logit_scale.value.exp();
        let loss = {
            // SAFETY: they live until the loss has been read, and only these kernels use them.
            let to = unsafe { (view_mut::<D, M>(&mut dimages), view_mut::<D, M>(&mut dtexts)) };
            // SAFETY: as above.
            let from = unsafe { (view_mut::<D, M>(&mut z_images), view_mut::<D, M>(&mut z_texts)) };
            let (mut encoders, width) = (self.shared.lock(), images.shape().1);
            let from = (from.0.read(), from.1.read());
            encoders.loss.loss_and_gradients(&self.shared.machine, to, from, factor as f32, width)
        };
        let loss = loss.map_err(told::<D, M>)?;
        let value = device.try_tensor_from_vec(vec![loss.loss as f32], ())?;
        // The parameter is the logarithm of the factor. Where it does not learn, its gradient is zero.
        let of_scale = if logit_scale.learns { loss.dscale * factor } else { 0.0 };
        let mut dscale = device.allocate(1)?;
        device.write(&mut dscale, 0, &[of_scale as f32])?;
        let (to, to_images, to_texts) = (value.ghost(), images.ghost(), texts.ghost());
        let shared = self.shared.clone();
        let back: Back<f32, D> = Box::new(move |entries, all| {
            let machine = &shared.machine;
            // SAFETY: an entry stays where it is while others are made, and only these kernels use it.
            let outer = unsafe { view::<D, M>(entries.get_or_alloc_mut(&to)?) };
            for (of, from) in [(&to_images, &dimages), (&to_texts, &dtexts)] {
                // SAFETY: as above.
                let into = unsafe { view_mut::<D, M>(entries.get_or_alloc_mut(of)?) };
                // SAFETY: it frees its memory in the order of the stream.
                add_scaled(machine, into, unsafe { view::<D, M>(from) }, outer).map_err(told::<D, M>)?;
            }
            // SAFETY: gradients live until what is launched here has run, and only this kernel uses this one.
            let into = unsafe { view_mut::<D, M>(all.tower_mut(Tower::Loss)) };
            // SAFETY: it frees its memory in the order of the stream.
            add_scaled(machine, into, unsafe { view::<D, M>(&dscale) }, outer).map_err(told::<D, M>)?;
            machine.mark(Phase::Loss).map_err(told::<D, M>)
        });
        Ok(Node { value, back: Some(back) })
    }
}

/// The values of a tensor as storage that lends its memory. dfdx lends that of a tensor to nobody, but moves a velocity by
/// it: v <- 0 v + (0 + values).
fn storage_of<D: Ranges<f32>>(tensor: &Matrix<f32, D>) -> Result<Values<f32, D>, D::Err> {
    let look = SgdConfig {
        lr: 0.0,
        momentum: Some(Momentum::Classic(0.0)),
        weight_decay: Some(WeightDecay::L2(1.0)),
    };
    let len = tensor.shape().0 * tensor.shape().1;
    let (mut values, nothing) = (tensor.device().allocate(len)?, tensor.device().allocate(len)?);
    look.try_update(&mut tensor.clone(), &mut values, &nothing)?;
    Ok(values)
}
