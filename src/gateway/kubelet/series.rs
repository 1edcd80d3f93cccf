//! Series of a kubelet as one tenant may see them, line by line.
//!
//! Promises: what names a pod is shown when that pod is one of the tenant's, under its own names and uid; every label is
//! known here, or the series is not shown; a series without a pod is shown when the node's figures are, and then only such as
//! name nothing that runs on it; what is not well formed is nothing; a family that shows nothing is not mentioned. Pure.

use std::borrow::Cow;

use super::shown::{Shown, is_container_id};
use crate::exposition::{self, Labels, Line, Sample};
use crate::usage::HostPod;

/// Labels of a pod's series that say nothing of the host, or no more than the pod sees from inside.
const OF_A_POD: &[&str] = &[
    "container",
    "cpu",
    "device",
    "event",
    "failure_type",
    "interface",
    "kind",
    "le",
    "major",
    "minor",
    "node",
    "operation",
    "pagesize",
    "probe_type",
    "quantile",
    "reason",
    "resource",
    "result",
    "scope",
    "state",
    "tcp_state",
    "type",
    "udp_state",
    "ulimit",
    "unit",
];
/// Labels that are replaced, or looked at.
const REPLACED: &[&str] = &["namespace", "pod", "uid", "pod_uid", "id", "name", "image"];
/// Labels that name something that runs on the node: who has one and no pod of the tenant is somebody else's.
const OF_SOMEBODY: &[&str] = &[
    "namespace",
    "pod",
    "uid",
    "pod_uid",
    "name",
    "image",
    "container",
    "persistentvolumeclaim",
    "pod_name",
    "container_name",
    "pod_namespace",
    "exported_namespace",
    "exported_pod",
    "container_id",
    "volume_name",
    "claim_name",
];
/// Beginnings of families of the node itself and of its kubelet.
const OF_THE_NODE: &[&str] = &[
    "container_",
    "go_",
    "kubelet_",
    "kubernetes_build_info",
    "machine_",
    "node_",
    "process_",
    "resource_scrape_error",
    "scrape_error",
];
/// Which machine it is, is nobody's business; each is the same on all series.
const OF_THE_MACHINE: &[&str] = &["boot_id", "machine_id", "system_uuid"];

/// Of one family; each line of them is bounded besides.
const LONGEST_COMMENTS: usize = 16 << 10;

/// The filter, somewhere in a body.
#[derive(Debug)]
pub(super) struct Series<'a> {
    shown: &'a Shown<'a>,
    /// Whether figures of the whole node are shown.
    whole_node: bool,
    /// What is said of the family that begins, until something of it is shown.
    begun: Family,
}

#[derive(Debug, Default)]
struct Family {
    name: String,
    comments: Vec<u8>,
}

impl<'a> Series<'a> {
    pub(super) fn new(shown: &'a Shown<'a>, whole_node: bool) -> Self {
        Self { shown, whole_node, begun: Family::default() }
    }

    /// Adds to `out` what is shown of a line.
    pub(super) fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        match Line::parse(line) {
            Some(Line::About { word, family, text }) => self.begun.says(family, word, text),
            Some(Line::Type { family, kind }) => self.begun.says(family, "TYPE", kind),
            Some(Line::Sample(sample)) => self.sample(&sample, out),
            Some(Line::End | Line::Nothing) | None => {}
        }
    }

    fn sample(&mut self, sample: &Sample<'_>, out: &mut Vec<u8>) {
        if has_twice(sample.labels) {
            return;
        }
        let label = |name| sample.labels.get(name).unwrap_or_default();
        if let Some(pod) = self.shown.pod(&label("namespace"), &label("pod")) {
            let Some(given) = given(pod, sample.labels) else { return };
            if !is_clean(pod, &label("pod"), sample.labels) {
                return;
            }
            self.begun.begin(sample.name, out);
            let given: Vec<(&str, &str)> = given.iter().map(|(name, value)| (*name, value.as_ref())).collect();
            exposition::sample(out, sample.name, sample, &given, |name| OF_A_POD.contains(&name));
        } else if self.whole_node && is_of_the_node(sample) {
            self.begun.begin(sample.name, out);
            exposition::sample(out, sample.name, sample, &[], |name| !OF_THE_MACHINE.contains(&name));
        }
    }
}

/// What stands for labels that tell of the host. `None`: the series is not the pod's, whatever it says.
fn given<'a>(pod: &'a HostPod, labels: Labels<'a>) -> Option<Vec<(&'static str, Cow<'a, str>)>> {
    let mut given = vec![("namespace", Cow::from(&*pod.namespace)), ("pod", Cow::from(&*pod.name))];
    let is_a_container = labels.get("container").is_some_and(|name| !name.is_empty());
    for name in ["uid", "pod_uid"] {
        match labels.get(name).as_deref() {
            None => {}
            Some(uid) if uid == pod.uid => given.push((name, Cow::from(&*pod.virtual_uid))),
            // One of the same name, before or after.
            Some(_) => return None,
        }
    }
    if let Some(id) = labels.get("id") {
        let container = id.split(['/', '-', '.', ':']).rfind(|part| is_container_id(part));
        let id = match container {
            Some(container) => format!("/pod{}/{container}", pod.virtual_uid),
            None => format!("/pod{}", pod.virtual_uid),
        };
        given.push(("id", id.into()));
    }
    // Of the sandbox they are the host's.
    if is_a_container {
        let is_id = |name: &Cow<'_, str>| is_container_id(name);
        given.extend(labels.get("name").filter(is_id).map(|name| ("name", name)));
        given.extend(labels.get("image").map(|image| ("image", image)));
    }
    Some(given)
}

/// Whether all labels are known and none that stays tells the pod's names or uid on the host.
fn is_clean(pod: &HostPod, host_name: &str, labels: Labels<'_>) -> bool {
    let underscored = pod.uid.replace('-', "_");
    labels.iter().all(|(name, value)| {
        REPLACED.contains(&name)
            || (OF_A_POD.contains(&name)
                && ![host_name, &pod.uid, &underscored].iter().any(|secret| value.contains(*secret)))
    })
}

fn is_of_the_node(sample: &Sample<'_>) -> bool {
    OF_THE_NODE.iter().any(|beginning| sample.name.starts_with(beginning))
        && sample.labels.iter().all(|(name, value)| match name {
            "id" => is_of_no_pod(value),
            name => value.is_empty() || !OF_SOMEBODY.iter().any(|other| other.eq_ignore_ascii_case(name)),
        })
}

/// A control group of the node: `/`, `/system.slice`, `/kubepods/burstable`.
fn is_of_no_pod(group: &str) -> bool {
    !group.contains("/pod") && !group.contains("-pod") && !group.split(['/', '-', '.', ':']).any(is_container_id)
}

/// A label that is there twice may be read as either.
fn has_twice(labels: Labels<'_>) -> bool {
    labels.iter().enumerate().any(|(at, (name, _))| labels.iter().take(at).any(|(other, _)| other == name))
}

impl Family {
    fn says(&mut self, family: &str, word: &str, text: &str) {
        if self.name != family {
            family.clone_into(&mut self.name);
            self.comments.clear();
        }
        if self.comments.len() < LONGEST_COMMENTS {
            exposition::comment(&mut self.comments, word, family, text);
        }
    }

    /// A sample of this name is shown now.
    fn begin(&mut self, sample: &str, out: &mut Vec<u8>) {
        if !self.comments.is_empty() && sample.starts_with(&self.name) {
            out.append(&mut self.comments);
        }
    }
}

#[cfg(test)]
mod tests;
