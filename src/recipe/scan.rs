//! Lexical pieces of RON: white space, comments, attributes, identifiers, strings, numbers.

use std::ops::Range;

/// A position in a RON text.
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

/// A lexical error.
pub struct Malformed {
    pub span: Range<usize>,
    pub message: String,
}

/// A number literal.
pub enum Number {
    /// `None`: wider than 128 bits.
    Integer(Option<i128>),
    Float(f64),
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Self {
        Scanner { text, at: 0 }
    }

    pub fn at(&self) -> usize {
        self.at
    }

    pub fn slice(&self, span: &Range<usize>) -> &'a str {
        &self.text[span.clone()]
    }

    pub fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub fn bump(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    pub fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn malformed(&self, from: usize, message: impl Into<String>) -> Malformed {
        Malformed { span: from..self.at, message: message.into() }
    }

    /// White space and comments; block comments nest.
    pub fn skip_blank(&mut self) -> Result<(), Malformed> {
        loop {
            let rest = self.rest();
            if rest.starts_with("//") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if rest.starts_with("/*") {
                self.block_comment()?;
            } else if rest.starts_with(is_blank) {
                self.bump();
            } else {
                return Ok(());
            }
        }
    }

    fn block_comment(&mut self) -> Result<(), Malformed> {
        let from = self.at;
        let mut depth = 0;
        loop {
            let rest = self.rest();
            if rest.starts_with("/*") {
                depth += 1;
                self.at += 2;
            } else if rest.starts_with("*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    return Ok(());
                }
            } else if self.bump().is_none() {
                let opened = Malformed { span: from..from + 2, message: "this comment never ends".into() };
                return Err(opened);
            }
        }
    }

    /// `#![schema = "..."]` and the like, before the value; ron itself judges what is inside.
    pub fn skip_attributes(&mut self) -> Result<(), Malformed> {
        self.skip_blank()?;
        while self.peek() == Some('#') {
            let from = self.at;
            loop {
                match self.peek() {
                    Some('"') => self.string()?,
                    Some(']') => {
                        self.bump();
                        break;
                    }
                    Some(_) => {
                        self.bump();
                    }
                    None => {
                        return Err(Malformed {
                            span: from..from + 1,
                            message: "this attribute never ends; expected `#![...]`".into(),
                        })
                    }
                }
            }
            self.skip_blank()?;
        }
        Ok(())
    }

    /// An identifier, plain or raw (`r#type`).
    pub fn identifier(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        if let Some(raw) = rest.strip_prefix("r#") {
            let continues = |c: char| is_identifier_part(c) || matches!(c, '.' | '+' | '-');
            let len = raw.find(|c| !continues(c)).unwrap_or(raw.len());
            if len == 0 {
                return None;
            }
            self.at += 2 + len;
            return Some(&raw[..len]);
        }
        if !rest.starts_with(|c: char| c == '_' || c.is_alphabetic()) || self.at_quoted() {
            return None;
        }
        let len = rest.find(|c| !is_identifier_part(c)).unwrap_or(rest.len());
        self.at += len;
        Some(&rest[..len])
    }

    /// True if a string, byte string or byte starts here.
    pub fn at_quoted(&self) -> bool {
        let rest = self.rest();
        let raw = |text: &str| text.trim_start_matches('#').starts_with('"');
        rest.starts_with('"')
            || rest.starts_with("b\"")
            || rest.starts_with("b'")
            || rest.strip_prefix("br").is_some_and(raw)
            || rest.strip_prefix('r').is_some_and(raw)
    }

    /// Skips a string, byte string or byte; ron itself judges the escapes.
    pub fn string(&mut self) -> Result<(), Malformed> {
        let from = self.at;
        self.eat('b');
        if self.peek() == Some('\'') {
            return self.character();
        }
        let raw = self.eat('r');
        let hashes = self.rest().len() - self.rest().trim_start_matches('#').len();
        self.at += hashes;
        self.eat('"');
        let end = format!("\"{}", "#".repeat(hashes));
        loop {
            if self.rest().starts_with(&end) {
                self.at += end.len();
                return Ok(());
            }
            let escape = self.bump();
            if escape == Some('\\') && !raw {
                self.bump();
            } else if escape.is_none() {
                let opened = from..(from + 1).min(self.text.len());
                return Err(Malformed { span: opened, message: "this string never ends".into() });
            }
        }
    }

    /// Skips a character literal.
    pub fn character(&mut self) -> Result<(), Malformed> {
        let from = self.at;
        self.eat('\'');
        if self.bump() == Some('\\') {
            let unicode = self.bump() == Some('u');
            while unicode && self.peek().is_some_and(|c| c != '\'' && c != '\n') {
                self.bump();
            }
        }
        if self.eat('\'') {
            Ok(())
        } else {
            Err(self.malformed(from, "a character literal holds one character; strings are in double quotes"))
        }
    }

    /// A number: `-1`, `65_536`, `0xff`, `1.5e-3`, `1u8`, `-inf`.
    pub fn number(&mut self) -> Result<Number, Malformed> {
        let from = self.at;
        let mut previous = ' ';
        while let Some(c) = self.peek() {
            let exponent_sign = matches!(c, '+' | '-') && matches!(previous, 'e' | 'E');
            let sign = matches!(c, '+' | '-') && self.at == from;
            if !(is_identifier_part(c) || c == '.' || sign || exponent_sign) {
                break;
            }
            previous = c;
            self.bump();
        }
        let literal = &self.text[from..self.at];
        number(literal).ok_or_else(|| self.malformed(from, format!("`{literal}` is not a number")))
    }
}

/// As ron's own list.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0B' | '\x0C')
        || matches!(c, '\u{85}' | '\u{200E}' | '\u{200F}' | '\u{2028}' | '\u{2029}')
}

fn is_identifier_part(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn number(literal: &str) -> Option<Number> {
    let (negative, unsigned) = match literal.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, literal.strip_prefix('+').unwrap_or(literal)),
    };
    if matches!(unsigned, "inf" | "NaN") {
        let magnitude: f64 = unsigned.parse().ok()?;
        return Some(Number::Float(if negative { -magnitude } else { magnitude }));
    }
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let digits: String = unsigned.chars().filter(|&c| c != '_').collect();
    let radix = match digits.get(..2) {
        Some("0x") => 16,
        Some("0o") => 8,
        Some("0b") => 2,
        _ => 10,
    };
    let body = if radix == 10 { digits.as_str() } else { &digits[2..] };
    let whole = without_suffix(body, &["i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"]);
    if !whole.is_empty() && whole.chars().all(|c| c.is_digit(radix)) {
        let magnitude = i128::from_str_radix(whole, radix).ok();
        return Some(Number::Integer(magnitude.map(|value| if negative { -value } else { value })));
    }
    let magnitude: f64 = without_suffix(body, &["f32", "f64"]).parse().ok()?;
    (radix == 10).then_some(Number::Float(if negative { -magnitude } else { magnitude }))
}

fn without_suffix<'a>(digits: &'a str, suffixes: &[&str]) -> &'a str {
    suffixes.iter().find_map(|suffix| digits.strip_suffix(suffix)).unwrap_or(digits)
}
