//! The built-in images: what training may see, and that an image is a function of its number.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU64;

use flip::data::source::scenes::{Colour, Combination, Content, Place, Scene, Scenes, Shape, Size, Subject};
use flip::data::source::{Order, Source};
use flip::data::Image;
use flip::data::{Cursor, ScenesConfig, ScenesLevel, ScenesSplit};
use sha2::{Digest, Sha256};

fn config(size: usize, split: ScenesSplit, samples: Option<u64>) -> ScenesConfig {
    ScenesConfig { size, split, level: ScenesLevel::Plain, samples: samples.and_then(NonZeroU64::new) }
}

fn scenes(split: ScenesSplit, samples: Option<u64>, seed: u64) -> Scenes {
    Scenes::new(&config(32, split, samples), seed).expect("a source")
}

fn plain(content: Content) -> Scene {
    match content {
        Content::Plain(scene) => scene,
        Content::Composed(composition) => panic!("a composition: {composition:?}"),
    }
}

fn pixels(image: &Image) -> &[u8] {
    match image {
        Image::Rgb { pixels, .. } => pixels,
        Image::Encoded(_) => panic!("expected pixels"),
    }
}

#[test]
fn training_never_shows_a_held_out_combination() {
    let source = scenes(ScenesSplit::Train, None, 3);
    let mut shown: HashMap<Combination, usize> = HashMap::new();
    let mut pairs = 0;
    for number in 0..20_000 {
        let (content, raw) = source.sample(number);
        let scene = plain(content);
        let objects = match scene.subject {
            Subject::One(object, ..) => {
                let label = raw.label.expect("a class") as usize;
                assert_eq!(source.classes()[label], object.what.phrase());
                vec![object]
            }
            Subject::Two(first, _, second) => {
                assert_eq!(raw.label, None);
                assert_ne!(first.what, second.what);
                pairs += 1;
                vec![first, second]
            }
        };
        for object in objects {
            assert!(!object.what.is_held_out(), "sample {number} shows a {}", object.what.phrase());
            *shown.entry(object.what).or_default() += 1;
        }
    }
    assert!((4_500..5_500).contains(&pairs), "a quarter of the scenes have two shapes: {pairs}");
    assert_eq!(shown.len(), 96, "every other combination is shown");
    assert!(shown.values().all(|&times| times > 150), "and each of them often: {shown:?}");
}

#[test]
fn evaluation_shows_single_held_out_combinations_by_label() {
    let source = scenes(ScenesSplit::HeldOut, Some(2_000), 3);
    let classes = source.classes();
    assert!(classes.len() >= 34, "guessing must stay below 3 %");
    assert_eq!(classes.iter().collect::<HashSet<_>>().len(), classes.len());
    let mut seen = vec![0; classes.len()];
    for number in 0..2_000 {
        let (content, raw) = source.sample(number);
        let scene = plain(content);
        let Subject::One(object, ..) = scene.subject else { panic!("sample {number} shows two shapes") };
        let label = raw.label.expect("a class") as usize;
        assert!(object.what.is_held_out());
        assert_eq!(classes[label], object.what.phrase());
        seen[label] += 1;
        // The first caption says everything.
        let (colour, shape) = (object.what.colour.word(), object.what.shape.word());
        for word in [colour, shape, object.texture.word(), scene.ground.words()] {
            assert!(raw.captions[0].contains(word), "\"{}\" lacks {word}", raw.captions[0]);
        }
        assert!(raw.captions.len() > 1);
    }
    assert!(seen.iter().all(|&times| times > 15), "{seen:?}");
}

