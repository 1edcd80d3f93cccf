//! Whether a control plane still takes what adds to its store, as the condition `StoreFull`. Only Portico's own image with
//! a SQLite has a bound, and says it.

use crate::crd::{Distro, StorageKind, VirtualClusterStatus};
use crate::operator::backends::Fill;
use crate::operator::cluster::Cluster;
use crate::operator::context::Context;
use crate::operator::halt::condition;
use crate::operator::status;

/// Asks for it. That it cannot be read is no failure of the round: what was said last stands.
pub(crate) async fn note(context: &Context, cluster: &Cluster, next: &mut VirtualClusterStatus) {
    let kind = next.storage.as_ref().map(|storage| storage.kind);
    let is_bounded = matches!(kind, Some(StorageKind::Volume | StorageKind::Pod));
    if cluster.spec.distro != Distro::K8s || !is_bounded {
        return;
    }
    let fill = match context.backends.fill(&cluster.id, &cluster.uid).await {
        Ok(Some(fill)) => fill,
        Ok(None) => return,
        Err(error) => {
            tracing::debug!(tenant = %cluster.id, %error, "how full the store is cannot be read");
            return;
        }
    };
    let was_full = next.conditions.iter().any(|c| c.r#type == condition::STORE_FULL);
    if fill.full {
        let message = message(fill, kind == Some(StorageKind::Pod), cluster.name());
        note_as(context, cluster, ("True", "InsufficientStorage", &message), next);
    } else if was_full {
        note_as(context, cluster, ("False", "Room", ""), next);
    }
}

fn note_as(context: &Context, cluster: &Cluster, says: (&str, &str, &str), next: &mut VirtualClusterStatus) {
    status::note(next, condition::STORE_FULL, says, cluster.generation, context.clock.now());
}

fn message(fill: Fill, is_in_the_pod: bool, name: &str) -> String {
    let more = if is_in_the_pod {
        "a larger limit of ephemeral-storage in spec.resources.limits".to_owned()
    } else {
        format!("a larger request of the claim data-{name}-0, where its StorageClass lets volumes grow,")
    };
    format!(
        "the store has {} MiB of at most {} MiB, so the API server refuses what adds to it (507): delete objects, whose \
         room comes back within a minute or two; {more} raises the bound",
        fill.bytes.div_ceil(1 << 20),
        fill.bound >> 20,
    )
}
