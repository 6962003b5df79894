//! Whole encoders on a [`Backend`] as an engine of the graph: each encoder and the loss one node of the dfdx tape. Masters, gradients
//! and moments are read and written where dfdx holds them.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfdx::prelude::*;

use super::encoder::{gpu_lacks, sizes, Encoders, Pass};
use super::engine::{Back, Engine, LogitScale, Node, Update, WithFeatures};
use super::input::{ImageInput, TextInput};
use super::layer::Matrix;
use super::prefetch::{Held, Prefetch, Upcoming};
use super::{Flip, Fusion, ModelError, Precision};
use crate::kernel::backend::{Backend, Read, Size, Updated, Weights};
use crate::kernel::cuda::phase::Phase;
use crate::kernel::cuda::Gpu;
use crate::kernel::transformer::Gradients as Views;
use crate::kernel::view::{View, ViewMut};
use crate::kernel::Cpu as Kernels;
use crate::parameter::{Flat, Layout, Parameter, Ranges, Role, Tower, Values};

/// A dfdx device whose storage is memory of a backend, used in the order in which dfdx and the backend are called.
pub trait DeviceStorage<B: Backend>: Ranges<f32> {
    fn view(storage: &Values<f32, Self>) -> View<'_, f32>;
    fn view_mut(storage: &mut Values<f32, Self>) -> ViewMut<'_, f32>;
    /// The error of dfdx that says the same.
    fn error(error: B::Error) -> Self::Err;
}

/// Makes a model compute whole encoders at a time on a GPU.
///
/// # Errors
/// The GPU has no kernels for the precision or for the sizes of the model, or no room.
pub fn fuse_on_gpu<D: DeviceStorage<G>, G: Gpu + 'static>(
    flip: Flip<f32, D>,
    gpu: G,
    how: Fusion,
) -> Result<Flip<f32, D>, ModelError> {
    if how.precision == Precision::F32 {
        return Err(ModelError::FusedF32OnGpu);
    }
    if let Some(lack) = gpu_lacks(&flip.config) {
        return Err(ModelError::NoGpuKernels(lack));
    }
    let kernels = Arc::new(how.kernels()?);
    fuse_on(flip, gpu, kernels, how)
}

/// Makes a model compute whole encoders at a time on a backend; `kernels` are those of the host.
pub(super) fn fuse_on<D: DeviceStorage<B>, B: Backend + 'static>(
    mut flip: Flip<f32, D>,
    backend: B,
    kernels: Arc<Kernels>,
    how: Fusion,
) -> Result<Flip<f32, D>, ModelError>
where
    ModelError: From<B::Error>,
    Fused<B>: Send + Sync,
{
    let parameters = flip.parameters.clone();
    let sizes = sizes(&parameters);
    let copies = sizes.iter().map(|&size| backend.new_copy(size)).collect::<Result<_, _>>()?;
    let encoders = Encoders::new(&backend, &flip.config, &parameters, how.recompute)?;
    let work = Mutex::new(Work { encoders, copies, stale: [true; Tower::ALL.len()] });
    let shared = Shared { backend, parameters, sizes, work, ahead: Mutex::default() };
    let embed_dim = flip.config.embed_dim;
    flip.engine = Some(Arc::new(Fused { shared: Arc::new(shared), kernels, embed_dim }));
    Ok(flip)
}

/// Encoders, loss and update of a model on a backend.
pub(super) struct Fused<B: Backend> {
    shared: Arc<Shared<B>>,
    kernels: Arc<Kernels>,
    embed_dim: usize,
}

/// Memory that a backward pass uses too.
struct Shared<B: Backend> {
    /// First, as it lets everything arrive before the memory for it is given back.
    backend: B,
    parameters: Arc<Vec<Parameter>>,
    sizes: Vec<Size>,
    work: Mutex<Work<B>>,
    ahead: Mutex<Ahead>,
}

struct Work<B: Backend> {
    encoders: Encoders<B>,
    /// Copies of parameters that kernels read, by their places.
    copies: Vec<Option<B::Copy>>,
    /// The copies of a tower may be behind its masters.
    stale: [bool; Tower::ALL.len()],
}

/// Images that are known before they are encoded.
#[derive(Default)]
struct Ahead {
    prefetch: Prefetch,
    /// Of the next step, to be sent when a backward pass has begun: then there is most to do beside it.
    due: Option<Held>,
}

impl<B: Backend> std::fmt::Debug for Fused<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fused")
    }
}

