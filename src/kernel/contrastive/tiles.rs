//! The loss and its gradients on a GPU: as [`super`] says, in tiles whose cosines products in full f32 make. At the
//! largest temperature logits reach 100, where a [`Bf16`](crate::kernel::element::Bf16) has a step of half.

use super::cuda::{add, diagonal, finish, gradients, Place, Running};
use super::Loss;
use crate::kernel::arena::Arena;
use crate::kernel::cuda::{Gpu, GpuError, View, ViewMut};
use crate::kernel::gemm::cuda::{add_product, product, Matrix};

/// Rows and columns of a tile: 32 MiB of cosines.
const ROWS: usize = 2048;
const COLUMNS: usize = 4096;

/// Scratch memory of the loss of n pairs.
struct Work<'a> {
    cosines: ViewMut<'a, f32>,
    largest: ViewMut<'a, f32>,
    sums: ViewMut<'a, f64>,
    by_image: ViewMut<'a, f32>,
    by_text: ViewMut<'a, f32>,
    of_pairs: ViewMut<'a, f64>,
    dscale: ViewMut<'a, f64>,
}

impl<'a> Work<'a> {
    fn take(arena: &mut Arena<'a>, (n, rows, columns): (usize, usize, usize)) -> Self {
        Work {
            cosines: arena.take(rows.min(n) * columns.min(n)),
            largest: arena.take(n),
            sums: arena.take(n),
            by_image: arena.take(n),
            by_text: arena.take(n),
            of_pairs: arena.take(n),
            dscale: arena.take(n),
        }
    }
}

/// Bytes of scratch memory of the loss of `pairs`.
pub fn bytes(pairs: usize) -> usize {
    Arena::measure(|arena| Work::take(arena, (pairs, ROWS, COLUMNS)))
}

/// Vectors of one side and the log-sum-exp of their logits with all of the other.
#[derive(Clone, Copy)]
struct Side<'a> {
    z: View<'a, f32>,
    lse: View<'a, f32>,
}

/// Sizes that all tiles share.
#[derive(Clone, Copy)]
struct Tiles<'a, G> {
    gpu: &'a G,
    n: usize,
    width: usize,
    scale: f32,
    rows: usize,
    columns: usize,
}

/// Memory of the loss, for as many pairs as came together so far.
pub struct Contrastive<G: Gpu> {
    memory: G::Buffer<u8>,
    pairs: usize,
    rows: usize,
    columns: usize,
}

impl<G: Gpu> Contrastive<G> {
    pub fn new(gpu: &G) -> Result<Self, GpuError> {
        Self::in_tiles(gpu, ROWS, COLUMNS)
    }

    /// In tiles of other sizes.
    pub fn in_tiles(gpu: &G, rows: usize, columns: usize) -> Result<Self, GpuError> {
        Ok(Contrastive { memory: gpu.zeros(0)?, pairs: 0, rows, columns })
    }

