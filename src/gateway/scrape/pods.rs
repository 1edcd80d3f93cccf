//! What a tenant's pods use, under the names that they have inside.
//!
//! Promises: a pod is the tenant's by what is recorded on it; the first ones by name, as many as may be shown. Must not know
//! where figures come from.

use std::collections::BTreeMap;

use super::catalog::Head;
use super::lines::{FamilyLines, Labelled, line};
use crate::names::TenantId;
use crate::usage::{Placed, PodUsage, PodsUsage};

const FAMILIES: [(&str, &str); 3] = [
    ("portico_pod_cpu_cores", "CPU that a pod uses, mean over the last scrape of its node."),
    ("portico_pod_memory_bytes", "Memory of a pod: its working set."),
    ("portico_pods_left_out", "Pods whose use is not shown, since there are more than may be."),
];
/// As Prometheus calls the label of a series' own beside that of the page.
const NAMESPACE: &str = "exported_namespace";

pub(super) fn heads() -> impl Iterator<Item = Head> {
    let head = |(name, help): &(&str, &str)| Head {
        name: (*name).to_owned(),
        kind: "gauge".to_owned(),
        help: (*help).to_owned(),
    };
    FAMILIES.iter().map(head)
}

/// The lines of one tenant.
pub(super) fn lines(tenant: &TenantId, used: &PodsUsage, placed: &Placed, most: usize) -> FamilyLines {
    let known = used.iter().filter_map(|(name, usage)| Some((placed.get(name)?, usage)));
    let pods: BTreeMap<(&str, &str), &PodUsage> =
        known.map(|(pod, usage)| ((pod.namespace.as_str(), pod.name.as_str()), usage)).collect();
    let (labelled, mut lines) = (Labelled::new(tenant), FamilyLines::default());
    for (at, (family, _)) in FAMILIES.iter().enumerate() {
        lines.begin(at);
        let mut line =
            |labels: &[(&str, &str)], value| line(&mut lines.text, (family, ""), &labelled, b"", labels, value);
        if at == 2 {
            line(&[], pods.len().saturating_sub(most) as f64);
            continue;
        }
        for ((namespace, pod), usage) in pods.iter().take(most) {
            let containers = usage.containers.iter();
            let value = match at {
                0 => containers.map(|container| container.cpu_nanocores as f64).sum::<f64>() / 1e9,
                _ => containers.map(|container| container.memory_bytes as f64).sum(),
            };
            line(&[(NAMESPACE, namespace), ("pod", pod)], value);
        }
    }
    lines.begin(FAMILIES.len());
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::names::HostName;
    use crate::usage::{ContainerUsage, HostPod};

    fn name(text: &str) -> HostName {
        HostName::parse(text).expect("name")
    }

    #[test]
    fn pods_have_the_names_of_inside_and_those_of_others_are_not_there() {
        let container =
            |cpu_nanocores, memory_bytes| ContainerUsage { name: "c".to_owned(), cpu_nanocores, memory_bytes };
        let usage = |containers| PodUsage {
            node: "n".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            window: Duration::from_secs(10),
            containers,
        };
        let pod = |pod: &str| HostPod {
            node: "n".to_owned(),
            uid: "host-uid".to_owned(),
            namespace: "default".to_owned(),
            name: pod.to_owned(),
            virtual_uid: "u".to_owned(),
        };
        let used = PodsUsage::from([
            (name("web-x-default-x-vc"), usage(vec![container(250_000_000, 10), container(500_000_000, 5)])),
            (name("zoo-x-default-x-vc"), usage(vec![container(1, 1)])),
            (name("foreign"), usage(vec![container(1, 1)])),
        ]);
        let placed = Placed::from([(name("web-x-default-x-vc"), pod("web")), (name("zoo-x-default-x-vc"), pod("zoo"))]);
        let lines = lines(&TenantId::parse("team", "vc").expect("id"), &used, &placed, 1);
        let labels = "namespace=\"team\",virtualcluster=\"vc\"";
        let expected = format!(
            "portico_pod_cpu_cores{{{labels},exported_namespace=\"default\",pod=\"web\"}} 0.75\n\
             portico_pod_memory_bytes{{{labels},exported_namespace=\"default\",pod=\"web\"}} 15\n\
             portico_pods_left_out{{{labels}}} 1\n"
        );
        assert_eq!(String::from_utf8(lines.text).expect("text"), expected);
        assert_eq!(lines.ends.len(), FAMILIES.len());
    }
}
