//! Containers that are added to a running pod (`kubectl debug`). The list only grows, so a bound cuts its end.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;

use super::super::bounds::{self, Excess};
use super::super::summary::ServiceSummary;
use super::super::{View, json};
use super::crossing::{crossing, ordinary};
use super::images::image;
use super::{allowed, env, references};

/// Those that the host does not have yet.
#[derive(Debug, Default)]
pub struct Ephemeral {
    /// Translated, with the index in the virtual pod.
    pub wanted: Vec<(usize, Value)>,
    /// Why not all of them cross.
    pub beyond: Option<Excess>,
}

/// The ephemeral containers that the host does not have yet, as many as cross.
pub fn containers(pod: &Value, host: &Value, services: &[Arc<ServiceSummary>], view: &View) -> Ephemeral {
    let of = |pod| json::items(pod, "/spec/ephemeralContainers");
    let known: HashSet<&str> = of(host).iter().map(|k| json::text(k, "/name")).collect();
    let (all, crossing) = (of(pod), crossing(pod));
    let room = (bounds::LINK_BYTES / (ordinary(pod) + all.len()).max(1)).min(bounds::EPHEMERAL_LINK_BYTES);
    let generated = env::generated(pod, services, room, view);
    let missing = all.iter().enumerate().take(crossing).filter(|(_, c)| !known.contains(json::text(c, "/name")));
    let wanted = missing.filter_map(|(index, container)| {
        let mut container = container.as_object()?.clone();
        allowed::container(&mut container);
        references::rename_in_container(&mut container, json::namespace(pod), view);
        env::in_container(&mut container, &generated, view);
        json::rename(&mut container, "image", |i| image(i, view).to_owned());
        Some((index, Value::Object(container)))
    });
    let advice = "the pod has reached what it may have of containers, names of other objects or expanded variables";
    let beyond = Excess::beyond("spec.ephemeralContainers", "containers", (all.len(), crossing), advice);
    Ephemeral { wanted: wanted.collect(), beyond }
}
