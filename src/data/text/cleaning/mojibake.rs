//! UTF-8 that was read in another encoding, found and read again, as ftfy 6.3.1 does.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use regex::{bytes, Regex};

use super::code_pages::{windows_1252_of, CodePage, PAGES};

/// Rounds of reading again; a round that changes nothing is the last.
const MOST_ROUNDS: usize = 100;

/// UTF-8 in which a space stands for byte A0, as far as that is likely.
const SPACED: [&str; 6] = [
    r"[\xc2\xc3\xc5\xce\xd0\xd9][ ]",
    r"[\xe2\xe3][ ][\x80-\x84\x86-\x9f\xa1-\xbf]",
    r"[\xe0-\xe3][\x80-\x84\x86-\x9f\xa1-\xbf][ ]",
    r"[\xf0][ ][\x80-\xbf][\x80-\xbf]",
    r"[\xf0][\x80-\xbf][ ][\x80-\xbf]",
    r"[\xf0][\x80-\xbf][\x80-\xbf][ ]",
];
/// UTF-8 and CESU-8 in which bytes were lost: 1A, or at most one question mark, stands for each.
const LOSSY: [&str; 10] = [
    r"[\xc2-\xdf][\x1a]",
    r"[\xc2-\xc3][?]",
    r"\xed[\xa0-\xaf][\x1a?]\xed[\xb0-\xbf][\x1a?\x80-\xbf]",
    r"\xed[\xa0-\xaf][\x1a?\x80-\xbf]\xed[\xb0-\xbf][\x1a?]",
    r"[\xe0-\xef][\x1a?][\x1a\x80-\xbf]",
    r"[\xe0-\xef][\x1a\x80-\xbf][\x1a?]",
    r"[\xf0-\xf4][\x1a?][\x1a\x80-\xbf][\x1a\x80-\xbf]",
    r"[\xf0-\xf4][\x1a\x80-\xbf][\x1a?][\x1a\x80-\xbf]",
    r"[\xf0-\xf4][\x1a\x80-\xbf][\x1a\x80-\xbf][\x1a?]",
    r"\x1a",
];

struct Patterns {
    /// Sequences that are rare in text and frequent in mojibake.
    bad: Regex,
    /// Sequences that may be UTF-8 in any of the encodings.
    utf8: Regex,
    /// Characters before which nothing is UTF-8: in a large garble a part is not repaired.
    strict_continuation: Regex,
    /// UTF-8 in which a space stands for byte A0.
    spaced: bytes::Regex,
    /// UTF-8 with bytes that were lost.
    lossy: bytes::Regex,
}

static PATTERNS: LazyLock<Patterns> = LazyLock::new(|| {
    let (mut classes, mut bad): (HashMap<&str, &str>, Vec<&str>) = Default::default();
    for line in include_str!("mojibake.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        match line.split_once(" = ") {
            Some((name, class)) => drop(classes.insert(name, class)),
            None => bad.push(line),
        }
    }
    let fill = |pattern: &str| {
        classes.iter().fold(pattern.to_owned(), |p, (name, class)| p.replace(&format!("{{{name}}}"), class))
    };
    let text = |pattern: &str| Regex::new(&fill(pattern)).expect("a fixed expression");
    let binary = |patterns: &[&str]| {
        bytes::Regex::new(&format!("(?-u){}", patterns.join("|"))).expect("a fixed expression")
    };
    let continues = "[{utf8_continuation}]";
    Patterns {
        bad: text(&bad.join("|")),
        utf8: text(&format!(
            "^(?:[{{utf8_first_of_2}}]{continues}|[{{utf8_first_of_3}}](?:{continues}){{2,2}}\
             |[{{utf8_first_of_4}}](?:{continues}){{3,3}})+"
        )),
        strict_continuation: text("[{utf8_continuation_strict}]"),
        spaced: binary(&SPACED),
        lossy: binary(&LOSSY),
    }
});

/// Text as it was before it was read in a wrong encoding, once or several times.
pub(super) fn repaired(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for _ in 0..MOST_ROUNDS {
        match read_again(&text) {
            Some(better) => text = better.into(),
            None => break,
        }
    }
    text
}

