//! Work of the ranks other than 0 during evaluations.

use crate::evaluator::EvaluatorConfig;
use crate::model::GraphDevice;
use crate::ranks::broadcast_bytes;

use super::embed::{embed_slice, Message};
use super::error::{ExchangeError, TrainError};
use super::reader::{advance, OwnRows};
use super::run::Run;
use super::state::Ended;

/// Reads and embeds what rank 0 asks for, until it says that the evaluations are over.
///
/// # Errors
/// The model or an exchange fails, or an evaluation on rank 0.
pub fn serve<D: GraphDevice>(run: &Run<'_, D>, configs: &[EvaluatorConfig]) -> Result<Ended, TrainError> {
    let mut opened = [OwnRows::none(), OwnRows::none()];
    loop {
        let message = broadcast_bytes(run.processes.ranks, &[])?;
        match serde_json::from_slice(&message).map_err(TrainError::message)? {
            Message::Open { evaluator, part } => {
                opened[part as usize] = OwnRows::open(run, configs[evaluator].evaluator(), part);
            }
            Message::Read { part } => drop(advance(run, &mut opened[part as usize])?),
            Message::Texts { count } => drop(embed_slice(run, count, &[])?),
            Message::End { interrupted: true } => return Ok(Ended::Interrupted),
            Message::End { interrupted: false } => return Ok(Ended::Complete),
            Message::Fail { reason } => return Err(ExchangeError::OtherRank { rank: 0, reason }.into()),
        };
    }
}
