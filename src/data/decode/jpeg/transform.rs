//! The inverse discrete cosine transform of a block, whole or at reduced size.
//!
//! Arai, Agui and Nakajima's factorisation in 32-bit floats (its scale factors are folded into the quantisers).
//! No product is fused with a sum, so every processor gives the same bytes.

use std::ops::{Add, Mul, Sub};

/// A block: coefficient (u across, v down) at `8 * u + v`.
pub type Block = [f32; 64];

/// Places of coefficients in zigzag order in a [`Block`].
pub const PLACES: [u8; 64] = {
    let mut places = [0u8; 64];
    let (mut across, mut down, mut up) = (0usize, 0usize, true);
    let mut i = 0;
    while i < 64 {
        places[i] = (8 * across + down) as u8;
        match (up, across, down) {
            (true, 7, _) => (down, up) = (down + 1, false),
            (true, _, 0) => (across, up) = (across + 1, false),
            (true, ..) => (across, down) = (across + 1, down - 1),
            (false, _, 7) => (across, up) = (across + 1, true),
            (false, 0, _) => (down, up) = (down + 1, true),
            (false, ..) => (across, down) = (across - 1, down + 1),
        }
        i += 1;
    }
    places
};

/// Scale of each frequency in the factorisation: 1, then sqrt(2) cos(k pi / 16).
const SCALES: [f64; 8] = [
    1.0,
    1.387_039_845_322_147_5,
    1.306_562_964_876_376_5,
    1.175_875_602_419_358_8,
    1.0,
    0.785_694_958_387_102_2,
    0.541_196_100_146_196_9,
    0.275_899_379_282_943_1,
];

/// Steps of a quantiser in zigzag order, times what the transform to blocks of `side` pixels wants.
pub fn dequantiser(steps: &[u16; 64], side: usize) -> [f32; 64] {
    std::array::from_fn(|i| {
        let (across, down) = (usize::from(PLACES[i]) / 8, usize::from(PLACES[i]) % 8);
        let factor = if side == 8 { SCALES[across] * SCALES[down] / 8.0 } else { 1.0 };
        (f64::from(steps[i]) * factor) as f32
    })
}

/// The transform of an image's blocks to `side` x `side` pixels.
#[derive(Debug, Clone)]
pub struct Inverse {
    /// 8, 4, 2 or 1.
    side: usize,
    /// By frequency and place, for reduced blocks; scaled so that means stay.
    basis: [[f32; 4]; 4],
    simd: bool,
}

impl Inverse {
    pub fn new(side: usize) -> Self {
        let mut basis = [[0.0; 4]; 4];
        let scale = (side as f64 / 8.0).sqrt();
        for (k, row) in basis.iter_mut().enumerate().take(if side < 8 { side } else { 0 }) {
            let norm = (if k == 0 { 1.0 } else { 2.0 } / side as f64).sqrt();
            for (i, value) in row.iter_mut().enumerate().take(side) {
                let angle = std::f64::consts::PI * (2 * i + 1) as f64 * k as f64 / (2 * side) as f64;
                *value = (scale * norm * angle.cos()) as f32;
            }
        }
        Inverse { side, basis, simd: simd() }
    }

    /// Pixels of a block into `to`, whose rows are `stride` apart.
    #[inline(always)]
    pub fn write(&self, block: &Block, to: &mut [u8], stride: usize) {
        if self.side != 8 {
            return self.reduced(block, to, stride);
        }
        assert!(to.len() >= 7 * stride + 8, "a plane that holds the block");
        #[cfg(target_arch = "x86_64")]
        if self.simd {
            // SAFETY: `simd` says that the processor has AVX2; the assertion above covers every row.
            return unsafe { avx2::inverse(block, to.as_mut_ptr(), stride) };
        }
        portable(block, to, stride);
    }

    /// Pixels of a block whose only coefficient is the first.
    pub fn write_flat(&self, first: f32, to: &mut [u8], stride: usize) {
        let value = pixel(if self.side == 8 { first } else { first / 8.0 });
        for row in to.chunks_mut(stride).take(self.side) {
            row[..self.side].fill(value);
        }
    }

