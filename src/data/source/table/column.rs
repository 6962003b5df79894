//! The columns that a recipe names, and how their values are read.

use base64::engine::general_purpose::STANDARD as BASE64;
use base64::Engine;
use serde_json::{Map, Value};

use super::block::RowContent;
use super::config::{ImageColumn, TableConfig};
use crate::data::text::{caption, json};
use crate::data::Defect;

/// Names of columns.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    pub image: String,
    /// True if the image itself is in the column.
    pub embedded: bool,
    pub caption: String,
    pub label: Option<String>,
    pub json: Vec<String>,
}

/// Places of the columns in a row.
#[derive(Debug, Clone)]
pub(super) struct Positions {
    pub image: usize,
    pub caption: usize,
    pub label: Option<usize>,
    pub json: Vec<usize>,
}

impl Columns {
    pub fn of(config: &TableConfig) -> Self {
        Columns {
            image: config.image.name().to_owned(),
            embedded: matches!(config.image, ImageColumn::Bytes(_)),
            caption: config.caption.clone(),
            label: config.label.clone(),
            json: config.json.clone(),
        }
    }

    /// Positions of the columns in a table with columns of these names.
    ///
    /// # Errors
    /// One is missing.
    pub fn positions(&self, names: &[String]) -> Result<Positions, String> {
        let position = |wanted: &str| {
            names.iter().position(|name| name == wanted).ok_or_else(|| {
                let shown: Vec<_> = names.iter().take(20).map(|name| format!("`{name}`")).collect();
                let more = if names.len() > 20 { ", ..." } else { "" };
                format!("no column `{wanted}`; the columns are {}{more}", shown.join(", "))
            })
        };
        Ok(Positions {
            image: position(&self.image)?,
            caption: position(&self.caption)?,
            label: self.label.as_deref().map(position).transpose()?,
            json: self.json.iter().map(|name| position(name)).collect::<Result<_, _>>()?,
        })
    }

    /// A row of texts; `None` where the row has no such field.
    pub fn content_of_text<'a>(
        &self,
        positions: &Positions,
        value: impl Fn(usize) -> Option<&'a [u8]>,
    ) -> Result<RowContent, Defect> {
        let image = value(positions.image).filter(|image| !image.is_empty());
        let image = image.ok_or_else(|| self.no_image())?;
        let image = if self.embedded { self.base64(image)? } else { image.into() };
        let captions = value(positions.caption)
            .ok_or_else(|| self.no_caption())
            .and_then(|caption| Ok(vec![self.caption(caption)?]));
        let json: Map<_, _> = (self.json.iter().zip(&positions.json))
            .map(|(name, &position)| (name.clone(), value(position).map_or(Value::Null, scalar)))
            .collect();
        let label = positions.label.and_then(value).and_then(|label| scalar(label).as_i64());
        Ok(RowContent { image, captions, label, json: self.kept(json) })
    }

    /// A JSON object.
    pub fn content_of_json(&self, mut object: Map<String, Value>) -> Result<RowContent, Defect> {
        let image = match object.get(&self.image) {
            Some(Value::String(image)) if !image.is_empty() => image.as_bytes(),
            _ => return Err(self.no_image()),
        };
        let image = if self.embedded { self.base64(image)? } else { image.into() };
        let captions = match object.get(&self.caption) {
            Some(Value::String(caption)) => self.caption(caption.as_bytes()).map(|caption| vec![caption]),
            Some(Value::Array(captions)) if !captions.is_empty() => captions
                .iter()
                .map(|caption| self.caption(caption.as_str().ok_or_else(|| self.no_caption())?.as_bytes()))
                .collect(),
            _ => Err(self.no_caption()),
        };
        let label = self.label.as_ref().and_then(|label| object.get(label)).and_then(json::whole);
        let json = self.json.iter().map(|name| (name.clone(), object.remove(name).unwrap_or(Value::Null)));
        Ok(RowContent { image, captions, label, json: self.kept(json.collect()) })
    }

    pub fn caption(&self, bytes: &[u8]) -> Result<String, Defect> {
        caption::read(bytes).map_err(|defect| {
            Defect::new(defect.reason, format!("column `{}`: {}", self.caption, defect.detail))
        })
    }

    pub fn no_image(&self) -> Defect {
        Defect::new("image_missing", format!("nothing in column `{}`", self.image))
    }

    pub fn no_caption(&self) -> Defect {
        Defect::new("caption_missing", format!("no text in column `{}`", self.caption))
    }

    pub fn kept(&self, json: Map<String, Value>) -> Option<Value> {
        (!self.json.is_empty()).then_some(Value::Object(json))
    }

    fn base64(&self, text: &[u8]) -> Result<Box<[u8]>, Defect> {
        let decoded = BASE64.decode(text.trim_ascii());
        decoded.map(Vec::into_boxed_slice).map_err(|error| {
            Defect::new("image_decode", format!("column `{}`: not base64: {error}", self.image))
        })
    }
}

/// A value of a text table: a number where it is written like one.
fn scalar(text: &[u8]) -> Value {
    let text = String::from_utf8_lossy(text);
    let trimmed = text.trim();
    if let Ok(whole) = trimmed.parse::<i64>() {
        return whole.into();
    }
    match trimmed.parse::<f64>() {
        // Pandas writes whole numbers as floats where some are missing.
        Ok(number) if number.fract() == 0.0 && number.abs() < 9e15 => (number as i64).into(),
        Ok(number) if number.is_finite() => number.into(),
        _ => text.into_owned().into(),
    }
}
