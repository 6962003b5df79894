//! Validators of files behind http: they tell a file from every other one under its name, so that a transfer may go on.

use std::time::Duration;

use reqwest::header::{HeaderMap, DATE, ETAG, LAST_MODIFIED};

/// A file that was last changed so long ago is another one if it changes again: servers tell that time in seconds, so
/// within one of them a file may change twice.
const SETTLED: Duration = Duration::from_secs(60);

/// The validator of a file: a strong tag, else the time when it was changed, where that is long
/// ago.
pub(crate) fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(tag) = text(ETAG).filter(|tag| tag.starts_with('"')) {
        return Some(tag.to_owned());
    }
    let time = |name| text(name).and_then(|text| httpdate::parse_http_date(text).ok());
    let (changed, now) = (time(LAST_MODIFIED)?, time(DATE)?);
    now.duration_since(changed)
        .is_ok_and(|age| age >= SETTLED)
        .then(|| text(LAST_MODIFIED).map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_tells_a_file_from_every_other_one_continues_it() {
        let of = |fields: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                let name: reqwest::header::HeaderName = name.parse().unwrap();
                headers.insert(name, value.parse().unwrap());
            }
            validator(&headers)
        };
        let changed = ("last-modified", "Wed, 25 Nov 2026 10:00:00 GMT");
        let later = ("date", "Wed, 25 Nov 2026 10:01:00 GMT");
        assert_eq!(of(&[("etag", "\"a\""), changed]).unwrap(), "\"a\"");
        assert_eq!(of(&[("etag", "W/\"a\"")]), None);
        assert_eq!(of(&[("etag", "W/\"a\""), changed, later]).unwrap(), changed.1);
        assert_eq!(
            of(&[changed, ("date", "Wed, 25 Nov 2026 10:00:01 GMT")]),
            None,
            "it may change once more"
        );
        assert_eq!(of(&[changed]), None, "nobody knows how long ago that was");
        assert_eq!(of(&[]), None);
    }
}
