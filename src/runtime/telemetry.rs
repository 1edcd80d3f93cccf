//! Logs and metrics: how they leave the process.
//!
//! Owns the log set-up and the list of metric sources. A source is asked at every scrape and writes whole families from
//! its own live state, so that what belongs to a tenant vanishes with it. The label maps of the `prometheus` crate are
//! not used: they key by a hash of concatenated values, and ("ab", "c") would count as ("a", "bc").

use std::sync::Arc;

use parking_lot::RwLock;
use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{LogConfig, LogFormat};
use crate::error::{Error, Kind, Result};

/// `tracing` target of the access log: one event for each request.
pub const ACCESS: &str = "access";

/// Starts logging to standard error. Once per process.
pub fn init(config: &LogConfig) -> Result<()> {
    let directives = if config.access { config.filter.clone() } else { format!("{},{ACCESS}=off", config.filter) };
    let filter = EnvFilter::try_new(&directives).map_err(|e| {
        Error::client(Kind::Invalid, format!("log.filter {:?} cannot be read", config.filter)).because(e)
    })?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = match config.format {
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
        LogFormat::Text => registry.with(layer.compact()).try_init(),
    };
    started.map_err(|e| Error::own(Kind::Internal, "logging was started twice").because(e))
}

/// Something that has metrics to show.
pub trait Source: Send + Sync {
    /// Writes all families of this source as they are now.
    fn collect(&self, families: &mut Families);
}

/// Everything that `/metrics` shows.
#[derive(Clone, Default)]
pub struct Metrics {
    sources: Arc<RwLock<Vec<Arc<dyn Source>>>>,
}

/// What one scrape gathers. Names and help texts are constants; only label values vary.
#[derive(Debug, Default)]
pub struct Families {
    list: Vec<MetricFamily>,
}

/// One sample's labels, in the order in which they are shown.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

/// One histogram sample: cumulative counts below each bound, sum and count.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistogramSample {
    /// Upper bound and number of observations at or below it.
    pub buckets: Vec<(f64, u64)>,
    /// Sum of observations.
    pub sum: f64,
    /// Number of observations.
    pub count: u64,
}

impl Metrics {
    /// Adds a source for the life of the process.
    pub fn register(&self, source: Arc<dyn Source>) {
        self.sources.write().push(source);
    }

    /// The Prometheus text format.
    pub fn render(&self) -> Result<String> {
        let mut families = Families::default();
        let sources = self.sources.read().clone();
        for source in sources {
            source.collect(&mut families);
        }
        families.list.retain(|family| !family.get_metric().is_empty());
        families.list.sort_by(|a, b| a.name().cmp(b.name()));
        TextEncoder::new()
            .encode_to_string(&families.list)
            .map_err(|e| Error::own(Kind::Internal, "metrics cannot be written").because(e))
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").field("sources", &self.sources.read().len()).finish()
    }
}

impl Families {
    /// Adds one counter sample.
    pub fn counter(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>, value: u64) {
        let mut counter = Counter::default();
        counter.set_value(value as f64);
        let mut metric = labelled(labels);
        metric.set_counter(counter);
        self.push(name, help, MetricType::COUNTER, metric);
    }

    /// Adds one gauge sample.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>, value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = labelled(labels);
        metric.set_gauge(gauge);
        self.push(name, help, MetricType::GAUGE, metric);
    }

    /// Adds one histogram sample.
    pub fn histogram(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>, sample: &HistogramSample) {
        let mut histogram = Histogram::default();
        let buckets = sample.buckets.iter().map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(*count);
            bucket
        });
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_sum(sample.sum);
        histogram.set_sample_count(sample.count);
        let mut metric = labelled(labels);
        metric.set_histogram(histogram);
        self.push(name, help, MetricType::HISTOGRAM, metric);
    }

    fn push(&mut self, name: &'static str, help: &'static str, kind: MetricType, metric: Metric) {
        // families are few and a source writes each in one go: the last one is nearly always the right one
        if let Some(family) = self.list.iter_mut().rev().find(|family| family.name() == name) {
            family.mut_metric().push(metric);
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(vec![metric]);
        self.list.push(family);
    }
}

fn labelled(labels: Labels<'_>) -> Metric {
    let mut metric = Metric::default();
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    metric.set_label(pairs.collect());
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Two;

    impl Source for Two {
        fn collect(&self, families: &mut Families) {
            families.counter("portico_x_total", "Help.", &[("a", "ab"), ("b", "c")], 1);
            families.gauge("portico_y", "Help.", &[], 2.5);
            families.counter("portico_x_total", "Help.", &[("a", "a"), ("b", "bc")], 2);
            let sample = HistogramSample { buckets: vec![(0.1, 1), (1.0, 2)], sum: 0.6, count: 3 };
            families.histogram("portico_z_seconds", "Help.", &[("a", "q\"\n")], &sample);
        }
    }

    #[test]
    fn samples_with_alike_labels_stay_apart() {
        let metrics = Metrics::default();
        metrics.register(Arc::new(Two));
        let text = metrics.render().expect("rendered");
        assert!(text.contains("portico_x_total{a=\"ab\",b=\"c\"} 1"), "{text}");
        assert!(text.contains("portico_x_total{a=\"a\",b=\"bc\"} 2"), "{text}");
        assert_eq!(text.matches("# TYPE portico_x_total counter").count(), 1);
        assert!(text.contains("portico_z_seconds_bucket{a=\"q\\\"\\n\",le=\"+Inf\"} 3"), "{text}");
    }
}
