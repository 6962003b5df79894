//! The image encoder on a machine.

use super::arena::{Arenas, Purpose};
use super::head::{self, Head, HeadParts};
use super::incoming::{HeldBytes, Incoming};
use super::{HeadSizes, Pass};
use crate::kernel::cuda::copies::{Copies, Reads};
use crate::kernel::cuda::room::Room;
use crate::kernel::cuda::{Machine, MachineError, View, ViewMut};
use crate::kernel::element::Bf16;
use crate::kernel::gemm::cuda::{add_product, product, Matrix, Weight};
use crate::kernel::tokens::cuda::{Added, Scatter, ScatterViews, Sequences};
use crate::kernel::transformer::cuda::{Activations, Stack};
use crate::kernel::transformer::{Keep, Part, Shape};
use crate::kernel::{gemm, layer_norm, patches, tokens};

/// Sizes and options of an image encoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sizes {
    pub shape: Shape,
    /// Values of a patch: pixels times channels.
    pub patch_values: usize,
    /// Patches along a side of the image that learned positions are of.
    pub grid: usize,
    pub patch_bias: bool,
    /// Whether positions are parameters, the class token's first; else they are given.
    pub learned_positions: bool,
    /// Whether there is a norm before the blocks.
    pub pre_norm: bool,
    /// Whether all tokens are pooled; else the class token.
    pub mean: bool,
    pub head: HeadSizes,
    /// Of the three channels of bytes.
    pub mean_of_pixels: [f32; 3],
    pub deviation_of_pixels: [f32; 3],
}

/// Values of patches.
#[derive(Debug, Clone, Copy)]
pub enum Patches<'a> {
    /// Stored bytes, to be normalised.
    Bytes(&'a [u8]),
    /// Normalised.
    Floats(&'a [f32]),
}

/// What goes in, checked by the caller: kept patches and where each was.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// [batch, kept, patch values].
    pub patches: Patches<'a>,
    /// [batch, kept].
    pub ids: &'a [u32],
    pub batch: usize,
    pub kept: usize,
    /// Patches along a side of the image.
    pub grid: usize,
    /// Asked once for a grid: the positions of its patches, [grid^2, width]; of learned positions, for another grid than
    /// their own, the matrix that makes those of this grid of them, [1 + grid^2, 1 + own grid^2].
    pub positions: &'a dyn Fn() -> Vec<f32>,
}

/// Weights as kernels read them, and memory.
pub struct ImageEncoder<M: Machine> {
    sizes: Sizes,
    list: List,
    pub copies: Copies<M>,
    arenas: Arenas<M>,
    incoming: Incoming<M>,
    /// What [`Input::positions`] gave for a grid.
    tables: Vec<(usize, M::Buffer<f32>)>,
    keep: Keep,
}

/// Where the parameters are in the list of all.
#[derive(Debug, Clone, Copy)]
struct List {
    bias: Option<usize>,
    class: usize,
    positions: Option<usize>,
    pre_norm: Option<usize>,
    stack: Stack,
    head: Head,
}

/// The memory of a pass.
struct Parts<'a> {
    activations: Activations<'a>,
    head: HeadParts<'a>,
    floats: ViewMut<'a, f32>,
    /// [batch * kept, patch values].
    pixels: ViewMut<'a, Bf16>,
    ids: ViewMut<'a, u32>,
    /// [1 + grid^2, width], made of learned positions of another grid; then the gradient of it.
    table: ViewMut<'a, f32>,
    pre_normal: ViewMut<'a, Bf16>,
    pre_rstd: ViewMut<'a, f32>,
    /// A one for each sequence.
    ones: ViewMut<'a, f32>,
    named: ViewMut<'a, u32>,
    starts: ViewMut<'a, u32>,
    order: ViewMut<'a, u32>,
}

impl Sizes {
    fn list(&self) -> (List, Vec<(Reads, usize)>) {
        let width = self.shape.width;
        let mut all = vec![(Reads::Half, self.patch_values * width)];
        let mut next = |there: bool, parameters: &[(Reads, usize)]| {
            let first = all.len();
            all.extend(parameters.iter().filter(|_| there));
            there.then_some(first)
        };
        let vector = (Reads::Float, width);
        let bias = next(self.patch_bias, &[vector]);
        let class = next(true, &[vector]).unwrap_or_default();
        let positions = next(self.learned_positions, &[(Reads::Float, (1 + self.grid * self.grid) * width)]);
        let pre_norm = next(self.pre_norm, &[vector; 2]);
        let first = next(true, &Stack::reads(&self.shape)).unwrap_or_default();
        let stack = Stack { shape: self.shape, first };
        let first = first + self.shape.depth * Part::ALL.len();
        let head = Head { sizes: self.head, width, first, mean: self.mean };
        all.extend(head.reads());
        (List { bias, class, positions, pre_norm, stack, head }, all)
    }

