//! The loss and its gradients on a GPU: as [`super`] says, in tiles whose cosines products in full f32 make. At the
//! largest temperature logits reach 100, where a [`Bf16`](crate::kernel::element::Bf16) has a step of half.

use super::cuda::{add, diagonal, finish, gradients, Place, Running};
use super::Loss;
use crate::kernel::cuda::room::Room;
use crate::kernel::cuda::{Machine, MachineError, View, ViewMut};
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
    of_scale: ViewMut<'a, f64>,
}

impl<'a> Work<'a> {
    fn take(room: &mut Room<'a>, (n, rows, columns): (usize, usize, usize)) -> Self {
        Work {
            cosines: room.take(rows.min(n) * columns.min(n)),
            largest: room.take(n),
            sums: room.take(n),
            by_image: room.take(n),
            by_text: room.take(n),
            of_pairs: room.take(n),
            of_scale: room.take(n),
        }
    }
}

/// Bytes of scratch memory of the loss of `pairs`.
pub fn bytes(pairs: usize) -> usize {
    Room::measure(|room| Work::take(room, (pairs, ROWS, COLUMNS)))
}

/// Vectors of one side and the log-sum-exp of their logits with all of the other.
#[derive(Clone, Copy)]
struct Side<'a> {
    z: View<'a, f32>,
    lse: View<'a, f32>,
}

/// What all tiles have in common.
#[derive(Clone, Copy)]
struct Tiles<'a, M> {
    machine: &'a M,
    n: usize,
    width: usize,
    scale: f32,
    rows: usize,
    columns: usize,
}

/// Memory of the loss, for as many pairs as came together so far.
pub struct Contrastive<M: Machine> {
    memory: M::Buffer<u8>,
    pairs: usize,
    rows: usize,
    columns: usize,
}

impl<M: Machine> Contrastive<M> {
    pub fn new(machine: &M) -> Result<Self, MachineError> {
        Self::in_tiles(machine, ROWS, COLUMNS)
    }

    /// In tiles of other sizes.
    pub fn in_tiles(machine: &M, rows: usize, columns: usize) -> Result<Self, MachineError> {
        Ok(Contrastive { memory: machine.zeros(0)?, pairs: 0, rows, columns })
    }

    /// The loss; `dimages` and `dtexts`, [n, width], = its gradients. Waits for the loss.
    pub fn loss_and_gradients(
        &mut self,
        machine: &M,
        (mut dimages, mut dtexts): (ViewMut<f32>, ViewMut<f32>),
        (images, texts): (View<f32>, View<f32>),
        scale: f32,
        width: usize,
    ) -> Result<Loss, MachineError> {
        let n = images.len() / width;
        assert!(n * width == images.len() && texts.len() == images.len(), "as many texts as images");
        assert!(dimages.len() == images.len() && dtexts.len() == images.len(), "a gradient for every value");
        let &mut Contrastive { rows, columns, .. } = self;
        if n > self.pairs {
            let bytes = Room::measure(|room| Work::take(room, (n, rows, columns)));
            self.memory = machine.zeros(0)?;
            self.memory = machine.zeros(bytes)?;
            self.pairs = n;
        }
        let mut work = Work::take(&mut Room::new(machine.view_mut(&mut self.memory)), (n, rows, columns));
        let tiles = Tiles { machine, n, width, scale, rows, columns };
        diagonal(machine, work.of_pairs.again(), images, texts)?;
        tiles.log_sum_exp(&mut work, images, texts)?;
        machine.copy(work.by_image.again(), work.by_text.read())?;
        tiles.log_sum_exp(&mut work, texts, images)?;
        let Work { mut cosines, by_image, by_text, of_pairs, mut of_scale, .. } = work;
        let a = Side { z: images, lse: by_image.read() };
        let b = Side { z: texts, lse: by_text.read() };
        // What the scale gets from the tiles of the texts is the same once more.
        tiles.gradient(&mut dtexts, &mut cosines, &mut of_scale, b, a)?;
        tiles.gradient(&mut dimages, &mut cosines, &mut of_scale, a, b)?;
        let sum = |x: &[f32]| x.iter().map(|&x| x as f64).sum::<f64>();
        let lse = sum(&machine.read(a.lse)?) + sum(&machine.read(b.lse)?);
        let pairs: f64 = machine.read(of_pairs.read())?.iter().sum();
        let dscale = machine.read(of_scale.read())?.iter().sum();
        Ok(Loss { loss: (lse - 2.0 * scale as f64 * pairs) / (2 * n) as f64, dscale })
    }
}

impl<M: Machine> Tiles<'_, M> {
    /// by_text = the log-sum-exp of the logits of every row of `a` with all of `b`.
    fn log_sum_exp(&self, work: &mut Work, a: View<f32>, b: View<f32>) -> Result<(), MachineError> {
        let &Tiles { machine, n, width, scale, .. } = self;
        machine.write(work.largest.again(), &vec![f32::NEG_INFINITY; n])?;
        machine.clear(work.sums.again())?;
        for row in (0..n).step_by(self.rows) {
            let rows = self.rows.min(n - row);
            let (largest, sums) = (work.largest.part(row, rows), work.sums.part(row, rows));
            let mut running = Running { largest, sums };
            for column in (0..n).step_by(self.columns) {
                let columns = self.columns.min(n - column);
                let mut tile = work.cosines.part(0, rows * columns);
                let left = Matrix::rows(a.part(row * width, rows * width), width);
                let right = Matrix::columns(b.part(column * width, columns * width), width);
                product(machine, tile.again(), left, right, (rows, width, columns))?;
                add(machine, &mut running, tile.read(), scale)?;
            }
            finish(machine, work.by_text.part(row, rows), &running)?;
        }
        Ok(())
    }

    /// da = the gradient of side `a`; of_scale = what each of its rows contributes to that of the scale.
    fn gradient(
        &self,
        da: &mut ViewMut<f32>,
        cosines: &mut ViewMut<f32>,
        of_scale: &mut ViewMut<f64>,
        a: Side,
        b: Side,
    ) -> Result<(), MachineError> {
        let &Tiles { machine, n, width, scale, .. } = self;
        machine.clear(da.again())?;
        machine.clear(of_scale.again())?;
        for row in (0..n).step_by(self.rows) {
            let rows = self.rows.min(n - row);
            for column in (0..n).step_by(self.columns) {
                let columns = self.columns.min(n - column);
                let mut tile = cosines.part(0, rows * columns);
                let left = Matrix::rows(a.z.part(row * width, rows * width), width);
                let others = b.z.part(column * width, columns * width);
                let right = Matrix::columns(others, width);
                product(machine, tile.again(), left, right, (rows, width, columns))?;
                let lse = (a.lse.part(row, rows), b.lse.part(column, columns));
                let place = Place { row, column, pairs: n };
                gradients(machine, tile.again(), of_scale.part(row, rows), lse, place, scale)?;
                let to = da.part(row * width, rows * width);
                let (left, right) = (Matrix::rows(tile.read(), columns), Matrix::rows(others, width));
                add_product(machine, to, left, right, (rows, columns, width))?;
            }
        }
        Ok(())
    }
}
