use flip::kernel::activation::Activation;
use flip::kernel::backend::Memory;
use flip::kernel::element::Bf16;
use flip::kernel::gemm::cuda::{
    activate, activate_backward, add, add_product, backward, forward, forward_bias, partial_len, product,
    weight_gradient, Matrix, Weight,
};

use crate::bound::*;
use crate::{down, each_gpu_and_plain};

/// (rows, in, out): one of everything, more than one part of rows, no power of two.
const SIZES: [(usize, usize, usize); 4] = [(1, 8, 8), (7, 24, 40), (130, 16, 24), (257, 40, 72)];

/// [m, n] = left [m, k] right [k, n].
fn times(left: &[f64], right: &[f64], (m, k, n): (usize, usize, usize)) -> Vec<f64> {
    assert!(left.len() == m * k && right.len() == k * n);
    let rows = left.chunks(k).flat_map(|left| (0..n).map(move |j| (left, j)));
    rows.map(|(left, j)| left.iter().zip(right.chunks(n)).map(|(x, row)| x * row[j]).sum()).collect()
}

fn across(x: &[f64], width: usize) -> Vec<f64> {
    (0..width).flat_map(|j| x.chunks(width).map(move |row| row[j])).collect()
}

fn column_sums(x: &[f64], width: usize) -> Vec<f64> {
    (0..width).map(|j| x.chunks(width).map(|row| row[j]).sum()).collect()
}

#[test]
fn linear_layers_forward_and_backward() {
    each_gpu_and_plain!(gpu => {
        for (rows, k, n) in SIZES {
            let (x, w, b) = (stored::<Bf16>(&numbers(1, rows * k)), stored::<Bf16>(&numbers(2, k * n)), numbers(3, n));
            let (half_bias, dy) = (stored::<Bf16>(&b), stored::<Bf16>(&numbers(4, rows * n)));
            let up = |values: &[Bf16]| gpu.upload(values).unwrap();
            let (on_x, on_w, on_dy, on_half) = (up(&x), up(&w), up(&dy), up(&half_bias));
            let on_b = gpu.upload(&b).unwrap();
            let weight = Weight { values: gpu.view(&on_w), k, n };
            let (x, w, dy) = (exact(&x), exact(&w), exact(&dy));
            let plain = times(&x, &w, (rows, k, n));
            let with = |bias: &[f64]| -> Vec<f64> {
                plain.chunks(n).flat_map(|row| row.iter().zip(bias).map(|(x, b)| x + b)).collect()
            };

            let mut y = gpu.zeros::<f32>(rows * n).unwrap();
            forward(gpu, gpu.view_mut(&mut y), gpu.view(&on_x), weight).unwrap();
            close::<f32>("without a bias", &exact(&down(gpu, &y)), &plain, k, 1.0);

            let mut y = gpu.zeros::<Bf16>(rows * n).unwrap();
            let to = gpu.view_mut(&mut y);
            forward_bias(gpu, to, gpu.view(&on_x), weight, gpu.view(&on_half)).unwrap();
            let want = with(&exact(&half_bias));
            close::<Bf16>("with a bias", &exact(&down(gpu, &y)), &want, 1, size(&want, 1.0));

            let around = numbers(5, rows * n);
            let mut y = gpu.upload(&around).unwrap();
            add(gpu, gpu.view_mut(&mut y), gpu.view(&on_x), weight, gpu.view(&on_b)).unwrap();
            let want: Vec<f64> = with(&exact(&b)).iter().zip(&around).map(|(x, &a)| x + a as f64).collect();
            close::<f32>("added to the stream", &exact(&down(gpu, &y)), &want, k, 2.0);

            let mut dx = gpu.zeros::<Bf16>(rows * k).unwrap();
            backward(gpu, gpu.view_mut(&mut dx), gpu.view(&on_dy), weight).unwrap();
            let want = times(&dy, &across(&w, n), (rows, n, k));
            close::<Bf16>("dx", &exact(&down(gpu, &dx)), &want, 1, size(&want, 1.0));

            let (mut dw, mut db) = (gpu.upload(&vec![0.5; k * n]).unwrap(), gpu.upload(&vec![0.25; n]).unwrap());
            let mut partial = gpu.zeros::<f32>(partial_len(rows, n)).unwrap();
            let (to, to_bias) = (gpu.view_mut(&mut dw), gpu.view_mut(&mut db));
            let of = ((gpu.view(&on_x), k), (gpu.view(&on_dy), n));
            weight_gradient(gpu, to, Some(to_bias), gpu.view_mut(&mut partial), of.0, of.1).unwrap();
            let want: Vec<f64> = times(&across(&x, k), &dy, (k, rows, n)).iter().map(|x| x + 0.5).collect();
            close::<f32>("dw", &exact(&down(gpu, &dw)), &want, rows, size(&want, 1.0));
            let want: Vec<f64> = column_sums(&dy, n).iter().map(|x| x + 0.25).collect();
            close::<f32>("db", &exact(&down(gpu, &db)), &want, rows, size(&want, 1.0));
            let (to, scratch) = (gpu.view_mut(&mut dw), gpu.view_mut(&mut partial));
            weight_gradient(gpu, to, None, scratch, of.0, of.1).unwrap();
            let want: Vec<f64> = times(&across(&x, k), &dy, (k, rows, n)).iter().map(|x| 2.0 * x + 0.5).collect();
            close::<f32>("dw, twice", &exact(&down(gpu, &dw)), &want, rows, size(&want, 1.0));
            let want: Vec<f64> = column_sums(&dy, n).iter().map(|x| x + 0.25).collect();
            close::<f32>("db, once", &exact(&down(gpu, &db)), &want, rows, size(&want, 1.0));
        }
    });
}

