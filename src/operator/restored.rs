//! Secrets that were put where ours would be: restored from a backup beside a new VirtualCluster. Pure.

use serde_json::Value;

use crate::error::Result;
use crate::kubernetes::Resource;
use crate::names::keys::FIELD_MANAGER;
use crate::operator::apply::{self, Mark};
use crate::operator::cluster::Cluster;

/// Whose an object of a name of ours is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// This VirtualCluster's.
    Ours,
    /// Nobody's: it has no owner, or one of this name that is gone, and was not left behind by that one but put there.
    Restored,
}

/// Judges an existing object; an error for one that is somebody else's, or a deleted namesake's and still going.
pub(crate) fn whose(resource: &Resource, existing: &Value, cluster: &Cluster) -> Result<Whose> {
    let Err(refusal) = apply::check_ours(resource, existing, Mark::Owner(&cluster.uid)) else {
        return Ok(Whose::Ours);
    };
    let metadata = &existing["metadata"];
    let owners = metadata["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_namesake = |owner: &Value| owner["kind"] == "VirtualCluster" && owner["name"] == cluster.name();
    let is_put_there = owners.is_empty() || (owners.iter().all(is_namesake) && is_of_another_hand(metadata));
    if metadata["deletionTimestamp"].is_null() && is_put_there { Ok(Whose::Restored) } else { Err(refusal) }
}

/// Whether others have written it and Portico never has: what a deleted namesake left is Portico's own work.
pub(crate) fn is_of_another_hand(metadata: &Value) -> bool {
    let writers = metadata["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    !writers.is_empty() && writers.iter().all(|writer| writer["manager"] != FIELD_MANAGER)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::Kind;
    use crate::kubernetes::resources::SECRETS;

    fn judged(metadata: &Value) -> Result<Whose, Kind> {
        let cluster = json!({"metadata": {"namespace": "ns", "name": "dev", "uid": "new"}, "spec": {}});
        let cluster = serde_json::from_value(cluster).expect("reads");
        let cluster = Cluster::new(&cluster).expect("valid");
        whose(&SECRETS, &json!({"metadata": metadata}), &cluster).map_err(|error| error.kind())
    }

    #[test]
    fn what_a_namesake_left_is_told_from_what_was_put_there() {
        let owner = |name: &str, uid: &str| json!([{"kind": "VirtualCluster", "name": name, "uid": uid}]);
        let (ours, theirs) = (json!([{"manager": "portico"}]), json!([{"manager": "kubectl-client-side-apply"}]));
        assert_eq!(judged(&json!({"ownerReferences": owner("dev", "new")})), Ok(Whose::Ours));
        assert_eq!(judged(&json!({})), Ok(Whose::Restored));
        let old = |writers: &Value| json!({"ownerReferences": owner("dev", "old"), "managedFields": writers});
        assert_eq!(judged(&old(&theirs)), Ok(Whose::Restored));
        assert_eq!(judged(&old(&ours)), Err(Kind::Unavailable));
        assert_eq!(judged(&old(&Value::Null)), Err(Kind::Unavailable), "who wrote it is not known");
        let mut going = old(&theirs);
        going["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(judged(&going), Err(Kind::Unavailable));
        let other = json!({"ownerReferences": owner("other", "old"), "managedFields": theirs});
        assert_eq!(judged(&other), Err(Kind::Unavailable));
        let operators = json!({"ownerReferences": [{"kind": "ExternalSecret", "name": "dev", "uid": "u"}]});
        assert_eq!(judged(&operators), Err(Kind::Conflict));
    }
}
