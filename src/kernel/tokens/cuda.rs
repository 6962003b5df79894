//! Tokens on a GPU: from the patch embedding, a product, and from tables; and their gradients.

use crate::kernel::cuda::{blocks, Gpu, GpuError, Launch, View, ViewMut};
use crate::kernel::element::Bf16;
use crate::kernel::tokens::{Added, Sequences};

/// Threads of a row.
const BLOCK: u32 = 128;

/// x [batch * (prefix + kept), width] from `embedded` [batch * kept, width], the patch embedding without its bias.
/// `ids` [batch * kept] name rows of `positions`, which the caller has checked.
pub fn from_patches<G: Gpu>(
    gpu: &G,
    mut x: ViewMut<f32>,
    embedded: View<f32>,
    added: Added,
    ids: View<u32>,
    of: Sequences,
) -> Result<(), GpuError> {
    let rows = of.batch * of.kept;
    assert!(of.prefix <= 1 && x.len() == of.rows() * of.width, "tokens of {of:?}");
    assert!(embedded.len() == rows * of.width && ids.len() == rows, "patches of {of:?}");
    assert!(added.class_token.len() >= of.prefix * of.width, "a class token of {of:?}");
    assert!(added.class_position.is_none_or(|position| position.len() == of.width), "a position of {of:?}");
    assert!(added.bias.is_none_or(|bias| bias.len() == of.width), "a bias of {of:?}");
    let launch = Launch::new("tokens", "tokens_from_patches", of.rows(), BLOCK)
        .output(&mut x)
        .input(embedded)
        .optional(added.bias)
        .input(added.positions)
        .input(ids)
        .input(added.class_token)
        .optional(added.class_position)
        .size(of.kept)
        .size(of.prefix)
        .size(of.width);
    // SAFETY: lengths are checked above; ids are the caller's.
    unsafe { gpu.launch(launch) }
}

/// out [batch * kept, width] = the rows of dx [batch * (prefix + kept), width] that came from patches, rounded.
pub fn patch_rows<G: Gpu>(
    gpu: &G,
    mut out: ViewMut<Bf16>,
    dx: View<f32>,
    of: Sequences,
) -> Result<(), GpuError> {
    let rows = of.batch * of.kept;
    assert!(out.len() == rows * of.width && dx.len() == of.rows() * of.width, "tokens of {of:?}");
    let launch = Launch::new("tokens", "tokens_patch_rows", rows, BLOCK).output(&mut out).input(dx);
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(launch.size(of.kept).size(of.prefix).size(of.width)) }
}

/// `x[row]` = `table[ids[row]] + positions[places[row]]`, x being [rows, width]; the caller has checked ids and places.
pub fn gather<G: Gpu>(
    gpu: &G,
    mut x: ViewMut<f32>,
    (table, ids): (View<Bf16>, View<u32>),
    (positions, places): (View<f32>, View<u32>),
    width: usize,
) -> Result<(), GpuError> {
    assert!(x.len() == ids.len() * width && places.len() == ids.len(), "one token and one position a row");
    let launch = Launch::new("tokens", "tokens_gather", ids.len(), BLOCK)
        .output(&mut x)
        .input(table)
        .input(ids)
        .input(positions)
        .input(places)
        .size(width);
    // SAFETY: lengths are checked above; ids and places are the caller's.
    unsafe { gpu.launch(launch) }
}

/// Lists of the rows that are added to each row of a table: made on the host, so that a sum has one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scatter {
    /// Rows of the table that get something, ascending.
    pub named: Vec<u32>,
    /// Beginning of the list of each in `order`, and the end of the last.
    pub starts: Vec<u32>,
    /// Rows that are added, in order for each.
    pub order: Vec<u32>,
}

impl Scatter {
    /// Row `source(r)` is added to row `ids[r]` of the table, for every r in order.
    pub fn new(ids: &[u32], source: impl Fn(usize) -> usize) -> Self {
        let mut by_id: Vec<u32> = (0..ids.len() as u32).collect();
        by_id.sort_by_key(|&r| ids[r as usize]);
        let (mut named, mut starts) = (Vec::new(), Vec::new());
        for (at, &r) in by_id.iter().enumerate() {
            if named.last() != Some(&ids[r as usize]) {
                named.push(ids[r as usize]);
                starts.push(at as u32);
            }
        }
        starts.push(by_id.len() as u32);
        Scatter { named, starts, order: by_id.into_iter().map(|r| source(r as usize) as u32).collect() }
    }
}

/// A [`Scatter`] in the memory of a GPU.
#[derive(Debug, Clone, Copy)]
pub struct ScatterViews<'a> {
    pub named: View<'a, u32>,
    pub starts: View<'a, u32>,
    pub order: View<'a, u32>,
}

/// table [.., width] += the rows that `scatter` names; it must be one made for this table and these rows.
pub fn scatter_add<G: Gpu>(
    gpu: &G,
    mut table: ViewMut<f32>,
    scatter: ScatterViews,
    rows: View<f32>,
    width: usize,
) -> Result<(), GpuError> {
    let ScatterViews { named, starts, order } = scatter;
    assert!(table.len().is_multiple_of(width) && rows.len().is_multiple_of(width), "rows of {width}");
    assert_eq!(starts.len(), named.len() + 1, "the end of every list");
    let launch = Launch::new("tokens", "tokens_scatter_add", named.len(), BLOCK)
        .rows(blocks(width, BLOCK))
        .output(&mut table)
        .input(named)
        .input(starts)
        .input(order)
        .input(rows)
        .size(width);
    // SAFETY: the caller's scatter names rows of both.
    unsafe { gpu.launch(launch) }
}
