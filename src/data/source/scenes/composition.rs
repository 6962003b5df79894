//! Images with several things in them: what is told, where it is, and what is there besides.

use rand::{Rng, RngCore};

use super::attribute::{Ground, Relation, Texture};
use super::combination::Combination;
use super::config::ScenesLevel;
use super::outline::{Outline, Point};
use super::paint::Brush;
use super::scene::{canvas, pick, second_tone, tint};
use super::topic::{never_together, Group, Topic};

/// Farthest reach of the corners of an outline, in radii.
const REACH: f32 = 1.3;
/// Places tried for a thing before the rest makes room.
const TRIES: usize = 40;

/// A thing in an image; lengths in sides of the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placed {
    /// Its shape and colour.
    pub what: Combination,
    /// Its filling.
    pub texture: Texture,
    /// Its centre: x to the right, y down.
    pub centre: Point,
    /// Its radius.
    pub radius: f32,
}

/// An image's content.
#[derive(Debug, Clone, PartialEq)]
pub struct Composition {
    /// The part that the caption describes.
    pub topic: Topic,
    /// The things of the topic in its order, then those that are not told.
    pub placed: Vec<Placed>,
    /// The background.
    pub ground: Ground,
}

/// An area for shapes, from and to, along the relation's axis and across it.
#[derive(Debug, Clone, Copy)]
struct Area {
    along: (f32, f32),
    across: (f32, f32),
    radius: (f32, f32),
}

impl Composition {
    /// A training image of a level, of these kinds of things. `kinds` must not be empty.
    pub fn train(level: ScenesLevel, kinds: &[Combination], rng: &mut dyn RngCore) -> Self {
        let kind = |rng: &mut dyn RngCore| kinds[rng.gen_range(0..kinds.len())];
        let shown = match level {
            ScenesLevel::Plain | ScenesLevel::Clutter => ScenesLevel::Clutter,
            ScenesLevel::Relations => pick(&[ScenesLevel::Clutter, ScenesLevel::Relations], rng),
            ScenesLevel::Counts => {
                pick(&[ScenesLevel::Clutter, ScenesLevel::Relations, ScenesLevel::Counts], rng)
            }
        };
        let first = kind(rng);
        let count = if shown == ScenesLevel::Counts { rng.gen_range(2..=4) } else { 1 };
        let first = Group { what: first, count };
        let alone = match shown {
            ScenesLevel::Plain | ScenesLevel::Clutter => true,
            ScenesLevel::Relations => false,
            ScenesLevel::Counts => rng.gen_bool(0.5),
        };
        let topic = if alone {
            Topic::One(first)
        } else {
            let mut what = kind(rng);
            while what == first.what || never_together(what, first.what) {
                what = kind(rng);
            }
            Topic::Two(first, pick(Relation::ALL, rng), Group { what, count: 1 })
        };
        Composition::of(topic, shown, kinds, rng)
    }

    /// An image of a topic, among things of these kinds.
    pub fn of(topic: Topic, level: ScenesLevel, kinds: &[Combination], rng: &mut dyn RngCore) -> Self {
        let mut placed = place(topic, rng);
        let besides = match level {
            ScenesLevel::Plain => 0,
            ScenesLevel::Clutter => rng.gen_range(0..=2),
            ScenesLevel::Relations => rng.gen_range(0..=1),
            ScenesLevel::Counts => rng.gen_range(1..=2),
        };
        for _ in 0..besides {
            // Where there is no room the image has one less.
            placed.extend(distractor(kinds, &placed, rng));
        }
        Composition { topic, placed, ground: pick(Ground::ALL, rng) }
    }

    /// Paints an image of `side` pixels, [side, side, 3]. `outlines` are by shape.
    pub fn paint(&self, side: usize, outlines: &[Outline], rng: &mut dyn RngCore) -> Vec<u8> {
        let (mut canvas, level) = canvas(self.ground, side, rng);
        for thing in &self.placed {
            let colour = tint(thing.what.colour, rng);
            let brush = Brush {
                centre: (thing.centre.0 * side as f32, thing.centre.1 * side as f32),
                radius: thing.radius * side as f32,
                angle: rng.gen_range(-0.15..0.15),
                texture: thing.texture,
                colour,
                second: second_tone(colour, level),
            };
            canvas.paint(&outlines[thing.what.shape as usize], &brush);
        }
        canvas.into_pixels()
    }
}

