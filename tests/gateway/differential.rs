//! Go's HTTP server behind the gateway, as API servers are: what it takes for requests is what the gateway judged, each once
//! and by the same path, and what it refuses itself the gateway refuses too.
#![allow(clippy::print_stdout)]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;
use portico::error::Side;
use portico::upstream::{Pool, Target};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::fake;
use crate::support::pki::Pki;
use crate::wire::{self, DATA, END_HEADERS, END_STREAM, HEADERS, Reading, Wire};
use crate::world::{Dial, PATIENCE, World, text};

const HEAD: &str = "Host: alpha.example.com\r\n";

/// A request as Go took it.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
struct Seen {
    method: String,
    target: String,
    path: String,
    body: String,
    user: String,
}

/// What is wrong, method, path and fields.
type Case<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a str)]);

/// The program; it ends with the test.
struct Go {
    _child: Child,
    address: SocketAddr,
    pki: Pki,
    seen: Arc<Mutex<Vec<Seen>>>,
    _folder: tempfile::TempDir,
}

impl Go {
    /// None where there is no Go; on CI there is.
    fn start() -> Option<Self> {
        if Command::new("go").arg("version").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "CI has Go");
            println!("not run: no Go on this machine");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let (program, source) =
            (folder.path().join("server"), Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/isolation/go"));
        let mut build = Command::new("go");
        build.current_dir(source).env("CGO_ENABLED", "0").env("GOFLAGS", "-buildvcs=false").args(["build", "-o"]);
        assert!(build.arg(&program).arg(".").status().expect("go runs").success(), "the server does not compile");
        let pki = Pki::new("Go's CA");
        let serving = pki.server(&["127.0.0.1"]);
        let [certificate, key] = ["crt", "key"].map(|name| folder.path().join(name));
        std::fs::write(&certificate, serving.certificate).expect("written");
        std::fs::write(&key, serving.key).expect("written");
        let mut command = Command::new(program);
        let mut child =
            command.arg(certificate).arg(key).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let address: String = serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("an address");
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let all = Arc::clone(&seen);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                all.lock().push(serde_json::from_str(&line).expect("a request"));
            }
        });
        Some(Self { _child: child, address: address.parse().expect("an address"), pki, seen, _folder: folder })
    }

    fn target(&self) -> Target {
        fake::target(Side::Backend, self.address, &self.pki, &self.pki.client("portico", &[]))
    }

    fn dial(&self) -> Dial {
        Dial::to(self.address, &self.pki)
    }

    /// What it took since it was asked last; what was sent before has arrived.
    async fn took(&self) -> Vec<Seen> {
        let mark = "/mark";
        let answer =
            exchange(&self.dial(), format!("GET {mark} HTTP/1.1\r\n{HEAD}Connection: close\r\n\r\n").as_bytes()).await;
        assert_eq!(codes(&answer), [200], "{answer}");
        let marked = async {
            while !self.seen.lock().iter().any(|seen| seen.path == mark) {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, marked).await.expect("said in time");
        let mut all = std::mem::take(&mut *self.seen.lock());
        all.retain(|seen| seen.path != mark);
        all
    }
}

/// Sends these bytes over HTTP/1.1 and reads to the end of the connection.
async fn exchange(dial: &Dial, bytes: &[u8]) -> String {
    let mut tls = dial.tls(b"http/1.1").await;
    let _ = tls.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, tls.read_to_end(&mut answer)).await.expect("closed in time");
    String::from_utf8_lossy(&answer).into_owned()
}

fn codes(answers: &str) -> Vec<u16> {
    // A body may stand right before the next answer.
    let heads = answers.split("HTTP/1.").skip(1);
    heads.filter_map(|head| head.split(' ').nth(1)?.get(..3)?.parse().ok()).collect()
}

