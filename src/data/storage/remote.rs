//! Files behind URLs: http(s), and the object stores s3, gs and az.
//!
//! Object stores are reached through `object_store`, plain http through the client that it stands on, because
//! images of the web come from servers that `object_store` does not accept (no length, a query in the URL). A
//! transfer that breaks goes on where it stopped, as long as the server still has the same file.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path as Key;
use object_store::{ClientConfigKey, GetOptions, GetRange, ObjectStore, RetryConfig};
use reqwest::header::{CONTENT_RANGE, IF_RANGE, RANGE, RETRY_AFTER};
use reqwest::{StatusCode, Url};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use crate::data::storage::attempts::{pause, LONGEST_PAUSE};
use crate::data::storage::location::with_variables;
use crate::data::storage::validator::validator;
use crate::data::storage::Progress;
use crate::outside;

/// Takes what comes in.
pub trait Sink: Send {
    /// Told the length of the whole file where the server says it, at the latest when everything is written.
    fn expect(&mut self, bytes: u64) -> io::Result<()>;

    /// Told the bytes from this place on; a place may come again, with everything behind it.
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
}

/// A failure to get a file.
#[derive(Debug)]
pub enum Refusal {
    /// The server says that there is no such file.
    Absent(String),
    /// The server will not give it, however often it is asked.
    Denied(String),
    /// Another attempt may succeed, after a time that the server names.
    Broken { detail: String, after: Option<Duration> },
    /// The sink failed.
    Unwritten(io::Error),
}

impl Refusal {
    fn broken(detail: impl Into<String>) -> Self {
        Refusal::Broken { detail: detail.into(), after: None }
    }
}

/// Answer of a server.
struct Answer {
    /// Offset of its bytes in the file.
    from: u64,
    /// Length of the whole file, where the server says it.
    total: Option<u64>,
    /// Tells this file from every other one under the same name; `None` where the server has nothing that does.
    tag: Option<String>,
    body: BoxStream<'static, Result<bytes::Bytes, String>>,
}

impl Answer {
    /// The rest that was asked for is of a file that is no longer there.
    fn of_another_file() -> Self {
        Answer { from: u64::MAX, total: None, tag: None, body: futures_util::stream::empty().boxed() }
    }
}

/// Clients; the connections that they keep open are shared by all threads.
pub struct Remote {
    runtime: Runtime,
    http: reqwest::Client,
    /// By scheme and bucket.
    stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
    /// After so long without a byte a connection is given up.
    silence: Duration,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remote")
    }
}

