//! A stack of blocks on a backend: its parameters, and both passes.

use flip::kernel::arena::Arena;
use flip::kernel::backend::{Backend, Read, Size, Weights};
use flip::kernel::transformer::{Activations, Block, Gradients, Keep, Shape, Stack};

/// Sizes of the parameters of all blocks, and the place of each among them.
pub fn parameters(shape: &Shape) -> (Vec<Size>, Vec<Block<usize>>) {
    let (w, h) = (shape.width, shape.hidden);
    let mut sizes = Vec::new();
    let mut place = |name: &str| {
        let (rows, columns, read) = match name {
            "attention.qkv.weight" => (w, 3 * w, Read::Weight),
            "attention.qkv.bias" => (1, 3 * w, Read::Rounded),
            "attention.out.weight" => (w, w, Read::Weight),
            "mlp.up.weight" => (w, h, Read::Weight),
            "mlp.up.bias" => (1, h, Read::Rounded),
            "mlp.down.weight" => (h, w, Read::Weight),
            _ => (1, w, Read::Master),
        };
        sizes.push(Size { rows, columns, read });
        sizes.len() - 1
    };
    let blocks = (0..shape.depth).map(|_| Block::from_names(&mut place)).collect();
    (sizes, blocks)
}

/// Parameters in the memory of a backend.
pub struct Held<B: Backend> {
    pub sizes: Vec<Size>,
    pub blocks: Vec<Block<usize>>,
    masters: Vec<B::Buffer<f32>>,
    copies: Vec<Option<B::Copy>>,
}

impl<B: Backend> Held<B> {
    pub fn new(backend: &B, shape: &Shape, values: &[Vec<f32>]) -> Self {
        let (sizes, blocks) = parameters(shape);
        let copy = |(&size, values): (&Size, &Vec<f32>)| {
            let mut copy = backend.new_copy(size).unwrap()?;
            backend.fill_copy_from_host(&mut copy, values).unwrap();
            Some(copy)
        };
        let copies = sizes.iter().zip(values).map(copy).collect();
        let masters = values.iter().map(|values| backend.upload(values).unwrap()).collect();
        Held { sizes, blocks, masters, copies }
    }

    pub fn weights<'a>(&'a self, backend: &'a B) -> Weights<'a, B> {
        let masters = self.masters.iter().map(|master| Some(backend.view(master))).collect();
        Weights { backend, sizes: &self.sizes, masters, copies: &self.copies }
    }
}

/// Results of both passes.
#[derive(PartialEq)]
pub struct Run {
    pub x: Vec<f32>,
    pub dx: Vec<f32>,
    pub gradients: Vec<Vec<f32>>,
}

/// Tokens `x` through all blocks, and the gradient `dout` back where a backward pass follows.
pub fn run<B: Backend>(
    backend: &B,
    shape: &Shape,
    values: &[Vec<f32>],
    (batch, tokens, keep): (usize, usize, Keep),
    x: &[f32],
    dout: &[f32],
) -> Run {
    let held = Held::new(backend, shape, values);
    let (weights, stack) = (held.weights(backend), Stack { shape, blocks: &held.blocks });
    let bytes = Activations::<B::Element>::bytes(B::NEEDS, shape, batch, tokens, keep);
    // Whatever is left over from another use must not matter.
    let mut memory = backend.upload(&vec![0xffu8; bytes]).unwrap();
    let mut arena = Arena::new(backend.view_mut(&mut memory));
    let mut activations = Activations::<B::Element>::take(&mut arena, B::NEEDS, shape, batch, tokens, keep);
    backend.write(activations.x.reborrow(), x).unwrap();
    stack.forward(&weights, &mut activations).unwrap();
    let x = backend.read(activations.x.view()).unwrap();
    if keep == Keep::Nothing {
        return Run { x, dx: Vec::new(), gradients: Vec::new() };
    }
    backend.write(activations.backward().dx, dout).unwrap();
    let mut gradients: Vec<_> =
        values.iter().map(|values| backend.zeros::<f32>(values.len()).unwrap()).collect();
    let views = gradients.iter_mut().map(|gradient| Some(backend.view_mut(gradient))).collect();
    stack.backward(&weights, &mut activations, &mut Gradients(views)).unwrap();
    let dx = backend.read(activations.backward().dx.view()).unwrap();
    Run { x, dx, gradients: gradients.iter().map(|gradient| backend.download(gradient).unwrap()).collect() }
}
