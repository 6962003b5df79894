//! The built-in images with several things in them: that training never shows what is held out, that of all
//! classes exactly one is true of an image, and that captions and pixels say the same.

use std::collections::{HashMap, HashSet};

use flip::data::source::scenes::{
    never_together, Colour, Composition, Content, Group, Placed, Relation, Scenes, Shape, Texture, Topic,
};
use flip::data::source::Source;
use flip::data::{Image, Raw};
use flip::data::{ScenesConfig, ScenesLevel, ScenesSplit};

const LEVELS: [ScenesLevel; 3] = [ScenesLevel::Clutter, ScenesLevel::Relations, ScenesLevel::Counts];

fn scenes(level: ScenesLevel, split: ScenesSplit, size: usize, seed: u64) -> Scenes {
    Scenes::new(&ScenesConfig { size, split, level, samples: None }, seed).expect("a source")
}

fn sample(source: &Scenes, number: u64) -> (Composition, Raw) {
    match source.sample(number) {
        (Content::Composed(composition), raw) => (composition, raw),
        (Content::Plain(scene), _) => panic!("sample {number} is plain: {scene:?}"),
    }
}

fn pixels(image: &Image) -> &[u8] {
    match image {
        Image::Rgb { pixels, .. } => pixels,
        Image::Encoded(_) => panic!("expected pixels"),
    }
}

/// Whether a thing is so to another, clearly.
fn stands(relation: Relation, thing: &Placed, other: &Placed) -> bool {
    let (right, down) = (thing.centre.0 - other.centre.0, thing.centre.1 - other.centre.1);
    match relation {
        Relation::LeftOf => right < -0.1,
        Relation::RightOf => right > 0.1,
        Relation::Above => down < -0.1,
        Relation::Below => down > 0.1,
    }
}

/// Whether what a class says is so in an image, by what is in it and where.
fn is_true(topic: Topic, placed: &[Placed]) -> bool {
    let all = |group: Group| placed.iter().filter(move |thing| thing.what == group.what);
    let right_number = |group: Group| all(group).count() == group.count;
    match topic {
        Topic::One(group) => right_number(group),
        Topic::Two(first, relation, second) => {
            let related = |thing| all(second).all(|other| stands(relation, thing, other));
            right_number(first) && right_number(second) && all(first).all(related)
        }
    }
}

#[test]
fn training_never_shows_what_is_held_out() {
    let asked: Vec<Topic> = LEVELS.into_iter().flat_map(Topic::held_out).collect();
    assert_eq!(asked.len(), 48 + 96 + 128);
    let classes: HashSet<String> = asked.iter().map(|topic| topic.phrase()).collect();
    assert_eq!(classes.len(), asked.len(), "classes with the same name");
    for level in LEVELS {
        let source = scenes(level, ScenesSplit::Train, 32, 3);
        let mut kinds = HashSet::new();
        for number in 0..4_000 {
            let (composition, raw) = sample(&source, number);
            let placed = &composition.placed;
            for (at, thing) in placed.iter().enumerate() {
                assert!(!thing.what.is_held_out(), "{level:?} {number}: {}", thing.what.phrase());
                for other in &placed[..at] {
                    assert!(!never_together(thing.what, other.what), "{level:?} {number}: {placed:?}");
                }
                kinds.insert(thing.what);
            }
            for &topic in &asked {
                assert!(!is_true(topic, placed), "{level:?} {number} shows {}", topic.phrase());
            }
            for caption in &raw.captions {
                let told = |class: &String| caption == class || caption.ends_with(&format!(" {class}"));
                assert!(!classes.iter().any(told), "{level:?} {number} says \"{caption}\"");
            }
            match (composition.topic, raw.label) {
                (Topic::One(Group { what, count: 1 }), Some(label)) => {
                    assert_eq!(source.classes()[label as usize], what.phrase());
                }
                (_, label) => assert_eq!(label, None),
            }
        }
        assert_eq!(kinds.len(), 96, "everything else is shown");
    }
}

#[test]
fn of_all_classes_one_is_true_of_an_image() {
    for (level, guessing) in LEVELS.into_iter().zip([48, 96, 128]) {
        let source = scenes(level, ScenesSplit::HeldOut, 32, 1);
        let (asked, classes) = (Topic::held_out(level), source.classes());
        assert_eq!(classes.len(), guessing);
        let mut seen = vec![0; classes.len()];
        for number in 0..5_000 {
            let (composition, raw) = sample(&source, number);
            let label = raw.label.expect("a class") as usize;
            assert_eq!(composition.topic.phrase(), classes[label]);
            let right: Vec<usize> =
                (0..asked.len()).filter(|&class| is_true(asked[class], &composition.placed)).collect();
            assert_eq!(right, [label], "{level:?} {number}: {composition:?}");
            seen[label] += 1;
        }
        assert!(seen.iter().all(|&times| times > 15), "{seen:?}");
    }
}

