//! How much memory the process may take before who takes most of it is refused.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// Memory of the process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MemoryConfig {
    /// Above so many percent of the limit the virtual cluster whose requests and objects grew most gets 429 for requests that
    /// take memory, until there is a sixteenth of that less. 0: nobody is ever refused for it.
    pub watermark_percent: u8,
    /// The limit in bytes; 0: that of the container. Where that is not known either, nobody is refused.
    pub limit_bytes: u64,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { watermark_percent: 85, limit_bytes: 0 }
    }
}

impl MemoryConfig {
    /// The watermark in bytes, with what the container may take.
    pub fn watermark(&self, container: Option<u64>) -> Option<u64> {
        let limit = if self.limit_bytes > 0 { Some(self.limit_bytes) } else { container }?;
        (self.watermark_percent > 0).then(|| limit / 100 * u64::from(self.watermark_percent))
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.watermark_percent > 100 {
            return Err(Error::client(Kind::Invalid, "memory.watermarkPercent must be 0 to 100"));
        }
        Ok(())
    }
}
