//! Captions as open_clip cleans them before its byte-pair encoding: `ftfy.fix_text`, HTML's character references
//! read twice, white space collapsed, small letters (`open_clip/tokenizer.py`).

mod code_pages;
mod entities;
mod ftfy;
mod mojibake;

/// open_clip's `_clean_lower`.
pub(crate) fn open_clip(caption: &str) -> String {
    let fixed = ftfy::fix_text(caption);
    let once = entities::unescape(&fixed);
    let twice = entities::unescape(&once);
    let words: Vec<&str> = twice.split(is_space).filter(|word| !word.is_empty()).collect();
    // open_clip's expression drops this mark, which without case is a letter and with it none.
    words.join(" ").to_lowercase().replace('\u{345}', " ")
}

/// White space as Python's `str.split` has it: Unicode's, and the separators of ASCII.
fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1C}'..='\u{1F}').contains(&character)
}
