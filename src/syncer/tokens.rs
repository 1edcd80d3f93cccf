//! Service-account tokens of tenant pods: TokenRequests in the tenant, carried by a Secret on the host.
//!
//! Promises: a token is bound to its pod, lives only in that Secret and in memory until it is written, is owned by the
//! host pod (so it goes with it), is made anew at four fifths of its life, and is never logged nor cached.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::error::{Error, Kind, Result};
use crate::kubernetes::api::Cluster;
use crate::kubernetes::resources::SERVICE_ACCOUNTS;
use crate::names::{ClusterName, keys};
use crate::syncer::cache::{mark, text};
use crate::syncer::kind::{ObjectKey, TenantView, TokenSpec};
use crate::translate::pod::{TOKEN_KIND, TOKEN_SPEC, volumes};

/// Annotation on a token Secret: when its tokens are to be made anew.
pub const REFRESH_AT: &str = "portico.dev/token-refresh-at";

/// Requests of one pod that run at the same time.
const AT_ONCE: usize = 4;

/// What a pod needs.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// Virtual pod.
    pub pod: &'a ObjectKey,
    /// Its uid.
    pub pod_uid: &'a str,
    /// ServiceAccount.
    pub service_account: &'a str,
    /// Name of the host Secret.
    pub secret: &'a str,
    /// Projected sources.
    pub tokens: &'a [TokenSpec],
}

/// Tokens that were made and not yet written.
pub struct Minted {
    /// Name of the host Secret.
    pub secret: String,
    pod: ObjectKey,
    pod_uid: String,
    spec: String,
    data: Map<String, Value>,
    refresh_at: Timestamp,
}

impl std::fmt::Debug for Minted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Minted").field("secret", &self.secret).field("pod", &self.pod).finish_non_exhaustive()
    }
}

impl Wish<'_> {
    fn spec(&self) -> String {
        let tokens = self.tokens.iter().map(|t| (t.key.as_str(), t.audience.as_str(), t.expiration_seconds));
        volumes::token_spec(self.pod_uid, self.service_account, tokens)
    }

    /// How long a found Secret is still good for this pod; None when it must be made anew.
    pub fn still_good(&self, secret: &Value, host_pod_uid: &str, now: Timestamp) -> Option<Duration> {
        let owners = secret.get("metadata")?.get("ownerReferences")?.as_array()?;
        if !owners.iter().any(|o| o.get("uid").and_then(Value::as_str) == Some(host_pod_uid)) {
            return None;
        }
        if mark(secret, "annotations", TOKEN_SPEC)? != self.spec() || !text(secret, "deletionTimestamp").is_empty() {
            return None;
        }
        let refresh_at: Timestamp = mark(secret, "annotations", REFRESH_AT)?.parse().ok()?;
        let left = refresh_at.as_second() - now.as_second();
        u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_secs)
    }

    /// Asks the tenant for every token.
    pub async fn mint(&self, tenant: &dyn Cluster, now: Timestamp) -> Result<Minted> {
        let mut answers = Vec::with_capacity(self.tokens.len());
        for some in self.tokens.chunks(AT_ONCE) {
            let requests = some.iter().map(|spec| self.request(tenant, spec));
            answers.extend(futures::future::try_join_all(requests).await?);
        }
        let mut data = Map::new();
        let mut lifetime = i64::MAX;
        for (spec, (token, expires)) in self.tokens.iter().zip(answers) {
            data.insert(spec.key.clone(), Value::String(STANDARD.encode(token)));
            lifetime = lifetime.min(expires.as_second() - now.as_second());
        }
        let refresh = lifetime.clamp(60, 366 * 86_400) / 5 * 4;
        let refresh_at = Timestamp::from_second(now.as_second() + refresh)
            .map_err(|e| Error::own(Kind::Internal, "a token's expiry cannot be represented").because(e))?;
        Ok(Minted {
            secret: self.secret.to_owned(),
            pod: self.pod.clone(),
            pod_uid: self.pod_uid.to_owned(),
            spec: self.spec(),
            data,
            refresh_at,
        })
    }

    async fn request(&self, tenant: &dyn Cluster, spec: &TokenSpec) -> Result<(String, Timestamp)> {
        let audiences: Vec<&str> = if spec.audience.is_empty() { Vec::new() } else { vec![&spec.audience] };
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": audiences,
                "expirationSeconds": spec.expiration_seconds.max(600),
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": self.pod.name, "uid": self.pod_uid},
            },
        });
        let on = (self.service_account, "token");
        let answer = tenant.create(&SERVICE_ACCOUNTS, Some(&self.pod.namespace), on, &request).await?;
        let field = |name: &str| answer.get("status").and_then(|s| s.get(name)).and_then(Value::as_str);
        let unusable = || Error::backend(Kind::Protocol, "a TokenRequest was answered without a token");
        let expires = field("expirationTimestamp").and_then(|t| t.parse().ok()).ok_or_else(unusable)?;
        Ok((field("token").ok_or_else(unusable)?.to_owned(), expires))
    }
}

