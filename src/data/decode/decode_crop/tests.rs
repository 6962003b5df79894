use super::*;
use crate::data::decode::eval_transform::tests::placed;
use crate::data::AugmentConfig;
use image::codecs::jpeg::JpegEncoder;
use proptest::prelude::*;

/// A photo-like image: gradients, edges and grain.
fn image(width: u32, height: u32) -> image::RgbImage {
    let mut state = 7u32;
    image::RgbImage::from_fn(width, height, |x, y| {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        let grain = (state >> 28) as f32;
        let wave = ((x as f32 / 9.0).sin() + (y as f32 / 13.0).cos()) * 60.0;
        let edge = if (x / 23 + y / 31) % 2 == 0 { 40.0 } else { 0.0 };
        image::Rgb([wave + edge + grain, 2.0 * edge + grain, 90.0 - wave].map(|v| (v + 70.0) as u8))
    })
}

fn jpeg(image: &image::RgbImage, quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(image).expect("encoded");
    bytes
}

fn train(size: usize) -> Transform {
    Transform::Train { size, augment: AugmentConfig::default() }
}

fn cut(image: Image, transform: &Transform, view: View<'_>, index: u64) -> Vec<u8> {
    CropDecoder::default()
        .decode_crop(image, ImageLimits::default(), transform, view, Draw { seed: 3, epoch: 0, index })
        .expect("an image")
}

/// Mean and largest difference.
fn apart(a: &[u8], b: &[u8]) -> (f64, u8) {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| a.abs_diff(*b));
    let sum: f64 = differences.clone().map(f64::from).sum();
    (sum / a.len() as f64, differences.max().unwrap_or(0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn patches_have_the_bytes_that_they_have_in_the_whole(
        width in 20u32..300, height in 20u32..300, quality in 30u8..96, patch in prop::sample::select(vec![4usize, 7, 14, 16]),
        grid in 1usize..6, index in 0u64..1000, encoded in any::<bool>(), ids in prop::collection::vec(0u32..36, 1..12),
    ) {
        let size = patch * grid;
        let mut ids: Vec<u32> = ids.into_iter().map(|id| id % (grid * grid) as u32).collect();
        let mut seen = std::collections::BTreeSet::new();
        ids.retain(|&id| seen.insert(id));
        let image = image(width, height);
        let source = || match encoded {
            true => Image::Encoded(jpeg(&image, quality)),
            false => Image::Rgb { width, height, pixels: image.clone().into_raw() },
        };
        for transform in [train(size), Transform::centre(size)] {
            let whole = cut(source(), &transform, View::Whole, index);
            let patches = cut(source(), &transform, View::Patches { patch, ids: &ids }, index);
            let mut expected = Vec::new();
            for &id in &ids {
                let (row, column) = (id as usize / grid, id as usize % grid);
                for y in 0..patch {
                    let start = ((row * patch + y) * size + column * patch) * 3;
                    expected.extend_from_slice(&whole[start..start + 3 * patch]);
                }
            }
            prop_assert!(patches == expected);
        }
    }
}

fn place(width: u32, height: u32, index: u64) -> Placement {
    Placement::draw(&AugmentConfig::default(), (width, height), Draw { seed: 3, epoch: 0, index })
}

#[test]
fn resizing_in_part_gives_what_the_library_makes_of_the_whole() {
    for (width, height, size) in [(320, 240, 224), (97, 211, 56), (64, 64, 96), (900, 700, 224), (5, 3, 32)] {
        let rgb = Rgb { width, height, pixels: image(width, height).into_raw() };
        for index in 0..4 {
            let source = Image::Rgb { width, height, pixels: rgb.pixels.clone() };
            let ours = cut(source, &train(size), View::Whole, index);
            let (mean, most) = apart(&ours, &placed(&rgb, &place(width, height, index), size));
            assert!(mean < 0.1 && most <= 2, "{width} x {height} to {size}: {mean}, {most}");
        }
    }
}

#[test]
fn decoding_in_part_shows_what_decoding_the_whole_shows() {
    for (width, height, quality) in [(320, 240, 90), (97, 211, 75), (64, 64, 100), (33, 17, 40)] {
        let bytes = jpeg(&image(width, height), quality);
        let rgb = image_file::decode(&bytes, ImageLimits::default()).expect("an image");
        for index in 0..4 {
            let header = plain_jpeg(&bytes, ImageLimits::default()).expect("baseline");
            let place = place(width, height, index);
            let ours = CropDecoder::default()
                .jpeg(&bytes, &header, &place, 56, &regions(56, View::Whole), View::Whole)
                .expect("decoded");
            let (mean, most) = apart(&ours, &placed(&rgb, &place, 56));
            assert!(mean < 2.0 && most < 40, "{width} x {height}: {mean}, {most}");
        }
    }
}

#[test]
fn large_crops_are_decoded_at_reduced_size() {
    let bytes = jpeg(&image(900, 700), 90);
    let header = plain_jpeg(&bytes, ImageLimits::default()).expect("baseline");
    for (size, side) in [(224, 8), (112, 4), (64, 2), (32, 1)] {
        let place = place(900, 700, 1);
        let fit = Fit::new((900, 700), (1.0, 1.0), &place, size, true);
        let shorter = place.crop.width.min(place.crop.height);
        assert!(fit.side <= side, "{shorter} to {size} at {} pixels a block", fit.side);
        let ours = cut(Image::Encoded(bytes.clone()), &train(size), View::Whole, 1);
        let whole = image_file::decode(&bytes, ImageLimits::default()).expect("an image");
        let (mean, _) = apart(&ours, &placed(&whole, &place, size));
        assert!(mean < 3.0, "{size}: {mean}");
    }
    assert_eq!(header.width, 900);
}

#[test]
fn flat_images_stay_flat_and_thin_ones_become_squares() {
    for (width, height) in [(1, 2000), (2000, 1), (1, 1), (3, 5)] {
        let pixels = vec![9; (width * height * 3) as usize];
        for transform in [Transform::centre(8), train(8)] {
            let image = Image::Rgb { width, height, pixels: pixels.clone() };
            assert_eq!(cut(image, &transform, View::Whole, 0), [9; 8 * 8 * 3]);
        }
    }
}

#[test]
fn damaged_scans_are_left_to_the_general_decoder() {
    let bytes = jpeg(&image(80, 60), 90);
    let header = plain_jpeg(&bytes, ImageLimits::default()).expect("baseline");
    assert!(CropDecoder::default().decode_all(&bytes, ImageLimits::default()));
    for cut in [header.scan, header.scan + 100, bytes.len() - 2] {
        assert!(!CropDecoder::default().decode_all(&bytes[..cut], ImageLimits::default()), "cut at {cut}");
    }
}
