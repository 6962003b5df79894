//! Counts how classified images fared: accuracy, accuracy by class, confusions.

use std::collections::BTreeMap;

use crate::record::{ClassResult, Confusion, Evaluation};

/// Pairs of classes that are kept, the most frequent.
const CONFUSIONS: usize = 50;

/// The classes of an image, ordered by a score; of equal scores the lower class comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ranking {
    /// Classes before the right one.
    pub rank: usize,
    /// The class with the highest score.
    pub first: usize,
}

impl Ranking {
    /// `scores` of all classes, of which `class` is right.
    pub fn of(scores: &[f32], class: usize) -> Self {
        let right = scores[class];
        let before = scores[..class].iter().filter(|score| **score >= right).count();
        let rank = before + scores[class..].iter().filter(|score| **score > right).count();
        let first = (0..scores.len()).fold(0, |best, at| if scores[at] > scores[best] { at } else { best });
        Ranking { rank, first }
    }
}

/// Counts of images whose class ranked first, or among the first five.
#[derive(Debug, Clone, Copy, Default)]
struct Score {
    n: u64,
    top1: u64,
    top5: u64,
}

/// Scores of each class.
#[derive(Debug)]
pub(super) struct Tally {
    scores: Vec<Score>,
    /// (class, taken for)
    confusions: BTreeMap<(usize, usize), u64>,
}

impl Tally {
    pub fn new(classes: usize) -> Self {
        Tally { scores: vec![Score::default(); classes], confusions: BTreeMap::new() }
    }

    /// An image of `class`.
    pub fn add(&mut self, class: usize, ranking: Ranking) {
        let score = &mut self.scores[class];
        score.n += 1;
        score.top1 += u64::from(ranking.rank == 0);
        score.top5 += u64::from(ranking.rank < 5);
        if ranking.first != class {
            *self.confusions.entry((class, ranking.first)).or_default() += 1;
        }
    }

    /// Images counted.
    pub fn n(&self) -> u64 {
        self.scores.iter().map(|score| score.n).sum()
    }

    /// Share of images whose class ranked first; NaN of none.
    pub fn top1(&self) -> f64 {
        share(self.scores.iter().map(|score| score.top1).sum(), self.n())
    }

    /// The result; classes without an image are left out of the mean. At least one image was counted.
    pub fn finish(self, kind: &str, dataset: &str, task: &str, names: &[String]) -> Evaluation {
        let n = self.n();
        let per_class: Vec<ClassResult> = names
            .iter()
            .zip(&self.scores)
            .filter(|(_, score)| score.n > 0)
            .map(|(name, score)| ClassResult {
                name: name.clone(),
                n: score.n,
                top1: share(score.top1, score.n),
            })
            .collect();
        let mean_per_class = per_class.iter().map(|class| class.top1).sum::<f64>() / per_class.len() as f64;
        let mut confusions: Vec<((usize, usize), u64)> =
            self.confusions.iter().map(|(k, n)| (*k, *n)).collect();
        // Stable: equal counts stay in the order of the classes.
        confusions.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        confusions.truncate(CONFUSIONS);
        Evaluation {
            kind: kind.into(),
            dataset: dataset.into(),
            task: task.into(),
            metrics: vec![
                ("top1".into(), self.top1()),
                ("top5".into(), share(self.scores.iter().map(|score| score.top5).sum(), n)),
                ("mean_per_class".into(), mean_per_class),
                ("chance".into(), 1.0 / names.len() as f64),
                ("classes".into(), names.len() as f64),
            ],
            n,
            per_class,
            confusions: confusions
                .into_iter()
                .map(|((class, first), n)| Confusion {
                    class: names[class].clone(),
                    taken_for: names[first].clone(),
                    n,
                })
                .collect(),
        }
    }
}

fn share(right: u64, n: u64) -> f64 {
    right as f64 / n as f64
}
