//! The update of all parameters on kernels: one pass over masters, moments and gradients, piece by piece. While a piece is in
//! the cache its gradient is made zero, and the copy that products read of it is written.

use dfdx::tensor::Cpu;

use super::values::{split, Mirror};
use crate::kernel::adamw::{AdamW, Values};
use crate::kernel::element::Element;
use crate::kernel::gemm::PackedRows;
use crate::kernel::{global_norm, Cpu as Kernels};
use crate::model::engine::Update;
use crate::parameter::{Flat, Parameter, Tower};

/// Values of a piece: four times 64 KiB, in the second-level cache of any processor.
const PIECE: usize = 16 << 10;

/// Neighbouring values of one parameter.
struct Piece<'a, K> {
    rule: AdamW,
    values: Values<'a>,
    /// Where their copy belongs, and the first of their rows.
    copy: Option<(&'a PackedRows<'a, K>, usize)>,
}

/// The sum of the squares of the gradients at these places.
pub(super) fn square_sum(
    kernels: &Kernels,
    parameters: &[Parameter],
    gradients: &Flat<f32, Cpu>,
    places: &[usize],
) -> f64 {
    let of = |&place: &usize| {
        let range = gradients.layout().range(place).unwrap_or_default();
        global_norm::sum_of_squares(kernels, &gradients.tower(parameters[place].tower)[range])
    };
    places.iter().map(of).fold(0.0, |sum, square| sum + square)
}

/// One update of the parameters whose moments there are.
pub(super) fn adamw<K: Element>(
    kernels: &Kernels,
    parameters: &[Parameter],
    mirror: &Mirror<K>,
    update: Update<'_, f32, Cpu>,
) {
    let Update { masters, moments: [first, second], gradients, rule } = update;
    let mut state = mirror.lock();
    let state = &mut *state;
    let copies: Vec<Option<PackedRows<K>>> = std::sync::Arc::make_mut(&mut state.copies)
        .iter_mut()
        .map(|copy| copy.as_mut().map(|copy| copy.rows(kernels)))
        .collect();
    let layouts = [masters.layout().clone(), gradients.layout().clone(), first.layout().clone()];
    let [of_masters, of_gradients, own] = &layouts;
    let mut pieces = Vec::new();
    let towers = masters.towers_mut().into_iter().zip(gradients.towers_mut());
    let towers = towers.zip(first.towers_mut().into_iter().zip(second.towers_mut()));
    for (tower, ((p, g), (m, v))) in Tower::ALL.into_iter().zip(towers) {
        let held = |place: usize| own.range(place).is_some();
        let wanted = |layout: &crate::parameter::Layout| {
            layout.ranges(tower).filter(|(place, _)| held(*place)).collect::<Vec<_>>().into_iter()
        };
        let (p, g) = (split(p, wanted(of_masters)), split(g, wanted(of_gradients)));
        let (m, v) = (split(m, own.ranges(tower)), split(v, own.ranges(tower)));
        for ((((place, p), (_, m)), (_, v)), (_, g)) in p.into_iter().zip(m).zip(v).zip(g) {
            let (rows, columns) = parameters[place].matrix();
            let copy = copies[place].as_ref();
            let step = match copy {
                // Whole rows, as many as products take together.
                Some(_) => (PIECE / columns / K::GROUP).max(1) * K::GROUP * columns,
                None => PIECE.min(rows * columns),
            };
            let rule = rule(parameters[place].role);
            let values =
                p.chunks_mut(step).zip(m.chunks_mut(step)).zip(v.chunks_mut(step)).zip(g.chunks_mut(step));
            pieces.extend(values.enumerate().map(|(i, (((p, m), v), g))| Piece {
                rule,
                values: Values { p, m, v, g },
                copy: copy.map(|copy| (copy, i * step / columns)),
            }));
        }
    }
    kernels.threads().each(pieces, |_, piece| {
        let Piece { rule, values: Values { p, m, v, g }, copy } = piece;
        rule.update(kernels, Values { p: &mut *p, m, v, g });
        if let Some((copy, first)) = copy {
            // SAFETY: pieces are apart from each other, and each is taken once.
            unsafe { copy.pack(kernels, first, p) };
        }
    });
    let updated = |place: usize| own.range(place).is_some();
    state.stale = !(0..copies.len()).filter(|&place| copies[place].is_some()).all(updated);
}
