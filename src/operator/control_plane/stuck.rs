//! A pod of an earlier revision that is not ready, which a StatefulSet in order waits for for ever: whoever mended a wrong image
//! would have to delete it by hand (kubernetes/kubernetes#67250). What is deleted here is what the StatefulSet would replace.

use serde_json::Value;

use crate::error::Result;
use crate::kubernetes::resources::PODS;
use crate::operator::context::Context;
use crate::operator::host::{name_of, uid_of};

/// The label by which a StatefulSet tells its pods' revisions.
const REVISION: &str = "controller-revision-hash";

/// Deletes such a pod, if there is one.
pub(super) async fn unstick(context: &Context, set: &Value, pods: &[Value], namespace: &str) -> Result<()> {
    let Some(pod) = pods.iter().find(|pod| is_stuck(set, pod)) else { return Ok(()) };
    let name = name_of(pod);
    if context.host.delete(&PODS, namespace, name, uid_of(pod)).await? {
        tracing::info!(namespace, pod = name, "a pod of an earlier revision that does not get ready makes room");
    }
    Ok(())
}

fn is_stuck(set: &Value, pod: &Value) -> bool {
    let (spec, status) = (&set["spec"], &set["status"]);
    let is_in_order = spec["podManagementPolicy"] != "Parallel";
    let is_observed = status["observedGeneration"] == set["metadata"]["generation"];
    let (newest, own) = (&status["updateRevision"], &pod["metadata"]["labels"][REVISION]);
    let is_outdated = newest.is_string() && own.is_string() && newest != own;
    let is_leaving = !pod["metadata"]["deletionTimestamp"].is_null();
    is_in_order && is_observed && is_outdated && !is_leaving && !is_ready(pod)
}

/// Whether a pod says so.
pub(super) fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set() -> Value {
        json!({"metadata": {"generation": 2}, "spec": {},
            "status": {"observedGeneration": 2, "currentRevision": "old", "updateRevision": "new"}})
    }

    fn pod(revision: &str, ready: &str) -> Value {
        json!({"metadata": {"labels": {REVISION: revision}},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}})
    }

    #[test]
    fn only_what_the_set_waits_for_in_vain_goes() {
        assert!(is_stuck(&set(), &pod("old", "False")));
        assert!(!is_stuck(&set(), &pod("old", "True")), "the set replaces it");
        assert!(!is_stuck(&set(), &pod("new", "False")), "it may still get ready");
        let mut leaving = pod("old", "False");
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(!is_stuck(&set(), &leaving));
        for (field, value) in [("spec", json!({"podManagementPolicy": "Parallel"})), ("status", json!({}))] {
            let mut set = set();
            set[field] = value;
            assert!(!is_stuck(&set, &pod("old", "False")), "{field}");
        }
        let mut unobserved = set();
        unobserved["metadata"]["generation"] = json!(3);
        assert!(!is_stuck(&unobserved, &pod("old", "False")));
    }
}
