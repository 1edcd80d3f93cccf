//! Who has which port: two consecutive ones for each tenant, unique over all VirtualClusters. Does no IO.
//!
//! Of two statuses that name one port the older cluster's counts, by the function that the registry asks too.

use std::collections::{BTreeSet, HashMap};

use parking_lot::Mutex;

use crate::names::TenantId;
use crate::names::claims::{Age, port_owners};
use crate::names::reserved::Reserved;

/// Who holds which port: what the statuses say plus what was given out and is not yet seen there.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    held: Mutex<HashMap<TenantId, Holding>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Holding {
    age: Age,
    port: u16,
}

impl Ports {
    /// Takes in what a status says. What was given out in this process stands until the status shows it.
    pub(crate) fn observe(&self, age: &Age, port: Option<u16>) {
        let mut held = self.held.lock();
        match port {
            Some(port) => {
                held.insert(age.id().clone(), Holding { age: age.clone(), port });
            }
            None => {
                if held.get(age.id()).is_some_and(|holding| holding.age.uid() != age.uid()) {
                    held.remove(age.id());
                }
            }
        }
    }

    /// The cluster is gone.
    pub(crate) fn release(&self, id: &TenantId) {
        self.held.lock().remove(id);
    }

    /// The port a cluster may go on using: the one it holds, unless it is an older one's (two operators gave it out at
    /// once, or somebody wrote it there), one of Portico's own, or outside the range.
    pub(crate) fn keep(&self, id: &TenantId, range: (u16, u16), reserved: &Reserved) -> Option<u16> {
        let held = self.held.lock();
        let own = held.get(id)?.port;
        if !is_in_range(own, range) {
            return None;
        }
        let owners = port_owners(reserved, held.values().map(|holding| (&holding.age, holding.port)));
        (owners.get(&own) == Some(id)).then_some(own)
    }

    /// The lowest free pair; it is held from now on.
    pub(crate) fn take(
        &self,
        (id, uid): (&TenantId, &str),
        range: (u16, u16),
        reserved: &Reserved,
        busy: &BTreeSet<u16>,
    ) -> Option<u16> {
        let mut held = self.held.lock();
        let others = held.iter().filter(|(other, _)| *other != id);
        let taken: BTreeSet<u16> = others.flat_map(|(_, h)| [h.port, h.port.saturating_add(1)]).collect();
        let is_free = |port: u16| !taken.contains(&port) && !busy.contains(&port) && !reserved.is_port(port);
        let first = range.0.checked_next_multiple_of(2)?;
        let port = (first..range.1).step_by(2).find(|port| is_free(*port) && is_free(port + 1))?;
        // A newcomer is the youngest of all, whatever its status says later.
        held.insert(id.clone(), Holding { age: Age::new(None, uid, id), port });
        Some(port)
    }
}

fn is_in_range(port: u16, range: (u16, u16)) -> bool {
    port.is_multiple_of(2) && port >= range.0 && port < range.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> TenantId {
        TenantId::parse("ns", name).expect("id")
    }

    fn take(ports: &Ports, (name, uid): (&str, &str), range: (u16, u16), busy: &[u16]) -> Option<u16> {
        ports.take((&id(name), uid), range, &Reserved::default(), &busy.iter().copied().collect())
    }

    fn keep(ports: &Ports, name: &str, range: (u16, u16)) -> Option<u16> {
        ports.keep(&id(name), range, &Reserved::default())
    }

    fn observe(ports: &Ports, (name, uid): (&str, &str), created: &str, port: Option<u16>) {
        ports.observe(&Age::new(Some(created), uid, &id(name)), port);
    }

    #[test]
    fn pairs_are_even_unique_and_reused() {
        let ports = Ports::default();
        let range = (20_001, 20_007);
        assert_eq!(take(&ports, ("a", "1"), range, &[]), Some(20_002));
        assert_eq!(take(&ports, ("b", "2"), range, &[]), Some(20_004));
        assert_eq!(take(&ports, ("c", "3"), range, &[]), Some(20_006));
        assert_eq!(take(&ports, ("d", "4"), range, &[]), None);
        ports.release(&id("b"));
        assert_eq!(take(&ports, ("d", "4"), range, &[20_004]), None);
        assert_eq!(take(&ports, ("d", "4"), range, &[]), Some(20_004));
        assert_eq!(keep(&ports, "d", range), Some(20_004));
    }

    #[test]
    fn a_stale_status_does_not_free_what_was_given_out() {
        let ports = Ports::default();
        let range = (20_000, 20_003);
        assert_eq!(take(&ports, ("a", "1"), range, &[]), Some(20_000));
        observe(&ports, ("a", "1"), "2026-01-01T00:00:00Z", None);
        assert_eq!(keep(&ports, "a", range), Some(20_000));
        observe(&ports, ("a", "2"), "2027-01-01T00:00:00Z", None);
        assert_eq!(keep(&ports, "a", range), None);
    }

    #[test]
    fn of_two_holders_the_older_keeps_the_port() {
        let ports = Ports::default();
        let range = (20_000, 20_010);
        observe(&ports, ("old", "2"), "2026-01-01T00:00:00Z", Some(20_000));
        observe(&ports, ("new", "1"), "2026-01-02T00:00:00Z", Some(20_000));
        assert_eq!(keep(&ports, "old", range), Some(20_000));
        assert_eq!(keep(&ports, "new", range), None);
        assert_eq!(take(&ports, ("new", "1"), range, &[]), Some(20_002));
        observe(&ports, ("far", "3"), "2026-01-02T00:00:00Z", Some(9_000));
        assert_eq!(keep(&ports, "far", range), None);
    }
}
