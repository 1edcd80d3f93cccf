//! How much of all tenants' objects is kept: a bound for the process, and one for each tenant.
//!
//! Promises: a tenant that keeps less than its even part of the whole is never refused for what others keep. Must not know
//! objects; what becomes of one for which there is no room, `tenant` and `worker` know.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::config::SyncerConfig;
use crate::tenant::memory::Account;

/// Of the process.
#[derive(Debug)]
pub struct Budget {
    all: usize,
    tenant: usize,
    held: AtomicUsize,
    tenants: AtomicUsize,
}

/// One tenant's, given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    held: AtomicUsize,
    /// Where all that is kept for this tenant is told.
    account: Arc<Account>,
    /// All was read once. What came until then was there before.
    is_read: AtomicBool,
}

impl Budget {
    /// Nothing held.
    pub fn new(config: &SyncerConfig) -> Arc<Self> {
        let (all, tenant) = (config.max_cached_bytes, config.max_cached_bytes_per_tenant);
        Arc::new(Self { all, tenant, held: AtomicUsize::new(0), tenants: AtomicUsize::new(0) })
    }

    /// Of one tenant more.
    pub fn share(self: &Arc<Self>, account: Arc<Account>) -> Share {
        self.tenants.fetch_add(1, Ordering::Relaxed);
        Share { budget: Arc::clone(self), held: AtomicUsize::new(0), account, is_read: AtomicBool::new(false) }
    }
}

impl Share {
    /// Bytes held.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Bytes that may come to those that are held.
    pub fn room(&self) -> usize {
        let budget = &*self.budget;
        let own = budget.tenant.saturating_sub(self.held());
        let even = budget.all / budget.tenants.load(Ordering::Relaxed).max(1);
        let free = budget.all.saturating_sub(budget.held.load(Ordering::Relaxed));
        own.min(free.max(even.saturating_sub(self.held())))
    }

    /// Everything was read for the first time: what comes from now on is new.
    pub fn is_read(&self) {
        self.is_read.store(true, Ordering::Relaxed);
    }

    /// So much was held of something, and so much is now.
    pub fn moved(&self, before: usize, after: usize) {
        if self.is_read.load(Ordering::Relaxed) {
            self.account.kept(before, after);
        } else {
            self.account.found(before, after);
        }
        for held in [&self.held, &self.budget.held] {
            if after >= before {
                held.fetch_add(after - before, Ordering::Relaxed);
            } else {
                held.fetch_sub(before - after, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let held = *self.held.get_mut();
        self.account.found(held, 0);
        self.budget.held.fetch_sub(held, Ordering::Relaxed);
        self.budget.tenants.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(all: usize, tenant: usize) -> Arc<Budget> {
        let config =
            SyncerConfig { max_cached_bytes: all, max_cached_bytes_per_tenant: tenant, ..SyncerConfig::default() };
        Budget::new(&config)
    }

    #[test]
    fn who_keeps_much_is_refused_first() {
        let budget = budget(100, 80);
        let account = Arc::<Account>::default();
        let share = || budget.share(Arc::clone(&account));
        let (large, small, third) = (share(), share(), share());
        assert_eq!(large.room(), 80);
        large.moved(0, 80);
        assert_eq!((large.room(), small.room()), (0, 33), "an even part, though but 20 are free");
        small.moved(0, 33);
        assert_eq!((small.room(), third.room()), (0, 33));
        small.moved(33, 10);
        assert_eq!(small.room(), 23);
        drop(large);
        assert_eq!(small.room(), 70);
        drop((small, third));
        assert_eq!(budget.held.load(Ordering::Relaxed), 0);
    }
}
