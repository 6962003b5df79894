//! From axes to settings: every combination of their values, each with a name and a folder of its own.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use crate::recipe::{alternatives, FieldPath, Origin, Override, Segment};

/// Longest name of a folder, characters.
const LONGEST: usize = 100;
/// Most runs of a sweep: settings times seeds.
pub const MOST_RUNS: u64 = 10_000;

/// Refuses a grid of more runs than a sweep may have, before any of its settings is made.
///
/// # Errors
/// There are more: in words, with the numbers that are multiplied.
pub fn affordable(axes: &[Vec<Choice>], seeds: u64) -> Result<(), String> {
    let factors = axes.iter().map(|axis| axis.len() as u64).chain([seeds]);
    let runs = factors.clone().fold(1u64, u64::saturating_mul);
    if runs <= MOST_RUNS {
        return Ok(());
    }
    let factors: Vec<String> = factors.filter(|&factor| factor > 1).map(|f| f.to_string()).collect();
    let more = if runs == u64::MAX { "at least " } else { "" };
    Err(format!("expected at most {MOST_RUNS} runs, got {more}{runs} ({})", factors.join(" x ")))
}

/// One value of one axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The fields that it sets and their values; a single entry without a path for one that has a name.
    parts: Vec<(Option<FieldPath>, String)>,
    overrides: Vec<Override>,
}

impl Choice {
    /// A value that somebody named.
    pub fn named(name: &str, overrides: Vec<Override>) -> Self {
        Choice { parts: vec![(None, name.to_owned())], overrides }
    }
}

/// One combination of the values of all axes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Name: `image_mask=Random(0.5), batch=256`.
    pub name: String,
    /// The same as a folder: `image_mask=Random-0.5,batch=256`.
    pub folder: String,
    /// Overrides of the recipe.
    pub overrides: Vec<Override>,
}

/// The values of `PATH=V1,V2,...`, or of `PATH,PATH,...=(V1,V2,...),(...)`: fields that change together. `origin` is
/// where the text was written.
///
/// # Errors
/// The text is wrong: in words.
pub fn values(text: &str, origin: Option<Origin>) -> Result<Vec<Choice>, String> {
    let (paths, values) = split(text)?;
    let written = |value: &str, path: &FieldPath| -> (Option<FieldPath>, String) {
        (Some(path.clone()), value.to_owned())
    };
    let found = alternatives(values).map_err(|(_, message)| format!("in `{values}`: {message}"))?;
    // More than one axis may have could also not be told apart in time.
    if found.len() as u64 > MOST_RUNS {
        return Err(format!("expected at most {MOST_RUNS} values, got {}", found.len()));
    }
    let found = found.into_iter().map(|span| &values[span]);
    let mut choices = Vec::new();
    for value in found {
        let each: Vec<&str> = match paths.len() {
            1 => vec![value],
            fields => together(value, fields)?,
        };
        let overrides = paths
            .iter()
            .zip(&each)
            .map(|((path, _), value)| Override { text: format!("{path}={value}"), origin: origin.clone() });
        let overrides = overrides.collect();
        let parts = paths.iter().zip(&each).map(|((_, path), value)| written(value, path)).collect();
        choices.push(Choice { parts, overrides });
    }
    for (index, choice) in choices.iter().enumerate() {
        if choices[..index].iter().any(|other| other.parts == choice.parts) {
            let value: Vec<&str> = choice.parts.iter().map(|(_, value)| value.as_str()).collect();
            return Err(format!("the value {} is given twice", value.join(", ")));
        }
    }
    Ok(choices)
}

/// Checks that `PATH=VALUE` is one override and no axis.
///
/// # Errors
/// It is none: in words.
pub fn single(text: &str) -> Result<(), String> {
    let (paths, values) = split(text)?;
    if paths.len() > 1 {
        return Err("one override sets one field; write several".into());
    }
    match alternatives(values).as_deref() {
        Ok([_]) => Ok(()),
        Ok(several) => {
            Err(format!("{} values where one is expected; several values are an axis", several.len()))
        }
        Err((_, message)) => Err(format!("in `{values}`: {message}")),
    }
}

/// Paths, each as written and as it is read.
type Paths<'a> = Vec<(&'a str, FieldPath)>;

