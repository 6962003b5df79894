//! Shapes of the values of a recipe, read from the JSON Schema that schemars derives from [`Recipe`]. So the
//! checker, the overrides and the exported schema can never disagree about names, types or ranges.

use std::sync::OnceLock;

use serde_json::Value;

use super::Recipe;

/// The JSON Schema of a recipe.
pub fn schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| schemars::schema_for!(Recipe).to_value())
}

/// The shape of a whole recipe.
pub fn recipe() -> Shape {
    Shape::of(schema())
}

/// Shape of a value.
#[derive(Debug, Clone)]
pub enum Shape {
    Struct(Struct),
    Enum(Vec<Variant>),
    Option(Box<Shape>),
    /// A list of any length of elements of this schema.
    List(&'static Value),
    /// A fixed number of elements, in parentheses.
    Tuple(Vec<&'static Value>),
    Number(Range),
    String,
    /// A string, or a list of elements of this schema.
    StringOrList(&'static Value),
    Bool,
}

/// A struct: in RON optionally preceded by its name.
#[derive(Debug, Clone)]
pub struct Struct {
    pub name: Option<&'static str>,
    pub fields: Vec<FieldShape>,
}

#[derive(Debug, Clone)]
pub struct FieldShape {
    pub name: &'static str,
    /// An earlier name, which recipes of that time still have.
    former_name: Option<&'static str>,
    pub schema: &'static Value,
    pub required: bool,
}

/// A variant of an enum: with a payload `Name(...)`, without one `Name`.
#[derive(Debug, Clone)]
pub struct Variant {
    pub name: &'static str,
    pub payload: Option<&'static Value>,
    /// Its documentation.
    pub doc: Option<&'static str>,
}

/// Bounds of a number.
#[derive(Debug, Clone)]
pub struct Range {
    pub whole: bool,
    /// Noun for the number where its type has a name that explains it, for example `ratio`.
    pub noun: Option<String>,
    pub min: Option<Bound>,
    pub max: Option<Bound>,
    /// Largest value of the integer type.
    pub widest: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
pub struct Bound {
    pub value: f64,
    /// True if the bound itself is allowed.
    pub inclusive: bool,
}

impl Shape {
    /// The shape a schema describes; of what schemars emits for configuration structs, everything is known.
    pub fn of(schema: &'static Value) -> Shape {
        let (resolved, name) = resolve(schema);
        if let Some(sides) = resolved.get("anyOf").and_then(Value::as_array) {
            let some = sides.iter().find(|side| side.get("type").is_none_or(|name| name != "null"));
            return Shape::Option(Box::new(some.map_or(Shape::Bool, Shape::of)));
        }
        let plain = Shape::plain(resolved, name);
        let types = resolved.get("type").and_then(Value::as_array);
        if types.is_some_and(|types| ["string", "array"].iter().all(|name| types.iter().any(|of| of == name)))
        {
            return Shape::StringOrList(&resolved["items"]);
        }
        if types.is_some_and(|types| types.iter().any(|name| name == "null")) {
            return Shape::Option(Box::new(plain));
        }
        plain
    }

    fn plain(schema: &'static Value, name: Option<&'static str>) -> Shape {
        if let Some(variants) = variants(schema) {
            return Shape::Enum(variants);
        }
        match type_of(schema) {
            "array" => match schema.get("prefixItems").and_then(Value::as_array) {
                Some(elements) => Shape::Tuple(elements.iter().collect()),
                // An array of a fixed length is a tuple in RON.
                None => match (schema["minItems"].as_u64(), schema["maxItems"].as_u64()) {
                    (Some(least), Some(most)) if least == most => {
                        Shape::Tuple(vec![&schema["items"]; most as usize])
                    }
                    _ => Shape::List(&schema["items"]),
                },
            },
            "integer" => Shape::Number(range(schema, true, name)),
            "number" => Shape::Number(range(schema, false, name)),
            "string" => Shape::String,
            "boolean" => Shape::Bool,
            _ => Shape::Struct(struct_of(schema, name)),
        }
    }

    /// Without `Option`s around it.
    pub fn unwrapped(self) -> Shape {
        match self {
            Shape::Option(some) => some.unwrapped(),
            shape => shape,
        }
    }

    /// Expected value in words, for a message.
    pub fn expected(&self) -> String {
        match self {
            Shape::Struct(shape) => match shape.telling() {
                Some(first) => format!("a struct `({}: ...)`", first.name),
                None => "an empty struct `()`".into(),
            },
            Shape::Enum(variants) => {
                let names: Vec<_> = variants.iter().map(Variant::usage).collect();
                match names.as_slice() {
                    [only] => only.clone(),
                    _ => format!("one of {}", names.join(", ")),
                }
            }
            Shape::Option(some) => format!("{} or `None`", some.expected()),
            Shape::List(_) => "a list `[...]`".into(),
            Shape::Tuple(elements) => format!("{} values in parentheses", elements.len()),
            Shape::Number(range) if range.whole => "a whole number".into(),
            Shape::Number(_) => "a number".into(),
            Shape::String => "a string in quotes".into(),
            Shape::StringOrList(_) => "a string in quotes or a list `[...]` of them".into(),
            Shape::Bool => "`true` or `false`".into(),
        }
    }
}

impl Struct {
    pub fn field(&self, name: &str) -> Option<&FieldShape> {
        self.fields.iter().find(|field| field.is_called(name))
    }

    /// A field to name the struct by.
    fn telling(&self) -> Option<&FieldShape> {
        self.fields.iter().find(|field| field.required).or(self.fields.first())
    }

    pub fn names(&self) -> Vec<&'static str> {
        self.fields.iter().map(|field| field.name).collect()
    }
}

impl FieldShape {
    /// True for the name and for an earlier one.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.former_name == Some(name)
    }

    /// First sentence of the field's documentation.
    pub fn doc(&self) -> Option<&'static str> {
        let doc = self.schema.get("description")?.as_str()?;
        Some(doc.split_once(". ").map_or(doc, |(first, _)| first))
    }

    /// The variant an enum field takes when it is not written: where an override adds a field of it.
    pub fn default_variant(&self) -> Option<&'static str> {
        let (variant, _) = self.schema.get("default")?.as_object()?.iter().next()?;
        Some(variant)
    }
}

