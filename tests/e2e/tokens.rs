//! Tokens of ServiceAccounts: whose they are stands in the gateway's log, and what is false ends there.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::gateway::at_root;
use crate::harness::{Dump, SYSTEM, alpha, beta, eventually, eventually_is, host, raw, with_user};

/// The code of a GET with this token.
fn asked(path: &str, token: &str) -> u16 {
    let kubeconfig = with_user(&alpha().kubeconfig, &json!({"token": token.trim()}), "token-at-alpha");
    raw(&kubeconfig, path, &[], at_root).expect("an answer").code
}

fn part(token: &str, at: usize) -> Value {
    let part = token.trim().split('.').nth(at).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
}

fn joined(head: &Value, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", encode(head), encode(claims))
}

/// As the control plane signs: the key is in the cluster's PKI Secret.
fn signed(head: &Value, claims: &Value) -> String {
    let secret = alpha().on_host(&["get", "secret", "alpha-pki", "-o", "json"]).json();
    let pem = STANDARD.decode(secret["data"]["sa.key"].as_str().expect("a key")).expect("base64");
    let pem = String::from_utf8(pem).expect("PEM");
    let der: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(der).expect("base64");
    let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).expect("a P-256 key");
    let message = joined(head, claims);
    let signature = pair.sign(&SystemRandom::new(), message.as_bytes()).expect("signed");
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Lines of the gateways' logs that have both.
fn logged(one: &str, other: &str) -> bool {
    let log = host(&["-n", SYSTEM, "logs", "-l", "portico.dev/component=portico", "--tail=2000"]).ok();
    log.lines().any(|line| line.contains(one) && line.contains(other))
}

#[test]
fn hostile_tokens_end_at_the_gateway() {
    let space = alpha().space("tokens");
    let _dump = Dump(vec![alpha(), beta()]);
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]);
    space.account("reader", &rules);
    let path = format!("{}/api/v1/namespaces/{}/configmaps", alpha().path(), space.name);
    let good = space.kubectl(&["create", "token", "reader"]).ok();
    let user = format!("system:serviceaccount:{}:reader", space.name);
    eventually("a good token", || match asked(&path, &good) {
        200 => Ok(()),
        code => Err(code.to_string()),
    });
    eventually_is("its account is in the log", || logged(&user, "/configmaps"));

    let (head, claims) = (part(&good, 0), part(&good, 1));
    assert_eq!(asked(&path, &signed(&head, &claims)), 200, "this is how they are signed");
    let but = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    let now = jiff::Timestamp::now().as_second();
    let signature = good.trim().rsplit('.').next().expect("three parts");
    let admin = but("sub", json!("system:serviceaccount:kube-system:admin"));
    let vault = space.kubectl(&["create", "token", "reader", "--audience", "vault"]).ok();
    let elsewhere = beta().kubectl(&["-n", "default", "create", "token", "default"]).ok();
    for (flag, token) in [
        ("TEXP", signed(&head, &but("exp", json!(now - 3600)))),
        ("TNBF", signed(&head, &but("nbf", json!(now + 3600)))),
        ("TSIG", format!("{}.{signature}", joined(&head, &admin))),
        ("TALG", format!("{}.", joined(&json!({"alg": "none", "kid": head["kid"]}), &claims))),
        ("TAUD", vault),
        ("TKEY", elsewhere),
    ] {
        // Right after a change of the VirtualCluster, as other tests make them, keys are asked for anew, and meanwhile the API server judges.
        eventually_is(flag, || {
            assert_eq!(asked(&path, &token), 401, "{flag}");
            std::thread::sleep(std::time::Duration::from_secs(1));
            logged(&space.name, flag)
        });
    }

    // What only the API server knows: it believes its own verdict for ten seconds.
    space.kubectl(&["delete", "serviceaccount", "reader"]).ok();
    eventually("a token whose account is gone", || match asked(&path, &good) {
        401 => Ok(()),
        code => Err(code.to_string()),
    });
}
