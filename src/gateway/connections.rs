//! Who has connections: so many for all, few of them for those on which nobody who is known has asked yet.
//!
//! Promises: whoever invents handshakes and connections takes from the small part, and of that half at most from one source
//! address, half towards one tenant and a quarter from the one to the other, so a tenant's own callers keep theirs; one tenant's callers have their share and no
//! more. Must not know TLS or requests.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::counts::Counts;
use super::metrics::HandshakeFailure;
use crate::config::GatewayConfig;
use crate::names::TenantId;
use crate::runtime::source::source;

/// All connections of the process. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Connections(Arc<Inner>);

/// One connection's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Pass {
    all: Connections,
    /// Somebody who is known has asked on it: read before the lock.
    is_known: AtomicBool,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    /// Not known before a load balancer has said it.
    source: Option<IpAddr>,
    standing: Standing,
}

#[derive(Debug)]
enum Standing {
    Shaking(Option<TenantId>),
    Unknown(Option<TenantId>),
    Known(TenantId),
}

#[derive(Debug)]
struct Inner {
    all: usize,
    unknown: usize,
    shaking: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    all: usize,
    /// Handshakes under way included.
    unknown: usize,
    shaking: usize,
    unknown_of: Counts<IpAddr>,
    shaking_of: Counts<IpAddr>,
    unknown_to: Counts<TenantId>,
    unknown_of_to: Counts<(IpAddr, TenantId)>,
    known_to: Counts<TenantId>,
}

impl Connections {
    pub(super) fn new(config: &GatewayConfig) -> Self {
        Self(Arc::new(Inner {
            all: config.max_connections,
            unknown: config.max_unknown_connections,
            shaking: config.max_handshakes,
            state: Mutex::default(),
        }))
    }

    /// A place for a connection that has just come, and for its handshake. Where it is from may be told later.
    pub(super) fn enter(&self, peer: Option<IpAddr>) -> Result<Pass, HandshakeFailure> {
        let (inner, source) = (&*self.0, peer.map(source));
        let mut state = inner.state.lock();
        if state.all >= inner.all || state.unknown >= inner.unknown {
            return Err(HandshakeFailure::TooManyConnections);
        }
        if state.shaking >= inner.shaking {
            return Err(HandshakeFailure::TooManyHandshakes);
        }
        if let Some(source) = source {
            inner.admit(&mut state, source)?;
        }
        state.all += 1;
        state.unknown += 1;
        state.shaking += 1;
        drop(state);
        let held = Mutex::new(Held { source, standing: Standing::Shaking(None) });
        Ok(Pass { all: self.clone(), is_known: AtomicBool::new(false), held })
    }

    /// Connections of a tenant: on which its callers asked, and the others that are bound to it.
    pub(super) fn of(&self, tenant: &TenantId) -> (usize, usize) {
        let state = self.0.state.lock();
        (state.known_to.of(tenant), state.unknown_to.of(tenant))
    }
}

impl Inner {
    /// One source's part of the handshakes and of the unknown.
    fn admit(&self, state: &mut State, source: IpAddr) -> Result<(), HandshakeFailure> {
        if state.unknown_of.of(&source) >= half(self.unknown) {
            return Err(HandshakeFailure::TooManyOfSource);
        }
        if state.shaking_of.of(&source) >= half(self.shaking) {
            return Err(HandshakeFailure::TooManyHandshakes);
        }
        state.unknown_of.increase(source);
        state.shaking_of.increase(source);
        Ok(())
    }
}

impl Pass {
    /// Where it is from, which was not known when it came.
    pub(super) fn is_from(&self, peer: IpAddr) -> Result<(), HandshakeFailure> {
        let (mut held, mut state) = (self.held.lock(), self.all.0.state.lock());
        if held.source.is_none() {
            self.all.0.admit(&mut state, source(peer))?;
            held.source = Some(source(peer));
        }
        Ok(())
    }

    /// It is bound to this tenant, as its handshake says, before that has cost anything.
    pub(super) fn bind(&self, tenant: &TenantId) -> Result<(), HandshakeFailure> {
        let (mut held, mut state) = (self.held.lock(), self.all.0.state.lock());
        let (source, most) = (held.source, self.all.0.unknown);
        let Standing::Shaking(bound @ None) = &mut held.standing else { return Ok(()) };
        if state.unknown_to.of(tenant) >= half(most) {
            return Err(HandshakeFailure::TooManyOfTenant);
        }
        if let Some(source) = source {
            let pair = (source, tenant.clone());
            if state.unknown_of_to.of(&pair) >= half(half(most)) {
                return Err(HandshakeFailure::TooManyOfSource);
            }
            state.unknown_of_to.increase(pair);
        }
        state.unknown_to.increase(tenant.clone());
        *bound = Some(tenant.clone());
        Ok(())
    }

    /// The handshake is over.
    pub(super) fn shaken(&self) {
        let (mut held, mut state) = (self.held.lock(), self.all.0.state.lock());
        if let Standing::Shaking(bound) = &mut held.standing {
            let bound = bound.take();
            held.standing = Standing::Unknown(bound);
            state.end_handshake(held.source);
        }
    }

