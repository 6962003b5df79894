//! From a [`Recipe`] back to RON: what a run saves beside its results.

use ron::ser::PrettyConfig;
use serde::Serialize;

use super::read::options;
use super::Recipe;
use crate::outside;

/// The fully resolved recipe, every default written out, as RON that reads back to an equal recipe, but for the secrets
/// of URLs: a folder that is shown around or copied holds none.
///
/// # Panics
/// A recipe built in code holds a path that is not UTF-8; one that was read cannot.
pub fn write(recipe: &Recipe) -> String {
    written(recipe)
}

/// The same of any document that is read as a recipe is.
///
/// # Panics
/// As [`write()`].
pub fn written<T: Serialize>(document: &T) -> String {
    let pretty = PrettyConfig::new().compact_arrays(false);
    let text = options().to_string_pretty(document, pretty);
    let mut text = text.expect("everything a document holds has a RON form, except paths that are not UTF-8");
    text.push('\n');
    outside::without_secrets(&plain_none(&text)).into_owned()
}

/// ron writes a variant that is called None as `r#None`, so that it is no absent option. No field of a recipe is an option
/// of such a variant. Strings have no line breaks when they are written, so none ends a line like this.
fn plain_none(text: &str) -> String {
    text.replace(": r#None,\n", ": None,\n")
}

/// The first line in which two recipes differ as they are written out: that of each. None where they are equal, or where
/// only the secrets of URLs differ: a signature is another one every day, the data is the same.
pub fn difference(one: &Recipe, other: &Recipe) -> Option<(String, String)> {
    if one == other {
        return None;
    }
    let (one, other) = (write(one), write(other));
    if one == other {
        return None;
    }
    let first = one.lines().zip(other.lines()).find(|(one, other)| one != other);
    Some(first.map_or_else(Default::default, |(one, other)| (one.trim().into(), other.trim().into())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use serde_json::{json, Value};

    use super::*;
    use crate::recipe::shape::{schema, Shape};
    use crate::recipe::{check, shape, syntax};

    /// Any value that the schema allows, as JSON.
    fn sample(shape: &Shape, rng: &mut impl Rng) -> Value {
        match shape {
            Shape::Option(_) if rng.gen_bool(0.5) => Value::Null,
            Shape::Option(some) => sample(some, rng),
            Shape::Struct(shape) => {
                let written = shape.fields.iter().filter(|field| field.required || rng.gen_bool(0.5));
                let written: Vec<_> = written.collect();
                let value = |schema| sample(&Shape::of(schema), rng);
                let values: Vec<_> = written.iter().map(|field| field.schema).map(value).collect();
                written.iter().map(|field| field.name.to_owned()).zip(values).collect()
            }
            Shape::Enum(variants) => {
                let variant = &variants[rng.gen_range(0..variants.len())];
                match variant.payload {
                    Some(payload) => json!({variant.name: sample(&Shape::of(payload), rng)}),
                    None => variant.name.into(),
                }
            }
            Shape::List(element) => {
                let element = Shape::of(element);
                (0..rng.gen_range(0..3)).map(|_| sample(&element, rng)).collect()
            }
            Shape::Tuple(elements) => elements.iter().map(|each| sample(&Shape::of(each), rng)).collect(),
            Shape::Number(range) if range.whole => {
                let least = range.min.map_or(0, |min| min.value as u64);
                let most = range.max.map_or(u64::MAX, |max| max.value as u64);
                let wide = rng.gen::<u64>() >> rng.gen_range(0..64);
                wide.clamp(least, most).into()
            }
            Shape::Number(range) => {
                let (low, high) = (range.min.map(|min| min.value), range.max.map(|max| max.value));
                match (low, high) {
                    (Some(low), Some(high)) => rng.gen_range(low..high).into(),
                    (Some(low), None) => (low + 10f64.powi(rng.gen_range(-12..12)) * rng.gen::<f64>()).into(),
                    _ => (10f64.powi(rng.gen_range(-300..300)) * rng.gen_range(-1.0..1.0)).into(),
                }
            }
            Shape::String => {
                let characters =
                    ['a', 'Z', '_', '"', '\\', '\n', '\u{0}', '\u{1b}', 'é', '字', '{', '/', '#', '\''];
                (0..rng.gen_range(0..8))
                    .map(|_| characters[rng.gen_range(0..characters.len())])
                    .collect::<String>()
                    .into()
            }
            Shape::StringOrList(element) if rng.gen_bool(0.5) => sample(&Shape::List(element), rng),
            Shape::StringOrList(_) => sample(&Shape::String, rng),
            Shape::Bool => rng.gen_bool(0.5).into(),
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_equal(seed: u64) {
            let value = sample(&Shape::of(schema()), &mut ChaCha8Rng::seed_from_u64(seed));
            let recipe: Recipe = serde_json::from_value(value).unwrap();
            let text = write(&recipe);
            let (root, problems) = syntax::parse(&text);
            prop_assert!(problems.is_empty(), "{text}\n{problems:?}");
            let problems = check::check(&text, &root.unwrap(), &shape::recipe());
            prop_assert!(problems.is_empty(), "{text}\n{problems:?}");
            let back: Recipe = options().from_str(&text).unwrap();
            prop_assert_eq!(back, recipe);
        }
    }
}