/// What is sent, under a name. The request behind it says where the first one ended for whom, and ends the connection.
fn framings() -> Vec<(&'static str, String)> {
    let post = |fields: &str, body: &str| format!("POST /api/v1/x HTTP/1.1\r\n{HEAD}{fields}\r\n{body}");
    let chunks = "3\r\nabc\r\n0\r\n\r\n";
    let mut all = vec![
        ("plain", post("Content-Length: 3\r\n", "abc")),
        ("chunks", post("Transfer-Encoding: chunked\r\n", chunks)),
        ("length before chunks", post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", chunks)),
        ("chunks before length", post("Transfer-Encoding: chunked\r\nContent-Length: 300\r\n", chunks)),
        ("two codings", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunks)),
        ("identity behind", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", chunks)),
        ("identity", post("Transfer-Encoding: identity\r\nContent-Length: 3\r\n", "abc")),
        ("chunked twice", post("Transfer-Encoding: chunked, chunked\r\n", chunks)),
        ("gzip before", post("Transfer-Encoding: gzip, chunked\r\n", chunks)),
        ("unknown coding", post("Transfer-Encoding: xchunked\r\n", chunks)),
        ("coding with a tab", post("Transfer-Encoding:\tchunked\r\n", chunks)),
        ("coding with a vertical tab", post("Transfer-Encoding: \u{b}chunked\r\n", chunks)),
        ("coding in capitals", post("Transfer-Encoding: CHUNKED\r\n", chunks)),
        ("coding with a space before its colon", post("Transfer-Encoding : chunked\r\n", chunks)),
        ("folded coding", post("Transfer-Encoding:\r\n chunked\r\n", chunks)),
        ("folded field", post("X-A: b\r\n c\r\nContent-Length: 3\r\n", "abc")),
        ("two lengths", post("Content-Length: 3\r\nContent-Length: 4\r\n", "abc")),
        ("the same length twice", post("Content-Length: 3\r\nContent-Length: 3\r\n", "abc")),
        ("a list of lengths", post("Content-Length: 3, 3\r\n", "abc")),
        ("a signed length", post("Content-Length: +3\r\n", "abc")),
        ("a length in hex", post("Content-Length: 0x3\r\n", "abc")),
        ("a length that is negative", post("Content-Length: -1\r\n", "abc")),
        ("a length beyond numbers", post("Content-Length: 99999999999999999999\r\n", "abc")),
        ("an empty length", post("Content-Length:\r\n", "abc")),
        ("chunk extension", post("Transfer-Encoding: chunked\r\n", "3;a=b\r\nabc\r\n0\r\n\r\n")),
        ("chunk extension in quotes", post("Transfer-Encoding: chunked\r\n", "3;a=\"\\\"b\"\r\nabc\r\n0\r\n\r\n")),
        ("chunk extension with LF", post("Transfer-Encoding: chunked\r\n", "3;a\nabc\r\n0\r\n\r\n")),
        ("chunk size ends in LF", post("Transfer-Encoding: chunked\r\n", "3\nabc\r\n0\r\n\r\n")),
        ("chunk ends in LF", post("Transfer-Encoding: chunked\r\n", "3\r\nabc\n0\r\n\r\n")),
        ("chunk without an end", post("Transfer-Encoding: chunked\r\n", "3\r\nabcd\r\n0\r\n\r\n")),
        ("chunk size with a space", post("Transfer-Encoding: chunked\r\n", "3 \r\nabc\r\n0\r\n\r\n")),
        ("chunk size in 0x", post("Transfer-Encoding: chunked\r\n", "0x3\r\nabc\r\n0\r\n\r\n")),
        ("chunk size with a sign", post("Transfer-Encoding: chunked\r\n", "+3\r\nabc\r\n0\r\n\r\n")),
        ("chunk size beyond numbers", post("Transfer-Encoding: chunked\r\n", "10000000000000003\r\nabc\r\n0\r\n\r\n")),
        ("1.0 with chunks", format!("POST /api/v1/x HTTP/1.0\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n{chunks}")),
        ("1.0 with length", format!("POST /api/v1/x HTTP/1.0\r\n{HEAD}Content-Length: 3\r\n\r\nabc")),
        ("GET with a body", format!("GET /api/v1/x HTTP/1.1\r\n{HEAD}Content-Length: 3\r\n\r\nabc")),
        ("HEAD with a body", format!("HEAD /api/v1/x HTTP/1.1\r\n{HEAD}Content-Length: 3\r\n\r\nabc")),
        ("lines in LF", "GET /api/v1/x HTTP/1.1\nHost: alpha.example.com\n\n".to_owned()),
        ("a lone CR", format!("GET /api/v1/x HTTP/1.1\r\n{HEAD}X-A: b\rX-Remote-User: root\r\n\r\n")),
        ("a NUL", format!("GET /api/v1/x HTTP/1.1\r\n{HEAD}X-A: b\0c\r\n\r\n")),
        ("a name with a space", format!("GET /api/v1/x HTTP/1.1\r\n{HEAD}X A: b\r\n\r\n")),
        ("a field without a colon", format!("GET /api/v1/x HTTP/1.1\r\n{HEAD}X-A\r\n\r\n")),
        ("a space before the first field", format!("GET /api/v1/x HTTP/1.1\r\n X-A: b\r\n{HEAD}\r\n")),
        ("an unknown version", format!("GET /api/v1/x HTTP/1.2\r\n{HEAD}\r\n")),
        ("a method in lower case", format!("get /api/v1/x HTTP/1.1\r\n{HEAD}\r\n")),
        ("an empty line before", format!("\r\nGET /api/v1/x HTTP/1.1\r\n{HEAD}\r\n")),
    ];
    for (_, request) in &mut all {
        request.push_str(&format!("GET /api/v1/behind HTTP/1.1\r\n{HEAD}Connection: close\r\n\r\n"));
    }
    all
}

/// Targets that two readers may take for two things.
const TARGETS: [&str; 32] = [
    "/api/v1/x",
    "/api/v1/x/",
    "/api/v1/../x",
    "/api/v1/%2e%2e/x",
    "/api/v1/%2E./x",
    "/api/v1/./x",
    "/api//v1/x",
    "//api/v1/x",
    "/api/v1/x;y",
    "/api/v1;/x",
    "/api/v1/x%3By",
    "/api/v1/%00x",
    "/api/v1/x%2fy",
    "/api/v1/x%5cy",
    "/api/v1/x\\y",
    "/api/v1/%",
    "/api/v1/%zz",
    "/api/v1/%C0%AE%C0%AE/x",
    "/api/v1/x%20y",
    "/api/v1/x?a=b;c=d",
    "/api/v1/x?%zz",
    "/api/v1/x?a#b",
    "/api/v1/x#b",
    "/api/v1/%41",
    "/API/v1/x",
    "/api/v1/x%0d%0ay",
    "/api/v1/x\u{e9}",
    "*",
    "x",
    "https://alpha.example.com/api/v1/x",
    "/api/v1/namespaces/a/pods/p/exec/../log",
    "/api/v1/namespaces/a/services/s/proxy/..%2f..%2fx",
];

/// Where both differ, and why the gateway is not wrong.
const EXPLAINED: [(&str, &str); 3] = [
    ("an empty line before", "RFC 9112, 2.2 wants it to be ignored; Go gets the request without it"),
    ("/api/v1/x?a#b", "a fragment is no part of a target; Go gets the one without it, which was judged"),
    ("/api/v1/x#b", "the same"),
];

/// Pingora CVE-2026-2835, Go CVE-2025-22871 and their kin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_sees_each_request_once_and_as_it_was_judged() {
    let Some(go) = Go::start() else { return };
    let world = World::start().await;
    let mut tenant = world.a.tenant(2, &world.a.client_ca, &world.clock);
    tenant.backend.pool = Arc::new(Pool::new(go.target(), world.clock.clone()));
    world.registry.put(&Arc::new(tenant));
    let dial = world.by_name(&world.a).user(world.a.user("mallory"));
    let (mut wrong, mut explained) = (Vec::new(), Vec::new());
    let targets = TARGETS.map(|target| (target, format!("GET {target} HTTP/1.1\r\n{HEAD}Connection: close\r\n\r\n")));
    for (what, request) in framings().into_iter().chain(targets) {
        let direct = codes(&exchange(&go.dial(), request.as_bytes()).await);
        let alone = go.took().await;
        let answer = exchange(&dial, request.as_bytes()).await;
        let through = codes(&answer);
        let behind = go.took().await;
        let of = format!("{what}: Go alone {direct:?} {alone:?}, through the gateway {through:?} {behind:?}");
        let answered = through.iter().filter(|code| **code == 200).count();
        let is_once = behind.len() == answered;
        // What Go takes behind the gateway it takes alone too: the same method, target, path and body, in the same order.
        let mut rest = alone.iter();
        let is_known = behind.iter().all(|seen| rest.any(|other| is_same(seen, other)));
        let is_own = behind.iter().all(|seen| seen.user == "mallory");
        if is_once && is_known && is_own {
            continue;
        }
        match EXPLAINED.iter().find(|(case, _)| *case == what) {
            Some((case, _)) => explained.push(*case),
            None => wrong.push(of),
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    assert_eq!(explained, EXPLAINED.map(|(case, _)| case), "what is explained differs still");
    let mut neighbour = world.by_name(&world.b).user(world.b.user("jane")).http(true).await;
    assert_eq!(text(neighbour.get("/api").await).await, "beta");
}

/// The gateway asks with the path of an absolute target.
fn is_same(behind: &Seen, alone: &Seen) -> bool {
    let target = alone.target.trim_start_matches("https://alpha.example.com");
    (&*behind.method, &*behind.target, &*behind.path, &*behind.body)
        == (&*alone.method, target, &*alone.path, &*alone.body)
}

/// Frames that contradict their head; what comes to Go, if anything, is what the client sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_sees_no_request_of_http2_that_contradicts_itself() {
    let Some(go) = Go::start() else { return };
    let world = World::start().await;
    let mut tenant = world.a.tenant(2, &world.a.client_ca, &world.clock);
    tenant.backend.pool = Arc::new(Pool::new(go.target(), world.clock.clone()));
    world.registry.put(&Arc::new(tenant));
    let cases: [Case<'_>; 12] = [
        ("longer than it says", "POST", "/api/v1/x", &[("content-length", "1")]),
        ("shorter than it says", "POST", "/api/v1/x", &[("content-length", "30")]),
        ("two lengths", "POST", "/api/v1/x", &[("content-length", "3"), ("content-length", "4")]),
        ("chunks", "POST", "/api/v1/x", &[("transfer-encoding", "chunked")]),
        ("connection", "POST", "/api/v1/x", &[("connection", "x-remote-user")]),
        ("a line in a value", "POST", "/api/v1/x", &[("x-a", "b\r\nx-remote-user: root")]),
        ("a line in a name", "POST", "/api/v1/x", &[("x-a: b\r\nx-remote-user", "root")]),
        ("a NUL in a value", "POST", "/api/v1/x", &[("x-a", "b\0")]),
        ("capitals", "POST", "/api/v1/x", &[("X-Remote-User", "root")]),
        ("a line in the path", "POST", "/api/v1/x HTTP/1.1\r\nX-Remote-User: root\r\n\r\n", &[]),
        ("a space in the method", "POST /api/v1/secrets HTTP/1.1", "/api/v1/x", &[]),
        ("a second path", "POST", "/api/v1/x", &[(":path", "/api/v1/secrets")]),
    ];
    // What contradicts nothing is seen, so that nothing seen means something.
    let right: Case<'_> = ("as it says", "POST", "/api/v1/x", &[("content-length", "3")]);
    for (what, method, path, fields) in cases.into_iter().flat_map(|case| [right, case]) {
        let dial = world.by_name(&world.a).user(world.a.user("mallory"));
        let wire = Wire::connect(&dial, Reading::Answering, &[]).await;
        let frames = [
            wire::frame(HEADERS, END_HEADERS, 1, &wire::head(method, &world.a.host, path, fields)),
            wire::frame(DATA, END_STREAM, 1, b"abc"),
        ];
        let _ = wire.send(&frames.concat()).await;
        drop(wire.when(|told| told.is_over() || told.count(HEADERS) + told.count(wire::RST_STREAM) > 0).await);
        let seen: Vec<_> =
            go.took().await.into_iter().map(|seen| (seen.method, seen.path, seen.body, seen.user)).collect();
        let expected = [("POST", path, "abc", "mallory")]
            .map(|(a, b, c, d)| (a.to_owned(), b.to_owned(), c.to_owned(), d.to_owned()));
        let count = usize::from(what == right.0);
        assert_eq!(seen, expected[..count], "{what}");
    }
    let mut own = world.by_name(&world.a).user(world.a.user("mallory")).http(true).await;
    assert_eq!(text(own.get("/api/v1/x").await).await, "go");
}