/// The paths and the values.
fn split(text: &str) -> Result<(Paths<'_>, &str), String> {
    let Some((paths, values)) = text.split_once('=') else {
        return Err("expected PATH=VALUE, or PATH=V1,V2,... to vary a field".into());
    };
    let mut read = Vec::new();
    for path in paths.split(',').map(str::trim) {
        let parsed: FieldPath = path.parse()?;
        if parsed.to_string() == "seed" {
            return Err("the seed is varied by --seeds, or `seeds` in a study".into());
        }
        if read.iter().any(|(_, other)| *other == parsed) {
            return Err(format!("`{path}` is named twice"));
        }
        read.push((path, parsed));
    }
    Ok((read, values))
}

/// The values in the parentheses of a field group.
fn together(value: &str, fields: usize) -> Result<Vec<&str>, String> {
    let inside = value.strip_prefix('(').and_then(|value| value.strip_suffix(')'));
    let expected =
        || format!("expected ({}) for the {fields} fields, got {value}", vec!["VALUE"; fields].join(", "));
    let inside = inside.ok_or_else(expected)?;
    let values = alternatives(inside).map_err(|(_, message)| format!("in `{value}`: {message}"))?;
    match values.len() == fields {
        true => Ok(values.into_iter().map(|span| &inside[span]).collect()),
        false => Err(expected()),
    }
}

/// Every combination, the last axis varying fastest. `fixed` are overrides of all. An axis of a single value without
/// a name is an override too and does not show in names.
pub fn settings(fixed: &[Override], axes: &[Vec<Choice>]) -> Vec<Setting> {
    let named = |axis: &Vec<Choice>| axis.len() > 1 || axis.iter().any(|choice| choice.parts[0].0.is_none());
    let paths: Vec<&FieldPath> = axes
        .iter()
        .filter(|axis| named(axis))
        .flat_map(|axis| axis[0].parts.iter().filter_map(|(path, _)| path.as_ref()))
        .collect();
    let mut combinations: Vec<(Vec<String>, Vec<Override>)> = vec![(Vec::new(), fixed.to_vec())];
    for axis in axes {
        let shown = named(axis);
        combinations = combinations
            .into_iter()
            .flat_map(|(names, overrides)| {
                let extended = |choice: &Choice| {
                    let (mut names, mut overrides) = (names.clone(), overrides.clone());
                    overrides.extend(choice.overrides.iter().cloned());
                    if shown {
                        names.extend(choice.parts.iter().map(|(path, value)| match path {
                            Some(path) => format!("{}={value}", short(path, &paths)),
                            None => value.clone(),
                        }));
                    }
                    (names, overrides)
                };
                axis.iter().map(extended).collect::<Vec<_>>()
            })
            .collect();
    }
    let mut settings: Vec<Setting> = Vec::with_capacity(combinations.len());
    let mut folders = HashSet::new();
    for (names, overrides) in combinations {
        let name = match names.is_empty() {
            true => "recipe".to_owned(),
            false => names.join(", "),
        };
        let folder = folder(&names.join(","));
        // Two names may differ in what no folder is called by.
        let taken = !folders.insert(folder.to_ascii_lowercase());
        let folder = if taken { format!("{folder}-{}", digest(&name)) } else { folder };
        settings.push(Setting { name, folder, overrides });
    }
    settings
}

/// The last field of a path, or all of it where that is also the last of another or no field.
fn short(path: &FieldPath, all: &[&FieldPath]) -> String {
    let last = |path: &FieldPath| path.segments.last().cloned();
    let same = all.iter().filter(|other| **other != path && last(other) == last(path)).count();
    match last(path) {
        Some(Segment::Field(name)) if same == 0 => name,
        _ => path.to_string(),
    }
}

/// A name as a folder that needs no quotes in a shell.
fn folder(name: &str) -> String {
    let mut folder = String::new();
    for c in name.chars() {
        let plain = c.is_alphanumeric() || matches!(c, '.' | '_' | '=' | ',' | '+' | '-');
        match plain {
            true => folder.push(c),
            false if folder.ends_with('-') || folder.ends_with('=') => {}
            false => folder.push('-'),
        }
    }
    let folder = folder.trim_matches(['-', '.']).replace("-,", ",");
    let folder = if folder.is_empty() { "recipe".to_owned() } else { folder };
    match folder.chars().count() > LONGEST {
        true => format!("{}-{}", folder.chars().take(LONGEST).collect::<String>(), digest(name)),
        false => folder,
    }
}

