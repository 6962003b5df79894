//! Answers of the server.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{HeaderValue, ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::{Response, StatusCode};
use serde_json::json;

/// A whole answer.
pub type Answer = Response<Full<Bytes>>;

/// Scripts, styles and images are those of this server; nothing frames its page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A request that cannot be answered, with a status and words.
#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    pub reason: String,
}

impl Refusal {
    pub fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Refusal { status, reason: reason.into() }
    }

    /// The request is wrong.
    pub fn wrong(reason: impl Into<String>) -> Self {
        Refusal::new(StatusCode::BAD_REQUEST, reason)
    }

    pub fn answer(&self) -> Answer {
        json(self.status, &json!({ "error": self.reason }))
    }
}

/// Bytes of a type.
pub fn bytes(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert("content-security-policy", HeaderValue::from_static(POLICY));
    // A type is never guessed, and other sites may not show what is here.
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// JSON.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
    bytes(status, "application/json", format!("{value}\n"))
}

/// The methods that a path has are others.
pub fn no_such_method(allowed: &'static str) -> Answer {
    let mut answer =
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("this path has the methods {allowed}")).answer();
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}
