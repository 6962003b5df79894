//! Text that came from outside (captions, file names, tensor names, URLs, messages of servers), made safe for the
//! place where it is shown: a terminal, a line of a list, HTML and SVG, Markdown.
//!
//! | for | function |
//! |---|---|
//! | a line of a terminal, a log, a list or a table | [`shown`] |
//! | a text of several lines, a finished SVG | [`lines`] |
//! | HTML | the templates of `report`, which escape |
//! | Markdown, text and cells of tables; code | [`markdown`]; [`code`], [`code_block`] |
//! | a URL, which may hold a password or a signature | [`url`], [`without_secrets`] |

use std::borrow::Cow;
use std::fmt::Write as _;

/// True if a character can steer a terminal, break a line, or turn the direction of what stands around it.
pub fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text on one line, with what could steer a terminal written out: `\n`, `\u{1b}`.
pub fn shown(text: &str) -> Cow<'_, str> {
    replaced(text, |c, out| {
        if !steers(c) {
            return false;
        }
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => out.extend(c.escape_unicode()),
        }
        true
    })
}

/// The same with its line breaks and tabs.
pub fn lines(text: &str) -> Cow<'_, str> {
    replaced(text, |c, out| {
        let replaced = steers(c) && c != '\n' && c != '\t';
        if replaced {
            out.extend(c.escape_unicode());
        }
        replaced
    })
}

/// The text for a line of Markdown, as text: no markup, no HTML, no link, no end of a table's cell.
pub fn markdown(text: &str) -> Cow<'_, str> {
    replaced(text, |c, out| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '!' | '$' => out.extend(['\\', c]),
            '\n' | '\r' | '\t' => out.push(' '),
            c if steers(c) => {
                // With its backslash escaped: Markdown would take it for one of its own.
                out.push('\\');
                out.extend(c.escape_unicode());
            }
            _ => return false,
        }
        true
    })
}

/// The text as code inside a line of Markdown.
pub fn code(text: &str) -> String {
    let text = shown(text);
    let fence = "`".repeat(backticks(&text) + 1);
    let space = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{fence}{space}{text}{space}{fence}")
}

/// Lines of text as a block of code in Markdown, in the language of that name.
pub fn code_block(language: &str, text: &str) -> String {
    let text = lines(text.trim_end());
    let fence = "`".repeat(backticks(&text).max(2) + 1);
    format!("{fence}{language}\n{text}\n{fence}")
}

/// The most backticks that stand side by side.
fn backticks(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

/// A copy with some characters written otherwise; the text itself where there are none. `replace` writes what stands for
/// a character and says whether it did.
fn replaced(text: &str, replace: impl Fn(char, &mut String) -> bool) -> Cow<'_, str> {
    let mut out = String::new();
    for (at, c) in text.char_indices() {
        let before = out.len();
        if replace(c, &mut out) {
            // The first that is replaced: what stands before it was not copied yet.
            if before == 0 && at > 0 {
                let own = std::mem::take(&mut out);
                out.reserve(text.len() + own.len());
                let _ = write!(out, "{}{own}", &text[..at]);
            }
        } else if before > 0 {
            out.push(c);
        }
    }
    match out.is_empty() {
        true => text.into(),
        false => out.into(),
    }
}

/// Stands for the query of a URL that is not shown.
pub const HIDDEN: &str = "?...";

/// A URL without user, password and query: `https://host/path?...`. What is no URL stays as it is, and so does a
/// wildcard of an object store, `s3://bucket/part-?.tar`, and what names variables of the environment and no secret:
/// `https://host/path?${SIGNATURE}`.
pub fn url(text: &str) -> Cow<'_, str> {
    match scheme(text, text.find("://")) {
        Some(0) => bare(text).map_or(text.into(), Cow::Owned),
        _ => text.into(),
    }
}

