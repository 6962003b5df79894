//! The model on a thread of its own: it embeds one query after the other, on all cores.

use std::sync::Arc;

use crossbeam_channel::{bounded, Receiver, Sender, TrySendError};
use hyper::StatusCode;
use tokio::sync::oneshot;

use super::answer::Refusal;
use crate::command::search::too_long;
use crate::command::Failure;
use crate::data::Image;
use crate::search::{Found, Index, Nearest};
use crate::trained::Trained;

/// Queries that wait; more are turned away.
const WAITING: usize = 32;

/// Query of a search.
pub enum Query {
    Text(String),
    Image(Vec<u8>),
    /// An image of the index.
    Row(usize),
}

/// Results of a search.
pub struct Searched {
    pub found: Vec<Found>,
    /// Tokens of a text and how many of them the model read, where it did not read all.
    pub too_long: Option<(usize, usize)>,
}

type Reply = Result<Searched, Refusal>;

struct Job {
    query: Query,
    most: usize,
    reply: oneshot::Sender<Reply>,
}

/// Takes queries for the thread, which ends when nobody holds one of these.
#[derive(Clone)]
pub struct Worker {
    jobs: Sender<Job>,
}

impl Worker {
    /// Starts the thread.
    pub fn start(trained: Trained, index: Arc<Index>) -> Result<Self, Failure> {
        let (jobs, taken) = bounded(WAITING);
        let nearest = Nearest::new()?;
        std::thread::Builder::new()
            .name("flip-search".into())
            .spawn(move || work(&trained, &index, nearest, &taken))?;
        Ok(Worker { jobs })
    }

    /// Searches, when it is its turn.
    pub async fn search(&self, query: Query, most: usize) -> Reply {
        let (reply, answer) = oneshot::channel();
        let busy = |what| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, what);
        match self.jobs.try_send(Job { query, most, reply }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(busy("too many queries wait; try again")),
            Err(TrySendError::Disconnected(_)) => return Err(busy("the server ends")),
        }
        answer
            .await
            .unwrap_or_else(|_| Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the search failed")))
    }
}

fn work(trained: &Trained, index: &Index, nearest: Nearest, jobs: &Receiver<Job>) {
    for Job { query, most, reply } in jobs {
        // Who asked may have gone away meanwhile.
        if !reply.is_closed() {
            let _ = reply.send(search(trained, index, &nearest, query, most));
        }
    }
}

fn search(trained: &Trained, index: &Index, nearest: &Nearest, query: Query, most: usize) -> Reply {
    let mut cut = None;
    let (embedding, except) = match query {
        Query::Text(text) => {
            cut = too_long(trained, &text).map_err(|failure| failed(failure.told().0))?;
            (trained.embed_text(&text).map_err(failed)?, None)
        }
        Query::Image(bytes) => {
            let embedded = trained.embed_image_data(Image::Encoded(bytes));
            (embedded.map_err(|error| Refusal::wrong(error.to_string()))?, None)
        }
        Query::Row(row) => (index.embedding(row).to_vec(), Some(row)),
    };
    Ok(Searched { found: nearest.to(index, &embedding, most, except), too_long: cut })
}

fn failed(error: impl ToString) -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}
