//! Phase 1: whether Portico may work in the host namespace, before anything is begun there.

use serde_json::json;

use crate::error::Kind;
use crate::kubernetes::resources::SELF_SUBJECT_REVIEWS;
use crate::operator::cluster::Cluster;
use crate::operator::context::Context;
use crate::operator::halt::{During, Halt, condition};

/// Asks for the right that everything else depends on. The namespace's owner grants all of them in one RoleBinding.
pub(crate) async fn check(context: &Context, cluster: &Cluster) -> Result<(), Halt> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {
            "namespace": cluster.namespace(),
            "verb": "create",
            "group": "apps",
            "resource": "statefulsets",
        }},
    });
    match context.host.create(&SELF_SUBJECT_REVIEWS, "", &review).await {
        Ok(answer) if answer["status"]["allowed"] == true => Ok(()),
        Ok(_) => Err(missing(cluster)),
        Err(error) if error.kind() == Kind::Forbidden => Err(missing(cluster)),
        Err(error) => Err(error).during(condition::SERVICES),
    }
}

fn missing(cluster: &Cluster) -> Halt {
    let namespace = cluster.namespace();
    // Not a failure: the RoleBinding is made beside the VirtualCluster, and the authorizer learns of it a moment later.
    Halt::waiting(
        condition::SERVICES,
        "NoRights",
        format!(
            "Portico may not work in namespace {namespace:?} yet: run `portico create` there, or bind ClusterRole \
             portico-tenant to Portico's ServiceAccount in it (docs/security.md)"
        ),
    )
}
