//! Masks: the official routine bit for bit, and what every strategy promises.

use std::path::Path;

use flip::mask::{
    draw_images, draw_texts, random_mask, Captions, ImageMask, ImageStrategy, Kept, Ratio, Strength,
    TextMask, TextStrategy, TokenFrequencies,
};
use proptest::prelude::*;
use rand::RngCore;
use safetensors::SafeTensors;

fn ratio(value: f64) -> Ratio {
    Ratio::try_from(value).expect("a ratio")
}

fn strength(value: f64) -> Strength {
    Strength::try_from(value).expect("a strength")
}

fn words<const N: usize>(tensors: &SafeTensors<'_>, name: &str) -> Vec<[u8; N]> {
    let tensor = tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    tensor.data().chunks_exact(N).map(|word| word.try_into().expect("a chunk of N")).collect()
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    words(tensors, name).into_iter().map(f32::from_le_bytes).collect()
}

fn ids(tensors: &SafeTensors<'_>, name: &str) -> Vec<u32> {
    words(tensors, name).into_iter().map(u32::from_le_bytes).collect()
}

#[test]
fn random_mask_is_the_official_one_bit_for_bit() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fixtures/flip_jax_tiny");
    let read = |file: &str| std::fs::read(folder.join(file)).expect(file);
    let (batch, expected) = (read("batch.safetensors"), read("expected.safetensors"));
    let batch = SafeTensors::deserialize(&batch).expect("a safetensors file");
    let expected = SafeTensors::deserialize(&expected).expect("a safetensors file");
    let noise = floats(&batch, "noise");
    let mask_x = floats(&batch, "mask_x");
    let (rows, n, channels) = (6, 16, 8);
    for (tag, removed) in [("mask000", 0.0), ("mask050", 0.5), ("mask075", 0.75)] {
        let kept = ratio(removed).kept(n);
        let ours = random_mask(&noise, None, rows, n, kept);
        assert_eq!(ours.ids_keep, ids(&expected, &format!("{tag}/ids_keep")), "{tag}");
        assert_eq!(ours.ids_shuffle, ids(&expected, &format!("{tag}/ids_shuffle")), "{tag}");
        assert_eq!(ours.ids_restore, ids(&expected, &format!("{tag}/ids_restore")), "{tag}");
        assert_eq!(ours.mask, floats(&expected, &format!("{tag}/mask")), "{tag}");
        let gathered: Vec<f32> = (0..rows * kept)
            .flat_map(|slot| {
                let token = slot / kept * n + ours.ids_keep[slot] as usize;
                &mask_x[token * channels..][..channels]
            })
            .copied()
            .collect();
        assert_eq!(gathered, floats(&expected, &format!("{tag}/x_masked")), "{tag}");
        let zero_bias = vec![0.0; n];
        assert_eq!(random_mask(&noise, Some(&zero_bias), rows, n, kept), ours, "{tag}");
    }
}

/// Every row holds the number it should, no position twice, none out of range.
fn assert_sound(kept: &Kept, batch: usize, count: usize, of: usize) {
    assert_eq!((kept.batch, kept.kept, kept.of), (batch, count, of));
    assert_eq!(kept.ids.len(), batch * count);
    if count == 0 {
        return;
    }
    for row in kept.ids.chunks_exact(count) {
        let mut row = row.to_vec();
        row.sort_unstable();
        row.dedup();
        assert_eq!(row.len(), count, "a position occurs twice");
        assert!(row.iter().all(|&id| (id as usize) < of), "a position is out of range: {row:?}");
    }
}

/// How often each position is kept.
fn tally(kept: &Kept) -> Vec<f64> {
    let mut counts = vec![0.0; kept.of];
    kept.ids.iter().for_each(|&id| counts[id as usize] += 1.0);
    counts
}

/// Pearson's statistic of the counts of kept positions against equal probability: chi-square with of - 1
/// degrees of freedom, where positions of one row exclude each other as those of `Random` do.
fn chi_square(kept: &Kept) -> f64 {
    let of = kept.of as f64;
    let probability = kept.kept as f64 / of;
    let expected = kept.batch as f64 * probability;
    let variance = expected * (1.0 - probability) * of / (of - 1.0);
    tally(kept).iter().map(|count| (count - expected).powi(2) / variance).sum()
}

