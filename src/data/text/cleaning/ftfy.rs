//! `ftfy.fix_text` of Python's ftfy 6.3.1, with its default options.
//!
//! Ported, as no crate gives its text: plsfix 0.1.8 gives another one for 65 of 1,823 strings that it was held
//! against (Windows-1251 and -1257, escapes of terminals, references in text with tags), and may panic.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::UnicodeNormalization;

use super::{entities, mojibake};

/// Longest piece that is repaired at once, characters.
const LONGEST_PIECE: usize = 1_000_000;
/// Rounds of repairs; a round that changes nothing is the last. ftfy has no such limit, and only references
/// within references within ... need more than a few.
const MOST_ROUNDS: usize = 100;

static TERMINAL_ESCAPE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\x1b\[(?:\p{Nd}|;)*[a-zA-Z]").expect("a fixed expression"));

pub(super) fn fix_text(text: &str) -> Cow<'_, str> {
    // Most captions: nothing here would change them.
    if text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte) && byte != b'&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    // A tag anywhere says that the rest is HTML, whose references are meant.
    let mut unescape = true;
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        while !rest.is_empty() {
            let end = rest.char_indices().nth(LONGEST_PIECE).map_or(rest.len(), |(at, _)| at);
            let (piece, behind) = rest.split_at(end);
            unescape &= !piece.contains('<');
            out.push_str(&fix_piece(piece, unescape));
            rest = behind;
        }
    }
    Cow::Owned(out)
}

fn fix_piece(piece: &str, unescape: bool) -> String {
    let mut text = piece.to_owned();
    for _ in 0..MOST_ROUNDS {
        let next = if unescape { entities::unescape_sure(&text) } else { Cow::Borrowed(text.as_str()) };
        let next = mojibake::repaired(&next);
        let next = mojibake::without_c1(&next);
        let mut straight = String::with_capacity(next.len());
        next.chars().for_each(|character| push_plain(&mut straight, character));
        let next = straight.replace("\r\n", "\n").replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n");
        let next = TERMINAL_ESCAPE.replace_all(&next, "");
        let next: String = next.chars().filter(|&c| !is_unwanted(c)).nfc().collect();
        if next == text {
            break;
        }
        text = next;
    }
    text
}

/// Appends a character without what only print needs: ligatures, full and half width, curls of quotes.
fn push_plain(out: &mut String, character: char) {
    let plain = match character {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        'ŉ' => "'n",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        '\u{3000}' => " ",
        '\u{2BC}' | '\u{2018}'..='\u{201B}' => "'",
        '\u{201C}'..='\u{201F}' => "\"",
        '\u{FF01}'..='\u{FFEF}' => return out.extend(std::iter::once(character).nfkc()),
        _ => return out.push(character),
    };
    out.push_str(plain);
}

/// Control characters that show nothing and were hardly meant.
fn is_unwanted(character: char) -> bool {
    matches!(
        character,
        '\0'..='\u{8}' | '\u{B}' | '\u{E}'..='\u{1F}' | '\u{7F}' | '\u{206A}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFC}'
    )
}
