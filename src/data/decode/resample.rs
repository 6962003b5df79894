//! Resizing planes of bytes by Catmull-Rom cubics, their support widened when shrinking; any rectangle of the
//! result alone, with the very bytes it has in the whole.
//!
//! Down first, then across, in integers: what the processor offers changes the speed and nothing else.

use std::ops::Range;

use crate::data::decode::planes::Plane;

/// Bits of a weight's fraction.
const PRECISION: u32 = 14;
/// Weights computed at a time.
const LANES: usize = 8;
/// Results of one group of the pass across; their sources mostly lie within sixteen bytes.
pub const GROUP: usize = 4;

/// Sources and weights of the results along one side.
#[derive(Debug, Clone)]
pub struct Axis {
    /// Sources of a result, an even number; weights fill up with zeros.
    taps: usize,
    /// The first source of each result.
    first: Vec<usize>,
    /// [results, taps], each row adding up to one.
    weights: Vec<i16>,
    /// Sources there are.
    end: usize,
    /// Sources of each four neighbouring results.
    groups: Vec<Range<usize>>,
    /// [groups, taps / 2]; empty where sixteen bytes do not hold the sources of every group.
    pairs: Vec<Pair>,
}

/// Two taps of four neighbouring results: which of sixteen bytes they take, and their weights.
#[derive(Debug, Clone, Copy)]
struct Pair {
    bytes: [u8; 16],
    weights: [i16; 8],
}

/// Mapping of sources to results along one side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mapping {
    /// Start of the first result, in sources.
    pub start: f64,
    /// Sources that all the results cover.
    pub length: f64,
    /// Sources that may be looked at.
    pub from: usize,
    pub to: usize,
    /// The results run backwards.
    pub mirrored: bool,
}

impl Axis {
    /// `results` results down a plane.
    pub fn down(results: usize, mapping: Mapping) -> Self {
        let Mapping { start, length, from, to, mirrored } = mapping;
        let to = to.max(from + 1);
        let scale = length / results as f64;
        let wide = scale.max(1.0);
        let window = |i: usize| {
            let i = if mirrored { results - 1 - i } else { i };
            let centre = start + (i as f64 + 0.5) * scale;
            let at = |place: f64| ((place + 0.5).max(0.0) as usize).clamp(from, to);
            let low = at(centre - 2.0 * wide).min(to - 1);
            (centre, low, at(centre + 2.0 * wide).max(low + 1))
        };
        let taps = (0..results).map(window).map(|(_, low, high)| high - low).max();
        let taps = taps.unwrap_or(1).next_multiple_of(2);
        let mut first = Vec::with_capacity(results);
        let mut weights = vec![0; results * taps];
        let mut exact = vec![0.0; taps.next_multiple_of(LANES)];
        for (i, weights) in weights.chunks_exact_mut(taps).enumerate() {
            let (centre, low, high) = window(i);
            // The window lies within the sources, with zeros in front where it would reach past their end.
            let begin = low.min(to.saturating_sub(taps).max(from));
            first.push(begin);
            cubics(&mut exact, ((low as f64 + 0.5 - centre) / wide) as f32, (1.0 / wide) as f32);
            let exact = &exact[..high - low];
            let one = (1 << PRECISION) as f32 / exact.iter().sum::<f32>();
            // Rounding the running sums, not the weights, keeps the total; they stay above -1.
            let (mut running, mut given) = (0.0, 0);
            for (weight, exact) in weights[low - begin..].iter_mut().zip(exact) {
                running += *exact * one;
                let upto = (running + ((1 << PRECISION) as f32 + 0.5)) as i32 - (1 << PRECISION);
                *weight = (upto - given) as i16;
                given = upto;
            }
        }
        Axis { taps, first, weights, end: to, groups: Vec::new(), pairs: Vec::new() }
    }

