//! The shared listener's certificate: Secret `portico-gateway-tls` in Portico's namespace, made and renewed here
//! unless somebody brought their own (no `ca.key` in it).

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::kubernetes::resources::SECRETS;
use crate::names::reserved::host_of;
use crate::operator::context::Context;
use crate::operator::secret::{self, Data};
use crate::tls::certificates::{self, Leaf, Pair, Usage};

/// Name of the Secret; keys `ca.crt`, `tls.crt`, `tls.key`, and `ca.key` when the certificate is ours.
pub(crate) const SECRET: &str = "portico-gateway-tls";
const CA: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// Makes or renews it; yields the CA that clients of the shared listener should trust (empty: the system's).
pub(crate) async fn ensure(context: &Context) -> Result<String> {
    let namespace = context.system_namespace();
    let existing = context.host.get(&SECRETS, namespace, SECRET).await?;
    let old = existing.as_ref().map(secret::data);
    if let Some(old) = &old
        && !old.contains_key(CA_KEY)
    {
        return Ok(old.get(CA).cloned().unwrap_or_default());
    }
    let new = plan(old.as_ref(), &leaf(&context.config), context.clock.now())?;
    if old.as_ref() != Some(&new) {
        let metadata = serde_json::json!({
            "name": SECRET, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "portico"},
        });
        let desired = secret::object(&metadata, "kubernetes.io/tls", &new);
        secret::write(&context.host, namespace, existing.as_ref(), &desired).await?;
    }
    Ok(new.get(CA).cloned().unwrap_or_default())
}

fn plan(old: Option<&Data>, leaf: &Leaf, now: jiff::Timestamp) -> Result<Data> {
    let text = |key: &str| old.and_then(|old| old.get(key)).cloned().unwrap_or_default();
    let ca = if old.is_none() {
        certificates::new_ca("portico-gateway-ca", now)?
    } else {
        let ca = Pair { certificate: text(CA), key: text(CA_KEY) };
        if !certificates::is_usable_ca(&ca, now) {
            let message =
                format!("the CA in Secret {SECRET:?} is damaged or expired; delete the Secret to get a new one");
            return Err(Error::own(Kind::Invalid, message));
        }
        ca
    };
    let mut pair = Pair { certificate: text(CERTIFICATE), key: text(KEY) };
    if !certificates::is_current(&pair, &ca, leaf, now) {
        pair = certificates::new_leaf(&ca, leaf, now)?;
    }
    Ok([(CA, ca.certificate), (CA_KEY, ca.key), (CERTIFICATE, pair.certificate), (KEY, pair.key)]
        .map(|(key, value)| (key.to_owned(), value))
        .into())
}

fn leaf(config: &Config) -> Leaf {
    let namespace = &config.host.system_namespace;
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.extend(["portico".to_owned(), format!("portico.{namespace}"), format!("portico.{namespace}.svc")]);
    names.extend(config.gateway.extra_sans.iter().cloned());
    names.extend(host_of(&config.gateway.public_url));
    Leaf { common_name: "portico".to_owned(), organization: None, names, usage: Usage::Server, renew_days: 30 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ca_stays_when_names_change() {
        let now = "2026-01-01T00:00:00Z".parse().expect("time");
        let mut config = Config::default();
        let first = plan(None, &leaf(&config), now).expect("plan");
        assert_eq!(plan(Some(&first), &leaf(&config), now).expect("plan"), first);
        config.gateway.public_url = "https://p.example.com:30443".to_owned();
        let second = plan(Some(&first), &leaf(&config), now).expect("plan");
        assert_eq!(first.get(CA), second.get(CA));
        assert_ne!(first.get(CERTIFICATE), second.get(CERTIFICATE));
    }
}
