//! Processes of the local cluster that no supervisor starts again: `tests/cluster/up` started them, and leaves their pids and
//! logs in the cluster's folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) struct Daemon {
    pub(crate) name: String,
    cluster: PathBuf,
    pid: u32,
    arguments: Vec<String>,
}

/// What runs now.
pub(crate) fn all(cluster: &Path) -> Vec<Daemon> {
    let cluster = cluster.canonicalize().unwrap_or_else(|_| cluster.to_path_buf());
    let files = std::fs::read_dir(cluster.join("run")).into_iter().flatten().flatten();
    let of = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.strip_suffix(".pid")?.to_owned();
        let pid = std::fs::read_to_string(&path).ok()?.trim().parse().ok()?;
        let daemon = Daemon { name, cluster: cluster.clone(), pid, arguments: command_line(pid) };
        // The pid may be somebody else's by now.
        daemon.is_running().then_some(daemon)
    };
    files.filter_map(|file| of(file.path())).collect()
}

impl Daemon {
    /// The very process that was found.
    pub(crate) fn is_running(&self) -> bool {
        let (now, ours) = (command_line(self.pid), format!("{}/", self.cluster.display()));
        now == self.arguments && now.iter().any(|word| word.contains(&ours))
    }

    pub(crate) fn kill(&self) -> Result<(), String> {
        let kill = || Command::new("kill").args(["-KILL", &self.pid.to_string()]).status();
        let is_sent = self.is_running() && kill().is_ok_and(|status| status.success());
        if is_sent { Ok(()) } else { Err(format!("{}: process {} cannot be killed", self.name, self.pid)) }
    }

    /// Again, with its own words; it outlives this process, and is the one that the cluster's scripts know.
    pub(crate) fn start(&self) -> Result<(), String> {
        let log = self.cluster.join("log").join(format!("{}.log", self.name));
        let script = "cd \"$1\" && log=$2 && shift 2 && { setsid \"$@\" >>\"$log\" 2>&1 </dev/null & echo $!; }";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(&self.cluster).arg(&log).args(&self.arguments).stdin(Stdio::null());
        let said = command.output().map_err(|error| error.to_string())?;
        let pid = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        if pid.parse::<u32>().is_err() {
            return Err(format!("{} cannot be started: {}", self.name, String::from_utf8_lossy(&said.stderr)));
        }
        let file = self.cluster.join("run").join(format!("{}.pid", self.name));
        std::fs::write(file, format!("{pid}\n")).map_err(|error| error.to_string())
    }
}

fn command_line(pid: u32) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon(is_so: impl Fn() -> bool) -> bool {
        (0..200).any(|_| is_so() || (std::thread::sleep(Duration::from_millis(25)), false).1)
    }

    /// Whatever happens, its process does not stay.
    struct Ended<'a>(&'a Path);

    impl Drop for Ended<'_> {
        fn drop(&mut self) {
            for daemon in all(self.0) {
                let _ = daemon.kill();
            }
        }
    }

    #[test]
    fn a_killed_daemon_is_started_again_with_its_own_words() {
        let folder = tempfile::tempdir().expect("a folder");
        let cluster = folder.path().canonicalize().expect("there");
        for name in ["run", "log", "bin"] {
            std::fs::create_dir(cluster.join(name)).expect("made");
        }
        let program = cluster.join("bin/api-server");
        std::fs::write(&program, "#!/bin/sh\necho began \"$@\"\nwhile :; do sleep 0.1; done\n").expect("written");
        let arguments = ["/bin/sh", program.to_str().expect("text"), "--a b", "--c"].map(str::to_owned).to_vec();
        let first = Daemon { name: "api-server".to_owned(), cluster: cluster.clone(), pid: 0, arguments };
        let _ended = Ended(&cluster);
        first.start().expect("started");
        // Until then it is the shell that becomes it.
        let is_one = || matches!(all(&cluster).as_slice(), [daemon] if daemon.arguments == first.arguments);
        assert!(soon(is_one), "nothing runs");
        let found = all(&cluster).remove(0);
        assert_eq!((found.name.as_str(), &found.arguments), ("api-server", &first.arguments));
        found.kill().expect("killed");
        assert!(soon(|| !found.is_running()) && all(&cluster).is_empty());
        found.start().expect("started again");
        assert!(soon(is_one), "it did not come again");
        let again = all(&cluster).remove(0);
        assert!(again.pid != found.pid && again.arguments == found.arguments);
        let log = cluster.join("log/api-server.log");
        let words = || std::fs::read_to_string(&log).unwrap_or_default();
        assert!(soon(|| words() == "began --a b --c\nbegan --a b --c\n"), "{}", words());
        // Somebody else's process is not the cluster's.
        std::fs::write(cluster.join("run/other.pid"), std::process::id().to_string()).expect("written");
        assert_eq!(all(&cluster).len(), 1);
    }
}
