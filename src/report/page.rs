//! The pieces of a page: head, sections, tables, text. No scripts, nothing to download.

use std::fmt::Write as _;
use std::path::Path;

use super::ReportError;
use crate::outside;
use crate::whole_file;

const STYLE: &str = include_str!("report.css");

/// Everything up to the first heading.
pub(super) fn head(page: &mut String, title: &str) {
    let title = escape(title);
    push(
        page,
        format_args!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{title} - flip</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        ),
    );
}

/// The numbers that matter first, as text; those that are not known are left out.
pub(super) fn facts(page: &mut String, facts: &[(&str, Option<String>)]) {
    if facts.iter().all(|(_, value)| value.is_none()) {
        return;
    }
    page.push_str("<dl>\n");
    for (what, value) in facts {
        if let Some(value) = value {
            push(page, format_args!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(what), escape(value)));
        }
    }
    page.push_str("</dl>\n");
}

/// Ends the page and writes it as a whole: a browser that reloads meanwhile sees the former page.
pub(super) fn finish(mut page: String, path: &Path) -> Result<(), ReportError> {
    page.push_str("</body>\n</html>\n");
    whole_file::replace(path, page.as_bytes()).map_err(ReportError::io("write", path))
}

/// A heading, as text.
pub(super) fn section(page: &mut String, heading: &str) {
    push(page, format_args!("<h2>{}</h2>\n", escape(heading)));
}

pub(super) fn begin_table(page: &mut String, header: &[(String, bool)]) {
    page.push_str("<div class=\"scroll\"><table>\n");
    table_row(page, "th", header);
}

/// Cells of text, and whether they are numbers.
pub(super) fn table_row(page: &mut String, tag: &str, cells: &[(String, bool)]) {
    page.push_str("<tr>");
    for (text, number) in cells {
        let class = if *number { " class=\"number\"" } else { "" };
        push(page, format_args!("<{tag}{class}>{}</{tag}>", escape(text)));
    }
    page.push_str("</tr>\n");
}

pub(super) fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("writing into a String cannot fail");
}

/// Text from outside as HTML: as text or as the value of an attribute in double quotes, without the secrets of URLs.
pub(super) fn escape(text: &str) -> String {
    outside::html(&outside::without_secrets(text)).into_owned()
}

/// Digits in groups of three.
pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
