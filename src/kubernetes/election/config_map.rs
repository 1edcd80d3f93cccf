//! The lock in a ConfigMap's annotation, in the form of client-go's `resourcelock` (and so of vcluster up to 0.19): where
//! there is no right to Leases, and so that a vcluster syncer and Portico never lead at the same time.

use serde_json::{Value, json};

use super::record::{Candidate, Record};

/// client-go's `LeaderElectionRecordAnnotationKey`.
const RECORD: &str = "control-plane.alpha.kubernetes.io/leader";

/// `owners` are the `ownerReferences` of a new ConfigMap, so that it goes with its owner.
pub(super) fn object(candidate: &Candidate, record: &Record, owners: &[Value]) -> Value {
    let annotation = json!({
        "holderIdentity": record.holder,
        "leaseDurationSeconds": candidate.timing.duration.as_secs(),
        "acquireTime": whole_seconds(&record.acquired),
        "renewTime": whole_seconds(&record.renewed),
        "leaderTransitions": record.transitions,
    });
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": candidate.lease,
            "namespace": candidate.namespace,
            "annotations": {RECORD: annotation.to_string()},
            "ownerReferences": owners,
        },
    })
}

/// A ConfigMap without a readable record is a lock that nobody holds.
pub(super) fn record(map: &Value) -> Record {
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
