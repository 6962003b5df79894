//! The frame of a page and its tables, as templates: whatever is put into one is escaped. No scripts, nothing to
//! download.

use std::path::Path;

use maud::{html, Markup, PreEscaped, Render, DOCTYPE};

use super::ReportError;
use crate::outside;
use crate::whole_file;

const STYLE: &str = include_str!("report.css");

/// Text from outside, such as a name, a caption or a recipe: without the secrets of URLs, and with control characters
/// written out. As any text in a template it is escaped, between tags and inside attributes.
pub(super) struct Text<T>(pub T);

impl<T: AsRef<str>> Render for Text<T> {
    fn render_to(&self, page: &mut String) {
        let text = outside::without_secrets(self.0.as_ref());
        // Templates escape all but the apostrophe, which ends an attribute in single quotes.
        for (index, piece) in outside::lines(&text).split('\'').enumerate() {
            if index > 0 {
                page.push_str("&#39;");
            }
            piece.render_to(page);
        }
    }
}

/// An SVG of [`super::chart`], which escaped its texts.
pub(super) fn figure(svg: &str) -> Markup {
    html! { figure { (PreEscaped(svg)) } }
}

/// Writes a page as a whole: a browser that reloads meanwhile sees the former page.
///
/// # Errors
/// The file cannot be written.
pub(super) fn write(title: &str, body: &Markup, path: &Path) -> Result<(), ReportError> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (Text(title)) " - flip" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (Text(title)) }
                (body)
            }
        }
        "\n"
    };
    whole_file::replace(path, page.into_string().as_bytes()).map_err(ReportError::io("write", path))
}

/// A number that matters, as a tile: what it is, its value, and what a reader needs to judge it.
pub(super) struct Tile {
    pub name: String,
    pub value: String,
    pub note: Option<String>,
}

impl Tile {
    /// A tile without a note, where there is a value.
    pub fn of(name: &str, value: Option<String>) -> Option<Tile> {
        Some(Tile { name: name.to_owned(), value: value?, note: None })
    }
}

/// Tiles beside each other.
pub(super) fn tiles(tiles: &[Tile]) -> Markup {
    html! {
        @if !tiles.is_empty() {
            dl.tiles {
                @for Tile { name, value, note } in tiles {
                    div {
                        dt { (Text(name)) }
                        dd { (Text(value)) }
                        @if let Some(note) = note { dd.note { (Text(note)) } }
                    }
                }
            }
        }
    }
}

/// A cell of a table.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    Words(String),
    /// Set to the right, in digits of one width.
    Number(String),
    /// The best number of its row.
    Best(String),
}

impl Cell {
    /// Words.
    pub fn words(text: impl Into<String>) -> Cell {
        Cell::Words(text.into())
    }

    /// A number.
    pub fn number(text: impl Into<String>) -> Cell {
        Cell::Number(text.into())
    }

    fn parts(&self) -> (&str, Option<&'static str>) {
        match self {
            Cell::Words(text) => (text, None),
            Cell::Number(text) => (text, Some("number")),
            Cell::Best(text) => (text, Some("number best")),
        }
    }
}

/// A table that scrolls where a window is narrower. `body` are its rows.
pub(super) fn table(header: &[Cell], body: &Markup) -> Markup {
    html! {
        div.scroll {
            table {
                thead {
                    tr {
                        @for (text, class) in header.iter().map(Cell::parts) {
                            th class=[class] { (Text(text)) }
                        }
                    }
                }
                tbody { (body) }
            }
        }
    }
}

/// A row.
pub(super) fn row(cells: &[Cell]) -> Markup {
    html! {
        tr {
            @for (text, class) in cells.iter().map(Cell::parts) {
                td class=[class] { (Text(text)) }
            }
        }
    }
}

/// A row above others that names what they are about; `columns` wide, with a smaller note.
pub(super) fn heading_row(columns: usize, name: &str, note: &str) -> Markup {
    html! {
        tr {
            th.subject colspan=(columns) {
                (Text(name))
                @if !note.is_empty() { " " span { (Text(note)) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_is_escaped_wherever_it_stands() {
        let hostile = "<script>a && \"b\" 'c'\n\u{1b}</script> https://h/a?sig=s3cret";
        let page = html! { p title=(Text(hostile)) { (Text(hostile)) } }.into_string();
        let escaped =
            "&lt;script&gt;a &amp;&amp; &quot;b&quot; &#39;c&#39;\n\\u{1b}&lt;/script&gt; https://h/a?...";
        assert_eq!(page, format!("<p title=\"{escaped}\">{escaped}</p>"));
    }
}
