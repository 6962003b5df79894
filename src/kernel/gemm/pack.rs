//! Operands laid out for [`tile`](mod@super::tile). A *group* is four bytes: one f32, or two bf16 that are
//! neighbours along the reduced dimension. A *panel* holds `width` columns, [groups, width]; a *tile* holds
//! six rows, [groups, 6]. What lies beyond the end of an operand is zero.

use crate::kernel::element::Element;
use crate::kernel::gemm::tile::ROWS;
use crate::kernel::gemm::Left;
use crate::kernel::lanes::{prefetch, Lanes};

/// Rows of a left operand that are packed together.
pub const BLOCK: usize = 16 * ROWS;

/// Rows that are asked for before they are packed.
const AHEAD: usize = 16;

/// A panel from a right operand [reduced, columns], row-major with `stride` elements a row:
/// `panel[g][j]` = rows `g * GROUP ..` of column j.
#[inline(always)]
pub fn panel_from_rows<E: Element>(
    panel: &mut [u32],
    from: &[E],
    stride: usize,
    reduced: usize,
    columns: usize,
    width: usize,
) {
    for (g, to) in panel.chunks_exact_mut(width).enumerate() {
        let first = g * E::GROUP;
        if first >= reduced {
            to.fill(0);
            continue;
        }
        // Rows are far apart: no processor guesses the next one.
        for ahead in first + AHEAD..first + AHEAD + E::GROUP {
            prefetch(from.as_ptr().wrapping_add(ahead * stride), columns);
        }
        let top = &from[first * stride..][..columns];
        if E::GROUP == 1 {
            to[..columns].copy_from_slice(bytemuck::cast_slice(top));
        } else if first + 1 < reduced {
            let below = &from[(first + 1) * stride..][..columns];
            let halves =
                bytemuck::cast_slice::<E, u16>(top).iter().zip(bytemuck::cast_slice::<E, u16>(below));
            for (to, (&a, &b)) in to.iter_mut().zip(halves) {
                *to = a as u32 | (b as u32) << 16;
            }
        } else {
            for (to, &a) in to.iter_mut().zip(bytemuck::cast_slice::<E, u16>(top)) {
                *to = a as u32;
            }
        }
        to[columns..].fill(0);
    }
}

/// A panel from a right operand that is stored transposed, [columns, reduced] with `stride` elements a row.
#[inline(always)]
pub fn panel_from_columns<E: Element>(
    panel: &mut [u32],
    from: &[E],
    stride: usize,
    reduced: usize,
    columns: usize,
    width: usize,
) {
    let whole = reduced / E::GROUP;
    if columns < width || whole * E::GROUP < reduced {
        panel.fill(0);
    }
    // Lines of the panel are written whole, sixteen rows being read side by side.
    const SIDE: usize = 16;
    let sixteens = columns / SIDE * SIDE;
    for j in (0..sixteens).step_by(SIDE) {
        let rows: [&[E]; SIDE] = std::array::from_fn(|i| &from[(j + i) * stride..][..whole * E::GROUP]);
        for (g, to) in panel.chunks_exact_mut(width).take(whole).enumerate() {
            for (to, row) in to[j..j + SIDE].iter_mut().zip(&rows) {
                *to = whole_group(&row[g * E::GROUP..(g + 1) * E::GROUP]);
            }
        }
    }
    for j in sixteens..columns {
        let row = &from[j * stride..][..reduced];
        for (to, group) in panel[j..].iter_mut().step_by(width).zip(row.chunks_exact(E::GROUP)) {
            *to = whole_group(group);
        }
    }
    if whole * E::GROUP < reduced {
        for (j, to) in panel[whole * width..][..columns].iter_mut().enumerate() {
            *to = bytemuck::cast_slice::<E, u16>(&from[j * stride..])[reduced - 1] as u32;
        }
    }
}