    /// The lowest `side` x `side` frequencies as so many pixels: what is left when a block shrinks.
    fn reduced(&self, block: &Block, to: &mut [u8], stride: usize) {
        let side = self.side;
        if side == 1 {
            to[0] = pixel(block[0] / 8.0);
            return;
        }
        let mut across = [[0.0f32; 4]; 4];
        for (v, row) in across.iter_mut().enumerate().take(side) {
            for (x, value) in row.iter_mut().enumerate().take(side) {
                *value = (0..side).map(|u| block[8 * u + v] * self.basis[u][x]).sum();
            }
        }
        for y in 0..side {
            for x in 0..side {
                to[y * stride + x] = pixel((0..side).map(|v| across[v][x] * self.basis[v][y]).sum());
            }
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

fn pixel(value: f32) -> u8 {
    (value + 128.0).round_ties_even() as u8
}

fn portable(block: &Block, to: &mut [u8], stride: usize) {
    let mut rows = [[0.0f32; 8]; 8];
    for down in 0..8 {
        let column = lines(std::array::from_fn(|across| block[8 * across + down]));
        rows[down] = column;
    }
    for x in 0..8 {
        let column = lines(std::array::from_fn(|down| rows[down][x]));
        for (y, value) in column.into_iter().enumerate() {
            to[y * stride + x] = pixel(value);
        }
    }
}

/// The transform of one line of eight.
#[inline(always)]
fn lines<V>(x: [V; 8]) -> [V; 8]
where
    V: Copy + Add<Output = V> + Sub<Output = V> + Mul<f32, Output = V>,
{
    let (s04, d04) = (x[0] + x[4], x[0] - x[4]);
    let s26 = x[2] + x[6];
    let d26 = (x[2] - x[6]) * std::f32::consts::SQRT_2 - s26;
    let (e0, e3, e1, e2) = (s04 + s26, s04 - s26, d04 + d26, d04 - d26);

    let (s53, d53) = (x[5] + x[3], x[5] - x[3]);
    let (s17, d17) = (x[1] + x[7], x[1] - x[7]);
    let o7 = s17 + s53;
    let both = (d53 + d17) * 1.847_759_1;
    let o6 = both - d53 * 2.613_126 - o7;
    let o5 = (s17 - s53) * std::f32::consts::SQRT_2 - o6;
    let o4 = both - d17 * 1.082_392_2 - o5;
    [e0 + o7, e1 + o6, e2 + o5, e3 + o4, e3 - o4, e2 - o5, e1 - o6, e0 - o7]
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{lines, Block};
    use std::arch::x86_64::*;
    use std::ops::{Add, Mul, Sub};

    /// Eight lines side by side.
    #[derive(Clone, Copy)]
    struct Eight(__m256);

    impl Add for Eight {
        type Output = Eight;
        #[inline(always)]
        fn add(self, other: Eight) -> Eight {
            // SAFETY: only made inside of `inverse`, whose caller has AVX2.
            Eight(unsafe { _mm256_add_ps(self.0, other.0) })
        }
    }
    impl Sub for Eight {
        type Output = Eight;
        #[inline(always)]
        fn sub(self, other: Eight) -> Eight {
            // SAFETY: as for `add`.
            Eight(unsafe { _mm256_sub_ps(self.0, other.0) })
        }
    }
    impl Mul<f32> for Eight {
        type Output = Eight;
        #[inline(always)]
        fn mul(self, factor: f32) -> Eight {
            // SAFETY: as for `add`.
            Eight(unsafe { _mm256_mul_ps(self.0, _mm256_set1_ps(factor)) })
        }
    }

    /// # Safety
    /// The processor has AVX2; `to` has eight rows of eight bytes, `stride` apart.
    #[target_feature(enable = "avx2")]
    pub unsafe fn inverse(block: &Block, to: *mut u8, stride: usize) {
        // SAFETY: the block has 64 values.
        let x: [Eight; 8] =
            std::array::from_fn(|i| Eight(unsafe { _mm256_loadu_ps(block.as_ptr().add(8 * i)) }));
        let out = lines(transposed(lines(x).map(|v| v.0)).map(Eight));
        let middle = _mm256_set1_ps(128.0);
        // Coefficients that no encoder writes must not leave the range of integers.
        let most = _mm256_set1_ps(255.0);
        let whole = out.map(|v| _mm256_cvtps_epi32(_mm256_min_ps(_mm256_add_ps(v.0, middle), most)));
        for four in 0..2 {
            let [a, b, c, d] = [0, 1, 2, 3].map(|i| whole[4 * four + i]);
            // Lanes of 128 bits: a0 b0 c0 d0 | a1 b1 c1 d1, four bytes each.
            let bytes = _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            let rows = _mm256_permutevar8x32_epi32(bytes, order);
            let low = _mm256_castsi256_si128(rows);
            let high = _mm256_extracti128_si256::<1>(rows);
            // SAFETY: rows 4 * four .. 4 * four + 4, of eight bytes each.
            unsafe {
                let row = to.add(4 * four * stride);
                _mm_storel_epi64(row.cast(), low);
                _mm_storel_epi64(row.add(stride).cast(), _mm_unpackhi_epi64(low, low));
                _mm_storel_epi64(row.add(2 * stride).cast(), high);
                _mm_storel_epi64(row.add(3 * stride).cast(), _mm_unpackhi_epi64(high, high));
            }
        }
    }

    #[target_feature(enable = "avx2")]
    fn transposed(r: [__m256; 8]) -> [__m256; 8] {
        let pair = |a: __m256, b: __m256| (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let ((a0, a1), (a2, a3)) = (pair(r[0], r[1]), pair(r[2], r[3]));
        let ((a4, a5), (a6, a7)) = (pair(r[4], r[5]), pair(r[6], r[7]));
        let four = |a: __m256, b: __m256| (_mm256_shuffle_ps::<0x44>(a, b), _mm256_shuffle_ps::<0xee>(a, b));
        let ((b0, b1), (b2, b3)) = (four(a0, a2), four(a1, a3));
        let ((b4, b5), (b6, b7)) = (four(a4, a6), four(a5, a7));
        let low = |a: __m256, b: __m256| _mm256_permute2f128_ps::<0x20>(a, b);
        let high = |a: __m256, b: __m256| _mm256_permute2f128_ps::<0x31>(a, b);
        [
            low(b0, b4),
            low(b1, b5),
            low(b2, b6),
            low(b3, b7),
            high(b0, b4),
            high(b1, b5),
            high(b2, b6),
            high(b3, b7),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, in double precision.
    fn exact(coefficients: &[f64; 64], x: usize, y: usize) -> f64 {
        let angle = |place: usize, k: usize| {
            let norm = if k == 0 { std::f64::consts::FRAC_1_SQRT_2 } else { 1.0 };
            norm * (std::f64::consts::PI * (2 * place + 1) as f64 * k as f64 / 16.0).cos()
        };
        (0..64).map(|i| coefficients[i] * angle(x, i / 8) * angle(y, i % 8)).sum::<f64>() / 4.0 + 128.0
    }

    #[test]
    fn blocks_are_transformed_as_defined_and_alike_on_every_processor() {
        let mut state = 1u32;
        let mut draw = |most: i32| {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            (state >> 16) as i32 % (2 * most + 1) - most
        };
        for round in 0..200 {
            let steps: [u16; 64] = std::array::from_fn(|_| 1 + draw(8).unsigned_abs() as u16);
            let levels: [i32; 64] = std::array::from_fn(|i| if i < 2 + round % 60 { draw(20) } else { 0 });
            let factors = dequantiser(&steps, 8);
            let (mut block, mut coefficients) = ([0.0; 64], [0.0; 64]);
            for i in 0..64 {
                block[usize::from(PLACES[i])] = levels[i] as f32 * factors[i];
                coefficients[usize::from(PLACES[i])] = f64::from(levels[i] * i32::from(steps[i]));
            }
            let (mut fast, mut slow) = ([0; 64], [0; 64]);
            Inverse::new(8).write(&block, &mut fast, 8);
            portable(&block, &mut slow, 8);
            assert_eq!(fast, slow);
            for (i, &got) in slow.iter().enumerate() {
                let exact = exact(&coefficients, i % 8, i / 8).clamp(0.0, 255.0);
                assert!((f64::from(got) - exact).abs() < 0.51, "{round} {i}: {got} {exact}");
            }
            // At reduced size, means stay.
            let plain = dequantiser(&steps, 1);
            let mut one = [0];
            Inverse::new(1).write(&[levels[0] as f32 * plain[0]; 64], &mut one, 1);
            let mean = f64::from(levels[0] * i32::from(steps[0])) / 8.0 + 128.0;
            assert!((f64::from(one[0]) - mean.clamp(0.0, 255.0)).abs() <= 0.51);
        }
    }

    #[test]
    fn zigzag_places_are_a_permutation_that_starts_across() {
        assert_eq!(PLACES[..6], [0, 8, 1, 2, 9, 16]);
        let mut sorted = PLACES;
        sorted.sort_unstable();
        assert!(sorted.iter().enumerate().all(|(i, &place)| usize::from(place) == i));
    }
}
