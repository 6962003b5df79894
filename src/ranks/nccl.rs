//! Ranks whose large exchanges go from GPU to GPU over NCCL; what is small still goes over the ranks beneath, which also
//! hand out NCCL's id and watch over each other.
//!
//! Values come from and go to the host, as the rest of [`Ranks`] has them, and are staged in the GPU's memory. It
//! links without a GPU, against stand-ins for NVIDIA's libraries; it has never run.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cudarc::driver::{CudaDevice, CudaSlice};
use cudarc::nccl::{group_end, group_start, Comm, Id};

use super::{broadcast_bytes, Kind, Ranks, RanksError, Traffic};

/// A rank with a GPU.
pub struct Nccl<'a> {
    beneath: &'a dyn Ranks,
    comm: Mutex<Shared>,
}

/// NCCL's communicator and the GPU that it is of.
struct Shared {
    comm: Comm,
    device: Arc<CudaDevice>,
}

// SAFETY: NCCL allows any thread to use a communicator, one at a time; it is behind a mutex, and the thread binds the
// device first.
unsafe impl Send for Shared {}

impl fmt::Debug for Nccl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nccl over {:?}", self.beneath)
    }
}

fn failed(error: impl fmt::Debug) -> RanksError {
    RanksError::Gpu(format!("{error:?}"))
}

impl<'a> Nccl<'a> {
    /// Joins the GPUs of all ranks; this one's is of this ordinal.
    ///
    /// # Errors
    /// The GPU or NCCL cannot be set up.
    pub fn join(beneath: &'a dyn Ranks, ordinal: usize) -> Result<Nccl<'a>, RanksError> {
        let device = CudaDevice::new(ordinal).map_err(failed)?;
        let own = match beneath.rank() {
            0 => Id::new().map_err(failed)?.internal().map(|byte| byte as u8).to_vec(),
            _ => Vec::new(),
        };
        let told = broadcast_bytes(beneath, &own)?;
        let size = RanksError::Size { expected: 128, got: told.len() };
        let id: [u8; 128] = told.try_into().map_err(|_| size)?;
        let id = Id::uninit(id.map(|byte| byte as std::ffi::c_char));
        let comm = Comm::from_rank(device.clone(), beneath.rank(), beneath.count(), id).map_err(failed)?;
        Ok(Nccl { beneath, comm: Mutex::new(Shared { comm, device }) })
    }

    /// The communicator, for this thread alone.
    fn lock(&self) -> Result<MutexGuard<'_, Shared>, RanksError> {
        let shared = self.comm.lock().unwrap_or_else(PoisonError::into_inner);
        shared.device.bind_to_thread().map_err(failed)?;
        Ok(shared)
    }

    /// Sends each piece to its rank and receives as many values as there are places from its, all at once.
    fn trade(&self, send: &[(usize, &[f32])], receive: &mut [(usize, &mut [f32])]) -> Result<(), RanksError> {
        let Shared { comm, device } = &*self.lock()?;
        let upload =
            |(rank, values): &(usize, &[f32])| Ok((*rank, device.htod_sync_copy(values).map_err(failed)?));
        let send: Vec<(usize, CudaSlice<f32>)> =
            send.iter().map(upload).collect::<Result<_, RanksError>>()?;
        let room = |(rank, values): &(usize, &mut [f32])| {
            Ok((*rank, device.alloc_zeros(values.len()).map_err(failed)?))
        };
        let mut room: Vec<(usize, CudaSlice<f32>)> =
            receive.iter().map(room).collect::<Result<_, RanksError>>()?;
        group_start().map_err(failed)?;
        for (rank, values) in &send {
            comm.send(values, *rank as i32).map_err(failed)?;
        }
        for (rank, values) in &mut room {
            comm.recv(values, *rank as i32).map_err(failed)?;
        }
        group_end().map_err(failed)?;
        for ((_, to), (_, from)) in receive.iter_mut().zip(&room) {
            device.dtoh_sync_copy_into(from, to).map_err(failed)?;
        }
        Ok(())
    }
}

impl Ranks for Nccl<'_> {
    fn rank(&self) -> usize {
        self.beneath.rank()
    }

    fn count(&self) -> usize {
        self.beneath.count()
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, RanksError> {
        self.beneath.gather(own)
    }

    fn broadcast(&self, from: usize, values: &mut [f32]) -> Result<(), RanksError> {
        if values.is_empty() {
            return Ok(());
        }
        if self.rank() == from {
            let others = (0..self.count()).filter(|&rank| rank != from);
            let send: Vec<(usize, &[f32])> = others.map(|rank| (rank, &*values)).collect();
            self.traffic().add(Kind::Broadcast, size_of_val(values) * send.len());
            self.trade(&send, &mut [])
        } else {
            self.trade(&[], &mut [(from, values)])
        }
    }

    fn exchange(&self, send: &[&[f32]], receive: &mut [&mut [f32]]) -> Result<(), RanksError> {
        let own = self.rank();
        super::keep_own(own, self.count(), send, receive)?;
        // NCCL has no message of nothing.
        let others = |rank: usize, len: usize| rank != own && len > 0;
        let send = send.iter().enumerate().map(|(rank, piece)| (rank, *piece));
        let send: Vec<(usize, &[f32])> = send.filter(|(rank, piece)| others(*rank, piece.len())).collect();
        let receive = receive.iter_mut().enumerate().map(|(rank, piece)| (rank, &mut **piece));
        let mut receive: Vec<(usize, &mut [f32])> =
            receive.filter(|(rank, piece)| others(*rank, piece.len())).collect();
        let sent = send.iter().map(|(_, piece)| size_of_val(*piece)).sum();
        self.traffic().add(Kind::Exchange, sent);
        self.trade(&send, &mut receive)
    }

    fn pass(&self, on: Option<&[f32]>, into: Option<&mut [f32]>) -> Result<(), RanksError> {
        let next = (self.rank() + 1) % self.count();
        let before = (self.rank() + self.count() - 1) % self.count();
        self.traffic().add(Kind::Ring, on.map_or(0, |values| size_of_val(values)));
        let on: Vec<(usize, &[f32])> = on.map(|values| (next, values)).into_iter().collect();
        let mut into: Vec<(usize, &mut [f32])> = into.map(|values| (before, values)).into_iter().collect();
        self.trade(&on, &mut into)
    }

    fn traffic(&self) -> &Traffic {
        self.beneath.traffic()
    }

    fn mark(&self) {
        self.beneath.mark();
    }

    fn expect_marks(&self, within: Duration) {
        self.beneath.expect_marks(within);
    }

    fn name(&self) -> String {
        self.beneath.name()
    }

    fn finish(&self) {
        self.beneath.finish();
    }

    fn end(&self, code: u8) -> ! {
        self.beneath.end(code)
    }
}
