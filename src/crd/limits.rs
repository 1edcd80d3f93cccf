//! What a virtual cluster may use of the gateway that all of them share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::GatewayConfig;

/// Limits that are tighter than those which the gateway's configuration gives to each virtual cluster. A field that is
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
}

/// Limits in force: see [`Limits`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GrantedLimits {
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

impl Limits {
    /// The tighter of what is asked for and what the configuration allows.
    pub fn granted(&self, config: &GatewayConfig) -> GrantedLimits {
        let least = |asked: Option<u32>, most: usize| {
            let most = u32::try_from(most).unwrap_or(u32::MAX);
            asked.map_or(most, |asked| asked.clamp(1, most))
        };
        GrantedLimits {
            connections: least(self.connections, config.max_connections_per_tenant),
            requests_per_second: least(self.requests_per_second, config.max_requests_per_second_per_tenant),
            request_burst: least(self.request_burst, config.max_request_burst_per_tenant),
            requests_in_flight: least(self.requests_in_flight, config.max_requests_per_tenant),
            long_running: least(self.long_running, config.max_long_running_per_tenant),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tighter_is_granted_and_wider_is_not() {
        let config = GatewayConfig::default();
        let granted = Limits::default().granted(&config);
        assert_eq!(granted.requests_in_flight as usize, config.max_requests_per_tenant);
        let asked = Limits {
            requests_in_flight: Some(7),
            connections: Some(u32::MAX),
            request_burst: Some(0),
            ..Limits::default()
        };
        let granted = asked.granted(&config);
        assert_eq!((granted.requests_in_flight, granted.request_burst), (7, 1));
        assert_eq!(granted.connections as usize, config.max_connections_per_tenant);
    }
}
