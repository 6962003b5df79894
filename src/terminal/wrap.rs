//! Lines broken at spaces, so that a narrow terminal does not break them inside of words.

/// Breaks each line of a text before `columns`; what follows a break is indented by `hang`. Colours (`ESC [ ... m`) take
/// no column. A word that is longer than a line stays whole: it may be a path that somebody copies.
pub fn wrapped(text: &str, columns: usize, hang: usize) -> String {
    let mut broken = String::with_capacity(text.len());
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            broken.push('\n');
        }
        if width(line) <= columns {
            broken.push_str(line);
        } else {
            break_line(line, columns, hang.min(columns / 2), &mut broken);
        }
    }
    broken
}

fn break_line(line: &str, columns: usize, hang: usize, broken: &mut String) {
    let indent = line.len() - line.trim_start_matches(' ').len();
    broken.push_str(&line[..indent]);
    let (mut at, mut first) = (indent, true);
    // Several spaces are a gap of a table, which stays one where its line does.
    let mut gap = 0;
    for word in line[indent..].split(' ') {
        if word.is_empty() {
            gap += 1;
            continue;
        }
        let space = if first { 0 } else { 1 + gap };
        if !first && at + space + width(word) > columns {
            broken.push('\n');
            broken.extend(std::iter::repeat_n(' ', hang));
            at = hang;
        } else {
            broken.extend(std::iter::repeat_n(' ', space));
            at += space;
        }
        broken.push_str(word);
        at += width(word);
        (first, gap) = (false, 0);
    }
}

/// Characters of a text that take a column.
pub fn width(text: &str) -> usize {
    let (mut columns, mut escape) = (0, false);
    for c in text.chars() {
        match (escape, c) {
            (false, '\u{1b}') => escape = true,
            (false, _) => columns += 1,
            (true, 'm') => escape = false,
            (true, _) => {}
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_spaces_and_hang() {
        assert_eq!(wrapped("one two three four\nfive", 10, 2), "one two\n  three\n  four\nfive");
        assert_eq!(
            wrapped("  name     a long value of it\n", 22, 11),
            "  name     a long\n           value of it\n"
        );
        assert_eq!(wrapped("/a/path/that/is/long is", 10, 2), "/a/path/that/is/long\n  is");
        assert_eq!(wrapped("fits", 10, 2), "fits");
        assert_eq!(wrapped("", 10, 2), "");
    }

    #[test]
    fn colours_take_no_column() {
        let line = "\u{1b}[1;31merror\u{1b}[0m: five";
        assert_eq!(width(line), 11);
        assert_eq!(wrapped(line, 11, 2), line);
    }
}
