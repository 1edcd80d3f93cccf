//! Which tenant takes how much of the process' memory, as far as that is known, and who is refused when it runs out.
//!
//! Planes write what they keep and move for a tenant on its account, and ask it whether the tenant is refused. Promises:
//! what counts against a tenant is what moves for it now, and by how much that which is kept of it has grown since there
//! was enough memory for all, so a large tenant that stands still is never refused, nor for what is found of it at first; nor
//! is one whose account is small, whoever takes the rest (docs/adr/0016). Must not know how memory is measured, or what is refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::names::TenantId;
use crate::runtime::telemetry::{Families, Source};

/// It is enough again that much below the watermark: the sixteenth part.
const BELOW: u64 = 16;
/// Nobody is refused whose account is below this part of the watermark, and who is refused is let in again at half of it.
const SMALL: u64 = 32;
/// Measurements between two refusals, one a second: freed memory comes back to the system within ten seconds, and until
/// then nothing tells whether the first one was enough.
const PAUSE: u32 = 10;

/// All accounts. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Mutex<State>>);

/// One tenant's, in bytes.
#[derive(Debug, Default)]
pub struct Account {
    moving: AtomicUsize,
    kept: AtomicUsize,
    /// What was kept when there was enough for all.
    before: AtomicUsize,
    is_refused: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    accounts: HashMap<Key, Arc<Account>>,
    used: u64,
    watermark: u64,
    is_above: bool,
    /// Measurements until the next one may be refused.
    pause: u32,
}

/// A cluster that is made again under its name is another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    id: TenantId,
    uid: String,
}

impl Account {
    /// So many bytes move for the tenant: a body that is read here, an answer that waits for its reader.
    pub fn take(&self, bytes: usize) {
        self.moving.fetch_add(bytes, Ordering::Relaxed);
    }

    /// They are gone.
    pub fn give_back(&self, bytes: usize) {
        self.moving.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// So much was kept of something of the tenant's, and so much is now.
    pub fn kept(&self, before: usize, after: usize) {
        if after >= before {
            self.kept.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.kept.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// The same of what was there before anybody looked: after a restart, or when another replica's work is taken over, all
    /// that there is comes at once, and whoever stands still has not grown by it.
    pub fn found(&self, before: usize, after: usize) {
        self.kept(before, after);
        // Nothing else is said with an error: there is always a next value.
        let _ = self
            .before
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |was| Some((was + after).saturating_sub(before)));
    }

    /// Bytes that move.
    pub fn moving(&self) -> usize {
        self.moving.load(Ordering::Relaxed)
    }

    /// Whether nothing that takes memory is done for the tenant now.
    pub fn is_refused(&self) -> bool {
        self.is_refused.load(Ordering::Relaxed)
    }

    fn all(&self) -> usize {
        self.moving() + self.kept.load(Ordering::Relaxed)
    }

    /// What counts against the tenant.
    fn weight(&self) -> u64 {
        let grown = self.kept.load(Ordering::Relaxed).saturating_sub(self.before.load(Ordering::Relaxed));
        (self.moving() + grown) as u64
    }

    fn begin_anew(&self) {
        self.before.store(self.kept.load(Ordering::Relaxed), Ordering::Relaxed);
        self.is_refused.store(false, Ordering::Relaxed);
    }
}

impl Memory {
    /// The account of a tenant, as long as anybody has it.
    pub fn account(&self, id: &TenantId, uid: &str) -> Arc<Account> {
        let key = Key { id: id.clone(), uid: uid.to_owned() };
        let mut state = self.0.lock();
        if let Some(account) = state.accounts.get(&key) {
            return Arc::clone(account);
        }
        // Here too, since nothing is measured where no limit is known.
        state.forget_unused();
        Arc::clone(state.accounts.entry(key).or_default())
    }

    /// Takes note of what the process uses now, once a second, and decides who is refused until the next time.
    pub fn measured(&self, used: u64, watermark: u64) {
        let mut state = self.0.lock();
        (state.used, state.watermark) = (used, watermark);
        state.forget_unused();
        if used <= watermark - watermark / BELOW {
            if std::mem::take(&mut state.is_above) {
                tracing::info!(used, watermark, "there is enough memory again");
            }
            state.pause = 0;
            return state.accounts.values().for_each(|account| account.begin_anew());
        }
        state.pause = state.pause.saturating_sub(1);
        state.let_in(watermark / SMALL / 2);
        if used > watermark && state.pause == 0 {
            state.refuse(watermark / SMALL);
        }
    }
}

impl State {
    fn forget_unused(&mut self) {
        self.accounts.retain(|_, account| Arc::strong_count(account) > 1);
    }

    fn let_in(&self, small: u64) {
        for account in self.accounts.values().filter(|account| account.is_refused() && account.weight() < small) {
            account.is_refused.store(false, Ordering::Relaxed);
        }
    }

    fn refuse(&mut self, small: u64) {
        let is_first = !std::mem::replace(&mut self.is_above, true);
        let (used, watermark) = (self.used, self.watermark);
        let others = self.accounts.iter().filter(|(_, account)| !account.is_refused() && account.weight() >= small);
        // Of equal ones always the same.
        let Some((key, account)) = others.max_by_key(|(key, account)| (account.weight(), *key)) else {
            if is_first {
                tracing::warn!(used, watermark, "memory runs out, and no virtual cluster's account tells why");
            }
            return;
        };
        account.is_refused.store(true, Ordering::Relaxed);
        let grown = account.weight();
        tracing::warn!(tenant = %key.id, used, watermark, grown, "memory runs out: the one that grew most is refused");
        self.pause = PAUSE;
    }
}

impl Source for Memory {
    fn collect(&self, families: &mut Families) {
        let state = self.0.lock();
        if state.watermark == 0 {
            return;
        }
        let (used, watermark) = (state.used as f64, state.watermark as f64);
        families.gauge("portico_memory_used_bytes", "What the process uses, as it was measured last.", &[], used);
        families.gauge("portico_memory_watermark_bytes", "Above it tenants are refused.", &[], watermark);
        let mut accounts: Vec<_> = state.accounts.iter().collect();
        accounts.sort_by_key(|(key, _)| *key);
        // Of a cluster and its successor, for the moment in which both are there, the one with the larger uid.
        accounts.dedup_by(|(later, one), (earlier, other)| {
            let is_same = later.id == earlier.id;
            if is_same {
                (*earlier, *other) = (*later, *one);
            }
            is_same
        });
        for (key, account) in accounts {
            let tenant = [("namespace", key.id.namespace().as_str()), ("cluster", key.id.name().as_str())];
            let (all, refused) = (account.all() as f64, f64::from(u8::from(account.is_refused())));
            families.gauge("portico_memory_tenant_bytes", "What is kept of a tenant and moves for it.", &tenant, all);
            families.gauge("portico_memory_tenant_refused", "Whether it is refused (429).", &tenant, refused);
        }
    }
}

#[cfg(test)]
mod tests;
