//! What one virtual cluster has on a page: lines, family by family, and what Portico says of the scrape itself.
//!
//! Promises: the text holds nothing but whole lines with this tenant's labels in front, so families of many tenants are put
//! together by copying. Pure.

use bytes::Bytes;

use super::catalog::Head;
use super::counts::Room;
use super::lines::{FamilyLines, Labelled, line};

/// Lines of one tenant, and where each family ends in them.
#[derive(Debug)]
pub(super) struct Shown {
    text: Bytes,
    ends: Box<[u32]>,
    _room: Option<Room>,
}

/// Why there is nothing of an API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    /// It cannot be reached, or was not a moment ago.
    Unreachable,
    /// It did not answer in time, or not to the end.
    Late,
    /// Its answer is no page of metrics.
    Refused,
    /// It sent more than it may.
    TooLong,
    /// Its answer broke off.
    Broken,
    /// There was no room to keep it.
    NoRoom,
}

/// How a scrape of one API server went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Outcome {
    pub(super) seconds: f64,
    pub(super) problem: Option<Problem>,
    pub(super) dropped: u64,
}

/// What Portico says of each scrape, in this order before the API server's families.
const ABOUT: [(&str, &str); 4] = [
    ("portico_tenant_up", "Whether the virtual cluster's API server showed its metrics."),
    ("portico_tenant_scrape_duration_seconds", "How long that took."),
    ("portico_tenant_scrape_series_dropped", "Samples that were left out: over the bounds, or malformed."),
    ("portico_tenant_scrape_problem", "Why there is nothing of its API server, or not all."),
];

impl Problem {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Late => "late",
            Self::Refused => "refused",
            Self::TooLong => "too-long",
            Self::Broken => "broken",
            Self::NoRoom => "no-room",
        }
    }

    /// Without room it is Portico that shows nothing.
    fn is_down(self) -> bool {
        self != Self::NoRoom
    }
}

impl Shown {
    /// A tenant's lines as they are, with the end of each family in them.
    pub(super) fn new(lines: FamilyLines, room: Option<Room>) -> Self {
        Self { text: lines.text.into(), ends: lines.ends.into(), _room: room }
    }

    /// What was gathered of an API server, behind how that went.
    pub(super) fn scraped(tenant: &Labelled, outcome: Outcome, series: &FamilyLines, room: Option<Room>) -> Self {
        let (mut text, mut ends) = (Vec::with_capacity(series.text.len() + 512), Vec::new());
        let is_up = outcome.problem.is_none_or(|problem| !problem.is_down());
        for (at, (name, _)) in ABOUT.iter().enumerate() {
            let value = match at {
                0 => f64::from(u8::from(is_up)),
                1 => outcome.seconds,
                2 => outcome.dropped as f64,
                _ => 1.0,
            };
            let reason = outcome.problem.filter(|_| at == 3).map(Problem::name);
            if at != 3 || reason.is_some() {
                let reason = reason.map(|reason| ("reason", reason));
                line(&mut text, (name, ""), tenant, b"", reason.as_slice(), value);
            }
            ends.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
        }
        let before = ends.last().copied().unwrap_or_default();
        text.extend_from_slice(&series.text);
        ends.extend(series.ends.iter().map(|end| before.saturating_add(*end)));
        Self { text: text.into(), ends: ends.into(), _room: room }
    }

    /// Its lines of the family in this place.
    pub(super) fn family(&self, at: usize) -> &[u8] {
        let place = |at: usize| self.ends.get(at).and_then(|end| usize::try_from(*end).ok());
        let begin = if at == 0 { Some(0) } else { place(at - 1) };
        begin.zip(place(at)).and_then(|(begin, end)| self.text.get(begin..end)).unwrap_or_default()
    }
}

/// Heads of what stands before the API server's families.
pub(super) fn about() -> impl Iterator<Item = Head> {
    let head = |(name, help): &(&str, &str)| Head {
        name: (*name).to_owned(),
        kind: "gauge".to_owned(),
        help: (*help).to_owned(),
    };
    ABOUT.iter().map(head)
}