    /// What kernels read of each parameter, and its length: patch embedding and bias, class token, positions, norm before
    /// the blocks, blocks, final norm, projection; what an encoder lacks is left out.
    pub fn parameters(&self) -> Vec<(Reads, usize)> {
        self.list().1
    }

    /// Bytes of the memory that stored bytes arrive in, which all passes share.
    pub fn incoming_bytes(&self, batch: usize, kept: usize) -> usize {
        batch * kept * self.patch_values
    }

    /// Bytes of the arena of a pass that keeps `keep`.
    pub fn bytes(&self, batch: usize, kept: usize, grid: usize, keep: Keep) -> usize {
        let purpose = Purpose { batch, kept, grid, floats: false, keep };
        Room::measure(|room| self.take(room, purpose))
    }

    fn take<'a>(&self, room: &mut Room<'a>, purpose: Purpose) -> Parts<'a> {
        let Purpose { batch, kept, grid, floats, keep } = purpose;
        let (width, tokens, rows) = (self.shape.width, 1 + kept, batch * kept);
        let values = rows * self.patch_values;
        let backward = |len| if keep == Keep::Nothing { 0 } else { len };
        let pre = if self.pre_norm { batch * tokens } else { 0 };
        let table = if self.learned_positions && grid != self.grid { (1 + grid * grid) * width } else { 0 };
        let named = if self.learned_positions { rows } else { 0 };
        Parts {
            activations: Activations::take(room, &self.shape, batch, tokens, keep),
            head: self.list().0.head.take(room, batch, tokens, keep),
            floats: room.take(if floats { values } else { 0 }),
            pixels: room.take(values),
            ids: room.take(rows),
            table: room.take(table),
            pre_normal: room.take(pre * width),
            pre_rstd: room.take(pre),
            ones: room.take(backward(batch)),
            named: room.take(backward(named)),
            starts: room.take(backward(named + 1)),
            order: room.take(backward(named)),
        }
    }
}

impl<M: Machine> ImageEncoder<M> {
    /// One whose parameters have yet to be loaded; its recorded passes keep `keep`.
    pub fn new(machine: &M, sizes: Sizes, keep: Keep) -> Result<Self, MachineError> {
        let (list, parameters) = sizes.list();
        let copies = Copies::new(machine, &parameters)?;
        let (arenas, incoming) = (Arenas::new(), Incoming::new(machine)?);
        Ok(ImageEncoder { sizes, list, copies, arenas, incoming, tables: Vec::new(), keep })
    }

    /// Bytes of the arenas that are not in use, and of the memory that images arrive in.
    pub fn arena_bytes(&self) -> usize {
        self.arenas.bytes() + self.incoming.bytes()
    }

    /// Sends the stored bytes of patches that a coming pass begins with, beside what is launched.
    pub fn send_ahead(&mut self, machine: &M, bytes: HeldBytes) -> Result<(), MachineError> {
        self.incoming.send(machine, bytes)
    }