    /// `results` results across a plane.
    pub fn across(results: usize, mapping: Mapping) -> Self {
        let mut axis = Axis::down(results, mapping);
        let mut near = true;
        for first in axis.first.chunks(GROUP) {
            let start = first.iter().copied().min().unwrap_or(0);
            let end = first.iter().copied().max().unwrap_or(0) + axis.taps;
            near &= end - start <= 16;
            axis.groups.push(start..end);
        }
        if !near {
            return axis;
        }
        axis.pairs.reserve(axis.groups.len() * axis.taps / 2);
        for (group, sources) in axis.groups.iter().enumerate() {
            let members: [usize; GROUP] =
                std::array::from_fn(|i| (GROUP * group + i).min(axis.first.len() - 1));
            for tap in (0..axis.taps).step_by(2) {
                let mut pair = Pair { bytes: [0x80; 16], weights: [0; 8] };
                for (i, &member) in members.iter().enumerate() {
                    let byte = (axis.first[member] - sources.start + tap) as u8;
                    (pair.bytes[4 * i], pair.bytes[4 * i + 2]) = (byte, byte + 1);
                    let weights = &axis.weights[member * axis.taps + tap..][..2];
                    pair.weights[2 * i..2 * i + 2].copy_from_slice(weights);
                }
                axis.pairs.push(pair);
            }
        }
        axis
    }

    /// The sources of these results, for the pass down; ends may exceed the plane.
    pub fn rows(&self, results: Range<usize>) -> Range<usize> {
        let first = &self.first[results];
        let (low, high) = first.iter().fold((usize::MAX, 0), |(low, high), &i| (low.min(i), high.max(i)));
        low..(high + self.taps).min(self.end)
    }

    /// The sources of these results, for the pass across, which computes whole groups.
    pub fn columns(&self, results: Range<usize>) -> Range<usize> {
        let groups = &self.groups[results.start / GROUP..results.end.div_ceil(GROUP)];
        let fold = groups.iter().fold(Range { start: usize::MAX, end: 0 }, |all, group| {
            all.start.min(group.start)..all.end.max(group.end)
        });
        fold.start..fold.end
    }
}

/// The rectangle `across` x `down` of a resized plane, in rows of [`width_of`] bytes: the first `across.start %
/// GROUP` of them and the last few belong to neighbours.
pub fn resample(
    to: &mut Vec<u8>,
    scratch: &mut Vec<u8>,
    plane: &Plane,
    (axis_across, axis_down): (&Axis, &Axis),
    (across, down): (Range<usize>, Range<usize>),
) {
    let sources = axis_across.columns(across.clone());
    // Room for groups that read sixteen bytes from their first source.
    let stride = sources.len().next_multiple_of(16) + 16;
    let width = width_of(&across);
    scratch.resize(down.len() * stride, 0);
    to.resize(down.len() * width, 0);
    let simd = simd();
    for (row, out) in down.clone().zip(scratch.chunks_exact_mut(stride)) {
        let weights = &axis_down.weights[row * axis_down.taps..][..axis_down.taps];
        let first = axis_down.first[row];
        let rows = |tap: usize| plane.row(sources.start, (first + tap).min(axis_down.end - 1));
        #[cfg(target_arch = "x86_64")]
        if simd {
            // SAFETY: `simd` says that the processor has AVX2.
            unsafe { avx2::down(&mut out[..sources.len().next_multiple_of(16)], weights, rows) };
            continue;
        }
        portable::down(&mut out[..sources.len()], weights, rows);
    }
    #[cfg(target_arch = "x86_64")]
    if simd && !axis_across.pairs.is_empty() {
        let first = across.start / GROUP;
        let groups = &axis_across.groups[first..across.end.div_ceil(GROUP)];
        let per_group = axis_across.taps / 2;
        let groups = (groups, &axis_across.pairs[first * per_group..]);
        let mut pairs_of_rows = to.chunks_exact_mut(2 * width).zip(scratch.chunks_exact(2 * stride));
        for (to, from) in &mut pairs_of_rows {
            let ((a, b), (first, second)) = (to.split_at_mut(width), from.split_at(stride));
            // SAFETY: as above.
            unsafe { avx2::across([a, b], [first, second], groups, (sources.start, per_group)) };
        }
        if down.len() % 2 == 1 {
            let from = &scratch[(down.len() - 1) * stride..];
            let mut spare = vec![0; width];
            let to = &mut to[(down.len() - 1) * width..];
            // SAFETY: as above.
            unsafe { avx2::across([to, &mut spare], [from, from], groups, (sources.start, per_group)) };
        }
        return;
    }
    let _ = simd;
    for (to, from) in to.chunks_exact_mut(width).zip(scratch.chunks_exact(stride)) {
        let first = across.start / GROUP * GROUP;
        for (i, to) in to.iter_mut().enumerate() {
            let result = (first + i).min(axis_across.first.len() - 1);
            let weights = &axis_across.weights[result * axis_across.taps..][..axis_across.taps];
            let from = &from[axis_across.first[result] - sources.start..];
            *to = portable::across(weights, from);
        }
    }
}

