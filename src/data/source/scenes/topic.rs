//! Topics of captions of images with several things in them, and the topics that training never shows.
//!
//! Two kinds of things never stand together in a training image, in whatever role, if the sum of their
//! shapes and colours is a multiple of 4. The sum stays what it is when the two swap colours, so what is
//! asked can be told by nothing but whose colour is whose, how many there are, and which side they are on:
//! the classes come in groups that agree in the words for shapes and colours.

use super::attribute::{Colour, Relation, Shape};
use super::caption::begins_with_vowel;
use super::combination::Combination;
use super::config::{ScenesLevel, ScenesSplit};

/// Things that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Group {
    /// Shape and colour of each.
    pub what: Combination,
    /// 1 to 4.
    pub count: usize,
}

/// The content of a caption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// One group alone.
    One(Group),
    /// Each of the first is so to each of the second.
    Two(Group, Relation, Group),
}

/// Pairs of shapes and colours that the classes of a level are made of.
const RELATED: usize = 24;
const COUNTED: usize = 16;

/// True if training never shows the two in one image.
pub fn never_together(a: Combination, b: Combination) -> bool {
    let sum = |kind: Combination| kind.shape as usize + kind.colour as usize;
    a != b && (sum(a) + sum(b)).is_multiple_of(4)
}

impl Group {
    /// For example "a red circle" or "three striped red circles"; a word that is left out is not said.
    pub fn phrase(self, texture: Option<&str>, colour: bool, shape: bool) -> String {
        let Group { what, count } = self;
        let noun = match (shape, count) {
            (true, 1) => what.shape.word(),
            (true, _) => what.shape.plural(),
            (false, 1) => "shape",
            (false, _) => "shapes",
        };
        let words = [texture, colour.then(|| what.colour.word()), Some(noun)];
        let words: Vec<&str> = words.into_iter().flatten().collect();
        format!("{} {}", number(count, words[0]), words.join(" "))
    }

    /// Its shape and its colour.
    pub fn name(self) -> String {
        self.phrase(None, true, true)
    }
}

/// The word for a number before another word.
fn number(count: usize, next: &str) -> &'static str {
    match count {
        1 if begins_with_vowel(next) => "an",
        1 => "a",
        2 => "two",
        3 => "three",
        _ => "four",
    }
}

impl Topic {
    /// Topics that an evaluation of a level asks for, in the order of its class labels; none for `Plain`.
    pub fn held_out(level: ScenesLevel) -> Vec<Topic> {
        let one = |what| Group { what, count: 1 };
        match level {
            ScenesLevel::Plain => Vec::new(),
            ScenesLevel::Clutter => {
                Combination::of(ScenesSplit::HeldOut).into_iter().map(|what| Topic::One(one(what))).collect()
            }
            ScenesLevel::Relations => Quartet::choose(RELATED)
                .into_iter()
                .enumerate()
                .flat_map(|(number, quartet)| {
                    let asked =
                        |relation| quartet.bindings().map(|(a, b)| Topic::Two(one(a), relation, one(b)));
                    axis(number).into_iter().flat_map(asked).collect::<Vec<_>>()
                })
                .collect(),
            ScenesLevel::Counts => Quartet::choose(COUNTED)
                .into_iter()
                .enumerate()
                .flat_map(|(number, quartet)| {
                    // Of two to four, each pair of numbers a third of the time.
                    let counts = [[2, 3], [3, 4], [2, 4]][number % 3];
                    let asked = |(relation, count)| {
                        quartet
                            .bindings()
                            .map(|(a, b)| Topic::Two(Group { what: a, count }, relation, one(b)))
                    };
                    let each = |relation| counts.map(|count| (relation, count));
                    axis(number).into_iter().flat_map(each).flat_map(asked).collect::<Vec<_>>()
                })
                .collect(),
        }
    }

    /// For example "two red circles to the left of a blue star".
    pub fn phrase(self) -> String {
        match self {
            Topic::One(group) => group.name(),
            Topic::Two(first, relation, second) => {
                format!("{} {} {}", first.name(), relation.words(), second.name())
            }
        }
    }
}

