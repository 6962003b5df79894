//! Matrix products [m, k] x [k, n] with whatever follows them fused in.
//!
//! Every sum is taken by one thread in one order, so results depend neither on the number of threads nor
//! on the rows beside. A tile of six rows and one panel of columns is kept in registers; a panel stays in
//! the second-level cache while all rows stream past it. Where a processor has no quick dot product of bf16
//! pairs, panels are widened to f32 in that cache.
//!
//! The choice was measured against two crates, GFLOP/s on two Zen 5 cores whose peak is 1020 in bf16 and 510
//! in f32 (forward, input gradient, weight gradient; the crates without bias, activation or f32 gradients):
//!
//! | rows x in x out | `gemmkit` 0.1.2 bf16 | here, bf16 | `gemmkit` f32 | `gemm` 0.19 f32 | here, f32 |
//! |---|---|---|---|---|---|
//! | 1584 x 768 x 2304 | 813 776 801 | 945 934 816 | 410 454 429 | 449 430 444 | 477 461 423 |
//! | 1584 x 768 x 768 | 895 853 871 | 956 939 880 | 482 466 473 | 485 444 435 | 485 477 426 |
//! | 1584 x 768 x 3072 | 923 752 903 | 949 920 819 | 440 454 433 | 460 375 444 | 484 449 434 |
//! | 1584 x 3072 x 768 | 841 906 849 | 977 913 829 | 450 417 424 | 451 449 432 | 470 462 407 |
//! | 800 x 768 x 3072 | 928 607 929 | 949 933 838 | 439 342 441 | 455 257 448 | 463 427 432 |
//! | 512 x 512 x 2048 | 893 651 882 | 930 913 837 | 477 437 423 | 461 261 444 | 459 438 426 |
//! | 4224 x 192 x 768 | 840 725 746 | 899 934 721 | 487 478 397 | 479 471 379 | 449 469 371 |
//! | 4224 x 768 x 192 | 726 838 716 | 956 909 695 | 478 478 434 | 484 468 398 | 481 453 360 |
//!
//! A result of the crates must then be read once more, by a pass for bias and activation, for the residual
//! sum, or to add a bf16 weight gradient to an f32 one; here that is part of the product, and the weights are
//! packed once an update. `examples/measure_kernels.rs` repeats the right half.

pub mod cuda;
pub mod epilogue;
pub mod pack;
pub mod small;
pub mod tile;
pub mod weight;
mod widen;

use std::ops::Range;

use crate::kernel::element::{convert, Element};
use crate::kernel::isa::dispatch;
use crate::kernel::lanes::Lanes;
use crate::kernel::scratch::Scratch;
use crate::kernel::Cpu;
use epilogue::{Add, Epilogue, Grid};
use pack::BLOCK;
use tile::{tile, LeftTile, Sums, MAX_COLUMNS, ROWS};

