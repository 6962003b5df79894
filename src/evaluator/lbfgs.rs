//! Minimises a smooth function by L-BFGS with a line search that satisfies the strong Wolfe conditions
//! (Nocedal and Wright, Numerical Optimization, algorithms 7.4, 3.5 and 3.6).
//!
//! The function may be rounded to 32 bits. Near the minimum its values then say nothing, while its gradient
//! still does: a step that leaves the value as it is, but for rounding, is judged by the slope alone (the
//! approximate Wolfe conditions of Hager and Zhang, SIAM J. Optim. 16, 2005).

use std::collections::VecDeque;

/// Steps that the curvature is estimated from.
const HISTORY: usize = 10;
/// Sufficient decrease and curvature of a line search.
const DECREASE: f64 = 1e-4;
const CURVATURE: f64 = 0.9;
/// Values that differ by less, as a share of the value, may differ by rounding alone.
const ROUNDING: f64 = 1e-6;
/// Slope, as a share of that at the beginning, that a step judged by its slope must reach.
const FLAT: f64 = 0.8;
/// Evaluations of a line search.
const TRIES: usize = 20;

/// A minimum, or where the search ended.
#[derive(Debug, Clone)]
pub(super) struct Minimum {
    pub at: Vec<f64>,
    pub iterations: usize,
}

/// A point, its value and its gradient.
#[derive(Debug, Clone)]
struct Point {
    at: Vec<f64>,
    value: f64,
    gradient: Vec<f64>,
}

/// Searches from `start` until no component of the gradient exceeds `tolerance`, for at most `iterations`
/// steps. `function` writes the gradient at its first argument into its second and returns the value. Ends
/// early where rounding hides any further decrease, and when `stop` says so.
pub(super) fn minimise(
    mut function: impl FnMut(&[f64], &mut [f64]) -> f64,
    start: Vec<f64>,
    tolerance: f64,
    iterations: usize,
    stop: impl Fn() -> bool,
) -> Minimum {
    let mut gradient = vec![0.0; start.len()];
    let value = function(&start, &mut gradient);
    let mut here = Point { at: start, value, gradient };
    // (step, change of the gradient, 1 / their product), the newest last.
    let mut history: VecDeque<(Vec<f64>, Vec<f64>, f64)> = VecDeque::new();
    for iteration in 0..iterations {
        if stop() || here.gradient.iter().all(|g| g.abs() <= tolerance) {
            return Minimum { at: here.at, iterations: iteration };
        }
        let mut direction = direction(&here.gradient, &history);
        if dot(&direction, &here.gradient) >= 0.0 {
            // Rounding has spoiled the estimate: down the gradient, and begin again.
            history.clear();
            direction = here.gradient.iter().map(|g| -g).collect();
        }
        let first = match history.is_empty() {
            true => (1.0 / dot(&direction, &direction).sqrt()).min(1.0),
            false => 1.0,
        };
        let Some(next) = search(&mut function, &here, &direction, first) else {
            return Minimum { at: here.at, iterations: iteration };
        };
        let step: Vec<f64> = next.at.iter().zip(&here.at).map(|(a, b)| a - b).collect();
        let change: Vec<f64> = next.gradient.iter().zip(&here.gradient).map(|(a, b)| a - b).collect();
        let product = dot(&step, &change);
        if product > f64::EPSILON * dot(&change, &change) {
            if history.len() == HISTORY {
                history.pop_front();
            }
            history.push_back((step, change, 1.0 / product));
        }
        here = next;
    }
    Minimum { at: here.at, iterations }
}

/// Minus the estimated inverse Hessian times the gradient.
fn direction(gradient: &[f64], history: &VecDeque<(Vec<f64>, Vec<f64>, f64)>) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut alphas = Vec::with_capacity(history.len());
    for (step, change, inverse) in history.iter().rev() {
        let alpha = inverse * dot(step, &q);
        add(&mut q, -alpha, change);
        alphas.push(alpha);
    }
    if let Some((_, change, inverse)) = history.back() {
        let scale = 1.0 / (inverse * dot(change, change));
        q.iter_mut().for_each(|q| *q *= scale);
    }
    for ((step, change, inverse), alpha) in history.iter().zip(alphas.iter().rev()) {
        let beta = inverse * dot(change, &q);
        add(&mut q, alpha - beta, step);
    }
    q
}