/// Sideways and upright in turn.
fn axis(number: usize) -> [Relation; 2] {
    match number % 2 {
        0 => [Relation::LeftOf, Relation::RightOf],
        _ => [Relation::Above, Relation::Below],
    }
}

/// Two shapes and two colours whose four combinations training may show, but never a shape of either colour
/// with the other shape of the other colour.
#[derive(Debug, Clone, Copy)]
struct Quartet {
    shapes: [Shape; 2],
    colours: [Colour; 2],
}

impl Quartet {
    /// The two ways to give each shape one of the colours.
    fn bindings(self) -> [(Combination, Combination); 2] {
        let Quartet { shapes: [first, second], colours: [one, other] } = self;
        let kind = |shape, colour| Combination { shape, colour };
        [(kind(first, one), kind(second, other)), (kind(first, other), kind(second, one))]
    }

    /// So many of them: all shapes and all colours about equally often, the same two together rarely.
    fn choose(many: usize) -> Vec<Quartet> {
        let mut usable = Vec::new();
        for (i, &first) in Shape::ALL.iter().enumerate() {
            for &second in &Shape::ALL[..i] {
                for (j, &one) in Colour::ALL.iter().enumerate() {
                    for &other in &Colour::ALL[..j] {
                        let quartet = Quartet { shapes: [first, second], colours: [one, other] };
                        let seen = |(a, b): (Combination, Combination)| {
                            !a.is_held_out() && !b.is_held_out() && never_together(a, b)
                        };
                        if quartet.bindings().into_iter().all(seen) {
                            usable.push(quartet);
                        }
                    }
                }
            }
        }
        let (mut shapes, mut colours) = ([0usize; 12], [0usize; 12]);
        let mut chosen: Vec<Quartet> = Vec::with_capacity(many);
        for _ in 0..many.min(usable.len()) {
            let used = |quartet: &Quartet| {
                let of_shapes = quartet.shapes.map(|shape| shapes[shape as usize].pow(2));
                let of_colours = quartet.colours.map(|colour| colours[colour as usize].pow(2));
                let again = chosen
                    .iter()
                    .filter(|other| other.shapes == quartet.shapes || other.colours == quartet.colours);
                of_shapes.iter().chain(&of_colours).sum::<usize>() + again.count()
            };
            let Some(least) = (0..usable.len()).min_by_key(|&at| used(&usable[at])) else { break };
            let quartet = usable.swap_remove(least);
            quartet.shapes.iter().for_each(|&shape| shapes[shape as usize] += 1);
            quartet.colours.iter().for_each(|&colour| colours[colour as usize] += 1);
            chosen.push(quartet);
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_read_as_english() {
        let kind = |colour, shape| Combination { shape, colour };
        let arrows = Group { what: kind(Colour::Orange, Shape::Arrow), count: 3 };
        let hourglass = Group { what: kind(Colour::Red, Shape::Hourglass), count: 1 };
        assert_eq!(arrows.phrase(Some("dotted"), true, true), "three dotted orange arrows");
        assert_eq!(hourglass.phrase(None, false, true), "an hourglass");
        assert_eq!(hourglass.phrase(None, true, false), "a red shape");
        assert_eq!(
            Topic::Two(arrows, Relation::Above, hourglass).phrase(),
            "three orange arrows above a red hourglass"
        );
    }

    #[test]
    fn classes_use_every_shape_and_colour_about_equally_often() {
        for many in [RELATED, COUNTED] {
            let chosen = Quartet::choose(many);
            assert_eq!(chosen.len(), many);
            let fair = 2 * many / 12;
            for &shape in Shape::ALL {
                let times = chosen.iter().filter(|quartet| quartet.shapes.contains(&shape)).count();
                assert!(times.abs_diff(fair) <= 1, "{shape:?}: {times} of {many}");
            }
            for &colour in Colour::ALL {
                let times = chosen.iter().filter(|quartet| quartet.colours.contains(&colour)).count();
                assert!(times.abs_diff(fair) <= 1, "{colour:?}: {times} of {many}");
            }
        }
    }
}
