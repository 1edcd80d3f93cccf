//! Where it is written who leads.

use std::sync::Arc;

use serde_json::Value;

use super::record::{Candidate, Record};
use super::{config_map, lease};
use crate::error::{Error, Kind, Result};
use crate::kubernetes::Resource;
use crate::kubernetes::api::SharedCluster;
use crate::kubernetes::resources::{CONFIG_MAPS, LEASES};

/// An object on an API server that says who leads.
#[derive(Clone)]
pub struct Lock {
    host: SharedCluster,
    form: Form,
}

#[derive(Clone)]
enum Form {
    Lease,
    ConfigMap { owners: Owners },
}

/// Says the `ownerReferences` of a ConfigMap; None while they are not known.
pub type Owners = Arc<dyn Fn() -> Option<Vec<Value>> + Send + Sync>;

impl Lock {
    /// A Lease.
    pub fn lease(host: SharedCluster) -> Self {
        Self { host, form: Form::Lease }
    }

    /// A ConfigMap, for namespaces without a right to Leases; it goes with its `owners`, who are asked at each write.
    pub fn config_map(host: SharedCluster, owners: Owners) -> Self {
        Self { host, form: Form::ConfigMap { owners } }
    }

    /// What is written, if anything is.
    pub(super) async fn read(&self, candidate: &Candidate) -> Result<Option<Record>> {
        let found = self.host.get(self.resource(), Some(&candidate.namespace), &candidate.lease).await?;
        Ok(found.map(|object| match &self.form {
            Form::Lease => lease::record(&object),
            Form::ConfigMap { .. } => config_map::record(&object),
        }))
    }

    /// Creates it (no version) or replaces exactly that version; yields the new version. `Conflict` or `AlreadyExists` when
    /// somebody else was faster.
    pub(super) async fn write(&self, candidate: &Candidate, record: &Record) -> Result<String> {
        let mut object = match &self.form {
            Form::Lease => lease::object(candidate, record),
            Form::ConfigMap { owners } => {
                let unknown = || Error::own(Kind::Unavailable, "who owns the lock is not known yet");
                config_map::object(candidate, record, &owners().ok_or_else(unknown)?)
            }
        };
        let (resource, namespace) = (self.resource(), Some(candidate.namespace.as_str()));
        let written = if record.version.is_empty() {
            self.host.create(resource, namespace, ("", ""), &object).await?
        } else {
            object["metadata"]["resourceVersion"] = record.version.as_str().into();
            self.host.replace(resource, namespace, &candidate.lease, &object).await?
        };
        let version = written["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        version.ok_or_else(|| Error::host(Kind::Protocol, format!("a {} came back without a version", resource.kind)))
    }

    fn resource(&self) -> &'static Resource {
        match self.form {
            Form::Lease => &LEASES,
            Form::ConfigMap { .. } => &CONFIG_MAPS,
        }
    }
}
