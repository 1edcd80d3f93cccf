//! What one tenant's users, or anybody, can take from the others and from Portico itself: nothing that is noticed.
//!
//! Ignored by default, since tests beside them would meet their floods: `tests/e2e/run` runs these behind the others, alone.

use serde_json::json;

use crate::harness::{
    Dump, PORTICO, SYSTEM, SlowPosts, alpha, beta, eventually_is, kubectl, memory, restarts, settled,
};

/// Before: 1.2 GB in two replicas, half a minute long, and every seat of the tenant.
#[test]
#[ignore = "floods the gateway; tests/e2e/run runs it alone"]
fn hostile_slow_posts_with_an_invented_token_take_nothing_from_those_who_are_known() {
    settled();
    let space = alpha().space("flood");
    let _dump = Dump(vec![alpha(), beta()]);
    let account =
        space.account("reader", &json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]));
    let known = || {
        space.kubectl(&["get", "configmaps"]).ok();
        kubectl(&account, &["-n", &space.name, "get", "configmaps"]).ok();
        beta().kubectl(&["get", "namespaces"]).ok();
    };
    known();
    let (before, restarted) = (memory(SYSTEM, PORTICO), restarts(SYSTEM, PORTICO));
    let path = format!("{}/api/v1/namespaces/default/services", alpha().path());
    let flood = SlowPosts::start(&beta().kubeconfig, &path, "x", 300);
    let mut most = before.clone();
    let mut rounds = 0;
    eventually_is("the flood is answered while others work", || {
        known();
        for (container, bytes) in memory(SYSTEM, PORTICO) {
            let most = most.entry(container).or_default();
            *most = bytes.max(*most);
        }
        rounds += 1;
        rounds >= 10 && flood.are_answered()
    });
    space.kubectl(&["create", "service", "clusterip", "web", "--tcp=80"]).ok();
    let answers = flood.answers();
    // 503: an API server ends the connection on which it refused a token, and others that nobody knows were on it too.
    assert!(answers.iter().all(|code| [0, 401, 429, 503].contains(code)), "{answers:?}");
    assert!(answers.contains(&401), "{answers:?}");
    for (container, bytes) in &most {
        let grown = bytes.saturating_sub(before.get(container).copied().unwrap_or_default());
        assert!(grown < 150 << 20, "{container} grew by {} MiB", grown >> 20);
    }
    assert_eq!(restarts(SYSTEM, PORTICO), restarted);
}
