//! A login with the browser of this machine: authorization code with PKCE (RFC 7636), back to a port of it (RFC 8252).
//!
//! Promises: only an answer with this login's own state counts, others change nothing; the port is open as long as somebody logs in,
//! and what comes there is bounded in length and time.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::provider::{Provider, Said};
use super::tokens::Tokens;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output;

const PATH: &str = "/callback";
/// Of what a browser sends.
const LONGEST_HEAD: usize = 16 << 10;
const HEAD_DEADLINE: Duration = Duration::from_secs(5);

/// What nobody else knows of a login.
struct Secrets {
    verifier: String,
    state: String,
    nonce: String,
}

/// What the browser came back with.
#[derive(Debug, PartialEq, Eq)]
enum Back {
    Code(String),
    /// The issuer's own word.
    Refused(String),
    /// Nothing of this login.
    Nothing,
}

/// Opens the browser, or says where to go, and waits until somebody did.
pub(super) async fn log_in(
    provider: &Provider,
    scopes: &str,
    listen: SocketAddr,
    opens: bool,
    patience: Duration,
) -> Outcome<Tokens> {
    let cannot = |e: std::io::Error| {
        Failure::new(
            format!("{listen} cannot be listened on: {e}"),
            "choose another port with --listen, or use --device",
        )
    };
    let listener = TcpListener::bind(listen).await.map_err(cannot)?;
    let redirect = format!("http://{}{PATH}", listener.local_addr().map_err(cannot)?);
    let secrets = Secrets::new()?;
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&secrets.verifier));
    let (issuer, client) = provider.names();
    let url = provider.authorization(&[
        ("response_type", "code"),
        ("client_id", client),
        ("redirect_uri", &redirect),
        ("scope", scopes),
        ("state", &secrets.state),
        ("nonce", &secrets.nonce),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ])?;
    if !opens || !open(&url) {
        output::note("open this address in a browser on this machine (elsewhere: portico login --device):");
    }
    output::note(&url);
    let came = back(&listener, &secrets.state, issuer);
    let late = |_| {
        Failure::timeout("nobody logged in in time", "run it again; without a browser on this machine use --device")
    };
    let code = tokio::time::timeout(patience, came).await.map_err(late)??;
    let parameters = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", &redirect),
        ("code_verifier", &secrets.verifier),
    ];
    match provider.token(&parameters).await? {
        Said::Yes(answer) => Tokens::read(&answer, provider.expected(Some(&secrets.nonce))),
        Said::No(refusal) => Err(refused(&refusal.text())),
    }
}

impl Secrets {
    fn new() -> Outcome<Self> {
        let random = || {
            let mut bytes = [0; 32];
            let filled = rand::fill(&mut bytes);
            filled.map_err(|_| Failure::new("this machine has no randomness", "look at /dev/urandom"))?;
            Ok(URL_SAFE_NO_PAD.encode(bytes))
        };
        Ok(Self { verifier: random()?, state: random()?, nonce: random()? })
    }
}

/// The code, from whoever comes with it.
async fn back(listener: &TcpListener, state: &str, issuer: &str) -> Outcome<String> {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        let head = tokio::time::timeout(HEAD_DEADLINE, head(&mut stream)).await.ok().flatten();
        let came = head.as_deref().map_or(Back::Nothing, |head| read(head, state, issuer));
        let (code, text) = match &came {
            Back::Code(_) => ("200 OK", "You are logged in. This window can be closed."),
            Back::Refused(_) => ("200 OK", "The issuer refused. The terminal says why."),
            Back::Nothing => ("404 Not Found", "Nothing is here."),
        };
        let length = text.len();
        let answer = format!(
            "HTTP/1.1 {code}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n{text}"
        );
        // Whether the browser reads it changes nothing.
        let _ = tokio::time::timeout(HEAD_DEADLINE, stream.write_all(answer.as_bytes())).await;
        match came {
            Back::Code(code) => return Ok(code),
            Back::Refused(why) => return Err(refused(&why)),
            Back::Nothing => {}
        }
    }
}

async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut piece = [0; 2048];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let length = stream.read(&mut piece).await.ok().filter(|length| *length > 0)?;
        head.extend_from_slice(piece.get(..length)?);
        if head.len() > LONGEST_HEAD {
            return None;
        }
    }
    String::from_utf8(head).ok()
}

/// A request's first line, in which everything is.
fn read(head: &str, state: &str, issuer: &str) -> Back {
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (Some("GET"), Some(target)) = (words.next(), words.next()) else { return Back::Nothing };
    let Some((PATH, query)) = target.split_once('?') else { return Back::Nothing };
    let said = |name: &str| -> Option<String> {
        let mut all = query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(key, _)| *key == name);
        let (only, None) = (all.next()?, all.next()) else { return None };
        let plain = only.1.replace('+', " ");
        percent_encoding::percent_decode_str(&plain).decode_utf8().ok().map(std::borrow::Cow::into_owned)
    };
    if said("state").as_deref() != Some(state) {
        return Back::Nothing;
    }
    // RFC 9207: who says it, if it says.
    let says = query.split('&').any(|pair| pair == "iss" || pair.starts_with("iss="));
    if says && said("iss").as_deref() != Some(issuer) {
        return Back::Nothing;
    }
    match (said("code"), said("error")) {
        (Some(code), None) => Back::Code(code),
        (None, Some(why)) => Back::Refused(why.chars().filter(|c| !c.is_control()).take(200).collect()),
        _ => Back::Nothing,
    }
}

/// Whether a browser was begun.
fn open(url: &str) -> bool {
    let own = std::env::var("BROWSER").ok().filter(|browser| !browser.is_empty());
    let candidates = own.into_iter().chain(["xdg-open".to_owned(), "open".to_owned()]);
    let mut begun = candidates.map(|program| {
        let mut command = std::process::Command::new(program);
        command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().is_ok()
    });
    begun.any(|is| is)
}

fn refused(why: &str) -> Failure {
    Failure::new(
        format!("the issuer refuses the login: {why}"),
        "is this redirect address registered for the client (--listen)?",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_belongs_to_this_login_counts() {
        let of = |target: &str| read(&format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n"), "s1", "https://a");
        assert_eq!(of("/callback?code=c%2B1&state=s1"), Back::Code("c+1".to_owned()));
        assert_eq!(of("/callback?code=c&state=s1&iss=https%3A%2F%2Fa"), Back::Code("c".to_owned()));
        assert_eq!(of("/callback?error=access_denied&state=s1"), Back::Refused("access_denied".to_owned()));
        for nothing in [
            "/callback?code=c&state=s2",
            "/callback?code=c",
            "/callback?code=c&state=s1&state=s2",
            "/callback?code=c&state=s1&code=d",
            "/callback?code=c&error=e&state=s1",
            "/callback?code=c&state=s1&iss=https%3A%2F%2Fb",
            "/callback?code=c&state=s1&iss=https%3A%2F%2Fa&iss=https%3A%2F%2Fb",
            "/callback?code=c&state=s1&iss=%ff",
            "/favicon.ico",
            "/other?code=c&state=s1",
        ] {
            assert_eq!(of(nothing), Back::Nothing, "{nothing}");
        }
        assert_eq!(read("POST /callback?code=c&state=s1 HTTP/1.1\r\n\r\n", "s1", "https://a"), Back::Nothing);
    }
}
