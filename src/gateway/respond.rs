//! Answers: the one body type, and the one function that makes an answer of an error.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::flag::Flag;
use super::reading::Piece;
use super::record::Record;
use super::scrape::page::Page;
use crate::error::status::Status;
use crate::error::{BoxError, Error, Kind, Side};
use crate::upstream::ResponseBody;

/// The body of every answer. Nothing is buffered; what passes is counted on the request's record, which lives as long.
#[derive(Debug, Default)]
pub struct Body {
    source: Source,
    record: Option<Arc<Record>>,
    end: Option<End>,
}

#[derive(Debug, Default)]
enum Source {
    #[default]
    Empty,
    Full(Option<Bytes>),
    Stream(ResponseBody),
    Upgraded(Incoming),
    /// Made as it is read.
    Page(Box<Page>),
    /// Ended early, in good order.
    Ended,
}

/// Ends a stream before its source does.
struct End {
    signal: Pin<Box<dyn Future<Output = ()> + Send>>,
    how: Ending,
    at_line_end: bool,
    /// The signal has come: until when the line may still end.
    over: Option<Pin<Box<Sleep>>>,
}

/// How an answer ends that is ended here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// In good order, behind a line: no client of a JSON stream reads half an event.
    BehindALine,
    /// In good order, wherever it is.
    Anywhere,
    /// Broken off: nobody takes what there is for the whole.
    BrokenOff,
}

/// How long a line may take to its end. A backend that never ends one keeps nothing open.
const REST_OF_A_LINE: Duration = Duration::from_secs(5);

impl Body {
    /// Nothing.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Known bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self { source: Source::Full(Some(bytes.into())), ..Self::default() }
    }

    /// Passed through from an API server; its trailers are not.
    pub fn stream(body: ResponseBody) -> Self {
        Self { source: Source::Stream(body), ..Self::default() }
    }

    /// Passed through from a connection of its own.
    pub fn incoming(body: Incoming) -> Self {
        Self { source: Source::Upgraded(body), ..Self::default() }
    }

    /// A page about virtual clusters.
    pub(super) fn page(page: Page) -> Self {
        Self { source: Source::Page(Box::new(page)), ..Self::default() }
    }

    /// Whether all of it is in memory: nothing of the backend waits for its reader.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.source, Source::Empty | Source::Full(_) | Source::Ended)
    }

    /// Ends the stream once `signal` resolves, however much its source has to say.
    #[must_use]
    pub(super) fn ends_on(mut self, signal: impl Future<Output = ()> + Send + 'static, how: Ending) -> Self {
        self.end = Some(End { signal: Box::pin(signal), how, at_line_end: true, over: None });
        self
    }

    /// Keeps the request's account open until the last byte.
    #[must_use]
    pub(super) fn accounted(mut self, record: Arc<Record>) -> Self {
        self.record = Some(record);
        self
    }

    fn finish(&mut self) -> Poll<Option<Result<Frame<Piece>, BoxError>>> {
        self.source = Source::Ended;
        self.end = None;
        Poll::Ready(None)
    }
}

impl HttpBody for Body {
    type Data = Piece;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, BoxError>>> {
        let this = self.get_mut();
        if let Some(how) = this.end.as_mut().and_then(|end| end.poll(context)) {
            if let Some(record) = &this.record {
                record.flag(Flag::Ended);
            }
            let finished = this.finish();
            if how == Ending::BrokenOff {
                return Poll::Ready(Some(Err("the right to this stream has ended".into())));
            }
            return finished;
        }
        loop {
            let polled = match &mut this.source {
                Source::Empty | Source::Ended => return Poll::Ready(None),
                Source::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
                Source::Page(page) => Poll::Ready(page.next_piece().map(|piece| Ok(Frame::data(piece)))),
                Source::Stream(body) => Pin::new(body).poll_frame(context),
                Source::Upgraded(body) => Pin::new(body).poll_frame(context),
            };
            let frame = ready!(polled);
            match frame {
                None => return this.finish(),
                Some(Err(error)) => {
                    if let Some(record) = &this.record {
                        record.flag(Flag::Cut);
                    }
                    return Poll::Ready(Some(Err(error.into())));
                }
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if let Some(end) = &mut this.end {
                        end.at_line_end = data.last() == Some(&b'\n');
                    }
                    let piece = match &this.record {
                        Some(record) => {
                            record.add_sent(data.len());
                            record.reading().hand(data)
                        }
                        None => Piece::loose(data),
                    };
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty | Source::Ended => true,
            Source::Full(bytes) => bytes.is_none(),
            Source::Page(_) => false,
            Source::Stream(body) => body.is_end_stream(),
            Source::Upgraded(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty | Source::Ended => SizeHint::with_exact(0),
            Source::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            _ if self.end.as_ref().is_some_and(|end| end.how != Ending::BrokenOff) => SizeHint::default(),
            Source::Page(_) => SizeHint::default(),
            Source::Stream(body) => body.size_hint(),
            Source::Upgraded(body) => body.size_hint(),
        }
    }
}

impl End {
    /// Whether it is over now, and how.
    fn poll(&mut self, context: &mut Context<'_>) -> Option<Ending> {
        if self.over.is_none() && self.signal.as_mut().poll(context).is_ready() {
            self.over = Some(Box::pin(tokio::time::sleep(REST_OF_A_LINE)));
        }
        let rest = self.over.as_mut()?;
        match self.how {
            Ending::BehindALine if !self.at_line_end => {
                rest.as_mut().poll(context).is_ready().then_some(Ending::BrokenOff)
            }
            how => Some(how),
        }
    }
}

impl std::fmt::Debug for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("End").field("how", &self.how).finish_non_exhaustive()
    }
}

/// Makes an answer of an error; the only place where that happens.
pub fn failure(error: &Error) -> Response<Body> {
    let mut response = status(&error.to_status());
    if let Some(warning) = hint(error) {
        response.headers_mut().insert(header::WARNING, warning);
    }
    response
}

/// client-go does not show the text of a 401, but every warning (RFC 9111 5.5 in its older form: `299 - "text"`).
fn hint(error: &Error) -> Option<HeaderValue> {
    let status = error.api_status().filter(|_| error.side() == Side::Client && error.kind() == Kind::Unauthorized)?;
    HeaderValue::try_from(format!("299 - {:?}", status.message)).ok()
}

/// A `metav1.Status` as an answer, with `Retry-After` where it says so.
pub fn status(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, status.to_json());
    let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if seconds > 0 {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Any JSON answer that is made here.
pub fn json(code: StatusCode, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(bytes));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// As an answer to HEAD: what GET would get, without the body. hyper leaves it out over h1 alone, and clients of h2 reset a
/// stream that has one.
pub(super) fn to_head(response: Response<Body>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
        head.headers.entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from(length));
    }
    Response::from_parts(head, Body::empty())
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn errors_become_statuses_with_retry_after() {
        let response = failure(&Error::backend(Kind::Unavailable, "the cluster's API server does not answer"));
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        let bytes = response.into_body().collect().await.expect("body").to_bytes();
        let status: Status = serde_json::from_slice(&bytes).expect("status");
        assert_eq!((status.code, status.reason.as_str()), (503, "ServiceUnavailable"));
    }
}
