//! Whose turn it is to ask issuers for their keys: few at once, of one tenant and at one server fewer, so that one that is slow or hostile
//! delays only those who use it. Must not know how they are asked.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::names::TenantId;

/// Issuers that are asked at once; by one tenant, and at one server.
const AT_ONCE: usize = 16;
const OF_TENANT: usize = 2;
const OF_SERVER: usize = 4;

/// Who may ask now.
#[derive(Debug)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    /// Of tenants and of servers, as long as somebody asks.
    of_one: Arc<Mutex<HashMap<Key, usize>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Tenant(TenantId),
    Server(String, u16),
}

/// A turn; over when it is dropped.
pub(super) struct Turn {
    of_one: Arc<Mutex<HashMap<Key, usize>>>,
    keys: [Key; 2],
    of_all: Option<OwnedSemaphorePermit>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(AT_ONCE)), of_one: Arc::default() }
    }
}

impl Turns {
    /// Waits for a turn: the tenant's and the server's own first, so that nobody who waits for those holds one of all. The
    /// caller's deadline ends it.
    pub(super) fn of(
        &self,
        tenant: &TenantId,
        (host, port): (&str, u16),
    ) -> impl Future<Output = Turn> + Send + 'static {
        let keys = [Key::Tenant(tenant.clone()), Key::Server(host.to_owned(), port)];
        let (all, of_one) = (Arc::clone(&self.all), Arc::clone(&self.of_one));
        async move {
            let mut pause = Duration::from_millis(10);
            while !take(&of_one, &keys) {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(200));
            }
            let mut turn = Turn { of_one, keys, of_all: None };
            turn.of_all = all.acquire_owned().await.ok();
            turn
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut of_one = self.of_one.lock();
        for key in &self.keys {
            if let Some(count) = of_one.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    of_one.remove(key);
                }
            }
        }
    }
}

/// Whether there is one for both.
fn take(of_one: &Mutex<HashMap<Key, usize>>, keys: &[Key; 2]) -> bool {
    let mut of_one = of_one.lock();
    let is_free = |key: &Key| {
        let most = match key {
            Key::Tenant(_) => OF_TENANT,
            Key::Server(..) => OF_SERVER,
        };
        of_one.get(key).is_none_or(|count| *count < most)
    };
    if !keys.iter().all(is_free) {
        return false;
    }
    keys.iter().for_each(|key| *of_one.entry(key.clone()).or_default() += 1);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_and_one_server_have_their_part_of_the_turns() {
        let (all, id) = (Mutex::default(), |name: &str| TenantId::parse("team", name).expect("a name"));
        let keys = |tenant: &str, server: &str| [Key::Tenant(id(tenant)), Key::Server(server.to_owned(), 443)];
        assert!(take(&all, &keys("a", "slow")) && take(&all, &keys("a", "other")));
        assert!(!take(&all, &keys("a", "third")), "a tenant has two");
        assert!(take(&all, &keys("b", "slow")) && take(&all, &keys("c", "slow")) && take(&all, &keys("d", "slow")));
        assert!(!take(&all, &keys("e", "slow")), "a server has four");
        assert!(take(&all, &keys("e", "fast")));
    }
}