    /// The loss; `dimages` and `dtexts`, [n, width], = its gradients. Waits for the loss.
    pub fn loss_and_gradients(
        &mut self,
        gpu: &G,
        (mut dimages, mut dtexts): (ViewMut<f32>, ViewMut<f32>),
        (images, texts): (View<f32>, View<f32>),
        scale: f32,
        width: usize,
    ) -> Result<Loss, GpuError> {
        let n = images.len() / width;
        assert!(n * width == images.len() && texts.len() == images.len(), "as many texts as images");
        assert!(dimages.len() == images.len() && dtexts.len() == images.len(), "a gradient for every value");
        let &mut Contrastive { rows, columns, .. } = self;
        if n > self.pairs {
            let bytes = Arena::measure(|arena| Work::take(arena, (n, rows, columns)));
            self.memory = gpu.zeros(0)?;
            self.memory = gpu.zeros(bytes)?;
            self.pairs = n;
        }
        let mut work = Work::take(&mut Arena::new(gpu.view_mut(&mut self.memory)), (n, rows, columns));
        let tiles = Tiles { gpu, n, width, scale, rows, columns };
        diagonal(gpu, work.of_pairs.reborrow(), images, texts)?;
        tiles.log_sum_exp(&mut work, images, texts)?;
        gpu.copy(work.by_image.reborrow(), work.by_text.view())?;
        tiles.log_sum_exp(&mut work, texts, images)?;
        let Work { mut cosines, by_image, by_text, of_pairs, mut dscale, .. } = work;
        let a = Side { z: images, lse: by_image.view() };
        let b = Side { z: texts, lse: by_text.view() };
        // What the scale gets from the tiles of the texts is the same once more.
        tiles.gradient(&mut dtexts, &mut cosines, &mut dscale, b, a)?;
        tiles.gradient(&mut dimages, &mut cosines, &mut dscale, a, b)?;
        let sum = |x: &[f32]| x.iter().map(|&x| x as f64).sum::<f64>();
        let lse = sum(&gpu.read(a.lse)?) + sum(&gpu.read(b.lse)?);
        let pairs: f64 = gpu.read(of_pairs.view())?.iter().sum();
        let dscale = gpu.read(dscale.view())?.iter().sum();
        Ok(Loss { loss: (lse - 2.0 * scale as f64 * pairs) / (2 * n) as f64, dscale })
    }
}

impl<G: Gpu> Tiles<'_, G> {
    /// by_text = the log-sum-exp of the logits of every row of `a` with all of `b`.
    fn log_sum_exp(&self, work: &mut Work, a: View<f32>, b: View<f32>) -> Result<(), GpuError> {
        let &Tiles { gpu, n, width, scale, .. } = self;
        gpu.write(work.largest.reborrow(), &vec![f32::NEG_INFINITY; n])?;
        gpu.clear(work.sums.reborrow())?;
        for row in (0..n).step_by(self.rows) {
            let rows = self.rows.min(n - row);
            let (largest, sums) = (work.largest.part(row, rows), work.sums.part(row, rows));
            let mut running = Running { largest, sums };
            for column in (0..n).step_by(self.columns) {
                let columns = self.columns.min(n - column);
                let mut tile = work.cosines.part(0, rows * columns);
                let left = Matrix::rows(a.part(row * width, rows * width), width);
                let right = Matrix::columns(b.part(column * width, columns * width), width);
                product(gpu, tile.reborrow(), left, right, (rows, width, columns))?;
                add(gpu, &mut running, tile.view(), scale)?;
            }
            finish(gpu, work.by_text.part(row, rows), &running)?;
        }
        Ok(())
    }

    /// da = the gradient of side `a`; dscale = what each of its rows contributes to that of the scale.
    fn gradient(
        &self,
        da: &mut ViewMut<f32>,
        cosines: &mut ViewMut<f32>,
        dscale: &mut ViewMut<f64>,
        a: Side,
        b: Side,
    ) -> Result<(), GpuError> {
        let &Tiles { gpu, n, width, scale, .. } = self;
        gpu.clear(da.reborrow())?;
        gpu.clear(dscale.reborrow())?;
        for row in (0..n).step_by(self.rows) {
            let rows = self.rows.min(n - row);
            for column in (0..n).step_by(self.columns) {
                let columns = self.columns.min(n - column);
                let mut tile = cosines.part(0, rows * columns);
                let left = Matrix::rows(a.z.part(row * width, rows * width), width);
                let others = b.z.part(column * width, columns * width);
                let right = Matrix::columns(others, width);
                product(gpu, tile.reborrow(), left, right, (rows, width, columns))?;
                let lse = (a.lse.part(row, rows), b.lse.part(column, columns));
                let place = Place { row, column, pairs: n };
                gradients(gpu, tile.reborrow(), dscale.part(row, rows), lse, place, scale)?;
                let to = da.part(row * width, rows * width);
                let (left, right) = (Matrix::rows(tile.view(), columns), Matrix::rows(others, width));
                add_product(gpu, to, left, right, (rows, columns, width))?;
            }
        }
        Ok(())
    }
}
