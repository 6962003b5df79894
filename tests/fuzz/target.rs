//! One input of the fuzz target: bytes as a shard, and as an image.

use std::path::Path;

use flip::data::decode::image_file::decode;
use flip::data::decode::ImageLimits;
use flip::data::decode::{CropDecoder, Draw, Transform, View};
use flip::data::shard::Shard;
use flip::data::AugmentConfig;
use flip::data::Image;

/// Few enough that a hostile header cannot take much memory or time.
const LIMITS: ImageLimits = ImageLimits { pixels: 1 << 20, scans: 20 };
const SIZE: usize = 32;
const PATCH: usize = 8;

/// Runs the whole path on `bytes`, which are written to `scratch` for it. Panics where something is wrong.
pub fn run(scratch: &Path, bytes: &[u8]) {
    std::fs::write(scratch, bytes).expect("a scratch file");
    let shard = Shard::open(scratch).expect("a scratch file");
    for sample in 0..shard.len() {
        if let Ok(raw) = shard.load(sample) {
            assert!(!raw.captions.is_empty(), "a sample without a caption");
            if let Image::Encoded(bytes) = raw.image {
                image(&bytes);
            }
        }
    }
    image(bytes);
}

/// Cuts an image in every way, which has to succeed or fail alike and give the same bytes.
pub fn image(bytes: &[u8]) {
    let whole = decode(bytes, LIMITS);
    if let Ok(whole) = &whole {
        assert_eq!(whole.pixels.len() as u64, 3 * u64::from(whole.width) * u64::from(whole.height));
    }
    let mut decoder = CropDecoder::default();
    let train = Transform::Train { size: SIZE, augment: AugmentConfig::default() };
    for transform in [train, Transform::centre(SIZE)] {
        let mut cut = |view| {
            decoder.decode_crop(
                Image::Encoded(bytes.to_vec()),
                LIMITS,
                &transform,
                view,
                Draw { seed: 1, epoch: 0, index: bytes.len() as u64 },
            )
        };
        let square = cut(View::Whole);
        let ids = [5, 0, 10];
        let patches = cut(View::Patches { patch: PATCH, ids: &ids });
        assert_eq!(square.as_ref().err(), whole.as_ref().err(), "{transform:?}");
        assert_eq!(patches.as_ref().err(), whole.as_ref().err(), "{transform:?}");
        if let (Ok(square), Ok(patches)) = (&square, &patches) {
            for (slot, &id) in ids.iter().enumerate() {
                let (row, column) = (id as usize / (SIZE / PATCH), id as usize % (SIZE / PATCH));
                let first = (row * PATCH * SIZE + column * PATCH) * 3;
                let got = &patches[slot * PATCH * PATCH * 3..][..PATCH * 3];
                assert_eq!(got, &square[first..first + PATCH * 3], "patch {id}");
            }
        }
    }
}
