//! The area under the curve of true over false positives.

/// The share of pairs, one of the class and one not, of which the one of the class has the higher score; pairs of equal scores
/// count half. None where all images are on one side.
pub(super) fn roc_auc(scores: &[f32], is_of_class: &[bool]) -> Option<f64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut doubled: u64 = 0;
    let (mut of_class, mut others) = (0u64, 0u64);
    for equal in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let inside = equal.iter().filter(|&&image| is_of_class[image]).count() as u64;
        let outside = equal.len() as u64 - inside;
        doubled += inside * (2 * others + outside);
        of_class += inside;
        others += outside;
    }
    let pairs = of_class * others;
    (pairs > 0).then(|| doubled as f64 / (2 * pairs) as f64)
}

/// How far images lean to the second of two classes.
#[derive(Debug, Default)]
pub(super) struct Sides {
    leanings: Vec<f32>,
    is_second: Vec<bool>,
}

impl Sides {
    /// An image of `class` with a score for each class; nothing where there are not two.
    pub fn add(&mut self, class: usize, scores: &[f32]) {
        if let [first, second] = scores {
            self.leanings.push(second - first);
            self.is_second.push(class == 1);
        }
    }

    /// That of the probability of the second class.
    pub fn roc_auc(&self) -> Option<f64> {
        roc_auc(&self.leanings, &self.is_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_counted() {
        let right = [true, false, true, false];
        assert_eq!(roc_auc(&[0.9, 0.8, 0.7, 0.1], &right), Some(0.75));
        assert_eq!(roc_auc(&[0.5; 4], &right), Some(0.5));
        assert_eq!(roc_auc(&[0.1, 0.9, 0.1, 0.9], &right), Some(0.0));
        assert_eq!(roc_auc(&[0.1, 0.9], &[true, true]), None);
    }
}
