//! Pairs of shape and colour, and those that training never sees.
//!
//! Number the shapes and the colours from 0 to 11; a pair is held out if shape + colour, modulo 12, is 0,
//! 1, 4 or 6. So every shape lacks four colours and every colour lacks four shapes: 48 pairs of 144. The
//! four numbers differ from each other by every amount (6 twice), so any two shapes lack only one or two
//! colours in common: no group of shapes can be told by the colours that it lacks.

use super::attribute::{Colour, Shape};
use super::config::ScenesSplit;

/// Sums of shape and colour that are held out.
const HELD_OUT: [usize; 4] = [0, 1, 4, 6];

/// A shape of a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Combination {
    /// Its shape.
    pub shape: Shape,
    /// Its colour.
    pub colour: Colour,
}

impl Combination {
    /// True if training never shows it, in any role.
    pub fn is_held_out(self) -> bool {
        HELD_OUT.contains(&((self.shape as usize + self.colour as usize) % Colour::ALL.len()))
    }

    /// Combinations that a split shows, in the order of its class labels.
    pub fn of(split: ScenesSplit) -> Vec<Combination> {
        let held_out = split == ScenesSplit::HeldOut;
        let with_shape = |&shape| Colour::ALL.iter().map(move |&colour| Combination { shape, colour });
        Shape::ALL.iter().flat_map(with_shape).filter(|pair| pair.is_held_out() == held_out).collect()
    }

    /// For example "red circle".
    pub fn phrase(self) -> String {
        format!("{} {}", self.colour.word(), self.shape.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_and_every_colour_lacks_four_partners() {
        let held_out = Combination::of(ScenesSplit::HeldOut);
        let train = Combination::of(ScenesSplit::Train);
        assert_eq!((held_out.len(), train.len()), (48, 96));
        assert!(train.iter().all(|pair| !held_out.contains(pair)));
        for &shape in Shape::ALL {
            assert_eq!(held_out.iter().filter(|pair| pair.shape == shape).count(), 4, "{shape:?}");
        }
        for &colour in Colour::ALL {
            assert_eq!(held_out.iter().filter(|pair| pair.colour == colour).count(), 4, "{colour:?}");
        }
    }

    #[test]
    fn two_shapes_lack_one_or_two_colours_in_common() {
        let lacks = |shape, colour| Combination { shape, colour }.is_held_out();
        for (i, &a) in Shape::ALL.iter().enumerate() {
            for &b in &Shape::ALL[..i] {
                let common =
                    Colour::ALL.iter().filter(|&&colour| lacks(a, colour) && lacks(b, colour)).count();
                assert!((1..=2).contains(&common), "{a:?} and {b:?} lack {common} colours in common");
            }
        }
    }
}