/// A point along `direction` that satisfies the strong Wolfe conditions, or at least decreases enough; none
/// where nothing decreases.
fn search(
    function: &mut impl FnMut(&[f64], &mut [f64]) -> f64,
    from: &Point,
    direction: &[f64],
    first: f64,
) -> Option<Point> {
    let slope = dot(&from.gradient, direction);
    let mut at = |length: f64| {
        let mut place = from.at.clone();
        add(&mut place, length, direction);
        let mut gradient = vec![0.0; place.len()];
        let value = function(&place, &mut gradient);
        let slope = dot(&gradient, direction);
        (Point { at: place, value, gradient }, slope)
    };
    // The best end of the bracket, and the other one where there is one: (length, value, slope).
    let mut low = (0.0, from.value, slope);
    let mut high: Option<(f64, f64, f64)> = None;
    let mut length = first;
    let mut accepted = None;
    for _ in 0..TRIES {
        let (point, slope_there) = at(length);
        let there = (length, point.value, slope_there);
        let same = point.value <= from.value + ROUNDING * from.value.abs();
        if same && slope_there.abs() <= -FLAT * slope {
            return Some(point);
        }
        let enough = point.value <= from.value + DECREASE * length * slope;
        if !enough || point.value >= low.1 && low.0 > 0.0 || !point.value.is_finite() {
            high = Some(there);
        } else {
            if slope_there.abs() <= -CURVATURE * slope {
                return Some(point);
            }
            accepted = Some(point);
            let beyond = match high {
                None => slope_there >= 0.0,
                Some(high) => slope_there * (high.0 - low.0) >= 0.0,
            };
            if beyond {
                high = Some(low);
            }
            low = there;
        }
        length = match high {
            None => 2.0 * length,
            Some(high) => between(low, high),
        };
        if high.is_some_and(|high| (high.0 - low.0).abs() <= f64::EPSILON * low.0.abs().max(1e-12)) {
            break;
        }
    }
    accepted
}

/// Minimum of the cubic through both ends, kept away from the ends.
fn between(low: (f64, f64, f64), high: (f64, f64, f64)) -> f64 {
    let width = high.0 - low.0;
    let d1 = low.2 + high.2 - 3.0 * (low.1 - high.1) / (low.0 - high.0);
    let square = d1 * d1 - low.2 * high.2;
    let middle = low.0 + 0.5 * width;
    // Not a number as well.
    if square.is_nan() || square < 0.0 {
        return middle;
    }
    let d2 = square.sqrt() * width.signum();
    let least = high.0 - width * (high.2 + d2 - d1) / (high.2 - low.2 + 2.0 * d2);
    let (from, to) = (low.0 + 0.1 * width, low.0 + 0.9 * width);
    if least.is_finite() {
        least.clamp(from.min(to), from.max(to))
    } else {
        middle
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f64], factor: f64, what: &[f64]) {
    to.iter_mut().zip(what).for_each(|(to, what)| *to += factor * what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_minimum_of_a_curved_valley() {
        // Rosenbrock in ten dimensions: the minimum is all ones.
        let function = |x: &[f64], gradient: &mut [f64]| {
            gradient.fill(0.0);
            let mut value = 0.0;
            for i in 0..x.len() - 1 {
                let (a, b) = (1.0 - x[i], x[i + 1] - x[i] * x[i]);
                value += a * a + 100.0 * b * b;
                gradient[i] += -2.0 * a - 400.0 * b * x[i];
                gradient[i + 1] += 200.0 * b;
            }
            value
        };
        let found = minimise(function, vec![-1.2; 10], 1e-9, 500, || false);
        assert!(found.at.iter().all(|x| (x - 1.0).abs() < 1e-7), "{found:?}");
        assert!(found.iterations < 200, "{}", found.iterations);
    }

    #[test]
    fn an_ill_conditioned_quadratic_is_no_obstacle_and_a_minimum_stays() {
        let scales: Vec<f64> = (0..40).map(|i| 10f64.powf(i as f64 / 10.0)).collect();
        let function = |x: &[f64], gradient: &mut [f64]| {
            gradient.iter_mut().zip(x.iter().zip(&scales)).for_each(|(g, (x, s))| *g = s * x);
            0.5 * dot(x, gradient)
        };
        let found = minimise(function, vec![1.0; 40], 1e-9, 1000, || false);
        assert!(found.at.iter().all(|x| x.abs() < 1e-6), "{found:?}");
        assert_eq!(minimise(function, vec![0.0; 40], 1e-9, 10, || false).iterations, 0);
    }
}
