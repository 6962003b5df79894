//! What a search found, as a page that can be sent on its own.

use std::path::Path;

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use maud::{html, Markup};

use super::page::{self, Text};
use super::ReportError;

/// The question and what was found.
#[derive(Debug, Clone)]
pub struct FoundPage {
    /// The text, or the name of the image, that is asked for.
    pub query: String,
    /// JPEG of the image that is asked for.
    pub asked: Option<Vec<u8>>,
    /// What was searched and with which model, a paragraph.
    pub about: String,
    /// Best first.
    pub images: Vec<FoundImage>,
}

/// An image that was found.
#[derive(Debug, Clone)]
pub struct FoundImage {
    /// Its file, and in a shard its key.
    pub name: String,
    /// Empty where it has none.
    pub caption: String,
    /// Cosine with the query.
    pub score: f32,
    /// JPEG; none where the image is gone.
    pub image: Option<Vec<u8>>,
}

/// Writes the page.
///
/// # Errors
/// The file cannot be written.
pub fn write(found: &FoundPage, path: &Path) -> Result<(), ReportError> {
    let body = html! {
        p { (Text(&found.about)) }
        @if let Some(asked) = &found.asked {
            div.asked { (image(asked, "The image that is asked for")) }
        }
        div.hits {
            @for (rank, hit) in found.images.iter().enumerate() {
                figure {
                    @match &hit.image {
                        Some(jpeg) => (image(jpeg, &format!("Found {}", rank + 1))),
                        None => p { "The image is no longer there." },
                    }
                    figcaption {
                        span.score { (rank + 1) ". " (format!("{:.3}", hit.score)) }
                        @if !hit.caption.is_empty() { " " (Text(&hit.caption)) }
                    }
                    p.name { (Text(&hit.name)) }
                }
            }
        }
    };
    page::write(&found.query, &body, path)
}

fn image(jpeg: &[u8], alt: &str) -> Markup {
    html! { img alt=(Text(alt)) src=(format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg))); }
}
