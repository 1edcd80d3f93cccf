//! Programs with captured output.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// What a program said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) command: String,
    pub(crate) code: i32,
    pub(crate) bytes: Vec<u8>,
    pub(crate) err: String,
}

impl Answer {
    /// stdout as text.
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// stdout of a program that must succeed.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self}");
        self.out()
    }

    /// stdout as JSON of a program that must succeed.
    #[track_caller]
    pub(crate) fn json(self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// A program that must fail, saying one of these words (compared without case).
    #[track_caller]
    pub(crate) fn fails(self, words: &[&str]) {
        assert_ne!(self.code, 0, "must fail: {self}");
        let said = format!("{}{}", self.out(), self.err).to_lowercase();
        assert!(words.iter().any(|w| said.contains(&w.to_lowercase())), "none of {words:?} is the reason: {self}");
    }

    /// For waiting: `Err` with everything said unless it succeeded.
    pub(crate) fn result(self) -> Result<String, String> {
        if self.code == 0 { Ok(self.out()) } else { Err(self.to_string()) }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let out = self.out();
        let shown: String = out.chars().take(2000).collect();
        write!(f, "{} ended with {}\nstdout: {shown}\nstderr: {}", self.command, self.code, self.err)
    }
}

/// kubectl with a kubeconfig.
pub(crate) fn kubectl(kubeconfig: &Path, arguments: &[&str]) -> Answer {
    Invocation::kubectl(kubeconfig, arguments).run()
}

/// The portico that is in `target/bin`, against the host.
pub(crate) fn portico(arguments: &[&str]) -> Answer {
    Invocation::new("portico", &super::host_kubeconfig(), arguments).run()
}

/// A program about to run.
pub(crate) struct Invocation {
    program: PathBuf,
    name: String,
    command: Command,
    stdin: Vec<u8>,
}

impl Invocation {
    pub(crate) fn kubectl(kubeconfig: &Path, arguments: &[&str]) -> Self {
        Self::new("kubectl", kubeconfig, arguments)
    }

    pub(crate) fn new(name: &str, kubeconfig: &Path, arguments: &[&str]) -> Self {
        let bin = super::target().join("bin");
        let program = bin.join(name);
        let mut command = Command::new(&program);
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        command.args(arguments).env("KUBECONFIG", kubeconfig).env("PATH", path).stdin(Stdio::piped());
        Self { program, name: format!("{name} {}", arguments.join(" ")), command, stdin: Vec::new() }
    }

    pub(crate) fn env(mut self, key: &str, value: &str) -> Self {
        self.command.env(key, value);
        self
    }

    pub(crate) fn stdin(mut self, bytes: &[u8]) -> Self {
        self.stdin = bytes.to_vec();
        self
    }

    pub(crate) fn run(mut self) -> Answer {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.spawn();
        let mut stdin = child.stdin.take().expect("piped");
        let bytes = std::mem::take(&mut self.stdin);
        let writer = std::thread::spawn(move || {
            // A program may end without reading everything.
            let _ = stdin.write_all(&bytes);
        });
        let output = child.wait_with_output().expect("the program ends");
        writer.join().expect("the writer ends");
        Answer {
            command: self.name,
            code: output.status.code().unwrap_or(-1),
            bytes: output.stdout,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Leaves it running; its stdout is read line by line.
    pub(crate) fn start(mut self) -> Running {
        self.command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = self.spawn();
        let stdout = child.stdout.take().expect("piped");
        let (sender, lines) = sync_channel(1024);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Running { child, lines, name: self.name }
    }

    fn spawn(&mut self) -> Child {
        let program = self.program.display();
        self.command.spawn().unwrap_or_else(|e| panic!("{program}: {e} ('make up image' builds it)"))
    }
}

/// A program that runs until it is dropped.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    name: String,
}

impl Running {
    /// The next line that contains this text.
    #[track_caller]
    pub(crate) fn line_with(&self, text: &str) -> String {
        let deadline = Instant::now() + super::patience();
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left.max(Duration::from_millis(1))) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => seen.push(line),
                Err(RecvTimeoutError::Timeout) => panic!("{}: no line with {text:?}; seen: {seen:?}", self.name),
                Err(RecvTimeoutError::Disconnected) => panic!("{} ended without {text:?}; seen: {seen:?}", self.name),
            }
        }
    }

    /// Of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Writes to its stdin, which stays open.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let stdin = self.child.stdin.as_mut().expect("open");
        stdin.write_all(bytes).and_then(|()| stdin.flush()).expect("it reads");
    }
}

impl Running {
    /// Ends it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One HTTP/1.1 GET over plain TCP.
pub(crate) fn http_get(address: &str, path: &str) -> Result<String, String> {
    let mut stream = std::net::TcpStream::connect(address).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(super::patience())).map_err(|e| e.to_string())?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: e2e\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|e| e.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|e| e.to_string())?;
    Ok(answer)
}
