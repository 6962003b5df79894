//! Noticing that a file changed.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

/// An editor writes a file in several steps; this long without another one, it is done.
const QUIET: Duration = Duration::from_millis(100);
/// However busy the editor is, the change is taken up by then.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two looks where the system cannot tell of changes.
const POLL: Duration = Duration::from_millis(500);

enum Signal {
    Changed,
    Stop,
}

/// Calls back after a file changed, until it is dropped.
#[derive(Debug)]
pub struct Watch {
    signals: Sender<Signal>,
    thread: Option<JoinHandle<()>>,
    /// Kept alive: dropping it ends the notifications.
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Calls `changed` on a thread of its own, once now and each time `path` may have changed, been replaced
    /// or appeared.
    /// Used where the system cannot watch (no such folder yet, too many watches, a file system that does not
    /// tell), `changed` is called twice a second instead, and the reason is returned beside. An error means
    /// that not even a thread could be had.
    pub fn start(
        path: &Path,
        changed: impl FnMut() + Send + 'static,
    ) -> io::Result<(Watch, Option<notify::Error>)> {
        let (signals, received) = channel();
        let (watcher, reason) = match watch_folder(path, signals.clone()) {
            Ok(watcher) => (Some(watcher), None),
            Err(reason) => (None, Some(reason)),
        };
        let poll = watcher.is_none().then_some(POLL);
        let thread =
            Builder::new().name("logging.ron".into()).spawn(move || follow(&received, poll, changed))?;
        Ok((Watch { signals, thread: Some(thread), _watcher: watcher }, reason))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Both fail only if the thread is gone already.
        let _ = self.signals.send(Signal::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Watches the folder, because most editors write a new file and rename it over the old one, and a watch on
/// the file would follow the old one into nothing.
fn watch_folder(path: &Path, signals: Sender<Signal>) -> notify::Result<RecommendedWatcher> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let file_name: OsString = path.file_name().unwrap_or_default().to_os_string();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let concerns = match &event {
            Ok(event) => changes(event) && event.paths.iter().any(|p| p.file_name() == Some(&file_name)),
            // Events may have been lost: look.
            Err(_) => true,
        };
        if concerns {
            let _ = signals.send(Signal::Changed);
        }
    })?;
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Reading a file is an event too; reacting to our own reading would never end.
fn changes(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

fn follow(signals: &Receiver<Signal>, poll: Option<Duration>, mut changed: impl FnMut()) {
    // Between the caller's own look at the file and the start of the watch it may have changed.
    changed();
    loop {
        let signal = match poll {
            Some(poll) => signals.recv_timeout(poll),
            None => signals.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match signal {
            Ok(Signal::Changed) => {
                let first = Instant::now();
                while first.elapsed() < PATIENCE {
                    match signals.recv_timeout(QUIET) {
                        Ok(Signal::Changed) => {}
                        Err(RecvTimeoutError::Timeout) => break,
                        Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
                changed();
            }
            Err(RecvTimeoutError::Timeout) => changed(),
            Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
