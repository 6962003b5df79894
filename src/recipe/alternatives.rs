//! Several values in one override: what stands between commas that are inside no bracket and no string.

use std::ops::Range;

use super::scan::Scanner;

/// The bytes of each value of `text`, without blanks around: `Keep, Random(0.5)` has two, `(1, 2)` and
/// `/data/{00,01}.tar` one each. A comma at the end adds none.
///
/// # Errors
/// A bracket or a string that is not closed, or nothing between two commas: the bytes, and what is wrong with
/// them.
pub fn alternatives(text: &str) -> Result<Vec<Range<usize>>, (Range<usize>, String)> {
    let mut scanner = Scanner::new(text);
    let mut open: Vec<(usize, char)> = Vec::new();
    let mut found = Vec::new();
    let mut from = 0;
    loop {
        let at = scanner.at();
        if scanner.at_quoted() {
            scanner.string().map_err(|malformed| (malformed.span, malformed.message))?;
            continue;
        }
        match scanner.bump() {
            None => break,
            Some(c @ ('(' | '[' | '{')) => open.push((at, c)),
            Some(c @ (')' | ']' | '}')) => match (open.pop(), c) {
                (Some((_, '(')), ')') | (Some((_, '[')), ']') | (Some((_, '{')), '}') => {}
                (Some((opened, other)), _) => {
                    return Err((opened..at + 1, format!("`{other}` is closed by `{c}`")));
                }
                (None, _) => return Err((at..at + 1, format!("this `{c}` closes nothing"))),
            },
            Some(',') if open.is_empty() => {
                found.push(trimmed(text, from..at));
                from = at + 1;
            }
            Some(_) => {}
        }
    }
    if let Some((opened, c)) = open.pop() {
        return Err((opened..opened + 1, format!("this `{c}` is not closed")));
    }
    let last = trimmed(text, from..text.len());
    if !last.is_empty() || found.is_empty() {
        found.push(last);
    }
    match found.iter().find(|value| value.is_empty()) {
        Some(empty) if found.len() > 1 => Err((empty.clone(), "expected a value".into())),
        _ => Ok(found),
    }
}

/// The same bytes without blanks at either end.
fn trimmed(text: &str, span: Range<usize>) -> Range<usize> {
    let inside = &text[span.clone()];
    let start = span.start + (inside.len() - inside.trim_start().len());
    start..(start + inside.trim().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Result<Vec<&str>, String> {
        let found = alternatives(text).map_err(|(_, message)| message)?;
        Ok(found.into_iter().map(|span| &text[span]).collect())
    }

    #[test]
    fn only_commas_outside_of_brackets_and_strings_separate() {
        for (text, expected) in [
            ("256", vec!["256"]),
            ("Keep,Random(0.5), Random(0.75)", vec!["Keep", "Random(0.5)", "Random(0.75)"]),
            (
                "(Keep, Steps(9)),(Random(0.5), Steps(18)),",
                vec!["(Keep, Steps(9))", "(Random(0.5), Steps(18))"],
            ),
            ("[1, 2],[3]", vec!["[1, 2]", "[3]"]),
            (r#""a,b)","c""#, vec![r#""a,b)""#, r#""c""#]),
            (r##"r#"a,"b"#,c"##, vec![r##"r#"a,"b"#"##, "c"]),
            ("/a/{00,01}.tar,/b.tar", vec!["/a/{00,01}.tar", "/b.tar"]),
            ("", vec![""]),
        ] {
            assert_eq!(split(text).as_deref(), Ok(expected.as_slice()), "{text}");
        }
    }

    #[test]
    fn what_does_not_balance_is_named() {
        for (text, at, message) in [
            ("Random(0.5", 6..7, "this `(` is not closed"),
            ("Random(0.5]", 6..11, "`(` is closed by `]`"),
            ("0.5),1", 3..4, "this `)` closes nothing"),
            ("1,,2", 2..2, "expected a value"),
        ] {
            assert_eq!(alternatives(text), Err((at, message.to_owned())), "{text}");
        }
        assert!(alternatives("\"open").is_err());
    }
}
