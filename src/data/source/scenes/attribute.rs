//! Attributes of scenes, and the words for them.

/// An attribute with a fixed list of values.
macro_rules! attribute {
    ($(#[$doc:meta])* $name:ident { $($value:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)] // The names of the values say it.
        pub enum $name { $($value),+ }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [$name] = &[$($name::$value),+];
        }
    };
}

attribute! {
    /// Outlines that differ at a dozen pixels.
    Shape { Circle, Square, Triangle, Star, Cross, Ring, Heart, Diamond, Crescent, Arrow, Hourglass, Bar }
}

attribute! {
    /// Colours that stay apart when they are jittered.
    Colour { Red, Orange, Yellow, Lime, Green, Turquoise, Blue, Purple, Pink, Brown, Black, White }
}

attribute! {
    /// Filling of a shape.
    Texture { Plain, Striped, Dotted, Checked }
}

attribute! {
    /// Size of a shape.
    Size { Small, Large }
}

attribute! {
    /// Place of a single shape.
    Place { Left, Right, Top, Bottom, Centre }
}

attribute! {
    /// Lightness of the background; always neutral, so that colour belongs to shapes.
    Ground { Light, Grey, Dark }
}

attribute! {
    /// Place of the first of two shapes, as seen from the second.
    Relation { LeftOf, RightOf, Above, Below }
}

impl Shape {
    /// The word for it in captions.
    pub fn word(self) -> &'static str {
        match self {
            Shape::Circle => "circle",
            Shape::Square => "square",
            Shape::Triangle => "triangle",
            Shape::Star => "star",
            Shape::Cross => "cross",
            Shape::Ring => "ring",
            Shape::Heart => "heart",
            Shape::Diamond => "diamond",
            Shape::Crescent => "crescent",
            Shape::Arrow => "arrow",
            Shape::Hourglass => "hourglass",
            Shape::Bar => "bar",
        }
    }

    /// Several of them.
    pub fn plural(self) -> &'static str {
        match self {
            Shape::Circle => "circles",
            Shape::Square => "squares",
            Shape::Triangle => "triangles",
            Shape::Star => "stars",
            Shape::Cross => "crosses",
            Shape::Ring => "rings",
            Shape::Heart => "hearts",
            Shape::Diamond => "diamonds",
            Shape::Crescent => "crescents",
            Shape::Arrow => "arrows",
            Shape::Hourglass => "hourglasses",
            Shape::Bar => "bars",
        }
    }
}

impl Colour {
    /// The word for it in captions.
    pub fn word(self) -> &'static str {
        match self {
            Colour::Red => "red",
            Colour::Orange => "orange",
            Colour::Yellow => "yellow",
            Colour::Lime => "lime",
            Colour::Green => "green",
            Colour::Turquoise => "turquoise",
            Colour::Blue => "blue",
            Colour::Purple => "purple",
            Colour::Pink => "pink",
            Colour::Brown => "brown",
            Colour::Black => "black",
            Colour::White => "white",
        }
    }

    /// Red, green, blue, 0 to 255, before jitter.
    pub fn rgb(self) -> [f32; 3] {
        match self {
            Colour::Red => [222.0, 30.0, 35.0],
            Colour::Orange => [250.0, 125.0, 10.0],
            Colour::Yellow => [250.0, 225.0, 30.0],
            Colour::Lime => [145.0, 240.0, 40.0],
            Colour::Green => [15.0, 120.0, 45.0],
            Colour::Turquoise => [40.0, 215.0, 210.0],
            Colour::Blue => [30.0, 65.0, 225.0],
            Colour::Purple => [125.0, 30.0, 170.0],
            Colour::Pink => [255.0, 125.0, 190.0],
            Colour::Brown => [115.0, 65.0, 20.0],
            Colour::Black => [12.0, 12.0, 14.0],
            Colour::White => [252.0, 252.0, 252.0],
        }
    }
}

impl Texture {
    /// The word for it in captions.
    pub fn word(self) -> &'static str {
        match self {
            Texture::Plain => "plain",
            Texture::Striped => "striped",
            Texture::Dotted => "dotted",
            Texture::Checked => "checked",
        }
    }
}

impl Size {
    /// The word for it in captions.
    pub fn word(self) -> &'static str {
        match self {
            Size::Small => "small",
            Size::Large => "large",
        }
    }

    /// From the centre to the edge, as a share of the image's side.
    pub fn radius(self) -> f32 {
        match self {
            Size::Small => 0.22,
            Size::Large => 0.35,
        }
    }
}

impl Place {
    /// The words for it in captions.
    pub fn words(self) -> &'static str {
        match self {
            Place::Left => "on the left",
            Place::Right => "on the right",
            Place::Top => "at the top",
            Place::Bottom => "at the bottom",
            Place::Centre => "in the centre",
        }
    }

    /// Direction from the centre of the image: right, down.
    pub fn direction(self) -> (f32, f32) {
        match self {
            Place::Left => (-1.0, 0.0),
            Place::Right => (1.0, 0.0),
            Place::Top => (0.0, -1.0),
            Place::Bottom => (0.0, 1.0),
            Place::Centre => (0.0, 0.0),
        }
    }
}

impl Ground {
    /// The words for it in captions.
    pub fn words(self) -> &'static str {
        match self {
            Ground::Light => "on a light background",
            Ground::Grey => "on a grey background",
            Ground::Dark => "on a dark background",
        }
    }

    /// 0 to 255, before jitter.
    pub fn level(self) -> f32 {
        match self {
            Ground::Light => 195.0,
            Ground::Grey => 140.0,
            Ground::Dark => 85.0,
        }
    }
}

impl Relation {
    /// The words for it in captions.
    pub fn words(self) -> &'static str {
        match self {
            Relation::LeftOf => "to the left of",
            Relation::RightOf => "to the right of",
            Relation::Above => "above",
            Relation::Below => "below",
        }
    }

    /// The same scene, told from the other shape.
    pub fn inverse(self) -> Relation {
        match self {
            Relation::LeftOf => Relation::RightOf,
            Relation::RightOf => Relation::LeftOf,
            Relation::Above => Relation::Below,
            Relation::Below => Relation::Above,
        }
    }

    /// The place of the first shape; the second goes opposite.
    pub fn place(self) -> Place {
        match self {
            Relation::LeftOf => Place::Left,
            Relation::RightOf => Place::Right,
            Relation::Above => Place::Top,
            Relation::Below => Place::Bottom,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_far_apart_and_far_from_every_background() {
        let distance =
            |a: [f32; 3], b: [f32; 3]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
        for (i, &a) in Colour::ALL.iter().enumerate() {
            for &b in &Colour::ALL[..i] {
                assert!(distance(a.rgb(), b.rgb()) > 95.0, "{a:?} and {b:?}");
            }
            for &ground in Ground::ALL {
                assert!(distance(a.rgb(), [ground.level(); 3]) > 70.0, "{a:?} on {ground:?}");
            }
        }
    }
}
