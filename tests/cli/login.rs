//! `portico login`: the binary against an issuer, with a browser that does what a test wants.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::fake::{Answer, FakeApi, Seen, parameters};
use super::tokens::Key;

/// An issuer, and what it knows of logins.
struct Issuer {
    api: FakeApi,
    known: Arc<Known>,
    folder: tempfile::TempDir,
}

struct Known {
    key: Key,
    url: OnceLock<String>,
    /// Of the login under way.
    challenge: Mutex<String>,
    nonce: Mutex<Option<String>>,
    /// How long its tokens live.
    life: Mutex<i64>,
    /// How the device is answered first.
    pending: Mutex<Vec<&'static str>>,
    refreshes: Mutex<bool>,
    /// A renewal brings no id token.
    bare: Mutex<bool>,
}

impl Known {
    fn answer(&self, seen: &Seen) -> Answer {
        let url = self.url.get().cloned().unwrap_or_default();
        let refused = |why: &str| Answer::json(400, &json!({"error": why}));
        let body = String::from_utf8_lossy(&seen.body).into_owned();
        let form = parameters(&body);
        let said = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        match (seen.path.as_str(), said("grant_type")) {
            ("/.well-known/openid-configuration", _) => Answer::json(
                200,
                &json!({"issuer": url, "authorization_endpoint": format!("{url}/auth"), "token_endpoint": format!("{url}/token"),
                    "device_authorization_endpoint": format!("{url}/device")}),
            ),
            ("/device", _) => Answer::json(
                200,
                &json!({"device_code": "d", "user_code": "ABCD", "verification_uri": "https://x/device", "expires_in": 60, "interval": 1}),
            ),
            ("/token", Some("authorization_code")) => {
                let verifier = said("code_verifier").unwrap_or_default();
                let is_it = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) == *self.challenge.lock();
                if said("code") == Some("good") && is_it { self.tokens() } else { refused("invalid_grant") }
            }
            ("/token", Some("refresh_token")) if *self.refreshes.lock() && said("refresh_token") == Some("again") => {
                if *self.bare.lock() {
                    Answer::json(200, &json!({"access_token": "a"}))
                } else {
                    self.tokens()
                }
            }
            ("/token", Some("urn:ietf:params:oauth:grant-type:device_code")) => match self.pending.lock().pop() {
                Some(why) => refused(why),
                None => self.tokens(),
            },
            _ => refused("invalid_grant"),
        }
    }

    fn tokens(&self) -> Answer {
        let now = jiff::Timestamp::now().as_second();
        let claims = json!({"iss": self.url.get(), "sub": "jane", "aud": "kubectl", "exp": now + *self.life.lock(),
            "nonce": *self.nonce.lock()});
        Answer::json(200, &json!({"id_token": self.key.of(&claims), "refresh_token": "again", "token_type": "Bearer"}))
    }
}

impl Issuer {
    async fn start() -> Self {
        let known = Arc::new(Known {
            key: Key::ec(),
            url: OnceLock::new(),
            challenge: Mutex::default(),
            nonce: Mutex::default(),
            life: Mutex::new(3600),
            pending: Mutex::default(),
            refreshes: Mutex::new(true),
            bare: Mutex::default(),
        });
        let answering = Arc::clone(&known);
        let api = FakeApi::start(move |seen| {
            let answer = answering.answer(&seen);
            async move { answer }
        })
        .await;
        known.url.set(format!("https://{}", api.address)).expect("once");
        Self { api, known, folder: tempfile::tempdir().expect("a folder") }
    }

    fn asked(&self, path: &str) -> usize {
        self.api.seen().iter().filter(|seen| seen.path == path).count()
    }

    /// Where the browser that is opened writes its address.
    fn opened(&self) -> PathBuf {
        self.folder.path().join("opened")
    }

