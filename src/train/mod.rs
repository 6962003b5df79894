//! The stages of a run: training with masks, training without, evaluation.
//!
//! | file | holds |
//! |---|---|
//! | [`config`] | stages as a recipe describes them |
//! | [`plan`] | a training stage in steps |
//! | [`run`] | a run while it goes on, which hands its model and position from stage to stage |
//! | [`trainer`] | the training loop: next_batch, step, log, evaluate, save |
//! | [`length`] | a length in hours or FLOP, in steps |
//! | [`inputs`] | masks drawn, tokens gathered, micro-batches |
//! | [`lanes`] | the strands that the training data is walked in |
//! | [`evaluate`](mod@evaluate) | evaluators, and their rows |
//! | [`state`], [`resumed`], [`identity`] | what a checkpoint holds, and going on from it |

#![warn(missing_docs)]

mod batches;
mod clock;
pub mod config;
mod embed;
mod embedded_rows;
mod error;
pub mod evaluate;
pub mod identity;
pub mod inputs;
pub mod lanes;
mod learner;
mod left_out;
pub mod length;
mod masks_image;
pub mod plan;
mod processes;
mod rank_reports;
mod reader;
mod recorder;
pub mod resumed;
pub mod run;
mod serve;
pub mod state;
pub mod trainer;

pub use config::{PeriodicEvaluationConfig, PretrainConfig, Stage, TrainingConfig, UnmaskConfig};
pub use error::{ExchangeError, NotFinite, TrainError};
pub use evaluate::evaluate;
pub use processes::Processes;
pub use recorder::{Recorder, RecorderError};
pub use run::{Run, RunConfig};
pub use state::{Ended, Position, State};
pub use trainer::train;
