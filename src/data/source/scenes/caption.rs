//! English for scenes. `{a}` becomes "a" or "an" by the word that follows.

use rand::seq::SliceRandom;
use rand::RngCore;

use super::scene::{Object, Scene, Subject};

/// Everything that is to be said about a single shape.
const COMPLETE: &[&str] = &[
    "{a} {size} {texture} {colour} {shape} {place} {ground}",
    "a picture of {a} {size} {texture} {colour} {shape} {place} {ground}",
    "{place}, {a} {size} {texture} {colour} {shape} {ground}",
    "{a} {size} {colour} {shape}, {texture}, {place} {ground}",
];

/// Its name.
const NAME: &[&str] = &[
    "{a} {colour} {shape}",
    "{colour} {shape}",
    "the {colour} {shape}",
    "one {colour} {shape}",
    "a picture of {a} {colour} {shape}",
    "an image of {a} {colour} {shape}",
    "a drawing of {a} {colour} {shape}",
    "this is {a} {colour} {shape}",
    "{a} {shape} in {colour}",
    "{a} {shape} that is {colour}",
];

/// Some of it.
const PARTIAL: &[&str] = &[
    "{a} {size} {colour} {shape}",
    "{a} {texture} {colour} {shape}",
    "{a} {size} {texture} {colour} {shape}",
    "{a} {colour} {shape} {place}",
    "{a} {colour} {shape} {ground}",
    "there is {a} {colour} {shape} {place}",
    "a drawing of {a} {texture} {colour} {shape} {place}",
    "the {shape} is {colour} and {texture}",
    "{a} {size} {shape}, {colour}, {ground}",
    "{a} {texture} {shape} {place}",
    "something {colour} {place}",
];

/// Everything that is to be said about two shapes.
const COMPLETE_PAIR: &[&str] = &[
    "{a} {texture} {colour} {shape} {relation} {a} {other texture} {other colour} {other shape} {ground}",
    "{ground}, {a} {texture} {colour} {shape} {relation} {a} {other texture} {other colour} {other shape}",
];

/// The names of both, with or without where they are.
const PAIR: &[&str] = &[
    "{a} {colour} {shape} {relation} {a} {other colour} {other shape}",
    "{a} {other colour} {other shape} {inverse} {a} {colour} {shape}",
    "a picture of {a} {colour} {shape} {relation} {a} {other colour} {other shape}",
    "{a} {colour} {shape} and {a} {other colour} {other shape}",
    "two shapes: {a} {colour} {shape} and {a} {other colour} {other shape}",
];

/// Several captions of a scene; the first one says everything.
pub fn captions(scene: &Scene, rng: &mut dyn RngCore) -> Vec<String> {
    let kinds: &[&[&str]] = match scene.subject {
        Subject::One(..) => &[COMPLETE, NAME, PARTIAL, NAME],
        Subject::Two(..) => &[COMPLETE_PAIR, PAIR, PAIR],
    };
    // No kind is empty.
    kinds.iter().filter_map(|templates| templates.choose(rng)).map(|template| fill(template, scene)).collect()
}

/// Puts the words of a scene into a template.
fn fill(template: &str, scene: &Scene) -> String {
    let mut text = String::with_capacity(96);
    let mut article = false;
    for piece in template.split_inclusive('}') {
        let (literal, slot) = match piece.strip_suffix('}').and_then(|piece| piece.split_once('{')) {
            Some((literal, slot)) => (literal, Some(slot)),
            None => (piece, None),
        };
        if !article {
            text.push_str(literal);
        }
        match slot {
            Some("a") => article = true,
            Some(slot) => {
                let word = word(slot, scene);
                if article {
                    text.push_str(if begins_with_vowel(word) { "an " } else { "a " });
                    article = false;
                }
                text.push_str(word);
            }
            None => {}
        }
    }
    text
}

/// The word for a slot; the empty word for what the scene does not have.
fn word(slot: &str, scene: &Scene) -> &'static str {
    if slot == "ground" {
        return scene.ground.words();
    }
    match &scene.subject {
        Subject::One(object, size, place) => match slot {
            "size" => size.word(),
            "place" => place.words(),
            _ => word_of(slot, object),
        },
        Subject::Two(first, relation, second) => match slot {
            "relation" => relation.words(),
            "inverse" => relation.inverse().words(),
            _ => match slot.strip_prefix("other ") {
                Some(slot) => word_of(slot, second),
                None => word_of(slot, first),
            },
        },
    }
}

fn word_of(slot: &str, object: &Object) -> &'static str {
    match slot {
        "colour" => object.what.colour.word(),
        "shape" => object.what.shape.word(),
        "texture" => object.texture.word(),
        _ => "",
    }
}

/// By sound: the h of "hourglass" is silent.
pub(super) fn begins_with_vowel(word: &str) -> bool {
    word.starts_with(['a', 'e', 'i', 'o', 'u']) || word.starts_with("hour")
}

#[cfg(test)]
mod tests {
    use super::super::attribute::{Colour, Ground, Place, Relation, Shape, Size, Texture};
    use super::super::combination::Combination;
    use super::*;

    fn object(colour: Colour, shape: Shape) -> Object {
        Object { what: Combination { shape, colour }, texture: Texture::Striped }
    }

    #[test]
    fn templates_read_as_english() {
        let arrow = object(Colour::Orange, Shape::Arrow);
        let one = Scene { subject: Subject::One(arrow, Size::Small, Place::Left), ground: Ground::Dark };
        assert_eq!(fill(COMPLETE[0], &one), "a small striped orange arrow on the left on a dark background");
        assert_eq!(fill(NAME[0], &one), "an orange arrow");
        assert_eq!(fill(NAME[8], &one), "an arrow in orange");
        assert_eq!(fill(PARTIAL[7], &one), "the arrow is orange and striped");
        let hourglass = object(Colour::Red, Shape::Hourglass);
        let two = Scene { subject: Subject::Two(arrow, Relation::Above, hourglass), ground: Ground::Light };
        assert_eq!(fill(PAIR[0], &two), "an orange arrow above a red hourglass");
        assert_eq!(fill(PAIR[1], &two), "a red hourglass below an orange arrow");
        assert_eq!(
            fill(COMPLETE_PAIR[1], &two),
            "on a light background, a striped orange arrow above a striped red hourglass"
        );
    }

    #[test]
    fn every_slot_of_every_template_has_a_word() {
        let circle = object(Colour::Red, Shape::Circle);
        let one = Scene { subject: Subject::One(circle, Size::Large, Place::Top), ground: Ground::Grey };
        let two = Scene { subject: Subject::Two(circle, Relation::LeftOf, circle), ground: Ground::Grey };
        let templates = |kinds: &[&[&'static str]]| kinds.concat();
        for (scene, templates) in
            [(one, templates(&[COMPLETE, NAME, PARTIAL])), (two, templates(&[COMPLETE_PAIR, PAIR]))]
        {
            for template in templates {
                let text = fill(template, &scene);
                assert!(!text.contains("  ") && !text.contains('{'), "{template}: {text}");
                assert_eq!(text, text.trim(), "{template}");
            }
        }
    }
}
