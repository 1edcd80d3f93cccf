//! Portico's own rollout under load: every replica is replaced, and no client notices.
//!
//! Ignored by default, since every other test would meet new replicas: `tests/e2e/run` runs it behind the others, alone.

use std::net::ToSocketAddrs as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::ServerName;

use crate::harness::{Dump, PORTICO, SYSTEM, alpha, eventually, gateway_url, host, names, read, settled};
use crate::load::{Load, Stage, Target};

/// Clients of each of the four kinds: with or without a kept connection, h1 and h2.
const EACH: usize = 8;

/// alpha by path, through Service `portico`, with its admin's certificate.
fn target() -> Target {
    let config = read(&alpha().kubeconfig);
    let pem = |value: &serde_json::Value| STANDARD.decode(value.as_str().expect("data")).expect("base64");
    let of = |list: &str, name: &serde_json::Value| {
        config[list].as_array().expect("a list").iter().find(|entry| entry["name"] == *name).expect("named").clone()
    };
    let context = of("contexts", &config["current-context"])["context"].clone();
    let user = of("users", &context["user"])["user"].clone();
    let identity = (pem(&user["client-certificate-data"]), pem(&user["client-key-data"]));
    let roots = pem(&of("clusters", &context["cluster"])["cluster"]["certificate-authority-data"]);
    let url: http::Uri = gateway_url().parse().expect("a URL");
    let (name, port) = (url.host().expect("a host").to_owned(), url.port_u16().unwrap_or(443));
    Target {
        address: (name.as_str(), port).to_socket_addrs().expect("resolved").next().expect("an address"),
        name: ServerName::try_from(name.clone()).expect("a name"),
        host: format!("{name}:{port}"),
        path: format!("{}/api/v1/namespaces/default/configmaps/kube-root-ca.crt", alpha().path()),
        tls: portico::tls::client_config(&roots, Some((&identity.0, &identity.1))).expect("credentials"),
        pause: Duration::from_millis(20),
    }
}

/// Before: 69 of 7,616 new connections refused and 4 kept ones cut, since a replica closed its listener at SIGTERM.
#[test]
#[ignore = "replaces Portico's pods under every other test; tests/e2e/run runs it alone"]
fn a_rollout_under_load_refuses_nobody_and_cuts_nothing() {
    settled();
    let _dump = Dump(vec![alpha()]);
    let before = names(&host(&["-n", SYSTEM, "get", "pods", "-l", PORTICO, "-o", "json"]).json());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let load = runtime.block_on(async {
        let load = Load::start(target(), EACH);
        load.answered(500).await;
        load
    });
    host(&["-n", SYSTEM, "rollout", "restart", "deployment/portico"]).ok();
    host(&["-n", SYSTEM, "rollout", "status", "deployment/portico", "--timeout=180s"]).ok();
    // The old replicas have left their Services; the last one drains until it is gone.
    eventually("the old replicas are gone", || {
        let now = names(&host(&["-n", SYSTEM, "get", "pods", "-l", PORTICO, "-o", "json"]).json());
        if now.is_disjoint(&before) { Ok(()) } else { Err(format!("{now:?}")) }
    });
    let tally = runtime.block_on(async {
        let done = load.tally.done.load(Ordering::SeqCst);
        load.answered(done + 500).await;
        load.stop(Stage::Over).await
    });
    let (opened, done) = (tally.opened.load(Ordering::SeqCst), tally.done.load(Ordering::SeqCst));
    eprintln!("through the rollout: {opened} connections, {done} requests");
    tally.is_clean();
}