#[test]
fn activations_after_products_and_before_them() {
    each_gpu_and_plain!(gpu => {
        for activation in [Activation::GeluTanh, Activation::GeluExact, Activation::QuickGelu] {
            // Sizes that the reference, an integral for each number, is done with in time.
            for (rows, k, n) in SIZES.into_iter().filter(|(rows, _, n)| rows * n < 5000) {
                let (x, w) = (stored::<Bf16>(&numbers(1, rows * k)), stored::<Bf16>(&numbers(2, k * n)));
                let (b, dy) = (stored::<Bf16>(&numbers(3, n)), stored::<Bf16>(&numbers(4, rows * k)));
                let up = |values: &[Bf16]| gpu.upload(values).unwrap();
                let (on_x, on_w, on_b, on_dy) = (up(&x), up(&w), up(&b), up(&dy));
                let zeros = || gpu.zeros::<Bf16>(rows * n).unwrap();
                let (mut after, mut before) = (zeros(), zeros());
                let to = (gpu.view_mut(&mut after), gpu.view_mut(&mut before));
                let weight = Weight { values: gpu.view(&on_w), k, n };
                activate(gpu, to, gpu.view(&on_x), weight, gpu.view(&on_b), activation).unwrap();
                let (x, w, b, dy) = (exact(&x), exact(&w), exact(&b), exact(&dy));
                let want: Vec<f64> = times(&x, &w, (rows, k, n))
                    .chunks(n)
                    .flat_map(|row| row.iter().zip(&b).map(|(x, b)| x + b).collect::<Vec<_>>())
                    .collect();
                let largest = size(&want, 1.0);
                close::<Bf16>("before", &exact(&down(gpu, &before)), &want, 1, largest);
                let curve = |x: f64| activation.value_and_slope(x);
                let active: Vec<f64> = want.iter().map(|&x| curve(x).0).collect();
                close::<Bf16>("after", &exact(&down(gpu, &after)), &active, 1, largest);

                // Backward, through another layer: gradient [rows, n] = (dy [rows, k] weight2^T) f'(before).
                let of_next = stored::<Bf16>(&numbers(5, n * k));
                let on_next = up(&of_next);
                let next = Weight { values: gpu.view(&on_next), k: n, n: k };
                let had = exact(&down(gpu, &before));
                let mut gradient = zeros();
                let to = (gpu.view_mut(&mut gradient), gpu.view_mut(&mut before));
                activate_backward(gpu, to, gpu.view(&on_dy), next, activation).unwrap();
                let through = times(&dy, &across(&exact(&of_next), k), (rows, k, n));
                let want: Vec<f64> = through.iter().zip(&had).map(|(d, &x)| d * curve(x).1).collect();
                close::<Bf16>("gradient", &exact(&down(gpu, &gradient)), &want, 1, size(&through, 1.0));
                let want: Vec<f64> = had.iter().map(|&x| curve(x).0).collect();
                close::<Bf16>("after, anew", &exact(&down(gpu, &before)), &want, 1, largest);
            }
        }
    });
}

#[test]
fn products_of_floats_with_gaps_and_transposes() {
    each_gpu_and_plain!(gpu => {
        // Every third row of 5 as the right side, [4, 5]; the left side [4, 3] transposed.
        let (left, right) = (numbers(1, 12), numbers(2, 60));
        let (on_left, on_right) = (gpu.upload(&left).unwrap(), gpu.upload(&right).unwrap());
        let mut to = gpu.zeros::<f32>(15).unwrap();
        let a = Matrix::columns(gpu.view(&on_left), 3);
        let b = Matrix { values: gpu.view(&on_right), stride: 15, transposed: false };
        product(gpu, gpu.view_mut(&mut to), a, b, (3, 4, 5)).unwrap();
        let picked: Vec<f64> = exact(&right).chunks(15).flat_map(|rows| rows[..5].to_vec()).collect();
        let want = times(&across(&exact(&left), 3), &picked, (3, 4, 5));
        close::<f32>("product", &exact(&down(gpu, &to)), &want, 4, 1.0);
        add_product(gpu, gpu.view_mut(&mut to), a, b, (3, 4, 5)).unwrap();
        let twice: Vec<f64> = want.iter().map(|x| 2.0 * x).collect();
        close::<f32>("added product", &exact(&down(gpu, &to)), &twice, 4, 2.0);
    });
}