/// A chi-square variable of `freedom` degrees exceeds this once in some 10^5 times (Wilson-Hilferty).
fn improbable(freedom: usize) -> f64 {
    let spread = 2.0 / (9.0 * freedom as f64);
    freedom as f64 * (1.0 - spread + 4.3 * spread.sqrt()).powi(3)
}

fn image_masks() -> impl Strategy<Value = ImageMask> {
    (0usize..5, 0.0..1.0f64, 0.0..3.0f64).prop_map(|(which, removed, bias)| match which {
        0 => ImageMask::Keep,
        1 => ImageMask::Random(ratio(removed)),
        2 => ImageMask::Centred { ratio: ratio(removed), strength: strength(bias) },
        3 => ImageMask::Grid(ratio(removed)),
        _ => ImageMask::Block(ratio(removed)),
    })
}

fn text_masks() -> impl Strategy<Value = TextMask> {
    (0usize..6, 0.0..1.0f64).prop_map(|(which, removed)| match which {
        0 => TextMask::Keep,
        1 => TextMask::Random(ratio(removed)),
        2 => TextMask::Prioritised(ratio(removed)),
        3 => TextMask::Truncate(ratio(removed)),
        4 => TextMask::Block(ratio(removed)),
        _ => TextMask::Frequency(ratio(removed)),
    })
}

/// (context, lengths, tokens [batch, context] padded with 0)
fn captions() -> impl Strategy<Value = (usize, Vec<u32>, Vec<u32>)> {
    (1usize..40, prop::collection::vec(any::<prop::sample::Index>(), 1..8), any::<u32>()).prop_map(
        |(context, lengths, salt)| {
            let lengths: Vec<u32> = lengths.iter().map(|length| length.index(context + 1) as u32).collect();
            let tokens = lengths
                .iter()
                .flat_map(|&length| {
                    (0..context as u32)
                        .map(move |t| if t < length { 1 + salt.wrapping_mul(t + 1) % 50 } else { 0 })
                })
                .collect();
            (context, lengths, tokens)
        },
    )
}

proptest! {
    #[test]
    fn image_draws_are_sound_and_rows_are_independent(
        mask in image_masks(), grid in 1usize..17, batch in 1usize..8, seed: u64, step: u64,
        first_row in 0u64..1000, cut: prop::sample::Index,
    ) {
        let whole = mask.draw(grid, batch, seed, step, first_row);
        assert_sound(&whole, batch, mask.kept(grid), grid * grid);
        if let ImageMask::Random(ratio) | ImageMask::Centred { ratio, .. } | ImageMask::Grid(ratio)
            | ImageMask::Block(ratio) = mask
        {
            prop_assert_eq!(whole.kept, ratio.kept(grid * grid));
        }
        let cut = cut.index(batch + 1);
        let mut parts = mask.draw(grid, cut, seed, step, first_row).ids;
        parts.extend(mask.draw(grid, batch - cut, seed, step, first_row + cut as u64).ids);
        prop_assert_eq!(whole.ids, parts);
    }

    #[test]
    fn text_draws_are_sound_sorted_and_rows_are_independent(
        mask in text_masks(), (context, lengths, tokens) in captions(), keep_end: bool, seed: u64, step: u64,
        cut: prop::sample::Index,
    ) {
        let frequencies = TokenFrequencies::count(tokens.chunks(context));
        let batch = lengths.len();
        let draw = |rows: std::ops::Range<usize>| {
            let captions = Captions {
                tokens: &tokens[rows.start * context..rows.end * context],
                lengths: &lengths[rows.clone()],
                context,
                keep_end,
            };
            mask.draw(&captions, Some(&frequencies), seed, step, rows.start as u64)
        };
        let whole = draw(0..batch);
        let kept = mask.kept(context);
        assert_sound(&whole, batch, kept, context);
        let cut = cut.index(batch + 1);
        let mut parts = draw(0..cut).ids;
        parts.extend(draw(cut..batch).ids);
        prop_assert_eq!(&whole.ids, &parts);
        if kept == 0 {
            return Ok(());
        }
        for (row, &length) in whole.ids.chunks_exact(kept).zip(&lengths) {
            prop_assert!(row.windows(2).all(|pair| pair[0] < pair[1]), "not in the order of the caption");
            if keep_end && length > 0 {
                prop_assert!(row.contains(&(length - 1)), "the end of text was dropped");
            }
            if matches!(mask, TextMask::Prioritised(_) | TextMask::Frequency(_) | TextMask::Block(_)) {
                let real = row.iter().filter(|&&id| id < length).count();
                prop_assert_eq!(real, kept.min(length as usize), "padding was kept before real tokens");
            }
            if matches!(mask, TextMask::Truncate(_)) && !keep_end {
                prop_assert!(row.iter().enumerate().all(|(k, &id)| k == id as usize));
            }
        }
    }
}

