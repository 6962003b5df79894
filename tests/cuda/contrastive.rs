use flip::kernel::backend::Memory;
use flip::kernel::contrastive::cuda::{add, add_scaled, finish, gradients, Place, Running};
use flip::kernel::contrastive::reference;
use flip::kernel::contrastive::tiles::Contrastive;
use flip::kernel::cuda::Gpu;

use crate::bound::*;
use crate::{down, each_gpu};

/// Unit vectors.
fn vectors(seed: u32, n: usize, width: usize) -> Vec<f32> {
    let mut z = numbers(seed, n * width);
    for row in z.chunks_mut(width) {
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter_mut().for_each(|x| *x /= length);
    }
    z
}

fn cosines(a: &[f32], b: &[f32], width: usize) -> Vec<f32> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    a.chunks(width).flat_map(|a| b.chunks(width).map(move |b| dot(a, b))).collect()
}

/// Log-sum-exp of the rows of a b^T, in tiles of `rows` and `columns`.
fn log_sum_exp<G: Gpu>(
    gpu: &G,
    a: &[f32],
    b: &[f32],
    width: usize,
    scale: f32,
    tile: (usize, usize),
) -> Vec<f32> {
    let mut all = Vec::new();
    for a in a.chunks(tile.0 * width) {
        let rows = a.len() / width;
        let mut largest = gpu.upload(&vec![f32::NEG_INFINITY; rows]).unwrap();
        let (mut sums, mut lse) = (gpu.zeros::<f64>(rows).unwrap(), gpu.zeros::<f32>(rows).unwrap());
        let mut running = Running { largest: gpu.view_mut(&mut largest), sums: gpu.view_mut(&mut sums) };
        for b in b.chunks(tile.1 * width) {
            let tile = gpu.upload(&cosines(a, b, width)).unwrap();
            add(gpu, &mut running, gpu.view(&tile), scale).unwrap();
        }
        finish(gpu, gpu.view_mut(&mut lse), &running).unwrap();
        all.extend(down(gpu, &lse));
    }
    all
}

/// The loss and every gradient, the products by hand.
fn against_reference<G: Gpu>(gpu: &G, n: usize, scale: f32, tile: (usize, usize)) {
    let width = 24;
    let (images, texts) = (vectors(1, n, width), vectors(2, n, width));
    let by_image = log_sum_exp(gpu, &images, &texts, width, scale, tile);
    let by_text = log_sum_exp(gpu, &texts, &images, width, scale, tile);
    let mut total = 0.0;
    for i in 0..n {
        let own = cosines(&images[i * width..][..width], &texts[i * width..][..width], width)[0];
        total += by_image[i] as f64 + by_text[i] as f64 - 2.0 * (scale * own) as f64;
    }
    let (loss, dimages, _, want_dscale) =
        reference::loss_and_gradients(&exact(&images), &exact(&texts), scale as f64, width);
    close::<f32>("loss", &[total / (2 * n) as f64], &[loss], 1, scale as f64);

    let mut of_images = vec![0.0f64; n * width];
    let mut of_scale = 0.0;
    for row in (0..n).step_by(tile.0) {
        let rows = tile.0.min(n - row);
        for column in (0..n).step_by(tile.1) {
            let columns = tile.1.min(n - column);
            let (a, b) =
                (&images[row * width..][..rows * width], &texts[column * width..][..columns * width]);
            let mut there = gpu.upload(&cosines(a, b, width)).unwrap();
            let mut dscale = gpu.zeros::<f64>(rows).unwrap();
            let row_lse = gpu.upload(&by_image[row..row + rows]).unwrap();
            let column_lse = gpu.upload(&by_text[column..column + columns]).unwrap();
            let lse = (gpu.view(&row_lse), gpu.view(&column_lse));
            let (to, sums) = (gpu.view_mut(&mut there), gpu.view_mut(&mut dscale));
            gradients(gpu, to, sums, lse, Place { row, column, pairs: n }, scale).unwrap();
            of_scale += down(gpu, &dscale).iter().sum::<f64>();
            for (i, g) in down(gpu, &there).chunks(columns).enumerate() {
                for (j, &g) in g.iter().enumerate() {
                    for c in 0..width {
                        of_images[(row + i) * width + c] += g as f64 * b[j * width + c] as f64;
                    }
                }
            }
        }
    }
    let steep = scale as f64 * size(&dimages, 1.0 / n as f64);
    close::<f32>("gradient of images", &of_images, &dimages, 1, steep);
    close::<f32>("gradient of the scale", &[of_scale], &[want_dscale], n, 1.0);
}

