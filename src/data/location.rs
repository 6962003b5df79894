//! Where a file is: on a file system, or behind a URL.

use std::fmt;
use std::path::PathBuf;

/// Schemes of URLs that can be read.
const SCHEMES: [&str; 10] = ["http", "https", "s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss"];

/// A file, wherever it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Location {
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
                    return Err(format!("{text}: no host or bucket after {scheme}://"));
                }
                Ok(Location::Url(text.to_owned()))
            }
            Some((scheme, _)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+') => {
                Err(format!(
                    "{text}: cannot read {scheme}://; expected a path or one of {}",
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

/// Without what a URL keeps after `?`: signatures are nobody else's business.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::File(path) => path.display().fmt(f),
            Location::Url(url) => f.write_str(url.split('?').next().unwrap_or(url)),
        }
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
        assert_eq!((url.file_name(), url.to_string()), ("00.tar".into(), "https://host/a/00.tar".into()));
        assert!(Location::parse("s3://bucket/x.tar").is_ok());
        assert!(Location::parse("ftp://host/x")
            .unwrap_err()
            .contains("cannot read ftp://; expected a path or"));
        assert!(Location::parse("s3:///x").unwrap_err().contains("no host or bucket"));
    }
}
