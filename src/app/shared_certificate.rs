//! Keeps the shared listener's certificate in force: read from the Secret that the operator (or the cluster admin)
//! wrote, again every [`REFRESH`], so that a renewed one needs no restart.

use std::time::Duration;

use crate::error::Result;
use crate::kubernetes::{ApiClient, Secret};
use crate::runtime::clock::Clock;
use crate::runtime::drain::Drain;
use crate::tls::{ServerTls, SharedCertificate};

/// Name of the Secret in Portico's own namespace: keys `tls.crt`, `tls.key` and, when Portico made it, `ca.crt`.
pub(super) const SECRET: &str = "portico-gateway-tls";

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
    let secret = Secret::read(host, namespace, SECRET).await?;
    let current = secret.version();
    if current == version {
        return Ok(None);
    }
    let tls = ServerTls::from_pem(&secret.bytes("tls.crt")?, &secret.bytes("tls.key")?)?;
    current.clone_into(version);
    Ok(Some(tls))
}
