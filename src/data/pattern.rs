//! Which files a shard pattern means: braces as in a shell, then wildcards.

use std::path::{Path, PathBuf};

use super::location::Location;
use super::DataError;

/// Most paths that one pattern may stand for.
const MOST_PATHS: usize = 10_000_000;

/// The shards on this machine that a pattern matches, in the order of its braces; wildcards sorted by name.
///
/// # Errors
/// Nothing matches, or the pattern cannot be read. Where only some of the named shards exist, the missing ones
/// are told as a warning.
pub fn shards(pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    let (found, missing) = local(pattern)?;
    if found.is_empty() {
        return Err(DataError::NoShards { pattern: pattern.to_owned() });
    }
    let missing: Vec<_> = missing.into_iter().map(Location::File).collect();
    warn_of_missing(pattern, found.len(), &missing);
    Ok(found)
}

/// The files that a pattern matches, and those that it names and that do not exist.
pub(super) fn local(pattern: &str) -> Result<(Vec<PathBuf>, Vec<PathBuf>), DataError> {
    let invalid = |what: String| DataError::Invalid(format!("{pattern}: {what}"));
    let whole = Path::new(pattern);
    if whole.is_dir() {
        return Err(invalid(format!("is a folder; write {}", whole.join("*.tar").display())));
    }
    if whole.exists() {
        return Ok((vec![whole.to_owned()], Vec::new()));
    }
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in expand(pattern).map_err(invalid)? {
        let path = PathBuf::from(&name);
        if path.is_file() {
            found.push(path);
        } else if name.contains(['*', '?', '[']) {
            // As in a shell: `*` does not stand for hidden files.
            let options = glob::MatchOptions { require_literal_leading_dot: true, ..Default::default() };
            let matches = glob::glob_with(&name, options).map_err(|error| invalid(error.to_string()))?;
            found.extend(matches.filter_map(Result::ok).filter(|path| path.is_file()));
        } else {
            missing.push(path);
        }
    }
    Ok((found, missing))
}

pub(super) fn warn_of_missing(pattern: &str, found: usize, missing: &[Location]) {
    if let Some(first) = missing.first() {
        tracing::warn!(
            target: "flip::data",
            "{pattern}: {} of {} shards do not exist, the first is {first}",
            missing.len(),
            missing.len() + found,
        );
    }
}

/// Expands `{a,b}`, `{000..123}` and `{0..10..5}`, nested and several, as bash does; a brace that is neither
/// stays as it is.
///
/// # Errors
/// A brace is never closed, or there are too many paths.
pub fn expand(pattern: &str) -> Result<Vec<String>, String> {
    let Some(open) = pattern.find('{') else { return Ok(vec![pattern.to_owned()]) };
    let (head, inside, tail) = split_brace(pattern, open)?;
    let tails = expand(tail)?;
    let parts = split_commas(inside);
    let middles = if parts.len() > 1 {
        let mut middles = Vec::new();
        for part in parts {
            middles.extend(expand(part)?);
        }
        middles
    } else if let Some(range) = range(inside)? {
        range
    } else {
        expand(inside)?.into_iter().map(|inside| format!("{{{inside}}}")).collect()
    };
    if middles.len().saturating_mul(tails.len()) > MOST_PATHS {
        return Err(too_many());
    }
    Ok(middles
        .iter()
        .flat_map(|middle| tails.iter().map(move |tail| format!("{head}{middle}{tail}")))
        .collect())
}

fn too_many() -> String {
    format!("stands for more than {MOST_PATHS} paths")
}

/// What is before, inside and behind the brace that opens at `open`.
fn split_brace(pattern: &str, open: usize) -> Result<(&str, &str, &str), String> {
    let mut depth = 0usize;
    for (at, byte) in pattern.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Ok((&pattern[..open], &pattern[open + 1..at], &pattern[at + 1..]));
        }
    }
    Err(format!("the brace at character {} is never closed", pattern[..open].chars().count() + 1))
}

/// The parts between the commas that are in no inner brace.
fn split_commas(inside: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0usize);
    for (at, byte) in inside.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(&inside[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inside[start..]);
    parts
}

