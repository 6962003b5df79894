//! The text of a recipe with its overrides spliced in. Everything downstream sees one text; the document
//! remembers where each byte came from, so that an error inside an overridden value points at the `--set`.

use std::ops::Range;

use super::override_text::{Origin, Override};

/// One text made of the recipe's file and of `--set` arguments.
#[derive(Debug, Clone)]
pub struct Document {
    /// The file as messages name it.
    name: String,
    file: String,
    arguments: Vec<Override>,
    text: String,
    pieces: Vec<Piece>,
}

/// Consecutive bytes of the text with one origin. Where `range` is as long as the piece, bytes correspond one
/// to one; else (quotes or a field name were added) the whole range stands for every byte.
#[derive(Debug, Clone)]
struct Piece {
    len: usize,
    source: Source,
    range: Range<usize>,
}

/// Text as a person wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The recipe's file.
    File,
    /// The `--set` argument of this index.
    Argument(usize),
}

/// A stretch of what a person wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub source: Source,
    /// Bytes of the source.
    pub span: Range<usize>,
}

impl Document {
    pub fn new(name: &str, file: &str, arguments: &[Override]) -> Self {
        let whole = Piece { len: file.len(), source: Source::File, range: 0..file.len() };
        Document {
            name: name.to_owned(),
            file: file.to_owned(),
            arguments: arguments.to_vec(),
            text: file.to_owned(),
            pieces: vec![whole],
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text to parse.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Text as a person wrote it.
    pub fn source(&self, source: Source) -> &str {
        match source {
            Source::File => &self.file,
            Source::Argument(index) => &self.arguments[index].text,
        }
    }

    /// File that an argument was written in, if any.
    pub fn origin(&self, source: Source) -> Option<&Origin> {
        match source {
            Source::File => None,
            Source::Argument(index) => self.arguments[index].origin.as_ref(),
        }
    }

    /// Replaces bytes of the text; each insertion is a text and the bytes of argument `argument` it stands for.
    pub fn splice(&mut self, span: Range<usize>, argument: usize, insertions: &[(&str, Range<usize>)]) {
        let mut pieces = Vec::with_capacity(self.pieces.len() + insertions.len() + 1);
        self.copy_pieces(0..span.start, &mut pieces);
        let mut inserted = String::new();
        for (text, range) in insertions {
            pieces.push(Piece { len: text.len(), source: Source::Argument(argument), range: range.clone() });
            inserted.push_str(text);
        }
        self.copy_pieces(span.end..self.text.len(), &mut pieces);
        pieces.retain(|piece| piece.len > 0);
        self.pieces = pieces;
        self.text.replace_range(span, &inserted);
    }

    /// Inserts `text` behind the bytes `span`; all of it stands for what was written there.
    pub fn insert_beside(&mut self, span: &Range<usize>, text: &str) {
        let origin = self.place(span);
        let mut pieces = Vec::with_capacity(self.pieces.len() + 2);
        self.copy_pieces(0..span.end, &mut pieces);
        pieces.push(Piece { len: text.len(), source: origin.source, range: origin.span });
        self.copy_pieces(span.end..self.text.len(), &mut pieces);
        self.pieces = pieces;
        self.text.insert_str(span.end, text);
    }

    fn copy_pieces(&self, span: Range<usize>, into: &mut Vec<Piece>) {
        let mut start = 0;
        for piece in &self.pieces {
            let (from, to) = (span.start.max(start), span.end.min(start + piece.len));
            if from < to {
                let range = if piece.range.len() == piece.len {
                    piece.range.start + (from - start)..piece.range.start + (to - start)
                } else {
                    piece.range.clone()
                };
                into.push(Piece { len: to - from, source: piece.source, range });
            }
            start += piece.len;
        }
    }

    /// Place of the beginning of `span`, clipped to one origin.
    pub fn place(&self, span: &Range<usize>) -> Place {
        let mut start = 0;
        for (position, piece) in self.pieces.iter().enumerate() {
            let last = position + 1 == self.pieces.len();
            if span.start < start + piece.len || last {
                if piece.range.len() != piece.len {
                    return Place { source: piece.source, span: piece.range.clone() };
                }
                let origin = |at: usize| piece.range.start + (at - start).min(piece.len);
                return Place {
                    source: piece.source,
                    span: origin(span.start)..origin(span.end.max(span.start)),
                };
            }
            start += piece.len;
        }
        Place { source: Source::File, span: 0..0 }
    }
}

/// Line and column of a byte, both from 1, the column in characters.
pub fn line_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The byte at a line and column, both from 1, the column in characters; clipped to the text.
pub fn byte_at(text: &str, line: usize, column: usize) -> usize {
    let mut start = 0;
    for _ in 1..line {
        match text[start..].find('\n') {
            Some(newline) => start += newline + 1,
            None => return text.len(),
        }
    }
    let on_line = text[start..].char_indices().nth(column.saturating_sub(1));
    on_line.map_or(text.len(), |(offset, _)| start + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_remembers_its_origin() {
        let arguments = ["b=22", "name=x"].map(|text| Override::from(text.to_owned()));
        let mut document = Document::new("r.ron", "(a: 1, b: 2)", &arguments);
        document.splice(10..11, 0, &[("22", 2..4)]);
        assert_eq!(document.text(), "(a: 1, b: 22)");
        assert_eq!(document.place(&(4..5)), Place { source: Source::File, span: 4..5 });
        assert_eq!(document.place(&(11..12)), Place { source: Source::Argument(0), span: 3..4 });
        assert_eq!(document.place(&(12..13)), Place { source: Source::File, span: 11..12 });

        document.splice(1..1, 1, &[("name: ", 0..4), ("\"x\"", 5..6), (", ", 0..4)]);
        assert_eq!(document.text(), "(name: \"x\", a: 1, b: 22)");
        assert_eq!(document.place(&(8..9)), Place { source: Source::Argument(1), span: 5..6 });
        assert_eq!(document.place(&(21..23)), Place { source: Source::Argument(0), span: 2..4 });
        assert_eq!(document.place(&(24..24)), Place { source: Source::File, span: 12..12 });
    }

    #[test]
    fn what_is_inserted_stands_for_what_it_was_inserted_beside() {
        let mut document = Document::new("r.ron", "(a: 1, b: 2)", &[]);
        document.insert_beside(&(4..5), ", c: (3, 4)");
        assert_eq!(document.text(), "(a: 1, c: (3, 4), b: 2)");
        assert_eq!(document.place(&(11..12)), Place { source: Source::File, span: 4..5 });
        assert_eq!(document.place(&(18..19)), Place { source: Source::File, span: 7..8 });
    }

    #[test]
    fn lines_and_columns_count_characters() {
        let text = "é: 1,\n  b: 2";
        assert_eq!(line_column(text, text.find('b').unwrap()), (2, 3));
        assert_eq!(line_column(text, text.find(':').unwrap()), (1, 2));
        assert_eq!(byte_at(text, 2, 3), text.find('b').unwrap());
        assert_eq!(byte_at(text, 9, 9), text.len());
    }
}
