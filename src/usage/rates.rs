//! Counters of one kubelet (`/metrics/resource`) and what lies between two readings of them.
//!
//! Promises: a container that began anew, or whose counter went back, has no rate until there are two readings of it again;
//! of what a kubelet says no more is kept than a bound of bytes, and of one pod and one namespace so little that others have
//! theirs. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::exposition::{Line, Sample};

/// Containers of one pod.
const MOST_OF_A_POD: usize = 64;
/// Bytes of one node, and of one namespace there: some thousand containers. The kubelet's own default is 110 pods.
const MOST_BYTES: usize = 1 << 20;
const MOST_BYTES_OF_A_NAMESPACE: usize = 256 << 10;
/// Of one container, beside its names.
const ENTRY: usize = 160;
/// Longer names are none of Kubernetes'.
const LONGEST_NAME: usize = 253;
/// A window is not longer: before it, nobody asked.
const LONGEST_WINDOW: Duration = Duration::from_secs(300);

/// One reading.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The node as a whole.
    pub(super) node: Point,
    /// By namespace and name of the pod on the host, then by container.
    namespaces: BTreeMap<String, Namespace>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Namespace {
    pods: BTreeMap<String, BTreeMap<String, Point>>,
    bytes: usize,
}

/// Counters of one container or node.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Point {
    cpu_seconds: Option<f64>,
    milliseconds: i64,
    began: f64,
    pub(super) memory_bytes: Option<u64>,
    rate: Option<Rate>,
}

/// CPU over a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) nanocores: u64,
    pub(super) window: Duration,
}

impl Reading {
    /// Takes one line; `now` is the time of samples that say none.
    pub(super) fn line(&mut self, line: &[u8], now: Timestamp) {
        let Some(Line::Sample(sample)) = Line::parse(line) else { return };
        let take: fn(&mut Point, &Sample<'_>, i64) = match sample.name {
            "node_cpu_usage_seconds_total" | "container_cpu_usage_seconds_total" => Point::cpu,
            "node_memory_working_set_bytes" | "container_memory_working_set_bytes" => Point::memory,
            "container_start_time_seconds" => |point, sample, _| point.began = sample.number(),
            _ => return,
        };
        let time = sample.timestamp.and_then(|text| text.parse().ok()).unwrap_or_else(|| now.as_millisecond());
        if sample.name.starts_with("node_") {
            take(&mut self.node, &sample, time);
        } else if let Some(point) = self.container(&sample) {
            take(point, &sample, time);
        }
    }

    /// Works out rates since `before`, another reading of the same kubelet.
    pub(super) fn since(&mut self, before: Option<&Self>) {
        let Some(before) = before else { return };
        self.node.since(&before.node);
        for (name, namespace) in &mut self.namespaces {
            for (pod, containers) in &mut namespace.pods {
                for (container, point) in containers {
                    if let Some(old) = before.pod(name, pod).and_then(|containers| containers.get(container)) {
                        point.since(old);
                    }
                }
            }
        }
    }

    /// The containers of a pod on the host.
    pub(super) fn pod(&self, namespace: &str, pod: &str) -> Option<&BTreeMap<String, Point>> {
        self.namespaces.get(namespace)?.pods.get(pod)
    }

    fn container(&mut self, sample: &Sample<'_>) -> Option<&mut Point> {
        let name = |label| sample.labels.get(label).filter(|name| !name.is_empty() && name.len() <= LONGEST_NAME);
        let (namespace, pod, container) = (name("namespace")?, name("pod")?, name("container")?);
        let of_the_pod = self.pod(&namespace, &pod);
        if !of_the_pod.is_some_and(|containers| containers.contains_key(&*container)) {
            let bytes = namespace.len() + pod.len() + container.len() + ENTRY;
            let of_the_namespace = self.namespaces.get(&*namespace).map_or(0, |namespace| namespace.bytes);
            if of_the_pod.map_or(0, BTreeMap::len) >= MOST_OF_A_POD
                || of_the_namespace + bytes > MOST_BYTES_OF_A_NAMESPACE
                || self.bytes + bytes > MOST_BYTES
            {
                return None;
            }
            self.bytes += bytes;
            self.namespaces.entry(namespace.clone().into_owned()).or_default().bytes += bytes;
        }
        let pods = &mut self.namespaces.get_mut(&*namespace)?.pods;
        Some(pods.entry(pod.into_owned()).or_default().entry(container.into_owned()).or_default())
    }
}

impl Point {
    /// CPU and memory, where both are known.
    pub(super) fn usage(&self) -> Option<(Rate, u64)> {
        Some((self.rate?, self.memory_bytes?))
    }

    /// When it was.
    pub(super) fn at(&self) -> Timestamp {
        Timestamp::from_millisecond(self.milliseconds).unwrap_or_default()
    }

    fn cpu(&mut self, sample: &Sample<'_>, milliseconds: i64) {
        self.cpu_seconds = Some(sample.number()).filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
        self.milliseconds = milliseconds;
    }

