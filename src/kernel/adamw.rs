//! AdamW (Loshchilov and Hutter, arXiv 1711.05101) as optax's `adamw` computes it:
//! m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; p -= lr (m' / (sqrt(v') + eps) + decay p) with
//! m' = m / (1 - b1^t), v' = v / (1 - b2^t).

pub mod cuda;

use super::isa::dispatch;
use super::lanes::Lanes;
use super::Cpu;

/// One update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    /// Decoupled weight decay, per unit of learning rate; zero for parameters that are not decayed.
    pub decay: f64,
    /// Number of this update, from 1.
    pub t: u64,
    /// Factor on every gradient: 1, or what clipping leaves of it.
    pub gradient: f64,
}

/// The update's constants in f32.
#[derive(Clone, Copy)]
struct Constants {
    gradient: f32,
    keep_m: f32,
    add_m: f32,
    keep_v: f32,
    add_v: f32,
    /// lr / (1 - b1^t).
    step: f32,
    /// 1 / sqrt(1 - b2^t).
    root: f32,
    eps: f32,
}

impl AdamW {
    fn constants(&self) -> Constants {
        let t = self.t.min(i32::MAX as u64) as i32;
        Constants {
            gradient: self.gradient as f32,
            keep_m: self.beta1 as f32,
            add_m: (1.0 - self.beta1) as f32,
            keep_v: self.beta2 as f32,
            add_v: (1.0 - self.beta2) as f32,
            step: (self.lr / (1.0 - self.beta1.powi(t))) as f32,
            root: (1.0 / (1.0 - self.beta2.powi(t)).sqrt()) as f32,
            eps: self.eps as f32,
        }
    }

    /// Updates the moments `m`, `v` for the gradients `g`, all of one length, and turns `g` into the steps: what
    /// parameters lose besides [`decay_of_update`](Self::decay_of_update) of themselves. The calling thread does it
    /// alone: parameters are shared out, each to one.
    pub fn steps(&self, cpu: &Cpu, m: &mut [f32], v: &mut [f32], g: &mut [f32]) {
        assert!(m.len() == g.len() && v.len() == g.len(), "one gradient a moment");
        let c = self.constants();
        dispatch!(cpu.isa, l => steps(l, m, v, g, c));
    }

    /// The share of itself that a parameter loses in this update: lr * decay.
    pub fn decay_of_update(&self) -> f64 {
        self.lr * self.decay
    }

    /// The reference: one parameter in double precision.
    pub fn reference(&self, p: &mut f64, m: &mut f64, v: &mut f64, g: f64) {
        let g = g * self.gradient;
        *m = self.beta1 * *m + (1.0 - self.beta1) * g;
        *v = self.beta2 * *v + (1.0 - self.beta2) * g * g;
        let m = *m / (1.0 - self.beta1.powi(self.t as i32));
        let v = *v / (1.0 - self.beta2.powi(self.t as i32));
        *p -= self.lr * (m / (v.sqrt() + self.eps) + self.decay * *p);
    }
}

#[inline(always)]
fn steps<L: Lanes>(l: L, m: &mut [f32], v: &mut [f32], grad: &mut [f32], c: Constants) {
    for i in (0..grad.len()).step_by(L::N) {
        let g = l.mul(l.load(&grad[i..]), l.splat(c.gradient));
        let new_m = l.fma(l.load(&m[i..]), l.splat(c.keep_m), l.mul(g, l.splat(c.add_m)));
        let new_v = l.fma(l.load(&v[i..]), l.splat(c.keep_v), l.mul(l.mul(g, g), l.splat(c.add_v)));
        l.store(new_m, &mut m[i..]);
        l.store(new_v, &mut v[i..]);
        let divisor = l.fma(l.sqrt(new_v), l.splat(c.root), l.splat(c.eps));
        l.store(l.div(l.mul(new_m, l.splat(c.step)), divisor), &mut grad[i..]);
    }
}
