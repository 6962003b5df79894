//! Several sources at once, each with its share.

use std::sync::Arc;

use rand::RngCore;

use crate::data::source::cursor::MAX_MIX_SOURCES;
use crate::data::source::lane::Lane;
use crate::data::source::{Indexed, Order, Source, Ticket};
use crate::data::storage::{Location, Progress};
use crate::data::{Cursor, DataError};
use crate::data::{LoadError, Raw};
use crate::seed::{rng, Purpose};

/// Longest pattern of sources; shares are exact to one in so many.
const LONGEST_PATTERN: usize = 1 << 16;
/// First counter of the draw of the seeds of the sources; epochs never come so far.
const SEEDS: u64 = u64::MAX;
/// Bits of a ticket's item that name the sample within its source; those above name the source.
const ITEM_BITS: u32 = 40;
/// Bits of a ticket's index that are the source's; those above name the source.
const SOURCE_BITS: u32 = 58;

/// The mix. While training, the next source follows a fixed pattern, so that after any number of samples each
/// source has given its share, to within one sample; each goes through its own epochs. An epoch of the mix
/// ends when every source has come to the end of one. In stored order each source is gone through once,
/// one after the other.
pub struct Mix {
    sources: Vec<Arc<dyn Source>>,
    /// The source of each place, repeated for ever.
    pattern: Vec<u8>,
}

impl Mix {
    /// # Errors
    /// There is no source, there are too many, or a weight is not a positive number.
    pub fn new(sources: Vec<(Arc<dyn Source>, f64)>) -> Result<Self, DataError> {
        let (sources, weights): (Vec<_>, Vec<_>) = sources.into_iter().unzip();
        check(&weights).map_err(DataError::Invalid)?;
        Ok(Mix { sources, pattern: pattern(&weights) })
    }

    /// The seed of a source: two sources of the same size have orders of their own.
    fn order_of(&self, part: usize, order: Order) -> Order {
        let own = |seed| rng(seed, Purpose::Order, SEEDS, part as u64).next_u64();
        match order {
            Order::Stored => Order::Stored,
            Order::Shuffled { seed } => Order::Shuffled { seed: own(seed) },
            Order::Lane { seed, lane } => Order::Lane { seed: own(seed), lane },
        }
    }

    /// The source of a place. Each lane begins the pattern elsewhere: where all stood at the same place of it, they would
    /// all ask for the same source at the same time.
    fn source_at(&self, position: u64, order: Order) -> usize {
        let (length, lane) =
            (self.pattern.len() as u64, order.shuffled().map_or(Lane::WHOLE, |(_, lane)| lane));
        let phase = u64::from(lane.number) * length / u64::from(lane.of.max(1));
        usize::from(self.pattern[((position % length + phase) % length) as usize])
    }

    /// The ticket of the mix for a ticket of one of its sources.
    fn handed_out(&self, part: usize, given: Ticket, cursor: Cursor, order: Order) -> Ticket {
        let parts = cursor.parts.with(part, given.after);
        // In a lane a sample has the number that its source gives it, in the source's epoch.
        let (epoch, index) = match order {
            Order::Lane { .. } => (given.epoch, (part as u64) << SOURCE_BITS | given.index),
            Order::Shuffled { .. } | Order::Stored => (cursor.epoch, cursor.position),
        };
        Ticket {
            epoch,
            index,
            item: ((part as u64) << ITEM_BITS | given.item.0, given.item.1),
            after: Cursor { position: cursor.position + 1, parts, ..cursor },
        }
    }

    fn shuffled(&self, cursor: Cursor, order: Order) -> Result<Option<Ticket>, DataError> {
        let part = self.source_at(cursor.position, order);
        let (source, order) = (&self.sources[part], self.order_of(part, order));
        let own = cursor.parts.get(part);
        if let Some(given) = source.ticket(own, order)? {
            return Ok(Some(self.handed_out(part, given, cursor, order)));
        }
        let fresh = own.next_epoch();
        let Some(given) = source.ticket(fresh, order)? else {
            let skipped = "it has no samples".to_owned();
            return Err(DataError::NothingUsable { source_name: source.name(), skipped });
        };
        // This source begins another pass. Where it was the last to end one, so does the mix.
        let parts = cursor.parts.with(part, fresh);
        let ended = (0..self.sources.len()).all(|part| parts.get(part).epoch > cursor.epoch);
        Ok((!ended).then(|| self.handed_out(part, given, Cursor { parts, ..cursor }, order)))
    }

