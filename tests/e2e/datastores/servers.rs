//! Databases with TLS on the node's address, each a process of its own with a folder of its own.

use std::net::{IpAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use portico::tls::certificates::{Leaf, Pair, Usage, new_ca, new_leaf};
use tempfile::TempDir;

use crate::harness::{eventually_is, host, node, target, work};
use crate::port;

pub(crate) const PASSWORD: &str = "a-password-for-one-test";

/// A database that runs until it is dropped.
pub(crate) struct Server {
    /// What a datastore's `endpoint` says.
    pub(crate) endpoint: String,
    /// Files of the Secret beside it.
    files: Vec<(&'static str, PathBuf)>,
    child: Child,
    /// The signal that ends it at once and in order.
    signal: &'static str,
    _folder: TempDir,
}

impl Server {
    /// Makes Secret `database` in a namespace.
    pub(crate) fn secret(&self, namespace: &str) {
        let mut arguments = vec![format!("--from-literal=endpoint={}", self.endpoint)];
        arguments.extend(self.files.iter().map(|(key, file)| format!("--from-file={key}={}", file.display())));
        let mut command = vec!["-n", namespace, "create", "secret", "generic", "database"];
        command.extend(arguments.iter().map(String::as_str));
        host(&command).ok();
    }
}

impl Server {
    /// Leaves it running until `tests/e2e/run` ends it by its pid: for a tenant that all tests of a run share.
    pub(crate) fn for_the_whole_run(self) {
        use std::io::Write as _;
        let list = std::fs::OpenOptions::new().create(true).append(true).open(work().join("servers.pids"));
        writeln!(list.expect("a list of pids"), "{} {}", self.child.id(), self._folder.path().display())
            .expect("written");
        std::mem::forget(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill").args([self.signal, &self.child.id().to_string()]).status();
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    port::free(node().parse::<IpAddr>().expect("the node has an address"))
}

/// A folder that belongs to one system user, with a CA and a certificate for the node's address.
struct Place {
    folder: TempDir,
    ca: Pair,
    owner: Option<(u32, u32)>,
    port: u16,
}

impl Place {
    fn new(user: Option<&str>) -> Self {
        let now = jiff::Timestamp::now();
        let ca = new_ca("databases", now).expect("a CA");
        let folder = tempfile::Builder::new().prefix("portico-e2e-").tempdir().expect("a folder");
        let place = Self { folder, ca, owner: user.map(system_user), port: free_port() };
        place.own(place.folder.path());
        place.write("ca.crt", &place.ca.certificate);
        place.pair("server", Usage::Server, vec![node()]);
        place
    }

    fn pair(&self, name: &str, usage: Usage, names: Vec<String>) {
        let leaf = Leaf { common_name: name.to_owned(), organization: None, names, usage, renew_days: 1 };
        let pair = new_leaf(&self.ca, &leaf, jiff::Timestamp::now()).expect("a certificate");
        self.write(&format!("{name}.crt"), &pair.certificate);
        self.write(&format!("{name}.key"), &pair.key);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(self.path(name), text).expect("written");
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o600)).expect("private");
        self.own(&self.path(name));
    }

    fn own(&self, path: &Path) {
        if let Some((user, group)) = self.owner {
            std::os::unix::fs::chown(path, Some(user), Some(group)).expect("this test runs as root");
        }
    }

    /// A program as the owner of the folder; it says nothing but to `log`.
    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("log")).expect("a log");
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }

    fn run(&self, program: &Path, arguments: &[&str]) {
        let done = self.command(program, arguments).status();
        let done = done.unwrap_or_else(|e| panic!("{}: {e} ('make databases' installs it)", program.display()));
        assert!(done.success(), "{}: {}", program.display(), self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Starts it for good and waits for its port.
    fn serve(self, program: &Path, arguments: &[&str], signal: &'static str, endpoint: String) -> Server {
        let child = self.command(program, arguments).spawn();
        let mut child = child.unwrap_or_else(|e| panic!("{}: {e} ('make databases' installs it)", program.display()));
        eventually_is(&format!("{} listens", program.display()), || {
            if let Ok(Some(code)) = child.try_wait() {
                panic!("{} ended with {code}: {}", program.display(), self.log());
            }
            TcpStream::connect((node(), self.port)).is_ok()
        });
        let mut files = vec![("ca.crt", self.path("ca.crt"))];
        if self.path("client.crt").exists() {
            files.extend([("tls.crt", self.path("client.crt")), ("tls.key", self.path("client.key"))]);
        }
        Server { endpoint, files, child, signal, _folder: self.folder }
    }
}

/// User and group of a system user, who comes with the package.
fn system_user(name: &str) -> (u32, u32) {
    let users = std::fs::read_to_string("/etc/passwd").expect("users");
    let mut line = users.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|fields| fields[0] == name);
    let fields = line.next().unwrap_or_else(|| panic!("there is no user {name} ('make databases' installs it)"));
    (fields[2].parse().expect("a number"), fields[3].parse().expect("a number"))
}

/// PostgreSQL, which lets in nobody without TLS.
pub(crate) fn postgres() -> Server {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("postgres").exists()).max();
    let programs = newest.expect("PostgreSQL is not installed: 'make databases'");
    let place = Place::new(Some("postgres"));
    place.write("password", PASSWORD);
    let (data, password) = (place.text("data"), place.text("password"));
    let initialize = ["-D", &data, "-U", "kine", "-A", "scram-sha-256", "--pwfile", &password, "-E", "UTF8"];
    place.run(&programs.join("initdb"), &[&initialize[..], &["--locale=C", "--no-sync"]].concat());
    place.write("data/pg_hba.conf", "hostssl all kine all scram-sha-256\n");
    let settings = [
        format!("listen_addresses={}", node()),
        format!("port={}", place.port),
        format!("unix_socket_directories={}", place.folder.path().display()),
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", place.text("server.crt")),
        format!("ssl_key_file={}", place.text("server.key")),
        "fsync=off".to_owned(),
    ];
    let mut arguments = vec!["-D", &data];
    arguments.extend(settings.iter().flat_map(|setting| ["-c", setting.as_str()]));
    let endpoint = format!("postgres://kine:{PASSWORD}@{}:{}/twins?sslmode=verify-full", node(), place.port);
    place.serve(&programs.join("postgres"), &arguments, "-INT", endpoint)
}

