//! The user part of a kubeconfig by which each user logs in at an issuer that the virtual cluster accepts. Nothing secret is in it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::api::Api;
use serde_json::{Value, json};

use super::credential::Login;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::host::Host;
use crate::crd::VirtualCluster;
use crate::crd::auth::JwtAuthenticator;

const HOW: &str = "spec.auth.jwt of the VirtualCluster names issuers: docs/operations/oidc.md";

/// As the VirtualCluster has it, and a note about it.
pub(super) async fn user(host: &Host, name: &str, wish: &Login) -> Outcome<(Value, String)> {
    let api: Api<VirtualCluster> = Api::namespaced(host.client.clone(), &host.namespace);
    let cluster = api.get(name).await.map_err(|e| Failure::api(&format!("read virtual cluster {name}"), &e))?;
    let (issuer, client) = choose(&cluster.spec.auth.jwt, wish)?;
    let note = format!("nothing secret is in it: each user logs in at {} (portico login)", issuer.issuer.url);
    Ok((exec(issuer, client), note))
}

fn choose<'a>(all: &'a [JwtAuthenticator], wish: &'a Login) -> Outcome<(&'a JwtAuthenticator, &'a str)> {
    let urls = || all.iter().map(|entry| entry.issuer.url.as_str()).collect::<Vec<_>>().join(", ");
    let entry = match (&wish.issuer, all) {
        (_, []) => return Err(Failure::new("the virtual cluster accepts no issuer", HOW)),
        (None, [only]) => only,
        (None, _) => {
            return Err(Failure::new(format!("it accepts several issuers: {}", urls()), "name one: --issuer URL"));
        }
        (Some(url), all) => all
            .iter()
            .find(|entry| entry.issuer.url == *url)
            .ok_or_else(|| Failure::not_found(format!("it does not accept {url}, but {}", urls()), HOW))?,
    };
    let client = match (&wish.client, entry.issuer.audiences.as_slice()) {
        (Some(client), _) => client,
        (None, [only]) => only,
        (None, _) => {
            let audiences = entry.issuer.audiences.join(", ");
            return Err(Failure::new(
                format!("the issuer's tokens may be for several: {audiences}"),
                "name the client: --client-id ID",
            ));
        }
    };
    if !entry.issuer.discovery_url.is_empty() {
        return Err(Failure::new(
            format!(
                "{} has its configuration at another place (discoveryURL), which portico login does not know",
                entry.issuer.url
            ),
            "use another credential plugin for this issuer",
        ));
    }
    Ok((entry, client))
}

fn exec(entry: &JwtAuthenticator, client: &str) -> Value {
    let mut arguments = vec!["login", "--issuer", &entry.issuer.url, "--client-id", client];
    let authority = STANDARD.encode(&entry.issuer.certificate_authority);
    if !authority.is_empty() {
        arguments.extend(["--certificate-authority-data", &authority]);
    }
    json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "portico",
        "args": arguments,
        "interactiveMode": "IfAvailable",
        "installHint": "portico logs in for kubectl: install it, and have it in PATH",
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(url: &str, audiences: &[&str]) -> JwtAuthenticator {
        serde_json::from_value(json!({"issuer": {"url": url, "audiences": audiences}})).expect("an entry")
    }

    #[test]
    fn the_only_issuer_and_audience_need_not_be_named() {
        let wish = |issuer: Option<&str>, client: Option<&str>| Login {
            issuer: issuer.map(str::to_owned),
            client: client.map(str::to_owned),
        };
        let (a, b) = (entry("https://a", &["kubectl"]), entry("https://b", &["x", "y"]));
        let all = [a.clone(), b];
        let said = |all: &[JwtAuthenticator], wish: &Login| {
            choose(all, wish)
                .map(|(entry, client)| format!("{} {client}", entry.issuer.url))
                .map_err(|f| f.what().to_owned())
        };
        assert_eq!(said(std::slice::from_ref(&a), &wish(None, None)), Ok("https://a kubectl".to_owned()));
        assert_eq!(said(&all, &wish(Some("https://b"), Some("z"))), Ok("https://b z".to_owned()));
        for (all, wish, part) in [
            (&[][..], wish(None, None), "accepts no issuer"),
            (&all, wish(None, None), "several issuers: https://a, https://b"),
            (&all, wish(Some("https://c"), None), "does not accept https://c"),
            (&all, wish(Some("https://b"), None), "for several: x, y"),
        ] {
            let failure = said(all, &wish).expect_err(part);
            assert!(failure.contains(part), "{failure}");
        }
        let mut with_ca = a;
        with_ca.issuer.certificate_authority = "PEM".to_owned();
        let user = exec(&with_ca, "kubectl");
        let expected =
            json!(["login", "--issuer", "https://a", "--client-id", "kubectl", "--certificate-authority-data", "UEVN"]);
        assert_eq!(user["exec"]["args"], expected);
    }
}