#[test]
fn every_word_of_a_held_out_class_occurs_in_training() {
    let source = scenes(ScenesSplit::Train, None, 0);
    let said: HashSet<String> = (0..3_000)
        .flat_map(|number| source.sample(number).1.captions)
        .flat_map(|caption| caption.split([' ', ',', ':']).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    for phrase in scenes(ScenesSplit::HeldOut, None, 0).classes() {
        for word in phrase.split(' ') {
            assert!(said.contains(word), "training never says {word}");
        }
    }
}

#[test]
fn an_image_depends_on_seed_split_and_number_alone() {
    let [train, again, other] = [1, 1, 2].map(|seed| scenes(ScenesSplit::Train, None, seed));
    let held_out = scenes(ScenesSplit::HeldOut, None, 1);
    let mut distinct = HashSet::new();
    for number in (0..500).rev() {
        let (_, raw) = train.sample(number);
        assert_eq!(pixels(&raw.image).len(), 32 * 32 * 3);
        assert_eq!(raw, again.sample(number).1);
        distinct.insert(pixels(&raw.image).to_vec());
        distinct.insert(pixels(&other.sample(number).1.image).to_vec());
        distinct.insert(pixels(&held_out.sample(number).1.image).to_vec());
    }
    assert_eq!(distinct.len(), 1_500, "streams share images");
}

#[test]
fn endless_scenes_count_on_and_finite_ones_end_and_reshuffle() {
    let endless = scenes(ScenesSplit::Train, None, 0);
    assert_eq!(endless.samples(), None);
    let far = Cursor { epoch: 0, window: 0, position: 1 << 40, ..Cursor::default() };
    let ticket = endless.ticket(far, Order::Shuffled { seed: 1 }).expect("a ticket").expect("no end");
    assert_eq!(ticket.after.position, far.position + 1);
    assert_eq!(endless.load(&ticket).expect("a scene"), endless.sample(1 << 40).1);

    let finite = scenes(ScenesSplit::HeldOut, Some(10), 0);
    assert_eq!(finite.samples(), Some(10));
    let epoch = |epoch: u64, order: Order| {
        let mut cursor = Cursor { epoch, ..Cursor::default() };
        let mut items = Vec::new();
        while let Some(ticket) = finite.ticket(cursor, order).expect("a ticket") {
            items.push(ticket.item.1);
            cursor = ticket.after;
        }
        items
    };
    assert_eq!(epoch(0, Order::Stored), (0..10).collect::<Vec<u64>>());
    let (first, second) = (epoch(0, Order::Shuffled { seed: 1 }), epoch(1, Order::Shuffled { seed: 1 }));
    assert_ne!(first, second);
    assert_eq!(first.iter().collect::<HashSet<_>>(), second.iter().collect::<HashSet<_>>());
}

/// Colour of an image where it differs most from its background.
fn most_colourful(pixels: &[u8], ground: f32) -> [f32; 3] {
    let away = |pixel: &[u8]| pixel.iter().map(|&byte| (f32::from(byte) - ground).powi(2)).sum::<f32>();
    let pixel = pixels.chunks(3).max_by(|a, b| away(a).total_cmp(&away(b))).expect("pixels");
    [pixel[0], pixel[1], pixel[2]].map(f32::from)
}

#[test]
fn images_show_the_colour_that_captions_say() {
    let source = scenes(ScenesSplit::HeldOut, None, 5);
    let squared = |a: [f32; 3], b: [f32; 3]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
    for number in 0..500 {
        let (content, raw) = source.sample(number);
        let scene = plain(content);
        let Subject::One(object, ..) = scene.subject else { panic!("one shape") };
        let shown = most_colourful(pixels(&raw.image), scene.ground.level());
        let nearest =
            Colour::ALL.iter().min_by(|a, b| squared(shown, a.rgb()).total_cmp(&squared(shown, b.rgb())));
        assert_eq!(nearest, Some(&object.what.colour), "sample {number}: {shown:?}");
    }
}

/// 1 where an image differs from its background, which is the same along a row; [32, 32].
fn silhouette(pixels: &[u8]) -> Vec<f32> {
    let row = |row: &[u8]| -> Vec<f32> {
        let ground = f32::from(row[0]);
        let away = |pixel: &[u8]| pixel.iter().map(|&byte| (f32::from(byte) - ground).abs()).sum::<f32>();
        row.chunks(3).map(|pixel| f32::from(away(pixel) > 40.0)).collect()
    };
    pixels.chunks(32 * 3).flat_map(row).collect()
}

#[test]
fn shapes_are_told_apart_by_their_mean_silhouettes() {
    let source = scenes(ScenesSplit::Train, None, 11);
    let large_in_the_centre = (0..40_000).filter_map(|number| {
        let (content, raw) = source.sample(number);
        let scene = plain(content);
        match scene.subject {
            Subject::One(object, Size::Large, Place::Centre) => {
                Some((object.what.shape, silhouette(pixels(&raw.image))))
            }
            _ => None,
        }
    });
    let mut means: HashMap<Shape, (Vec<f32>, f32)> = HashMap::new();
    let mut unseen = Vec::new();
    for (index, (shape, image)) in large_in_the_centre.enumerate() {
        if index % 2 == 0 {
            unseen.push((shape, image));
            continue;
        }
        let (sum, n) = means.entry(shape).or_insert_with(|| (vec![0.0; 1024], 0.0));
        sum.iter_mut().zip(&image).for_each(|(sum, value)| *sum += value);
        *n += 1.0;
    }
    assert_eq!(means.len(), 12);
    let distance = |(sum, n): &(Vec<f32>, f32), image: &[f32]| {
        sum.iter().zip(image).map(|(sum, value)| (sum / n - value).powi(2)).sum::<f32>()
    };
    let nearest = |image: &[f32]| {
        means.iter().min_by(|a, b| distance(a.1, image).total_cmp(&distance(b.1, image))).map(|mean| *mean.0)
    };
    let right = unseen.iter().filter(|(shape, image)| nearest(image) == Some(*shape)).count();
    let share = right as f64 / unseen.len() as f64;
    assert!(share > 0.97, "{right} of {}", unseen.len());
}

#[test]
fn a_size_that_cannot_be_drawn_is_refused() {
    for size in [0, 7, 1 << 20] {
        let message =
            Scenes::new(&config(size, ScenesSplit::Train, None), 0).err().expect("refused").to_string();
        assert!(message.contains("expected 8 to 16384 pixels"), "{message}");
    }
    let smallest = Scenes::new(&config(8, ScenesSplit::Train, None), 0).expect("a source");
    assert_eq!(pixels(&smallest.sample(0).1.image).len(), 192);
}

/// The images and captions that recipes of the level `Plain` have been trained on.
#[test]
fn plain_scenes_stay_what_they_are() {
    let mut digest = Sha256::new();
    for (split, seed) in [(ScenesSplit::Train, 0), (ScenesSplit::HeldOut, 7)] {
        let source = scenes(split, None, seed);
        for number in 0..200 {
            let (_, raw) = source.sample(number);
            digest.update(pixels(&raw.image));
            digest.update(format!("{}{:?}{:?}", raw.key, raw.captions, raw.label));
        }
    }
    assert_eq!(
        format!("{:x}", digest.finalize()),
        "3cc660e4599f0ffd9941c6df52046fb7b85d9e8a28948fc7deb2175f3f7ecc98"
    );
}