/// Bytes of a row of [`resample`].
pub fn width_of(across: &Range<usize>) -> usize {
    (across.end.div_ceil(GROUP) - across.start / GROUP) * GROUP
}

/// Catmull and Rom's kernel at `first`, `first + step`, ...: what samples so far away count.
fn cubics(to: &mut [f32], first: f32, step: f32) {
    for (block, to) in to.chunks_exact_mut(LANES).enumerate() {
        for (i, to) in to.iter_mut().enumerate() {
            let x = (first + (LANES * block + i) as f32 * step).abs();
            // Both pieces, then a choice: no branch to mispredict, and lanes side by side.
            let near = (1.5 * x - 2.5) * x * x + 1.0;
            let far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0;
            *to = if x < 1.0 {
                near
            } else if x < 2.0 {
                far
            } else {
                0.0
            };
        }
    }
}

/// True if the processor has AVX2.
fn simd() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2");
    #[allow(unreachable_code)]
    false
}

mod portable {
    use super::PRECISION;

    pub fn down<'a>(out: &mut [u8], weights: &[i16], row: impl Fn(usize) -> &'a [u8]) {
        const BLOCK: usize = 64;
        for (i, out) in out.chunks_mut(BLOCK).enumerate() {
            let mut sums = [1i32 << (PRECISION - 1); BLOCK];
            for (tap, &weight) in weights.iter().enumerate() {
                let from = &row(tap)[i * BLOCK..];
                for (sum, &byte) in sums.iter_mut().zip(from).take(out.len()) {
                    *sum += i32::from(weight) * i32::from(byte);
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = (sum >> PRECISION).clamp(0, 255) as u8;
            }
        }
    }

    pub fn across(weights: &[i16], from: &[u8]) -> u8 {
        let sum: i32 =
            weights.iter().zip(from).map(|(&weight, &byte)| i32::from(weight) * i32::from(byte)).sum();
        ((sum + (1 << (PRECISION - 1))) >> PRECISION).clamp(0, 255) as u8
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Pair, PRECISION};
    use std::arch::x86_64::*;
    use std::ops::Range;

    /// `out` is a multiple of sixteen bytes long.
    #[target_feature(enable = "avx2")]
    pub fn down<'a>(out: &mut [u8], weights: &[i16], row: impl Fn(usize) -> &'a [u8]) {
        let length = out.len();
        let half = _mm256_set1_epi32(1 << (PRECISION - 1));
        // Long windows are read in pieces that a stack holds.
        const MOST: usize = 16;
        if weights.len() > MOST {
            return super::portable::down(out, weights, row);
        }
        let mut rows: [&[u8]; MOST] = [&[]; MOST];
        for (tap, slot) in rows.iter_mut().enumerate().take(weights.len()) {
            *slot = &row(tap)[..length];
        }
        for x in (0..length).step_by(16) {
            let (mut low, mut high) = (half, half);
            for (weights, rows) in weights.chunks_exact(2).zip(rows.chunks_exact(2)) {
                // SAFETY: every row is `length` bytes long, a multiple of sixteen, and x < length.
                let [a, b] = [0, 1].map(|i| unsafe { _mm_loadu_si128(rows[i].as_ptr().add(x).cast()) });
                let both = _mm256_set1_epi32(i32::from(weights[1]) << 16 | i32::from(weights[0]) & 0xffff);
                let first = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(a, b));
                let second = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(a, b));
                low = _mm256_add_epi32(low, _mm256_madd_epi16(first, both));
                high = _mm256_add_epi32(high, _mm256_madd_epi16(second, both));
            }
            let low = _mm256_srai_epi32::<{ PRECISION as i32 }>(low);
            let high = _mm256_srai_epi32::<{ PRECISION as i32 }>(high);
            // 0-3 8-11 | 4-7 12-15, then each lane's eight bytes.
            let words = _mm256_packs_epi32(low, high);
            let bytes = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi16(words, words));
            let bytes = _mm_shuffle_epi32::<0b11_01_10_00>(_mm256_castsi256_si128(bytes));
            // SAFETY: x + 16 <= length.
            unsafe { _mm_storeu_si128(out.as_mut_ptr().add(x).cast(), bytes) };
        }
    }

    /// Two rows at a time.
    #[target_feature(enable = "avx2")]
    pub fn across(
        to: [&mut [u8]; 2],
        from: [&[u8]; 2],
        (groups, pairs): (&[Range<usize>], &[Pair]),
        (start, per_group): (usize, usize),
    ) {
        let half = _mm256_set1_epi32(1 << (PRECISION - 1));
        let [first, second] = to;
        let outputs = first.chunks_exact_mut(4).zip(second.chunks_exact_mut(4));
        let groups = groups.iter().zip(pairs.chunks_exact(per_group));
        for ((sources, pairs), (first, second)) in groups.zip(outputs) {
            let at = sources.start - start;
            let [a, b] = from.map(|row| {
                let sixteen = &row[at..at + 16];
                // SAFETY: the slice has the sixteen bytes that are read.
                unsafe { _mm_loadu_si128(sixteen.as_ptr().cast()) }
            });
            let pixels = _mm256_set_m128i(b, a);
            let mut sums = half;
            for Pair { bytes, weights } in pairs {
                // SAFETY: both are arrays of the sixteen bytes that are read.
                let bytes = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
                // SAFETY: as above.
                let weights = unsafe { _mm_loadu_si128(weights.as_ptr().cast()) };
                let taken = _mm256_shuffle_epi8(pixels, _mm256_broadcastsi128_si256(bytes));
                sums = _mm256_add_epi32(sums, _mm256_madd_epi16(taken, _mm256_broadcastsi128_si256(weights)));
            }
            let sums = _mm256_srai_epi32::<{ PRECISION as i32 }>(sums);
            let words = _mm256_packs_epi32(sums, sums);
            let bytes = _mm256_packus_epi16(words, words);
            let a = _mm_cvtsi128_si32(_mm256_castsi256_si128(bytes));
            let b = _mm_cvtsi128_si32(_mm256_extracti128_si256::<1>(bytes));
            first.copy_from_slice(&a.to_le_bytes());
            second.copy_from_slice(&b.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cubic(x: f64) -> f64 {
        match x.abs() {
            x if x < 1.0 => 1.5 * x.powi(3) - 2.5 * x.powi(2) + 1.0,
            x if x < 2.0 => -0.5 * x.powi(3) + 2.5 * x.powi(2) - 4.0 * x + 2.0,
            _ => 0.0,
        }
    }

    /// The definition, in floats.
    fn exact(from: &[f64], mapping: Mapping, results: usize) -> Vec<f64> {
        let scale = mapping.length / results as f64;
        let wide = scale.max(1.0);
        let results = (0..results).map(|i| if mapping.mirrored { results - 1 - i } else { i });
        results
            .map(|i| {
                let centre = mapping.start + (i as f64 + 0.5) * scale;
                let (low, high) = ((centre - 2.0 * wide + 0.5).max(0.0), centre + 2.0 * wide + 0.5);
                let low = (low as usize).clamp(mapping.from, mapping.to - 1);
                let high = (high as usize).clamp(low + 1, mapping.to);
                let weights: Vec<f64> =
                    (low..high).map(|j| cubic((j as f64 + 0.5 - centre) / wide)).collect();
                let sum: f64 = weights.iter().sum();
                weights.iter().zip(&from[low..high]).map(|(w, v)| w * v).sum::<f64>() / sum
            })
            .collect()
    }

    proptest! {
        #[test]
        fn a_row_is_resized_as_defined(
            length in 1usize..700, results in 1usize..260, from in 0.0f64..0.4, to in 0.6f64..1.0,
            mirrored in any::<bool>(), seed in 0u32..1000,
        ) {
            let mut state = seed;
            let mut plane = Plane::new(length, 1);
            plane.reserve((0, 0), (length, 1));
            for byte in &mut plane.pixels[..length] {
                state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                *byte = (state >> 24) as u8;
            }
            let start = (from * length as f64).floor();
            let end = (to * length as f64).ceil();
            let mapping =
                Mapping { start, length: end - start, from: start as usize, to: end as usize, mirrored };
            let across = Axis::across(results, mapping);
            let one = Mapping { start: 0.0, length: 1.0, from: 0, to: 1, mirrored: false };
            let (mut row, mut scratch) = (Vec::new(), Vec::new());
            resample(&mut row, &mut scratch, &plane, (&across, &Axis::down(1, one)), (0..results, 0..1));
            let bytes: Vec<f64> = plane.pixels[..length].iter().map(|&byte| f64::from(byte)).collect();
            let most = 0.51 + 255.0 * across.taps as f64 / f64::from(1 << PRECISION);
            for (i, (got, exact)) in row.iter().zip(exact(&bytes, mapping, results)).enumerate() {
                prop_assert!((f64::from(*got) - exact.clamp(0.0, 255.0)).abs() <= most, "{i}: {got} {exact}");
            }
            for ((got, weights), &first) in row.iter().zip(across.weights.chunks_exact(across.taps)).zip(&across.first).take(results) {
                prop_assert_eq!(*got, portable::across(weights, &plane.pixels[first..]));
            }
        }

        #[test]
        fn down_is_the_same_on_every_processor(
            width in 1usize..80, height in 1usize..60, results in 1usize..40, seed in 0u32..1000,
        ) {
            let mut state = seed;
            let mut plane = Plane::new(width, height);
            plane.reserve((0, 0), (width, height));
            for byte in &mut plane.pixels[..width * height] {
                state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                *byte = (state >> 24) as u8;
            }
            let all = |length: usize| Mapping {
                start: 0.0, length: length as f64, from: 0, to: length, mirrored: false,
            };
            let (across, down) = (Axis::across(width, all(width)), Axis::down(results, all(height)));
            let (mut rows, mut scratch) = (Vec::new(), Vec::new());
            resample(&mut rows, &mut scratch, &plane, (&across, &down), (0..width, 0..results));
            // Across, nothing changes.
            for (y, row) in rows.chunks_exact(width_of(&(0..width))).enumerate() {
                let weights = &down.weights[y * down.taps..][..down.taps];
                let mut slow = vec![0; width];
                portable::down(&mut slow, weights, |tap| plane.row(0, (down.first[y] + tap).min(height - 1)));
                prop_assert_eq!(&row[..width], &slow[..]);
            }
        }
    }
}