    fn stored(&self, mut cursor: Cursor) -> Result<Option<Ticket>, DataError> {
        while let Some(source) = self.sources.get(cursor.window as usize) {
            let part = cursor.window as usize;
            let own = cursor.parts.get(part);
            let own = if own.epoch < cursor.epoch { Cursor::epoch(cursor.epoch) } else { own };
            match source.ticket(own, Order::Stored)? {
                Some(given) => return Ok(Some(self.handed_out(part, given, cursor, Order::Stored))),
                None => cursor.window += 1,
            }
        }
        Ok(None)
    }

    fn split(&self, ticket: &Ticket) -> (&dyn Source, Ticket) {
        let part = (ticket.item.0 >> ITEM_BITS) as usize;
        let item = (ticket.item.0 & ((1 << ITEM_BITS) - 1), ticket.item.1);
        (self.sources[part].as_ref(), Ticket { item, ..*ticket })
    }
}

/// Checks the weights of a mix.
pub fn check(weights: &[f64]) -> Result<(), String> {
    if weights.is_empty() || weights.len() > MAX_MIX_SOURCES {
        return Err(format!("expected 1 to {MAX_MIX_SOURCES} sources in a mix, got {}", weights.len()));
    }
    match weights.iter().find(|weight| !(weight.is_finite() && **weight > 0.0)) {
        Some(weight) => Err(format!("expected a weight above 0, got {weight}")),
        None => Ok(()),
    }
}

/// Places of each source in a pattern that repeats, never as much as one away from its share: of the sources
/// that may be next, the one that has to be soonest (R. Tijdeman, The chairman assignment problem, 1980).
fn pattern(weights: &[f64]) -> Vec<u8> {
    let counts = counts(weights);
    let length: i128 = counts.iter().map(|&count| i128::from(count)).sum();
    // All in whole numbers: shares times the length and times this.
    let scale = (2 * counts.len() as i128 - 2).max(1);
    let mut given = vec![0i128; counts.len()];
    (1..=length)
        .map(|places| {
            let behind = |part: usize| (i128::from(counts[part]) * places - given[part] * length) * scale;
            // Time until it is a whole sample behind, but for what the method needs as slack.
            let time = |part: usize| (length * scale - length - behind(part), i128::from(counts[part]));
            let sooner = |a: usize, b: usize| {
                let ((time_a, per_a), (time_b, per_b)) = (time(a), time(b));
                time_a * per_b < time_b * per_a
            };
            let allowed = (0..counts.len()).filter(|&part| behind(part) >= length);
            let next = allowed.reduce(|next, part| if sooner(part, next) { part } else { next });
            // One of them is always allowed.
            let next = next.unwrap_or(0);
            given[next] += 1;
            next as u8
        })
        .collect()
}

/// Places of each source in one pattern: the smallest whole numbers in the ratio of the weights, where there are
/// such with few enough places, else the nearest; at least one each.
fn counts(weights: &[f64]) -> Vec<u64> {
    let smallest = weights.iter().copied().fold(f64::INFINITY, f64::min);
    let sum: f64 = weights.iter().sum();
    for scale in 1..=1000 {
        let scaled: Vec<f64> = weights.iter().map(|weight| weight / smallest * f64::from(scale)).collect();
        let whole = |value: &f64| (value - value.round()).abs() < 1e-9 * value;
        if sum / smallest * f64::from(scale) > LONGEST_PATTERN as f64 {
            break;
        }
        if scaled.iter().all(whole) {
            return scaled.iter().map(|value| value.round() as u64).collect();
        }
    }
    weights.iter().map(|weight| ((weight / sum * LONGEST_PATTERN as f64).round() as u64).max(1)).collect()
}

