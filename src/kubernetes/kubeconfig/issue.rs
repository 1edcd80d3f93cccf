//! Kubeconfigs that Portico writes: the ways to a virtual cluster, and the client certificate that goes with them. Pure
//! but for fresh keys. Must not know where they are kept.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::error::{Error, Kind, Result};
use crate::tls::certificates::{self, Leaf, Pair, Usage};

/// Key of a kubeconfig Secret: the kubeconfig.
pub const CONFIG: &str = "config";
const CA: &str = "certificate-authority";
const CERTIFICATE: &str = "client-certificate";
const KEY: &str = "client-key";
const TOKEN: &str = "token";
/// Renewed when less than this is left: people keep copies.
const RENEW_DAYS: u32 = 60;

/// One way to the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Name of context and cluster.
    pub context: String,
    /// URL.
    pub server: String,
    /// SNI and verified name, when it is not the server's own.
    pub tls_server_name: Option<String>,
    /// PEM; empty means the system's roots.
    pub authority: String,
}

/// The data of a kubeconfig Secret for a cluster admin of this name: `old` as long as its certificate is current.
pub fn plan(
    old: Option<&BTreeMap<String, String>>,
    client_ca: &Pair,
    admin: &str,
    ways: &[Way],
    now: Timestamp,
) -> Result<BTreeMap<String, String>> {
    let text = |key: &str| old.and_then(|d| d.get(key)).cloned().unwrap_or_default();
    let leaf = Leaf {
        common_name: admin.to_owned(),
        organization: Some("system:masters"),
        names: Vec::new(),
        usage: Usage::Client,
        renew_days: RENEW_DAYS,
    };
    let mut pair = Pair { certificate: text(CERTIFICATE), key: text(KEY) };
    if !certificates::is_current(&pair, client_ca, &leaf, now) {
        pair = certificates::new_leaf(client_ca, &leaf, now)?;
    }
    let authority = ways.first().map(|way| way.authority.clone()).unwrap_or_default();
    let config = render(ways, &admin_entry(ways), &of_pair(&pair))?;
    Ok([(CONFIG, config), (CA, authority), (CERTIFICATE, pair.certificate), (KEY, pair.key)]
        .map(|(key, value)| (key.to_owned(), value))
        .into())
}

/// The data of a kubeconfig Secret for a client certificate of this user.
pub fn with_pair(ways: &[Way], user: &str, pair: Pair) -> Result<BTreeMap<String, String>> {
    let config = render(ways, user, &of_pair(&pair))?;
    Ok(data(ways, [(CONFIG, config), (CERTIFICATE, pair.certificate), (KEY, pair.key)]))
}

/// The same for a token.
pub fn with_token(ways: &[Way], user: &str, token: String) -> Result<BTreeMap<String, String>> {
    let config = render(ways, user, &json!({"token": token}))?;
    Ok(data(ways, [(CONFIG, config), (TOKEN, token)]))
}

/// A kubeconfig without what its users show.
pub fn without_credential(config: &str) -> Result<String> {
    let broken = || Error::own(Kind::Internal, "a kubeconfig cannot be read");
    let mut config: Value = serde_saphyr::from_str(config).map_err(|_| broken())?;
    for user in config["users"].as_array_mut().into_iter().flatten() {
        *user = json!({"name": user["name"], "user": {}});
    }
    written(&config)
}

fn data<const N: usize>(ways: &[Way], parts: [(&str, String); N]) -> BTreeMap<String, String> {
    let authority = ways.first().map(|way| way.authority.clone()).unwrap_or_default();
    parts.into_iter().chain([(CA, authority)]).map(|(key, value)| (key.to_owned(), value)).collect()
}

fn admin_entry(ways: &[Way]) -> String {
    ways.first().map(|way| format!("{}-admin", way.context)).unwrap_or_default()
}

fn of_pair(pair: &Pair) -> Value {
    json!({
        "client-certificate-data": STANDARD.encode(&pair.certificate),
        "client-key-data": STANDARD.encode(&pair.key),
    })
}

/// All ways, with one user of this name.
fn render(ways: &[Way], user: &str, credential: &Value) -> Result<String> {
    let clusters: Vec<Value> = ways
        .iter()
        .map(|way| {
            let mut cluster = json!({"server": way.server});
            if !way.authority.is_empty() {
                cluster["certificate-authority-data"] = STANDARD.encode(&way.authority).into();
            }
            if let Some(name) = &way.tls_server_name {
                cluster["tls-server-name"] = name.as_str().into();
            }
            json!({"name": way.context, "cluster": cluster})
        })
        .collect();
    let contexts: Vec<Value> = ways
        .iter()
        .map(|way| json!({"name": way.context, "context": {"cluster": way.context, "user": user}}))
        .collect();
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": clusters,
        "users": [{"name": user, "user": credential}],
        "contexts": contexts,
        "current-context": ways.first().map(|way| way.context.as_str()).unwrap_or_default(),
    });
    written(&config)
}

fn written(config: &Value) -> Result<String> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(config, options)
        .map_err(|e| Error::own(Kind::Internal, "a kubeconfig cannot be written").because(e))
}
