//! Rust sources as tokens: enough to find modules, imports and paths in them, and no more.

/// A token that matters for names; comments, strings and numbers are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    Word(String),
    /// `::`
    Path,
    Sign(char),
}

impl Token {
    pub fn is_word(&self, word: &str) -> bool {
        matches!(self, Token::Word(own) if own == word)
    }

    pub fn is_sign(&self, sign: char) -> bool {
        *self == Token::Sign(sign)
    }
}

/// The tokens of a source without what is compiled for its tests alone.
pub fn tokens(source: &str) -> Vec<Token> {
    without_tests(&all_tokens(source))
}

fn all_tokens(source: &str) -> Vec<Token> {
    let text: Vec<char> = source.chars().collect();
    let at = |i: usize| text.get(i).copied().unwrap_or('\0');
    let mut found = Vec::new();
    let mut i = 0;
    while i < text.len() {
        let c = text[i];
        if c == '/' && at(i + 1) == '/' {
            i = end_of_line(&text, i);
        } else if c == '/' && at(i + 1) == '*' {
            i = end_of_comment(&text, i);
        } else if let Some(hashes) = raw_string(&text, i) {
            i = end_of_raw_string(&text, i, hashes);
        } else if c == '"' || (c == 'b' && at(i + 1) == '"') {
            i = end_of_string(&text, i + usize::from(c == 'b'));
        } else if c == '\'' {
            i = end_of_quote(&text, i);
        } else if c.is_alphabetic() || c == '_' {
            let end = (i..text.len()).find(|&j| !is_word_part(text[j])).unwrap_or(text.len());
            found.push(Token::Word(text[i..end].iter().collect()));
            i = end;
        } else if c.is_ascii_digit() {
            i = (i..text.len()).find(|&j| !is_word_part(text[j])).unwrap_or(text.len());
        } else if c == ':' && at(i + 1) == ':' {
            found.push(Token::Path);
            i += 2;
        } else {
            if !c.is_whitespace() {
                found.push(Token::Sign(c));
            }
            i += 1;
        }
    }
    found
}

fn is_word_part(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn end_of_line(text: &[char], from: usize) -> usize {
    (from..text.len()).find(|&i| text[i] == '\n').unwrap_or(text.len())
}

fn end_of_comment(text: &[char], from: usize) -> usize {
    let mut depth = 0;
    let mut i = from;
    while i + 1 < text.len() {
        match (text[i], text[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    text.len()
}

/// Number of `#` where a raw string begins.
fn raw_string(text: &[char], from: usize) -> Option<usize> {
    if from > 0 && is_word_part(text[from - 1]) {
        return None;
    }
    let rest = &text[from..];
    let rest = rest.strip_prefix(&['b']).unwrap_or(rest).strip_prefix(&['r'])?;
    let hashes = rest.iter().take_while(|&&c| c == '#').count();
    (rest.get(hashes) == Some(&'"')).then_some(hashes)
}

fn end_of_raw_string(text: &[char], from: usize, hashes: usize) -> usize {
    let mut i = (from..text.len()).find(|&i| text[i] == '"').unwrap_or(text.len()) + 1;
    while i < text.len() {
        if text[i] == '"' && text[i + 1..].iter().take_while(|&&c| c == '#').count() >= hashes {
            return i + 1 + hashes;
        }
        i += 1;
    }
    text.len()
}

fn end_of_string(text: &[char], quote: usize) -> usize {
    let mut i = quote + 1;
    while i < text.len() && text[i] != '"' {
        i += if text[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// A character literal ends behind its second quote; a lifetime is passed over as a quote and a word.
fn end_of_quote(text: &[char], quote: usize) -> usize {
    match (text.get(quote + 1), text.get(quote + 2)) {
        (Some('\\'), _) => (quote + 3..text.len()).find(|&i| text[i] == '\'').unwrap_or(text.len()) + 1,
        (Some(_), Some('\'')) => quote + 3,
        _ => (quote + 1..text.len()).find(|&i| !is_word_part(text[i])).unwrap_or(text.len()),
    }
}

/// Leaves out every item under `#[cfg(test)]`, and macros that define others.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        if is_test_only(&tokens[i..]) {
            i = end_of_item(tokens, i + TEST_ONLY);
        } else {
            kept.push(tokens[i].clone());
            i += 1;
        }
    }
    kept
}

/// Tokens of `#[cfg(test)]`.
const TEST_ONLY: usize = 7;

fn is_test_only(tokens: &[Token]) -> bool {
    let is = |i: usize, word: &str| tokens.get(i).is_some_and(|token| token.is_word(word));
    let sign = |i: usize, sign: char| tokens.get(i).is_some_and(|token| token.is_sign(sign));
    sign(0, '#')
        && sign(1, '[')
        && is(2, "cfg")
        && sign(3, '(')
        && is(4, "test")
        && sign(5, ')')
        && sign(6, ']')
}

/// Behind the block or the semicolon or, for a field or an argument, the comma that ends an item.
fn end_of_item(tokens: &[Token], from: usize) -> usize {
    let mut depth = 0usize;
    for (i, token) in tokens.iter().enumerate().skip(from) {
        match token {
            Token::Sign('{' | '(' | '[') => depth += 1,
            Token::Sign('}' | ')' | ']') if depth == 0 => return i,
            Token::Sign(close @ ('}' | ')' | ']')) => {
                depth -= 1;
                if depth == 0 && *close == '}' {
                    return i + 1;
                }
            }
            Token::Sign(';' | ',') if depth == 0 => return i + 1,
            _ => {}
        }
    }
    tokens.len()
}

#[test]
fn comments_strings_and_tests_are_no_code() {
    let source = r##"
        use a::b; // crate::c
        /* crate::d /* nested */ */
        const E: &str = "crate::f \" crate::g";
        const H: &str = r#"crate::i " "#;
        fn j<'a>(k: &'a str) -> char { '"' }
        #[cfg(test)]
        mod tests { use super::*; }
        struct L { #[cfg(test)] path: crate::m::N, o: u8 }
    "##;
    let words: Vec<String> = tokens(source)
        .into_iter()
        .filter_map(|token| match token {
            Token::Word(word) => Some(word),
            _ => None,
        })
        .collect();
    let expected = "use a b const E str const H str fn j k str char struct L o u8";
    assert_eq!(words.join(" "), expected);
}
