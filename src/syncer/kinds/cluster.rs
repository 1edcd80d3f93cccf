//! What the host shows of itself inside a tenant: nodes.

use serde_json::Value;

use super::super::kind::TenantView;
use crate::translate::json;

/// Whether a host node is one of the tenant's.
pub(super) fn is_shown(node: &Value, view: &TenantView) -> bool {
    let labels = json::strings(node, "/metadata/labels");
    view.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
