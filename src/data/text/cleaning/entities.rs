//! HTML's character references, as Python's `html.unescape` reads them and as ftfy does.

use std::borrow::Cow;

use htmlize::ENTITIES;

use super::code_pages::windows_1252_of;

/// Longest name without its semicolon, in characters.
const LONGEST_NAME: usize = 32;
/// Longest reference that ftfy looks at, in characters between `&` and `;`, without `#`.
const LONGEST_SURE: usize = 24;

/// `html.unescape` of Python: HTML 5's rules, with and without semicolons, the longest known name first. The
/// crate htmlize keeps the control characters and non-characters that Python drops, so only its names are used.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    replace(text, reference)
}

/// ftfy's `unescape_html`: only what ends in a semicolon and cannot be meant otherwise; and names in capitals.
pub(super) fn unescape_sure(text: &str) -> Cow<'_, str> {
    replace(text, |rest| {
        let name = rest.strip_prefix('&')?;
        let (numeric, name) = name.strip_prefix('#').map_or((false, name), |name| (true, name));
        let end = name.bytes().take(LONGEST_SURE + 1).position(|byte| !byte.is_ascii_alphanumeric())?;
        if end == 0 || name.as_bytes()[end] != b';' {
            return None;
        }
        let whole = &rest[..=end + 1 + usize::from(numeric)];
        if numeric {
            let (character, length) = reference(whole)?;
            // Read in part, or as the very sign that ends it.
            return (length == whole.len() && character != ";").then_some((character, length));
        }
        let known = named(whole).map(String::from).or_else(|| capital(whole))?;
        Some((known.into(), whole.len()))
    })
}

/// `text` with each `&` that `read` knows how to read replaced; `read` gets the text from there on and says what stands
/// for how many bytes.
fn replace(text: &str, read: impl Fn(&str) -> Option<(Cow<'static, str>, usize)>) -> Cow<'_, str> {
    let mut out = String::new();
    let mut copied = 0;
    let mut from = 0;
    while let Some(at) = text[from..].find('&').map(|at| from + at) {
        match read(&text[at..]) {
            Some((replacement, length)) => {
                out.push_str(&text[copied..at]);
                out.push_str(&replacement);
                copied = at + length;
                from = copied;
            }
            None => from = at + 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// The text that the reference at the start of `text` stands for, and the reference's length.
fn reference(text: &str) -> Option<(Cow<'static, str>, usize)> {
    let name = text.strip_prefix('&')?;
    if let Some(number) = name.strip_prefix('#') {
        let (digits, radix) = match number.strip_prefix(['x', 'X']) {
            Some(digits) => (digits, 16),
            None => (number, 10),
        };
        let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
        if end == 0 {
            return None;
        }
        let code = digits[..end].chars().fold(0u32, |code, digit| {
            code.saturating_mul(radix).saturating_add(digit.to_digit(radix).unwrap_or(0))
        });
        let rest = &digits[end..];
        let length = text.len() - rest.len() + usize::from(rest.starts_with(';'));
        return Some((numbered(code), length));
    }
    let ends = |c: char| matches!(c, '\t' | '\n' | '\x0c' | ' ' | '<' | '&' | '#' | ';');
    let mut end = name.len();
    for (count, (at, c)) in name.char_indices().enumerate() {
        if ends(c) || count == LONGEST_NAME {
            end = at;
            break;
        }
    }
    let whole = &text[..1 + end + usize::from(name[end..].starts_with(';'))];
    // With its semicolon, then ever shorter; one letter is no name.
    let mut lengths = (3..=whole.len()).rev().filter(|&length| whole.is_char_boundary(length));
    lengths.find_map(|length| Some((named(&whole[..length])?.into(), length)))
}

/// The characters of a name with its `&` and, where HTML wants one, its `;`.
fn named(entity: &str) -> Option<&'static str> {
    ENTITIES.get(entity.as_bytes()).and_then(|characters| std::str::from_utf8(characters).ok())
}

/// The capital letters of a name that is known in small ones and means nothing else.
fn capital(entity: &str) -> Option<String> {
    let small = entity.to_ascii_lowercase();
    if small.to_ascii_uppercase() != entity || reference(entity).is_some() {
        return None;
    }
    named(&small).map(str::to_uppercase)
}

/// A character by its number; nothing for what no document may have.
fn numbered(code: u32) -> Cow<'static, str> {
    let character = match char::from_u32(code) {
        None | Some('\0') => '\u{FFFD}',
        Some('\r') => '\r',
        Some(control @ '\u{80}'..='\u{9F}') => windows_1252_of(control),
        Some('\u{1}'..='\u{8}' | '\u{B}' | '\u{E}'..='\u{1F}' | '\u{7F}' | '\u{FDD0}'..='\u{FDEF}') => {
            return "".into()
        }
        Some(_) if code & 0xFFFE == 0xFFFE => return "".into(),
        Some(character) => character,
    };
    String::from(character).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_python_reads_them() {
        for (text, expected) in [
            ("&amp;amp; &amp", "&amp; &"),
            ("&notit; &notin; &not;", "¬it; ∉ ¬"),
            ("&#39;s &#x27 &#X27;", "'s ' '"),
            ("&#0; &#xD800; &#x110000; &#99999999999999;", "\u{FFFD} \u{FFFD} \u{FFFD} \u{FFFD}"),
            ("&#128; &#x81; &#153", "€ \u{81} ™"),
            ("a&#1;b&#xFDD0;c&#x1FFFE;d&#11;e", "abcde"),
            ("&#13;&#10;", "\r\n"),
            ("& &; &# &#; &#x; &é &xyz;", "& &; &# &#; &#x; &é &xyz;"),
            ("&ThickSpace;&NotEqualTilde;", "\u{205F}\u{200A}≂\u{338}"),
        ] {
            assert_eq!(unescape(text), expected, "{text}");
        }
    }

    #[test]
    fn only_sure_references_are_read_before_mojibake() {
        for (text, expected) in [
            ("&ntilde; &Ntilde; &NTILDE; &nTILDE;", "ñ Ñ Ñ &nTILDE;"),
            ("BUNDESSTRA&SZLIG;E", "BUNDESSTRASSE"),
            ("this&not that &copy 2020", "this&not that &copy 2020"),
            ("&#59; &#x3b; &#12", "&#59; &#x3b; &#12"),
            ("&#8217; &#x2019; &#1;x", "’ ’ x"),
        ] {
            assert_eq!(unescape_sure(text), expected, "{text}");
        }
    }
}
