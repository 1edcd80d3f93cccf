//! SRV answers, the one kind that multiplies what a tenant chose: endpoints with ports.

use std::collections::HashSet;
use std::net::IpAddr;

use hickory_proto::rr::rdata::SRV;
use hickory_proto::rr::{Name, RData, Record};

use crate::dns::resolve::record::{address_data, least, record};
use crate::dns::zone::{Endpoint, Port, Ports, Slice};

/// Pairs of endpoint and port that are looked at for one answer, those already in it included.
pub(super) const MOST_PAIRS: usize = 10_000;

/// SRV records, each once, with the addresses of their targets while those fit beside them.
pub(super) struct ServiceAnswer<'a> {
    name: &'a Name,
    answers: Vec<Record>,
    additionals: Vec<Record>,
    room: usize,
    /// Bytes of the answers.
    taken: usize,
    /// Bytes of the additional records; none once they have gone for want of room.
    beside: Option<usize>,
    pairs: usize,
}

/// What stands for an endpoint, without making a text of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Label<'a> {
    Host(&'a str),
    Address(IpAddr),
}

impl<'a> ServiceAnswer<'a> {
    /// An empty answer to a question for `name`, with room for as many bytes.
    pub(super) fn new(name: &'a Name, room: usize) -> Self {
        Self { name, answers: Vec::new(), additionals: Vec::new(), room, taken: 0, beside: Some(0), pairs: 0 }
    }

    /// Adds ports of a Service, whose one target has these addresses.
    pub(super) fn add_service(&mut self, target: &Name, ports: &[Port], ips: &[IpAddr]) {
        let mut seen = HashSet::new();
        for port in ports {
            self.pairs += 1;
            if seen.insert(port.port) && !self.answer(target, port.port) {
                break;
            }
        }
        for ip in ips {
            self.address(target, *ip);
        }
    }

    /// Adds endpoints with those ports of their slices that are wanted, each under its own name.
    pub(super) fn add_endpoints<'e>(
        &mut self,
        shown: impl Iterator<Item = (&'e Endpoint, &'e Slice)>,
        wanted: impl Fn(&'e Ports) -> &'e [Port],
        own: impl Fn(&Endpoint) -> Option<Name>,
    ) {
        let mut answered = HashSet::new();
        let mut addressed = HashSet::new();
        let mut current: Option<(&Slice, &[Port])> = None;
        for (endpoint, slice) in shown {
            // Neighbours are of one slice: its ports are found once.
            let ports = match current {
                Some((same, ports)) if std::ptr::eq(same, slice) => ports,
                _ => wanted(&slice.ports),
            };
            current = Some((slice, ports));
            let label = endpoint.hostname.as_deref().map_or(Label::Address(endpoint.address), Label::Host);
            let mut target = None;
            for port in ports {
                self.pairs += 1;
                if self.pairs > MOST_PAIRS {
                    return;
                }
                if !answered.insert((label, port.port)) {
                    continue;
                }
                let Some(target) = target.get_or_insert_with(|| own(endpoint)) else { break };
                if !self.answer(target, port.port) {
                    return;
                }
            }
            if !ports.is_empty()
                && self.beside.is_some()
                && addressed.insert((label, endpoint.address))
                && let Some(target) = target.get_or_insert_with(|| own(endpoint))
            {
                self.address(target, endpoint.address);
            }
        }
    }

    /// How much was done, in records made.
    pub(super) fn work(&self) -> usize {
        self.pairs + self.answers.len() + self.additionals.len()
    }

    /// Answers and additional records.
    pub(super) fn into_sections(self) -> (Vec<Record>, Vec<Record>) {
        (self.answers, self.additionals)
    }

    /// Adds a port of a target; false when the answer is full.
    fn answer(&mut self, target: &Name, port: u16) -> bool {
        let data = RData::SRV(SRV::new(0, 100, port, target.clone()));
        let taken = self.taken + least(&data);
        if taken > self.room {
            return false;
        }
        self.taken = taken;
        if self.beside.is_some_and(|beside| taken + beside > self.room) {
            self.leave_additionals();
        }
        self.answers.push(record(self.name, data));
        true
    }

    fn address(&mut self, target: &Name, ip: IpAddr) {
        let Some(beside) = self.beside else { return };
        let data = address_data(ip);
        let beside = beside + least(&data);
        if self.taken + beside > self.room {
            self.leave_additionals();
        } else {
            self.beside = Some(beside);
            self.additionals.push(record(target, data));
        }
    }

    /// All or none: half of them would say that a target has no other address.
    fn leave_additionals(&mut self) {
        self.beside = None;
        self.additionals = Vec::new();
    }
}