impl Variant {
    /// `Keep` or `Random(...)`, as code.
    pub fn usage(&self) -> String {
        match self.payload {
            Some(_) => format!("`{}(...)`", self.name),
            None => format!("`{}`", self.name),
        }
    }

    /// The variant as a recipe has it, with an example of a number where it takes one: `Cuda(0)`, `Random(...)`, `Keep`.
    pub fn example(&self) -> String {
        match self.payload.map(Shape::of) {
            None => self.name.to_owned(),
            Some(Shape::Number(range)) => format!("{}({})", self.name, range.example()),
            Some(_) => format!("{}(...)", self.name),
        }
    }

    /// First sentence of its documentation.
    pub fn first_sentence(&self) -> Option<&'static str> {
        let doc = self.doc?;
        Some(doc.split_once(". ").map_or(doc, |(first, _)| first).trim_end_matches('.'))
    }
}

impl Range {
    pub fn holds(&self, value: f64) -> bool {
        let above = self.min.is_none_or(|min| value > min.value || min.inclusive && value == min.value);
        let below = self.max.is_none_or(|max| value < max.value || max.inclusive && value == max.value);
        above && below && self.widest.is_none_or(|widest| value <= widest)
    }

    /// A number in it.
    pub fn example(&self) -> String {
        let least = self.min.map_or(0.0, |min| min.value);
        match (self.whole, self.max) {
            (true, _) => format!("{least}"),
            (false, Some(max)) => format!("{}", (least + max.value) / 2.0),
            (false, None) => format!("{}", least + 1.0),
        }
    }