/// MariaDB, likewise.
pub(crate) fn mariadb() -> Server {
    let place = Place::new(Some("mysql"));
    let data = format!("--datadir={}", place.text("data"));
    let install = ["--no-defaults", &data, "--auth-root-authentication-method=normal", "--skip-test-db"];
    place.run(Path::new("/usr/bin/mariadb-install-db"), &install);
    place.write(
        "init.sql",
        &format!("CREATE USER kine@'%' IDENTIFIED BY '{PASSWORD}' REQUIRE SSL;\nGRANT ALL ON *.* TO kine@'%';\n"),
    );
    let settings = [
        "--no-defaults".to_owned(),
        data,
        format!("--bind-address={}", node()),
        format!("--port={}", place.port),
        format!("--socket={}", place.text("socket")),
        format!("--pid-file={}", place.text("pid")),
        format!("--tmpdir={}", place.folder.path().display()),
        format!("--ssl-ca={}", place.text("ca.crt")),
        format!("--ssl-cert={}", place.text("server.crt")),
        format!("--ssl-key={}", place.text("server.key")),
        format!("--init-file={}", place.text("init.sql")),
        "--skip-name-resolve".to_owned(),
        "--innodb-flush-log-at-trx-commit=0".to_owned(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let endpoint = format!("mysql://kine:{PASSWORD}@tcp({}:{})/twins", node(), place.port);
    place.serve(Path::new("/usr/sbin/mariadbd"), &settings, "-TERM", endpoint)
}

/// An etcd that asks for a certificate.
pub(crate) fn etcd() -> Server {
    let place = Place::new(None);
    place.pair("client", Usage::Client, Vec::new());
    let (client, peer) = (format!("https://{}:{}", node(), place.port), format!("http://{}:{}", node(), free_port()));
    let settings = [
        format!("--data-dir={}", place.text("data")),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        format!("--cert-file={}", place.text("server.crt")),
        format!("--key-file={}", place.text("server.key")),
        format!("--trusted-ca-file={}", place.text("ca.crt")),
        "--client-cert-auth".to_owned(),
        "--unsafe-no-fsync".to_owned(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    place.serve(&target().join("cluster/bin/etcd"), &settings, "-TERM", client)
}
