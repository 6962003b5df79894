//! The server: connections, their limits and its end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::StatusCode;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::answer::Refusal;
use super::args::ServeArgs;
use super::routes::{answer, Served};
use super::worker::Worker;
use crate::command::search::{told_left_out, Searched};
use crate::command::signals::catch_signals;
use crate::command::{Failure, Outcome};
use crate::log::{Logging, Progress};
use crate::terminal::{grouped, say, say_error};

/// Connections at a time; others wait to be accepted.
const CONNECTIONS: usize = 64;
/// For the head of a request, and between two of a connection.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// For a request, from its head to its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Longest head of a request, bytes.
const LONGEST_HEAD: usize = 128 << 10;
/// For requests that are being answered when the server is told to end.
const FAREWELL: Duration = Duration::from_secs(5);
/// Between two looks whether a signal came.
const LOOK: Duration = Duration::from_millis(50);
/// Threads that read images.
const READERS: usize = 4;

pub fn serve(args: &ServeArgs) -> Result<Outcome, Failure> {
    let interrupt = catch_signals()?;
    let progress = Progress::new();
    let _logging = Logging::start(None, &progress)?;
    // A port that is taken is told before images are embedded.
    let address = SocketAddr::new(args.host, args.port);
    let listener = std::net::TcpListener::bind(address).map_err(|error| {
        Failure::Usage(format!("cannot listen on {address}: {error}; --port 0 takes any port that is free"))
    })?;
    listener.set_nonblocking(true)?;
    let searched = args.index.open(&progress)?;
    told_left_out(&searched);
    let Searched { trained, collection, index, .. } = searched;
    let index = Arc::new(index);
    let (model, checkpoint) = (trained.hash()?.to_owned(), trained.checkpoint.display().to_string());
    let worker = Worker::start(trained, index.clone())?;
    let images = grouped(index.len() as u64);
    let served = Arc::new(Served { collection, index, worker, model, checkpoint, host: args.host });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(READERS)
        .enable_all()
        .build()?;
    say!("{images} images on http://{}/, until Ctrl-C", listener.local_addr()?);
    if !args.host.is_loopback() {
        say_error!("warning: whoever reaches this address can search and see these images");
    }
    runtime.block_on(accept(listener, served, &interrupt))?;
    runtime.shutdown_timeout(FAREWELL);
    Ok(Outcome::Done)
}

/// Accepts connections until a signal comes, then ends what is being answered.
async fn accept(
    listener: std::net::TcpListener,
    served: Arc<Served>,
    interrupt: &AtomicBool,
) -> Result<(), Failure> {
    let listener = TcpListener::from_std(listener)?;
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    while !interrupt.load(Ordering::Relaxed) {
        let Ok(Ok(permit)) = timeout(LOOK, free.clone().acquire_owned()).await else { continue };
        let stream = match timeout(LOOK, listener.accept()).await {
            Err(_) => continue,
            Ok(Ok((stream, _))) => stream,
            // Out of file handles, or a client that is gone already.
            Ok(Err(error)) => {
                tracing::warn!(target: "flip::serve", "a connection could not be accepted: {error}");
                sleep(LOOK).await;
                continue;
            }
        };
        let served = served.clone();
        let service = service_fn(move |request| {
            let served = served.clone();
            async move {
                let answered = timeout(ANSWER_WITHIN, answer(&served, request)).await;
                let late = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "it took too long").answer();
                Ok::<_, Infallible>(answered.unwrap_or_else(late))
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(LONGEST_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            // A connection that breaks is its client's affair.
            let _ = watched.await;
            drop(permit);
        });
    }
    drop(listener);
    let _ = timeout(FAREWELL, graceful.shutdown()).await;
    Ok(())
}
