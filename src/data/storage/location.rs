//! Locations of files: on a file system, or behind a URL.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use crate::outside;

/// Schemes of URLs that can be read.
const SCHEMES: [&str; 10] = ["http", "https", "s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss"];

/// A file, wherever it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Location {
    /// A path on this machine.
    File(PathBuf),
    /// As written.
    Url(String),
}

impl Location {
    /// Reads a path or URL as a person writes it.
    ///
    /// # Errors
    /// It has a scheme that cannot be read.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            None => Ok(Location::File(text.into())),
            Some(("file", path)) => Ok(Location::File(path.into())),
            Some((scheme, rest)) if SCHEMES.contains(&scheme) => {
                let host = rest.split(['/', '?']).next().unwrap_or_default();
                if host.is_empty() {
                    return Err(format!("{}: no host or bucket after {scheme}://", outside::url(text)));
                }
                Ok(Location::Url(text.to_owned()))
            }
            Some((scheme, _)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+') => {
                Err(format!(
                    "{}: cannot read {scheme}://; expected a path or one of {}",
                    outside::url(text),
                    SCHEMES.join(", ")
                ))
            }
            Some(_) => Ok(Location::File(text.into())),
        }
    }

    /// Last part of the path, without a query.
    pub fn file_name(&self) -> String {
        match self {
            Location::File(path) => {
                path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
            }
            Location::Url(url) => {
                let path = url.split(['?', '#']).next().unwrap_or(url);
                path.rsplit('/').next().unwrap_or(path).to_owned()
            }
        }
    }
}

/// Without the user, the password and the query of a URL, which may be secrets.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::File(path) => path.display().fmt(f),
            Location::Url(url) => f.write_str(&outside::url(url)),
        }
    }
}

/// A URL with `${NAME}` replaced by the environment variable of that name: a recipe and its run folder then hold no
/// secret.
///
/// # Errors
/// A variable is not set; or the URL is one from a run folder, which does not keep queries.
pub fn with_variables(url: &str) -> Result<Cow<'_, str>, String> {
    if url.ends_with(outside::HIDDEN) {
        return Err("a run folder does not keep the query of a URL, which may be a secret. Give the URL anew with --set, \
                    or write it as https://host/path?${NAME} from the start: the query then comes from the environment \
                    variable NAME"
            .into());
    }
    let (mut whole, mut rest) = (String::new(), url);
    while let Some(at) = rest.find("${") {
        let name = rest[at + 2..].split('}').next().unwrap_or_default();
        if !outside::is_variable(name) || rest[at + 2..].len() == name.len() {
            whole.push_str(&rest[..at + 2]);
            rest = &rest[at + 2..];
            continue;
        }
        let value = std::env::var(name).map_err(|_| format!("the environment variable {name} is not set"))?;
        whole.push_str(&rest[..at]);
        whole.push_str(&value);
        rest = &rest[at + 2 + name.len() + 1..];
    }
    match whole.is_empty() {
        true => Ok(url.into()),
        false => Ok((whole + rest).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_urls_are_told_apart() {
        let file = |text: &str| Location::File(text.into());
        assert_eq!(Location::parse("a/b.tar"), Ok(file("a/b.tar")));
        assert_eq!(Location::parse("file:///a/b.tar"), Ok(file("/a/b.tar")));
        assert_eq!(Location::parse("odd name://x"), Ok(file("odd name://x")));
        let url = Location::parse("https://host/a/00.tar?signature=secret").unwrap();
        assert_eq!((url.file_name(), url.to_string()), ("00.tar".into(), "https://host/a/00.tar?...".into()));
        assert!(Location::parse("s3://bucket/x.tar").is_ok());
        assert!(Location::parse("ftp://host/x")
            .unwrap_err()
            .contains("cannot read ftp://; expected a path or"));
        assert!(Location::parse("s3:///x").unwrap_err().contains("no host or bucket"));
    }

    #[test]
    fn no_message_about_a_url_holds_its_secrets() {
        for text in
            ["https://u:s3cret@host/a?s3cret", "https://?s3cret", "ftp://u:s3cret@host/a", "s3://?a=s3cret"]
        {
            let told = Location::parse(text).map_or_else(|error| error, |location| location.to_string());
            assert!(!told.contains("s3cret"), "{told}");
        }
    }

    #[test]
    fn secrets_can_come_from_the_environment() {
        // Variables that cargo sets for every test.
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            with_variables("https://${CARGO_PKG_NAME}:x@host/a?v=${CARGO_PKG_VERSION}&w").unwrap(),
            format!("https://flip:x@host/a?v={version}&w")
        );
        for same in ["https://host/a?b", "https://host/${", "https://host/${a-b}", "https://host/${}/${x"] {
            assert_eq!(with_variables(same).unwrap(), same);
        }
        let missing = with_variables("https://host/a?${FLIP_TEST_NO_SUCH_VARIABLE}").unwrap_err();
        assert_eq!(missing, "the environment variable FLIP_TEST_NO_SUCH_VARIABLE is not set");
        assert!(with_variables("https://host/a?...").unwrap_err().contains("with --set"));
    }
}
