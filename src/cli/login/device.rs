//! A login on another device (RFC 8628).

use std::time::Duration;

use serde::Deserialize;

use super::provider::{Provider, Said};
use super::tokens::Tokens;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output;

/// Between two questions, where the issuer says nothing, and more each time that it wants.
const INTERVAL: u64 = 5;
const LONGEST_INTERVAL: u64 = 60;
/// For all of it, whatever the issuer says.
const LONGEST: u64 = 1800;

#[derive(Deserialize)]
struct Begun {
    device_code: String,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: u64,
    interval: Option<u64>,
}

/// Says where to go, and waits until somebody did.
pub(super) async fn log_in(provider: &Provider, scopes: &str) -> Outcome<Tokens> {
    let begun = match provider.device(&[("scope", scopes)]).await? {
        Said::Yes(answer) => serde_json::from_slice::<Begun>(&answer)
            .map_err(|_| Failure::new("the issuer's answer cannot be read", "try without --device"))?,
        Said::No(refusal) => return Err(refused(&refusal.text())),
    };
    let plain = |text: &str| text.chars().filter(|c| !c.is_control()).take(500).collect::<String>();
    let to = begun.verification_uri_complete.as_deref().unwrap_or(&begun.verification_uri);
    output::note(&format!("log in at {}\nwith the code {}", plain(to), plain(&begun.user_code)));
    let waited = poll(provider, &begun);
    let late = || Failure::timeout("nobody logged in in time", "run it again");
    tokio::time::timeout(Duration::from_secs(begun.expires_in.min(LONGEST)), waited).await.map_err(|_| late())?
}

async fn poll(provider: &Provider, begun: &Begun) -> Outcome<Tokens> {
    let mut interval = begun.interval.unwrap_or(INTERVAL).clamp(1, LONGEST_INTERVAL);
    let grant = "urn:ietf:params:oauth:grant-type:device_code";
    loop {
        tokio::time::sleep(Duration::from_secs(interval)).await;
        let said = provider.token(&[("grant_type", grant), ("device_code", &begun.device_code)]).await;
        // RFC 8628, 3.5: one that does not answer is asked less often, until the code's time is over.
        let Ok(said) = said else {
            interval = (interval * 2).min(LONGEST_INTERVAL);
            continue;
        };
        match said {
            Said::Yes(answer) => return Tokens::read(&answer, provider.expected(None)),
            Said::No(refusal) => match refusal.error.as_str() {
                "authorization_pending" => {}
                "slow_down" => interval = (interval + INTERVAL).min(LONGEST_INTERVAL),
                _ => return Err(refused(&refusal.text())),
            },
        }
    }
}

fn refused(why: &str) -> Failure {
    Failure::new(
        format!("the issuer refuses the login: {why}"),
        "is the client allowed to do this (grant device_code)?",
    )
}
