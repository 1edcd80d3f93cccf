//! How many of the containers that are added to a running pod cross: as many as leave the whole pod within its bounds.

use serde_json::Value;

use super::super::{bounds, json};
use super::{expansion, walk};

/// How many of a pod's ephemeral containers cross, the first ones.
pub(super) fn crossing(pod: &Value) -> usize {
    let room = bounds::CONTAINERS.saturating_sub(ordinary(pod));
    let (mut names, mut bytes) = (bounds::NAMES.saturating_sub(walk::count(pod)), bounds::EXPANDED_BYTES);
    let fits = |container: &Value| {
        names = names.checked_sub(walk::count_in_container(container))?;
        bytes = bytes.checked_sub(expansion::of_container(container))?;
        Some(())
    };
    let all = json::items(pod, "/spec/ephemeralContainers");
    all.iter().take(room).map_while(fits).count()
}

/// How many containers a pod has from its beginning.
pub(super) fn ordinary(pod: &Value) -> usize {
    let list = |list: &str| json::items(pod, &format!("/spec/{list}")).len();
    list("containers") + list("initContainers")
}
