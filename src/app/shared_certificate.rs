//! Keeps the shared listener's certificate in force: read from the Secret that the operator (or the cluster admin)
//! wrote, again every [`REFRESH`], so that a renewed one needs no restart.

use std::time::Duration;

use base64::Engine;
use serde_json::Value;

use crate::clock::Clock;
use crate::drain::Drain;
use crate::error::{Error, Kind, Result};
use crate::gateway::SharedCertificate;
use crate::tls::ServerTls;
use crate::upstream::{ApiClient, Resource};

/// Name of the Secret in Portico's own namespace: keys `tls.crt`, `tls.key` and, when Portico made it, `ca.crt`.
pub(super) const SECRET: &str = "portico-gateway-tls";

const SECRETS: Resource = Resource { group: "", version: "v1", plural: "secrets", kind: "Secret", namespaced: true };
const REFRESH: Duration = Duration::from_secs(60);
const MISSING: Duration = Duration::from_secs(1);

/// Follows the Secret until the drain begins.
pub(super) async fn follow(
    host: ApiClient,
    namespace: String,
    shared: SharedCertificate,
    clock: Clock,
    mut drain: Drain,
) {
    let mut version = String::new();
    loop {
        let wait = match read(&host, &namespace, &mut version).await {
            Ok(Some(tls)) => {
                shared.set(tls);
                tracing::info!("the shared certificate is in force");
                REFRESH
            }
            Ok(None) => REFRESH,
            Err(error) => {
                tracing::debug!(%error, "no shared certificate yet");
                if shared.load().is_some() { REFRESH } else { MISSING }
            }
        };
        tokio::select! {
            () = tokio::time::sleep(clock.jitter(wait)) => {}
            _ = drain.signaled() => return,
        }
    }
}

/// The certificate, when it is another than the one of `version`.
async fn read(host: &ApiClient, namespace: &str, version: &mut String) -> Result<Option<ServerTls>> {
    let secret = host
        .get(&SECRETS, Some(namespace), SECRET)
        .await?
        .ok_or_else(|| Error::own(Kind::Unavailable, format!("Secret {SECRET:?} does not exist yet")))?;
    let current = secret["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    if current == version {
        return Ok(None);
    }
    let tls = ServerTls::from_pem(&bytes(&secret, "tls.crt")?, &bytes(&secret, "tls.key")?)?;
    current.clone_into(version);
    Ok(Some(tls))
}

fn bytes(secret: &Value, key: &str) -> Result<Vec<u8>> {
    let lacks = || Error::own(Kind::Unavailable, format!("Secret {SECRET:?} has no usable key {key:?}"));
    let text = secret["data"][key].as_str().ok_or_else(lacks)?;
    base64::engine::general_purpose::STANDARD.decode(text).map_err(|e| lacks().because(e))
}