/// dfdx's errors have no room for a text of ours, so the log says it.
fn logged<D: DeviceStorage<B>, B: Backend>(error: B::Error) -> D::Err {
    tracing::error!(target: "flip::model", "{error}");
    D::error(error)
}

/// The master of each parameter that is here.
fn masters<'a, D: DeviceStorage<B>, B: Backend>(
    parameters: &[Parameter],
    masters: &'a Flat<f32, D>,
) -> Vec<Option<View<'a, f32>>> {
    let master = |(place, parameter): (usize, &Parameter)| {
        let range = masters.layout().range(place)?;
        let tower = D::view(masters.tower(parameter.tower));
        // Of a tower that does not learn there are no gradients.
        (range.end <= tower.len()).then(|| tower.part(range.start, range.len()))
    };
    parameters.iter().enumerate().map(master).collect()
}

impl<B: Backend> Shared<B> {
    fn lock(&self) -> MutexGuard<'_, Work<B>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `run` with the encoders and the parameters as they are now. The copies of a tower have been made anew where its masters
    /// have changed.
    fn with<D: DeviceStorage<B>, R>(
        &self,
        tower: Tower,
        values: &Flat<f32, D>,
        run: impl FnOnce(&mut Encoders<B>, &Weights<B>) -> Result<R, B::Error>,
    ) -> Result<R, B::Error> {
        let mut work = self.lock();
        let Work { encoders, copies, stale } = &mut *work;
        let masters = masters(&self.parameters, values);
        if stale[tower as usize] {
            for (place, _) in values.layout().ranges(tower) {
                if let (Some(copy), Some(master)) = (&mut copies[place], masters[place]) {
                    self.backend.fill_copy(copy, master)?;
                }
            }
            stale[tower as usize] = false;
            self.backend.mark(Phase::Copies)?;
        }
        let weights = Weights { backend: &self.backend, sizes: &self.sizes, masters, copies };
        run(encoders, &weights)
    }

    /// Sends images beside what the backend has been given to do.
    fn send(&self, encoders: &mut Encoders<B>, held: Option<Held>) -> Result<(), B::Error> {
        match held.filter(|held| !held.as_ref().is_empty()) {
            Some(held) => encoders.prefetch(&self.backend, Arc::new(held)),
            None => Ok(()),
        }
    }

    /// Sees to the images that come after those whose encoder has been launched.
    fn look_ahead(&self, input: &ImageInput, recorded: bool) -> Result<(), B::Error> {
        let mut ahead = self.ahead();
        let now = match ahead.prefetch.after(input, recorded) {
            Some(Upcoming::Now(held)) => held,
            Some(Upcoming::Next(held)) => {
                ahead.due = Some(held);
                return Ok(());
            }
            None => return Ok(()),
        };
        // A backward pass takes the two locks in the other order.
        drop(ahead);
        self.send(&mut self.lock().encoders, Some(now))
    }
}

/// Phases of an encoder: its forward and its backward pass.
fn phases(tower: Tower) -> [Phase; 2] {
    match tower {
        Tower::Image => [Phase::Images, Phase::ImagesBack],
        Tower::Text | Tower::Loss => [Phase::Texts, Phase::TextsBack],
    }
}

impl<B: Backend + 'static> Fused<B> {
    /// Embeddings [batch, embed_dim] that `encode` leaves, as a node whose backward pass is that of its pass.
    fn node<D: DeviceStorage<B>>(
        &self,
        tower: Tower,
        masters: &Flat<f32, D>,
        batch: usize,
        encode: impl FnOnce(&mut Encoders<B>, &Weights<B>, ViewMut<f32>) -> Result<Option<Pass<B>>, B::Error>,
    ) -> Result<Node<(usize, usize), f32, D>, D::Err> {
        let (device, shape) = (masters.device(), (batch, self.embed_dim));
        let mut z = device.allocate(shape.0 * shape.1)?;
        let [forward, backward] = phases(tower);
        let pass = self.shared.with(tower, masters, |encoders, weights| {
            let pass = encode(encoders, weights, D::view_mut(&mut z))?;
            self.shared.backend.mark(forward)?;
            Ok(pass)
        });
        let pass = pass.map_err(logged::<D, B>)?;
        let value = device.tensor(&z, 0..shape.0 * shape.1, shape)?;
        let (to, shared, masters) = (value.ghost(), self.shared.clone(), masters.clone());
        let back = pass.map(|pass| -> Back<f32, D> {
            Box::new(move |entries, all| {
                let dz = D::view(entries.get_or_alloc_mut(&to)?);
                let (places, ranges): (Vec<usize>, Vec<_>) = all.layout().clone().ranges(tower).unzip();
                let mut gradients = Views((0..shared.parameters.len()).map(|_| None).collect());
                let cut = D::view_mut(all.tower_mut(tower)).into_ranges(ranges.into_iter());
                places.into_iter().zip(cut).for_each(|(place, view)| gradients.0[place] = Some(view));
                let done = shared.with(tower, &masters, |encoders, weights| {
                    encoders.backward(weights, pass, dz, &mut gradients)?;
                    shared.backend.mark(backward)?;
                    let due = shared.ahead().due.take();
                    shared.send(encoders, due)
                });
                done.map_err(logged::<D, B>)
            })
        });
        Ok(Node { value, back })
    }
}

