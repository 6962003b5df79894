use flip::kernel::activation::Activation;
use flip::kernel::element::{Bf16, Element};
use flip::kernel::gemm::epilogue::{Activate, ActivateBackward, Add, Grid, Write};
use flip::kernel::gemm::{product, weight_gradient, Left, Packed, Right};
use flip::kernel::Cpu;

use super::bound::*;

/// Sums of |a| |b| grow with the length; a random walk of products of numbers below one does not.
fn product_f64(a: &[f64], b: &[f64], (m, k, n): (usize, usize, usize)) -> Vec<f64> {
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for p in 0..k {
            for j in 0..n {
                c[i * n + j] += a[i * k + p] * b[p * n + j];
            }
        }
    }
    c
}

fn transposed<T: Copy>(x: &[T], columns: usize) -> Vec<T> {
    (0..columns).flat_map(|j| x.iter().skip(j).step_by(columns).copied()).collect()
}

fn every_operand<E: Element>(cpu: &Cpu, (m, k, n): (usize, usize, usize)) {
    let (a, b) = (stored::<E>(&numbers(1, m * k)), stored::<E>(&numbers(2, k * n)));
    let bias = numbers(3, n);
    let mut want = product_f64(&exact(&a), &exact(&b), (m, k, n));
    want.iter_mut().enumerate().for_each(|(i, x)| *x += bias[i % n] as f64);
    let (at, bt) = (transposed(&a, k), transposed(&b, n));
    let b_f32: Vec<f32> = b.iter().map(|x| x.to_f32()).collect();
    let bt_f32: Vec<f32> = bt.iter().map(|x| x.to_f32()).collect();
    let (mut packed, mut turned) = (Packed::zeroed(cpu, k, n), Packed::zeroed(cpu, n, k));
    packed.pack(cpu, &b_f32);
    turned.pack(cpu, &bt_f32);
    let lefts = [
        ("rows", Left::whole(&a, k)),
        ("columns", Left::Columns { data: &at, stride: m }),
        (
            "scaled columns",
            Left::ScaledColumns { data: &at, stride: m, scale: &vec![1.0; m], shift: &vec![0.0; m] },
        ),
    ];
    let rights = [
        ("packed", Right::Packed(&packed)),
        ("packed transposed", Right::PackedTransposed(&turned)),
        ("rows", Right::Rows { data: &b, stride: n }),
        ("columns", Right::Columns { data: &bt, stride: k }),
    ];
    for (left_name, left) in lefts {
        for (right_name, right) in rights {
            let mut c = vec![f32::NAN; m * n];
            product(cpu, &Write { to: Grid::new(&mut c, n), bias: Some(&bias) }, left, right, (m, k, n));
            let what = format!("{:?}: {left_name} x {right_name} of {m} x {k} x {n}", cpu.isa());
            // Operands are exact, sums are f32.
            close::<f32>(&what, &exact(&c), &want, k, size(&want, 1.0));
        }
    }
}

#[test]
fn every_operand_on_every_instruction_set() {
    for cpu in processors() {
        for shape in [
            (1, 1, 1),
            (7, 9, 8),
            (13, 5, 33),
            (6, 64, 64),
            (13, 63, 65),
            (63, 7, 197),
            (197, 33, 130),
            (100, 8, 16),
        ]
        .into_iter()
        .take(sized(8, 3))
        {
            every_operand::<f32>(&cpu, shape);
            every_operand::<Bf16>(&cpu, shape);
        }
    }
}

#[test]
fn a_long_reduction_is_chunked() {
    for cpu in processors() {
        let (rows, k, n) = (3 * 1536 + 5, 7, 9);
        let (x, dy) = (stored::<Bf16>(&numbers(1, rows * k)), stored::<Bf16>(&numbers(2, rows * n)));
        let before = numbers(3, k * n);
        let (mut dw, mut db) = (before.clone(), vec![0.5f32; n]);
        weight_gradient(
            &cpu,
            &mut dw,
            Some(&mut db),
            Left::Columns { data: &x, stride: k },
            (&dy, n),
            (rows, k, n),
        );
        let xt = transposed(&exact(&x), k);
        let mut want = product_f64(&xt, &exact(&dy), (k, rows, n));
        want.iter_mut().zip(&before).for_each(|(w, &b)| *w += b as f64);
        close::<f32>("dw", &exact(&dw), &want, rows, size(&want, 1.0));
        let mut want = vec![0.5; n];
        exact(&dy).chunks(n).for_each(|row| want.iter_mut().zip(row).for_each(|(w, d)| *w += d));
        close::<f32>("db", &exact(&db), &want, rows, size(&want, 1.0));
    }
}