/// A text in which each URL is shown as [`url`] shows it. A URL ends at a space, a quote or an angle bracket, and where
/// one stands in round brackets or single quotes, at their end.
pub fn without_secrets(text: &str) -> Cow<'_, str> {
    let (mut out, mut copied, mut from) = (String::new(), 0, 0);
    while let Some(colon) = text[from..].find("://").map(|at| from + at) {
        from = colon + "://".len();
        let Some(start) = scheme(text, Some(colon)) else { continue };
        let closing = match text[..start].chars().next_back() {
            Some('(') => ')',
            Some('\'') => '\'',
            _ => '"',
        };
        let end = from + end(&text[from..], closing);
        let token = text[start..end].trim_end_matches([':', ',', ';', '.']);
        if let Some(bare) = bare(token) {
            out.push_str(&text[copied..start]);
            out.push_str(&bare);
            copied = start + token.len();
        }
        from = end;
    }
    if copied == 0 {
        return text.into();
    }
    out.push_str(&text[copied..]);
    out.into()
}

/// Bytes of a text that may belong to a URL. In RON and JSON a backslash ends it, unless it stands for one.
fn end(text: &str, closing: char) -> usize {
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && chars.next_if(|(_, next)| *next == '\\').is_some() {
            continue;
        }
        if c.is_whitespace() || c.is_control() || "\"<>`\\".contains(c) || c == closing {
            return at;
        }
    }
    text.len()
}

/// Beginning of the scheme that ends at `colon`, if there is one.
fn scheme(text: &str, colon: Option<usize>) -> Option<usize> {
    let before = &text.as_bytes()[..colon?];
    let long = before.iter().rev().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'+').count();
    (long > 0).then(|| before.len() - long)
}

/// A URL without what it keeps secret; none where there is nothing.
fn bare(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let host = after_user(scheme, rest);
    let query = host.find('?').filter(|at| {
        let query = &host[at + 1..];
        // Keys of object stores may have this sign in them, and patterns do: only what looks like parameters is hidden.
        let hides = http || query.contains('=') && !query.contains('/');
        hides && !query.is_empty() && query != &HIDDEN[1..] && !names_variables(query, '&')
    });
    match (host.len() < rest.len(), query) {
        (false, None) => None,
        (_, None) => Some(format!("{scheme}://{host}")),
        (_, Some(at)) => Some(format!("{scheme}://{}{HIDDEN}", &host[..at])),
    }
}

/// True if each part of a text is the name of a variable, `${NAME}`, or in a query `parameter=${NAME}`.
fn names_variables(text: &str, between: char) -> bool {
    let value = |part: &str| part.split_once('=').map_or(part, |(_, value)| value).to_owned();
    let name = |part: &str| {
        value(part).strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).map(str::to_owned)
    };
    text.split(between).all(|part| name(part).is_some_and(|name| is_variable(&name)))
}

/// True if a text can be the name of an environment variable.
pub fn is_variable(name: &str) -> bool {
    let word = |byte: u8| byte == b'_' || byte.is_ascii_alphanumeric();
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.bytes().all(word)
}

