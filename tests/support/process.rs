//! What a process has taken, as the kernel counts it.
#![allow(dead_code, unreachable_pub, clippy::expect_used, clippy::panic)]

use std::time::Duration;

/// User and system time.
pub fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    // The name in parentheses may hold spaces.
    let fields: Vec<&str> = stat.rsplit(')').next().expect("stat").split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
    // USER_HZ is 100 on every Linux that this runs on.
    Duration::from_millis(ticks * 10)
}

/// KiB.
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .unwrap_or_else(|_| panic!("the process {pid} has ended: it was out of memory, or somebody stopped it"));
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident set");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

/// MiB.
pub fn resident_mib(pid: u32) -> f64 {
    resident(pid) as f64 / 1024.0
}