/// Finds room for what is told. A crowd that does not fit is made smaller until it does.
fn place(topic: Topic, rng: &mut dyn RngCore) -> Vec<Placed> {
    let mut shrunk = 1.0;
    loop {
        if let Some(placed) = try_to_place(topic, shrunk, rng) {
            return placed;
        }
        shrunk *= 0.95;
    }
}

fn try_to_place(topic: Topic, shrunk: f32, rng: &mut dyn RngCore) -> Option<Vec<Placed>> {
    let whole = |radius| Area { along: (0.0, 1.0), across: (0.0, 1.0), radius };
    let mut placed = Vec::with_capacity(8);
    match topic {
        Topic::One(group) => {
            let radius = if group.count == 1 { (0.17, 0.25) } else { (0.1, 0.12) };
            put(group, whole(radius), Relation::LeftOf, shrunk, &mut placed, rng)?;
        }
        Topic::Two(first, relation, second) if first.count + second.count == 2 => {
            // Side by side, but for a little: so that the other axis says nothing.
            let middle = rng.gen_range(0.3..0.7);
            let across = (middle - 0.1, middle + 0.1);
            let radius = (0.14, 0.19);
            put(first, Area { along: (0.2, 0.3), across, radius }, relation, shrunk, &mut placed, rng)?;
            put(second, Area { along: (0.7, 0.8), across, radius }, relation, shrunk, &mut placed, rng)?;
        }
        Topic::Two(first, relation, second) => {
            let many = Area { along: (0.0, 0.45), across: (0.0, 1.0), radius: (0.095, 0.11) };
            let few = Area { along: (0.65, 1.0), across: (0.15, 0.85), radius: (0.11, 0.14) };
            put(first, many, relation, shrunk, &mut placed, rng)?;
            put(second, few, relation, shrunk, &mut placed, rng)?;
        }
    }
    Some(placed)
}

/// Puts a group into an area, whose axis begins where the first of a relation is.
fn put(
    group: Group,
    area: Area,
    relation: Relation,
    shrunk: f32,
    placed: &mut Vec<Placed>,
    rng: &mut dyn RngCore,
) -> Option<()> {
    let texture = pick(Texture::ALL, rng);
    let radius = rng.gen_range(area.radius.0..area.radius.1) * shrunk;
    for _ in 0..group.count {
        let centre = (0..TRIES).find_map(|_| {
            let along = between(area.along, radius, rng);
            let across = between(area.across, radius, rng);
            let centre = match relation {
                Relation::LeftOf => (along, across),
                Relation::RightOf => (1.0 - along, across),
                Relation::Above => (across, along),
                Relation::Below => (across, 1.0 - along),
            };
            has_room(centre, radius, placed).then_some(centre)
        })?;
        placed.push(Placed { what: group.what, texture, centre, radius });
    }
    Some(())
}

/// A place between two, so far from the image's edges that a crop does not cut the thing off.
fn between((from, to): (f32, f32), radius: f32, rng: &mut dyn RngCore) -> f32 {
    let (from, to) = (from.max(REACH * radius), to.min(1.0 - REACH * radius));
    rng.gen_range(from..=to.max(from))
}

fn has_room(centre: Point, radius: f32, placed: &[Placed]) -> bool {
    placed.iter().all(|other| {
        let apart = (centre.0 - other.centre.0).hypot(centre.1 - other.centre.1);
        apart > REACH * (radius + other.radius)
    })
}

/// A smaller thing that shares neither shape nor colour with what is there, so that whatever a caption tells
/// is true of nothing else, and that may stand beside all of it.
fn distractor(kinds: &[Combination], placed: &[Placed], rng: &mut dyn RngCore) -> Option<Placed> {
    let what = (0..TRIES).map(|_| kinds[rng.gen_range(0..kinds.len())]).find(|&what| {
        placed.iter().all(|other| {
            let Combination { shape, colour } = other.what;
            shape != what.shape && colour != what.colour && !never_together(what, other.what)
        })
    })?;
    let texture = pick(Texture::ALL, rng);
    let radius = rng.gen_range(0.07..0.085);
    let centre = (0..TRIES)
        .map(|_| (between((0.0, 1.0), radius, rng), between((0.0, 1.0), radius, rng)))
        .find(|&centre| has_room(centre, radius, placed))?;
    Some(Placed { what, texture, centre, radius })
}
