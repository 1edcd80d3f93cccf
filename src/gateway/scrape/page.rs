//! A page as it is read: the families one behind the other, of each the lines of all tenants.
//!
//! Promises: a family stands in one piece under one head; no more of the page is in memory than the piece that is being
//! written, beside the results that it is put together from. Pure.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use tokio::sync::OwnedSemaphorePermit;

use super::catalog::Head;
use super::shown::Shown;
use crate::exposition::comment;

/// Of one piece, but for the last lines in it.
const PIECE: usize = 32 << 10;

/// How a page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus' own, 0.0.4.
    Text,
    /// 1.0.
    OpenMetrics,
}

/// Families of one kind, with who has some of them.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) heads: Arc<[Head]>,
    pub(super) tenants: Vec<Arc<Shown>>,
}

/// A page under way.
#[derive(Debug)]
pub(crate) struct Page {
    format: Format,
    sections: std::vec::IntoIter<Section>,
    section: Option<Section>,
    family: usize,
    tenant: usize,
    has_head: bool,
    /// Held until the page is read.
    _turn: Option<OwnedSemaphorePermit>,
}

impl Format {
    /// What a scraper asks for: OpenMetrics where it likes that as much, text when it says nothing.
    pub(super) fn wanted(headers: &HeaderMap) -> Self {
        let (mut open, mut text) = (0.0_f32, 0.0_f32);
        let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        for range in values.flat_map(|value| value.split(',')) {
            let mut words = range.split(';').map(str::trim);
            let kind = words.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut is_known) = (1.0_f32, true);
            for (name, value) in words.filter_map(|word| word.split_once('=')) {
                match name.trim() {
                    "q" => quality = value.trim().parse().unwrap_or(0.0),
                    // 0.0.1 is the same but for a word at its end.
                    "version" if kind == "application/openmetrics-text" => is_known = value.trim() == "1.0.0",
                    _ => {}
                }
            }
            match kind.as_str() {
                "application/openmetrics-text" if is_known => open = open.max(quality),
                "text/plain" | "text/*" | "*/*" => text = text.max(quality),
                _ => {}
            }
        }
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Text }
    }

    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        })
    }

    fn head(self, out: &mut Vec<u8>, head: &Head) {
        let (mut name, mut kind) = (head.name.as_str(), head.kind.as_str());
        if self == Self::OpenMetrics && kind == "counter" {
            match name.strip_suffix("_total") {
                Some(family) => name = family,
                // It would have to be called otherwise.
                None => kind = "unknown",
            }
        }
        if !head.help.is_empty() {
            let quoted = head.help.replace('"', "\\\"");
            comment(out, "HELP", name, if self == Self::OpenMetrics { &quoted } else { &head.help });
        }
        comment(out, "TYPE", name, kind);
    }
}

impl Page {
    pub(super) fn new(format: Format, sections: Vec<Section>, turn: Option<OwnedSemaphorePermit>) -> Self {
        let mut sections = sections.into_iter();
        let section = sections.next();
        Self { format, sections, section, family: 0, tenant: 0, has_head: false, _turn: turn }
    }

    /// The next piece; `None`: that was all.
    pub(crate) fn next_piece(&mut self) -> Option<Bytes> {
        self.section.as_ref()?;
        let mut piece = Vec::with_capacity(PIECE + PIECE / 4);
        while piece.len() < PIECE {
            if !self.step(&mut piece) {
                if self.format == Format::OpenMetrics {
                    piece.extend_from_slice(b"# EOF\n");
                }
                break;
            }
        }
        (!piece.is_empty()).then(|| Bytes::from(piece))
    }

    /// One tenant's lines of one family; false at the end.
    fn step(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(section) = &self.section else { return false };
        let Some(head) = section.heads.get(self.family) else {
            self.section = self.sections.next();
            self.family = 0;
            return self.section.is_some();
        };
        let Some(tenant) = section.tenants.get(self.tenant) else {
            (self.family, self.tenant, self.has_head) = (self.family + 1, 0, false);
            return true;
        };
        let lines = tenant.family(self.family);
        if !lines.is_empty() {
            if !std::mem::replace(&mut self.has_head, true) {
                self.format.head(out, head);
            }
            out.extend_from_slice(lines);
        }
        self.tenant += 1;
        true
    }
}
