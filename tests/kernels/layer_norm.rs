use flip::kernel::element::{Bf16, Element};
use flip::kernel::layer_norm::{backward, forward, reference, Saved};
use flip::kernel::Cpu;

use super::bound::*;

const EPS: f32 = 1e-6;

fn against_reference<E: Element>(cpu: &Cpu, rows: usize, width: usize, magnitude: f32, offset: f32) {
    let x: Vec<f32> = numbers(1, rows * width).iter().map(|x| x * magnitude + offset).collect();
    let (scale, shift) = (numbers(2, width), numbers(3, width));
    let (mut y, mut normal, mut rstd) =
        (vec![E::default(); x.len()], vec![E::default(); x.len()], vec![0.0; rows]);
    forward(cpu, &mut y, &mut normal, &mut rstd, &x, &scale, &shift, EPS);
    let (x64, scale64, shift64) = (exact(&x), exact(&scale), exact(&shift));
    let want = reference::forward(&x64, &scale64, &shift64, EPS as f64);
    let what = format!("{:?} [{rows}, {width}] x {magnitude} + {offset}", cpu.isa());
    // The mean is subtracted from numbers that may be larger than what remains.
    let cancelled = 1.0 + (offset / magnitude) as f64;
    close::<E>(&format!("{what}: y"), &exact(&y), &want, 1, cancelled * size(&want, 1.0));

    let dy = stored::<E>(&numbers(4, rows * width));
    let around = numbers(5, rows * width);
    let (mut dx, mut rounded) = (around.clone(), vec![E::default(); dy.len()]);
    let (mut dscale, mut dshift) = (vec![0.5; width], vec![0.25; width]);
    let saved = Saved { normal: &normal, rstd: &rstd };
    backward(cpu, &mut dx, Some(&mut rounded), &mut dscale, &mut dshift, &dy, saved, &scale);
    let (mut wx, mut ws, mut wb) = reference::backward(&exact(&dy), &x64, &scale64, EPS as f64);
    // Terms of this size cancel in dx; for a width of 1 nothing is left of them.
    let steep = size(&exact(&rstd), 1.0);
    wx.iter_mut().zip(&around).for_each(|(w, &a)| *w += a as f64);
    ws.iter_mut().for_each(|w| *w += 0.5);
    wb.iter_mut().for_each(|w| *w += 0.25);
    close::<E>(&format!("{what}: dx"), &exact(&dx), &wx, 1, cancelled * steep);
    close::<E>(&format!("{what}: rounded"), &exact(&rounded), &wx, 1, cancelled * steep);
    close::<E>(&format!("{what}: dscale"), &exact(&dscale), &ws, rows, cancelled * size(&ws, 1.0));
    close::<f32>(&format!("{what}: dshift"), &exact(&dshift), &wb, rows, size(&wb, 1.0));
}

#[test]
fn every_width_and_instruction_set() {
    for cpu in processors() {
        for width in LENGTHS {
            for rows in [1, 33, 70].into_iter().take(sized(3, 2)) {
                against_reference::<f32>(&cpu, rows, width, 1.0, 0.0);
                against_reference::<Bf16>(&cpu, rows, width, 1.0, 0.0);
            }
        }
    }
}

#[test]
fn extreme_rows() {
    for cpu in processors() {
        for (magnitude, offset) in [(1e-8, 0.0), (1e15, 0.0), (1.0, 100.0)] {
            against_reference::<f32>(&cpu, 5, 63, magnitude, offset);
        }
        let (mut y, mut normal, mut rstd) = ([0.0f32; 9], [0.0f32; 9], [0.0]);
        forward(&cpu, &mut y, &mut normal, &mut rstd, &[3.0; 9], &[2.0; 9], &[0.5; 9], EPS);
        assert_eq!(y, [0.5; 9], "a constant row has no direction");
    }
}

#[test]
#[cfg_attr(miri, ignore = "arithmetic without unsafe code")]
fn reference_matches_finite_differences() {
    let (x, scale, shift, dy) =
        (exact(&numbers(1, 10)), exact(&numbers(2, 5)), exact(&numbers(3, 5)), exact(&numbers(4, 10)));
    let (dx, dscale, _) = reference::backward(&dy, &x, &scale, 1e-3);
    let value = |x: &[f64], scale: &[f64]| -> f64 {
        reference::forward(x, scale, &shift, 1e-3).iter().zip(&dy).map(|(a, b)| a * b).sum()
    };
    let numeric = |f: &dyn Fn(f64) -> f64| (f(1e-5) - f(-1e-5)) / 2e-5;
    for (i, dx) in dx.iter().enumerate() {
        let moved = |h: f64| {
            value(
                &x.iter().enumerate().map(|(j, x)| x + if i == j { h } else { 0.0 }).collect::<Vec<_>>(),
                &scale,
            )
        };
        assert!((numeric(&moved) - dx).abs() < 1e-7);
    }
    for (i, dscale) in dscale.iter().enumerate() {
        let moved = |h: f64| {
            value(
                &x,
                &scale.iter().enumerate().map(|(j, x)| x + if i == j { h } else { 0.0 }).collect::<Vec<_>>(),
            )
        };
        assert!((numeric(&moved) - dscale).abs() < 1e-7);
    }
}

#[test]
fn one_thread_and_two_agree_bit_by_bit() {
    let (rows, width) = (sized(197, 40), sized(63, 17));
    let (dy, normal) = (stored::<Bf16>(&numbers(1, rows * width)), stored::<Bf16>(&numbers(2, rows * width)));
    let (rstd, scale) = (vec![1.5; rows], numbers(3, width));
    let [one, two] = one_and_two().map(|cpu| {
        let (mut dx, mut dscale, mut dshift) = (numbers(4, rows * width), vec![0.0; width], vec![0.0; width]);
        let saved = Saved { normal: &normal, rstd: &rstd };
        backward(&cpu, &mut dx, None, &mut dscale, &mut dshift, &dy, saved, &scale);
        (dx, dscale, dshift)
    });
    assert_eq!(one, two);
}