    fn memory(&mut self, sample: &Sample<'_>, _milliseconds: i64) {
        let bytes = sample.number();
        self.memory_bytes = (bytes.is_finite() && bytes >= 0.0).then_some(bytes as u64);
    }

    fn since(&mut self, old: &Self) {
        let (Some(now), Some(then)) = (self.cpu_seconds, old.cpu_seconds) else { return };
        let is_the_same = self.began.to_bits() == old.began.to_bits() && now >= then;
        let passed = self.milliseconds.saturating_sub(old.milliseconds);
        if !is_the_same || passed < 0 {
            return;
        }
        if passed == 0 {
            // The kubelet itself looks only now and then.
            self.rate = old.rate;
            return;
        }
        let window = Duration::from_millis(passed.unsigned_abs());
        let nanocores = (now - then) / window.as_secs_f64() * 1e9;
        self.rate = (window <= LONGEST_WINDOW).then_some(Rate { nanocores: nanocores as u64, window });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: &str = r#"container="c",namespace="team",pod="web""#;

    fn reading(lines: &[String]) -> Reading {
        let mut reading = Reading::default();
        for line in lines {
            reading.line(line.as_bytes(), Timestamp::UNIX_EPOCH);
        }
        reading
    }

    fn at(seconds: i64, cpu: f64, began: f64) -> Reading {
        let time = seconds * 1000;
        reading(&[
            format!("container_cpu_usage_seconds_total{{{LABELS}}} {cpu} {time}"),
            format!("container_memory_working_set_bytes{{{LABELS}}} 4096 {time}"),
            format!("container_start_time_seconds{{{LABELS}}} {began}"),
            format!("node_cpu_usage_seconds_total {cpu} {time}"),
            "node_memory_working_set_bytes 8192".to_owned(),
            "pod_cpu_usage_seconds_total{namespace=\"team\",pod=\"web\"} 9 1".to_owned(),
            "garbage{".to_owned(),
        ])
    }

    fn rate(before: Option<&Reading>, mut now: Reading) -> (Option<(Rate, u64)>, Reading) {
        now.since(before);
        (now.pod("team", "web").expect("the pod")["c"].usage(), now)
    }

    #[test]
    fn a_rate_lies_between_two_readings() {
        let (none, first) = rate(None, at(100, 1.0, 5.0));
        assert_eq!(none, None, "nothing to compare with");
        let (some, second) = rate(Some(&first), at(120, 6.0, 5.0));
        let expected = Rate { nanocores: 250_000_000, window: Duration::from_secs(20) };
        assert_eq!(some, Some((expected, 4096)));
        assert_eq!(second.node.usage(), Some((expected, 8192)));
        let (same, third) = rate(Some(&second), at(120, 6.0, 5.0));
        assert_eq!(same, some, "the kubelet did not look again");
        for (what, next) in [("anew", at(140, 7.0, 6.0)), ("back", at(140, 1.0, 5.0)), ("long", at(1000, 9.0, 5.0))] {
            assert_eq!(rate(Some(&third), next).0, None, "{what}");
        }
    }

    fn memory(namespace: &str, pod: &str, container: &str) -> String {
        format!(
            "container_memory_working_set_bytes{{container=\"{container}\",namespace=\"{namespace}\",pod=\"{pod}\"}} 1"
        )
    }

    #[test]
    fn what_is_no_container_is_not_kept() {
        let reading = reading(&[memory("n", "", "c"), memory("n", &"p".repeat(254), "c"), memory("n", "p", "c")]);
        assert_eq!((reading.namespaces.len(), reading.namespaces["n"].pods.len()), (1, 1));
    }

    #[test]
    fn no_tenants_pods_take_the_room_of_anothers() {
        let long = |n: usize| format!("{n:0>63}");
        let mut lines = Vec::new();
        for pod in 0..4 {
            lines.extend((0..1000).map(|n| memory("team", &format!("hostile-{pod}"), &long(n))));
        }
        lines.push(memory("team", "web", "main"));
        lines.extend((0..1000).map(|n| memory("hostile", &long(n), "c")));
        lines.push(memory("other", "web", "main"));
        let kept = reading(&lines);
        let team = |pod: &str| kept.pod("team", pod).map(BTreeMap::len);
        assert_eq!(
            (team("hostile-0"), team("hostile-3"), team("web")),
            (Some(MOST_OF_A_POD), Some(MOST_OF_A_POD), Some(1))
        );
        assert!(kept.pod("other", "web").is_some());
        let all = (0..5).flat_map(|space| (0..1000).map(move |n| memory(&format!("n{space}"), &long(n), "c")));
        let kept = reading(&all.collect::<Vec<_>>());
        assert!((MOST_BYTES - 1024..=MOST_BYTES).contains(&kept.bytes), "{}", kept.bytes);
        assert_eq!(kept.namespaces.values().map(|namespace| namespace.bytes).sum::<usize>(), kept.bytes);
    }
}