impl Source for Mix {
    /// As many as all sources have together.
    fn samples(&self) -> Option<u64> {
        self.sources.iter().map(|source| source.samples()).sum()
    }

    fn files(&self) -> Vec<Location> {
        self.sources.iter().flat_map(|source| source.files()).collect()
    }

    fn indexed(&self) -> Vec<&dyn Indexed> {
        self.sources.iter().flat_map(|source| source.indexed()).collect()
    }

    fn takes_turns(&self) -> bool {
        false
    }

    fn want(&self, lane: Lane, samples: u64) {
        let places = self.pattern.len() as u64;
        for (part, source) in self.sources.iter().enumerate() {
            let own = self.pattern.iter().filter(|&&at| usize::from(at) == part).count() as u64;
            source.want(lane, samples.saturating_mul(own).div_ceil(places).saturating_add(1));
        }
    }

    fn ticket(&self, cursor: Cursor, order: Order) -> Result<Option<Ticket>, DataError> {
        match order {
            Order::Stored => self.stored(cursor),
            Order::Shuffled { .. } | Order::Lane { .. } => self.shuffled(cursor, order),
        }
    }

    fn load(&self, ticket: &Ticket) -> Result<Raw, LoadError> {
        let (source, ticket) = self.split(ticket);
        source.load(&ticket)
    }

    fn name(&self) -> String {
        let names: Vec<String> = self.sources.iter().map(|source| source.name()).collect();
        format!("a mix of {}", names.join(" and "))
    }

    fn sample_name(&self, ticket: &Ticket, key: &str) -> String {
        let (source, ticket) = self.split(ticket);
        source.sample_name(&ticket, key)
    }

    fn shards(&self) -> Vec<String> {
        self.sources.iter().flat_map(|source| source.shards()).collect()
    }

    fn shard_of(&self, ticket: &Ticket) -> Option<String> {
        let (source, ticket) = self.split(ticket);
        source.shard_of(&ticket)
    }

    fn occurrence(&self, ticket: &Ticket) -> u32 {
        let (source, ticket) = self.split(ticket);
        source.occurrence(&ticket)
    }

    fn image_of(&self, ticket: &Ticket, key: &str) -> Option<u64> {
        let (source, ticket) = self.split(ticket);
        source.image_of(&ticket, key)
    }

    /// The strictest of the sources.
    fn max_pixels(&self) -> u64 {
        self.sources.iter().map(|source| source.max_pixels()).min().unwrap_or(crate::data::source::MAX_PIXELS)
    }

