//! Names and sizes of many files.

use crate::data::storage::Location;
use crate::data::DataError;

/// Threads that ask for sizes: a network file system answers several at once.
const ASKING: usize = 16;

/// The start that all names share, up to the last slash.
pub fn common_folder<'a>(names: impl Iterator<Item = &'a str> + Clone) -> &'a str {
    let Some(first) = names.clone().next() else { return "" };
    let mut common = first.rfind('/').map_or(0, |slash| slash + 1);
    for name in names {
        while !name.starts_with(&first[..common]) {
            common = first[..common - 1].rfind('/').map_or(0, |slash| slash + 1);
        }
    }
    &first[..common]
}

/// Bytes of each file of this machine; none of a remote one.
pub fn sizes(locations: &[Location]) -> Result<Vec<Option<u64>>, DataError> {
    of_each(locations, |location| match location {
        Location::Url(_) => Ok(None),
        Location::File(path) => {
            let there = std::fs::metadata(path);
            there
                .map(|there| Some(there.len()))
                .map_err(|source| DataError::Io { path: path.clone(), source })
        }
    })
}

/// Asks for something of each file, several at a time.
pub fn of_each<T: Send>(
    locations: &[Location],
    ask: impl Fn(&Location) -> Result<T, DataError> + Sync,
) -> Result<Vec<T>, DataError> {
    let (share, ask) = (locations.len().div_ceil(ASKING).max(64), &ask);
    std::thread::scope(|scope| {
        let asking: Vec<_> = locations
            .chunks(share)
            .map(|some| scope.spawn(move || some.iter().map(ask).collect::<Result<Vec<_>, _>>()))
            .collect();
        let mut answers = Vec::with_capacity(locations.len());
        for asked in asking {
            match asked.join() {
                Ok(some) => answers.extend(some?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(answers)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_from_the_folder_that_all_have() {
        let common = |names: &[&str]| common_folder(names.iter().copied()).to_owned();
        assert_eq!(common(&["/a/b/0.tar", "/a/b/1.tar"]), "/a/b/");
        assert_eq!(common(&["/a/b/0.tar", "/a/bc/1.tar"]), "/a/");
        assert_eq!(common(&["0.tar", "b/1.tar"]), "");
        assert_eq!(common(&["https://host/x/0.tar", "s3://bucket/0.tar"]), "");
        assert_eq!(common(&[]), "");
    }
}