/// The `index`-th panel of a transposed matrix, from the panels of the matrix [k, n] itself.
#[inline(always)]
pub fn panel_from_panels<E: Element>(
    panel: &mut [u32],
    from: &[u32],
    k: usize,
    n: usize,
    index: usize,
    width: usize,
) {
    let from_groups = k.div_ceil(E::GROUP);
    let across = width / E::GROUP;
    let first = index * across;
    let some = across.min(from_groups - first);
    if some < across {
        panel.fill(0);
    }
    let sources = from.chunks_exact(from_groups * width).take(n.div_ceil(width));
    for (source, to) in sources.zip(panel.chunks_mut(across * width)) {
        for g in 0..some {
            let row = &source[(first + g) * width..][..width];
            if E::GROUP == 1 {
                for (&x, to) in row.iter().zip(to.chunks_exact_mut(width)) {
                    to[g] = x;
                }
            } else {
                for (pair, to) in row.chunks_exact(2).zip(to.chunks_exact_mut(width)) {
                    to[2 * g] = (pair[0] & 0xffff) | pair[1] << 16;
                    to[2 * g + 1] = pair[0] >> 16 | (pair[1] & 0xffff_0000);
                }
            }
        }
    }
}

/// The tiles of rows `at .. at + BLOCK` of a left operand [rows, reduced], of which the groups of rows
/// `chunk` of the reduced dimension.
#[inline(always)]
pub fn tiles<L: Lanes, E: Element>(
    l: L,
    tiles: &mut [u32],
    from: Left<E>,
    at: usize,
    rows: usize,
    chunk: std::ops::Range<usize>,
) {
    let groups = chunk.len().div_ceil(E::GROUP);
    let some = BLOCK.min(rows - at);
    let mut line = [0u32; BLOCK];
    for g in 0..groups {
        let first = chunk.start + g * E::GROUP;
        let left = (chunk.end - first).min(E::GROUP);
        match from {
            Left::Rows { data, stride } => {
                let mut pair = [E::default(); 2];
                for (i, to) in line[..some].iter_mut().enumerate() {
                    pair[..left].copy_from_slice(&data[(at + i) * stride + first..][..left]);
                    *to = whole_group(&pair[..E::GROUP]);
                }
            }
            Left::Columns { data, stride } => {
                panel_from_rows(&mut line, &data[first * stride + at..], stride, left, some, BLOCK)
            }
            Left::ScaledColumns { data, stride, scale, shift } => {
                let mut scaled = [E::default(); 2 * BLOCK];
                for (i, scaled) in scaled.chunks_exact_mut(BLOCK).take(left).enumerate() {
                    prefetch(data.as_ptr().wrapping_add((first + AHEAD + i) * stride + at), some);
                    let row = &data[(first + i) * stride + at..][..some];
                    for j in (0..some).step_by(L::N) {
                        let x = E::load(l, &row[j..]);
                        let y =
                            l.fma(x, l.load(&scale[at + j..at + some]), l.load(&shift[at + j..at + some]));
                        E::store(l, y, &mut scaled[j..some]);
                    }
                }
                panel_from_rows(&mut line, &scaled, BLOCK, left, some, BLOCK)
            }
        }
        for (tile, six) in tiles.chunks_mut(groups * ROWS).zip(line.chunks_exact(ROWS)) {
            tile[g * ROWS..][..ROWS].copy_from_slice(six);
        }
    }
}

/// `sums[j]` += sum over the groups of column j of a panel.
#[inline(always)]
pub fn add_column_sums<L: Lanes, E: Element>(l: L, sums: &mut [f32], panel: &[u32], width: usize) {
    let ones = [E::from_f32(1.0); 2];
    for j in (0..sums.len()).step_by(L::N) {
        let mut sum = l.zero();
        for row in panel.chunks_exact(width) {
            let row = &row[j..j + L::N];
            // SAFETY: a group is four bytes; the row has N of them, `ones` one.
            let (one, group) =
                unsafe { (E::splat_group(l, ones.as_ptr().cast()), E::load_group(l, row.as_ptr().cast())) };
            sum = E::dot(l, sum, one, group);
        }
        let before = l.load(&sums[j..]);
        l.store(l.add(before, sum), &mut sums[j..]);
    }
}

#[inline(always)]
fn whole_group<E: Element>(from: &[E]) -> u32 {
    bytemuck::pod_read_unaligned(bytemuck::cast_slice(from))
}
