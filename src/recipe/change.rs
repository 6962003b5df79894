//! In which fields two recipes differ, and whether a run may go on across the difference.

use serde_json::{Map, Value};

use super::field_path::{FieldPath, Segment};
use super::Recipe;
use crate::outside;

/// A field that has another value.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Field that differs.
    pub path: FieldPath,
    /// As RON; `absent` where a list was shorter.
    pub old: String,
    /// Value now, as written in RON.
    pub new: String,
}

/// Effect of a change on a run that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It changes no number: the run may go on with it.
    None,
    /// It changes what is computed from here on: the run may go on with it where that is asked for.
    FromHereOn,
    /// The run cannot go on with it, for this reason.
    Fixed(&'static str),
}

/// Every field in which the second recipe differs from the first. URLs that differ in their secrets alone are the same.
pub fn changes(before: &Recipe, now: &Recipe) -> Vec<Change> {
    let mut found = Vec::new();
    let Some((old, new)) = super::difference(before, now) else { return found };
    if let (Ok(before), Ok(now)) = (serde_json::to_value(before), serde_json::to_value(now)) {
        compare(FieldPath::default(), Some(&before), Some(&now), &mut found);
    }
    if found.is_empty() {
        // What JSON cannot tell apart.
        found.push(Change { path: FieldPath::default(), old, new });
    }
    found
}

fn compare(path: FieldPath, before: Option<&Value>, now: Option<&Value>, found: &mut Vec<Change>) {
    match (before, now) {
        (before, now) if before == now => {}
        (Some(Value::String(before)), Some(Value::String(now)))
            if outside::without_secrets(before) == outside::without_secrets(now) => {}
        (Some(Value::Array(before)), Some(Value::Array(now))) => {
            for index in 0..before.len().max(now.len()) {
                compare(path.index(index), before.get(index), now.get(index), found);
            }
        }
        (Some(Value::Object(before)), Some(Value::Object(now))) if alike(before, now) => {
            for (name, value) in before {
                // A path goes through variants without a word.
                let inside = if is_variant(name) { path.clone() } else { path.field(name) };
                compare(inside, Some(value), now.get(name), found);
            }
        }
        (before, now) => found.push(Change { path, old: written(before), new: written(now) }),
    }
}

/// True if differences inside are listed one by one: both sides have the same fields or variant. A number is listed
/// with the variant around it, which says its unit.
fn alike(before: &Map<String, Value>, now: &Map<String, Value>) -> bool {
    let unit =
        |(name, inside): (&String, &Value)| is_variant(name) && !inside.is_object() && !inside.is_array();
    before.keys().eq(now.keys()) && !before.iter().any(unit)
}

/// Fields are written small, variants begin with a capital.
fn is_variant(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase())
}

/// A value about as RON has it.
fn written(value: Option<&Value>) -> String {
    let list =
        |values: &[Value]| values.iter().map(|value| written(Some(value))).collect::<Vec<_>>().join(", ");
    match value {
        None => "absent".into(),
        Some(Value::Null) => "None".into(),
        Some(Value::String(name)) if is_variant(name) && name.chars().all(char::is_alphanumeric) => {
            name.clone()
        }
        Some(Value::Array(values)) => format!("[{}]", list(values)),
        Some(Value::Object(fields)) => match fields.iter().next() {
            Some((variant, Value::Object(_))) if fields.len() == 1 && is_variant(variant) => {
                format!("{variant}{}", written(fields.get(variant)))
            }
            Some((variant, inside)) if fields.len() == 1 && is_variant(variant) => {
                format!("{variant}({})", written(Some(inside)))
            }
            _ => {
                let fields = fields.iter().map(|(name, value)| format!("{name}: {}", written(Some(value))));
                format!("({})", fields.collect::<Vec<_>>().join(", "))
            }
        },
        Some(value) => value.to_string(),
    }
}