/// Control characters of Latin-1 as what Windows-1252 has in their place.
pub(super) fn without_c1(text: &str) -> Cow<'_, str> {
    if !text.contains(is_c1) {
        return Cow::Borrowed(text);
    }
    text.chars().map(|c| if is_c1(c) { windows_1252_of(c) } else { c }).collect::<String>().into()
}

fn is_c1(character: char) -> bool {
    ('\u{80}'..='\u{9F}').contains(&character)
}

fn is_bad(text: &str) -> bool {
    PATTERNS.bad.is_match(text)
}

/// One round; nothing where it leaves the text as it is.
fn read_again(text: &str) -> Option<String> {
    if text.is_ascii() || !is_bad(text) {
        return None;
    }
    let changed = |better: String| (better != text).then_some(better);
    if let Some(better) = PAGES.iter().find_map(|page| decode(page, &page.encode(text)?)) {
        return changed(better);
    }
    let better = read_parts_again(text);
    if better != text {
        return Some(better);
    }
    changed(without_c1(text).into_owned())
}

/// The bytes as UTF-8, with what was lost on the way put back.
fn decode(page: &CodePage, bytes: &[u8]) -> Option<String> {
    let mut bytes = Cow::Borrowed(bytes);
    // In Mac Roman an en dash with a space would be one.
    if !page.mac && PATTERNS.spaced.is_match(&bytes) {
        bytes = with_a0(&bytes).into();
    }
    if page.sloppy {
        bytes = PATTERNS.lossy.replace_all(&bytes, "\u{FFFD}".as_bytes()).into_owned().into();
    }
    String::from_utf8(without_variants(&bytes)).ok()
}

/// Puts byte A0 back where it became a space.
fn with_a0(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 8);
    let mut rest = bytes;
    while let Some((&byte, behind)) = rest.split_first() {
        out.push(byte);
        rest = behind;
        // "à" as a word of its own keeps its space; the Portuguese contractions are one word.
        if let (0xC3, Some(word)) = (byte, behind.strip_prefix(b" ")) {
            let joined: [&[u8]; 5] = [b" ", b"quele", b"quela", b"quilo", b"s "];
            if !joined.iter().any(|start| word.starts_with(start)) {
                out.extend(b"\xA0 ");
                rest = word;
            }
        }
    }
    let restored = PATTERNS.spaced.replace_all(&out, |found: &bytes::Captures| {
        found[0].iter().map(|&byte| if byte == b' ' { 0xA0 } else { byte }).collect::<Vec<u8>>()
    });
    restored.into_owned()
}

/// Java's NUL and surrogates in six bytes (CESU-8) as UTF-8 has them.
fn without_variants(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(&byte) = rest.first() {
        match rest {
            [0xC0, 0x80, behind @ ..] => {
                out.push(0);
                rest = behind;
            }
            &[0xED, a @ 0xA0..=0xAF, b @ 0x80..=0xBF, 0xED, c @ 0xB0..=0xBF, d @ 0x80..=0xBF, ref behind @ ..] =>
            {
                let bits = |byte: u8, mask: u8, shift: u32| u32::from(byte & mask) << shift;
                let code =
                    bits(a, 0x0F, 16) + bits(b, 0x3F, 10) + bits(c, 0x0F, 6) + bits(d, 0x3F, 0) + 0x10000;
                let character = char::from_u32(code).unwrap_or('\u{FFFD}');
                out.extend(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest = behind;
            }
            _ => {
                out.push(byte);
                rest = &rest[1..];
            }
        }
    }
    out
}

/// Repairs what distinctly looks like UTF-8 within text that does not.
fn read_parts_again(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    let mut before = None;
    for (at, character) in text.char_indices() {
        let inside = before.is_some_and(|before: char| {
            PATTERNS.strict_continuation.is_match(before.encode_utf8(&mut [0; 4]))
        });
        before = Some(character);
        if at < copied || inside {
            continue;
        }
        let Some(found) = PATTERNS.utf8.find(&text[at..]) else { continue };
        let part = found.as_str();
        out.push_str(&text[copied..at]);
        // A part that is the whole would be tried for ever.
        match part.len() < text.len() && is_bad(part) {
            true => out.push_str(&repaired(part)),
            false => out.push_str(part),
        }
        copied = at + part.len();
    }
    out.push_str(&text[copied..]);
    out
}