#[test]
fn tiles_of_every_shape() {
    each_gpu!(gpu => {
        for (n, tile) in [(1, (1, 1)), (2, (2, 1)), (9, (4, 9)), (63, (64, 64)), (70, (16, 33))] {
            for scale in [1.0, 100.0] {
                against_reference(gpu, n, scale, tile);
            }
        }
        against_reference(gpu, 300, 14.3, (300, 300));
    });
}

/// In tiles on a GPU, products and all.
fn whole_against_reference<G: Gpu>(gpu: &G, n: usize, scale: f32, tile: (usize, usize)) {
    let width = 24;
    let (images, texts) = (vectors(1, n, width), vectors(2, n, width));
    let (on_images, on_texts) = (gpu.upload(&images).unwrap(), gpu.upload(&texts).unwrap());
    let mut of_images = gpu.upload(&vec![f32::NAN; n * width]).unwrap();
    let mut of_texts = gpu.upload(&vec![f32::NAN; n * width]).unwrap();
    let mut loss = Contrastive::in_tiles(gpu, tile.0, tile.1).unwrap();
    // A smaller batch before it: its memory grows.
    for n in [n.div_ceil(2), n] {
        let to = (gpu.view_mut(&mut of_images), gpu.view_mut(&mut of_texts));
        let (mut to_images, mut to_texts) = to;
        let to = (to_images.part(0, n * width), to_texts.part(0, n * width));
        let from = (gpu.view(&on_images).part(0, n * width), gpu.view(&on_texts).part(0, n * width));
        let got = loss.loss_and_gradients(gpu, to, from, scale, width).unwrap();
        let pairs = |x: &[f32]| exact(&x[..n * width]);
        let (want, dimages, dtexts, dscale) =
            reference::loss_and_gradients(&pairs(&images), &pairs(&texts), scale as f64, width);
        close::<f32>("loss", &[got.loss], &[want], 1, scale as f64);
        close::<f32>("gradient of the scale", &[got.dscale], &[dscale], n, 1.0);
        for (what, got, want) in [("images", &of_images, dimages), ("texts", &of_texts, dtexts)] {
            let steep = scale as f64 * size(&want, 1.0 / n as f64);
            close::<f32>(&format!("gradient of {what}"), &pairs(&down(gpu, got)), &want, 1, steep);
        }
    }
}

#[test]
fn the_whole_loss_in_tiles_of_every_shape() {
    each_gpu!(gpu => {
        for (n, tile) in [(1, (1, 1)), (9, (4, 9)), (70, (16, 33)), (33, (2048, 4096))] {
            for scale in [1.0, 100.0] {
                whole_against_reference(gpu, n, scale, tile);
            }
        }
    });
}

#[test]
fn gradients_are_scaled() {
    let (to, from) = (numbers(1, 300), numbers(2, 300));
    each_gpu!(gpu => {
        let (mut on, of) = (gpu.upload(&to).unwrap(), gpu.upload(&from).unwrap());
        let factor = gpu.upload(&[0.75f32]).unwrap();
        add_scaled(gpu, gpu.view_mut(&mut on), gpu.view(&of), gpu.view(&factor)).unwrap();
        let want: Vec<f64> = to.iter().zip(&from).map(|(&x, &y)| x as f64 + 0.75 * y as f64).collect();
        close::<f32>("sum", &exact(&down(gpu, &on)), &want, 1, 1.0);
    });
}
