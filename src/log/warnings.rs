//! Warnings of a rank that logs into a file of its own: counted, so that rank 0 can tell of them.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Warnings since they were last taken: how many, and the last.
static SEEN: Mutex<Option<(u64, String)>> = Mutex::new(None);

/// Counts events of the levels warn and error.
#[derive(Debug)]
pub struct Warnings;

impl Warnings {
    /// The warnings since the last call: how many, and the text of the last. None in a process that logs on the terminal.
    pub fn take() -> Option<(u64, String)> {
        SEEN.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() > Level::WARN {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        let count = seen.as_ref().map_or(0, |(count, _)| *count);
        *seen = Some((count + 1, format!("{}{}", text.message, text.fields)));
    }
}

/// The message of an event, and its fields behind it.
#[derive(Debug, Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn warnings_are_counted_and_the_last_is_kept() {
        let counted = tracing_subscriber::registry().with(Warnings);
        tracing::subscriber::with_default(counted, || {
            tracing::info!("not one");
            tracing::warn!(target: "flip::data", number = 3, "skipped {}", "a.tar: 0001");
            tracing::error!("the disk is full");
            tracing::warn!(shard = "b.tar", "again");
        });
        assert_eq!(Warnings::take(), Some((3, "again shard=\"b.tar\"".into())));
        assert_eq!(Warnings::take(), None);
    }
}
