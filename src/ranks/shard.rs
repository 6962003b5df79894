//! Who keeps the optimizer's state of which parameters.

use std::ops::Range;

/// The parameters of each rank, whole and neighbours, as even in numbers as that allows. `lengths` are those of all
/// parameters. Where there are more ranks than parameters, some have none.
pub fn owners(lengths: &[usize], ranks: usize) -> Vec<Range<usize>> {
    let total: usize = lengths.iter().sum();
    let mut starts = Vec::with_capacity(ranks + 1);
    let (mut index, mut before) = (0, 0);
    for rank in 0..ranks {
        // A parameter belongs to the rank in whose even share its middle lies.
        while index < lengths.len() && (before + lengths[index] / 2) * ranks < rank * total {
            before += lengths[index];
            index += 1;
        }
        starts.push(index);
    }
    starts.push(lengths.len());
    starts.windows(2).map(|pair| pair[0]..pair[1]).collect()
}

/// The rank that a parameter belongs to; `place` is one of the walk over the model.
pub fn owner(owners: &[Range<usize>], place: usize) -> usize {
    owners.iter().position(|own| own.contains(&place)).unwrap_or_default()
}

/// The values of each rank among those of the parameters `own`, which lie one after the other.
pub fn slices(lengths: &[usize], own: &Range<usize>, owners: &[Range<usize>]) -> Vec<Range<usize>> {
    let at = |index: usize| lengths[own.start..index.clamp(own.start, own.end)].iter().sum::<usize>();
    owners.iter().map(|owner| at(owner.start)..at(owner.end)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_has_one_owner() {
        let lengths = [700, 1, 1, 300, 20, 20, 5, 900];
        for ranks in 1..12 {
            let owners = owners(&lengths, ranks);
            assert_eq!(owners.len(), ranks);
            assert_eq!(owners.iter().cloned().flatten().collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
            let values = slices(&lengths, &(2..7), &owners);
            assert_eq!(values.iter().cloned().flatten().collect::<Vec<_>>(), (0..346).collect::<Vec<_>>());
        }
        assert_eq!(owners(&lengths, 2), [0..4, 4..8]);
    }
}