    /// `0 <= ratio < 1`.
    pub fn expected(&self, noun: &str) -> String {
        let noun = self.noun.as_deref().unwrap_or(noun);
        let sign = |bound: &Bound| if bound.inclusive { "<=" } else { "<" };
        match (&self.min, &self.max) {
            (Some(min), Some(max)) => {
                format!("{} {} {noun} {} {}", min.value, sign(min), sign(max), max.value)
            }
            (Some(min), None) => format!("{noun} {} {}", if min.inclusive { ">=" } else { ">" }, min.value),
            (None, Some(max)) => format!("{noun} {} {}", sign(max), max.value),
            (None, None) => format!("a finite {noun}"),
        }
    }
}

/// Follows `$ref`; the second value is the name of the definition.
fn resolve(schema: &'static Value) -> (&'static Value, Option<&'static str>) {
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix("#/$defs/"));
    match name.and_then(|name| Some((self::schema().get("$defs")?.get(name)?, name))) {
        Some((definition, name)) => (definition, Some(name)),
        None => (schema, schema.get("title").and_then(Value::as_str)),
    }
}

fn type_of(schema: &Value) -> &str {
    let named = match schema.get("type") {
        Some(Value::Array(types)) => types.iter().find(|name| *name != "null"),
        single => single,
    };
    named.and_then(Value::as_str).unwrap_or_default()
}

/// The variants of an enum: `enum: [...]` where none has a doc or payload, else `oneOf`, externally tagged.
fn variants(schema: &'static Value) -> Option<Vec<Variant>> {
    let unit = |name: &'static Value| Some(Variant { name: name.as_str()?, payload: None, doc: None });
    if let Some(names) = schema.get("enum").and_then(Value::as_array) {
        return Some(names.iter().filter_map(unit).collect());
    }
    let alternatives = schema.get("oneOf").and_then(Value::as_array)?;
    let mut variants = Vec::new();
    for alternative in alternatives {
        let doc = alternative.get("description").and_then(Value::as_str);
        if let Some(name) = alternative.get("const") {
            variants.extend(unit(name).map(|variant| Variant { doc, ..variant }));
        } else if let Some(names) = alternative.get("enum").and_then(Value::as_array) {
            variants.extend(names.iter().filter_map(unit));
        } else if let Some(tagged) = alternative.get("properties").and_then(Value::as_object) {
            let of = |(name, payload): (&'static String, _)| Variant { name, payload: Some(payload), doc };
            variants.extend(tagged.iter().map(of));
        }
    }
    Some(variants)
}

fn struct_of(schema: &'static Value, name: Option<&'static str>) -> Struct {
    let required = schema.get("required").and_then(Value::as_array);
    let is_required = |name: &str| required.is_some_and(|names| names.iter().any(|other| other == name));
    let properties = schema.get("properties").and_then(Value::as_object);
    let field = |(name, schema): (&'static String, &'static Value)| FieldShape {
        name,
        former_name: schema.get("formerName").and_then(Value::as_str),
        schema,
        required: is_required(name),
    };
    Struct { name, fields: properties.into_iter().flatten().map(field).collect() }
}

fn range(schema: &Value, whole: bool, name: Option<&str>) -> Range {
    let bound = |key: &str, inclusive| {
        let value = schema.get(key)?.as_f64()?;
        Some(Bound { value, inclusive })
    };
    let format = schema.get("format").and_then(Value::as_str);
    let widest = match format {
        Some("uint" | "uint64") => Some(u64::MAX as f64),
        Some("uint32") => Some(f64::from(u32::MAX)),
        _ => None,
    };
    Range {
        whole,
        noun: name.map(str::to_lowercase),
        min: bound("minimum", true).or(bound("exclusiveMinimum", false)),
        max: bound("maximum", true).or(bound("exclusiveMaximum", false)),
        widest,
    }
}
