//! Who is refused when memory runs out, and who is not.

use super::*;
use crate::runtime::telemetry::Metrics;

const MIB: usize = 1 << 20;
const MARK: u64 = 1 << 30;
const ABOVE: u64 = MARK + 1;
const ENOUGH: u64 = MARK / 2;

fn account(memory: &Memory, name: &str) -> Arc<Account> {
    memory.account(&TenantId::parse("team", name).expect("id"), "u")
}

fn refused(accounts: &[&Arc<Account>]) -> Vec<bool> {
    accounts.iter().map(|account| account.is_refused()).collect()
}

#[test]
fn the_one_that_moves_most_is_refused_and_let_in_again_when_there_is_enough() {
    let memory = Memory::default();
    let (hostile, other) = (account(&memory, "hostile"), account(&memory, "other"));
    hostile.take(100 * MIB);
    other.take(40 * MIB);
    memory.measured(MARK, MARK);
    assert_eq!(refused(&[&hostile, &other]), [false, false], "not above it yet");
    memory.measured(ABOVE, MARK);
    assert_eq!(refused(&[&hostile, &other]), [true, false]);
    memory.measured(MARK - 1, MARK);
    assert_eq!(refused(&[&hostile, &other]), [true, false], "some way below, not a byte");
    memory.measured(ENOUGH, MARK);
    assert_eq!(refused(&[&hostile, &other]), [false, false]);
}

#[test]
fn a_large_one_that_stands_still_is_never_refused_for_one_that_grows() {
    let memory = Memory::default();
    let (large, growing) = (account(&memory, "large"), account(&memory, "growing"));
    large.kept(0, 500 * MIB);
    memory.measured(ENOUGH, MARK);
    growing.kept(0, 60 * MIB);
    memory.measured(ABOVE, MARK);
    assert_eq!(refused(&[&large, &growing]), [false, true]);
    for _ in 0..100 {
        memory.measured(ABOVE, MARK);
    }
    assert_eq!(refused(&[&large, &growing]), [false, true]);
}

/// The process begins anew, and takes more than it should from the beginning.
#[test]
fn what_is_found_at_first_is_no_growth_and_what_comes_to_it_is() {
    let memory = Memory::default();
    let (large, growing) = (account(&memory, "large"), account(&memory, "growing"));
    for _ in 0..10 {
        large.found(0, 50 * MIB);
        growing.found(0, 2 * MIB);
        memory.measured(ABOVE, MARK);
    }
    assert_eq!(refused(&[&large, &growing]), [false, false], "no account tells why");
    growing.kept(2 * MIB, 42 * MIB);
    memory.measured(ABOVE, MARK);
    assert_eq!(refused(&[&large, &growing]), [false, true]);
    // The work goes to another replica and comes back.
    large.found(500 * MIB, 0);
    large.found(0, 500 * MIB);
    large.kept(0, 40 * MIB);
    for _ in 0..PAUSE {
        memory.measured(ABOVE, MARK);
    }
    assert_eq!(refused(&[&large, &growing]), [true, true], "who came back large may not grow the more");
}

#[test]
fn memory_that_is_on_no_account_is_nobodys() {
    let memory = Memory::default();
    let ordinary = account(&memory, "ordinary");
    ordinary.take(31 * MIB);
    for _ in 0..100 {
        memory.measured(2 * MARK, MARK);
    }
    assert!(!ordinary.is_refused(), "whoever holds what is not accounted for cannot have it refused");
    ordinary.take(MIB);
    memory.measured(ABOVE, MARK);
    assert!(ordinary.is_refused());
}

#[test]
fn the_next_one_is_refused_only_when_the_first_was_not_enough() {
    let memory = Memory::default();
    let all = [account(&memory, "a"), account(&memory, "b"), account(&memory, "c")];
    for (account, part) in all.iter().zip([90, 80, 10]) {
        account.take(part * MIB);
    }
    let [a, b, c] = &all;
    for _ in 0..PAUSE {
        memory.measured(ABOVE, MARK);
        assert_eq!(refused(&[a, b, c]), [true, false, false]);
    }
    memory.measured(ABOVE, MARK);
    assert_eq!(refused(&[a, b, c]), [true, true, false]);
}

#[test]
fn who_gave_back_what_he_had_is_let_in_although_it_is_not_enough() {
    let memory = Memory::default();
    let hostile = account(&memory, "hostile");
    hostile.take(100 * MIB);
    memory.measured(ABOVE, MARK);
    hostile.give_back(90 * MIB);
    memory.measured(ABOVE, MARK);
    assert!(!hostile.is_refused());
}

#[test]
fn a_cluster_that_is_made_again_is_another_one_and_one_that_is_gone_takes_nothing() {
    let memory = Memory::default();
    let id = TenantId::parse("team", "a").expect("id");
    let first = memory.account(&id, "1");
    first.take(100 * MIB);
    memory.measured(ABOVE, MARK);
    let second = memory.account(&id, "2");
    assert_eq!(refused(&[&first, &second]), [true, false]);
    let metrics = Metrics::default();
    metrics.register(Arc::new(memory.clone()));
    let text = metrics.render().expect("renders");
    assert_eq!(text.matches("portico_memory_tenant_bytes{").count(), 1, "{text}");
    drop((first, second));
    memory.measured(ABOVE, MARK);
    assert!(memory.0.lock().accounts.is_empty());
}

#[test]
fn who_has_gone_leaves_no_account_where_nothing_is_measured() {
    let memory = Memory::default();
    let kept = account(&memory, "kept");
    kept.take(1);
    for n in 0..1000 {
        account(&memory, &format!("t{n}"));
    }
    assert_eq!(memory.0.lock().accounts.len(), 2, "the one that stays, and the last");
    assert_eq!(account(&memory, "kept").moving(), 1);
}
