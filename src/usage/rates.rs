//! Counters of one kubelet (`/metrics/resource`) and what lies between two readings of them.
//!
//! Promises: a container that began anew, or whose counter went back, has no rate until there are two readings of it again;
//! of what a kubelet says no more is kept than a bound of containers. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::exposition::{Line, Sample};

/// Containers of one node: the kubelet's own default is 110 pods.
const MOST_CONTAINERS: usize = 1000;
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
    pods: BTreeMap<String, BTreeMap<String, BTreeMap<String, Point>>>,
    containers: usize,
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
        for (namespace, pods) in &mut self.pods {
            for (pod, containers) in pods {
                for (container, point) in containers {
                    if let Some(old) = before.pod(namespace, pod).and_then(|containers| containers.get(container)) {
                        point.since(old);
                    }
                }
            }
        }
    }

    /// The containers of a pod on the host.
    pub(super) fn pod(&self, namespace: &str, pod: &str) -> Option<&BTreeMap<String, Point>> {
        self.pods.get(namespace)?.get(pod)
    }

    fn container(&mut self, sample: &Sample<'_>) -> Option<&mut Point> {
        let name = |label| sample.labels.get(label).filter(|name| !name.is_empty() && name.len() <= LONGEST_NAME);
        let (namespace, pod, container) = (name("namespace")?, name("pod")?, name("container")?);
        let is_known = self.pod(&namespace, &pod).is_some_and(|containers| containers.contains_key(&*container));
        if !is_known {
            if self.containers >= MOST_CONTAINERS {
                return None;
            }
            self.containers += 1;
        }
        let pods = self.pods.entry(namespace.into_owned()).or_default();
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

    #[test]
    fn what_is_no_container_is_not_kept_and_no_more_than_there_may_be() {
        let line = |n: usize, pod: &str| {
            format!("container_memory_working_set_bytes{{container=\"c{n}\",namespace=\"n\",pod=\"{pod}\"}} 1")
        };
        let mut lines: Vec<String> = (0..2 * MOST_CONTAINERS).map(|n| line(n, "p")).collect();
        lines.push(line(1, ""));
        lines.push(line(1, &"p".repeat(254)));
        let reading = reading(&lines);
        assert_eq!((reading.containers, reading.pods["n"].len()), (MOST_CONTAINERS, 1));
    }
}