#[test]
fn draws_differ_from_row_to_row_step_to_step_and_seed_to_seed() {
    for mask in [
        ImageMask::Random(ratio(0.5)),
        ImageMask::Centred { ratio: ratio(0.5), strength: strength(0.5) },
        ImageMask::Grid(ratio(0.5)),
        ImageMask::Block(ratio(0.75)),
    ] {
        let rows = mask.draw(14, 16, 1, 2, 0);
        let mut distinct: Vec<&[u32]> = rows.ids.chunks_exact(rows.kept).collect();
        distinct.sort();
        distinct.dedup();
        assert!(distinct.len() > 10, "{mask:?}: rows repeat");
        assert_ne!(rows, mask.draw(14, 16, 1, 3, 0), "{mask:?}: steps repeat");
        assert_ne!(rows, mask.draw(14, 16, 2, 2, 0), "{mask:?}: seeds repeat");
    }
}

#[test]
fn random_and_grid_keep_every_patch_equally_often() {
    for removed in [0.5, 0.75, 0.9] {
        for mask in [ImageMask::Random(ratio(removed)), ImageMask::Grid(ratio(removed))] {
            let statistic = chi_square(&mask.draw(7, 20_000, 5, 0, 0));
            assert!(statistic < improbable(48), "{mask:?}: {statistic} for 48 degrees of freedom");
        }
    }
    // The same measure tells a preference from none.
    let slight = ImageMask::Centred { ratio: ratio(0.5), strength: strength(0.1) };
    assert!(chi_square(&slight.draw(7, 20_000, 5, 0, 0)) > improbable(48));
}

#[test]
fn centred_prefers_the_centre_the_more_the_stronger() {
    let mut corner_before = f64::INFINITY;
    for bias in [0.0, 0.3, 0.6, 0.9] {
        let mask = ImageMask::Centred { ratio: ratio(0.5), strength: strength(bias) };
        let counts = tally(&mask.draw(7, 4_000, 9, 0, 0));
        let corner = counts[0] + counts[6] + counts[42] + counts[48];
        assert!(
            corner < corner_before,
            "strength {bias}: corners kept {corner} times, before {corner_before}"
        );
        corner_before = corner;
    }
    let unbiased = ImageMask::Centred { ratio: ratio(0.5), strength: strength(0.0) };
    assert_eq!(unbiased.draw(7, 8, 9, 0, 0), ImageMask::Random(ratio(0.5)).draw(7, 8, 9, 0, 0));
}

#[test]
fn grid_keeps_the_share_of_every_cell() {
    for (removed, share) in [(0.5, 2), (0.75, 1)] {
        let kept = ImageMask::Grid(ratio(removed)).draw(14, 50, 3, 0, 0);
        for row in kept.ids.chunks_exact(kept.kept) {
            let mut cells = [0; 49];
            row.iter().for_each(|&id| cells[(id / 28 * 7 + id % 14 / 2) as usize] += 1);
            assert_eq!(cells, [share; 49], "ratio {removed}");
        }
    }
}

#[test]
fn block_keeps_a_rectangle_with_an_incomplete_last_row() {
    // 98 of 14 x 14: nine rows of ten and one of eight.
    let kept = ImageMask::Block(ratio(0.5)).draw(14, 40, 3, 0, 0);
    for row in kept.ids.chunks_exact(98) {
        let (top, left) = (row[0] / 14, row[0] % 14);
        for (k, &id) in row.iter().enumerate() {
            assert_eq!((id / 14 - top, id % 14 - left), (k as u32 / 10, k as u32 % 10));
        }
    }
    let corners: std::collections::BTreeSet<u32> = kept.ids.iter().step_by(98).copied().collect();
    assert!(corners.len() > 10, "the block stays at {corners:?}");
}

