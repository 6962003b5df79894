//! A run of one process.

use super::{Ranks, RanksError, Traffic};

/// The only rank: nothing is passed on.
#[derive(Debug, Default)]
pub struct Alone {
    traffic: Traffic,
}

impl Ranks for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn count(&self) -> usize {
        1
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, RanksError> {
        Ok(vec![own.to_vec()])
    }

    fn broadcast(&self, _: usize, _: &mut [f32]) -> Result<(), RanksError> {
        Ok(())
    }

    fn exchange(&self, send: &[&[f32]], receive: &mut [&mut [f32]]) -> Result<(), RanksError> {
        super::keep_own(0, 1, send, receive)
    }

    fn pass(&self, _: Option<&[f32]>, _: Option<&mut [f32]>) -> Result<(), RanksError> {
        Ok(())
    }

    fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    fn end(&self, code: u8) -> ! {
        std::process::exit(code.into())
    }
}