/// Classes come in groups of the same shapes and colours: who knows no more than these guesses in a group.
#[test]
fn classes_differ_by_more_than_their_words_for_shapes_and_colours() {
    for (level, alike) in [(ScenesLevel::Relations, 4), (ScenesLevel::Counts, 8)] {
        let mut groups: HashMap<Vec<String>, usize> = HashMap::new();
        for topic in Topic::held_out(level) {
            let Topic::Two(first, _, second) = topic else { panic!("{topic:?}") };
            let words = [first.what.shape.word(), second.what.shape.word()];
            let colours = [first.what.colour.word(), second.what.colour.word()];
            let mut words: Vec<String> = words.into_iter().chain(colours).map(str::to_owned).collect();
            words.sort();
            *groups.entry(words).or_default() += 1;
        }
        assert!(groups.values().all(|&classes| classes % alike == 0), "{groups:?}");
    }
}

/// What a noun phrase says: how many, and the words for texture, colour and shape that it has.
#[derive(Debug)]
struct Said {
    count: usize,
    texture: Option<Texture>,
    colour: Option<Colour>,
    shape: Option<Shape>,
}

impl Said {
    fn read(phrase: &str) -> Said {
        let mut words = phrase.split(' ');
        let count = match words.next().expect("a word") {
            "a" | "an" => 1,
            "two" => 2,
            "three" => 3,
            "four" => 4,
            other => panic!("\"{phrase}\" begins with {other}"),
        };
        let mut said = Said { count, texture: None, colour: None, shape: None };
        for word in words {
            let texture = Texture::ALL.iter().copied().find(|texture| texture.word() == word);
            let colour = Colour::ALL.iter().copied().find(|colour| colour.word() == word);
            let name = |shape: &Shape| if count == 1 { shape.word() } else { shape.plural() };
            let shape = Shape::ALL.iter().copied().find(|shape| name(shape) == word);
            let noun = if count == 1 { "shape" } else { "shapes" };
            assert!(
                texture.is_some() || colour.is_some() || shape.is_some() || word == noun,
                "\"{phrase}\" says {word}"
            );
            said.texture = said.texture.or(texture);
            said.colour = said.colour.or(colour);
            said.shape = said.shape.or(shape);
        }
        said
    }

    fn fits(&self, thing: &Placed) -> bool {
        self.texture.is_none_or(|texture| texture == thing.texture)
            && self.colour.is_none_or(|colour| colour == thing.what.colour)
            && self.shape.is_none_or(|shape| shape == thing.what.shape)
    }
}

/// Reads a caption as a person would and holds it against the image.
fn holds(caption: &str, composition: &Composition) -> bool {
    let placed = &composition.placed;
    let mut rest = caption;
    for opening in ["a picture of ", "there is ", "there are "] {
        rest = rest.strip_prefix(opening).unwrap_or(rest);
    }
    if let Some(before) = rest.strip_suffix(composition.ground.words()) {
        rest = before.trim_end();
    }
    assert!(!rest.contains("background"), "\"{caption}\" on {:?}", composition.ground);
    for &relation in Relation::ALL {
        let Some((first, second)) = rest.split_once(&format!(" {} ", relation.words())) else { continue };
        let (first, second) = (Said::read(first), Said::read(second));
        assert!(first.count == 1 || second.count == 1, "{caption}");
        // One that is alone, and as many on the other side as said.
        return placed.iter().enumerate().any(|(alone, one)| {
            let others = || placed.iter().enumerate().filter(move |(at, _)| *at != alone).map(|(_, it)| it);
            if first.count == 1 {
                let there = others().filter(|other| second.fits(other) && stands(relation, one, other));
                first.fits(one) && there.count() == second.count
            } else {
                let there = others().filter(|other| first.fits(other) && stands(relation, other, one));
                second.fits(one) && there.count() == first.count
            }
        });
    }
    type Holds = fn(f32, f32) -> bool;
    let places: [(&str, Holds); 5] = [
        (" on the left", |x, _| x < 0.5),
        (" on the right", |x, _| x > 0.5),
        (" at the top", |_, y| y < 0.5),
        (" at the bottom", |_, y| y > 0.5),
        (" in the centre", |x, y| (x - 0.5).abs() < 0.15 && (y - 0.5).abs() < 0.15),
    ];
    for (words, is_there) in places {
        if let Some(before) = rest.strip_suffix(words) {
            assert!(is_there(placed[0].centre.0, placed[0].centre.1), "\"{caption}\": {:?}", placed[0]);
            rest = before;
        }
    }
    let said = Said::read(rest);
    placed.iter().filter(|thing| said.fits(thing)).count() == said.count
}

#[test]
fn captions_are_true() {
    for level in LEVELS {
        for split in [ScenesSplit::Train, ScenesSplit::HeldOut] {
            let source = scenes(level, split, 32, 9);
            for number in 0..4_000 {
                let (composition, raw) = sample(&source, number);
                assert!(raw.captions.len() > 2);
                for caption in &raw.captions {
                    assert!(holds(caption, &composition), "\"{caption}\": {composition:?}");
                }
            }
        }
    }
}

