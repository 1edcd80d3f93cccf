//! The configuration and what users write into a VirtualCluster, over a mutated corpus.

use super::VirtualClusterSpec;
use crate::config::Config;
use crate::runtime::fuzz;

/// What is accepted reads the same when it is written again.
#[test]
fn configurations() {
    fuzz::bytes("configurations", &[], |input| {
        let config = Config::parse(std::str::from_utf8(input).ok()?).ok()?;
        let text = serde_json::to_string(&config).expect("written");
        assert_eq!(Config::parse(&text).expect("accepted again"), config);
        Some(text)
    });
}

/// The same of specs; and none makes a limit wider than the configuration's.
#[test]
fn specs() {
    let config = Config::default();
    fuzz::json("specs", &[], |input| {
        let spec: VirtualClusterSpec = serde_json::from_value(input.clone()).ok()?;
        let value = serde_json::to_value(&spec).expect("written");
        let again: VirtualClusterSpec = serde_json::from_value(value.clone()).expect("accepted again");
        assert_eq!(serde_json::to_value(&again).expect("written"), value);
        let granted = spec.limits.at_gateway(&config.gateway);
        assert!(granted.connections as usize <= config.gateway.max_connections_per_tenant);
        assert!(granted.requests_in_flight as usize <= config.gateway.max_requests_per_tenant);
        assert!(granted.long_running as usize <= config.gateway.max_long_running_per_tenant);
        let events = spec.limits.in_syncer(&config.syncer).events_per_second;
        assert!((1..=config.syncer.max_events_per_second_per_tenant).contains(&events));
        Some(value.to_string().len() / 16)
    });
}
