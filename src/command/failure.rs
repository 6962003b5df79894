//! The end of a command, and what becomes of it: a message and an exit code.

/// End of a command that did not fail: an exit code of `flip`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All that was asked for is done.
    Done,
    /// Interrupted, after writing a checkpoint.
    Interrupted,
}

/// A failed command.
#[derive(Debug)]
pub enum Failure {
    /// The recipe or the arguments are wrong: exit code 2.
    Usage(String),
    /// Anything else: exit code 1.
    Other(Box<dyn std::error::Error>),
}

impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Other(Box::new(error))
    }
}

impl Failure {
    /// Message for a person, and the exit code.
    pub(super) fn told(&self) -> (String, u8) {
        let error = match self {
            Failure::Usage(message) => return (message.clone(), 2),
            Failure::Other(error) => error,
        };
        let mut said = error.to_string();
        let mut message = format!("error: {said}");
        let mut cause = error.source();
        while let Some(source) = cause {
            let reason = source.to_string();
            // Most messages tell their cause already.
            if !said.contains(&reason) {
                message.push_str(&format!("\n  because: {reason}"));
                said = reason;
            }
            cause = source.source();
        }
        (message, 1)
    }
}
