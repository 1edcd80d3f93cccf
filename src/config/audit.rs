//! What of the requests that pass the gateway is written down, and where.

pub mod rule;

use serde::{Deserialize, Serialize};

pub use self::rule::{AuditLevel, AuditResources, AuditRule, Stage};
use crate::error::{Error, Kind, Result};

/// For the queue; less would not hold the events of one moment, and an outsider's requests could take a tenant's part of it.
const QUEUE: std::ops::RangeInclusive<usize> = 4 << 20..=1 << 30;
const MOST_MEGABYTES: u64 = 1 << 20;
const MOST_FILES: u32 = 1000;
/// A spool has at least so many segments of a megabyte.
const LEAST_SPOOL: u64 = 8;
const MOST_RATE: u32 = 1_000_000;

/// The audit log of the gateway, in the form of Kubernetes' own (`audit.k8s.io/v1`). Off by default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AuditConfig {
    /// Whether there is one. It needs `file.path`, `webhook.url` or both.
    pub enabled: bool,
    /// What is written of all virtual clusters.
    pub policy: AuditPolicy,
    /// Whether a VirtualCluster may ask for more of itself, in `spec.audit`. It can never take anything away.
    pub tenants: bool,
    /// Whether requests that are answered with 401 or 403 are written whatever the rules say.
    pub refused: bool,
    /// When events cannot be written: `drop` loses and counts them, `block` refuses the requests that would leave one, with 503,
    /// and with 429 when it is their own virtual cluster that has too many.
    pub when_full: WhenFull,
    /// Events of one virtual cluster in a second in the long run, and ten times as many at one moment: what one writes neither
    /// fills the disk nor pushes out what others wrote.
    pub max_events_per_second_per_tenant: u32,
    /// Bytes of events that wait to be written, all virtual clusters; one has a quarter of it at most.
    pub max_queued_bytes: usize,
    /// A file of JSON lines.
    pub file: AuditFile,
    /// Where events for the webhook wait.
    pub spool: AuditSpool,
    /// Where they are sent.
    pub webhook: AuditWebhook,
}

/// Rules as in Kubernetes' audit policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AuditPolicy {
    /// Stages of which nothing is written, whatever a rule says.
    pub omit_stages: Vec<Stage>,
    /// The first rule that matches a request decides; where none does, nothing is written. Levels are `None` and `Metadata`:
    /// bodies are never kept. The default writes streams, Secrets and what changes something.
    pub rules: Vec<AuditRule>,
}

/// What happens when events cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhenFull {
    /// They are lost, and counted.
    Drop,
    /// Requests that would leave one are refused.
    Block,
}

/// A file of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AuditFile {
    /// Its path; empty: there is none. A second replica on the same volume writes `NAME-1.EXT`, and so on.
    pub path: String,
    /// It is renamed to `….1` before it has more megabytes than these.
    #[serde(rename = "maxSizeMB")]
    pub max_size_mb: u64,
    /// So many files are kept, the one that is written included.
    pub max_files: u32,
}

/// Events on their way to the webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AuditSpool {
    /// A directory; each replica has one of its own in it, and sends what it finds of replicas that are gone.
    pub path: String,
    /// Megabytes that may wait there, of each replica.
    #[serde(rename = "maxSizeMB")]
    pub max_size_mb: u64,
}

/// Who is sent events, in batches (`EventList`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AuditWebhook {
    /// An https URL; empty: nobody is.
    pub url: String,
    /// PEM file of the CAs of its certificate.
    pub ca_file: String,
    /// File of a bearer token that is shown there, read again every minute; empty: none is.
    pub token_file: String,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            policy: AuditPolicy::default(),
            tenants: true,
            refused: true,
            when_full: WhenFull::Drop,
            max_events_per_second_per_tenant: 500,
            max_queued_bytes: 16 << 20,
            file: AuditFile::default(),
            spool: AuditSpool::default(),
            webhook: AuditWebhook::default(),
        }
    }
}

impl Default for AuditPolicy {
    fn default() -> Self {
        Self { omit_stages: Vec::new(), rules: rule::defaults() }
    }
}

