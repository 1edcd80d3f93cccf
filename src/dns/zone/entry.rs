//! One Service and its endpoints, as questions see them.

use std::sync::Arc;

use super::key::Key;
use super::object::{Endpoint, Ports, Service, Slice};

/// What is known below one Service's name. Immutable once it is handed out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    pub(super) service: Option<Arc<Service>>,
    /// In the order of their names, so that answers do not depend on the order of events.
    pub(super) slices: Vec<(Key, Arc<Slice>)>,
    /// Of all slices, shown or not.
    pub(super) endpoints: usize,
}

impl Entry {
    /// The Service itself; none while only its slices are known.
    pub(crate) fn service(&self) -> Option<&Service> {
        self.service.as_deref()
    }

    /// How many endpoints there are to look at.
    pub(crate) fn endpoints(&self) -> usize {
        self.endpoints
    }

    /// The endpoints that are shown, each with its slice; begins at the `turn`-th and goes round.
    pub(crate) fn shown(&self, turn: u64) -> impl Iterator<Item = (&Endpoint, &Slice)> {
        let mut start = usize::try_from(turn % self.endpoints.max(1) as u64).unwrap_or_default();
        let mut first = 0;
        while let Some((_, slice)) = self.slices.get(first).filter(|(_, s)| s.endpoints.len() <= start) {
            start -= slice.endpoints.len();
            first += 1;
        }
        let (before, after) = self.slices.split_at(first);
        let (begun, whole) = after.split_at(after.len().min(1));
        let all = self.service().is_some_and(|s| s.publish_not_ready);
        let there = begun.iter().flat_map(move |(_, slice)| part(slice, start, usize::MAX));
        let whole = whole.iter().chain(before).flat_map(|(_, slice)| part(slice, 0, usize::MAX));
        let rest = begun.iter().flat_map(move |(_, slice)| part(slice, 0, start));
        there.chain(whole).chain(rest).filter(move |(endpoint, _)| endpoint.ready || all)
    }

    /// Ports of the slices that have an endpoint to show.
    pub(crate) fn shown_ports(&self) -> impl Iterator<Item = &Ports> {
        let all = self.service().is_some_and(|s| s.publish_not_ready);
        let shown = move |slice: &&Slice| slice.endpoints.iter().any(|e| e.ready || all);
        self.slices.iter().map(|(_, slice)| &**slice).filter(shown).map(|slice| &slice.ports)
    }

    pub(super) fn put(&mut self, key: Key, slice: Arc<Slice>) {
        self.endpoints += slice.endpoints.len();
        let at = self.slices.binary_search_by(|(k, _)| k.cmp(&key)).unwrap_or_else(|at| at);
        self.slices.insert(at, (key, slice));
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if let Ok(at) = self.slices.binary_search_by(|(k, _)| k.cmp(key)) {
            let (_, slice) = self.slices.remove(at);
            self.endpoints -= slice.endpoints.len();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.service.is_none() && self.slices.is_empty()
    }
}

fn part(slice: &Slice, skip: usize, take: usize) -> impl Iterator<Item = (&Endpoint, &Slice)> {
    slice.endpoints.iter().skip(skip).take(take).map(move |endpoint| (endpoint, slice))
}
