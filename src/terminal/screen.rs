//! The terminal that bars are drawn on.

use std::io;
use std::sync::{Mutex, PoisonError};

use console::Term;
use indicatif::TermLike;

use super::write_all;

/// Fewest columns that bars are drawn for: a terminal may say that it has none.
const FEWEST_COLUMNS: u16 = 20;

/// The terminal behind standard error. It can go away while a run goes on, and indicatif panics where a bar cannot be
/// cleared: no error of the terminal reaches it.
#[derive(Debug)]
pub struct Screen {
    term: Term,
    /// Text to be drawn with the next [`flush`](TermLike::flush). Not the buffer of `term`, which grows without end
    /// once the terminal is gone.
    drawn: Mutex<Vec<u8>>,
}

impl Screen {
    /// The terminal, where standard error is one that can draw bars.
    pub fn open() -> Option<Screen> {
        let term = Term::stderr();
        let draws = term.is_term() && !console::is_dumb();
        draws.then(|| Screen { term, drawn: Mutex::default() })
    }

    fn draw(&self, text: &str) -> io::Result<()> {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(text.as_bytes());
        Ok(())
    }

    /// Moves the cursor `n` places in the direction that the last letter of an escape sequence names.
    fn moved(&self, n: usize, direction: char) -> io::Result<()> {
        match n {
            0 => Ok(()),
            n => self.draw(&format!("\u{1b}[{n}{direction}")),
        }
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        self.term.size().1.max(FEWEST_COLUMNS)
    }

    fn height(&self) -> u16 {
        self.term.size().0.max(1)
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'D')
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        self.draw(line).and_then(|()| self.draw("\n"))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.draw(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.draw("\r\u{1b}[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let drawn = std::mem::take(&mut *self.drawn.lock().unwrap_or_else(PoisonError::into_inner));
        // A terminal that is gone shows nothing, and the run goes on.
        let _ = write_all(&mut io::stderr().lock(), &drawn);
        Ok(())
    }
}
