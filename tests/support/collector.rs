//! A collector of traces: what it was sent, span by span, and answers as a test wants them.
#![allow(dead_code, unreachable_pub, clippy::expect_used)]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{Span, TracesData};
use parking_lot::Mutex;
use portico::config::TracingConfig;
use portico::runtime::clock::Clock;
use portico::runtime::task::{self, Task};
use portico::runtime::traces::{Sender, Traces};
use prost::Message as _;
use tokio::net::TcpListener;

/// A running one.
pub struct Collector {
    pub traces: Traces,
    spans: Arc<Mutex<Vec<Span>>>,
    headers: Arc<Mutex<HeaderMap>>,
    /// How it answers; `None`: never.
    pub code: Arc<Mutex<Option<u16>>>,
    sender: Sender,
    _server: Task,
}

impl Collector {
    /// With what is traced to it; `change` to every request is traced.
    pub async fn start(change: impl FnOnce(&mut TracingConfig)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}/v1/traces", listener.local_addr().expect("address"));
        let mut config = TracingConfig {
            endpoint,
            sampling_rate_per_million: 1_000_000,
            max_traces_per_second: 1000,
            max_traces_per_second_per_tenant: 1000,
            ..TracingConfig::default()
        };
        change(&mut config);
        let (spans, headers) = (Arc::<Mutex<Vec<Span>>>::default(), Arc::<Mutex<HeaderMap>>::default());
        let code = Arc::new(Mutex::new(Some(200)));
        let (all, last, answer) = (Arc::clone(&spans), Arc::clone(&headers), Arc::clone(&code));
        let server = task::spawn("collector", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (all, last, answer) = (Arc::clone(&all), Arc::clone(&last), Arc::clone(&answer));
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let (all, last, code) = (Arc::clone(&all), Arc::clone(&last), *answer.lock());
                    async move {
                        *last.lock() = request.headers().clone();
                        let body = request.into_body().collect().await.expect("a body").to_bytes();
                        let Some(code) = code else { return std::future::pending().await };
                        if code == 200 {
                            let data = TracesData::decode(body).expect("OTLP");
                            let scopes = data.resource_spans.into_iter().flat_map(|of| of.scope_spans);
                            all.lock().extend(scopes.flat_map(|scope| scope.spans));
                        }
                        let mut response = Response::new(Full::new(Bytes::new()));
                        *response.status_mut() = StatusCode::from_u16(code).expect("a code");
                        Ok::<_, Infallible>(response)
                    }
                });
                let serving =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                task::spawn("collector's connection", async move { drop(serving.await) }).ends_by_itself();
            }
        });
        let (traces, sending) = Traces::new(&config, Clock::system()).expect("traces");
        let sender = sending.expect("on").start();
        Self { traces, spans, headers, code, sender, _server: server }
    }

    /// Spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().clone()
    }

    /// Headers of the last batch.
    pub fn header(&self, name: &str) -> Option<String> {
        Some(self.headers.lock().get(name)?.to_str().ok()?.to_owned())
    }

    /// Waits for a trace whose root is called so: its root and its parts, by their begin.
    pub async fn trace(&self, root: &str) -> (Span, Vec<Span>) {
        let found = async {
            loop {
                let all = self.spans();
                if let Some(root) = all.iter().find(|span| span.name == root) {
                    let mut parts: Vec<Span> =
                        all.iter().filter(|span| span.parent_span_id == root.span_id).cloned().collect();
                    parts.sort_by_key(|span| span.start_time_unix_nano);
                    return (root.clone(), parts);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), found).await.expect("a trace in time")
    }

    /// As a process ends.
    pub async fn close(self) -> Vec<Span> {
        self.sender.close().await;
        self.spans.lock().clone()
    }
}

/// What a span says.
pub fn says<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    let value = span.attributes.iter().find(|attribute| attribute.key == name)?.value.as_ref()?;
    match value.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}
