//! Rows of planes to rows of pixels, in integers: every processor gives the same bytes.

use crate::data::decode::jpeg::Colours;

/// Pixels at a time.
const STEP: usize = 16;
/// Bits of the fraction while colours are mixed.
const FRACTION: i32 = 7;
/// 0.402, 0.344136, 0.714136 and 0.772 (JFIF 1.02), with fifteen bits of fraction.
const RED: i16 = 13173;
const GREEN: [i16; 2] = [11277, 23401];
const BLUE: i16 = 25297;

/// Writes the pixels of as many bytes as `to` has room for, three each. `rows` are those of the planes - three
/// times the same where there is one plane - with at least fifteen bytes to spare behind.
pub fn pixels(to: &mut [u8], rows: [&[u8]; 3], colours: Colours) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, which was looked up above.
        return unsafe { avx2::pixels(to, rows, colours) };
    }
    portable(to, rows, colours);
}

fn portable(to: &mut [u8], [first, second, third]: [&[u8]; 3], colours: Colours) {
    for (i, pixel) in to.chunks_exact_mut(3).enumerate() {
        pixel.copy_from_slice(&match colours {
            Colours::YCbCr => rgb(first[i], second[i], third[i]),
            Colours::Rgb | Colours::Gray => [first[i], second[i], third[i]],
        });
    }
}

fn rgb(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let (cb, cr) = ((i16::from(cb) - 128) << FRACTION, (i16::from(cr) - 128) << FRACTION);
    let share = |value: i16, of: i16| (((i32::from(value) * i32::from(of)) >> 14) + 1) >> 1;
    let (blue, red) = (i32::from(cb), i32::from(cr));
    let mix = |sum: i32| (i32::from(y) + ((sum + (1 << (FRACTION - 1))) >> FRACTION)).clamp(0, 255) as u8;
    [mix(red + share(cr, RED)), mix(-share(cb, GREEN[0]) - share(cr, GREEN[1])), mix(blue + share(cb, BLUE))]
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Colours, BLUE, FRACTION, GREEN, RED, STEP};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2")]
    pub fn pixels(to: &mut [u8], rows: [&[u8]; 3], colours: Colours) {
        for (i, to) in to.chunks_mut(3 * STEP).enumerate() {
            let [a, b, c] = rows.map(|row| {
                let sixteen = &row[STEP * i..STEP * (i + 1)];
                // SAFETY: the slice has the sixteen bytes that are read.
                unsafe { _mm_loadu_si128(sixteen.as_ptr().cast()) }
            });
            let (r, g, b) = match colours {
                Colours::YCbCr => rgb(a, b, c),
                Colours::Rgb | Colours::Gray => (a, b, c),
            };
            let mut bytes = [0u8; 3 * STEP];
            for third in 0..3 {
                let row = interleaved(r, g, b, third);
                // SAFETY: third < 3, so sixteen bytes of the array.
                unsafe { _mm_storeu_si128(bytes.as_mut_ptr().add(STEP * third).cast(), row) };
            }
            let length = to.len();
            to.copy_from_slice(&bytes[..length]);
        }
    }

    #[target_feature(enable = "avx2")]
    fn rgb(y: __m128i, cb: __m128i, cr: __m128i) -> (__m128i, __m128i, __m128i) {
        let middle = _mm256_set1_epi16(128);
        let centred =
            |c: __m128i| _mm256_slli_epi16::<FRACTION>(_mm256_sub_epi16(_mm256_cvtepu8_epi16(c), middle));
        let (cb, cr, y) = (centred(cb), centred(cr), _mm256_cvtepu8_epi16(y));
        let share = |value: __m256i, of: i16| _mm256_mulhrs_epi16(value, _mm256_set1_epi16(of));
        let half = _mm256_set1_epi16(1 << (FRACTION - 1));
        let mix = |sum: __m256i| {
            let words = _mm256_add_epi16(y, _mm256_srai_epi16::<FRACTION>(_mm256_add_epi16(sum, half)));
            let bytes = _mm256_packus_epi16(words, words);
            _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(bytes))
        };
        let zero = _mm256_setzero_si256();
        (
            mix(_mm256_add_epi16(cr, share(cr, RED))),
            mix(_mm256_sub_epi16(_mm256_sub_epi16(zero, share(cb, GREEN[0])), share(cr, GREEN[1]))),
            mix(_mm256_add_epi16(cb, share(cb, BLUE))),
        )
    }

    /// The first, second or third sixteen of r0 g0 b0 r1 g1 b1 ...
    #[target_feature(enable = "avx2")]
    fn interleaved(r: __m128i, g: __m128i, b: __m128i, third: usize) -> __m128i {
        /// By third and channel: which bytes go where.
        const ORDERS: [[[u8; 16]; 3]; 3] = {
            let mut orders = [[[0x80u8; 16]; 3]; 3];
            let mut i = 0;
            while i < 48 {
                orders[i / 16][i % 3][i % 16] = (i / 3) as u8;
                i += 1;
            }
            orders
        };
        let [r, g, b] = [(r, 0), (g, 1), (b, 2)].map(|(from, channel): (__m128i, usize)| {
            let order = &ORDERS[third][channel];
            // SAFETY: the array has the sixteen bytes that are read.
            _mm_shuffle_epi8(from, unsafe { _mm_loadu_si128(order.as_ptr().cast()) })
        });
        _mm_or_si128(_mm_or_si128(r, g), b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_colour_is_within_one_of_the_definition_and_the_same_on_every_processor() {
        let all: Vec<u8> = (0..=255).chain(0..=255).collect();
        for cb in (0..=255).step_by(5) {
            for cr in (0..=255).step_by(3) {
                let (blue, red) = (vec![cb; 272], vec![cr; 272]);
                let rows = [&all[..272], &blue, &red];
                let (mut fast, mut plain) = (vec![0; 3 * 251], vec![0; 3 * 251]);
                pixels(&mut fast, rows, Colours::YCbCr);
                portable(&mut plain, rows, Colours::YCbCr);
                assert!(fast == plain, "{cb} {cr}");
                for (y, pixel) in plain.chunks_exact(3).enumerate() {
                    let (y, cb, cr) = (y as f64, f64::from(cb) - 128.0, f64::from(cr) - 128.0);
                    let exact = [y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb];
                    for (got, exact) in pixel.iter().zip(exact) {
                        assert!((f64::from(*got) - exact.clamp(0.0, 255.0)).abs() < 0.6, "{y} {cb} {cr}");
                    }
                }
            }
        }
    }
}
