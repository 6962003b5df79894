//! The text encoder on a machine.

use super::arena::{Arenas, Purpose};
use super::head::{self, Head, HeadParts};
use super::{HeadSizes, Pass};
use crate::kernel::cuda::copies::{Copies, Reads};
use crate::kernel::cuda::room::Room;
use crate::kernel::cuda::{Machine, MachineError, View, ViewMut};
use crate::kernel::tokens::{
    self,
    cuda::{Scatter, ScatterViews},
};
use crate::kernel::transformer::cuda::{Activations, Stack};
use crate::kernel::transformer::{Keep, Part, Shape};

/// Sizes and options of a text encoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sizes {
    pub shape: Shape,
    pub vocabulary: usize,
    /// Positions of a caption.
    pub context: usize,
    /// Whether all tokens are pooled; else one that the input names.
    pub mean: bool,
    pub head: HeadSizes,
}

/// What goes in, checked by the caller. Kept tokens of a causal encoder come in the order of the caption.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// [batch, kept].
    pub tokens: &'a [u32],
    /// [batch, kept]: where in its caption each token was.
    pub positions: &'a [u32],
    /// `[batch]`: the token that stands for its caption; none where all do.
    pub places: Option<&'a [u32]>,
    pub batch: usize,
    pub kept: usize,
}

/// Weights as kernels read them, and memory.
pub struct TextEncoder<M: Machine> {
    sizes: Sizes,
    stack: Stack,
    head: Head,
    pub copies: Copies<M>,
    arenas: Arenas<M>,
    keep: Keep,
}

/// The memory of a pass.
struct Parts<'a> {
    activations: Activations<'a>,
    head: HeadParts<'a>,
    tokens: ViewMut<'a, u32>,
    positions: ViewMut<'a, u32>,
    named: ViewMut<'a, u32>,
    starts: ViewMut<'a, u32>,
    order: ViewMut<'a, u32>,
}

/// Numbers of the parameters: the table of tokens, positions; then the blocks.
const TOKENS: usize = 0;
const POSITIONS: usize = 1;
const STACK: usize = 2;

impl Sizes {
    fn head(&self) -> Head {
        let first = STACK + self.shape.depth * Part::ALL.len();
        Head { sizes: self.head, width: self.shape.width, first, mean: self.mean }
    }

    /// What kernels read of each parameter, and its length: tokens, positions, blocks, final norm, projection.
    pub fn parameters(&self) -> Vec<(Reads, usize)> {
        let width = self.shape.width;
        let tables = [(Reads::Half, self.vocabulary * width), (Reads::Float, self.context * width)];
        tables.into_iter().chain(Stack::reads(&self.shape)).chain(self.head().reads()).collect()
    }

    /// Bytes of the arena of a pass that keeps `keep`.
    pub fn bytes(&self, batch: usize, kept: usize, keep: Keep) -> usize {
        let purpose = Purpose { batch, kept, grid: 0, floats: false, keep };
        Room::measure(|room| self.take(room, purpose))
    }

    fn take<'a>(&self, room: &mut Room<'a>, Purpose { batch, kept, keep, .. }: Purpose) -> Parts<'a> {
        let rows = batch * kept;
        let backward = |len| if keep == Keep::Nothing { 0 } else { len };
        Parts {
            activations: Activations::take(room, &self.shape, batch, kept, keep),
            head: self.head().take(room, batch, kept, keep),
            tokens: room.take(rows),
            positions: room.take(rows),
            named: room.take(backward(rows)),
            starts: room.take(backward(rows + 1)),
            order: room.take(backward(rows)),
        }
    }
}

impl<M: Machine> TextEncoder<M> {
    /// One whose parameters have yet to be loaded; its recorded passes keep `keep`.
    pub fn new(machine: &M, sizes: Sizes, keep: Keep) -> Result<Self, MachineError> {
        let copies = Copies::new(machine, &sizes.parameters())?;
        let stack = Stack { shape: sizes.shape, first: STACK };
        Ok(TextEncoder { sizes, stack, head: sizes.head(), copies, arenas: Arenas::new(), keep })
    }

