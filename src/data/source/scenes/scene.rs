//! A scene: which shapes are where, and how it is painted.

use rand::seq::SliceRandom;
use rand::{Rng, RngCore};

use super::attribute::{Colour, Ground, Place, Relation, Size, Texture};
use super::combination::Combination;
use super::outline::{Outline, Point};
use super::paint::{Brush, Canvas};

/// Share of training scenes that show two shapes.
const PAIRS: f64 = 0.25;

/// A shape of a colour and a texture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object {
    /// Its shape and colour.
    pub what: Combination,
    /// Its filling.
    pub texture: Texture,
}

/// The one or two objects of a scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// An object, its size and its place.
    One(Object, Size, Place),
    /// The first is so to the second.
    Two(Object, Relation, Object),
}

/// A scene: an image of the level `Plain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scene {
    /// The objects.
    pub subject: Subject,
    /// The background.
    pub ground: Ground,
}

impl Scene {
    /// A random scene of these combinations, of one shape or, where `pairs` are allowed, of one or two.
    /// `combinations` must not be empty.
    pub fn draw(combinations: &[Combination], pairs: bool, rng: &mut dyn RngCore) -> Self {
        let object = |rng: &mut dyn RngCore| Object {
            what: combinations[rng.gen_range(0..combinations.len())],
            texture: pick(Texture::ALL, rng),
        };
        let first = object(rng);
        let subject = if pairs && rng.gen_bool(PAIRS) {
            let mut second = object(rng);
            while second.what == first.what && combinations.len() > 1 {
                second = object(rng);
            }
            Subject::Two(first, pick(Relation::ALL, rng), second)
        } else {
            Subject::One(first, pick(Size::ALL, rng), pick(Place::ALL, rng))
        };
        Scene { subject, ground: pick(Ground::ALL, rng) }
    }

    /// Paints an image of `side` pixels, [side, side, 3]. `outlines` are by shape.
    pub fn paint(&self, side: usize, outlines: &[Outline], rng: &mut dyn RngCore) -> Vec<u8> {
        let (mut canvas, level) = canvas(self.ground, side, rng);
        let mut put = |object: &Object, centre: Point, radius: f32| {
            let brush = brush(object, centre, radius, side as f32, level, rng);
            canvas.paint(&outlines[object.what.shape as usize], &brush);
        };
        match &self.subject {
            Subject::One(object, size, place) => {
                let radius = size.radius();
                put(object, towards(*place, 0.47 - radius), radius);
            }
            Subject::Two(first, relation, second) => {
                let place = relation.place();
                put(first, towards(place, 0.25), Size::Small.radius());
                put(second, towards(place, -0.25), Size::Small.radius());
            }
        }
        canvas.into_pixels()
    }
}

/// An empty image of about this lightness, and the level of its middle.
pub(super) fn canvas(ground: Ground, side: usize, rng: &mut dyn RngCore) -> (Canvas, f32) {
    let level = ground.level() + rng.gen_range(-10.0..10.0);
    let slope = rng.gen_range(-12.0..12.0);
    (Canvas::new(side, level - slope, level + slope), level)
}

pub(super) fn pick<T: Copy>(values: &[T], rng: &mut dyn RngCore) -> T {
    *values.choose(rng).expect("attributes have values")
}

/// The point so far from the centre towards a place, in sides of the image.
fn towards(place: Place, distance: f32) -> Point {
    let (right, down) = place.direction();
    (0.5 + right * distance, 0.5 + down * distance)
}

/// A brush for an object, which is painted a little moved, turned and tinted. `centre` and `radius` are in
/// sides of the image.
fn brush(object: &Object, centre: Point, radius: f32, side: f32, level: f32, rng: &mut dyn RngCore) -> Brush {
    let colour = tint(object.what.colour, rng);
    let mut jitter = |most: f32| rng.gen_range(-most..most);
    Brush {
        centre: ((centre.0 + jitter(0.03)) * side, (centre.1 + jitter(0.03)) * side),
        radius: radius * (1.0 + jitter(0.08)) * side,
        angle: jitter(0.15),
        texture: object.texture,
        colour,
        second: second_tone(colour, level),
    }
}

/// A colour as it comes out this time.
pub(super) fn tint(colour: Colour, rng: &mut dyn RngCore) -> [f32; 3] {
    colour.rgb().map(|channel| (channel + rng.gen_range(-12.0..12.0)).clamp(0.0, 255.0))
}

/// The other tone of a texture: nearly the background, so that a texture never brings in a colour of its own.
pub(super) fn second_tone(colour: [f32; 3], level: f32) -> [f32; 3] {
    colour.map(|channel| channel + (level - channel) * 0.6)
}
