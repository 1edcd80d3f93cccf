//! One request of an aggregator: what those who answer it need of it.

use std::sync::Arc;
use std::time::Duration;

use crate::gateway::api::RequestInfo;
use crate::gateway::connection::Connection;
use crate::gateway::record::Record;
use crate::gateway::tenants::TenantState;
use crate::tenant::Tenant;

/// For an answer. The API server's own patience with whoever extends it is longer.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// One request of an aggregator.
pub(in crate::gateway) struct Asked<'a> {
    pub(in crate::gateway) connection: &'a Arc<Connection>,
    pub(in crate::gateway) tenant: &'a Arc<Tenant>,
    pub(in crate::gateway) state: &'a Arc<TenantState>,
    pub(in crate::gateway) record: &'a Arc<Record>,
    /// As the aggregator says it: for the log, and for whom a seat is.
    pub(in crate::gateway) user: &'a str,
    /// As written.
    pub(in crate::gateway) path: &'a str,
    pub(in crate::gateway) info: RequestInfo,
}