impl Remote {
    /// # Errors
    /// The system refuses a thread, or has no certificates.
    pub fn new(silence: Duration) -> Result<Self, String> {
        // Another part of the process may have chosen one before; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let failed = |error: &dyn std::error::Error| format!("cannot start a client: {}", chain(error));
        let http = reqwest::Client::builder()
            .connect_timeout(silence)
            .user_agent(concat!("flip/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| failed(&error))?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("flip-remote")
            .enable_all()
            .build()
            .map_err(|error| failed(&error))?;
        Ok(Remote { runtime, http, stores: Mutex::default(), silence })
    }

    /// Brings a whole file. `attempts` in a row that come to nothing are too many.
    pub fn fetch(
        &self,
        url: &str,
        sink: &mut dyn Sink,
        attempts: u64,
        progress: &Progress,
    ) -> Result<(), Refusal> {
        let url = parse(url)?;
        self.runtime.block_on(self.transfer(&url, sink, attempts, progress))
    }

    async fn transfer(
        &self,
        url: &Url,
        sink: &mut dyn Sink,
        attempts: u64,
        progress: &Progress,
    ) -> Result<(), Refusal> {
        let mut state = Transfer::default();
        let mut failures = 0;
        loop {
            let (detail, after) = match self.attempt(url, &mut state, sink, progress).await {
                Ok(()) => return Ok(()),
                Err(Refusal::Broken { detail, after }) => (detail, after),
                Err(other) => return Err(other),
            };
            if state.have > state.furthest {
                state.furthest = state.have;
                failures = 0;
            }
            failures += 1;
            if failures >= attempts {
                let detail = format!("{detail}; given up after {failures} attempts that came to nothing");
                return Err(Refusal::broken(detail));
            }
            tracing::debug!(
                target: "flip::data",
                "{}: {detail}; byte {} is next", url.path(), state.have
            );
            sleep(after.unwrap_or_else(|| pause(failures)).min(LONGEST_PAUSE)).await;
        }
    }

    /// Goes on with a transfer as far as one connection carries.
    async fn attempt(
        &self,
        url: &Url,
        state: &mut Transfer,
        sink: &mut dyn Sink,
        progress: &Progress,
    ) -> Result<(), Refusal> {
        let silent = |_| Refusal::broken(format!("silent for {:.0} s", self.silence.as_secs_f64()));
        if state.tag.is_none() {
            // Nobody could tell that the rest is of the same file.
            *state = Transfer { furthest: state.furthest, ..Transfer::default() };
        }
        let mut answer = timeout(self.silence, self.ask(url, state)).await.map_err(silent)??;
        if answer.from != state.have || (answer.from > 0 && !state.is_same(&answer)) {
            // The server sends from the start, or has another file by now.
            *state = Transfer { furthest: state.furthest, ..Transfer::default() };
            if answer.from != 0 {
                let detail = "the server cannot show that it still has the same file; it is begun again";
                return Err(Refusal::broken(detail));
            }
        }
        if let (Some(total), None) = (answer.total, state.total) {
            sink.expect(total).map_err(Refusal::Unwritten)?;
        }
        (state.total, state.tag) = (answer.total, answer.tag.take());
        while let Some(bytes) = timeout(self.silence, answer.body.next()).await.map_err(silent)? {
            let bytes = bytes.map_err(|error| {
                Refusal::broken(format!("the transfer broke at byte {}: {error}", state.have))
            })?;
            sink.write(state.have, &bytes).map_err(Refusal::Unwritten)?;
            state.have += bytes.len() as u64;
            progress.advance();
        }
        match state.total {
            None if state.have == 0 => {
                Err(Refusal::broken("the server sent nothing, and did not say that the file is empty"))
            }
            None => sink.expect(state.have).map_err(Refusal::Unwritten),
            Some(total) if total == state.have => Ok(()),
            Some(total) if total > state.have => {
                Err(Refusal::broken(format!("the transfer ended at byte {} of {total}", state.have)))
            }
            Some(total) => {
                *state = Transfer { furthest: state.furthest, ..Transfer::default() };
                Err(Refusal::broken(format!("the transfer went on behind byte {total}, its end")))
            }
        }
    }

    async fn ask(&self, url: &Url, state: &Transfer) -> Result<Answer, Refusal> {
        match url.scheme() {
            "http" | "https" => self.ask_http(url, state).await,
            _ => self.ask_store(url, state).await,
        }
    }

    async fn ask_http(&self, url: &Url, state: &Transfer) -> Result<Answer, Refusal> {
        let mut request = self.http.get(url.clone());
        if state.have > 0 {
            request = request.header(RANGE, format!("bytes={}-", state.have));
            if let Some(tag) = &state.tag {
                request = request.header(IF_RANGE, tag);
            }
        }
        let response = request.send().await.map_err(|error| Refusal::broken(chain(&error)))?;
        let status = response.status();
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let tag = validator(response.headers());
        let (from, total) = match status {
            StatusCode::OK => (0, response.content_length()),
            StatusCode::PARTIAL_CONTENT => header(CONTENT_RANGE)
                .and_then(content_range)
                .ok_or_else(|| Refusal::broken("the server does not say which part it sends"))?,
            StatusCode::RANGE_NOT_SATISFIABLE if state.have > 0 => return Ok(Answer::of_another_file()),
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                return Err(Refusal::Absent(format!("the server answers {status}")))
            }
            // Stores also refuse for a while: keys are renewed, and some throttle so.
            StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_EARLY
            | StatusCode::TOO_MANY_REQUESTS => return Err(later(status, header(RETRY_AFTER))),
            _ if status.is_server_error() => return Err(later(status, header(RETRY_AFTER))),
            _ => return Err(Refusal::Denied(format!("the server answers {status}"))),
        };
        let body = response.bytes_stream().map_err(|error| chain(&error)).boxed();
        Ok(Answer { from, total, tag, body })
    }

    async fn ask_store(&self, url: &Url, state: &Transfer) -> Result<Answer, Refusal> {
        let store = self.store(url)?;
        let key = Key::from_url_path(url.path()).map_err(|error| Refusal::Denied(error.to_string()))?;
        let mut options = GetOptions::default();
        if state.have > 0 {
            options.range = Some(GetRange::Offset(state.have));
            options.if_match = state.tag.clone();
        }
        let result = match store.get_opts(&key, options).await {
            Err(object_store::Error::Precondition { .. }) if state.have > 0 => {
                return Ok(Answer::of_another_file())
            }
            result => result.map_err(refusal)?,
        };
        let tag = result.meta.e_tag.clone().filter(|tag| !tag.starts_with("W/"));
        let (from, total) = (result.range.start, Some(result.meta.size));
        let body = result.into_stream().map_err(|error| chain(&error)).boxed();
        Ok(Answer { from, total, tag, body })
    }

    /// The client of a bucket; its credentials come from the environment, as for the tools of its vendor.
    fn store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>, Refusal> {
        let bucket = url.as_str()[..bucket_end(url)].to_owned();
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(&bucket) {
            return Ok(store.clone());
        }
        // Attempts are counted here, and a whole shard may take long.
        let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let connect = format!("{} ms", self.silence.as_millis().max(1));
        let options = [(ClientConfigKey::Timeout, "1 day"), (ClientConfigKey::ConnectTimeout, &connect)];
        let built: object_store::Result<Arc<dyn ObjectStore>> = match url.scheme() {
            "s3" | "s3a" => {
                let mut builder = AmazonS3Builder::from_env().with_url(bucket.as_str()).with_retry(retry);
                for (key, value) in options {
                    builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
                }
                builder.build().map(|store| Arc::new(store) as _)
            }
            "gs" => {
                let mut builder =
                    GoogleCloudStorageBuilder::from_env().with_url(bucket.as_str()).with_retry(retry);
                for (key, value) in options {
                    builder = builder.with_config(GoogleConfigKey::Client(key), value);
                }
                builder.build().map(|store| Arc::new(store) as _)
            }
            _ => {
                let mut builder =
                    MicrosoftAzureBuilder::from_env().with_url(bucket.as_str()).with_retry(retry);
                for (key, value) in options {
                    builder = builder.with_config(AzureConfigKey::Client(key), value);
                }
                builder.build().map(|store| Arc::new(store) as _)
            }
        };
        let store = built.map_err(|error| Refusal::Denied(chain(&error)))?;
        stores.insert(bucket, store.clone());
        Ok(store)
    }

    /// The URLs that one with wildcards stands for, sorted.
    pub fn list(&self, pattern: &str, progress: &Progress) -> Result<Vec<String>, Refusal> {
        if pattern.starts_with("http://") || pattern.starts_with("https://") {
            let detail = "http has no listing, so wildcards match nothing; name the files with braces";
            return Err(Refusal::Denied(detail.into()));
        }
        let url = parse(pattern)?;
        let wanted = pattern.splitn(4, '/').nth(3).unwrap_or_default();
        let matcher =
            glob::Pattern::new(wanted).map_err(|error| Refusal::Denied(format!("the wildcards: {error}")))?;
        let fixed = wanted.find(['*', '?', '[']).unwrap_or(wanted.len());
        let prefix = wanted[..fixed].rsplit_once('/').map(|(folder, _)| Key::from(folder));
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        let store = self.store(&url)?;
        let bucket = &pattern[..pattern.len() - wanted.len()];
        self.runtime.block_on(async {
            let mut listing = store.list(prefix.as_ref());
            let mut found = Vec::new();
            while let Some(object) = listing.next().await {
                let key = object.map_err(refusal)?.location;
                if matcher.matches_with(key.as_ref(), options) {
                    found.push(format!("{bucket}{key}"));
                }
                progress.advance();
            }
            found.sort();
            Ok(found)
        })
    }
}

/// State of a transfer.
#[derive(Debug, Default)]
struct Transfer {
    /// Bytes that are written.
    have: u64,
    /// The most that ever were.
    furthest: u64,
    total: Option<u64>,
    tag: Option<String>,
}

impl Transfer {
    /// True if an answer continues the file that was begun. Without a tag nobody knows.
    fn is_same(&self, answer: &Answer) -> bool {
        self.tag.is_some() && self.tag == answer.tag && self.total == answer.total
    }
}

fn parse(url: &str) -> Result<Url, Refusal> {
    let url = with_variables(url).map_err(Refusal::Denied)?;
    Url::parse(&url).map_err(|error| Refusal::Denied(format!("not a URL: {error}")))
}

/// End of scheme and bucket of a URL.
fn bucket_end(url: &Url) -> usize {
    url.as_str().len()
        - url.path().len()
        - url.query().map_or(0, |query| query.len() + 1)
        - url.fragment().map_or(0, |fragment| fragment.len() + 1)
}

/// First byte and length of the file from `bytes FIRST-LAST/TOTAL`.
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, total.trim().parse().ok()))
}

