//! Prefetch of images: those of the next micro-batch travel to the device while the ones before them are computed.

use std::sync::Arc;

use super::input::{ImageInput, PatchValues};

/// The images of a step, as parts of the batch and their micro-batches.
pub type StepImages = Arc<Vec<Vec<ImageInput>>>;

/// The images of this step and of the next.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prefetch {
    now: StepImages,
    next: StepImages,
}

/// The micro-batch that comes after another one.
#[derive(Debug, Clone)]
pub(crate) enum Upcoming {
    /// Another one of this step.
    Now(Held),
    /// The first one of the next step.
    Next(Held),
}

/// A micro-batch of images that stays as it is for as long as somebody has this.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    all: StepImages,
    part: usize,
    unit: usize,
}

impl Held {
    fn first(all: &StepImages) -> Option<Held> {
        all.first()?.first()?;
        Some(Held { all: all.clone(), part: 0, unit: 0 })
    }
}

impl AsRef<[u8]> for Held {
    /// Its stored bytes; nothing where it has none.
    fn as_ref(&self) -> &[u8] {
        match &self.all[self.part][self.unit].patches {
            PatchValues::Bytes(bytes) => bytes,
            PatchValues::Floats(_) => &[],
        }
    }
}

impl Prefetch {
    pub fn new(now: &StepImages, next: Option<&StepImages>) -> Self {
        Prefetch { now: now.clone(), next: next.cloned().unwrap_or_default() }
    }

    /// The micro-batch after `input`, which is of this step: the one behind it; behind the last, where several were not
    /// recorded and are encoded again, the first; else the next step's first.
    pub fn after(&self, input: &ImageInput, recorded: bool) -> Option<Upcoming> {
        let places = || {
            let parts = self.now.iter().enumerate();
            parts.flat_map(|(part, units)| (0..units.len()).map(move |unit| (part, unit)))
        };
        let mut rest = places().skip_while(|&(part, unit)| !std::ptr::eq(&self.now[part][unit], input));
        rest.next()?;
        match rest.next() {
            Some((part, unit)) => Some(Upcoming::Now(Held { all: self.now.clone(), part, unit })),
            None if recorded || places().count() == 1 => Held::first(&self.next).map(Upcoming::Next),
            None => Held::first(&self.now).map(Upcoming::Now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::Kept;

    fn step(marks: &[&[u8]]) -> StepImages {
        let input = |&mark: &u8| ImageInput {
            patches: PatchValues::Bytes(vec![mark; 3]),
            kept: Kept::all(1, 1),
            grid: 1,
        };
        Arc::new(marks.iter().map(|part| part.iter().map(input).collect()).collect())
    }

    /// The mark of what comes, and whether it is of this step.
    fn told(coming: Option<Upcoming>) -> Option<(u8, bool)> {
        coming.map(|coming| match coming {
            Upcoming::Now(held) => (held.as_ref()[0], true),
            Upcoming::Next(held) => (held.as_ref()[0], false),
        })
    }

    #[test]
    fn micro_batches_follow_each_other_through_both_passes_into_the_next_step() {
        let (now, next) = (step(&[&[1, 2], &[3]]), step(&[&[4], &[5]]));
        let prefetch = Prefetch::new(&now, Some(&next));
        let inputs: Vec<&ImageInput> = now.iter().flatten().collect();
        for (recorded, last) in [(false, (1, true)), (true, (4, false))] {
            let after: Vec<_> = inputs.iter().map(|input| told(prefetch.after(input, recorded))).collect();
            assert_eq!(after, [Some((2, true)), Some((3, true)), Some(last)]);
        }
        // An equal one elsewhere is another one.
        assert_eq!(told(prefetch.after(&inputs[0].clone(), true)), None);
        assert_eq!(told(prefetch.after(&next[0][0], true)), None);
    }

    #[test]
    fn a_single_micro_batch_is_encoded_once_and_the_last_step_has_no_next() {
        let now = step(&[&[1]]);
        assert_eq!(
            told(Prefetch::new(&now, Some(&step(&[&[2]]))).after(&now[0][0], false)),
            Some((2, false))
        );
        assert_eq!(told(Prefetch::new(&now, None).after(&now[0][0], true)), None);
        assert_eq!(told(Prefetch::default().after(&now[0][0], true)), None);
    }
}