impl<D: DeviceStorage<B>, B: Backend + 'static> Engine<f32, D> for Fused<B>
where
    Fused<B>: Send + Sync,
{
    fn masters_change(&self) {
        self.shared.lock().stale = [true; Tower::ALL.len()];
    }

    fn copies_weights(&self) -> bool {
        let work = self.shared.lock();
        let weights =
            self.shared.sizes.iter().zip(&work.copies).filter(|(size, _)| size.read == Read::Weight);
        weights.into_iter().all(|(_, copy)| copy.is_some())
    }

    fn load(&self, masters: &Flat<f32, D>) -> Result<(), D::Err> {
        for tower in [Tower::Image, Tower::Text] {
            self.shared.with(tower, masters, |_, _| Ok(())).map_err(logged::<D, B>)?;
        }
        Ok(())
    }

    fn copy_weight(&self, place: usize, values: &[f32]) -> Result<(), D::Err> {
        let mut work = self.shared.lock();
        let Some(copy) = &mut work.copies[place] else { return Ok(()) };
        self.shared.backend.fill_copy_from_host(copy, values).map_err(logged::<D, B>)
    }

    fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    fn prefetches(&self) -> bool {
        B::PREFETCHES
    }

    fn prefetch(&self, prefetch: Prefetch) {
        *self.shared.ahead() = Ahead { prefetch, due: None };
    }

    fn lap(&self) -> Result<Vec<(Phase, f64)>, D::Err> {
        self.shared.backend.lap().map_err(logged::<D, B>)
    }

    fn arena_bytes(&self) -> usize {
        self.shared.lock().encoders.arena_bytes()
    }

    fn images(
        &self,
        masters: &Flat<f32, D>,
        input: &ImageInput,
        record: bool,
    ) -> Result<Node<(usize, usize), f32, D>, D::Err> {
        let node = self.node(Tower::Image, masters, input.kept.batch, |encoders, weights, z| {
            encoders.encode_images(weights, input, z, record, None)
        })?;
        if B::PREFETCHES {
            self.shared.look_ahead(input, record).map_err(logged::<D, B>)?;
        }
        Ok(node)
    }

    fn image_features(&self, masters: &Flat<f32, D>, input: &ImageInput) -> WithFeatures<f32, D> {
        let mut features = Vec::new();
        let node = self.node(Tower::Image, masters, input.kept.batch, |encoders, weights, z| {
            encoders.encode_images(weights, input, z, false, Some(&mut features))
        })?;
        Ok((node.value, features))
    }

    fn texts(
        &self,
        masters: &Flat<f32, D>,
        input: &TextInput,
        record: bool,
    ) -> Result<Node<(usize, usize), f32, D>, D::Err> {
        self.node(Tower::Text, masters, input.kept.batch, |encoders, weights, z| {
            encoders.encode_texts(weights, input, z, record)
        })
    }

    fn square_sum(&self, gradients: &Flat<f32, D>, places: &[usize]) -> Result<f64, D::Err> {
        let all = masters::<D, B>(&self.shared.parameters, gradients);
        let views: Vec<View<f32>> = places.iter().filter_map(|&place| all[place]).collect();
        let (backend, mut work) = (&self.shared.backend, self.shared.lock());
        let sum = backend.sum_of_squares(&mut work.encoders.state, &views).map_err(logged::<D, B>)?;
        backend.mark(Phase::Norm).map_err(logged::<D, B>)?;
        Ok(sum)
    }

    fn adamw(&self, update: Update<'_, f32, D>) -> Result<(), D::Err> {
        let Update { masters, moments: [first, second], gradients, rule } = update;
        let own = first.layout().clone();
        let layouts = [masters.layout().clone(), own.clone(), own.clone(), gradients.layout().clone()];
        let mut work = self.shared.lock();
        let Work { encoders, copies, stale } = &mut *work;
        let mut copies: Vec<Option<&mut B::Copy>> = copies.iter_mut().map(Option::as_mut).collect();
        let buffers = masters.towers_mut().into_iter().zip(first.towers_mut());
        let buffers = buffers.zip(second.towers_mut().into_iter().zip(gradients.towers_mut()));
        let mut parameters = Vec::with_capacity(self.shared.parameters.len());
        for (tower, ((p, m), (v, g))) in Tower::ALL.into_iter().zip(buffers) {
            let held = |layout: &Layout| -> Vec<Range<usize>> {
                let all = layout.ranges(tower);
                all.filter(|(place, _)| own.range(*place).is_some()).map(|(_, range)| range).collect()
            };
            let ranges = layouts.each_ref().map(|layout| held(layout).into_iter());
            let [p, m, v, g] = [p, m, v, g].map(D::view_mut);
            let [of_p, of_m, of_v, of_g] = ranges;
            let values = p.into_ranges(of_p).into_iter().zip(m.into_ranges(of_m));
            let values = values.zip(v.into_ranges(of_v).into_iter().zip(g.into_ranges(of_g)));
            for ((place, _), ((p, m), (v, g))) in own.ranges(tower).zip(values) {
                let (columns, decays) =
                    (self.shared.sizes[place].columns, self.shared.parameters[place].role.decays());
                parameters.push(Updated { p, m, v, g, copy: copies[place].take(), columns, decays });
            }
        }
        // Copies that are left were not updated.
        for tower in [Tower::Image, Tower::Text] {
            // Of a tower that does not learn, nothing has changed.
            if own.ranges(tower).next().is_none() {
                continue;
            }
            let behind =
                |(copy, of): (&Option<&mut B::Copy>, &Parameter)| copy.is_some() && of.tower == tower;
            stale[tower as usize] = copies.iter().zip(self.shared.parameters.iter()).any(behind);
        }
        drop(copies);
        let (backend, state) = (&self.shared.backend, &mut encoders.state);
        // Roles differ in the decay alone, which is that of weights or none.
        backend.adamw(state, parameters, &rule(Role::Weight)).map_err(logged::<D, B>)?;
        backend.mark(Phase::Update).map_err(logged::<D, B>)
    }

    fn loss(
        &self,
        images: &Matrix<f32, D>,
        texts: &Matrix<f32, D>,
        logit_scale: LogitScale,
    ) -> Result<Node<(), f32, D>, D::Err> {
        let (device, (n, width)) = (images.device(), *images.shape());
        let [z_images, z_texts] = [device.values(images)?, device.values(texts)?];
        let [mut dimages, mut dtexts] = [device.allocate(n * width)?, device.allocate(n * width)?];
        let factor = logit_scale.value.exp();
        let (dz, z) =
            ([D::view_mut(&mut dimages), D::view_mut(&mut dtexts)], [D::view(&z_images), D::view(&z_texts)]);
        let state = &mut self.shared.lock().encoders.state;
        let loss = self.shared.backend.contrastive(state, dz, z, factor as f32, width);
        let loss = loss.map_err(logged::<D, B>)?;
        let value = device.try_tensor_from_vec(vec![loss.loss as f32], ())?;
        // The parameter is the logarithm of the factor. Where it does not learn, its gradient is zero.
        let of_factor = if logit_scale.learns { loss.dscale * factor } else { 0.0 };
        let all = Layout::new(&self.shared.parameters, |_| true);
        let mut dscale = device.allocate(all.len(Tower::Loss))?;
        device.write(&mut dscale, 0, &[of_factor as f32])?;
        let (to, to_images, to_texts) = (value.ghost(), images.ghost(), texts.ghost());
        let (shared, device) = (self.shared.clone(), device.clone());
        let back: Back<f32, D> = Box::new(move |entries, all| {
            let backend = &shared.backend;
            // The gradient of the loss itself.
            let outer = device.cut(entries.get_or_alloc_mut(&to)?, 0..1)?;
            let add = |to: &mut Values<f32, D>, from: &Values<f32, D>| {
                let added = backend.add_scaled(D::view_mut(to), D::view(from), D::view(&outer));
                added.map_err(logged::<D, B>)
            };
            add(entries.get_or_alloc_mut(&to_images)?, &dimages)?;
            add(entries.get_or_alloc_mut(&to_texts)?, &dtexts)?;
            add(all.tower_mut(Tower::Loss), &dscale)?;
            backend.mark(Phase::Loss).map_err(logged::<D, B>)
        });
        Ok(Node { value, back: Some(back) })
    }
}
