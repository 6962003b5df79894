//! Shards that are open: the last few that were used, each opened once, a few at the same time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::data::DataError;

/// Shards of one window that are opened at the same time.
const OPENED_AT_ONCE: usize = 4;
/// Shards of a set that are opened at the same time beforehand, in all lanes together.
const AHEAD_AT_ONCE: usize = 8;

/// Shards by number: tar files, blocks of a table.
pub(crate) trait ShardSet: Send + Sync + 'static {
    type Shard: Send + Sync + 'static;

    /// Shards.
    fn count(&self) -> usize;

    /// Samples of each shard, broken ones included, where they are known before it is opened.
    fn counts(&self) -> Option<&[u32]>;

    /// # Errors
    /// The shard cannot be had, and what would come without it is not what the recipe asks for.
    fn open(&self, shard: usize) -> Result<Self::Shard, DataError>;

    /// Samples of an open shard, broken ones included.
    fn samples(shard: &Self::Shard) -> usize;
}

/// The last few shards that were used.
pub(crate) struct Opened<S: ShardSet> {
    pub shards: S,
    /// Shards that stay open.
    capacity: AtomicUsize,
    /// Least recently used first.
    recent: Mutex<VecDeque<(u32, Slot<S::Shard>)>>,
    /// Shards that are being opened beforehand.
    ahead: Mutex<usize>,
    opened: Condvar,
}

/// A shard that is open or being opened; whoever asks for it meanwhile waits.
type Slot<T> = Arc<Mutex<Option<Arc<T>>>>;

impl<S: ShardSet> Opened<S> {
    pub fn new(shards: S) -> Self {
        Opened {
            shards,
            capacity: AtomicUsize::new(1),
            recent: Mutex::default(),
            ahead: Mutex::default(),
            opened: Condvar::new(),
        }
    }

    /// From now on at least so many shards stay open.
    pub fn keep(&self, capacity: usize) {
        self.capacity.fetch_max(capacity, Ordering::Relaxed);
    }

    /// An open shard.
    pub fn get(&self, shard: u32) -> Result<Arc<S::Shard>, DataError> {
        let slot: Slot<S::Shard> = {
            let mut recent = lock(&self.recent);
            let slot = match recent.iter().rposition(|(known, _)| *known == shard) {
                Some(at) => recent.remove(at).map(|(_, slot)| slot).unwrap_or_default(),
                None => Arc::default(),
            };
            recent.push_back((shard, slot.clone()));
            if recent.len() > self.capacity.load(Ordering::Relaxed) {
                recent.pop_front();
            }
            slot
        };
        let mut place = lock(&slot);
        if let Some(open) = &*place {
            return Ok(open.clone());
        }
        let open = Arc::new(self.shards.open(shard as usize)?);
        *place = Some(open.clone());
        Ok(open)
    }

    /// Opens shards, several at a time.
    ///
    /// # Errors
    /// The first that cannot be had; none is begun after it.
    pub fn open_all(&self, shards: &[u32]) -> Result<(), DataError> {
        self.open_each(shards, |shard| self.get(shard).map(|_| ()))
    }

    /// Opens shards that are wanted soon, aside. Nothing waits for them: what fails here fails again, and is told, when
    /// the shard is used.
    pub fn open_ahead(self: &Arc<Self>, shards: Vec<u32>) {
        let opened = self.clone();
        let open = move || {
            let _ = opened.open_each(&shards, |shard| {
                let _permit = opened.permit();
                // The source itself may be gone by now.
                match Arc::strong_count(&opened) > 1 {
                    true => opened.get(shard).map(|_| ()),
                    false => Err(DataError::Invalid("nobody wants it any more".into())),
                }
            });
        };
        let _ = std::thread::Builder::new().name("flip-index".into()).spawn(open);
    }

    fn open_each(
        &self,
        shards: &[u32],
        open: impl Fn(u32) -> Result<(), DataError> + Sync,
    ) -> Result<(), DataError> {
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        let work = || {
            while let Some(&shard) = shards.get(next.fetch_add(1, Ordering::Relaxed)) {
                if lock(&failure).is_some() {
                    return;
                }
                if let Err(error) = open(shard) {
                    lock(&failure).get_or_insert(error);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..shards.len().min(OPENED_AT_ONCE) {
                // Where the system refuses a thread, the others do its work.
                let _ = std::thread::Builder::new().name("flip-index".into()).spawn_scoped(scope, work);
            }
            work();
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Waits until fewer shards than are allowed are being opened beforehand.
    fn permit(&self) -> Permit<'_, S> {
        let ahead = lock(&self.ahead);
        let full = |ahead: &mut usize| *ahead >= AHEAD_AT_ONCE;
        *self.opened.wait_while(ahead, full).unwrap_or_else(PoisonError::into_inner) += 1;
        Permit(self)
    }
}

/// The right to open a shard beforehand.
struct Permit<'a, S: ShardSet>(&'a Opened<S>);

impl<S: ShardSet> Drop for Permit<'_, S> {
    fn drop(&mut self) {
        *lock(&self.0.ahead) -= 1;
        self.0.opened.notify_one();
    }
}

/// Locks; whatever a panicking thread left is still a valid cache.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
