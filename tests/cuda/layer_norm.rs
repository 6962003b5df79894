use flip::kernel::cuda::Machine;
use flip::kernel::element::Bf16;
use flip::kernel::layer_norm::cuda::{again, backward, forward, in_place, partial_len, PART};
use flip::kernel::layer_norm::reference;

use crate::bound::*;
use crate::{down, each_machine};

const EPS: f32 = 1e-6;

fn against_reference<M: Machine>(machine: &M, rows: usize, width: usize) {
    let n = rows * width;
    let (x, scale, shift) = (numbers(1, n), numbers(2, width), numbers(3, width));
    let up = |values: &[f32]| machine.upload(values).unwrap();
    let (dx_scale, dx_shift) = (up(&scale), up(&shift));
    let device_x = up(&x);
    let mut y = machine.zeros::<Bf16>(n).unwrap();
    let mut normal = machine.zeros::<Bf16>(n).unwrap();
    let mut rstd = machine.zeros::<f32>(rows).unwrap();
    forward(
        machine,
        machine.view_mut(&mut y),
        machine.view_mut(&mut normal),
        machine.view_mut(&mut rstd),
        machine.view(&device_x),
        machine.view(&dx_scale),
        machine.view(&dx_shift),
        EPS,
    )
    .unwrap();
    let (x64, scale64, shift64) = (exact(&x), exact(&scale), exact(&shift));
    let want = reference::forward(&x64, &scale64, &shift64, EPS as f64);
    close::<Bf16>(&format!("[{rows}, {width}]: y"), &exact(&down(machine, &y)), &want, 1, size(&want, 1.0));

    let mut same = machine.upload(&x).unwrap();
    let (mut same_normal, mut same_rstd) =
        (machine.zeros::<Bf16>(n).unwrap(), machine.zeros::<f32>(rows).unwrap());
    let saved = (machine.view_mut(&mut same_normal), machine.view_mut(&mut same_rstd));
    let parameters = (machine.view(&dx_scale), machine.view(&dx_shift));
    let to = machine.view_mut(&mut same);
    in_place(machine, to, saved.0, saved.1, parameters.0, parameters.1, EPS).unwrap();
    let steepest = size(&exact(&down(machine, &rstd)), 1.0);
    close::<f32>("in place", &exact(&down(machine, &same)), &want, width, steepest);
    assert_eq!(down(machine, &same_normal), down(machine, &normal));
    let mut once_more = machine.zeros::<Bf16>(n).unwrap();
    let to = machine.view_mut(&mut once_more);
    again(machine, to, machine.view(&normal), parameters.0, parameters.1).unwrap();
    close::<Bf16>("y, again", &exact(&down(machine, &once_more)), &want, 1, size(&want, 2.0));

    let dy = stored::<Bf16>(&numbers(4, n));
    let around = numbers(5, n);
    let (mut dx, device_dy) = (up(&around), machine.upload(&dy).unwrap());
    let mut copy = machine.zeros::<Bf16>(n).unwrap();
    let (mut dscale, mut dshift) = (up(&vec![0.5; width]), up(&vec![0.25; width]));
    let mut partial = machine.zeros::<f32>(partial_len(rows, width)).unwrap();
    backward(
        machine,
        machine.view_mut(&mut dx),
        Some(machine.view_mut(&mut copy)),
        machine.view_mut(&mut dscale),
        machine.view_mut(&mut dshift),
        machine.view_mut(&mut partial),
        machine.view(&device_dy),
        (machine.view(&normal), machine.view(&rstd)),
        machine.view(&dx_scale),
    )
    .unwrap();
    let (mut wx, mut ws, mut wb) = reference::backward(&exact(&dy), &x64, &scale64, EPS as f64);
    wx.iter_mut().zip(&around).for_each(|(w, &a)| *w += a as f64);
    ws.iter_mut().for_each(|w| *w += 0.5);
    wb.iter_mut().for_each(|w| *w += 0.25);
    let steep = size(&exact(&down(machine, &rstd)), 1.0);
    let dx = down(machine, &dx);
    close::<Bf16>("dx", &exact(&dx), &wx, 1, steep);
    assert_eq!(down(machine, &copy), stored::<Bf16>(&dx), "a rounded copy of dx");
    close::<Bf16>("dscale", &exact(&down(machine, &dscale)), &ws, rows, size(&ws, 1.0));
    close::<f32>("dshift", &exact(&down(machine, &dshift)), &wb, rows, size(&wb, 1.0));
}

#[test]
fn every_width_and_every_part_of_rows() {
    each_machine!(machine => {
        for (rows, width) in [(1, 2), (7, 8), (9, 64), (33, 66), (PART, 30), (PART + 1, 198), (3, 768)] {
            against_reference(machine, rows, width);
        }
    });
}
