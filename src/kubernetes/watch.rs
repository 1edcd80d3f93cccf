//! One watch: lines of JSON from an API server, one event at a time, nothing buffered beyond the current line.

use std::borrow::Cow;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::status::Status;
use crate::error::{Error, Kind, Result, Side};
use crate::kubernetes::client::AnswerBody;

/// etcd's own limit for an object is 1.5 MiB; JSON with managed fields may be larger than what is stored.
const MAX_LINE: usize = 8 << 20;

/// One line of a watch, still unparsed: the syncer projects it as it parses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// ADDED or MODIFIED: the whole object's JSON.
    Applied(Bytes),
    /// DELETED: the last known object's JSON.
    Deleted(Bytes),
    /// BOOKMARK: only a resourceVersion (and whether it ends the initial list of `sendInitialEvents`).
    Bookmark {
        /// Where to go on from.
        resource_version: String,
        /// `k8s.io/initial-events-end` was annotated.
        initial_events_end: bool,
    },
}

/// A running watch; dropped means cancelled.
#[derive(Debug)]
pub struct WatchStream {
    body: AnswerBody,
    side: Side,
    idle: Duration,
    lines: Lines,
}

impl WatchStream {
    /// Reads a watch answer; `idle` without a byte ends it, since the server should have ended it before.
    pub(super) fn new(body: AnswerBody, side: Side, idle: Duration) -> Self {
        Self { body, side, idle, lines: Lines::default() }
    }

    /// The next event; `Ok(None)` when the server ended the watch in good order. An ERROR event becomes an `Err`
    /// whose kind is [`crate::error::Kind::Gone`] for 410 (list again).
    pub async fn next(&mut self) -> Result<Option<WatchEvent>> {
        loop {
            while let Some(line) = self.lines.take(self.side)? {
                if !line.trim_ascii().is_empty() {
                    return parse(&line, self.side).map(Some);
                }
            }
            let Ok(frame) = tokio::time::timeout(self.idle, self.body.frame()).await else {
                tracing::debug!(side = ?self.side, "a watch was silent past its own end");
                return Ok(None);
            };
            match frame {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.lines.add(data);
                    }
                }
                Some(Err(error)) => {
                    return Err(Error::new(self.side, Kind::Closed, "a watch broke off").because(error));
                }
                None if self.lines.is_empty() => return Ok(None),
                None => return Err(Error::new(self.side, Kind::Closed, "a watch ended within an event")),
            }
        }
    }
}

/// Cuts a byte stream into lines without copying those that arrive whole.
#[derive(Debug, Default)]
struct Lines {
    /// Beginning of a line whose end has not come.
    begun: BytesMut,
    /// What arrived and is not looked at yet.
    rest: Bytes,
}

impl Lines {
    fn add(&mut self, data: Bytes) {
        debug_assert!(self.rest.is_empty(), "all lines are taken before more is read");
        self.rest = data;
    }

    fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.rest.is_empty()
    }

    fn take(&mut self, side: Side) -> Result<Option<Bytes>> {
        let end = self.rest.iter().position(|b| *b == b'\n');
        let length = end.map_or(self.rest.len(), |at| at + 1);
        if self.begun.len() + length > MAX_LINE {
            return Err(Error::new(side, Kind::TooLarge, "a watch event is larger than 8 MiB"));
        }
        let piece = self.rest.split_to(length);
        if end.is_some() && self.begun.is_empty() {
            return Ok(Some(piece));
        }
        self.begun.extend_from_slice(&piece);
        Ok(end.map(|_| self.begun.split().freeze()))
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct BookmarkMeta {
    resource_version: String,
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: BookmarkMeta,
}

fn parse(line: &Bytes, side: Side) -> Result<WatchEvent> {
    let broken = |e: serde_json::Error| Error::new(side, Kind::Protocol, "a watch event is not readable").because(e);
    let event: Line<'_> = serde_json::from_slice(line).map_err(broken)?;
    let object = || line.slice_ref(event.object.get().as_bytes());
    match event.kind.as_ref() {
        "ADDED" | "MODIFIED" => Ok(WatchEvent::Applied(object())),
        "DELETED" => Ok(WatchEvent::Deleted(object())),
        "BOOKMARK" => {
            let Bookmark { metadata } = serde_json::from_str(event.object.get()).map_err(broken)?;
            Ok(WatchEvent::Bookmark {
                initial_events_end: metadata.annotations.get("k8s.io/initial-events-end").is_some_and(|v| v == "true"),
                resource_version: metadata.resource_version,
            })
        }
        "ERROR" => {
            let status: Status = serde_json::from_str(event.object.get()).map_err(broken)?;
            Err(Error::from_status(side, status))
        }
        other => Err(Error::new(side, Kind::Protocol, format!("a watch event has the unknown type {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &'static str) -> Result<WatchEvent> {
        parse(&Bytes::from_static(text.as_bytes()), Side::Backend)
    }

    #[test]
    fn events_keep_the_object_as_it_came() {
        let event = line(r#"{"type":"ADDED","object":{"metadata":{"name":"a"},  "x":1}}"#).expect("event");
        assert_eq!(event, WatchEvent::Applied(Bytes::from_static(br#"{"metadata":{"name":"a"},  "x":1}"#)));
        let event = line(r#"{"object":{"a":2},"type":"DELETED"}"#).expect("event");
        assert_eq!(event, WatchEvent::Deleted(Bytes::from_static(br#"{"a":2}"#)));
    }

    #[test]
    fn bookmarks_tell_the_end_of_the_initial_list() {
        let text = r#"{"type":"BOOKMARK","object":{"kind":"Pod","metadata":{"resourceVersion":"9",
            "annotations":{"k8s.io/initial-events-end":"true"}}}}"#;
        let expected = WatchEvent::Bookmark { resource_version: "9".to_owned(), initial_events_end: true };
        assert_eq!(line(text).expect("event"), expected);
    }

    #[test]
    fn an_expired_version_is_gone() {
        let text = r#"{"type":"ERROR","object":{"kind":"Status","status":"Failure","reason":"Expired","code":410}}"#;
        assert_eq!(line(text).expect_err("error").kind(), Kind::Gone);
    }

    #[test]
    fn lines_may_be_cut_anywhere() {
        let whole = b"{\"a\":1}\n{\"b\":2}\n";
        for cut in 0..whole.len() {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            for part in [&whole[..cut], &whole[cut..]] {
                lines.add(Bytes::copy_from_slice(part));
                while let Some(line) = lines.take(Side::Host).expect("short") {
                    seen.push(line);
                }
            }
            assert_eq!(seen, [&b"{\"a\":1}\n"[..], b"{\"b\":2}\n"], "cut at {cut}");
            assert!(lines.is_empty());
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut lines = Lines::default();
        let mut refused = false;
        for _ in 0..=(MAX_LINE / (1 << 20)) {
            lines.add(Bytes::from(vec![b'x'; 1 << 20]));
            refused = lines.take(Side::Host).is_err();
        }
        assert!(refused);
    }

    /// Whatever comes, and however it is cut: an object is a piece of its line, and JSON.
    #[test]
    fn any_stream_is_survived() {
        crate::runtime::fuzz::bytes("watch", &[], |input| {
            let (mut lines, mut seen) = (Lines::default(), Vec::new());
            for part in input.chunks(1 + input.len() / 3) {
                lines.add(Bytes::copy_from_slice(part));
                while let Some(line) = lines.take(Side::Backend).expect("short") {
                    let event = parse(&line, Side::Backend);
                    if let Ok(WatchEvent::Applied(object) | WatchEvent::Deleted(object)) = &event {
                        serde_json::from_slice::<serde::de::IgnoredAny>(object).expect("JSON");
                        assert!(line.windows(object.len()).any(|piece| piece == object));
                    }
                    seen.push(event.as_ref().map_or(9, |event| match event {
                        WatchEvent::Applied(_) => 0_u8,
                        WatchEvent::Deleted(_) => 1,
                        WatchEvent::Bookmark { .. } => 2,
                    }));
                }
            }
            seen
        });
    }
}
