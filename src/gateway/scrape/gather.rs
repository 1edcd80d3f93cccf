//! What is taken of one API server's page, line by line.
//!
//! Promises: series are kept under the labels that the configuration names, others added up, so what is kept is bounded by
//! its number and never by what is sent; a group of series is counted from its first sample to its last or not at all; no
//! name, type, help, timestamp, exemplar or further label of the page is kept. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use super::catalog::{Catalog, Part, Taken};
use super::lines::{self, FamilyLines, Labelled};
use crate::config::FamilyKind;
use crate::exposition::{Line, Sample, label};

/// A value of a label that is longer is nobody's verb, code or resource.
const LONGEST_VALUE: usize = 256;

/// One family has that part of a tenant's series at most: a quarter.
const OF_ONE_FAMILY: usize = 4;

/// One page under way.
#[derive(Debug)]
pub(super) struct Gathering {
    catalog: Arc<Catalog>,
    /// Series that may be kept.
    most: usize,
    series: usize,
    /// Of them by family: one that a tenant makes long, as it can those by resource, leaves room for the others.
    by_family: Vec<usize>,
    /// By family and labels as they are shown.
    groups: HashMap<Box<[u8]>, Box<[f64]>>,
    dropped: u64,
    key: Vec<u8>,
    /// Samples of a name stand together as a rule.
    last: (Vec<u8>, Option<(u16, Part)>),
}

/// The series of one API server.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) lines: FamilyLines,
    pub(super) series: usize,
    /// Samples that were left out.
    pub(super) dropped: u64,
}

impl Gathering {
    pub(super) fn new(catalog: &Arc<Catalog>, most: usize) -> Self {
        Self {
            catalog: Arc::clone(catalog),
            most,
            series: 0,
            by_family: vec![0; catalog.len()],
            groups: HashMap::new(),
            dropped: 0,
            key: Vec::new(),
            last: (Vec::new(), None),
        }
    }

    /// Takes what is wanted of a line.
    pub(super) fn line(&mut self, line: &[u8]) {
        let Some((at, part)) = self.wanted(line) else { return };
        let catalog = Arc::clone(&self.catalog);
        let taken = catalog.family(at);
        if let (Some(taken), Some(Line::Sample(sample))) = (taken, Line::parse(line)) {
            self.sample(at, taken, part, &sample);
        } else {
            self.dropped += 1;
        }
    }

    /// Lines that were not read.
    pub(super) fn drop_lines(&mut self, count: u64) {
        self.dropped += count;
    }

    /// What there is, in at most so many bytes.
    pub(super) fn finish(self, tenant: &Labelled, most_bytes: usize) -> Gathered {
        let mut groups: Vec<_> = self.groups.into_iter().collect();
        groups.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let mut gathered = Gathered { dropped: self.dropped, ..Gathered::default() };
        let mut lines = Vec::new();
        for (key, values) in groups {
            let Some((at, labels)) = key.split_first_chunk() else { continue };
            let at = u16::from_be_bytes(*at);
            let Some(taken) = self.catalog.family(at) else { continue };
            lines.clear();
            let count = write_group(&mut lines, taken, tenant, labels, &values);
            if gathered.lines.text.len() + lines.len() > most_bytes {
                gathered.dropped += count as u64;
                continue;
            }
            gathered.lines.begin(usize::from(at));
            gathered.lines.text.extend_from_slice(&lines);
            gathered.series += count;
        }
        gathered.lines.begin(self.catalog.len());
        gathered
    }

    fn wanted(&mut self, line: &[u8]) -> Option<(u16, Part)> {
        let end = line.iter().position(|byte| matches!(byte, b'{' | b' ' | b'\t'))?;
        let name = &line[..end];
        if self.last.0 != name {
            self.last.0.clear();
            self.last.0.extend_from_slice(name);
            self.last.1 = self.catalog.sample(name);
        }
        self.last.1
    }

    fn sample(&mut self, at: u16, taken: &Taken, part: Part, sample: &Sample<'_>) {
        let all = taken.family.at.len();
        let place = match part {
            Part::Value => 0,
            Part::Sum => all + 1,
            Part::Count => all + 2,
            Part::Bucket => {
                let bound = sample.labels.get("le").and_then(|bound| bound.parse().ok());
                let Some(place) = bound.and_then(|bound| taken.bucket(bound)) else { return };
                place
            }
        };
        let value = sample.number();
        if !value.is_finite() || !write_key(&mut self.key, at, taken, sample) {
            self.dropped += 1;
            return;
        }
        if let Some(values) = self.groups.get_mut(self.key.as_slice()) {
            if let Some(known) = values.get_mut(place) {
                *known = if known.is_nan() { value } else { *known + value };
            }
            return;
        }
        let width = taken.width();
        let Some(family) = self.by_family.get_mut(usize::from(at)) else { return };
        if self.series + width > self.most || *family + width > (self.most / OF_ONE_FAMILY).max(width) {
            self.dropped += 1;
            return;
        }
        *family += width;
        self.series += width;
        let mut values = vec![f64::NAN; width].into_boxed_slice();
        if let Some(new) = values.get_mut(place) {
            *new = value;
        }
        self.groups.insert(self.key.as_slice().into(), values);
    }
}

/// Family and labels; false when a value is none that is shown.
fn write_key(key: &mut Vec<u8>, at: u16, taken: &Taken, sample: &Sample<'_>) -> bool {
    key.clear();
    key.extend_from_slice(&at.to_be_bytes());
    for (name, shown) in &taken.labels {
        // Absent and empty are the same to Prometheus.
        let Some(value) = sample.labels.get(name).filter(|value| !value.is_empty()) else { continue };
        if value.len() > LONGEST_VALUE || value.chars().any(char::is_control) {
            return false;
        }
        key.push(b',');
        label(key, shown, &value);
    }
    true
}

/// The lines of one group, and how many they are.
fn write_group(out: &mut Vec<u8>, taken: &Taken, tenant: &Labelled, labels: &[u8], values: &[f64]) -> usize {
    let mut count = 0;
    let mut line = |suffix: &str, bound: Option<&str>, value: f64| {
        if value.is_nan() {
            return;
        }
        count += 1;
        let more = bound.map(|bound| ("le", bound));
        lines::line(out, (&taken.name, suffix), tenant, labels, more.as_slice(), value);
    };
    let bounds = &taken.family.at;
    let of = |at: usize| values.get(at).copied().unwrap_or(f64::NAN);
    if taken.family.kind != FamilyKind::Histogram {
        line("", None, of(0));
        return count;
    }
    // One of them stands for the other; without both it is no histogram.
    let (all, counted) = (of(bounds.len()), of(bounds.len() + 2));
    let (all, counted) = (if all.is_nan() { counted } else { all }, if counted.is_nan() { all } else { counted });
    if all.is_nan() {
        return 0;
    }
    for (at, bound) in bounds.iter().enumerate() {
        // With a point, as OpenMetrics has it, so that it is the same series in both forms.
        line("_bucket", Some(&format!("{bound:?}")), of(at));
    }
    line("_bucket", Some("+Inf"), all);
    line("_sum", None, of(bounds.len() + 1));
    line("_count", None, counted);
    count
}
