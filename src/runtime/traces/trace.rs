//! One trace while it is made: its spans, of bounded number and size.

use std::sync::Arc;

use http::HeaderMap;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::parent::{self, Parent, TRACEPARENT, TRACESTATE};
use super::shared::{Finished, Inner};

/// Spans of one trace beside its root; what is beyond is not kept.
const MOST_PARTS: usize = 15;
/// Attributes of one span, and bytes of one value.
const MOST_ATTRIBUTES: usize = 20;
const LONGEST_VALUE: usize = 256;
/// Flags of a span (OTLP): sampled, and whether its parent is somebody else's is known; it is.
const SAMPLED: u32 = 0x01;
const PARENT_IS_KNOWN: u32 = 0x100;
const PARENT_IS_REMOTE: u32 = 0x200;

/// What is traced, until its end. Its parts end before it, or are not in it.
#[derive(Debug)]
pub struct Trace {
    inner: Arc<Inner>,
    id: [u8; 16],
    root: [u8; 8],
    /// Of the root.
    kind: SpanKind,
    parent: Option<Parent>,
    /// A moment, and what the calendar said then, in nanoseconds.
    moment: (Instant, u64),
    parts: Mutex<Vec<Span>>,
}

/// A part of a trace; it ends when this is dropped.
#[derive(Debug)]
pub struct Part {
    trace: Arc<Trace>,
    id: [u8; 8],
    name: &'static str,
    kind: SpanKind,
    began: Instant,
    attributes: Vec<KeyValue>,
    has_failed: bool,
}

/// How a trace's root ends.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Low in number: no names of objects.
    pub name: String,
    /// Cut where they are long.
    pub attributes: Vec<(&'static str, String)>,
    /// Whether we or who is behind us is at fault.
    pub has_failed: bool,
}

impl Trace {
    pub(super) fn new(inner: &Arc<Inner>, parent: Option<Parent>, kind: SpanKind) -> Self {
        let calendar = u64::try_from(inner.clock.now().as_nanosecond()).unwrap_or_default();
        Self {
            inner: Arc::clone(inner),
            id: parent.as_ref().map_or_else(|| random(inner), |parent| parent.trace),
            root: random(inner),
            kind,
            parent,
            moment: (inner.clock.instant(), calendar),
            parts: Mutex::default(),
        }
    }

    /// Begins a part that is done here.
    pub fn part(self: &Arc<Self>, name: &'static str) -> Part {
        self.begin(name, SpanKind::Internal)
    }

    /// Begins a part that another server does, and tells it by the headers of what it is asked. It has failed unless it answers.
    pub fn asked(self: &Arc<Self>, name: &'static str, headers: &mut HeaderMap) -> Part {
        let mut part = self.begin(name, SpanKind::Client);
        part.has_failed = true;
        if let Some(said) = parent::said(&self.id, &part.id) {
            headers.insert(TRACEPARENT, said);
        }
        match self.parent.as_ref().and_then(|parent| parent.state.clone()) {
            Some(state) => headers.insert(TRACESTATE, state),
            None => headers.remove(TRACESTATE),
        };
        part
    }

    /// A part that is over.
    pub fn past(self: &Arc<Self>, name: &'static str, began: Instant) {
        let mut part = self.part(name);
        part.began = began;
    }

    /// Ends it, and has it sent.
    pub fn finish(&self, began: Instant, outcome: &Outcome) {
        let attributes = outcome.attributes.iter().map(|(name, value)| attribute(name, value)).collect();
        let is_remote = if self.parent.is_some() { PARENT_IS_REMOTE } else { 0 };
        let root = Span {
            name: cut(&outcome.name).to_owned(),
            parent_span_id: self.parent.as_ref().map(|parent| parent.span.to_vec()).unwrap_or_default(),
            flags: SAMPLED | PARENT_IS_KNOWN | is_remote,
            ..self.span(self.root, self.kind, (began, self.inner.clock.instant()), attributes, outcome.has_failed)
        };
        let mut spans = std::mem::take(&mut *self.parts.lock());
        spans.push(root);
        self.inner.send(Finished(spans));
    }

    fn begin(self: &Arc<Self>, name: &'static str, kind: SpanKind) -> Part {
        let id = random(&self.inner);
        let (trace, began) = (Arc::clone(self), self.inner.clock.instant());
        Part { trace, id, name, kind, began, attributes: Vec::new(), has_failed: false }
    }

    fn span(
        &self,
        id: [u8; 8],
        kind: SpanKind,
        (began, ended): (Instant, Instant),
        attributes: Vec<KeyValue>,
        has_failed: bool,
    ) -> Span {
        let code = if has_failed { StatusCode::Error } else { StatusCode::Unset };
        let state = self.parent.as_ref().and_then(|parent| parent.state.as_ref()?.to_str().ok());
        Span {
            trace_id: self.id.to_vec(),
            span_id: id.to_vec(),
            trace_state: state.unwrap_or_default().to_owned(),
            parent_span_id: self.root.to_vec(),
            flags: SAMPLED | PARENT_IS_KNOWN,
            kind: kind.into(),
            start_time_unix_nano: self.at(began),
            end_time_unix_nano: self.at(ended),
            attributes: attributes.into_iter().take(MOST_ATTRIBUTES).collect(),
            status: Some(Status { message: String::new(), code: code.into() }),
            ..Span::default()
        }
    }

    /// A moment in the calendar's nanoseconds.
    fn at(&self, moment: Instant) -> u64 {
        let (known, calendar) = self.moment;
        let nanos = |span: std::time::Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        match moment.checked_duration_since(known) {
            Some(after) => calendar.saturating_add(nanos(after)),
            None => calendar.saturating_sub(nanos(known.saturating_duration_since(moment))),
        }
    }
}

impl Part {
    /// Adds what is known of it by now.
    pub fn says(&mut self, name: &'static str, value: &str) {
        self.attributes.push(attribute(name, value));
    }

    /// What a server said; a fault where it is the server's.
    pub fn answered(&mut self, status: http::StatusCode) {
        self.says("http.response.status_code", status.as_str());
        self.has_failed = status.is_server_error();
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let attributes = std::mem::take(&mut self.attributes);
        let times = (self.began, self.trace.inner.clock.instant());
        let mut span = self.trace.span(self.id, self.kind, times, attributes, self.has_failed);
        span.name = self.name.to_owned();
        let mut parts = self.trace.parts.lock();
        if parts.len() < MOST_PARTS {
            parts.push(span);
        }
    }
}

fn attribute(name: &'static str, value: &str) -> KeyValue {
    let value = Value::StringValue(cut(value).to_owned());
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn cut(value: &str) -> &str {
    value.get(..value.floor_char_boundary(LONGEST_VALUE)).unwrap_or_default()
}

/// Not all zero: that would be none.
fn random<const N: usize>(inner: &Inner) -> [u8; N] {
    let mut id = [1; N];
    id.iter_mut().zip(inner.clock.random_bytes(N)).for_each(|(to, from)| *to = from);
    if id == [0; N] { [1; N] } else { id }
}
