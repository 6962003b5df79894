//! Checkpoints of other tools: in, out, and there and back again; damaged ones; what is done with them; and the
//! tools themselves where they are installed.

mod benchmark;
mod command;
mod configurations;
mod embed;
mod flip_t5x;
mod hostile;
mod onnx;
mod open_clip;
mod opened;
mod peers;
mod pickles;
mod prepared_tokens;
mod preprocessing;
mod round_trip;
mod start;
mod support;
mod tokens;
mod transformers;