/// The left operand, [m, k].
#[derive(Debug, Clone, Copy)]
pub enum Left<'a, E> {
    /// Row-major, `stride` elements a row.
    Rows { data: &'a [E], stride: usize },
    /// Stored transposed: [k, m], `stride` elements a row.
    Columns { data: &'a [E], stride: usize },
    /// As `Columns`, of which row i of the operand is `data * scale[i] + shift[i]`.
    ScaledColumns { data: &'a [E], stride: usize, scale: &'a [f32], shift: &'a [f32] },
}

impl<'a, E> Left<'a, E> {
    /// Rows of `k` elements without anything between them.
    pub fn whole(data: &'a [E], k: usize) -> Self {
        Left::Rows { data, stride: k }
    }
}

/// The right operand, [k, n].
#[derive(Debug, Clone, Copy)]
pub enum Right<'a, E> {
    /// Packed beforehand: nothing left to do.
    Packed(&'a Packed<E>),
    /// The transpose of a packed matrix [n, k].
    PackedTransposed(&'a Packed<E>),
    /// Row-major, `stride` elements a row.
    Rows { data: &'a [E], stride: usize },
    /// Stored transposed: [n, k], `stride` elements a row.
    Columns { data: &'a [E], stride: usize },
}

/// A matrix [k, n] in the layout that products read: panels of columns, [panels, groups, width].
#[derive(Debug, Clone)]
pub struct Packed<E> {
    groups: Scratch,
    pub k: usize,
    pub n: usize,
    element: std::marker::PhantomData<E>,
}

/// Columns of a panel on an instruction set.
pub fn panel_width(cpu: &Cpu) -> usize {
    dispatch!(cpu.isa, l => width_of(l))
}

#[inline(always)]
fn width_of<L: Lanes>(_: L) -> usize {
    L::N * L::TILE
}

impl<E: Element> Packed<E> {
    /// Zeros.
    pub fn zeroed(cpu: &Cpu, k: usize, n: usize) -> Self {
        let width = panel_width(cpu);
        let groups = Scratch::zeroed::<u32>(n.div_ceil(width) * k.div_ceil(E::GROUP) * width);
        Packed { groups, k, n, element: std::marker::PhantomData }
    }

    /// Rounds `from`, [k, n] row-major, and lays it out.
    pub fn pack(&mut self, cpu: &Cpu, from: &[f32]) {
        assert_eq!(from.len(), self.k * self.n, "a weight of [{}, {}]", self.k, self.n);
        let (k, n, width) = (self.k, self.n, panel_width(cpu));
        let groups = k.div_ceil(E::GROUP);
        let panels = self.groups.room::<u32>(n.div_ceil(width) * groups * width);
        cpu.threads.each(
            panels.chunks_mut(groups * width).enumerate(),
            |_, (p, panel)| dispatch!(cpu.isa, l => pack_panel::<_, E>(l, panel, from, k, n, p, width)),
        );
    }

    /// For packing some rows at a time.
    pub fn rows(&mut self, cpu: &Cpu) -> PackedRows<'_, E> {
        let (k, n, width) = (self.k, self.n, panel_width(cpu));
        let words = n.div_ceil(width) * k.div_ceil(E::GROUP) * width;
        let panels = self.groups.room::<u32>(words).as_mut_ptr();
        PackedRows { panels, k, n, width, of: std::marker::PhantomData }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.groups.bytes()
    }
}

/// A packed matrix whose rows several threads write.
#[derive(Debug)]
pub struct PackedRows<'a, E> {
    panels: *mut u32,
    k: usize,
    n: usize,
    width: usize,
    of: std::marker::PhantomData<&'a mut E>,
}

// SAFETY: what is behind the pointer is borrowed for as long as this lives, and written by `pack` alone.
unsafe impl<E: Send> Send for PackedRows<'_, E> {}
// SAFETY: as above; who calls `pack` sees to it that no two calls write the same rows.
unsafe impl<E: Sync> Sync for PackedRows<'_, E> {}

impl<E: Element> PackedRows<'_, E> {
    /// Rounds the rows from `first` on, a multiple of [`Element::GROUP`], and lays them out. The calling thread does it alone.
    ///
    /// # Safety
    /// No other call writes any of these rows at the same time.
    pub unsafe fn pack(&self, cpu: &Cpu, first: usize, from: &[f32]) {
        let &PackedRows { panels, k, n, width, .. } = self;
        let rows = from.len() / n;
        assert!(
            first.is_multiple_of(E::GROUP) && first + rows <= k,
            "rows {first} to {} of {k}",
            first + rows
        );
        let (all, own) = (k.div_ceil(E::GROUP), rows.div_ceil(E::GROUP));
        for p in 0..n.div_ceil(width) {
            let at = (p * all + first / E::GROUP) * width;
            // SAFETY: within the panels, of which these rows are the caller's.
            let lines = unsafe { std::slice::from_raw_parts_mut(panels.add(at), own * width) };
            dispatch!(cpu.isa, l => pack_panel::<_, E>(l, lines, from, rows, n, p, width));
        }
    }
}

/// The `p`-th panel of `from`, [k, n] row-major, rounded.
#[inline(always)]
fn pack_panel<L: Lanes, E: Element>(
    l: L,
    panel: &mut [u32],
    from: &[f32],
    k: usize,
    n: usize,
    p: usize,
    width: usize,
) {
    let columns = width.min(n - p * width);
    let mut pair = [E::default(); 2 * MAX_COLUMNS];
    for (g, to) in panel.chunks_exact_mut(width).enumerate() {
        let rows = E::GROUP.min(k - g * E::GROUP);
        for (i, pair) in pair.chunks_exact_mut(MAX_COLUMNS).take(rows).enumerate() {
            let row = &from[(g * E::GROUP + i) * n + p * width..][..columns];
            convert(l, &mut pair[..columns], row);
        }
        pack::panel_from_rows(to, &pair, MAX_COLUMNS, rows, columns, width);
    }
}

/// Terms of a sum that are taken in one pass, at most, where sums can be added up in memory: a panel of that many groups is
/// 200 KiB, or twice that where it is widened.
const CHUNK_GROUPS: usize = 800;
/// Bytes of panels that a thread works on at a time: what leaves room in a second-level cache.
const PANEL_BYTES: usize = 192 << 10;
/// Pieces that a product is cut into, so that threads finish together.
const PIECES: usize = 24;

/// epilogue(left x right), left [m, k], right [k, n].
pub fn product<E: Element>(
    cpu: &Cpu,
    epilogue: &impl Epilogue,
    left: Left<E>,
    right: Right<E>,
    (m, k, n): (usize, usize, usize),
) {
    chunk(cpu, epilogue, left, right, None, (m, n), 0..k);
}

/// Gradients of a linear layer Y = X W + b: dw `[k, n]` += X^T dY, db `[n]` += column sums of dY. `x` is X^T
/// [k, rows] as a left operand, `dy` [rows, n] with `stride` elements a row.
pub fn weight_gradient<E: Element>(
    cpu: &Cpu,
    dw: &mut [f32],
    mut db: Option<&mut [f32]>,
    x: Left<E>,
    (dy, stride): (&[E], usize),
    (rows, k, n): (usize, usize, usize),
) {
    let dw = Add { to: Grid::new(dw, n), bias: None };
    let chunks = rows.div_ceil(CHUNK_GROUPS * E::GROUP).max(1);
    let step = rows.div_ceil(chunks).next_multiple_of(E::GROUP).max(1);
    for start in (0..rows).step_by(step) {
        let dy = Right::Rows { data: dy, stride };
        chunk(cpu, &dw, x, dy, db.as_deref_mut(), (k, n), start..rows.min(start + step));
    }
}

/// epilogue(left x right) over the part `reduced` of the reduced dimension; adds column sums of that part
/// of the right operand to `sums`.
fn chunk<E: Element>(
    cpu: &Cpu,
    epilogue: &impl Epilogue,
    left: Left<E>,
    right: Right<E>,
    sums: Option<&mut [f32]>,
    (m, n): (usize, usize),
    reduced: Range<usize>,
) {
    if m == 0 || n == 0 {
        return;
    }
    let width = panel_width(cpu);
    let groups = reduced.len().div_ceil(E::GROUP);
    let panel = groups * width;
    let panels = n.div_ceil(width);
    // A poisoned lock guards nothing worse than bytes that are overwritten before they are read.
    let mut own = cpu.right.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let right: &[u32] = match right {
        Right::Packed(packed) => {
            assert_eq!((packed.k, packed.n, reduced.start), (reduced.end, n, 0), "a packed right operand");
            packed.groups.view(panels * panel)
        }
        right => {
            let own = own.room(panels * panel);
            pack_right::<E>(cpu, own, right, sums, n, reduced.clone());
            own
        }
    };
    let mut own = cpu.left.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let left = match left {
        Left::Rows { data, stride } if reduced.len().is_multiple_of(E::GROUP) => {
            Rows::direct(&data[reduced.start..], stride, m, reduced.len())
        }
        left => {
            let own = own.room(m.div_ceil(ROWS) * ROWS * groups);
            let blocks = own.chunks_mut(BLOCK * groups).enumerate();
            cpu.threads.each(blocks, |_, (block, tiles)| {
                dispatch!(cpu.isa, l => pack::tiles(l, tiles, left, block * BLOCK, m, reduced.clone()))
            });
            Rows::packed(own, groups)
        }
    };
    let together = (PANEL_BYTES / (panel * 4).max(1)).clamp(1, panels);
    let across = panels.div_ceil(together);
    let down = PIECES.div_ceil(across).clamp(1, m.div_ceil(BLOCK));
    let rows = m.div_ceil(down).next_multiple_of(ROWS);
    let down = m.div_ceil(rows);
    cpu.threads.each(0..across * down, |slot, piece| {
        let first = piece / down * together;
        let part = Part {
            rows: piece % down * rows..m.min((piece % down + 1) * rows),
            panels: first..panels.min(first + together),
            n,
            groups,
        };
        dispatch!(cpu.isa, l => {
            // SAFETY: pieces are disjoint; the operands were checked or packed for all rows and groups.
            unsafe {
                if widen::needed::<_, E>(l) {
                    let mut scratch = cpu.own(slot);
                    let scratch = scratch.room(widen::words(&part, width));
                    widen::compute(l, scratch, epilogue, left, right, part, width)
                } else {
                    compute::<_, E, _>(l, epilogue, left, right, part, width)
                }
            }
        })
    });
}

/// Packs the rows `reduced` of a right operand, and adds their column sums to `sums`.
fn pack_right<E: Element>(
    cpu: &Cpu,
    to: &mut [u32],
    right: Right<E>,
    sums: Option<&mut [f32]>,
    n: usize,
    reduced: Range<usize>,
) {
    let width = panel_width(cpu);
    let panel = reduced.len().div_ceil(E::GROUP) * width;
    let mut sums = sums.map(|sums| sums.chunks_mut(width));
    let pieces: Vec<_> = to
        .chunks_mut(panel.max(1))
        .enumerate()
        .map(|(p, panel)| (p, panel, sums.as_mut().and_then(|sums| sums.next())))
        .collect();
    cpu.threads.each(pieces, |_, (p, panel, sums)| {
        let at = p * width;
        let columns = width.min(n - at);
        dispatch!(cpu.isa, l => {
            match right {
                Right::Rows { data, stride } => pack::panel_from_rows(
                    panel, &data[reduced.start * stride + at..], stride, reduced.len(), columns, width),
                Right::Columns { data, stride } => pack::panel_from_columns(
                    panel, &data[at * stride + reduced.start..], stride, reduced.len(), columns, width),
                Right::PackedTransposed(packed) | Right::Packed(packed) => {
                    assert_eq!((packed.n, packed.k, reduced.start), (reduced.end, n, 0), "a packed right operand");
                    let groups = packed.n.div_ceil(width) * width * packed.k.div_ceil(E::GROUP);
                    pack::panel_from_panels::<E>(panel, packed.groups.view(groups), packed.k, packed.n, p, width)
                }
            }
            if let Some(sums) = sums {
                pack::add_column_sums::<_, E>(l, sums, panel, width);
            }
        })
    });
}

/// A left operand as tiles find it.
#[derive(Clone, Copy)]
struct Rows {
    base: *const u8,
    /// Bytes from a row to the next.
    row: usize,
    /// Bytes from a tile to the next where tiles are packed; else tiles follow each other as rows do.
    tile: Option<usize>,
    /// The last row there is: of the operand, or of a packed tile.
    last: usize,
    /// Bytes from a group to the next.
    step: usize,
}

// SAFETY: only read, while the operand is borrowed.
unsafe impl Sync for Rows {}

impl Rows {
    /// Tiles as [`pack::tiles`] leaves them.
    fn packed(tiles: &[u32], groups: usize) -> Self {
        Rows {
            base: tiles.as_ptr().cast(),
            row: 4,
            tile: Some(groups * ROWS * 4),
            last: ROWS - 1,
            step: ROWS * 4,
        }
    }

    /// `m` rows of `k` elements as they lie; `k` is a whole number of groups.
    fn direct<E: Element>(data: &[E], stride: usize, m: usize, k: usize) -> Self {
        assert!(
            data.len() >= (m - 1) * stride + k && k.is_multiple_of(E::GROUP),
            "a left operand of [{m}, {k}]"
        );
        Rows { base: data.as_ptr().cast(), row: stride * size_of::<E>(), tile: None, last: m - 1, step: 4 }
    }

    /// Rows beyond the last repeat it; their sums are dropped.
    #[inline(always)]
    fn tile(&self, at: usize) -> LeftTile {
        let (base, at) = match self.tile {
            Some(bytes) => (at / ROWS * bytes, 0),
            None => (0, at),
        };
        let rows = std::array::from_fn(|i| self.base.wrapping_add(base + (at + i).min(self.last) * self.row));
        LeftTile { rows, step: self.step }
    }
}

/// The part of a product that one thread computes at a time.
struct Part {
    rows: Range<usize>,
    panels: Range<usize>,
    n: usize,
    groups: usize,
}

/// One part of a product; panels are `width` columns.
///
/// # Safety
/// The left operand must have the rows and groups of the part. No other thread may hand the same rows and
/// columns to the epilogue.
#[inline(always)]
unsafe fn compute<L: Lanes, E: Element, F: Epilogue>(
    l: L,
    epilogue: &F,
    left: Rows,
    right: &[u32],
    part: Part,
    width: usize,
) {
    let panel = part.groups * width;
    let mut sums = Sums([0.0; ROWS * MAX_COLUMNS]);
    for row in part.rows.clone().step_by(ROWS) {
        let rows = left.tile(row);
        for p in part.panels.clone() {
            let panel = &right[p * panel..][..panel];
            let columns = width.min(part.n - p * width);
            let height = ROWS.min(part.rows.end - row);
            (0..height).for_each(|i| epilogue.prefetch(row + i, p * width, columns));
            tile::<L, E>(l, &mut sums, rows, panel.as_ptr().cast(), part.groups, width / L::N);
            for i in 0..height {
                epilogue.take(l, row + i, p * width, &sums.0[i * width..][..columns]);
            }
        }
    }
}