/// The rest of a URL behind user and password.
fn after_user<'a>(scheme: &str, rest: &'a str) -> &'a str {
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let at = match authority.rfind('@') {
        // abfss://container@account/...
        Some(at) if scheme.starts_with("abfs") && !authority[..at].contains(':') => None,
        Some(at) if names_variables(&authority[..at], ':') => None,
        Some(at) => Some(at),
        // A password with a slash that nobody encoded: what follows the colon is no port.
        None => {
            let port = authority.split_once(':').map_or("", |(_, port)| port);
            let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
            (!is_port || rest[authority.len()..].starts_with(['?', '#']) && !port.is_empty())
                .then(|| rest.rfind('@'))
                .flatten()
        }
    };
    at.map_or(rest, |at| &rest[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_written_out_and_everything_else_stays() {
        assert_eq!(shown("\u{1b}]0;title\u{7}a\r\nb\tc"), "\\u{1b}]0;title\\u{7}a\\r\\nb\\tc");
        assert_eq!(shown("\u{9b}31m\u{7f}\u{0}"), "\\u{9b}31m\\u{7f}\\u{0}");
        assert_eq!(shown("\u{202e}gnp.exe\u{2028}"), "\\u{202e}gnp.exe\\u{2028}");
        for same in ["", "größer → 3, 日本語, 👩‍🚀 \\ \"quoted\"", "עברית عربى"] {
            assert!(matches!(shown(same), Cow::Borrowed(text) if text == same));
        }
        assert_eq!(shown("é\u{1b}é"), "é\\u{1b}é");
    }

    #[test]
    fn markdown_takes_any_text_as_text() {
        assert_eq!(
            markdown("# a | [x](y) <b> `c`\n*d* ![i](j) \u{1b}"),
            "\\# a \\| \\[x\\](y) &lt;b&gt; \\`c\\` \\*d\\* \\!\\[i\\](j) \\\\u{1b}"
        );
        assert_eq!(code("a`b"), "``a`b``");
        assert_eq!(code("`a\n"), "`` `a\\n ``");
        assert_eq!(code_block("ron", "(a: \"```\")\n"), "````ron\n(a: \"```\")\n````");
        assert_eq!(markdown("a plain, clear (text) - 3.5 %"), "a plain, clear (text) - 3.5 %");
    }

    #[test]
    fn a_url_is_shown_without_user_password_and_query() {
        let cases = [
            ("https://host/a/00.tar?X-Amz-Signature=s3cret", "https://host/a/00.tar?..."),
            ("https://user:s3cret@host:8080/a.tar", "https://host:8080/a.tar"),
            ("http://token@host/a?b#c", "http://host/a?..."),
            ("HTTPS://u:s3@cret@host/a", "HTTPS://host/a"),
            ("https://user:s3/cr?et@host/a.tar", "https://host/a.tar"),
            ("https://user:12?et@host/a.tar", "https://host/a.tar"),
            ("https://host/{00..41}.tar?sig=a/b", "https://host/{00..41}.tar?..."),
            ("az://box/a.tar?sv=2024&sig=s3cret", "az://box/a.tar?..."),
            ("s3://key:s3cret@bucket/a.tar", "s3://bucket/a.tar"),
            ("https://host/a?sig=${SIG}&key=s3cret", "https://host/a?..."),
            ("https://host/a?${SIG}s3cret", "https://host/a?..."),
            ("https://user:${PASSWORD}@host/a", "https://host/a"),
        ];
        for (url, shown) in cases {
            assert_eq!(super::url(url), shown);
            assert_eq!(super::url(shown), shown);
        }
        for same in [
            "https://host/a@b/00.tar",
            "https://host:8080/a",
            "https://host/a?",
            "s3://bucket/part-?.tar",
            "s3://bucket/?/year=2024/a.tar",
            "abfss://box@account.dfs.core.windows.net/a.tar",
            "a/b.tar?c=d",
            "https://host/{0..9}.tar?${SIG}",
            "https://host/a?v=${VERSION}&sig=${SIG}",
            "https://${USER}:${PASSWORD}@host/a",
            "see https://host/a?b=c",
            "://x?y",
        ] {
            assert_eq!(super::url(same), same);
        }
    }

    #[test]
    fn a_text_keeps_all_but_the_secrets_of_its_urls() {
        let cases = [
            ("see https://host/a?sig=1, then http://u:p@h/b.", "see https://host/a?..., then http://h/b."),
            (
                "error for url (https://host/a?sig=1): timed out",
                "error for url (https://host/a?...): timed out",
            ),
            ("shards: [\"https://h/a?s=(1)\", \"b?c=d\"]", "shards: [\"https://h/a?...\", \"b?c=d\"]"),
            ("\"https://h/a?s=\\\\1\"", "\"https://h/a?...\""),
            ("'https://h/a?s=1'", "'https://h/a?...'"),
            ("{\"u\":\"https://h/a?s=1\\n\"}", "{\"u\":\"https://h/a?...\\n\"}"),
            ("größer: https://h/ä?s=ö größer", "größer: https://h/ä?... größer"),
        ];
        for (text, shown) in cases {
            assert_eq!(without_secrets(text), shown);
            assert_eq!(without_secrets(shown), shown);
        }
        assert!(matches!(without_secrets("a://b and c?d=e"), Cow::Borrowed(_)));
        assert_eq!(without_secrets("https:// https://"), "https:// https://");
    }
}