impl Default for AuditFile {
    fn default() -> Self {
        Self { path: String::new(), max_size_mb: 100, max_files: 10 }
    }
}

impl Default for AuditSpool {
    fn default() -> Self {
        Self { path: String::new(), max_size_mb: 512 }
    }
}

impl AuditConfig {
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |message: &str| Err(Error::client(Kind::Invalid, format!("audit.{message}")));
        if let Some(fault) = rule::fault(&self.policy.rules) {
            return refuse(&format!("policy.{fault}"));
        }
        if self.policy.omit_stages.len() > rule::MOST_STAGES {
            return refuse("policy.omitStages: each stage once");
        }
        if !QUEUE.contains(&self.max_queued_bytes) {
            return refuse("maxQueuedBytes: from 4194304 to 1073741824");
        }
        if !(1..=MOST_RATE).contains(&self.max_events_per_second_per_tenant) {
            return refuse("maxEventsPerSecondPerTenant: from 1 to 1000000");
        }
        if !(1..=MOST_MEGABYTES).contains(&self.file.max_size_mb) || !(1..=MOST_FILES).contains(&self.file.max_files) {
            return refuse("file: maxSizeMB from 1 to 1048576, maxFiles from 1 to 1000");
        }
        if !(LEAST_SPOOL..=MOST_MEGABYTES).contains(&self.spool.max_size_mb) {
            return refuse("spool.maxSizeMB: from 8 to 1048576");
        }
        let has_webhook = !self.webhook.url.is_empty();
        if has_webhook && !self.webhook.url.starts_with("https://") {
            return refuse("webhook.url: only https");
        }
        if has_webhook && (self.webhook.ca_file.is_empty() || self.spool.path.is_empty()) {
            return refuse("webhook needs caFile, and spool.path for what waits");
        }
        if self.enabled && self.file.path.is_empty() && !has_webhook {
            return refuse("enabled needs file.path or webhook.url");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn what_cannot_be_kept_or_would_be_misread_is_refused() {
        for (nonsense, word) in [
            ("enabled: true", "file.path or webhook.url"),
            ("webhook: {url: 'http://x'}", "only https"),
            ("webhook: {url: 'https://x'}", "caFile"),
            ("webhook: {url: 'https://x', caFile: /ca}", "spool.path"),
            ("maxQueuedBytes: 1", "maxQueuedBytes"),
            ("maxEventsPerSecondPerTenant: 0", "maxEventsPerSecondPerTenant"),
            ("file: {maxFiles: 0}", "maxFiles"),
            ("spool: {maxSizeMB: 1}", "spool.maxSizeMB"),
            ("policy: {rules: [{level: Request}]}", "bodies are never kept"),
            ("policy: {rules: [{level: RequestResponse}]}", "bodies are never kept"),
            ("policy: {rules: [{level: Metadata, nonResourceURLs: [/x], namespaces: [a]}]}", "exclude"),
            ("policy: {rules: [{level: Metadata, nonResourceURLs: ['/*/x']}]}", "end"),
            ("policy: {rules: [{level: Metadata, nonResourceURLs: [x]}]}", "begins"),
            ("policy: {rules: [{level: Metadata, resources: [{resourceNames: [x]}]}]}", "resourceNames"),
        ] {
            let refusal = Config::parse(&format!("audit: {{{nonsense}}}")).expect_err(nonsense).to_string();
            assert!(refusal.contains(word), "{nonsense}: {refusal}");
        }
        for unreadable in
            ["policy: {rules: [{}]}", "policy: {rules: [{level: All}]}", "policy: {rules: [{level: None, user: [a]}]}"]
        {
            assert!(Config::parse(&format!("audit: {{{unreadable}}}")).is_err(), "{unreadable}");
        }
        let many = "{level: None},".repeat(65);
        assert!(Config::parse(&format!("audit: {{policy: {{rules: [{many}]}}}}")).is_err());
        assert!(Config::parse("audit: {enabled: true, file: {path: /a/audit.log}}").is_ok());
    }
}