    /// That of the storage that the sources share.
    fn progress(&self) -> Option<Arc<Progress>> {
        self.sources.iter().find_map(|source| source.progress())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::source::permutation::Permutations;
    use crate::data::Image;
    use proptest::prelude::*;

    struct Numbers {
        samples: u64,
        permutations: Permutations,
    }

    impl Source for Numbers {
        fn samples(&self) -> Option<u64> {
            Some(self.samples)
        }

        fn ticket(&self, cursor: Cursor, order: Order) -> Result<Option<Ticket>, DataError> {
            Ok(self.permutations.ticket(order, cursor, self.samples))
        }

        fn load(&self, ticket: &Ticket) -> Result<Raw, LoadError> {
            Ok(Raw {
                key: format!("{}/{}", self.samples, ticket.item.1),
                image: Image::Encoded(Vec::new()),
                captions: Vec::new(),
                meta: Ok(None),
                label: None,
                label_set: None,
            })
        }
    }

    fn mix(sources: &[(u64, f64)]) -> Mix {
        let numbers = |&(samples, weight): &(u64, f64)| {
            let source: Arc<dyn Source> =
                Arc::new(Numbers { samples, permutations: Permutations::default() });
            (source, weight)
        };
        Mix::new(sources.iter().map(numbers).collect()).unwrap()
    }

    /// (source, sample) and the cursors behind.
    fn walk(mix: &Mix, mut cursor: Cursor, order: Order, most: usize) -> Vec<((u64, u64), Cursor)> {
        let mut items = Vec::new();
        while items.len() < most {
            let Some(ticket) = mix.ticket(cursor, order).unwrap() else {
                if order == Order::Stored {
                    break;
                }
                cursor = cursor.next_epoch();
                continue;
            };
            cursor = ticket.after;
            items.push(((ticket.item.0 >> ITEM_BITS, ticket.item.1), cursor));
        }
        items
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn shares_are_exact_and_sources_keep_their_epochs(
            sources in prop::collection::vec((1u64..30, 1u32..20), 1..6), seed in 0u64..100, resume in 1usize..200,
        ) {
            let sources: Vec<_> = sources.iter().map(|&(n, weight)| (n, f64::from(weight) / 7.0)).collect();
            let mix = mix(&sources);
            let sum: f64 = sources.iter().map(|source| source.1).sum();
            let order = Order::Shuffled { seed };
            // Within one epoch of the mix, whose pattern begins anew.
            let mut cursor = Cursor::default();
            let mut given = vec![Vec::new(); sources.len()];
            let mut places = 0.0;
            while let Some(ticket) = mix.ticket(cursor, order).unwrap() {
                prop_assert_eq!(ticket.index, places as u64);
                given[(ticket.item.0 >> ITEM_BITS) as usize].push(ticket.item.1);
                places += 1.0;
                for (given, source) in given.iter().zip(&sources) {
                    let share = source.1 / sum * places;
                    prop_assert!((given.len() as f64 - share).abs() < 1.0 + 1e-9, "{} of {share}", given.len());
                }
                cursor = ticket.after;
            }
            for (given, source) in given.iter().zip(&sources) {
                prop_assert!(given.len() as u64 >= source.0, "every source is gone through");
                for pass in given.chunks_exact(source.0 as usize) {
                    let mut sorted = pass.to_vec();
                    sorted.sort_unstable();
                    prop_assert_eq!(sorted, (0..source.0).collect::<Vec<_>>());
                }
            }
            let all = walk(&mix, Cursor::default(), order, 400);
            prop_assert_eq!(&walk(&mix, all[resume - 1].1, order, 400 - resume)[..], &all[resume..]);
        }
    }

    #[test]
    fn stored_order_is_one_source_after_the_other() {
        let mix = mix(&[(3, 5.0), (2, 0.1)]);
        let expected = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)];
        for epoch in [0, 3] {
            let all = walk(&mix, Cursor::epoch(epoch), Order::Stored, 100);
            assert_eq!(all.iter().map(|(item, _)| *item).collect::<Vec<_>>(), expected);
            assert_eq!(walk(&mix, all[2].1, Order::Stored, 100), all[3..]);
            let next = all[4].1.next_epoch();
            assert_eq!(walk(&mix, next, Order::Stored, 100).len(), 5);
        }
        assert_eq!(mix.samples(), Some(5));
        let ticket = mix.ticket(walk(&mix, Cursor::default(), Order::Stored, 3)[2].1, Order::Stored).unwrap();
        assert_eq!(mix.load(&ticket.unwrap()).unwrap().key, "2/0");
    }

    #[test]
    fn weights_become_the_smallest_pattern_that_is_exact() {
        assert_eq!(counts(&[0.75, 0.25]), [3, 1]);
        assert_eq!(counts(&[2.0, 3.0, 5.0]), [2, 3, 5]);
        assert_eq!(counts(&[0.1, 0.2]), [1, 2]);
        assert_eq!(pattern(&[2.0, 1.0]), [0, 1, 0]);
        let odd = counts(&[std::f64::consts::PI, 1.0]);
        assert!((odd[0] as f64 / odd[1] as f64 - std::f64::consts::PI).abs() < 1e-3, "{odd:?}");
        assert_eq!(counts(&[1e12, 1.0])[1], 1, "the smallest share is not nothing");
    }

    #[test]
    fn weights_that_are_no_shares_are_refused() {
        assert!(check(&[]).unwrap_err().contains("1 to 16 sources in a mix, got 0"));
        assert!(check(&[1.0; 17]).is_err());
        for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(check(&[1.0, weight]).unwrap_err().contains("a weight above 0"));
        }
    }
}
