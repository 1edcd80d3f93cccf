//! What a virtual cluster may use of the gateway, the DNS and the syncer that all of them share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{Config, DnsConfig, GatewayConfig, SyncerConfig};

/// Limits that are tighter than those which the configuration gives to each virtual cluster. A field that is
/// absent, or asks for more than the configuration allows, means what the configuration allows; `status.limits` has the
/// outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Connections of callers who are known.
    #[schemars(range(min = 1))]
    pub connections: Option<u32>,
    /// Requests a second in the long run, watches and streams included.
    #[schemars(range(min = 1))]
    pub requests_per_second: Option<u32>,
    /// Requests at one moment, of a cluster that asked for nothing before.
    #[schemars(range(min = 1))]
    pub request_burst: Option<u32>,
    /// Requests in flight, watches and streams not counted. One user alone has three quarters of them at most, several
    /// have less each.
    #[schemars(range(min = 1))]
    pub requests_in_flight: Option<u32>,
    /// Watches and streams, shared among users likewise.
    #[schemars(range(min = 1))]
    pub long_running: Option<u32>,
    /// DNS questions a second in the long run on each replica, and twice as many at one moment. An answer that takes the
    /// work of several counts as several.
    #[schemars(range(min = 1))]
    pub dns_questions_per_second: Option<u32>,
    /// DNS questions a second that go on to the resolvers of the host, likewise.
    #[schemars(range(min = 1))]
    pub forwarded_questions_per_second: Option<u32>,
    /// Events that are written in it in a second in the long run, those of the host and Portico's own, and twenty times as many
    /// at one moment.
    #[schemars(range(min = 1))]
    pub events_per_second: Option<u32>,
}

/// Limits in force: see [`Limits`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GrantedLimits {
    /// At the gateway.
    #[serde(flatten)]
    pub gateway: GatewayLimits,
    /// In DNS.
    #[serde(flatten)]
    pub dns: DnsLimits,
    /// In the syncer.
    #[serde(flatten)]
    pub syncer: SyncerLimits,
}

/// Limits in force at the gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayLimits {
    /// Connections of callers who are known.
    pub connections: u32,
    /// Requests a second in the long run.
    pub requests_per_second: u32,
    /// Requests at one moment.
    pub request_burst: u32,
    /// Requests in flight, watches and streams not counted.
    pub requests_in_flight: u32,
    /// Watches and streams.
    pub long_running: u32,
}

/// Limits in force in DNS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DnsLimits {
    /// DNS questions a second in the long run, and twice as many at one moment.
    pub dns_questions_per_second: u32,
    /// DNS questions a second that go on to the resolvers of the host, likewise.
    pub forwarded_questions_per_second: u32,
}

/// Limits in force in the syncer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SyncerLimits {
    /// Events that are written in it in a second in the long run, and twenty times as many at one moment.
    pub events_per_second: u32,
}

impl Limits {
    /// The tighter of what is asked for and what the configuration allows.
    pub fn granted(&self, config: &Config) -> GrantedLimits {
        GrantedLimits {
            gateway: self.at_gateway(&config.gateway),
            dns: self.in_dns(&config.dns),
            syncer: self.in_syncer(&config.syncer),
        }
    }

    /// The part of [`Limits::granted`] that the gateway keeps.
    pub fn at_gateway(&self, config: &GatewayConfig) -> GatewayLimits {
        GatewayLimits {
            connections: least(self.connections, config.max_connections_per_tenant),
            requests_per_second: least(self.requests_per_second, config.max_requests_per_second_per_tenant),
            request_burst: least(self.request_burst, config.max_request_burst_per_tenant),
            requests_in_flight: least(self.requests_in_flight, config.max_requests_per_tenant),
            long_running: least(self.long_running, config.max_long_running_per_tenant),
        }
    }

    /// The part of [`Limits::granted`] that DNS keeps.
    pub fn in_dns(&self, config: &DnsConfig) -> DnsLimits {
        let (questions, forwarded) = (self.dns_questions_per_second, self.forwarded_questions_per_second);
        DnsLimits {
            dns_questions_per_second: least(questions, config.max_questions_per_second_per_tenant),
            forwarded_questions_per_second: least(forwarded, config.max_forwarded_per_second_per_tenant),
        }
    }

    /// The part of [`Limits::granted`] that the syncer keeps.
    pub fn in_syncer(&self, config: &SyncerConfig) -> SyncerLimits {
        let most = usize::try_from(config.max_events_per_second_per_tenant).unwrap_or(usize::MAX);
        SyncerLimits { events_per_second: least(self.events_per_second, most) }
    }
}

fn least(asked: Option<u32>, most: usize) -> u32 {
    let most = u32::try_from(most).unwrap_or(u32::MAX);
    asked.map_or(most, |asked| asked.clamp(1, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tighter_is_granted_and_wider_is_not() {
        let config = Config::default();
        let granted = Limits::default().granted(&config);
        assert_eq!(granted.gateway.requests_in_flight as usize, config.gateway.max_requests_per_tenant);
        assert_eq!(granted.dns.dns_questions_per_second as usize, config.dns.max_questions_per_second_per_tenant);
        let asked = Limits {
            requests_in_flight: Some(7),
            connections: Some(u32::MAX),
            request_burst: Some(0),
            dns_questions_per_second: Some(9),
            forwarded_questions_per_second: Some(u32::MAX),
            events_per_second: Some(3),
            ..Limits::default()
        };
        let GrantedLimits { gateway, dns, syncer } = asked.granted(&config);
        assert_eq!(syncer.events_per_second, 3);
        let more = Limits { events_per_second: Some(u32::MAX), ..Limits::default() }.in_syncer(&config.syncer);
        assert_eq!(more.events_per_second, config.syncer.max_events_per_second_per_tenant);
        assert_eq!((gateway.requests_in_flight, gateway.request_burst, dns.dns_questions_per_second), (7, 1, 9));
        assert_eq!(gateway.connections as usize, config.gateway.max_connections_per_tenant);
        assert_eq!(dns.forwarded_questions_per_second as usize, config.dns.max_forwarded_per_second_per_tenant);
    }

    #[test]
    fn a_status_shows_them_all_in_one_place() {
        let granted = Limits::default().granted(&Config::default());
        let shown = serde_json::to_value(granted).expect("json");
        assert!(shown["requestsInFlight"].is_u64() && shown["dnsQuestionsPerSecond"].is_u64(), "{shown}");
        assert!(shown["eventsPerSecond"].is_u64(), "{shown}");
        assert_eq!(serde_json::from_value::<GrantedLimits>(shown).expect("read back"), granted);
        let older = serde_json::json!({"connections": 3});
        let older: GrantedLimits = serde_json::from_value(older).expect("what an older version wrote");
        assert_eq!((older.gateway.connections, older.dns), (3, DnsLimits::default()));
    }
}