#[test]
fn a_false_caption_is_noticed() {
    let source = scenes(ScenesLevel::Counts, ScenesSplit::HeldOut, 32, 9);
    let (composition, raw) = sample(&source, 0);
    let told = raw.captions.last().expect("a caption");
    assert!(holds(told, &composition));
    let Topic::Two(first, relation, second) = composition.topic else { panic!("{composition:?}") };
    let miscounted = Group { count: if first.count == 2 { 4 } else { first.count - 1 }, ..first };
    for false_one in [
        Topic::Two(first, relation.inverse(), second),
        Topic::Two(miscounted, relation, second),
        Topic::Two(Group { count: first.count, ..second }, relation, Group { count: 1, ..first }),
    ] {
        assert!(!holds(&false_one.phrase(), &composition), "{}", false_one.phrase());
        assert!(!is_true(false_one, &composition.placed));
    }
}

#[test]
fn every_word_of_a_class_occurs_in_training() {
    for level in LEVELS {
        let source = scenes(level, ScenesSplit::Train, 32, 0);
        let said: HashSet<String> = (0..3_000)
            .flat_map(|number| source.sample(number).1.captions)
            .flat_map(|caption| caption.split(' ').map(str::to_owned).collect::<Vec<_>>())
            .collect();
        let held_out = scenes(level, ScenesSplit::HeldOut, 32, 0);
        assert!(held_out.templates().iter().any(|template| template == "{}"));
        for phrase in held_out.classes() {
            for word in phrase.split(' ') {
                assert!(said.contains(word), "{level:?}: training never says {word}");
            }
        }
    }
}

/// How many connected areas differ from the background, which is one grey along a row.
fn areas(pixels: &[u8], side: usize) -> usize {
    let away = |at: usize| {
        let ground = pixels[at / side * side * 3];
        pixels[at * 3..at * 3 + 3].iter().any(|&byte| byte.abs_diff(ground) > 8)
    };
    let mut seen = vec![false; side * side];
    let mut areas = 0;
    for start in 0..side * side {
        if seen[start] || !away(start) {
            continue;
        }
        areas += 1;
        seen[start] = true;
        let mut edge = vec![start];
        while let Some(at) = edge.pop() {
            let (row, column) = (at / side, at % side);
            for row in row.saturating_sub(1)..=(row + 1).min(side - 1) {
                for column in column.saturating_sub(1)..=(column + 1).min(side - 1) {
                    let next = row * side + column;
                    if !seen[next] && away(next) {
                        seen[next] = true;
                        edge.push(next);
                    }
                }
            }
        }
    }
    areas
}

#[test]
fn pixels_show_as_many_things_as_there_are_in_their_colours() {
    const SIDE: usize = 96;
    for level in LEVELS {
        let source = scenes(level, ScenesSplit::HeldOut, SIDE, 2);
        for number in 0..600 {
            let (composition, raw) = sample(&source, number);
            let pixels = pixels(&raw.image);
            // The two halves of an hourglass meet in a point.
            if composition.placed.iter().all(|thing| thing.what.shape != Shape::Hourglass) {
                let things = composition.placed.len();
                assert_eq!(areas(pixels, SIDE), things, "{level:?} {number}: {composition:?}");
            }
            for thing in &composition.placed {
                let hollow = matches!(thing.what.shape, Shape::Ring | Shape::Crescent | Shape::Hourglass);
                if hollow || thing.texture != Texture::Plain {
                    continue;
                }
                let at = |share: f32| (share * SIDE as f32) as usize;
                let pixel = (at(thing.centre.1) * SIDE + at(thing.centre.0)) * 3;
                let away = |colour: &Colour| {
                    let bytes = pixels[pixel..pixel + 3].iter();
                    bytes.zip(colour.rgb()).map(|(&a, b)| (f32::from(a) - b).powi(2)).sum::<f32>()
                };
                let nearest = Colour::ALL.iter().min_by(|a, b| away(a).total_cmp(&away(b)));
                assert_eq!(nearest, Some(&thing.what.colour), "{level:?} {number}: {thing:?}");
            }
        }
    }
}

#[test]
fn an_image_depends_on_seed_level_split_and_number_alone() {
    let mut distinct = HashSet::new();
    for level in LEVELS {
        let [train, again, other] = [1, 1, 2].map(|seed| scenes(level, ScenesSplit::Train, 32, seed));
        let held_out = scenes(level, ScenesSplit::HeldOut, 32, 1);
        for number in (0..300).rev() {
            let (_, raw) = train.sample(number);
            assert_eq!(pixels(&raw.image).len(), 32 * 32 * 3);
            assert_eq!(raw, again.sample(number).1);
            for source in [&train, &other, &held_out] {
                distinct.insert(pixels(&source.sample(number).1.image).to_vec());
            }
        }
    }
    assert_eq!(distinct.len(), 2_700, "streams share images");
}

#[test]
fn a_size_too_small_for_a_crowd_is_refused() {
    let config =
        ScenesConfig { size: 31, split: ScenesSplit::Train, level: ScenesLevel::Clutter, samples: None };
    let message = Scenes::new(&config, 0).err().expect("refused").to_string();
    assert!(message.contains("size 31: expected 32 to 16384 pixels"), "{message}");
}
