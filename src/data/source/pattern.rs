//! Patterns of shards to files: braces as in a shell, then wildcards.

use std::path::{Path, PathBuf};

use crate::data::storage::disk::look;
use crate::data::storage::Location;
use crate::data::DataError;

/// Most paths that one pattern may stand for: four times the shards of LAION-2B.
const MOST_PATHS: usize = 1_000_000;
/// Most bytes of all paths that one pattern may stand for.
const MOST_BYTES: usize = 256 << 20;
/// Most of them that may have wildcards: each is a search of a folder.
const MOST_SEARCHES: usize = 10_000;
const WILDCARDS: [char; 3] = ['*', '?', '['];
/// Most braces within each other.
const DEEPEST: usize = 32;

/// The shards on this machine that a pattern matches, in the order of its braces; wildcards sorted by name.
///
/// # Errors
/// Nothing matches, or the pattern cannot be read. Where only some of the named shards exist, the missing ones
/// are named in a warning.
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
pub(crate) fn local(pattern: &str) -> Result<(Vec<PathBuf>, Vec<PathBuf>), DataError> {
    let invalid = |what: String| DataError::Invalid(format!("{pattern}: {what}"));
    let whole = Path::new(pattern);
    // A file that cannot be looked at is an error: taken for missing, it would change the set.
    let look = |path: &Path| look(path).map_err(|source| DataError::Io { path: path.into(), source });
    match look(whole)? {
        Some(folder) if folder.is_dir() => {
            return Err(invalid(format!("is a folder; write {}", whole.join("*.tar").display())))
        }
        Some(_) => return Ok((vec![whole.to_owned()], Vec::new())),
        None => {}
    }
    let is_file = |path: &Path| Ok::<_, DataError>(look(path)?.is_some_and(|there| there.is_file()));
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    let names = expand(pattern).map_err(invalid)?;
    let searches = names.iter().filter(|name| name.contains(WILDCARDS)).count();
    if searches > MOST_SEARCHES {
        let what =
            format!("stands for {searches} paths with wildcards; at most {MOST_SEARCHES} are searched for");
        return Err(invalid(what));
    }
    for name in names {
        let path = PathBuf::from(&name);
        if is_file(&path)? {
            found.push(path);
        } else if name.contains(WILDCARDS) {
            // As in a shell: `*` does not stand for hidden files.
            let options = glob::MatchOptions { require_literal_leading_dot: true, ..Default::default() };
            let matches = glob::glob_with(&name, options).map_err(|error| invalid(error.to_string()))?;
            for path in matches {
                let path =
                    path.map_err(|error| DataError::Io { path: error.path().into(), source: error.into() })?;
                if !is_file(&path)? {
                    continue;
                }
                if found.len() == MOST_PATHS {
                    return Err(invalid(format!("matches more than {MOST_PATHS} files")));
                }
                found.push(path);
            }
        } else {
            missing.push(path);
        }
    }
    Ok((found, missing))
}

pub(crate) fn warn_of_missing(pattern: &str, found: usize, missing: &[Location]) {
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
/// A brace is never closed or too deep, there are several `**`, or there are too many paths: that is counted before any
/// is made.
pub fn expand(pattern: &str) -> Result<Vec<String>, String> {
    let trees = pattern.split('/').filter(|part| *part == "**").count();
    if trees > 1 {
        return Err(format!("has {trees} times `**`; at most one can be searched in time"));
    }
    let braces = Braces::read(pattern)?;
    let size = braces.size();
    if size.paths > MOST_PATHS {
        return Err(format!("stands for more than {MOST_PATHS} paths"));
    }
    if size.bytes > MOST_BYTES {
        return Err(format!("stands for paths of more than {} MiB together", MOST_BYTES >> 20));
    }
    Ok(braces.expanded())
}

/// A pattern as a sequence of parts.
struct Braces<'a>(Vec<Segment<'a>>);

