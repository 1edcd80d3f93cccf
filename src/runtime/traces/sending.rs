//! What takes finished traces to the collector: one task, batches of bounded size, and patience of bounded length.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::post::{Collector, Taken};
use super::shared::{Counts, Finished};
use crate::config::TracingConfig;
use crate::error::Result;
use crate::runtime::task::{self, Task};

/// Spans of one batch: a trace more than it takes to reach it.
const BATCH: usize = 512;
/// How long the first of a batch waits for others.
const WAIT: Duration = Duration::from_secs(1);
/// A batch that may be sent again is, after these.
const AGAIN: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// For what is left at the end of the process.
const LAST: Duration = Duration::from_secs(5);

/// Takes traces to the collector. Nothing is sent before it runs.
#[derive(Debug)]
pub struct Sending {
    queue: mpsc::Receiver<Finished>,
    /// Taken out of the queue, and not sent yet.
    batch: Vec<Span>,
    collector: Collector,
    resource: Resource,
    counts: Arc<Counts>,
}

/// It runs.
#[derive(Debug)]
pub struct Sender {
    task: Task,
    stop: oneshot::Sender<()>,
}

impl Sending {
    pub(super) fn new(config: &TracingConfig, queue: mpsc::Receiver<Finished>, counts: Arc<Counts>) -> Result<Self> {
        let collector = Collector::new(config)?;
        let mut attributes = vec![said("service.name", "portico"), said("service.version", env!("CARGO_PKG_VERSION"))];
        let pod = ["POD_NAME", "HOSTNAME"].iter().find_map(|name| std::env::var(name).ok());
        attributes.extend(pod.map(|pod| said("service.instance.id", &pod)));
        let resource = Resource { attributes, ..Resource::default() };
        Ok(Self { queue, batch: Vec::new(), collector, resource, counts })
    }

    /// Runs until it is [closed](Sender::close).
    pub fn start(self) -> Sender {
        let (stop, stopped) = oneshot::channel();
        Sender { task: task::spawn("traces", self.run(stopped)), stop }
    }

    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        loop {
            tokio::select! {
                () = self.gather_and_send() => {}
                _ = &mut stopped => break,
            }
        }
        // What is there now, once.
        self.queue.close();
        while let Ok(Finished(spans)) = self.queue.try_recv() {
            self.batch.extend(spans);
        }
        if !self.batch.is_empty() {
            let taken = self.collector.post(self.encode()).await;
            self.sent(taken == Taken::Yes);
        }
    }

    /// What is dropped here at any await is in the batch still.
    async fn gather_and_send(&mut self) {
        if self.batch.is_empty() {
            let Some(Finished(spans)) = self.queue.recv().await else { return std::future::pending().await };
            self.batch = spans;
        }
        let until = Instant::now() + WAIT;
        while self.batch.len() < BATCH {
            match tokio::time::timeout_at(until, self.queue.recv()).await {
                Ok(Some(Finished(spans))) => self.batch.extend(spans),
                Ok(None) | Err(_) => break,
            }
        }
        let encoded = self.encode();
        for pause in AGAIN.into_iter().map(Some).chain([None]) {
            match (self.collector.post(encoded.clone()).await, pause) {
                (Taken::Later, Some(pause)) => tokio::time::sleep(pause).await,
                (taken, _) => return self.sent(taken == Taken::Yes),
            }
        }
    }

    fn sent(&mut self, is_taken: bool) {
        let spans = std::mem::take(&mut self.batch).len() as u64;
        let counter = if is_taken { &self.counts.sent } else { &self.counts.failed };
        counter.fetch_add(spans, Ordering::Relaxed);
    }

    /// As `ExportTraceServiceRequest`, whose form `TracesData` has.
    fn encode(&self) -> Bytes {
        let scope = InstrumentationScope { name: "portico".to_owned(), ..InstrumentationScope::default() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans: self.batch.clone(), ..ScopeSpans::default() }];
        let resource = Some(self.resource.clone());
        let data = TracesData { resource_spans: vec![ResourceSpans { resource, scope_spans, ..Default::default() }] };
        data.encode_to_vec().into()
    }
}

impl Sender {
    /// Sends what is left, as far as that can be done in some seconds.
    pub async fn close(self) {
        // Who has ended already needs not be told.
        let _ = self.stop.send(());
        if tokio::time::timeout(LAST, self.task.join()).await.is_err() {
            tracing::debug!("the last traces were not sent");
        }
    }
}

fn said(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}
