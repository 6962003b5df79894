//! English for compositions.

use rand::seq::SliceRandom;
use rand::RngCore;

use super::attribute::Place;
use super::composition::Composition;
use super::outline::Point;
use super::topic::{Group, Topic};

/// Several captions of an image; the first one tells all that is ever told.
pub fn captions(composition: &Composition, rng: &mut dyn RngCore) -> Vec<String> {
    let Composition { topic, placed, ground } = composition;
    let texture = |at: usize| Some(placed[at].texture.word());
    let ground = ground.words();
    match *topic {
        Topic::One(group) if group.count == 1 => {
            let (name, full) = (group.name(), group.phrase(texture(0), true, true));
            let place = place(placed[0].centre).words();
            vec![
                format!("{full} {place} {ground}"),
                named(&name, group, rng),
                one_of(
                    [
                        format!("{name} {place}"),
                        full,
                        format!("{} {place}", group.phrase(None, true, false)),
                        format!("{} {place}", group.phrase(None, false, true)),
                    ],
                    rng,
                ),
                name,
            ]
        }
        Topic::One(group) => {
            let (name, full) = (group.name(), group.phrase(texture(0), true, true));
            vec![
                format!("{full} {ground}"),
                named(&name, group, rng),
                one_of([full, group.phrase(None, true, false), group.phrase(None, false, true)], rng),
                name,
            ]
        }
        Topic::Two(first, relation, second) => {
            let (full, other) =
                (first.phrase(texture(0), true, true), second.phrase(texture(first.count), true, true));
            let (name, other_name) = (first.name(), second.name());
            let (words, back) = (relation.words(), relation.inverse().words());
            let told = topic.phrase();
            let part = |colour, shape| {
                let (first, second) = (first.phrase(None, colour, shape), second.phrase(None, colour, shape));
                format!("{first} {words} {second}")
            };
            vec![
                format!("{full} {words} {other}"),
                one_of([format!("{other_name} {back} {name}"), format!("a picture of {told}")], rng),
                one_of([part(true, false), part(false, true)], rng),
                told,
            ]
        }
    }
}

/// A name in a sentence.
fn named(name: &str, group: Group, rng: &mut dyn RngCore) -> String {
    let verb = if group.count == 1 { "is" } else { "are" };
    one_of([format!("a picture of {name}"), format!("there {verb} {name}")], rng)
}

/// Any of these.
fn one_of<const N: usize>(texts: [String; N], rng: &mut dyn RngCore) -> String {
    texts.choose(rng).cloned().unwrap_or_default()
}

/// Words for the place of a point in an image.
fn place((right, down): Point) -> Place {
    let (x, y) = (right - 0.5, down - 0.5);
    if x.hypot(y) < 0.12 {
        Place::Centre
    } else if x.abs() > y.abs() {
        if x < 0.0 {
            Place::Left
        } else {
            Place::Right
        }
    } else if y < 0.0 {
        Place::Top
    } else {
        Place::Bottom
    }
}
