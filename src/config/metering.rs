//! How what virtual clusters use is measured and kept.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::span::Span;
use crate::error::{Error, Kind, Result};

const SHORTEST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(60);
const MOST_DAYS: u32 = 3660;

/// What virtual clusters use, as `portico usage` tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MeteringConfig {
    /// Whether it is measured and kept, in ConfigMaps of Portico's own namespace.
    pub enabled: bool,
    /// How often pods are read, and what was counted is written: a replica that is killed loses at most twice that. From 10s
    /// to 60s.
    pub interval: Span,
    /// Days for which each hour is kept by itself.
    pub keep_hours_for_days: u32,
    /// Days that are kept at all, the older ones as sums of the day.
    pub keep_days: u32,
}

impl Default for MeteringConfig {
    fn default() -> Self {
        Self { enabled: true, interval: Span(Duration::from_secs(30)), keep_hours_for_days: 3, keep_days: 93 }
    }
}

impl MeteringConfig {
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |message: &str| Err(Error::client(Kind::Invalid, format!("metering.{message}")));
        if !(SHORTEST..=LONGEST).contains(&self.interval.0) {
            return refuse("interval: from 10s to 60s");
        }
        if !(1..=MOST_DAYS).contains(&self.keep_days) {
            return refuse("keepDays: from 1 to 3660");
        }
        if !(1..=self.keep_days).contains(&self.keep_hours_for_days) {
            return refuse("keepHoursForDays: from 1 to keepDays");
        }
        Ok(())
    }
}