    fn patch<'a>(&self, machine: &M, copies: &'a Copies<M>) -> Weight<'a> {
        Weight { values: copies.half(machine, 0), k: self.sizes.patch_values, n: self.sizes.shape.width }
    }

    /// z = unit embeddings [batch, embed_dim], and the way back where `record`.
    pub fn forward(
        &mut self,
        machine: &M,
        input: Input,
        z: ViewMut<f32>,
        record: bool,
    ) -> Result<Option<Pass<M>>, MachineError> {
        let Input { batch, kept, grid, .. } = input;
        let keep = if record { self.keep } else { Keep::Nothing };
        let floats = matches!(input.patches, Patches::Floats(_));
        let purpose = Purpose { batch, kept, grid, floats, keep };
        let bytes = Room::measure(|room| self.sizes.take(room, purpose));
        let mut memory = self.arenas.take(machine, purpose, bytes)?;
        let mut parts = self.sizes.take(&mut Room::new(machine.view_mut(&mut memory)), purpose);
        self.embed(machine, input, &mut parts)?;
        let List { pre_norm, stack, head, .. } = self.list;
        let activations = &mut parts.activations;
        if let Some(norm) = pre_norm {
            let (scale, shift) = (self.copies.float(machine, norm), self.copies.float(machine, norm + 1));
            let saved = (parts.pre_normal.again(), parts.pre_rstd.again());
            let (x, eps) = (activations.x.again(), self.sizes.shape.norm_eps);
            layer_norm::cuda::in_place(machine, x, saved.0, saved.1, scale, shift, eps)?;
        }
        stack.forward(machine, &self.copies, activations)?;
        if !head.mean {
            machine.clear(parts.head.places.again())?;
        }
        head.forward(machine, &self.copies, activations, &mut parts.head, 1 + kept)?;
        machine.copy(z, parts.head.z.read())?;
        if record {
            let ids = if self.sizes.learned_positions { input.ids.to_vec() } else { Vec::new() };
            return Ok(Some(Pass { purpose, memory, ids, places: Vec::new() }));
        }
        self.arenas.give_back(purpose, bytes, memory);
        Ok(None)
    }

    /// Tokens of the patches, in `activations.x`.
    fn embed(&mut self, machine: &M, input: Input, parts: &mut Parts) -> Result<(), MachineError> {
        let Input { batch, kept, grid, .. } = input;
        let Sizes { shape: Shape { width, .. }, grid: own, learned_positions, .. } = self.sizes;
        match input.patches {
            Patches::Bytes(bytes) => {
                let (mean, deviation) = (self.sizes.mean_of_pixels, self.sizes.deviation_of_pixels);
                let to = parts.pixels.again();
                self.incoming.read(machine, bytes, |bytes| {
                    patches::cuda::from_bytes(machine, to, bytes, mean, deviation)
                })?;
            }
            Patches::Floats(floats) => {
                machine.write(parts.floats.again(), floats)?;
                patches::cuda::from_floats(machine, parts.pixels.again(), parts.floats.read())?;
            }
        }
        machine.write(parts.ids.again(), input.ids)?;
        if !learned_positions || grid != own {
            self.table(machine, grid, input.positions)?;
        }
        let given = self.tables.iter().find(|(of, _)| *of == grid).map(|(_, table)| machine.view(table));
        let patches = grid * grid;
        let (class_position, positions) = match (self.list.positions, given) {
            (None, Some(table)) => (None, table),
            (Some(learned), given) => {
                let learned = self.copies.float(machine, learned);
                let table = match given {
                    Some(matrix) if grid != own => {
                        let (rows, from) = (1 + patches, 1 + own * own);
                        let (left, right) = (Matrix::rows(matrix, from), Matrix::rows(learned, width));
                        product(machine, parts.table.again(), left, right, (rows, from, width))?;
                        parts.table.read()
                    }
                    _ => learned,
                };
                (Some(table.part(0, width)), table.part(width, patches * width))
            }
            (None, None) => unreachable!("a table was made above"),
        };
        let added = Added {
            bias: self.list.bias.map(|bias| self.copies.float(machine, bias)),
            positions,
            class_token: self.copies.float(machine, self.list.class),
            class_position,
        };
        let Activations { x, wide, .. } = &mut parts.activations;
        // Not rounded: it becomes part of the residual stream.
        let mut room = wide.as_room::<f32>();
        let mut embedded = room.part(0, batch * kept * width);
        let patch = self.patch(machine, &self.copies);
        gemm::cuda::forward(machine, embedded.again(), parts.pixels.read(), patch)?;
        let of = Sequences { batch, kept, prefix: 1, width };
        tokens::cuda::from_patches(machine, x.again(), embedded.read(), added, parts.ids.read(), of)
    }

    /// Has what belongs to a grid in the machine's memory.
    fn table(
        &mut self,
        machine: &M,
        grid: usize,
        positions: &dyn Fn() -> Vec<f32>,
    ) -> Result<(), MachineError> {
        if self.tables.iter().all(|(of, _)| *of != grid) {
            self.tables.push((grid, machine.upload(&positions())?));
        }
        Ok(())
    }

    /// Adds to the gradients of all parameters what the gradient `dz` [batch, embed_dim] of the embeddings contributes.
    pub fn backward(
        &mut self,
        machine: &M,
        pass: Pass<M>,
        dz: View<f32>,
        gradients: &mut [ViewMut<f32>],
    ) -> Result<(), MachineError> {
        let Pass { purpose, mut memory, ids, .. } = pass;
        let Purpose { batch, kept, .. } = purpose;
        let (width, tokens) = (self.sizes.shape.width, 1 + kept);
        let List { bias, pre_norm, stack, head, .. } = self.list;
        assert_eq!(gradients.len(), head.first + head::PARAMETERS, "gradients of an image encoder");
        let mut parts = self.sizes.take(&mut Room::new(machine.view_mut(&mut memory)), purpose);
        let activations = &mut parts.activations;
        let of_head = &mut gradients[head.first..];
        head.backward(machine, &self.copies, activations, &mut parts.head, of_head, dz, tokens)?;
        stack.backward(machine, &self.copies, activations, &mut gradients[stack.first..head.first])?;
        let Activations { dx, rounded, partial, .. } = activations;
        if let Some(norm) = pre_norm {
            // The last block left a rounded copy of dx.
            machine.clear(dx.again())?;
            let (dscale, dshift) = gradients[norm..norm + 2].split_at_mut(1);
            layer_norm::cuda::backward(
                machine,
                dx.again(),
                None,
                dscale[0].again(),
                dshift[0].again(),
                partial.again(),
                rounded.read(),
                (parts.pre_normal.read(), parts.pre_rstd.read()),
                self.copies.float(machine, norm),
            )?;
        }
        self.table_backward(machine, purpose, &ids, &mut parts, gradients)?;
        let Activations { dx, normed, partial, .. } = &mut parts.activations;
        let mut dy = normed.part(0, batch * kept * width);
        let of = Sequences { batch, kept, prefix: 1, width };
        tokens::cuda::patch_rows(machine, dy.again(), dx.read(), of)?;
        let (dpatch, rest) = gradients.split_at_mut(1);
        let dbias = bias.map(|_| rest[0].again());
        let x = (parts.pixels.read(), self.sizes.patch_values);
        gemm::cuda::weight_gradient(
            machine,
            dpatch[0].again(),
            dbias,
            partial.again(),
            x,
            (dy.read(), width),
        )?;
        let bytes = Room::measure(|room| self.sizes.take(room, purpose));
        self.arenas.give_back(purpose, bytes, memory);
        Ok(())
    }

    /// The gradients of the class token and of learned positions.
    fn table_backward(
        &mut self,
        machine: &M,
        Purpose { batch, kept, grid, .. }: Purpose,
        ids: &[u32],
        parts: &mut Parts,
        gradients: &mut [ViewMut<f32>],
    ) -> Result<(), MachineError> {
        let Parts { activations, table, ones, named, starts, order, .. } = parts;
        let (width, tokens, own) = (self.sizes.shape.width, 1 + kept, self.sizes.grid);
        let dx = activations.dx.read();
        // The sum over the first tokens of all sequences is a product with ones: cuBLASLt sums long columns quickly.
        machine.write(ones.again(), &vec![1.0; batch])?;
        let left = Matrix::rows(ones.read(), batch);
        let firsts = Matrix { values: dx, stride: tokens * width, transposed: false };
        add_product(machine, gradients[self.list.class].again(), left, firsts, (1, batch, width))?;
        let Some(positions) = self.list.positions else { return Ok(()) };

        let matrix = self.tables.iter().find(|(of, _)| *of == grid && grid != own).map(|(_, table)| table);
        let mut to = match matrix {
            Some(_) => {
                machine.clear(table.again())?;
                table.again()
            }
            None => gradients[positions].again(),
        };
        add_product(machine, to.part(0, width), left, firsts, (1, batch, width))?;
        let scatter = Scatter::new(ids, |r| r / kept * tokens + 1 + r % kept);
        let (lists, rows) = (scatter.named.len(), scatter.order.len());
        machine.write(named.part(0, lists), &scatter.named)?;
        machine.write(starts.part(0, lists + 1), &scatter.starts)?;
        machine.write(order.part(0, rows), &scatter.order)?;
        let views = ScatterViews {
            named: named.read().part(0, lists),
            starts: starts.read().part(0, lists + 1),
            order: order.read(),
        };
        tokens::cuda::scatter_add(machine, to.part(width, grid * grid * width), views, dx, width)?;
        let Some(matrix) = matrix else { return Ok(()) };
        let (from, rows) = (1 + own * own, 1 + grid * grid);
        let (left, right) = (Matrix::columns(machine.view(matrix), from), Matrix::rows(table.read(), width));
        add_product(machine, gradients[positions].again(), left, right, (from, rows, width))
    }
}
