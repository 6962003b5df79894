//! The order of a source, or several lanes of it in turns, as chunks of tickets.

use std::sync::Arc;

use crossbeam_channel::{bounded, Receiver, Sender};

use crate::data::load::prepare::Prepared;
use crate::data::load::queue::Queues;
use crate::data::load::{LoaderOptions, Passes};
use crate::data::source::{Order, Ticket};
use crate::data::{Cursor, DataError, Skip};

/// A chunk of rows, or what ended it.
pub(crate) type Rows = Result<Vec<Result<Prepared, Skip>>, DataError>;

/// A step of a walk, as the walking thread passes it on.
pub(crate) enum Step {
    /// Rows to come.
    Rows(Receiver<Rows>),
    /// The epoch is over; `whole` where it was walked from its first sample.
    EpochEnd {
        whole: bool,
    },
    /// The only pass is over.
    End,
    Failed(DataError),
}

pub(crate) struct Job {
    /// Each with its number, counted from the start of the loader.
    pub tickets: Vec<(u64, Ticket)>,
    pub slot: Sender<Rows>,
}

/// A walk along the order, or a lane of it.
pub(crate) struct Walk {
    order: Order,
    cursor: Cursor,
    /// Of the next sample, counted from the start of the loader.
    number: u64,
    /// True if the epoch is walked from its first sample.
    whole: bool,
}

impl Walk {
    pub fn new((order, cursor): (Order, Cursor)) -> Walk {
        Walk { order, cursor, number: 0, whole: (cursor.window, cursor.position) == (0, 0) }
    }
}

/// Hands out tickets as the options say; ends when nobody takes them any more.
pub(crate) struct Walker {
    pub options: Arc<LoaderOptions>,
    /// Samples of a job.
    pub chunk: usize,
    pub walks: Vec<Walk>,
    pub steps: Arc<Queues<Step>>,
    pub jobs: Sender<Job>,
}

impl Walker {
    pub fn walk(mut self) {
        // However this thread ends, whoever waits for it is told.
        struct Closing(Arc<Queues<Step>>);
        impl Drop for Closing {
            fn drop(&mut self) {
                self.0.close();
            }
        }
        let _closing = Closing(self.steps.clone());
        while let Some((walk, wanted)) = self.steps.room() {
            if self.advance(walk, wanted).is_none() {
                return;
            }
        }
    }

    /// Hands out the next chunk of a walk, and the end of its epoch where that comes; none where nobody wants it.
    fn advance(&mut self, number: usize, wanted: u64) -> Option<()> {
        let Walker { options, walks, steps, .. } = self;
        let walk = &mut walks[number];
        let most = self.chunk.min(usize::try_from(wanted).unwrap_or(usize::MAX));
        let mut tickets = Vec::with_capacity(most);
        let (mut ended, mut failure) = (false, None);
        while tickets.len() < most {
            match options.source.ticket(walk.cursor, walk.order) {
                Ok(Some(ticket)) => {
                    walk.cursor = ticket.after;
                    if options.share.takes(walk.number) {
                        tickets.push((walk.number, ticket));
                    }
                    walk.number += 1;
                }
                Ok(None) => {
                    ended = true;
                    break;
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        if !tickets.is_empty() {
            let (samples, (slot, rows)) = (tickets.len() as u64, bounded(1));
            steps.put(number, Step::Rows(rows), samples);
            self.jobs.send(Job { tickets, slot }).ok()?;
        }
        if let Some(error) = failure {
            steps.put(number, Step::Failed(error), 0);
            steps.end(number);
        } else if ended {
            steps.put(number, Step::EpochEnd { whole: walk.whole }, 0);
            if options.passes == Passes::Once {
                steps.put(number, Step::End, 0);
                steps.end(number);
            }
            walk.cursor = walk.cursor.next_epoch();
            walk.whole = true;
        }
        Some(())
    }
}
