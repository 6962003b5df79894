//! Before a run of several processes begins: who they are, and whether all of them run the same.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::cores::Cores;
use super::{Ranks, RanksError};

/// A process of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its number, from 0.
    pub rank: usize,
    /// Name of its machine.
    pub host: String,
    /// Its process id there.
    pub process: u32,
    /// Device that it computes on.
    pub device: String,
    /// Its place among the ranks of its host, from 0.
    pub local: usize,
    /// Cores that it may use beside the other ranks of its host.
    pub cores: usize,
}

/// Message of every rank to the others at the start.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    host: String,
    process: u32,
    device: String,
    cores: Cores,
    /// Facts that have to be alike: their names, and values or hashes.
    alike: BTreeMap<String, String>,
}

/// Introduces the ranks to each other. `alike` names what has to be the same on all of them, with its value; this binary
/// is added to it. Returns the members in order.
///
/// # Errors
/// A rank differs from rank 0: every one that does is named, with what it has.
pub fn agree(ranks: &dyn Ranks, device: &str, alike: &[(&str, String)]) -> Result<Vec<Member>, RanksError> {
    let mut own: BTreeMap<String, String> =
        alike.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    if ranks.count() > 1 {
        own.insert("binary".into(), program());
    }
    let hello = Hello {
        host: host(),
        process: std::process::id(),
        device: device.into(),
        cores: Cores::here(),
        alike: own,
    };
    let hello = serde_json::to_vec(&hello).unwrap_or_default();
    let all: Vec<Hello> = ranks
        .gather(&hello)?
        .iter()
        .map(|bytes| serde_json::from_slice(bytes))
        .collect::<Result<_, _>>()
        .map_err(|_| RanksError::NotAlike("  a rank does not speak as this one: another binary".into()))?;
    let mut different = Vec::new();
    let first = &all[0].alike;
    for (rank, hello) in all.iter().enumerate().skip(1) {
        for (name, value) in first {
            let there = hello.alike.get(name).map_or("none", String::as_str);
            if there != value {
                let (host, process) = (&hello.host, hello.process);
                let expected = short(value);
                different.push(format!(
                    "  rank {rank} (host {host}, process {process}) has another {name}: {}; rank 0 has {expected}",
                    short(there)
                ));
            }
        }
    }
    if !different.is_empty() {
        return Err(RanksError::NotAlike(different.join("\n")));
    }
    let on = |host: &str| -> Vec<&Cores> {
        all.iter().filter(|other| other.host == host).map(|other| &other.cores).collect()
    };
    let before = |rank: usize, host: &str| all[..rank].iter().filter(|other| other.host == host).count();
    let members = all.iter().enumerate().map(|(rank, hello)| Member {
        rank,
        host: hello.host.clone(),
        process: hello.process,
        device: hello.device.clone(),
        local: before(rank, &hello.host),
        cores: hello.cores.share(&on(&hello.host)),
    });
    Ok(members.collect())
}

/// Hashes are known by their beginning; what is short or has words is told as it is.
fn short(value: &str) -> &str {
    let hash = value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hash {
        &value[..12]
    } else {
        value
    }
}

/// A hash of this binary.
fn program() -> String {
    let hash = || -> io::Result<String> {
        let mut hash = Sha256::new();
        io::copy(&mut std::fs::File::open(std::env::current_exe()?)?, &mut hash)?;
        Ok(hex(&hash.finalize()))
    };
    // Where a system does not show a process its binary, the version has to do.
    hash().unwrap_or_else(|_| env!("CARGO_PKG_VERSION").into())
}

/// A hash of a text, to compare it by.
pub fn hash(text: &str) -> String {
    hex(&Sha256::digest(text))
}

/// A finished hash as text.
pub fn hash_of(hash: Sha256) -> String {
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Name of this machine.
pub fn host() -> String {
    let from_file = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = from_file().or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    match name.trim() {
        "" => "unknown".into(),
        name => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranks::{Alone, Traffic};

    /// Rank 0 of two, where the other says what it says.
    #[derive(Debug)]
    struct WithOther(Alone, Vec<u8>);

    impl Ranks for WithOther {
        fn rank(&self) -> usize {
            0
        }
        fn count(&self) -> usize {
            2
        }
        fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, RanksError> {
            Ok(vec![own.to_vec(), self.1.clone()])
        }
        fn broadcast(&self, _: usize, _: &mut [f32]) -> Result<(), RanksError> {
            Ok(())
        }
        fn exchange(&self, _: &[&[f32]], _: &mut [&mut [f32]]) -> Result<(), RanksError> {
            Ok(())
        }
        fn pass(&self, _: Option<&[f32]>, _: Option<&mut [f32]>) -> Result<(), RanksError> {
            Ok(())
        }
        fn traffic(&self) -> &Traffic {
            self.0.traffic()
        }
        fn end(&self, code: u8) -> ! {
            self.0.end(code)
        }
    }

    #[test]
    fn another_binary_recipe_or_seed_is_refused_by_name() {
        let hello = |seed: &str, binary: String| {
            let alike = [("seed", seed.to_string()), ("binary", binary)];
            let alike = alike.map(|(name, value)| (name.to_string(), value)).into();
            let hello =
                Hello { host: "n7".into(), process: 9, device: "CPU".into(), cores: Cores::here(), alike };
            serde_json::to_vec(&hello).unwrap()
        };
        let with =
            |other: Vec<u8>| agree(&WithOther(Alone::default(), other), "CPU", &[("seed", "0".into())]);
        let members = with(hello("0", program())).unwrap();
        assert_eq!((members[1].host.as_str(), members[1].process, members[1].local), ("n7", 9, 0));
        let error = with(hello("1", "f".repeat(64))).unwrap_err().to_string();
        assert!(error.contains("rank 1 (host n7, process 9) has another seed: 1; rank 0 has 0"), "{error}");
        assert!(error.contains("has another binary: ffffffffffff; rank 0 has "), "{error}");
    }
}
