//! How figures are written: the objects of metrics-server, field by field.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

use super::discovery::API_VERSION;
use super::listed::{LONGEST_ANSWER, Metadata};
use crate::error::{Error, Kind, Result, Side};
use crate::gateway::buffer::{Failure, Share, Written};

/// `PodMetrics`, without containers a `NodeMetrics`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metrics<'a> {
    /// In a list there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) api_version: Option<&'static str>,
    metadata: Named<'a>,
    timestamp: String,
    window: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    containers: Option<Vec<Container<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Amounts>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Named<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    creation_timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a serde_json::value::RawValue>,
}

#[derive(Debug, Serialize)]
pub(super) struct Container<'a> {
    pub(super) name: &'a str,
    pub(super) usage: Amounts,
}

#[derive(Debug, Serialize)]
pub(super) struct Amounts {
    cpu: String,
    memory: String,
}

/// When it was measured, and over how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    pub(super) at: Timestamp,
    pub(super) window: Duration,
    /// When it is written.
    pub(super) now: Timestamp,
}

impl Amounts {
    pub(super) fn new(nanocores: u64, bytes: u64) -> Self {
        let cpu = if nanocores == 0 { "0".to_owned() } else { format!("{nanocores}n") };
        let memory = match bytes {
            0 => "0".to_owned(),
            whole if whole.is_multiple_of(1024) => format!("{}Ki", whole / 1024),
            bytes => bytes.to_string(),
        };
        Self { cpu, memory }
    }
}

impl<'a> Metrics<'a> {
    pub(super) fn of_pod(of: &'a Metadata<'a>, measured: Measured, containers: Vec<Container<'a>>) -> Self {
        Self { containers: Some(containers), ..Self::of(of, measured) }
    }

    pub(super) fn of_node(of: &'a Metadata<'a>, measured: Measured, usage: Amounts) -> Self {
        Self { usage: Some(usage), ..Self::of(of, measured) }
    }

    fn of(of: &'a Metadata<'a>, measured: Measured) -> Self {
        let metadata = Named {
            name: &of.name,
            namespace: &of.namespace,
            creation_timestamp: seconds(measured.now),
            labels: of.labels.filter(|labels| labels.get() != "null"),
        };
        let (timestamp, window) = (seconds(measured.at), duration(measured.window));
        Self { kind: None, api_version: None, metadata, timestamp, window, containers: None, usage: None }
    }
}

/// A list under construction.
pub(super) struct List {
    written: Written,
    is_empty: bool,
}

impl List {
    pub(super) fn new(kind: &str, buffers: &Arc<Share>) -> Result<Self> {
        let mut list = Self { written: Written::new(LONGEST_ANSWER, buffers), is_empty: true };
        let head = format!(r#"{{"kind":"{kind}","apiVersion":"{API_VERSION}","metadata":{{}},"items":["#);
        list.push(head.as_bytes())?;
        Ok(list)
    }

    pub(super) fn add(&mut self, metrics: &Metrics<'_>) -> Result<()> {
        if !std::mem::take(&mut self.is_empty) {
            self.push(b",")?;
        }
        self.push(&json(metrics)?)
    }

    pub(super) fn done(mut self) -> Result<Bytes> {
        self.push(b"]}")?;
        Ok(self.written.into_bytes())
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.written.add(bytes).map_err(|failure| match failure {
            Failure::TooLong(_) => {
                Error::client(Kind::TooLarge, "there are more figures than one answer has: name a namespace")
            }
            failure => failure.of(Side::Own),
        })
    }
}

/// One object by itself.
pub(super) fn object(metrics: Metrics<'_>, kind: &'static str) -> Result<Bytes> {
    json(&Metrics { kind: Some(kind), api_version: Some(API_VERSION), ..metrics }).map(Bytes::from)
}

fn json(metrics: &Metrics<'_>) -> Result<Vec<u8>> {
    serde_json::to_vec(metrics).map_err(|e| Error::own(Kind::Internal, "figures cannot be written").because(e))
}

/// `metav1.Time` has whole seconds.
fn seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

/// As Go reads a duration.
fn duration(window: Duration) -> String {
    match window.subsec_millis() {
        0 => format!("{}s", window.as_secs()),
        millis => format!("{}.{millis:03}s", window.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::buffer::Budget;

    #[test]
    fn more_than_one_answer_has_is_413() {
        let share = Share::of(Arc::new(Budget::new(64 << 20)), Arc::default());
        let labels = format!("{{\"a\":\"{}\"}}", "x".repeat(3 << 20));
        let labels = serde_json::value::RawValue::from_string(labels).expect("labels");
        let of = Metadata { name: "web".into(), labels: Some(&labels), ..Metadata::default() };
        let measured = Measured { at: Timestamp::UNIX_EPOCH, window: Duration::ZERO, now: Timestamp::UNIX_EPOCH };
        let mut list = List::new("PodMetricsList", &share).expect("begun");
        let mut add = || list.add(&Metrics::of_node(&of, measured, Amounts::new(0, 0)));
        assert!(add().is_ok() && add().is_ok());
        assert_eq!(add().expect_err("too long").to_status().code, 413);
    }

    #[test]
    fn amounts_are_quantities() {
        let text = |cpu, memory| serde_json::to_string(&Amounts::new(cpu, memory)).expect("json");
        assert_eq!(text(0, 0), r#"{"cpu":"0","memory":"0"}"#);
        assert_eq!(text(1_234_567, 4096), r#"{"cpu":"1234567n","memory":"4Ki"}"#);
        assert_eq!(text(u64::MAX, 4097), r#"{"cpu":"18446744073709551615n","memory":"4097"}"#);
        assert_eq!(duration(Duration::from_millis(15_020)), "15.020s");
        assert_eq!(duration(Duration::from_secs(90)), "90s");
        let at: Timestamp = "2026-01-02T03:04:05.678Z".parse().expect("a time");
        assert_eq!(seconds(at), "2026-01-02T03:04:05Z");
    }
}
