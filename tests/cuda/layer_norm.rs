use flip::kernel::cuda::Gpu;
use flip::kernel::element::Bf16;
use flip::kernel::layer_norm::cuda::{again, backward, forward, in_place, partial_len, PART};
use flip::kernel::layer_norm::reference;

use crate::bound::*;
use crate::{down, each_gpu};

const EPS: f32 = 1e-6;

fn against_reference<G: Gpu>(gpu: &G, rows: usize, width: usize) {
    let n = rows * width;
    let (x, scale, shift) = (numbers(1, n), numbers(2, width), numbers(3, width));
    let up = |values: &[f32]| gpu.upload(values).unwrap();
    let (dx_scale, dx_shift) = (up(&scale), up(&shift));
    let device_x = up(&x);
    let mut y = gpu.zeros::<Bf16>(n).unwrap();
    let mut normal = gpu.zeros::<Bf16>(n).unwrap();
    let mut rstd = gpu.zeros::<f32>(rows).unwrap();
    forward(
        gpu,
        gpu.view_mut(&mut y),
        gpu.view_mut(&mut normal),
        gpu.view_mut(&mut rstd),
        gpu.view(&device_x),
        gpu.view(&dx_scale),
        gpu.view(&dx_shift),
        EPS,
    )
    .unwrap();
    let (x64, scale64, shift64) = (exact(&x), exact(&scale), exact(&shift));
    let want = reference::forward(&x64, &scale64, &shift64, EPS as f64);
    close::<Bf16>(&format!("[{rows}, {width}]: y"), &exact(&down(gpu, &y)), &want, 1, size(&want, 1.0));

    let mut same = gpu.upload(&x).unwrap();
    let (mut same_normal, mut same_rstd) = (gpu.zeros::<Bf16>(n).unwrap(), gpu.zeros::<f32>(rows).unwrap());
    let saved = (gpu.view_mut(&mut same_normal), gpu.view_mut(&mut same_rstd));
    let parameters = (gpu.view(&dx_scale), gpu.view(&dx_shift));
    let to = gpu.view_mut(&mut same);
    in_place(gpu, to, saved.0, saved.1, parameters.0, parameters.1, EPS).unwrap();
    let steepest = size(&exact(&down(gpu, &rstd)), 1.0);
    close::<f32>("in place", &exact(&down(gpu, &same)), &want, width, steepest);
    assert_eq!(down(gpu, &same_normal), down(gpu, &normal));
    let mut once_more = gpu.zeros::<Bf16>(n).unwrap();
    let to = gpu.view_mut(&mut once_more);
    again(gpu, to, gpu.view(&normal), parameters.0, parameters.1).unwrap();
    close::<Bf16>("y, again", &exact(&down(gpu, &once_more)), &want, 1, size(&want, 2.0));

    let dy = stored::<Bf16>(&numbers(4, n));
    let around = numbers(5, n);
    let (mut dx, device_dy) = (up(&around), gpu.upload(&dy).unwrap());
    let mut copy = gpu.zeros::<Bf16>(n).unwrap();
    let (mut dscale, mut dshift) = (up(&vec![0.5; width]), up(&vec![0.25; width]));
    let mut partial = gpu.zeros::<f32>(partial_len(rows, width)).unwrap();
    backward(
        gpu,
        gpu.view_mut(&mut dx),
        Some(gpu.view_mut(&mut copy)),
        gpu.view_mut(&mut dscale),
        gpu.view_mut(&mut dshift),
        gpu.view_mut(&mut partial),
        gpu.view(&device_dy),
        (gpu.view(&normal), gpu.view(&rstd)),
        gpu.view(&dx_scale),
    )
    .unwrap();
    let (mut wx, mut ws, mut wb) = reference::backward(&exact(&dy), &x64, &scale64, EPS as f64);
    wx.iter_mut().zip(&around).for_each(|(w, &a)| *w += a as f64);
    ws.iter_mut().for_each(|w| *w += 0.5);
    wb.iter_mut().for_each(|w| *w += 0.25);
    let steep = size(&exact(&down(gpu, &rstd)), 1.0);
    let dx = down(gpu, &dx);
    close::<Bf16>("dx", &exact(&dx), &wx, 1, steep);
    assert_eq!(down(gpu, &copy), stored::<Bf16>(&dx), "a rounded copy of dx");
    close::<Bf16>("dscale", &exact(&down(gpu, &dscale)), &ws, rows, size(&ws, 1.0));
    close::<f32>("dshift", &exact(&down(gpu, &dshift)), &wb, rows, size(&wb, 1.0));
}

#[test]
fn every_width_and_every_part_of_rows() {
    each_gpu!(gpu => {
        for (rows, width) in [(1, 2), (7, 8), (9, 64), (33, 66), (PART, 30), (PART + 1, 198), (3, 768)] {
            against_reference(gpu, rows, width);
        }
    });
}
