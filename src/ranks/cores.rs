//! The cores that a rank may use beside the others of its machine.

use std::collections::BTreeSet;
use std::fs;

use serde::{Deserialize, Serialize};

/// The cores that the system lets a process run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cores {
    /// Numbers of the cores, as launchers and `taskset` bind a process to them; empty where the system does not say.
    bound: BTreeSet<u32>,
    /// Cores that the process may keep busy: fewer than it is bound to where a control group has a quota.
    busy: usize,
}

impl Cores {
    /// Those of this process.
    pub fn here() -> Cores {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let bound = list.and_then(|list| parse(list.trim())).unwrap_or_default();
        Cores { bound, busy: std::thread::available_parallelism().map_or(1, |cores| cores.get()) }
    }

    /// The share of a process among all of one machine, itself included, in whole cores; at least one. A core that several
    /// are bound to counts for each in equal parts, so that what a launcher has divided is not divided again.
    pub fn share(&self, machine: &[&Cores]) -> usize {
        if self.bound.is_empty() {
            return (self.busy / machine.len().max(1)).max(1);
        }
        let among = |core: &u32| machine.iter().filter(|other| other.bound.contains(core)).count().max(1);
        let share: f64 = self.bound.iter().map(|core| 1.0 / among(core) as f64).sum();
        let quota = (self.busy as f64 / self.bound.len() as f64).min(1.0);
        // A sum of thirds may lie just below a whole number.
        ((share * quota + 1e-6) as usize).max(1)
    }
}

/// The numbers of a list as Linux writes it, `0-3,8`.
fn parse(list: &str) -> Option<BTreeSet<u32>> {
    let mut numbers = BTreeSet::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        numbers.extend(first.parse::<u32>().ok()?..=last.parse().ok()?);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores(list: &str, busy: usize) -> Cores {
        Cores { bound: parse(list).unwrap_or_default(), busy }
    }

    #[test]
    fn what_a_launcher_divided_is_not_divided_again() {
        let shares = |all: &[Cores]| -> Vec<usize> {
            let machine: Vec<&Cores> = all.iter().collect();
            all.iter().map(|own| own.share(&machine)).collect()
        };
        // mpirun -n 2 on two cores, each bound to one.
        assert_eq!(shares(&[cores("0", 1), cores("1", 1)]), [1, 1]);
        // srun --cpus-per-task=12 with eight ranks.
        let bound: Vec<Cores> = (0..8).map(|n| cores(&format!("{}-{}", 12 * n, 12 * n + 11), 12)).collect();
        assert_eq!(shares(&bound), [12; 8]);
        // Not bound: the machine is divided.
        assert_eq!(shares(&[cores("0-15", 16), cores("0-15", 16), cores("0-15", 16)]), [5, 5, 5]);
        assert_eq!(shares(&[cores("0-1", 2), cores("0-1", 2), cores("0-1", 2)]), [1, 1, 1]);
        // Two sockets, two ranks bound to each.
        assert_eq!(
            shares(&[cores("0-3", 4), cores("0-3", 4), cores("4-7,16", 5), cores("4-7,16", 5)]),
            [2, 2, 2, 2]
        );
        // A quota of four cores for the control group of all.
        assert_eq!(shares(&[cores("0-63", 4), cores("0-63", 4)]), [2, 2]);
        // A system that does not say what a process is bound to.
        assert_eq!(shares(&[cores("", 8), cores("", 8)]), [4, 4]);
        assert_eq!(shares(&[cores("0-2", 3), cores("0-2", 3), cores("0-2", 3)]), [1, 1, 1]);
    }

    #[test]
    fn lists_are_read_as_linux_writes_them() {
        assert_eq!(parse("0-2,5,7-8"), Some([0, 1, 2, 5, 7, 8].into()));
        assert_eq!(parse(""), None);
        assert_eq!(parse("0-x"), None);
        let here = Cores::here();
        assert_eq!(here.share(&[&here]), std::thread::available_parallelism().unwrap().get());
    }
}
