//! Options of training, each against an oracle, resumed, and on several ranks. Ranks are threads here.

#[path = "../process/mod.rs"]
mod process;

mod ema;
mod freeze;
mod lengths;
mod runs;
mod schedules;
