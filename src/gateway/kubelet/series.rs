//! Series of a kubelet as one tenant may see them, line by line.
//!
//! Promises: what names a pod is shown when that pod is one of the tenant's, under its own names and uid; every label is
//! known here, or the series is not shown; a series without a pod is shown when the node's figures are, and then only such as
//! name nothing that runs on it, in no label; what is not well formed is nothing; a family that shows nothing is not mentioned. Pure.

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
/// Labels of the node's series, beside those of a pod's: none names what runs on it.
const OF_A_NODE: &[&str] = &[
    "boundary",
    "build_date",
    "code",
    "compiler",
    "config",
    "container_state",
    "container_type",
    "core_id",
    "eviction_signal",
    "git_commit",
    "git_tree_state",
    "git_version",
    "go_version",
    "handler",
    "id",
    "image_size_in_bytes",
    "level",
    "lifecycle",
    "long_running",
    "method",
    "metric_source",
    "mode",
    "node_id",
    "operation_name",
    "operation_type",
    "page_size",
    "path",
    "phase",
    "platform",
    "plugin_name",
    "preemption_signal",
    "resource_name",
    "runtime_handler",
    "server_api_version",
    "server_type",
    "static",
    "target_node_id",
    "thread_id",
    "version",
    "volume_plugin",
];
/// What a container is called is known by its pod only.
const NAMES_A_CONTAINER: &str = "container";
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
        let label = |name| sample.labels.get(name).unwrap_or_default();
        if let Some(pod) = self.shown.pod(&label("namespace"), &label("pod")) {
            let Some(given) = given(pod, sample.labels) else { return };
            if !is_clean(pod, &label("pod"), sample.labels) || has_twice(sample.labels) {
                return;
            }
            self.begun.begin(sample.name, out);
            let given: Vec<(&str, &str)> = given.iter().map(|(name, value)| (*name, value.as_ref())).collect();
            exposition::sample(out, sample.name, sample, &given, |name| OF_A_POD.contains(&name));
        } else if self.whole_node && is_of_the_node(sample) && !has_twice(sample.labels) {
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
    let is_known = |name| OF_A_NODE.contains(&name) || (OF_A_POD.contains(&name) && name != NAMES_A_CONTAINER);
    OF_THE_NODE.iter().any(|beginning| sample.name.starts_with(beginning))
        && sample.labels.iter().all(|(name, value)| {
            value.is_empty() || OF_THE_MACHINE.contains(&name) || (is_known(name) && is_of_no_pod(value))
        })
}

/// A control group of the node (`/`, `/system.slice`, `/kubepods/burstable`), a device, or a word: neither below a directory of
/// pods or volumes nor with an id in it.
fn is_of_no_pod(text: &str) -> bool {
    !["/pod", "-pod", "/kubelet/", "kubernetes.io"].iter().any(|part| text.contains(part))
        && !text.split(|c: char| !c.is_ascii_alphanumeric()).any(is_container_id)
        && !has_uid(text.as_bytes())
}

/// Whether a uid stands in it, as the kubelet writes it or as systemd does.
fn has_uid(text: &[u8]) -> bool {
    let is_of_uid = |at: usize, byte: u8| match at {
        8 | 13 | 18 | 23 => matches!(byte, b'-' | b'_'),
        _ => byte.is_ascii_hexdigit(),
    };
    text.windows(36).any(|uid| uid.iter().enumerate().all(|(at, byte)| is_of_uid(at, *byte)))
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
