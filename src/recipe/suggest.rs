//! "Did you mean": the nearest of the names that are known.

/// The candidate that a person most likely meant, if any is near enough.
pub fn nearest<'a>(written: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let plain = |name: &str| name.to_lowercase().replace(['_', '-'], "");
    let same = candidates.iter().find(|candidate| plain(candidate) == plain(written));
    if let Some(same) = same {
        return Some(same);
    }
    let edits = |candidate: &str| strsim::damerau_levenshtein(&plain(written), &plain(candidate));
    let near = candidates.iter().map(|candidate| (edits(candidate), *candidate)).min()?;
    let tolerated = (written.chars().count() / 3).max(1);
    if near.0 <= tolerated {
        return Some(near.1);
    }
    // A name shortened or lengthened: `micro` for `micro_batch`, `learning_lr` for `lr`.
    let contains = |candidate: &&&str| {
        let (short, long) = (plain(written), plain(candidate));
        short.len() >= 4 && long.contains(&short) || long.len() >= 4 && short.contains(&long)
    };
    candidates.iter().find(contains).copied()
}

/// Names in backticks, separated by commas.
pub fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_find_the_name() {
        let names = ["image_mask", "text_mask", "micro_batch", "batch", "lr"];
        for (written, meant) in [
            ("image_maks", Some("image_mask")),
            ("imageMask", Some("image_mask")),
            ("microbatch", Some("micro_batch")),
            ("micro", Some("micro_batch")),
            ("Batch", Some("batch")),
            ("lR", Some("lr")),
            ("optimiser", None),
        ] {
            assert_eq!(nearest(written, &names), meant, "{written}");
        }
        assert_eq!(nearest("x", &[]), None);
    }
}
