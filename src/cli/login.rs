//! `portico login`: an id token of an OpenID provider, as an exec plugin of kubectl prints it: from the cache, renewed, or by a person who
//! logs in with a browser (authorization code with PKCE, RFC 7636 and 8252) or on another device (RFC 8628).
//!
//! Promises: nothing but the credential is printed to standard output, and a token nowhere else; what is kept is the user's own to read;
//! of many at once one asks, and the others take what it got; whoever cannot be asked (no terminal) gets a sentence that says what to run.

mod browser;
mod cache;
mod device;
mod exec;
mod provider;
mod tokens;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::failure::{Failure, Outcome};
use super::output;
use cache::{Cache, Kept};
use provider::Provider;
use tokens::Tokens;

/// A token with less left is renewed.
const SOON: i64 = 60;
/// For whoever logs in meanwhile.
const PATIENCE: Duration = Duration::from_secs(300);

/// Arguments of `portico login`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// URL of the issuer, as the tokens have it.
    #[arg(long, value_name = "URL", value_parser = https_url)]
    issuer: String,
    /// Client that was registered there for this, without a secret (public).
    #[arg(long, value_name = "ID")]
    client_id: String,
    /// File with the client's secret, for issuers that want one of every client.
    #[arg(long, value_name = "FILE")]
    client_secret_file: Option<PathBuf>,
    /// Scope beside `openid`, such as email or groups; may be given again. Default: email, offline_access.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// File with the CA of the issuer (PEM), where that is not one of the web's.
    #[arg(long, value_name = "FILE", conflicts_with = "certificate_authority_data")]
    certificate_authority: Option<PathBuf>,
    /// The same as base64, as kubeconfigs have it.
    #[arg(long, value_name = "BASE64")]
    certificate_authority_data: Option<String>,
    /// Log in on another device: for machines without a browser.
    #[arg(long)]
    device: bool,
    /// Where the browser comes back to, on this machine; issuers that want one port registered need it here.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0", value_parser = loopback)]
    listen: SocketAddr,
    /// Do not open a browser, only say the address.
    #[arg(long)]
    no_browser: bool,
    /// Folder of what is kept (default: portico/login in your cache folder).
    #[arg(long, value_name = "DIR")]
    token_cache: Option<PathBuf>,
    /// Forget what is kept of this login.
    #[arg(long)]
    forget: bool,
}

pub(super) async fn run(args: Args) -> Outcome<()> {
    let authority = authority(&args)?;
    let scopes = scopes(&args.scopes);
    let cache = Cache::of(args.token_cache.as_deref(), &[&args.issuer, &args.client_id, &scopes, &authority])?;
    if args.forget {
        cache.forget()?;
        output::note("the login is forgotten; tokens that were given out are good until their own end");
        return Ok(());
    }
    let info = exec::info();
    let _lock = cache.lock(PATIENCE).await?;
    let kept = cache.read();
    let now = Timestamp::now().as_second();
    if let Some(kept) = kept.as_ref().filter(|kept| kept.ends - SOON > now) {
        output::text(&exec::credential(&info, &kept.id_token, kept.ends));
        return Ok(());
    }
    let provider = Provider::discover(&args.issuer, authority.as_bytes(), client(&args)?).await?;
    let renewed = match kept.and_then(|kept| kept.refresh_token) {
        Some(refresh) => provider.renewed(&refresh).await?,
        None => None,
    };
    let tokens = match renewed {
        Some(tokens) => tokens,
        None if !info.is_interactive => return Err(not_interactive()),
        None if args.device => device::log_in(&provider, &scopes).await?,
        None => browser::log_in(&provider, &scopes, args.listen, !args.no_browser, PATIENCE).await?,
    };
    let kept = keep(tokens)?;
    cache.write(&kept)?;
    output::text(&exec::credential(&info, &kept.id_token, kept.ends));
    Ok(())
}

fn keep(tokens: Tokens) -> Outcome<Kept> {
    let ends = tokens.ends;
    if ends <= Timestamp::now().as_second() {
        let hint = "set this machine's clock; the issuer's token lives for a moment only, or none at all";
        return Err(Failure::new("the token that the issuer gave is over already", hint));
    }
    Ok(Kept { id_token: tokens.id_token, refresh_token: tokens.refresh_token, ends })
}

/// The same command, since what is kept is of this issuer, client, scopes and CA.
fn not_interactive() -> Failure {
    let command = std::iter::once("portico".to_owned())
        .chain(std::env::args().skip(1).map(|word| quoted(&word)))
        .collect::<Vec<_>>();
    let command = command.join(" ");
    Failure::new("somebody has to log in, and this is no terminal", format!("run in a terminal once: {command}"))
}

/// As a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain =
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&byte));
    if is_plain { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

fn client(args: &Args) -> Outcome<provider::Client> {
    let secret = match &args.client_secret_file {
        None => None,
        Some(path) => {
            let unreadable = |e| Failure::new(format!("{} cannot be read: {e}", path.display()), "look at its rights");
            Some(std::fs::read_to_string(path).map_err(unreadable)?.trim().to_owned())
        }
    };
    Ok(provider::Client { id: args.client_id.clone(), secret })
}

/// PEM; empty for the web's.
fn authority(args: &Args) -> Outcome<String> {
    if let Some(path) = &args.certificate_authority {
        let unreadable = |e| Failure::new(format!("{} cannot be read: {e}", path.display()), "look at its rights");
        return std::fs::read_to_string(path).map_err(unreadable);
    }
    let Some(data) = &args.certificate_authority_data else { return Ok(String::new()) };
    let decoded = STANDARD.decode(data).ok().and_then(|pem| String::from_utf8(pem).ok());
    decoded
        .ok_or_else(|| Failure::new("--certificate-authority-data is no PEM in base64", "base64 -w0 ca.crt writes it"))
}

fn scopes(given: &[String]) -> String {
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    let beside = if given.is_empty() { vec!["email", "offline_access"] } else { given };
    std::iter::once("openid").chain(beside.into_iter().filter(|scope| *scope != "openid")).collect::<Vec<_>>().join(" ")
}

fn https_url(text: &str) -> Result<String, String> {
    let is_one = crate::issuers::Place::parse(text).is_some();
    if is_one { Ok(text.to_owned()) } else { Err("write an https URL, without query and fragment".to_owned()) }
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "write ADDRESS:PORT, such as 127.0.0.1:8000".to_owned())?;
    if address.ip().is_loopback() { Ok(address) } else { Err("only this machine's own: 127.0.0.1 or [::1]".to_owned()) }
}
