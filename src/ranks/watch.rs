//! A watch over the other ranks.
//!
//! A thread of each rank sends a beat every second: rank 0 to all, the others to rank 0. A process that was killed, was
//! stopped, or whose machine or network is gone, sends none, and whoever listens to it says so and ends the run on all
//! ranks. A rank that beats but does not get on - no exchange, no mark, and it does not wait for others either - ends the
//! run by its own beats.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mpi::ffi;
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;

use crate::terminal::say_error;

/// Between two beats.
const BEAT: Duration = Duration::from_secs(1);
/// So long a rank may be silent. A rank that is gone has ended the run within 30 seconds, with what MPI's launcher takes
/// to end the others.
const SILENCE: Duration = Duration::from_secs(15);
/// Ranks other than 1 wait this much longer for rank 0, so that one of them speaks.
const MODESTY: Duration = Duration::from_secs(3);

/// State that the thread and the rank share.
#[derive(Debug)]
struct State {
    began: Instant,
    /// Exchanges that this rank waits in.
    waiting: AtomicUsize,
    /// Milliseconds from `began` to the last sign of getting on.
    marked: AtomicU64,
    /// Milliseconds that it may go without a mark or an exchange.
    limit: AtomicU64,
    /// True once marks are to be expected: setting up may take any time.
    armed: AtomicBool,
    stop: AtomicBool,
}

impl State {
    /// Since this rank last got on; nothing while it waits for others.
    fn idle(&self) -> Duration {
        let marked = Duration::from_millis(self.marked.load(Ordering::Relaxed));
        match self.waiting.load(Ordering::Relaxed) {
            0 if self.armed.load(Ordering::Relaxed) => self.began.elapsed().saturating_sub(marked),
            _ => Duration::ZERO,
        }
    }

    /// Time in which this rank has not got on, where that is too long.
    fn stalled(&self) -> Option<Duration> {
        let limit = Duration::from_millis(self.limit.load(Ordering::Relaxed));
        Some(self.idle()).filter(|&idle| idle > limit)
    }

    fn mark(&self) {
        self.marked.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }
}

/// The thread that beats and listens.
pub struct Watch {
    state: Arc<State>,
    /// Of every rank.
    names: Arc<[String]>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// While it lives, this rank waits for others.
pub struct Waiting<'a>(&'a State);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.mark();
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A communicator of its own for the beats.
struct Beats(SimpleCommunicator);

// SAFETY: MPI was started with MPI_THREAD_MULTIPLE; only the thread of the watch uses this communicator.
unsafe impl Send for Beats {}

impl Watch {
    /// Starts the thread, on a communicator that nobody else uses.
    pub fn start(beats: SimpleCommunicator, rank: usize, names: Vec<String>) -> Watch {
        let names: Arc<[String]> = names.into();
        let state = Arc::new(State {
            began: Instant::now(),
            waiting: AtomicUsize::new(0),
            marked: AtomicU64::new(0),
            limit: AtomicU64::new(u64::MAX),
            armed: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let (seen, known, beats) = (state.clone(), names.clone(), Beats(beats));
        let thread = std::thread::Builder::new().name("flip-beats".into()).spawn(move || {
            let beats = beats;
            let peers: Vec<usize> = if rank == 0 { (1..known.len()).collect() } else { vec![0] };
            Beating { peers: peers.into_iter().map(Peer::new).collect(), rank, names: known, state: seen }
                .run(&beats.0)
        });
        // Without it a run goes on, and only notices a rank that is gone where MPI does.
        let thread = thread.map_err(|error| tracing::warn!("no watch over the other ranks: {error}")).ok();
        Watch { state, names, thread: Mutex::new(thread) }
    }

    /// Name of a rank in messages.
    pub fn name(&self, rank: usize) -> &str {
        &self.names[rank]
    }

    /// Begins an exchange, in which this rank may wait for others.
    pub fn waiting(&self) -> Waiting<'_> {
        self.state.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(&self.state)
    }

    /// Notes that this rank gets on.
    pub fn mark(&self) {
        self.state.armed.store(true, Ordering::Relaxed);
        self.state.mark();
    }

    /// Sets the longest time between two marks.
    pub fn expect_marks(&self, within: Duration) {
        let milliseconds = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        self.state.limit.store(milliseconds, Ordering::Relaxed);
    }

    /// Ends the thread; waits for it.
    pub fn stop(&self) {
        self.state.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(thread) = thread {
            // Had it panicked, the message of the panic would be on the terminal.
            let _ = thread.join();
        }
    }
}

/// A rank that is listened to.
struct Peer {
    rank: usize,
    heard: Instant,
    /// A beat that is on its way, and what it consists of.
    sending: Option<ffi::MPI_Request>,
    beat: Box<u64>,
}

impl Peer {
    fn new(rank: usize) -> Peer {
        Peer { rank, heard: Instant::now(), sending: None, beat: Box::new(0) }
    }

