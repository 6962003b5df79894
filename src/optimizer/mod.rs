//! The update rule, its schedule and clipping. A step of training is: gradients, [`global_norm`],
//! perhaps [`clip_factor`], [`AdamW::update`] at [`Schedule::lr`].

mod adamw;
mod average;
mod clip;
mod config;
mod schedule;
mod sharded;

pub use adamw::{AdamW, OptimizerError};
pub use average::Average;
pub use clip::{clip_factor, global_norm, squares};
pub use config::*;
pub use schedule::{Schedule, ScheduleError};
pub use sharded::sharded_norm;