/// Eight characters that tell one name from another.
fn digest(name: &str) -> String {
    Sha256::digest(name.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(axes: &[&str]) -> Vec<String> {
        let axes: Vec<Vec<Choice>> = axes.iter().map(|axis| values(axis, None).unwrap()).collect();
        settings(&[], &axes).into_iter().map(|setting| setting.name).collect()
    }

    #[test]
    fn axes_multiply_and_the_last_varies_fastest() {
        let found = names(&["stages.0.image_mask=Keep,Random(0.5)", "seeds.x=9", "stages.0.batch=64,128"]);
        let expected = [
            "image_mask=Keep, batch=64",
            "image_mask=Keep, batch=128",
            "image_mask=Random(0.5), batch=64",
            "image_mask=Random(0.5), batch=128",
        ];
        assert_eq!(found, expected);
        assert_eq!(names(&["stages.0.batch=64"]), ["recipe"]);
        assert_eq!(names(&[]), ["recipe"]);
    }

    #[test]
    fn fields_that_change_together_are_one_axis() {
        let axis =
            values("stages.0.image_mask, stages[0].length=(Keep,Steps(9)), (Random(0.5), Steps(18))", None);
        let settings = settings(&[], &[axis.unwrap()]);
        let texts = |setting: &Setting| -> Vec<String> {
            setting.overrides.iter().map(|set| set.text.clone()).collect()
        };
        assert_eq!(texts(&settings[0]), ["stages.0.image_mask=Keep", "stages[0].length=Steps(9)"]);
        assert_eq!(texts(&settings[1]), ["stages.0.image_mask=Random(0.5)", "stages[0].length=Steps(18)"]);
        assert_eq!(settings[1].name, "image_mask=Random(0.5), length=Steps(18)");
        assert_eq!(settings[1].folder, "image_mask=Random-0.5,length=Steps-18");
    }

    #[test]
    fn names_are_told_apart() {
        let found = names(&["stages.0.batch=1,2", "stages.2.batch=1,2"]);
        assert_eq!(found[1], "stages[0].batch=1, stages[2].batch=2");
        let axis = ["a b", "a/b", "A b"].map(|name| Choice::named(name, Vec::new()));
        let folders: Vec<String> =
            settings(&[], &[axis.to_vec()]).into_iter().map(|setting| setting.folder).collect();
        assert_eq!(folders[0], "a-b");
        assert!(folders[1].starts_with("a-b-") && folders[2].starts_with("A-b-"), "{folders:?}");
        let long = Choice::named(&"x".repeat(300), Vec::new());
        assert!(settings(&[], &[vec![long]])[0].folder.len() < 120);
    }

    #[test]
    fn more_runs_than_a_sweep_may_have_are_refused_at_once() {
        let began = std::time::Instant::now();
        let axis = |n: usize| values(&format!("a.b={}", numbers(n)), None);
        assert!(affordable(&[axis(100).unwrap(), axis(100).unwrap()], 1).is_ok());
        let message = affordable(&[axis(100).unwrap(), axis(100).unwrap()], 80).unwrap_err();
        assert_eq!(message, "expected at most 10000 runs, got 800000 (100 x 100 x 80)");
        assert!(affordable(&[], 1_000_000_000).unwrap_err().contains("got 1000000000"));
        let many = vec![axis(1000).unwrap(); 9];
        assert!(affordable(&many, 1).unwrap_err().contains("at least"));
        assert!(axis(200_000).unwrap_err().contains("at most 10000 values, got 200000"));
        assert!(began.elapsed().as_secs() < 5);
    }

    fn numbers(n: usize) -> String {
        (0..n).map(|i| i.to_string()).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn what_makes_no_axis_is_explained() {
        for (text, because) in [
            ("stages.0.batch", "expected PATH=VALUE"),
            ("seed=0,1", "--seeds"),
            ("a.b=1,,2", "expected a value"),
            ("a.b=1,1", "the value 1 is given twice"),
            ("a,b=1,2", "expected (VALUE, VALUE) for the 2 fields, got 1"),
            ("a,b=(1,2,3)", "expected (VALUE, VALUE) for the 2 fields, got (1,2,3)"),
            ("a,a=(1,2)", "`a` is named twice"),
            ("a.b=Random(0.5", "this `(` is not closed"),
        ] {
            let message = values(text, None).unwrap_err();
            assert!(message.contains(because), "{text}: {message}");
        }
        assert!(single("a=1,2").unwrap_err().contains("2 values where one is expected"));
        assert!(single("a=[1,2]").is_ok());
    }
}
