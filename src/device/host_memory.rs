//! Memory that a process of this machine may have.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Most memory that this process may have, and what sets that limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostMemory {
    /// Bytes that this process may use.
    pub bytes: u64,
    /// The limit that this is.
    pub limit: MemoryLimit,
}

/// The source of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    /// Memory and swap of the machine.
    Machine,
    /// The control group of a container or a batch job.
    ControlGroup,
    /// `ulimit -v`.
    AddressSpace,
}

impl std::fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            MemoryLimit::Machine => "this machine has",
            MemoryLimit::ControlGroup => {
                "the control group of this process (a container or a batch job) may have"
            }
            MemoryLimit::AddressSpace => "`ulimit -v` leaves",
        })
    }
}

/// The smallest limit; nothing where the machine does not say.
pub fn host_memory() -> Option<HostMemory> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let (machine, swap) = machine(&meminfo)?;
    let limits = [
        (Some(machine + swap), MemoryLimit::Machine),
        (control_group(&groups, Path::new("/sys/fs/cgroup"), swap), MemoryLimit::ControlGroup),
        (address_space(), MemoryLimit::AddressSpace),
    ];
    let limits = limits.into_iter().filter_map(|(bytes, limit)| Some(HostMemory { bytes: bytes?, limit }));
    limits.min_by_key(|memory| memory.bytes)
}

/// Message for something that needs more bytes of memory than this process may have.
pub fn beyond_host(what: &str, needed: f64) -> Option<String> {
    let HostMemory { bytes, limit } = host_memory()?;
    let gib = |bytes: f64| bytes / f64::from(1 << 30);
    (needed > bytes as f64).then(|| {
        format!("{what}: about {:.1} GiB of memory, and {limit} {:.1} GiB", gib(needed), gib(bytes as f64))
    })
}

/// Bytes of memory and of swap, from the text of /proc/meminfo.
fn machine(meminfo: &str) -> Option<(u64, u64)> {
    let of = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    Some((of("MemTotal")?, of("SwapTotal").unwrap_or(0)))
}

/// The smallest limit of the groups that the text of /proc/self/cgroup names, and of those around them. Version 2 counts
/// swap by itself, which is `swap` where a group does not limit it.
fn control_group(groups: &str, root: &Path, swap: u64) -> Option<u64> {
    let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let mut smallest = None;
    for group in groups.lines() {
        let mut parts = group.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let second = controllers.is_empty();
        if !second && !controllers.split(',').any(|controller| controller == "memory") {
            continue;
        }
        let (root, file) = match second {
            true => (root.to_path_buf(), "memory.max"),
            false => (root.join("memory"), "memory.limit_in_bytes"),
        };
        // Inside a container the path may be that of the machine outside: then only the root is there.
        let names = Path::new(path).components().filter(|part| matches!(part, Component::Normal(_)));
        let mut folder = root.clone();
        let mut folders = vec![root];
        for name in names {
            folder.push(name);
            folders.push(folder.clone());
        }
        for folder in folders {
            let beside = || number(folder.join("memory.swap.max")).map_or(swap, |most| most.min(swap));
            let limit = number(folder.join(file));
            let limit = limit.map(|most| if second { most.saturating_add(beside()) } else { most });
            smallest = smallest.into_iter().chain(limit).min();
        }
    }
    smallest
}

fn address_space() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the system writes one struct.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) } != 0;
    (!failed && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_says_how_much_it_has() {
        let text = "MemTotal:       24576 kB\nMemFree:  1 kB\nSwapTotal:          1024 kB\n";
        assert_eq!(machine(text), Some((24 << 20, 1 << 20)));
        assert_eq!(machine("MemFree: 1 kB\n"), None);
        assert!(host_memory().is_some_and(|memory| memory.bytes > 1 << 26));
    }

    #[test]
    fn the_smallest_group_around_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let found = |groups: &str| control_group(groups, root.path(), 1000);
        assert_eq!(found("0::/job/step\n"), None);
        write("job/memory.max", "5000\n");
        write("job/step/memory.max", "max\n");
        assert_eq!(found("0::/job/step\n"), Some(6000));
        write("job/memory.swap.max", "0\n");
        assert_eq!(found("0::/job/step\n"), Some(5000));
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/docker/x/memory.limit_in_bytes", "4096\n");
        assert_eq!(found("5:cpu,memory:/docker/x\n2:pids:/\n"), Some(4096));
        assert_eq!(found("5:memory:/of/the/machine/outside\n"), Some(9223372036854771712));
        assert_eq!(found("nonsense"), None);
    }
}
