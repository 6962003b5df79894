//! Sharding of the optimizer's state by parameters.

use std::cmp::Reverse;

/// The owner of each parameter, by its place in the list of parameters. Parameters are not cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owners {
    of: Vec<usize>,
}

impl Owners {
    /// Shares parameters of these lengths out as evenly as whole ones allow: the longest first, each to the rank that has
    /// the fewest numbers so far. Where there are more ranks than parameters, some have none.
    pub fn of(lengths: &[usize], ranks: usize) -> Owners {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&place| Reverse(lengths[place]));
        let (mut of, mut held) = (vec![0; lengths.len()], vec![0; ranks]);
        for place in order {
            let least = (0..ranks).min_by_key(|&rank| held[rank]).unwrap_or_default();
            of[place] = least;
            held[least] += lengths[place];
        }
        Owners { of }
    }

    /// All parameters, so many, on rank 0.
    pub fn first(parameters: usize) -> Owners {
        Owners { of: vec![0; parameters] }
    }

    /// The rank that a parameter belongs to.
    pub fn owner(&self, place: usize) -> usize {
        self.of[place]
    }

    /// The places of a rank's parameters, in order.
    pub fn places(&self, rank: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.of.len()).filter(move |&place| self.of[place] == rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_has_one_owner_and_shares_are_even() {
        let lengths = [700, 1, 1, 300, 20, 20, 5, 900];
        for ranks in 1..12 {
            let owners = Owners::of(&lengths, ranks);
            let mut all: Vec<usize> = (0..ranks).flat_map(|rank| owners.places(rank)).collect();
            all.sort();
            assert_eq!(all, (0..8).collect::<Vec<_>>());
            assert!((0..8).all(|place| owners.places(owners.owner(place)).any(|own| own == place)));
            // Without the parameter that came last, its shortest, no share is larger than an even one.
            for rank in 0..ranks {
                let own = || owners.places(rank).map(|place| lengths[place]);
                let before_last = own().sum::<usize>() - own().min().unwrap_or_default();
                assert!(before_last <= lengths.iter().sum::<usize>() / ranks, "{ranks} ranks");
            }
        }
        let shares = |ranks| -> Vec<Vec<usize>> {
            let owners = Owners::of(&lengths, ranks);
            (0..ranks).map(|rank| owners.places(rank).collect()).collect()
        };
        assert_eq!(shares(2), [vec![1, 2, 4, 5, 6, 7], vec![0, 3]]);
        assert_eq!(shares(3), [vec![7], vec![0], vec![1, 2, 3, 4, 5, 6]]);
    }
}
