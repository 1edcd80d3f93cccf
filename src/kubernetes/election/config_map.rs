//! The lock in a ConfigMap's annotation, in the form of client-go's `resourcelock` (and so of vcluster up to 0.19): where
//! there is no right to Leases, and so that a vcluster syncer and Portico never lead at the same time.

use serde_json::{Value, json};

use super::{Candidate, LeaseStore, Record};
use crate::error::{Error, Kind, Result};
use crate::kubernetes::ApiClient;
use crate::kubernetes::resources::CONFIG_MAPS;

/// client-go's `LeaderElectionRecordAnnotationKey`.
const RECORD: &str = "control-plane.alpha.kubernetes.io/leader";

/// Locks that are ConfigMaps on the host API server.
#[derive(Debug, Clone)]
pub struct ConfigMapLock {
    /// The host.
    pub host: ApiClient,
    /// `ownerReferences` of a new ConfigMap, so that it goes with its owner.
    pub owners: Vec<Value>,
}

impl LeaseStore for ConfigMapLock {
    async fn read(&self, candidate: &Candidate) -> Result<Option<Record>> {
        let found = self.host.get(&CONFIG_MAPS, Some(&candidate.namespace), &candidate.lease).await?;
        Ok(found.map(|map| record(&map)))
    }

    async fn write(&self, candidate: &Candidate, record: &Record) -> Result<String> {
        let annotation = json!({
            "holderIdentity": record.holder,
            "leaseDurationSeconds": candidate.timing.duration.as_secs(),
            "acquireTime": whole_seconds(&record.acquired),
            "renewTime": whole_seconds(&record.renewed),
            "leaderTransitions": record.transitions,
        });
        let mut map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": candidate.lease,
                "namespace": candidate.namespace,
                "annotations": {RECORD: annotation.to_string()},
                "ownerReferences": self.owners,
            },
        });
        let namespace = Some(candidate.namespace.as_str());
        let written = if record.version.is_empty() {
            self.host.create(&CONFIG_MAPS, namespace, &map).await?
        } else {
            map["metadata"]["resourceVersion"] = record.version.as_str().into();
            self.host.replace(&CONFIG_MAPS, namespace, &candidate.lease, "", &map).await?
        };
        written["metadata"]["resourceVersion"]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| Error::host(Kind::Protocol, "a ConfigMap came back without a version"))
    }
}

/// A ConfigMap without a readable record is a lock that nobody holds.
fn record(map: &Value) -> Record {
    let text = map["metadata"]["annotations"][RECORD].as_str().unwrap_or_default();
    let found: Value = serde_json::from_str(text).unwrap_or_default();
    let field = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    let version = map["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    Record {
        holder: field("holderIdentity"),
        // Old clients write whole seconds: the version tells two renewals within one apart.
        renewed: format!("{} {version}", field("renewTime")),
        acquired: field("acquireTime"),
        transitions: found["leaderTransitions"].as_i64().unwrap_or_default(),
        version,
    }
}

/// `metav1.Time` has no fractions.
fn whole_seconds(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_of_client_go_is_understood() {
        let record_text = r#"{"holderIdentity":"dev-cluster-0_5f","leaseDurationSeconds":60,"acquireTime":"2021-06-22T10:00:00Z","renewTime":"2021-06-22T10:00:40Z","leaderTransitions":2}"#;
        let map = json!({"metadata": {"resourceVersion": "7", "annotations": {RECORD: record_text}}});
        let found = record(&map);
        assert_eq!((found.holder.as_str(), found.transitions, found.version.as_str()), ("dev-cluster-0_5f", 2, "7"));
        assert_eq!(whole_seconds("2021-06-22T10:00:00.123456Z"), "2021-06-22T10:00:00Z");
        assert_eq!(whole_seconds("2021-06-22T10:00:00Z"), "2021-06-22T10:00:00Z");
        assert_eq!(record(&json!({"metadata": {"resourceVersion": "8"}})).holder, "", "a lock that nobody holds");
    }
}
