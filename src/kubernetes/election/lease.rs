//! A Lease and what it says. Pure.

use serde_json::{Value, json};

use super::record::{Candidate, Record};

pub(super) fn record(lease: &Value) -> Record {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Record {
        holder: text(&lease["spec"]["holderIdentity"]),
        renewed: text(&lease["spec"]["renewTime"]),
        acquired: text(&lease["spec"]["acquireTime"]),
        transitions: lease["spec"]["leaseTransitions"].as_i64().unwrap_or_default(),
        version: text(&lease["metadata"]["resourceVersion"]),
    }
}

pub(super) fn object(candidate: &Candidate, record: &Record) -> Value {
    let optional = |text: &str| if text.is_empty() { Value::Null } else { Value::from(text) };
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": candidate.lease, "namespace": candidate.namespace},
        "spec": {
            "holderIdentity": record.holder,
            "leaseDurationSeconds": candidate.timing.duration.as_secs(),
            "acquireTime": optional(&record.acquired),
            "renewTime": optional(&record.renewed),
            "leaseTransitions": record.transitions,
        },
    })
}
