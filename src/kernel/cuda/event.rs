//! Points in the streams of a GPU.

use cudarc::driver::result::{event, stream, DriverError};
use cudarc::driver::sys::{self, CUevent, CUevent_flags, CUevent_wait_flags, CUresult, CUstream};

/// A point in a stream: that it was reached, and when, by the GPU's own clock.
#[derive(Debug)]
pub(super) struct Event(CUevent);

// SAFETY: the handle of an event is valid in every thread, and the event belongs to this alone.
unsafe impl Send for Event {}
// SAFETY: as above; the driver allows concurrent use.
unsafe impl Sync for Event {}

impl Event {
    /// One that counts as reached until it is recorded.
    pub fn new() -> Result<Self, DriverError> {
        event::create(CUevent_flags::CU_EVENT_DEFAULT).map(Event)
    }

    /// One that takes no time, which costs less.
    pub fn untimed() -> Result<Self, DriverError> {
        event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING).map(Event)
    }

    /// Puts it behind all that was launched.
    pub fn record(&self, stream: CUstream) -> Result<(), DriverError> {
        // SAFETY: the event is alive.
        unsafe { event::record(self.0, stream) }
    }

    pub fn reached(&self) -> Result<bool, DriverError> {
        // SAFETY: the event is alive.
        match unsafe { sys::cuEventQuery(self.0) } {
            CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            result => result.result().map(|()| true),
        }
    }

    /// Later launches in a stream begin when it is reached.
    pub fn hold(&self, stream: CUstream) -> Result<(), DriverError> {
        // SAFETY: the event is alive; the driver keeps what the stream waits for.
        unsafe { stream::wait_event(stream, self.0, CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT) }
    }

    pub fn wait(&self) -> Result<(), DriverError> {
        // SAFETY: the event is alive.
        unsafe { sys::cuEventSynchronize(self.0) }.result()
    }

    /// Seconds from this one to another of the same stream, both of them reached.
    pub fn seconds_to(&self, later: &Event) -> Result<f64, DriverError> {
        // SAFETY: both are alive.
        unsafe { event::elapsed(self.0, later.0) }.map(|milliseconds| f64::from(milliseconds) / 1e3)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made here and used by nobody else. What cannot be destroyed is left.
        let _ = unsafe { event::destroy(self.0) };
    }
}
