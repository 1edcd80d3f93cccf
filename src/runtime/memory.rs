//! How much memory this process uses, as the kernel sees it that ends it when it is too much.
//!
//! The container's own accounting is what counts: what the kernel would have to take from it, that is all but file pages
//! which nobody used lately. Sockets are in it, which the resident set does not show. Outside of a container the resident
//! set is all that there is. Must not know what follows from it.

use std::path::{Path, PathBuf};

/// Smaller than this no limit is one: older kernels say a large number for none.
const NO_LIMIT: u64 = 1 << 60;
const PAGE: u64 = 4096;

/// Where to read.
#[derive(Debug, Clone)]
pub struct Measure {
    kind: Kind,
    statm: PathBuf,
}

#[derive(Debug, Clone)]
enum Kind {
    /// The container's directory: files for its limit and what it uses, the key of what can be taken back.
    Container {
        limit: PathBuf,
        used: PathBuf,
        stat: PathBuf,
        idle_files: &'static str,
    },
    Process,
}

impl Measure {
    /// Of this process.
    pub fn of_process() -> Self {
        Self::below(Path::new("/sys/fs/cgroup"), Path::new("/proc/self/statm"))
    }

    /// Version 2 of control groups, else version 1, else none.
    fn below(groups: &Path, statm: &Path) -> Self {
        let old = groups.join("memory");
        let kind = if groups.join("memory.current").exists() {
            Kind::Container {
                limit: groups.join("memory.max"),
                used: groups.join("memory.current"),
                stat: groups.join("memory.stat"),
                idle_files: "inactive_file",
            }
        } else if old.join("memory.usage_in_bytes").exists() {
            Kind::Container {
                limit: old.join("memory.limit_in_bytes"),
                used: old.join("memory.usage_in_bytes"),
                stat: old.join("memory.stat"),
                idle_files: "total_inactive_file",
            }
        } else {
            Kind::Process
        };
        Self { kind, statm: statm.to_owned() }
    }

    /// What the container may use; `None` without a limit.
    pub fn limit(&self) -> Option<u64> {
        match &self.kind {
            Kind::Container { limit, .. } => number(limit).filter(|limit| *limit < NO_LIMIT),
            Kind::Process => None,
        }
    }

    /// What is used now, in bytes.
    pub fn used(&self) -> Option<u64> {
        match &self.kind {
            Kind::Container { used, stat, idle_files, .. } => {
                let stat = std::fs::read_to_string(stat).unwrap_or_default();
                let idle = stat.lines().find_map(|line| line.strip_prefix(idle_files)?.trim().parse::<u64>().ok());
                Some(number(used)?.saturating_sub(idle.unwrap_or_default()))
            }
            Kind::Process => {
                let statm = std::fs::read_to_string(&self.statm).ok()?;
                Some(statm.split_whitespace().nth(1)?.parse::<u64>().ok()?.saturating_mul(PAGE))
            }
        }
    }
}

/// `max` is none.
fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(files: &[(&str, &str)]) -> (Option<u64>, Option<u64>) {
        let root = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().expect("below the root")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        let measure = Measure::below(root.path(), &root.path().join("statm"));
        (measure.limit(), measure.used())
    }

    #[test]
    fn a_container_of_either_version_and_none() {
        let stat = "anon 1\nfile 90\ninactive_anon 7\ninactive_file 40\n";
        let new = [("memory.max", "1000\n"), ("memory.current", "500\n"), ("memory.stat", stat)];
        assert_eq!(measure(&new), (Some(1000), Some(460)));
        assert_eq!(measure(&[("memory.max", "max\n"), ("memory.current", "500\n")]), (None, Some(500)));
        let old = [
            ("memory/memory.limit_in_bytes", "9223372036854771712"),
            ("memory/memory.usage_in_bytes", "500"),
            ("memory/memory.stat", "inactive_file 1\ntotal_inactive_file 100\n"),
        ];
        assert_eq!(measure(&old), (None, Some(400)));
        assert_eq!(measure(&[("statm", "900 3 2 1 0 5 0\n")]), (None, Some(3 * PAGE)));
        assert_eq!(measure(&[]), (None, None));
    }

    #[test]
    fn this_process_uses_some() {
        assert!(Measure::of_process().used().is_some_and(|used| used > 1 << 20));
    }
}