    /// Sends a beat, unless the one before has not even left.
    fn send(&mut self, to: &SimpleCommunicator) {
        if let Some(mut request) = self.sending.take() {
            if !done(&mut request) {
                self.sending = Some(request);
                return;
            }
        }
        self.sending = Some(send(to, self.rank as i32, &self.beat));
    }

    /// Takes the beats that have arrived.
    fn listen(&mut self, from: &SimpleCommunicator) {
        let process = from.process_at_rank(self.rank as i32);
        while process.immediate_probe().is_some() {
            process.receive::<u64>();
            self.heard = Instant::now();
        }
    }
}

/// Begins to send; `value` has to stay where it is until the request is done.
fn send(to: &SimpleCommunicator, rank: i32, value: &u64) -> ffi::MPI_Request {
    let mut request = std::mem::MaybeUninit::uninit();
    // SAFETY: `value` is boxed in a `Peer`, which keeps it, unchanged, until `done` says that it was sent.
    unsafe {
        let value: *const u64 = value;
        ffi::MPI_Isend(
            value.cast(),
            1,
            u64::equivalent_datatype().as_raw(),
            rank,
            0,
            to.as_raw(),
            request.as_mut_ptr(),
        );
        request.assume_init()
    }
}

/// True if a request is done; it must not be used again then.
fn done(request: &mut ffi::MPI_Request) -> bool {
    let mut flag = 0;
    let mut status = std::mem::MaybeUninit::uninit();
    // SAFETY: the request comes from `send`, and is not used after it was done.
    unsafe { ffi::MPI_Test(request, &mut flag, status.as_mut_ptr()) };
    flag != 0
}

struct Beating {
    peers: Vec<Peer>,
    rank: usize,
    names: Arc<[String]>,
    state: Arc<State>,
}

impl Beating {
    fn run(mut self, beats: &SimpleCommunicator) {
        let patience = if self.rank > 1 { SILENCE + MODESTY } else { SILENCE };
        let mut before = Instant::now();
        while !self.state.stop.load(Ordering::Relaxed) {
            if let Some(idle) = self.state.stalled() {
                let (name, seconds) = (&self.names[self.rank], idle.as_secs());
                self.end(beats, &format!("{name} has not got on for {seconds} s (ranks.stall_limit_s)"));
            }
            // A process that was stopped itself must not take the others for silent when it goes on.
            let now = Instant::now();
            let asleep = now - before > 3 * BEAT;
            before = now;
            for at in 0..self.peers.len() {
                let peer = &mut self.peers[at];
                peer.send(beats);
                peer.listen(beats);
                if asleep {
                    peer.heard = now;
                }
                let (rank, silent) = (peer.rank, peer.heard.elapsed());
                if silent > patience {
                    let (name, silent) = (&self.names[rank], silent.as_secs());
                    let why = "its process was killed or stopped, or its machine is gone";
                    self.end(beats, &format!("{name} has not been heard from for {silent} s: {why}"));
                }
            }
            // In small pieces, so that the end of a run does not wait for a beat.
            let next = now + BEAT;
            while Instant::now() < next && !self.state.stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Ends the run on all ranks.
    fn end(&self, beats: &SimpleCommunicator, reason: &str) -> ! {
        say_error!("error: {reason}. The run ends on all ranks; go on with --resume");
        tracing::error!(target: "flip::ranks", "{reason}; the run ends on all ranks");
        // The launcher ends what does not end by itself; where it does not answer, this process still ends.
        let _ = std::thread::Builder::new().spawn(|| {
            std::thread::sleep(Duration::from_secs(10));
            std::process::exit(1)
        });
        beats.abort(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rank that began ten seconds ago.
    fn state(limit: Duration) -> State {
        State {
            began: Instant::now().checked_sub(Duration::from_secs(10)).unwrap(),
            waiting: AtomicUsize::new(0),
            marked: AtomicU64::new(0),
            limit: AtomicU64::new(limit.as_millis() as u64),
            armed: AtomicBool::new(true),
            stop: AtomicBool::new(false),
        }
    }

    #[test]
    fn who_does_not_get_on_is_stalled_unless_it_waits_for_others_or_has_yet_to_begin() {
        let (short, long) = (Duration::from_secs(5), Duration::from_secs(60));
        assert!(state(short).stalled().is_some_and(|idle| idle >= Duration::from_secs(10)));
        assert_eq!(state(long).stalled(), None);
        let marked = state(short);
        marked.mark();
        assert_eq!(marked.stalled(), None);
        let waiting = state(short);
        waiting.waiting.store(1, Ordering::Relaxed);
        assert_eq!(waiting.stalled(), None);
        // Once the exchange is over, the time begins anew.
        drop(Waiting(&waiting));
        assert_eq!(waiting.stalled(), None);
        let setting_up = State { armed: AtomicBool::new(false), ..state(short) };
        assert_eq!(setting_up.stalled(), None);
    }
}
