//! A tenant's own API server as aggregator: what those who answer its request need of it.

use std::sync::Arc;
use std::time::Duration;

use super::api::RequestInfo;
use super::connection::Connection;
use super::record::Record;
use super::tenants::TenantState;
use crate::tenant::Tenant;

/// For an answer. The API server's own patience with whoever extends it is longer.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// One request of its.
pub(super) struct Asked<'a> {
    pub(super) connection: &'a Arc<Connection>,
    pub(super) tenant: &'a Arc<Tenant>,
    pub(super) state: &'a Arc<TenantState>,
    pub(super) record: &'a Arc<Record>,
    /// As the aggregator says it: for the log, and for whom a seat is.
    pub(super) user: &'a str,
    /// As written.
    pub(super) path: &'a str,
    pub(super) info: RequestInfo,
}
