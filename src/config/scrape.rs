//! What of the virtual clusters' own figures whoever scrapes them is shown, and how much of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::span::Span;
use crate::error::{Error, Kind, Result};

/// Prometheus waits ten seconds for a page as a rule.
const LONGEST: Duration = Duration::from_secs(60);
const MOST_FAMILIES: usize = 500;
const MOST_LABELS: usize = 8;
const MOST_BOUNDS: usize = 64;

/// Scraping of virtual clusters: `/portico/metrics` of each, `/fleet/metrics` of all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ScrapeConfig {
    /// Families of the API servers' metrics that are shown; a list of your own stands instead of the default one. Each is
    /// `counter`, `gauge` or `histogram`, then `by` and the labels that stay (series that differ in others are added up), then
    /// for histograms `at` and the bounds of the buckets that stay.
    #[schemars(with = "BTreeMap<String, String>")]
    pub families: BTreeMap<String, Family>,
    /// Series of one virtual cluster's API server, those of one family a quarter of them; what is beyond is left out and
    /// counted.
    pub max_series_per_tenant: usize,
    /// Bytes of one API server's series, as they are shown.
    pub max_bytes_per_tenant: usize,
    /// Pods of one virtual cluster whose use is shown, the first ones by name; what is beyond is counted.
    pub max_pods_per_tenant: usize,
    /// Whether the page of the whole fleet has the use of pods, too: lists of the host for each virtual cluster at each
    /// scrape. The page of a single one always has it.
    pub pods_in_fleet: bool,
    /// Bytes that an API server may send at one scrape. One that sends more is shown as down.
    pub max_body: usize,
    /// Bytes that results may take, of all virtual clusters together, and as many again Portico's own series of them. Beyond
    /// it a virtual cluster is shown without its API server's series, or without those.
    pub max_kept_bytes: usize,
    /// API servers asked at once; as many slow ones again, four times over, do not count.
    pub at_once: usize,
    /// Longest time for one API server's answer.
    pub deadline: Span,
    /// How long a result is shown again, whoever asks.
    pub fresh: Span,
}

/// One family, and what of it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// Its type.
    pub kind: FamilyKind,
    /// Labels that stay.
    pub by: Vec<String>,
    /// Upper bounds of a histogram's buckets that stay, rising; that of all is always there.
    pub at: Vec<f64>,
}

/// Type of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FamilyKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets, sum and count.
    Histogram,
}

/// Latencies as people ask for them: the rest of Kubernetes' twenty-three buckets costs more than it says.
const REQUEST: &str = "histogram by verb at 0.1, 0.4, 1, 5, 30";
const STORAGE: &str = "histogram by operation at 0.025, 0.1, 1";
const FAMILIES: [(&str, &str); 26] = [
    ("apiserver_current_inflight_requests", "gauge by request_kind"),
    ("apiserver_flowcontrol_rejected_requests_total", "counter by reason"),
    ("apiserver_longrunning_requests", "gauge by verb"),
    ("apiserver_request_duration_seconds", REQUEST),
    ("apiserver_request_terminations_total", "counter by code"),
    ("apiserver_request_total", "counter by verb, code"),
    ("apiserver_resource_objects", "gauge by group, resource"),
    ("apiserver_storage_objects", "gauge by resource"),
    ("apiserver_storage_size_bytes", "gauge"),
    ("etcd_request_duration_seconds", STORAGE),
    ("etcd_request_errors_total", "counter by operation"),
    ("etcd_requests_total", "counter by operation"),
    ("go_goroutines", "gauge"),
    ("kine_compact_total", "counter by result"),
    ("kine_insert_errors_total", "counter by retriable"),
    ("kine_sql_time_seconds", "histogram at 0.016, 0.128, 1.024"),
    ("kine_sql_total", "counter by error_code"),
    ("process_cpu_seconds_total", "counter"),
    ("process_open_fds", "gauge"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_start_time_seconds", "gauge"),
    ("workqueue_adds_total", "counter"),
    ("workqueue_depth", "gauge by name"),
    ("workqueue_queue_duration_seconds", "histogram at 0.1, 1, 10"),
    ("workqueue_retries_total", "counter"),
    ("workqueue_work_duration_seconds", "histogram at 0.1, 1, 10"),
];

impl Default for ScrapeConfig {
    fn default() -> Self {
        let families = FAMILIES.iter().filter_map(|(name, text)| Some(((*name).to_owned(), Family::parse(text)?)));
        Self {
            families: families.collect(),
            max_series_per_tenant: 500,
            max_bytes_per_tenant: 64 << 10,
            max_pods_per_tenant: 500,
            pods_in_fleet: false,
            // A control plane with some hundred CustomResourceDefinitions shows about ten megabytes.
            max_body: 32 << 20,
            max_kept_bytes: 64 << 20,
            at_once: 64,
            deadline: Span(Duration::from_secs(5)),
            fresh: Span(Duration::from_secs(5)),
        }
    }
}

impl ScrapeConfig {
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::client(Kind::Invalid, format!("gateway.scrape.{message}")));
        if self.families.len() > MOST_FAMILIES {
            return refuse(format!("families: at most {MOST_FAMILIES}"));
        }
        let (mut samples, mut heads) = (BTreeSet::new(), BTreeSet::new());
        for (name, family) in &self.families {
            if !is_name(name) || name.starts_with("portico_") {
                return refuse(format!("families: {name:?} is no name of an API server's family"));
            }
            if let Some(twice) = family.samples(name).into_iter().find(|sample| !samples.insert(sample.clone())) {
                return refuse(format!("families: {twice:?} would be of two families"));
            }
            if !heads.insert(family.in_open_metrics(name)) {
                return refuse(format!("families: {name:?} and another one are called the same in OpenMetrics"));
            }
        }
        for (bytes, key) in [
            (self.max_series_per_tenant, "maxSeriesPerTenant"),
            (self.max_bytes_per_tenant, "maxBytesPerTenant"),
            (self.max_body, "maxBody"),
            (self.at_once, "atOnce"),
        ] {
            if bytes == 0 {
                return refuse(format!("{key} must be at least 1"));
            }
        }
        // What is found in a text is kept by numbers of four bytes.
        if self.max_bytes_per_tenant > 64 << 20 {
            return refuse("maxBytesPerTenant must be at most 64 MiB".to_owned());
        }
        if self.deadline.0.is_zero() || self.deadline.0 > LONGEST || self.fresh.0 > LONGEST {
            return refuse("deadline must be more than 0s, and deadline and fresh at most 60s".to_owned());
        }
        Ok(())
    }
}

