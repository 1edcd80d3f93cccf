//! Whether the host enforces NetworkPolicies, found out by trying: the control plane listens at two ports for nothing else, of
//! which its policy lets Portico reach one. Whatever comes of the other while the first answers is the policy's doing: no
//! guess from what is installed, and neither a dead pod nor a firewall between nodes is taken for a policy.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::operator::backends::Backends;

/// The port that the policy lets Portico reach. Both are also in `deploy/control-plane/policy_probe.go`.
pub(crate) const ALLOWED: u16 = 6441;
/// The one that it lets nobody reach.
const REFUSED: u16 = 6442;
/// How long a verdict is good.
const FRESH: Duration = Duration::from_secs(600);

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The refused connection did not come to be, the other one did before and after it.
    Enforced,
    /// It came to be.
    NotEnforced,
    /// Nobody answered where somebody should: another image, or no way there.
    Unknown,
}

/// Verdicts by host namespace.
#[derive(Debug, Default)]
pub(crate) struct Verdicts(Mutex<HashMap<String, (Instant, Verdict)>>);

impl Verdicts {
    /// The verdict, unless it is too old.
    pub(crate) fn get(&self, namespace: &str, now: Instant) -> Option<Verdict> {
        let all = self.0.lock();
        all.get(namespace).filter(|(since, _)| is_fresh(*since, now)).map(|(_, verdict)| *verdict)
    }

    /// Keeps it, and nothing that is too old. Tells whether it is another one than before.
    pub(crate) fn put(&self, namespace: &str, verdict: Verdict, now: Instant) -> bool {
        let mut all = self.0.lock();
        let before = all.insert(namespace.to_owned(), (now, verdict));
        all.retain(|_, (since, _)| is_fresh(*since, now));
        before.is_none_or(|(_, before)| before != verdict)
    }
}

fn is_fresh(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < FRESH
}

/// Tries it at a control plane's pod.
pub(crate) async fn probe(backends: &dyn Backends, pod: IpAddr) -> Verdict {
    let greets = |port| backends.greets(SocketAddr::new(pod, port));
    if !greets(ALLOWED).await {
        return Verdict::Unknown;
    }
    if greets(REFUSED).await {
        return Verdict::NotEnforced;
    }
    // The pod may have ended between the two.
    if greets(ALLOWED).await { Verdict::Enforced } else { Verdict::Unknown }
}
