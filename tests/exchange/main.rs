//! Checkpoints of other tools: in, out, and there and back again; damaged ones; and the tools themselves where they
//! are installed.

mod command;
mod flip_t5x;
mod hostile;
mod open_clip;
mod peers;
mod support;
mod transformers;