impl Minted {
    /// When it must be looked at again.
    pub fn refresh_in(&self, now: Timestamp) -> Duration {
        Duration::from_secs(u64::try_from(self.refresh_at.as_second() - now.as_second()).unwrap_or(0).max(1))
    }

    /// The whole Secret, owned by the host pod.
    pub fn secret(&self, view: &TenantView, host_pod: (&str, &str)) -> Value {
        let (name, uid) = host_pod;
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {
                "name": self.secret,
                "namespace": view.namespace().as_str(),
                "labels": {keys::CLUSTER: view.cluster().as_str(), keys::NAMESPACE: self.pod.namespace},
                "annotations": {
                    keys::OBJECT_KIND: TOKEN_KIND,
                    keys::OBJECT_NAME: self.pod.name,
                    keys::OBJECT_NAMESPACE: self.pod.namespace,
                    keys::OBJECT_UID: self.pod_uid,
                    TOKEN_SPEC: self.spec,
                    REFRESH_AT: self.refresh_at.to_string(),
                },
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}],
            },
            "data": self.data,
        })
    }
}

/// The virtual pod that a host object carries tokens for, if it is a token Secret of this cluster.
pub fn pod_of(object: &Value, cluster: &ClusterName) -> Option<ObjectKey> {
    let ours = mark(object, "labels", keys::CLUSTER)? == cluster.as_str()
        && mark(object, "annotations", keys::OBJECT_KIND)? == TOKEN_KIND;
    let name = mark(object, "annotations", keys::OBJECT_NAME)?.to_owned();
    let namespace = mark(object, "annotations", keys::OBJECT_NAMESPACE)?.to_owned();
    ours.then_some(ObjectKey { namespace, name })
}

/// What is kept of a token Secret: its metadata, never its data.
pub fn project(mut object: Value) -> Value {
    let metadata = object.get_mut("metadata").map(Value::take).unwrap_or_default();
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish<'a>(pod: &'a ObjectKey, tokens: &'a [TokenSpec]) -> Wish<'a> {
        Wish { pod, pod_uid: "u1", service_account: "default", secret: "web-token", tokens }
    }

    fn view() -> TenantView {
        TenantView {
            id: crate::names::TenantId::parse("team", "vc").expect("id"),
            uid: "owner".to_owned(),
            owner: None,
            placement: crate::translate::Placement::default(),
            api_service_ip: "10.96.0.9".parse().expect("ip"),
            dns_service_ip: "10.96.0.10".parse().expect("ip"),
            cluster_domain: "cluster.local".to_owned(),
            policy: crate::crd::policy::GrantedPolicy::default(),
            translate_images: std::collections::BTreeMap::new(),
            node_selector: std::collections::BTreeMap::new(),
            api_ca: String::new(),
        }
    }

    #[test]
    fn a_secret_is_good_for_its_pod_only_and_until_four_fifths_of_its_life() {
        let pod = ObjectKey { namespace: "ns".to_owned(), name: "web".to_owned() };
        let tokens = [TokenSpec { key: "token".to_owned(), audience: String::new(), expiration_seconds: 3600 }];
        let now = Timestamp::from_second(1_000_000).expect("time");
        let minted = Minted {
            secret: "web-token".to_owned(),
            pod: pod.clone(),
            pod_uid: "u1".to_owned(),
            spec: wish(&pod, &tokens).spec(),
            data: Map::from_iter([("token".to_owned(), json!("c2VjcmV0"))]),
            refresh_at: Timestamp::from_second(1_002_880).expect("time"),
        };
        let secret = minted.secret(&view(), ("web-x-ns-x-vc", "h1"));
        let wish = wish(&pod, &tokens);
        assert_eq!(wish.still_good(&secret, "h1", now), Some(Duration::from_secs(2880)));
        assert_eq!(wish.still_good(&secret, "h2", now), None, "another host pod");
        let later = Timestamp::from_second(1_002_880).expect("time");
        assert_eq!(wish.still_good(&secret, "h1", later), None);
        let other = Wish { pod_uid: "u2", ..wish };
        assert_eq!(other.still_good(&secret, "h1", now), None, "another virtual pod");
        assert_eq!(pod_of(&secret, view().cluster()), Some(pod.clone()));
        assert!(!project(secret).to_string().contains("c2VjcmV0"));
        assert!(!format!("{minted:?}").contains("c2VjcmV0"));
    }
}