    /// Whether it is a tenant's.
    pub(super) fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    /// Somebody whom this tenant knows asks on it: from now on it is one of the tenant's, of whom there are `most`. False
    /// when there is none left. The tenant of the first such request has it to its end.
    pub(super) fn known(&self, tenant: &TenantId, most: u32) -> bool {
        if self.is_known() {
            return true;
        }
        let (mut held, mut state) = (self.held.lock(), self.all.0.state.lock());
        let (bound, is_shaking) = match &held.standing {
            Standing::Known(_) => return true,
            Standing::Shaking(bound) => (bound.as_ref(), true),
            Standing::Unknown(bound) => (bound.as_ref(), false),
        };
        if state.known_to.of(tenant) >= most as usize {
            return false;
        }
        if is_shaking {
            state.end_handshake(held.source);
        }
        state.forget_unknown(held.source, bound);
        state.known_to.increase(tenant.clone());
        held.standing = Standing::Known(tenant.clone());
        self.is_known.store(true, Ordering::Relaxed);
        true
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.all.0.state.lock();
        state.all = state.all.saturating_sub(1);
        let Held { source, standing } = self.held.get_mut();
        match standing {
            Standing::Known(tenant) => state.known_to.decrease(tenant),
            Standing::Unknown(bound) => state.forget_unknown(*source, bound.as_ref()),
            Standing::Shaking(bound) => {
                state.end_handshake(*source);
                state.forget_unknown(*source, bound.as_ref());
            }
        }
    }
}

impl State {
    fn end_handshake(&mut self, source: Option<IpAddr>) {
        self.shaking = self.shaking.saturating_sub(1);
        if let Some(source) = source {
            self.shaking_of.decrease(&source);
        }
    }

    fn forget_unknown(&mut self, source: Option<IpAddr>, bound: Option<&TenantId>) {
        self.unknown = self.unknown.saturating_sub(1);
        if let Some(source) = source {
            self.unknown_of.decrease(&source);
        }
        if let Some(tenant) = bound {
            self.unknown_to.decrease(tenant);
            if let Some(source) = source {
                self.unknown_of_to.decrease(&(source, tenant.clone()));
            }
        }
    }
}

fn half(all: usize) -> usize {
    (all / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(all: usize, unknown: usize, shaking: usize) -> Connections {
        Connections::new(&GatewayConfig {
            max_connections: all,
            max_unknown_connections: unknown,
            max_handshakes: shaking,
            ..GatewayConfig::default()
        })
    }

    fn from(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::parse("team", name).expect("id")
    }

    fn is_empty(connections: &Connections) -> bool {
        let state = connections.0.state.lock();
        let by_source = state.unknown_of.is_empty() && state.shaking_of.is_empty();
        let by_tenant = state.unknown_to.is_empty() && state.known_to.is_empty() && state.unknown_of_to.is_empty();
        [state.all, state.unknown, state.shaking] == [0; 3] && by_source && by_tenant
    }

    #[test]
    fn one_source_has_half_of_the_handshakes_and_half_of_the_unknown() {
        let connections = connections(100, 20, 8);
        let shaking: Vec<Pass> = std::iter::from_fn(|| connections.enter(Some(from(1))).ok()).collect();
        assert_eq!(shaking.len(), 4);
        assert_eq!(connections.enter(Some(from(1))).err(), Some(HandshakeFailure::TooManyHandshakes));
        assert!(connections.enter(Some(from(2))).is_ok());
        drop(shaking);
        let silent: Vec<Pass> =
            std::iter::from_fn(|| connections.enter(Some(from(1))).ok().inspect(Pass::shaken)).collect();
        assert_eq!(silent.len(), 10);
        assert_eq!(connections.enter(Some(from(1))).err(), Some(HandshakeFailure::TooManyOfSource));
        assert!(connections.enter(Some(from(2))).is_ok());
        drop(silent);
        assert!(is_empty(&connections));
    }

    #[test]
    fn one_source_leaves_a_tenants_other_callers_something() {
        let (connections, a) = (connections(100, 20, 100), tenant("a"));
        let enter = |n| connections.enter(Some(from(n))).ok().filter(|pass| pass.bind(&a).is_ok());
        let of_one: Vec<Pass> = std::iter::from_fn(|| enter(1)).collect();
        assert_eq!(of_one.len(), 5, "a quarter");
        assert!(enter(2).is_some());
        drop(of_one);
        assert!(is_empty(&connections));
    }

    #[test]
    fn what_comes_through_a_load_balancer_counts_where_it_is_from() {
        let connections = connections(100, 8, 100);
        let relayed = || connections.enter(None).expect("the load balancer has no share");
        let passes: Vec<Pass> = (0..4).map(|_| relayed()).collect();
        assert!(passes.iter().all(|pass| pass.is_from(from(1)).is_ok()));
        assert_eq!(relayed().is_from(from(1)), Err(HandshakeFailure::TooManyOfSource));
        assert!(relayed().is_from(from(2)).is_ok());
        drop(passes);
        assert!(is_empty(&connections));
    }

    #[test]
    fn strangers_of_many_sources_leave_a_tenants_callers_alone() {
        let connections = connections(100, 20, 100);
        let (a, b) = (tenant("a"), tenant("b"));
        let own = connections.enter(Some(from(9))).expect("a place");
        assert!(own.bind(&a).is_ok() && own.known(&a, 1));
        assert!(own.known(&b, 0), "it stays whose it is");
        let strangers: Vec<Pass> = (0..30).filter_map(|n| connections.enter(Some(from(n))).ok()).collect();
        assert_eq!(strangers.len(), 20);
        let bound = strangers.iter().filter(|pass| pass.bind(&a).is_ok()).count();
        assert_eq!((bound, connections.of(&a)), (10, (1, 10)), "half of them at most are towards one tenant");
        assert!(!strangers[0].known(&a, 1), "a tenant has its share and no more");
        assert!(strangers[0].known(&a, 2));
        assert_eq!(connections.of(&a), (2, 9));
        drop((own, strangers));
        assert!(is_empty(&connections));
    }
}
