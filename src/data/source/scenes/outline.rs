//! Shapes as polygons: one way to paint them all, at any size.

use std::f32::consts::{PI, TAU};

use super::attribute::Shape;

/// A point: right, down.
pub type Point = (f32, f32);

/// Closed polygons in a frame where the shape fills about -1 to 1; a point is inside if a ray from it
/// crosses their edges an odd number of times, so a second polygon inside the first is a hole.
#[derive(Debug, Clone)]
pub struct Outline {
    pub contours: Vec<Vec<Point>>,
}

/// Edges of a full circle; smooth up to a few hundred pixels.
const CIRCLE_EDGES: usize = 32;

impl Outline {
    pub fn of(shape: Shape) -> Self {
        let contour = match shape {
            Shape::Circle => arc((0.0, 0.0), 0.95, 0.0, TAU),
            Shape::Square => vec![(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
            Shape::Triangle => vec![(0.0, -0.95), (1.0, 0.8), (-1.0, 0.8)],
            Shape::Star => star(),
            Shape::Cross => cross(),
            Shape::Ring => {
                let contours = vec![arc((0.0, 0.0), 0.98, 0.0, TAU), arc((0.0, 0.0), 0.5, 0.0, TAU)];
                return Outline { contours };
            }
            Shape::Heart => heart(),
            Shape::Diamond => vec![(0.0, -1.1), (0.68, 0.0), (0.0, 1.1), (-0.68, 0.0)],
            Shape::Crescent => crescent(),
            Shape::Arrow => {
                vec![
                    (-1.0, -0.28),
                    (0.1, -0.28),
                    (0.1, -0.8),
                    (1.0, 0.0),
                    (0.1, 0.8),
                    (0.1, 0.28),
                    (-1.0, 0.28),
                ]
            }
            Shape::Hourglass => vec![(-0.75, -1.0), (0.75, -1.0), (-0.75, 1.0), (0.75, 1.0)],
            Shape::Bar => vec![(-1.05, -0.32), (1.05, -0.32), (1.05, 0.32), (-1.05, 0.32)],
        };
        Outline { contours: vec![contour] }
    }
}

/// Points on a circle from one angle to another, clockwise on the screen; the last angle excluded.
fn arc(centre: Point, radius: f32, from: f32, to: f32) -> Vec<Point> {
    let steps = ((to - from).abs() / TAU * CIRCLE_EDGES as f32).ceil() as usize;
    let point = |step: usize| {
        let (sin, cos) = (from + (to - from) * step as f32 / steps as f32).sin_cos();
        (centre.0 + radius * cos, centre.1 + radius * sin)
    };
    (0..steps).map(point).collect()
}

/// Five points, the first one up.
fn star() -> Vec<Point> {
    let point = |tip: usize| {
        let radius = if tip.is_multiple_of(2) { 1.1 } else { 0.46 };
        let (sin, cos) = (tip as f32 * PI / 5.0 - PI / 2.0).sin_cos();
        (radius * cos, radius * sin + 0.08)
    };
    (0..10).map(point).collect()
}

fn cross() -> Vec<Point> {
    let (arm, half) = (1.0, 0.33);
    vec![
        (-half, -arm),
        (half, -arm),
        (half, -half),
        (arm, -half),
        (arm, half),
        (half, half),
        (half, arm),
        (-half, arm),
        (-half, half),
        (-arm, half),
        (-arm, -half),
        (-half, -half),
    ]
}

/// The well-known curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t.
fn heart() -> Vec<Point> {
    let point = |step: usize| {
        let t = step as f32 * TAU / CIRCLE_EDGES as f32;
        let y = 13.0 * t.cos() - 5.0 * (2.0 * t).cos() - 2.0 * (3.0 * t).cos() - (4.0 * t).cos();
        (t.sin().powi(3), -y / 16.0 - 0.12)
    };
    (0..CIRCLE_EDGES).map(point).collect()
}

/// A disc less a smaller one to its right, moved so that what is left is in the middle.
fn crescent() -> Vec<Point> {
    let (outer, inner, apart, shift) = (1.0f32, 0.82f32, 0.5f32, 0.2);
    // Where the two circles meet.
    let x = (outer * outer - inner * inner + apart * apart) / (2.0 * apart);
    let y = (outer * outer - x * x).sqrt();
    let (outer_angle, inner_angle) = (y.atan2(x), y.atan2(x - apart));
    let mut points = arc((shift, 0.0), outer, outer_angle, TAU - outer_angle);
    points.extend(arc((shift + apart, 0.0), inner, TAU - inner_angle, inner_angle));
    points
}