    /// Bytes of the arenas that are not in use.
    pub fn arena_bytes(&self) -> usize {
        self.arenas.bytes()
    }

    /// z = unit embeddings [batch, embed_dim], and the way back where `record`.
    pub fn forward(
        &mut self,
        machine: &M,
        input: Input,
        z: ViewMut<f32>,
        record: bool,
    ) -> Result<Option<Pass<M>>, MachineError> {
        let Input { batch, kept, .. } = input;
        let keep = if record { self.keep } else { Keep::Nothing };
        let purpose = Purpose { batch, kept, grid: 0, floats: false, keep };
        let bytes = Room::measure(|room| self.sizes.take(room, purpose));
        let mut memory = self.arenas.take(machine, purpose, bytes)?;
        let mut parts = self.sizes.take(&mut Room::new(machine.view_mut(&mut memory)), purpose);
        machine.write(parts.tokens.again(), input.tokens)?;
        machine.write(parts.positions.again(), input.positions)?;
        if let Some(places) = input.places {
            machine.write(parts.head.places.again(), places)?;
        }
        let activations = &mut parts.activations;
        let table = (self.copies.half(machine, TOKENS), parts.tokens.read());
        let positions = (self.copies.float(machine, POSITIONS), parts.positions.read());
        tokens::cuda::gather(machine, activations.x.again(), table, positions, self.sizes.shape.width)?;
        self.stack.forward(machine, &self.copies, activations)?;
        self.head.forward(machine, &self.copies, activations, &mut parts.head, kept)?;
        machine.copy(z, parts.head.z.read())?;
        if record {
            let (ids, places) = (input.tokens.to_vec(), input.positions.to_vec());
            return Ok(Some(Pass { purpose, memory, ids, places }));
        }
        self.arenas.give_back(purpose, bytes, memory);
        Ok(None)
    }

    /// Adds to the gradients of all parameters what the gradient `dz` [batch, embed_dim] of the embeddings contributes.
    pub fn backward(
        &mut self,
        machine: &M,
        pass: Pass<M>,
        dz: View<f32>,
        gradients: &mut [ViewMut<f32>],
    ) -> Result<(), MachineError> {
        let Pass { purpose, mut memory, ids, places } = pass;
        let first = self.head.first;
        assert_eq!(gradients.len(), first + head::PARAMETERS, "gradients of a text encoder");
        let mut parts = self.sizes.take(&mut Room::new(machine.view_mut(&mut memory)), purpose);
        let (activations, of_head) = (&mut parts.activations, &mut gradients[first..]);
        let head = &mut parts.head;
        self.head.backward(machine, &self.copies, activations, head, of_head, dz, purpose.kept)?;
        self.stack.backward(machine, &self.copies, activations, &mut gradients[STACK..first])?;
        for (to, named) in [(TOKENS, &ids), (POSITIONS, &places)] {
            let dx = parts.activations.dx.read();
            let scatter = Scatter::new(named, |row| row);
            let lists = scatter.named.len();
            machine.write(parts.named.part(0, lists), &scatter.named)?;
            machine.write(parts.starts.part(0, lists + 1), &scatter.starts)?;
            machine.write(parts.order.again(), &scatter.order)?;
            let views = ScatterViews {
                named: parts.named.read().part(0, lists),
                starts: parts.starts.read().part(0, lists + 1),
                order: parts.order.read(),
            };
            tokens::cuda::scatter_add(machine, gradients[to].again(), views, dx, self.sizes.shape.width)?;
        }
        let bytes = Room::measure(|room| self.sizes.take(room, purpose));
        self.arenas.give_back(purpose, bytes, memory);
        Ok(())
    }
}
