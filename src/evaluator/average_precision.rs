//! Average precision: how early the images of a class come when all are sorted by their score. Images of equal scores come
//! together, so that their order does not count.

/// The area under precision over recall as steps, as scikit-learn's `average_precision_score` and the PASCAL VOC challenge from
/// 2010 on have it. None where no image is of the class.
pub(super) fn average_precision(scores: &[f32], is_of_class: &[bool]) -> Option<f64> {
    let points = points(scores, is_of_class);
    let all = points.last()?.found as f64;
    let mut before = 0;
    let area = points.iter().map(|point| {
        let more = point.found - std::mem::replace(&mut before, point.found);
        more as f64 / all * point.precision()
    });
    (all > 0.0).then(|| area.sum())
}

/// The mean of the best precision at recalls of at least 0, 0.1, ..., 1: PASCAL VOC's measure of 2007, which the paper of CLIP
/// reports for that set.
pub(super) fn eleven_point(scores: &[f32], is_of_class: &[bool]) -> Option<f64> {
    let points = points(scores, is_of_class);
    let all = points.last()?.found;
    let best = |tenths: u64| {
        let there = points.iter().filter(|point| 10 * point.found >= tenths * all);
        there.map(Point::precision).fold(0.0, f64::max)
    };
    (all > 0).then(|| (0..=10).map(best).sum::<f64>() / 11.0)
}

/// The images whose score is at least that of one of them.
struct Point {
    /// Of the class.
    found: u64,
    taken: u64,
}

impl Point {
    fn precision(&self) -> f64 {
        self.found as f64 / self.taken as f64
    }
}

/// One for each score there is, from the highest.
fn points(scores: &[f32], is_of_class: &[bool]) -> Vec<Point> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let (mut points, mut found): (Vec<Point>, u64) = (Vec::new(), 0);
    for (taken, &image) in order.iter().enumerate() {
        found += u64::from(is_of_class[image]);
        let next = order.get(taken + 1);
        if next.is_none_or(|&next| scores[next] != scores[image]) {
            points.push(Point { found, taken: taken as u64 + 1 });
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_case_by_hand() {
        // Sorted: yes, no, yes, no: precision 1 at recall 0.5, 2/3 at 1.
        let (scores, right) = ([0.9, 0.8, 0.7, 0.1], [true, false, true, false]);
        assert_eq!(average_precision(&scores, &right), Some(0.5 + 0.5 * 2.0 / 3.0));
        let eleven = (6.0 + 5.0 * 2.0 / 3.0) / 11.0;
        assert!((eleven_point(&scores, &right).unwrap() - eleven).abs() < 1e-15);
        // Equal scores are one step, whatever their order.
        let equal = [0.5f32; 4];
        assert_eq!(average_precision(&equal, &right), Some(0.5));
        assert_eq!(eleven_point(&equal, &right), Some(0.5));
        assert_eq!(average_precision(&scores, &[false; 4]), None);
        assert_eq!(average_precision(&[], &[]), None);
    }
}
