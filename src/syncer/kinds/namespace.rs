//! Namespaces stay in the tenant; they are watched for their labels. When one is deleted, the tenant's own controllers
//! delete what is inside, and each object's deletion is synced.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::kind::{Direction, HostScope, Lookup, ObjectKey, Plan, ResourceSyncer, TenantView};
use crate::kubernetes::Resource;
use crate::kubernetes::resources::NAMESPACES;
use crate::translate::summary::{NamespaceSummary, Summary};

/// The kind.
#[derive(Debug)]
pub struct NamespaceKind;

impl ResourceSyncer for NamespaceKind {
    fn resource(&self) -> Resource {
        NAMESPACES
    }

    fn host_scope(&self) -> HostScope {
        HostScope::None
    }

    fn project(&self, object: Value, _side: Direction) -> Value {
        let part = |pointer: &str| object.pointer(pointer).cloned().unwrap_or_default();
        json!({"metadata": {
            "name": part("/metadata/name"), "uid": part("/metadata/uid"), "labels": part("/metadata/labels"),
            "resourceVersion": part("/metadata/resourceVersion"), "deletionTimestamp": part("/metadata/deletionTimestamp"),
        }})
    }

    fn summary(&self, object: &Value) -> Option<Summary> {
        Some(Summary::Namespace(Arc::new(NamespaceSummary::of(object))))
    }

    fn virtual_key(&self, _host: &Value, _view: &TenantView) -> Option<ObjectKey> {
        None
    }

    fn host_name(&self, _key: &ObjectKey, _view: &TenantView) -> Option<String> {
        None
    }

    fn plan(
        &self,
        _key: &ObjectKey,
        _virtual_object: Option<&Value>,
        _host: Option<&Value>,
        _view: &TenantView,
        _lookup: &dyn Lookup,
    ) -> Plan {
        Plan::default()
    }
}