#[test]
fn scaled_columns_scale_and_shift() {
    for cpu in processors() {
        let (rows, k, n) = (9, 197, 7);
        let (x, dy) = (stored::<f32>(&numbers(1, rows * k)), stored::<f32>(&numbers(2, rows * n)));
        let (scale, shift) = (numbers(3, k), numbers(4, k));
        let mut dw = vec![0.0; k * n];
        let left = Left::ScaledColumns { data: &x, stride: k, scale: &scale, shift: &shift };
        weight_gradient(&cpu, &mut dw, None, left, (&dy, n), (rows, k, n));
        let scaled: Vec<f64> = (0..rows * k).map(|i| (x[i] * scale[i % k] + shift[i % k]) as f64).collect();
        let want = product_f64(&transposed(&scaled, k), &exact(&dy), (k, rows, n));
        close::<f32>("dw", &exact(&dw), &want, rows, size(&want, 1.0));
    }
}

fn epilogues<E: Element>(cpu: &Cpu, activation: Activation) {
    let (m, k, n) = (sized(13, 7), sized(8, 3), sized(71, 20));
    let (a, b) = (stored::<E>(&numbers(1, m * k)), stored::<E>(&numbers(2, k * n)));
    let right = Right::Rows { data: &b, stride: n };
    let sums = product_f64(&exact(&a), &exact(&b), (m, k, n));
    let bias = numbers(3, n);

    let before = numbers(4, m * n);
    let mut to = before.clone();
    product(cpu, &Add { to: Grid::new(&mut to, n), bias: Some(&bias) }, Left::whole(&a, k), right, (m, k, n));
    let want: Vec<f64> = (0..m * n).map(|i| before[i] as f64 + sums[i] + bias[i % n] as f64).collect();
    close::<f32>("add", &exact(&to), &want, k, size(&want, 1.0));

    let (mut x, mut y) = (vec![E::default(); m * n], vec![E::default(); m * n]);
    let to = Activate { before: Grid::new(&mut x, n), after: Grid::new(&mut y, n), bias: &bias, activation };
    product(cpu, &to, Left::whole(&a, k), right, (m, k, n));
    let want: Vec<f64> = (0..m * n).map(|i| sums[i] + bias[i % n] as f64).collect();
    close::<E>("before", &exact(&x), &want, 1, size(&want, 1.0));
    let want: Vec<f64> = want.iter().map(|&x| activation.value_and_slope(x).0).collect();
    close::<E>("after", &exact(&y), &want, k, size(&want, 1.0));

    let curve: Vec<(f64, f64)> = exact(&x).into_iter().map(|x| activation.value_and_slope(x)).collect();
    let mut gradient = vec![E::default(); m * n];
    let to =
        ActivateBackward { before: Grid::new(&mut x, n), gradient: Grid::new(&mut gradient, n), activation };
    product(cpu, &to, Left::whole(&a, k), right, (m, k, n));
    let want: Vec<f64> = curve.iter().map(|c| c.0).collect();
    close::<E>("activation anew", &exact(&x), &want, 1, size(&want, 1.0));
    let want: Vec<f64> = curve.iter().zip(&sums).map(|(c, s)| c.1 * s).collect();
    close::<E>("gradient", &exact(&gradient), &want, k, size(&want, 1.0));
}

#[test]
fn what_follows_a_product() {
    for cpu in processors() {
        let activations = [Activation::GeluTanh, Activation::GeluExact, Activation::QuickGelu];
        for activation in activations.into_iter().take(sized(3, 1)) {
            epilogues::<f32>(&cpu, activation);
            epilogues::<Bf16>(&cpu, activation);
        }
    }
}

#[test]
fn extreme_magnitudes_stay_exact() {
    for cpu in processors() {
        for (large, small) in [(1e30f32, 1e-30f32), (1e-18, 1e-18), (3e38, 1e-3)] {
            let (a, b) = (vec![large; 9 * 2], vec![small; 2 * 7]);
            let mut c = vec![0.0f32; 9 * 7];
            let right = Right::Rows { data: &b, stride: 7 };
            product(
                &cpu,
                &Write { to: Grid::new(&mut c, 7), bias: None },
                Left::whole(&a, 2),
                right,
                (9, 2, 7),
            );
            let want = 2.0 * large as f64 * small as f64;
            close::<f32>("extremes", &exact(&c), &vec![want; 63], 2, want);
        }
    }
}

#[test]
fn one_thread_and_two_agree_bit_by_bit() {
    let (m, k, n) = (sized(197, 33), sized(100, 20), sized(333, 70));
    let (a, dy) = (stored::<Bf16>(&numbers(1, m * k)), stored::<Bf16>(&numbers(2, m * n)));
    let [one, two] = one_and_two().map(|cpu| {
        let mut weight = Packed::<Bf16>::zeroed(&cpu, k, n);
        weight.pack(&cpu, &numbers(3, k * n));
        let (mut y, mut dw, mut db) = (vec![0.0f32; m * n], vec![0.0f32; k * n], vec![0.0f32; n]);
        let to = Write { to: Grid::new(&mut y, n), bias: None };
        product(&cpu, &to, Left::whole(&a, k), Right::Packed(&weight), (m, k, n));
        let x = Left::Columns { data: &a, stride: k };
        weight_gradient(&cpu, &mut dw, Some(&mut db), x, (&dy, n), (m, k, n));
        (y, dw, db)
    });
    assert_eq!(one, two);
}