impl Change {
    /// Effect on a run that has begun.
    pub fn effect(&self) -> Effect {
        let mut names = self.path.segments.iter().map(|segment| match segment {
            Segment::Field(name) => name.as_str(),
            Segment::Index(_) => "",
        });
        let [first, second, third] = [(); 3].map(|()| names.next());
        let whole_list = self.old == "absent" || self.new == "absent";
        match (first.unwrap_or_default(), second, third) {
            ("name" | "threads" | "recompute" | "checkpoints" | "metrics", ..) => Effect::None,
            ("ranks", Some("stall_limit_s" | "shard"), _) => Effect::None,
            ("data", Some("workers" | "storage"), _) => Effect::None,
            ("data", Some("limits"), Some("broken_share")) => Effect::None,
            ("data", Some("limits" | "validation" | "epoch_samples" | "lanes"), _) => Effect::FromHereOn,
            ("data", Some("train"), _) if self.names_files() => Effect::FromHereOn,
            ("device" | "precision" | "compute" | "ranks", ..) => Effect::FromHereOn,
            ("stages", Some(""), Some(_)) => Effect::FromHereOn,
            ("stages", ..) if whole_list => Effect::Fixed("stages cannot be added or taken away"),
            ("stages", ..) => Effect::Fixed("a stage cannot become one of another kind"),
            ("seed", ..) => Effect::Fixed("every random choice derives from it"),
            ("model", Some("text"), Some("tokenizer" | "vocab_size")) => {
                Effect::Fixed("the weights are of the tokens of the former tokenizer")
            }
            ("model", ..) => Effect::Fixed("the weights are those of the former model"),
            ("data", ..) => Effect::Fixed("the samples and their order would be others"),
            ("init", ..) => Effect::Fixed("the run has weights of its own by now"),
            _ => Effect::Fixed("a run does not change it"),
        }
    }

    /// True for the paths of the training data: the same files may lie elsewhere.
    fn names_files(&self) -> bool {
        let named = |segment: &Segment| matches!(segment, Segment::Field(name) if name == "shards" || name == "files");
        self.path.segments.iter().any(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::read_text;

    const RECIPE: &str = r#"(
        name: "x",
        model: (
            image: (size: 32, patch: 8, width: 16, depth: 1, heads: 2),
            text: (tokenizer: Train(captions: 200), vocab_size: 300, context: 12, width: 16, depth: 1, heads: 2),
            embed_dim: 16,
        ),
        data: (train: WebDataset(shards: "a/{0..3}.tar")),
        stages: [
            Pretrain(
                length: Steps(60), batch: 16, image_mask: Keep,
                schedule: Cosine(lr: Absolute(1e-3), warmup: Steps(5)),
            ),
            Evaluate([ZeroShot(name: "held out", data: Scenes(size: 32, split: HeldOut, samples: 200))]),
        ],
    )"#;

    fn told(set: &str) -> Vec<(String, String, String, Effect)> {
        let read = |sets: &[String]| read_text("r.ron", RECIPE, sets).unwrap();
        let changes = changes(&read(&[]), &read(&[set.to_owned()]));
        changes.into_iter().map(|c| (c.path.to_string(), c.old.clone(), c.new.clone(), c.effect())).collect()
    }

    #[test]
    fn changes_are_told_with_path_and_values() {
        let one =
            |path: &str, old: &str, new: &str, effect| vec![(path.into(), old.into(), new.into(), effect)];
        assert_eq!(told("stages.0.batch=16"), []);
        assert_eq!(told("stages.0.batch=32"), one("stages[0].batch", "16", "32", Effect::FromHereOn));
        assert_eq!(
            told("stages.0.schedule.lr=Absolute(0.5)"),
            one("stages[0].schedule.lr", "Absolute(0.001)", "Absolute(0.5)", Effect::FromHereOn)
        );
        assert_eq!(
            told("stages.0.length=Samples(99)"),
            one("stages[0].length", "Steps(60)", "Samples(99)", Effect::FromHereOn)
        );
        assert_eq!(told("threads=2"), one("threads", "None", "2", Effect::None));
    }

    #[test]
    fn a_signature_of_another_day_is_no_change() {
        let read = |shards: &str| read_text("r.ron", &RECIPE.replace("a/{0..3}.tar", shards), &[]).unwrap();
        let stored = read("https://host/a.tar?...");
        assert_eq!(changes(&stored, &read("https://me:key@host/a.tar?sig=1")), []);
        assert_eq!(changes(&stored, &read("https://host/b.tar?sig=1")).len(), 1);
    }

    #[test]
    fn what_a_run_may_change_is_told_from_what_it_may_not() {
        let effect = |set: &str| told(set).iter().map(|change| change.3).next().unwrap();
        for none in [
            "data.workers=3",
            "data.storage.stall_limit_s=99",
            "checkpoints.keep=9",
            "metrics.every_steps=7",
            "ranks.stall_limit_s=77",
            "name=y",
        ] {
            assert_eq!(effect(none), Effect::None, "{none}");
        }
        for amended in [
            "stages.0.image_mask=Random(0.5)",
            "stages.1.0.name=other",
            "data.train.shards=b/{0..3}.tar",
            "device=Cuda(0)",
            "data.epoch_samples=100",
        ] {
            assert_eq!(effect(amended), Effect::FromHereOn, "{amended}");
        }
        for fixed in
            ["seed=4", "model.embed_dim=32", "model.text.vocab_size=301", "data.train.resampled=true"]
        {
            assert!(matches!(effect(fixed), Effect::Fixed(_)), "{fixed}");
        }
    }
}
