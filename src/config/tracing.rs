//! Traces: where they go, and how many there are.

use http::Uri;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

const MILLION: u32 = 1_000_000;
const MOST_PER_SECOND: u32 = 10_000;

/// Traces by OpenTelemetry's protocol (OTLP over HTTP).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TracingConfig {
    /// Of the collector, with its path: `http://otel-collector.observability:4318/v1/traces`. Empty: no traces.
    pub endpoint: String,
    /// File with the CA (PEM) that signs the collector's certificate; needed for `https`.
    pub certificate_authority: String,
    /// File with headers that the collector wants, a token for instance: one `Name: value` a line. Read at start.
    pub headers_file: String,
    /// So many of a million requests are traced.
    pub sampling_rate_per_million: u32,
    /// Whether a request with a `traceparent` whose sampled flag is set is traced as a part of its caller's trace, whatever the rate,
    /// and one whose flag is not set is not. Only of callers who are known.
    pub trust_parents: bool,
    /// Traces begun in a second, of all virtual clusters together. What is beyond is not traced.
    pub max_traces_per_second: u32,
    /// The same of one virtual cluster, so that nobody's requests use up what others have.
    pub max_traces_per_second_per_tenant: u32,
}

impl Default for TracingConfig {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            certificate_authority: String::new(),
            headers_file: String::new(),
            sampling_rate_per_million: 1_000,
            trust_parents: true,
            max_traces_per_second: 100,
            max_traces_per_second_per_tenant: 10,
        }
    }
}

impl TracingConfig {
    /// Whether there are traces.
    pub fn is_on(&self) -> bool {
        !self.endpoint.is_empty()
    }

    pub(super) fn check(&self) -> Result<()> {
        let refuse = |message: &str| Err(Error::client(Kind::Invalid, format!("tracing.{message}")));
        if self.is_on() {
            let uri: Option<Uri> = self.endpoint.parse().ok();
            let scheme = uri.as_ref().filter(|uri| uri.host().is_some()).and_then(Uri::scheme_str);
            match scheme {
                Some("http") => {}
                Some("https") if self.certificate_authority.is_empty() => {
                    return refuse("certificateAuthority: needed for an endpoint by https");
                }
                Some("https") => {}
                _ => return refuse("endpoint: as http://otel-collector.observability:4318/v1/traces, http or https"),
            }
        }
        if self.sampling_rate_per_million > MILLION {
            return refuse("samplingRatePerMillion: from 0 to 1000000");
        }
        if !(1..=MOST_PER_SECOND).contains(&self.max_traces_per_second) {
            return refuse("maxTracesPerSecond: from 1 to 10000");
        }
        if !(1..=self.max_traces_per_second).contains(&self.max_traces_per_second_per_tenant) {
            return refuse("maxTracesPerSecondPerTenant: from 1 to maxTracesPerSecond");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_with_what_to_write() {
        let on = TracingConfig { endpoint: "http://collector:4318/v1/traces".to_owned(), ..TracingConfig::default() };
        assert!(TracingConfig::default().check().is_ok() && on.check().is_ok());
        let secure = TracingConfig { endpoint: "https://collector/v1/traces".to_owned(), ..on.clone() };
        assert!(secure.check().is_err_and(|e| e.message().contains("certificateAuthority")));
        assert!(TracingConfig { certificate_authority: "ca.crt".to_owned(), ..secure }.check().is_ok());
        for bad in [
            TracingConfig { endpoint: "collector:4318".to_owned(), ..on.clone() },
            TracingConfig { endpoint: "ftp://collector/".to_owned(), ..on.clone() },
            TracingConfig { sampling_rate_per_million: 1_000_001, ..on.clone() },
            TracingConfig { max_traces_per_second: 0, ..on.clone() },
            TracingConfig { max_traces_per_second_per_tenant: 101, ..on.clone() },
            TracingConfig { max_traces_per_second_per_tenant: 0, ..on },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