enum Segment<'a> {
    Text(&'a str),
    Range(Range),
    /// `{a,b}`.
    Either(Vec<Braces<'a>>),
    /// A brace that means nothing, which stays: `{x}`.
    Plain(Braces<'a>),
}

/// ListSize of the list that a pattern expands to; both numbers are the largest there is where they would overflow.
#[derive(Clone, Copy)]
struct ListSize {
    paths: usize,
    bytes: usize,
}

impl ListSize {
    /// Of every path of one with every path of the other behind it.
    fn times(self, other: ListSize) -> ListSize {
        let bytes = |a: ListSize, b: ListSize| a.bytes.saturating_mul(b.paths);
        ListSize {
            paths: self.paths.saturating_mul(other.paths),
            bytes: bytes(self, other).saturating_add(bytes(other, self)),
        }
    }

    fn plus(self, other: ListSize) -> ListSize {
        ListSize {
            paths: self.paths.saturating_add(other.paths),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

impl<'a> Braces<'a> {
    fn read(pattern: &'a str) -> Result<Self, String> {
        let mut rest = 0;
        Braces::sequence(pattern, &mut rest, &mut Vec::new())
    }

    /// The segments from `at` on, up to a comma or the end of the innermost brace, or to the end of the pattern; `open`
    /// has the places of the braces around.
    fn sequence(pattern: &'a str, at: &mut usize, open: &mut Vec<usize>) -> Result<Self, String> {
        let mut segments = Vec::new();
        let mut text = *at;
        while let Some(&byte) = pattern.as_bytes().get(*at) {
            match byte {
                b'{' => {
                    segments.push(Segment::Text(&pattern[text..*at]));
                    segments.push(Braces::brace(pattern, at, open)?);
                    text = *at;
                }
                b',' | b'}' if !open.is_empty() => break,
                _ => *at += 1,
            }
        }
        if let (Some(&brace), None) = (open.last(), pattern.as_bytes().get(*at)) {
            let character = pattern[..brace].chars().count() + 1;
            return Err(format!("the brace at character {character} is never closed"));
        }
        segments.push(Segment::Text(&pattern[text..*at]));
        Ok(Braces(segments))
    }

    /// The brace that opens at `at`, which is moved behind its end.
    fn brace(pattern: &'a str, at: &mut usize, open: &mut Vec<usize>) -> Result<Segment<'a>, String> {
        if open.len() == DEEPEST {
            return Err(format!("has more than {DEEPEST} braces within each other"));
        }
        let inside = *at + 1;
        open.push(*at);
        let mut either = Vec::new();
        loop {
            *at += 1;
            either.push(Braces::sequence(pattern, at, open)?);
            if pattern.as_bytes()[*at] == b'}' {
                break;
            }
        }
        open.pop();
        let range = Range::read(&pattern[inside..*at]);
        *at += 1;
        Ok(match (range, either.len()) {
            (Some(range), _) => Segment::Range(range),
            (None, 1) => Segment::Plain(either.remove(0)),
            (None, _) => Segment::Either(either),
        })
    }

    fn size(&self) -> ListSize {
        self.0.iter().fold(ListSize { paths: 1, bytes: 0 }, |size, segment| {
            size.times(match segment {
                Segment::Text(text) => ListSize { paths: 1, bytes: text.len() },
                Segment::Range(range) => range.size(),
                Segment::Either(either) => either
                    .iter()
                    .fold(ListSize { paths: 0, bytes: 0 }, |size, braces| size.plus(braces.size())),
                Segment::Plain(braces) => braces.size().times(ListSize { paths: 1, bytes: 2 }),
            })
        })
    }

    fn expanded(&self) -> Vec<String> {
        let mut paths = vec![String::new()];
        for segment in &self.0 {
            let endings = match segment {
                Segment::Text(text) => {
                    paths.iter_mut().for_each(|path| path.push_str(text));
                    continue;
                }
                Segment::Range(range) => range.values(),
                Segment::Either(either) => either.iter().flat_map(Braces::expanded).collect(),
                Segment::Plain(braces) => {
                    braces.expanded().into_iter().map(|inside| format!("{{{inside}}}")).collect()
                }
            };
            if let [ending] = &endings[..] {
                paths.iter_mut().for_each(|path| path.push_str(ending));
                continue;
            }
            let every = |path: &String| endings.iter().map(|e| format!("{path}{e}")).collect::<Vec<_>>();
            paths = paths.iter().flat_map(every).collect();
        }
        paths
    }
}

/// The numbers of `FIRST..LAST` or `FIRST..LAST..STEP`.
struct Range {
    from: u64,
    to: u64,
    step: u64,
    /// Digits, filled with zeros where either end is.
    width: usize,
}

impl Range {
    fn read(inside: &str) -> Option<Self> {
        let parts: Vec<&str> = inside.splitn(4, "..").collect();
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u64>().ok()).flatten()
        };
        let (first, last, step) = match parts[..] {
            [first, last] => (first, last, 1),
            [first, last, step] => (first, last, number(step)?),
            _ => return None,
        };
        let padded = |text: &str| text.len() > 1 && text.starts_with('0');
        let width = if padded(first) || padded(last) { first.len().max(last.len()) } else { 0 };
        Some(Range { from: number(first)?, to: number(last)?, step: step.max(1), width })
    }

    /// Numbers behind the first.
    fn steps(&self) -> u64 {
        self.from.abs_diff(self.to) / self.step
    }

    fn size(&self) -> ListSize {
        let paths = usize::try_from(self.steps()).unwrap_or(usize::MAX).saturating_add(1);
        let digits = self.from.max(self.to).max(1).ilog10() as usize + 1;
        ListSize { paths, bytes: paths.saturating_mul(digits.max(self.width)) }
    }

    fn values(&self) -> Vec<String> {
        let Range { from, to, step, width } = *self;
        let value = |i: u64| if from <= to { from + i * step } else { from - i * step };
        (0..=self.steps()).map(|i| format!("{:0width$}", value(i))).collect()
    }
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
        assert!(expand("{0..18446744073709551615}").unwrap_err().contains("more than 1000000 paths"));
        assert!(expand("{0..9999}{0..9999}").unwrap_err().contains("more than 1000000 paths"));
    }

    #[test]
    fn patterns_beyond_every_limit_are_refused_at_once() {
        let began = std::time::Instant::now();
        assert_eq!(expand(&"{a}".repeat(16_000)).unwrap(), ["{a}".repeat(16_000)]);
        let nested = format!("{}a{}", "{".repeat(20_000), "}".repeat(20_000));
        assert_eq!(expand(&nested).unwrap_err(), "has more than 32 braces within each other");
        let nested = format!("{}a", "{a,".repeat(20_000));
        assert!(expand(&nested).unwrap_err().contains("more than 32 braces"));
        assert!(expand("{0..9999999}").unwrap_err().contains("more than 1000000 paths"));
        assert!(expand(&"{0..99}".repeat(12)).unwrap_err().contains("more than 1000000 paths"));
        assert!(expand(&"{0..999999}".repeat(4_000)).unwrap_err().contains("more than 1000000 paths"));
        let long = format!("{{0..999999}}{}", "x".repeat(1000));
        assert_eq!(expand(&long).unwrap_err(), "stands for paths of more than 256 MiB together");
        let error = local("absent{00000..10000}/*").unwrap_err().to_string();
        assert!(error.contains("10001 paths with wildcards; at most 10000"), "{error}");
        let error = local(&"/**".repeat(6)).unwrap_err().to_string();
        assert!(error.contains("has 6 times `**`"), "{error}");
        assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    }

    #[test]
    fn as_many_paths_as_are_allowed_are_made() {
        let paths = expand("{000..999}/{000..999}.tar").unwrap();
        assert_eq!((paths.len(), &*paths[1_001]), (1_000_000, "001/001.tar"));
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