    fn command(&self, flags: &[&str]) -> Command {
        let script = self.folder.path().join("browser");
        let text = format!("#!/bin/sh\nprintf %s \"$1\" >{0}.new && mv {0}.new {0}\n", self.opened().display());
        std::fs::write(&script, text).expect("written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&script, mode).expect("a program");
        let mut command = Command::new(env!("CARGO_BIN_EXE_portico"));
        let (url, authority) = (self.known.url.get().expect("known"), STANDARD.encode(self.api.pki.ca_pem()));
        let cache = self.folder.path().join("cache").display().to_string();
        command.args(["login", "--issuer", url, "--client-id", "kubectl", "--certificate-authority-data", &authority]);
        command.args(["--token-cache", &cache]).args(flags);
        command.env("BROWSER", script).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("KUBERNETES_EXEC_INFO", info(true));
        command
    }

    async fn run(&self, flags: &[&str], interactive: bool) -> Output {
        let mut command = self.command(flags);
        command.env("KUBERNETES_EXEC_INFO", info(interactive));
        tokio::task::spawn_blocking(move || command.output().expect("it runs")).await.expect("it ends")
    }

    /// Where a browser was sent, and what it is to come back with.
    async fn browser(&self) -> (String, String, String) {
        let waited = async {
            loop {
                if let Ok(url) = std::fs::read_to_string(self.opened()) {
                    std::fs::remove_file(self.opened()).expect("removed");
                    return url;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let url = tokio::time::timeout(Duration::from_secs(30), waited).await.expect("a browser in time");
        let query = parameters(url.split_once('?').expect("a query").1);
        let said = |name: &str| query.iter().find(|(key, _)| key == name).expect(name).1.clone();
        assert_eq!((said("response_type"), said("code_challenge_method")), ("code".to_owned(), "S256".to_owned()));
        assert_eq!(said("scope"), "openid email offline_access");
        *self.known.challenge.lock() = said("code_challenge");
        *self.known.nonce.lock() = Some(said("nonce"));
        let back = said("redirect_uri");
        let address =
            back.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/callback")).expect("this machine");
        (url, address.to_owned(), said("state"))
    }
}

fn info(interactive: bool) -> String {
    json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "spec": {"interactive": interactive}}).to_string()
}

/// A browser comes back so.
async fn comes(address: &str, target: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    stream.write_all(format!("GET {target} HTTP/1.1\r\nhost: {address}\r\n\r\n").as_bytes()).await.expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("an answer");
    text
}

fn credential(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("nothing but the credential")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_logs_in_once_for_ten_and_for_later() {
    let issuer = Issuer::start().await;
    let mut ten: Vec<_> = (0..10).map(|_| issuer.command(&[]).spawn().expect("it runs")).collect();
    let (_, address, state) = issuer.browser().await;
    assert!(comes(&address, "/callback?code=evil&state=other").await.starts_with("HTTP/1.1 404"), "nobody else's");
    assert!(comes(&address, &format!("/callback?code=good&state={state}")).await.contains("logged in"));
    let outputs: Vec<Output> = ten.drain(..).map(|one| one.wait_with_output().expect("it ends")).collect();
    let token = credential(&outputs[0])["status"]["token"].clone();
    for output in &outputs {
        assert_eq!(credential(output)["status"]["token"], token);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains(token.as_str().expect("text")), "{said}");
    }
    assert_eq!(issuer.asked("/token"), 1);
    assert_eq!(credential(&issuer.run(&[], false).await)["status"]["token"], token, "from what is kept");
    assert_eq!(issuer.asked("/token"), 1);
    // Forgotten, somebody must be asked, and nobody is there.
    assert!(issuer.run(&["--forget"], false).await.status.success());
    let refused = issuer.run(&[], false).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && refused.stdout.is_empty() && said.contains("run in a terminal once"),
        "{said}"
    );
    // As it is to be run: what is kept is of this CA, too.
    assert!(said.contains("--certificate-authority-data") && said.contains("--token-cache"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_nearly_over_is_renewed_and_a_refused_renewal_says_so() {
    let issuer = Issuer::start().await;
    *issuer.known.life.lock() = 30;
    let first = issuer.command(&[]).spawn().expect("it runs");
    let (_, address, state) = issuer.browser().await;
    comes(&address, &format!("/callback?code=good&state={state}")).await;
    credential(&first.wait_with_output().expect("it ends"));
    *issuer.known.life.lock() = 3600;
    credential(&issuer.run(&[], false).await);
    assert_eq!(issuer.asked("/token"), 2, "by the refresh token, though nobody is there");
    // A renewal without an id token is none: somebody logs in anew.
    *issuer.known.life.lock() = 30;
    assert!(issuer.run(&["--forget"], false).await.status.success());
    *issuer.known.bare.lock() = true;
    for _ in 0..2 {
        let login = issuer.command(&[]).spawn().expect("it runs");
        let (_, address, state) = issuer.browser().await;
        comes(&address, &format!("/callback?code=good&state={state}")).await;
        credential(&login.wait_with_output().expect("it ends"));
    }
    *issuer.known.bare.lock() = false;
    *issuer.known.life.lock() = 30;
    assert!(issuer.run(&["--forget"], false).await.status.success());
    *issuer.known.refreshes.lock() = false;
    let again = issuer.command(&[]).spawn().expect("it runs");
    let (_, address, state) = issuer.browser().await;
    comes(&address, &format!("/callback?code=good&state={state}")).await;
    credential(&again.wait_with_output().expect("it ends"));
    assert!(!issuer.run(&[], false).await.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_login_and_another_issuer_are_refused() {
    let issuer = Issuer::start().await;
    for (target, said) in
        [("/callback?code=bad&state=", "invalid_grant"), ("/callback?error=access_denied&state=", "access_denied")]
    {
        let login = issuer.command(&[]).spawn().expect("it runs");
        let (_, address, state) = issuer.browser().await;
        comes(&address, &format!("{target}{state}")).await;
        let output = login.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(said), "{text}");
    }
    let login = issuer.command(&[]).spawn().expect("it runs");
    let (_, address, state) = issuer.browser().await;
    *issuer.known.nonce.lock() = Some("another".to_owned());
    comes(&address, &format!("/callback?code=good&state={state}")).await;
    let output = login.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && output.stdout.is_empty() && text.contains("another login"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_without_a_browser_is_logged_in_elsewhere() {
    let issuer = Issuer::start().await;
    *issuer.known.pending.lock() = vec!["authorization_pending"];
    let output = issuer.run(&["--device"], true).await;
    credential(&output);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("https://x/device") && said.contains("ABCD"), "{said}");
    assert!(issuer.run(&["--forget"], false).await.status.success());
    *issuer.known.pending.lock() = vec!["access_denied"];
    let refused = issuer.run(&["--device"], true).await;
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("access_denied"));
}
