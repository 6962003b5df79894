//! Requests to answers.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde_json::json;

use super::answer::{bytes, json as json_answer, no_such_method, Answer, Refusal};
use super::gate::admits;
use super::worker::{Query, Searched, Worker};
use crate::command::search::{small, Hit, MOST};
use crate::data::{Image, LoadError, Raw};
use crate::search::{Collection, Index};

const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");
const STYLE: &str = include_str!("page.css");

/// Longest image that is taken, bytes.
const LONGEST_BODY: usize = 32 << 20;
/// Longest text that is taken, bytes.
const LONGEST_TEXT: usize = 16 << 10;
/// Images that are answered where a request does not say.
const DEFAULT: usize = 24;
/// Longer side of small images, pixels.
const SMALL: u32 = 320;

/// All that answers need.
pub struct Served {
    pub collection: Collection,
    pub index: Arc<Index>,
    pub worker: Worker,
    /// [`Trained::hash`](crate::trained::Trained::hash).
    pub model: String,
    pub checkpoint: String,
    pub host: IpAddr,
}

/// Answers a request.
pub async fn answer(served: &Arc<Served>, request: Request<Incoming>) -> Answer {
    if !admits(request.headers(), served.host) {
        let reason = "requests come from this machine by one of its own names, or from its own page";
        return Refusal::new(StatusCode::FORBIDDEN, reason).answer();
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    let asked = Asked(&query);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let reads = method == Method::GET || method == Method::HEAD;
    let answered = match &*path {
        "/search" if reads => search_text(served, &asked).await,
        "/search" if method == Method::POST => search_image(served, &asked, request).await,
        "/search" => return no_such_method("GET, HEAD, POST"),
        "/" | "/page.js" | "/page.css" | "/info" | "/neighbours" | "/image" | "/thumbnail" if !reads => {
            return no_such_method("GET, HEAD")
        }
        "/" => Ok(bytes(StatusCode::OK, "text/html; charset=utf-8", PAGE)),
        "/page.js" => Ok(bytes(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT)),
        "/page.css" => Ok(bytes(StatusCode::OK, "text/css; charset=utf-8", STYLE)),
        "/info" => Ok(info(served)),
        "/neighbours" => neighbours(served, &asked).await,
        "/image" | "/thumbnail" => image(served, &asked, path == "/thumbnail").await,
        _ => {
            Err(Refusal::new(StatusCode::NOT_FOUND, "there is no such path; `flip serve --help` lists them"))
        }
    };
    answered.unwrap_or_else(|refusal| refusal.answer())
}

/// Parameters of a request.
struct Asked<'a>(&'a str);

impl Asked<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        form_urlencoded::parse(self.0.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value)
    }

    fn most(&self) -> Result<usize, Refusal> {
        let Some(text) = self.get("k") else { return Ok(DEFAULT) };
        match text.parse() {
            Ok(k) if (1..=MOST).contains(&k) => Ok(k),
            _ => Err(Refusal::wrong(format!("k: expected a whole number from 1 to {MOST}"))),
        }
    }

    fn row(&self, served: &Served) -> Result<usize, Refusal> {
        let images = served.index.len();
        let row = self.get("id").and_then(|id| id.parse().ok()).filter(|row| *row < images);
        row.ok_or_else(|| {
            Refusal::new(StatusCode::NOT_FOUND, format!("id: expected a whole number below {images}"))
        })
    }
}

async fn search_text(served: &Served, asked: &Asked<'_>) -> Result<Answer, Refusal> {
    let text = asked.get("text").unwrap_or_default().into_owned();
    if text.trim().is_empty() {
        return Err(Refusal::wrong("text: expected a text, for example /search?text=two+dogs"));
    }
    if text.len() > LONGEST_TEXT {
        return Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("text: at most {LONGEST_TEXT} bytes"),
        ));
    }
    let searched = served.worker.search(Query::Text(text), asked.most()?).await?;
    Ok(found(served, &searched))
}

async fn search_image(
    served: &Served,
    asked: &Asked<'_>,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let most = asked.most()?;
    let body = Limited::new(request.into_body(), LONGEST_BODY).collect().await.map_err(|error| {
        match error.is::<LengthLimitError>() {
            true => Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("an image has at most {LONGEST_BODY} bytes"),
            ),
            false => Refusal::wrong(format!("the image did not come: {error}")),
        }
    })?;
    let image = body.to_bytes().to_vec();
    let searched = served.worker.search(Query::Image(image), most).await?;
    Ok(found(served, &searched))
}

async fn neighbours(served: &Served, asked: &Asked<'_>) -> Result<Answer, Refusal> {
    let (row, most) = (asked.row(served)?, asked.most()?);
    let searched = served.worker.search(Query::Row(row), most).await?;
    Ok(found(served, &searched))
}

fn found(served: &Served, searched: &Searched) -> Answer {
    let hits: Vec<Hit> =
        searched.found.iter().map(|found| Hit::of(*found, &served.index, &served.collection)).collect();
    let note = searched.too_long.map(|(tokens, read)| {
        format!("The text has {tokens} tokens, of which the model reads the first {read}.")
    });
    json_answer(StatusCode::OK, &json!({ "found": hits, "note": note }))
}

fn info(served: &Served) -> Answer {
    let Served { index, model, checkpoint, .. } = served;
    let info = json!({
        "images": index.len(), "left_out": index.left_out(), "embed_dim": index.width(), "model": model,
        "checkpoint": checkpoint, "version": env!("CARGO_PKG_VERSION"),
    });
    json_answer(StatusCode::OK, &info)
}

/// An image by its row: no path comes from outside, so none leads anywhere else.
async fn image(served: &Arc<Served>, asked: &Asked<'_>, is_small: bool) -> Result<Answer, Refusal> {
    let row = asked.row(served)?;
    let of = served.clone();
    let read = tokio::task::spawn_blocking(move || {
        let loaded = of.collection.load(of.index.place(row));
        loaded.map(|Raw { image, .. }| match is_small {
            true => small(image, SMALL).map(|jpeg| ("image/jpeg", jpeg)),
            false => stored(image),
        })
    });
    let gone = |what: String| Refusal::new(StatusCode::NOT_FOUND, what);
    match read.await {
        Ok(Ok(Some((kind, image)))) => Ok(bytes(StatusCode::OK, kind, image)),
        Ok(Ok(None)) => Err(gone("what lies there now is no image".into())),
        Ok(Err(LoadError::Skip(skip))) => Err(gone(skip.detail)),
        Ok(Err(LoadError::Failed(error))) => Err(gone(error.to_string())),
        Err(error) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

/// The bytes of an image as they are stored, if they are those of an image.
fn stored(image: Image) -> Option<(&'static str, Vec<u8>)> {
    match image {
        Image::Encoded(bytes) => Some((image::guess_format(&bytes).ok()?.to_mime_type(), bytes)),
        rgb @ Image::Rgb { .. } => small(rgb, u32::MAX).map(|jpeg| ("image/jpeg", jpeg)),
    }
}