fn later(status: StatusCode, after: Option<&str>) -> Refusal {
    let after = after.and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
    Refusal::Broken { detail: format!("the server answers {status}"), after }
}

fn refusal(error: object_store::Error) -> Refusal {
    use object_store::Error;
    let detail = chain(&error);
    match error {
        Error::NotFound { .. } => Refusal::Absent(detail),
        Error::InvalidPath { .. } | Error::NotSupported { .. } | Error::UnknownConfigurationKey { .. } => {
            Refusal::Denied(detail)
        }
        _ => Refusal::broken(detail),
    }
}

/// An error with its causes: those of clients say only at the end what happened. They name the URL, or the one that a
/// server sent the client on to; both may be signed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    outside::without_secrets(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_files_are_understood() {
        assert_eq!(content_range("bytes 10-99/100"), Some((10, Some(100))));
        assert_eq!(content_range("bytes 0-0/*"), Some((0, None)));
        assert_eq!(content_range("items 0-0/1"), None);
    }

    #[test]
    fn a_bucket_is_scheme_and_host() {
        for (url, bucket) in [
            ("s3://bucket/a/b.tar", "s3://bucket"),
            ("az://container@account/x?y=1", "az://container@account"),
            ("gs://bucket", "gs://bucket"),
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!(&url.as_str()[..bucket_end(&url)], bucket);
        }
    }
}