/// The numbers of `FIRST..LAST` or `FIRST..LAST..STEP`, padded with zeros where either end is.
fn range(inside: &str) -> Result<Option<Vec<String>>, String> {
    let parts: Vec<&str> = inside.split("..").collect();
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten()
    };
    let (first, last, step) = match parts[..] {
        [first, last] => (first, last, Some(1)),
        [first, last, step] => (first, last, number(step)),
        _ => return Ok(None),
    };
    let (Some(from), Some(to), Some(step)) = (number(first), number(last), step) else { return Ok(None) };
    let step = step.max(1);
    let steps = from.abs_diff(to) / step;
    if steps >= MOST_PATHS as u64 {
        return Err(too_many());
    }
    let padded = |text: &str| text.len() > 1 && text.starts_with('0');
    let width = if padded(first) || padded(last) { first.len().max(last.len()) } else { 0 };
    let value = |i: u64| if from <= to { from + i * step } else { from - i * step };
    Ok(Some((0..=steps).map(|i| format!("{:0width$}", value(i))).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn braces_expand_as_in_bash() {
        for (pattern, expected) in [
            ("a.tar", "a.tar"),
            ("{00008..00011}.tar", "00008.tar 00009.tar 00010.tar 00011.tar"),
            ("{8..11}", "8 9 10 11"),
            ("{3..1}", "3 2 1"),
            ("{0..10..5}", "0 5 10"),
            ("{01..3}", "01 02 03"),
            ("{a,b}/{0..1}.tar", "a/0.tar a/1.tar b/0.tar b/1.tar"),
            ("x{a,{b,c{1..2}}}y", "xay xby xc1y xc2y"),
            ("{a,}z", "az z"),
            ("{x}", "{x}"),
            ("{x..y}", "{x..y}"),
            ("{a}{1,2}", "{a}1 {a}2"),
        ] {
            assert_eq!(expand(pattern).unwrap().join(" "), expected, "{pattern}");
        }
    }

    #[test]
    fn impossible_patterns_say_why() {
        assert_eq!(expand("é{a,b").unwrap_err(), "the brace at character 2 is never closed");
        assert!(expand("{0..99999999999999999999999}").is_ok_and(|same| same.len() == 1));
        assert!(expand("{0..18446744073709551615}").unwrap_err().contains("more than"));
        assert!(expand("{0..9999}{0..9999}").unwrap_err().contains("more than"));
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        assert!(matches!(shards(&at("{0..3}.tar")), Err(DataError::NoShards { .. })));
        assert!(matches!(shards(&at("*.tar")), Err(DataError::NoShards { .. })));
        assert!(shards(&at("")).unwrap_err().to_string().contains("*.tar"));
        for name in ["2.tar", "0.tar", "{x}.tar", "b[1].tar"] {
            std::fs::write(at(name), b"").unwrap();
        }
        let names = |pattern: &str| -> Vec<String> {
            let found = shards(&at(pattern)).unwrap();
            found.iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(names("{0..3}.tar"), ["0.tar", "2.tar"]);
        assert_eq!(names("?.tar"), ["0.tar", "2.tar"]);
        assert_eq!(names("{2.*,0.tar}"), ["2.tar", "0.tar"]);
        assert_eq!(names("{x}.tar"), ["{x}.tar"]);
        assert_eq!(names("b[1].tar"), ["b[1].tar"]);
    }

    proptest! {
        #[test]
        fn any_text_expands_or_errs(pattern in "[a{},.0-9]{0,24}") {
            if let Ok(paths) = expand(&pattern) {
                prop_assert!(!paths.is_empty());
            }
        }

        #[test]
        fn a_padded_range_is_every_number_once(from in 0u64..500, count in 1u64..300, width in 3usize..8) {
            let to = from + count - 1;
            let got = expand(&format!("{{{from:0width$}..{to:0width$}}}")).unwrap();
            let want: Vec<String> = (from..=to).map(|i| format!("{i:0width$}")).collect();
            prop_assert_eq!(got, want);
        }

        #[test]
        fn alternatives_multiply(sizes in prop::collection::vec(2usize..4, 1..5)) {
            let brace = |n: &usize| format!("{{{}}}", (0..*n).map(|i| i.to_string()).collect::<Vec<_>>().join(","));
            let got = expand(&sizes.iter().map(brace).collect::<String>()).unwrap();
            prop_assert_eq!(got.len(), sizes.iter().product::<usize>());
            let mut sorted = got.clone();
            sorted.sort();
            sorted.dedup();
            prop_assert_eq!(&sorted, &got);
        }
    }
}