impl Family {
    /// Names of the samples that a family of this name has.
    pub fn samples(&self, name: &str) -> Vec<String> {
        match self.kind {
            FamilyKind::Counter | FamilyKind::Gauge => vec![name.to_owned()],
            FamilyKind::Histogram => ["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")).into(),
        }
    }

    /// What a family of this name is called in OpenMetrics, where counters have their ending in their samples alone.
    pub fn in_open_metrics<'a>(&self, name: &'a str) -> &'a str {
        let stem = name.strip_suffix("_total").filter(|_| self.kind == FamilyKind::Counter);
        stem.unwrap_or(name)
    }

    /// `TYPE [by LABEL, …] [at BOUND, …]`.
    fn parse(text: &str) -> Option<Self> {
        let (head, at) = text.split_once(" at ").map_or((text, None), |(head, at)| (head, Some(at)));
        let (kind, by) = head.split_once(" by ").map_or((head, None), |(kind, by)| (kind, Some(by)));
        let kind = match kind.trim() {
            "counter" => FamilyKind::Counter,
            "gauge" => FamilyKind::Gauge,
            "histogram" => FamilyKind::Histogram,
            _ => return None,
        };
        let words = |list: Option<&str>| -> Vec<String> {
            list.into_iter().flat_map(|list| list.split(',')).map(|word| word.trim().to_owned()).collect()
        };
        let by = words(by);
        // Of the series' own; and what labels of Portico's name are called instead.
        let taken = ["le", "quantile", "exported_namespace", "exported_virtualcluster"];
        let is_label = |label: &String| is_name(label) && !label.contains(':') && !taken.contains(&label.as_str());
        let is_unique = by.iter().collect::<BTreeSet<_>>().len() == by.len();
        if !by.iter().all(is_label) || !is_unique || by.len() > MOST_LABELS {
            return None;
        }
        let at: Option<Vec<f64>> = words(at).iter().map(|bound| bound.parse().ok()).collect();
        let at = at.filter(|at| at.iter().all(|bound| bound.is_finite()) && at.is_sorted_by(|a, b| a < b))?;
        let has_place = at.is_empty() || kind == FamilyKind::Histogram;
        (has_place && at.len() <= MOST_BOUNDS).then_some(Self { kind, by, at })
    }
}

impl FamilyKind {
    /// As Prometheus calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind.name())?;
        if !self.by.is_empty() {
            write!(f, " by {}", self.by.join(", "))?;
        }
        if !self.at.is_empty() {
            let bounds: Vec<String> = self.at.iter().map(ToString::to_string).collect();
            write!(f, " at {}", bounds.join(", "))?;
        }
        Ok(())
    }
}

impl Serialize for Family {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Family {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            let form = "write counter, gauge or histogram, then `by LABEL, …`, and for a histogram `at BOUND, …`";
            serde::de::Error::custom(format!("{text:?} is no family: {form}"))
        })
    }
}

fn is_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    !name.is_empty() && name.bytes().all(is_part) && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn families_are_written_as_they_are_read() {
        assert_eq!(ScrapeConfig::default().families.len(), FAMILIES.len());
        for (name, text) in FAMILIES {
            assert_eq!(Family::parse(text).map(|family| family.to_string()).as_deref(), Some(text), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_shown_is_refused() {
        let parse = |text: &str| Config::parse(&format!("gateway: {{scrape: {{{text}}}}}"));
        parse("families: {x_total: 'counter by a, b', y_seconds: 'histogram at 1, 2'}").expect("valid");
        parse("families: {}").expect("only Portico's own");
        parse("families: {x: counter, x_total: gauge}").expect("two names in either format");
        for family in [
            "summary",
            "counter by",
            "counter by le",
            "counter by a, a",
            "counter by namespace, exported_namespace",
            "counter by 1a",
            "counter by a b",
            "counter at 1",
            "histogram at 2, 1",
            "histogram at 1, 1",
            "histogram at +Inf",
            "histogram at NaN",
            "histogram at x",
            "counter by a,b,c,d,e,f,g,h,i",
        ] {
            assert!(parse(&format!("families: {{x: '{family}'}}")).is_err(), "{family}");
        }
        for wrong in [
            "families: {portico_x: gauge}",
            "families: {'a b': gauge}",
            "families: {x: histogram, x_count: counter}",
            "families: {x: gauge, x_total: counter}",
            "maxSeriesPerTenant: 0",
            "atOnce: 0",
            "deadline: 0s",
            "deadline: 2m",
            "fresh: 2m",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