/// 2,000 captions of six tokens in a context of ten: token 1 is in every place but the last.
fn common_and_rare() -> (Vec<u32>, Vec<u32>) {
    let rows = 2_000;
    let tokens = (0..rows).flat_map(|_| [1, 1, 1, 2, 1, 1, 0, 0, 0, 0]).collect();
    (tokens, vec![6; rows])
}

#[test]
fn frequency_keeps_a_rare_token_more_often() {
    let (tokens, lengths) = common_and_rare();
    let captions = Captions { tokens: &tokens, lengths: &lengths, context: 10, keep_end: false };
    // Token 2 is one in two million tokens, token 1 nearly all of them.
    let mut seen = vec![1; 2_000_000];
    seen.push(2);
    let frequencies = TokenFrequencies::count([seen]);
    let kept = TextMask::Frequency(ratio(0.7)).draw(&captions, Some(&frequencies), 7, 0, 0);
    assert_eq!(tally(&kept)[3], 2_000.0, "removal of token 2 is 0, of token 1 nearly 1: 2 always stays");
    let without = TextMask::Frequency(ratio(0.7)).draw(&captions, None, 7, 0, 0);
    assert_eq!(without, TextMask::Prioritised(ratio(0.7)).draw(&captions, None, 7, 0, 0));
    let share = tally(&without)[3] / 2_000.0;
    assert!((0.45..0.55).contains(&share), "three of six tokens stay, each half of the time: {share}");
}

#[test]
fn random_text_ignores_what_is_padding() {
    let (tokens, lengths) = common_and_rare();
    let captions = Captions { tokens: &tokens, lengths: &lengths, context: 10, keep_end: false };
    let kept = TextMask::Random(ratio(0.5)).draw(&captions, None, 7, 0, 0);
    let statistic = chi_square(&kept);
    assert!(statistic < improbable(9), "{statistic} for 9 degrees of freedom");
}

#[test]
fn text_block_is_one_run_of_real_tokens() {
    let tokens: Vec<u32> = (0..30 * 8).collect();
    let lengths = vec![6; 30];
    let captions = Captions { tokens: &tokens, lengths: &lengths, context: 8, keep_end: false };
    let kept = TextMask::Block(ratio(0.5)).draw(&captions, None, 1, 1, 0);
    let mut starts: Vec<u32> = Vec::new();
    for row in kept.ids.chunks_exact(4) {
        assert!(row[3] < 6 && row[3] - row[0] == 3, "{row:?}");
        starts.push(row[0]);
    }
    starts.sort_unstable();
    starts.dedup();
    assert_eq!(starts, [0, 1, 2]);
}

#[test]
fn ratios_out_of_range_are_refused_with_the_range() {
    for wrong in [-0.1, 1.0, 1.5, f64::NAN] {
        let message = Ratio::try_from(wrong).expect_err("refused");
        assert!(message.starts_with("expected 0 <= ratio < 1, got"), "{message}");
    }
    assert!(Strength::try_from(f64::INFINITY).is_err());
    assert!(Strength::try_from(-1.0).is_err());
    // int(L * (1 - ratio)) in double precision: 10 * (1 - 0.9) is a little less than 1.
    assert_eq!(ratio(0.9).kept(10), 0);
    assert_eq!(ratio(0.75).kept(197), 49);
}

/// A strategy that misbehaves as far as the trait allows.
struct Careless;

impl ImageStrategy for Careless {
    fn kept(&self, _patches: usize) -> usize {
        usize::MAX
    }
    fn score(&self, scores: &mut [f32], _grid: usize, _rng: &mut dyn RngCore) {
        scores.fill(f32::NAN);
    }
}

impl TextStrategy for Careless {
    fn kept(&self, _context: usize) -> usize {
        3
    }
    fn score(&self, scores: &mut [f32], _caption: &[u32], _rng: &mut dyn RngCore) {
        scores.fill(f32::NAN);
    }
}

#[test]
fn a_strategy_of_ones_own_cannot_break_the_promises() {
    assert_sound(&draw_images(&Careless, 4, 3, 0, 0, 0), 3, 16, 16);
    let tokens = [5; 8];
    let captions = Captions { tokens: &tokens, lengths: &[4, 2], context: 4, keep_end: true };
    let kept = draw_texts(&Careless, &captions, 0, 0, |row| row as u64);
    assert_eq!(kept.ids, [0, 1, 3, 0, 1, 2]);
}
