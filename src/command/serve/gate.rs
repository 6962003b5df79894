//! Which requests are looked at: a page of another site must not search these images through the browser of a person who has
//! both open.

use std::net::IpAddr;

use hyper::header::{HeaderMap, HeaderName, HOST, ORIGIN};

/// True if a request comes from where it may. On loopback the name that the browser was given has to be a name of this machine: a
/// foreign name that leads here (DNS rebinding) is refused.
pub fn admits(headers: &HeaderMap, listens_on: IpAddr) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let Some(host) = text(HOST) else { return false };
    if listens_on.is_loopback() && !is_loopback(host) {
        return false;
    }
    // Browsers say where a script comes from; other programs say nothing.
    text(ORIGIN).is_none_or(|origin| origin.split_once("://").is_some_and(|(_, from)| from == host))
}

/// True of `localhost:8017`, `127.0.0.1`, `[::1]:8017`.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_and_its_own_pages_are_admitted() {
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        let asks = |host: Option<&str>, origin: Option<&str>, on: IpAddr| {
            let mut headers = HeaderMap::new();
            for (name, value) in [(HOST, host), (ORIGIN, origin)] {
                if let Some(value) = value {
                    headers.insert(name, value.parse().unwrap());
                }
            }
            admits(&headers, on)
        };
        for host in ["localhost:8017", "LOCALHOST", "127.0.0.1:80", "127.3.2.1", "[::1]:8017", "[::1]"] {
            assert!(asks(Some(host), None, loopback), "{host}");
            assert!(asks(Some(host), Some(&format!("http://{host}")), loopback), "{host}");
        }
        for host in
            ["evil.example:8017", "localhost.evil.example", "10.0.0.1", "[fe80::1]", "", "127.0.0.1.nip.io"]
        {
            assert!(!asks(Some(host), None, loopback), "{host}");
        }
        assert!(!asks(None, None, loopback));
        for origin in ["http://evil.example", "null", "http://127.0.0.1:9"] {
            assert!(!asks(Some("127.0.0.1:80"), Some(origin), loopback), "{origin}");
        }
        let open: IpAddr = "0.0.0.0".parse().unwrap();
        assert!(asks(Some("studio.lan:8017"), None, open));
        assert!(!asks(Some("studio.lan:8017"), Some("http://evil.example"), open));
    }
}
