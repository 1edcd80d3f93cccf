//! The audit log in the process: begun before the gateway, and ended behind it.

use std::sync::Arc;

use super::planes::Planes;
use crate::archive::{self, Archive};
use crate::config::AuditConfig;
use crate::runtime::telemetry::Source;

pub(super) fn start(planes: &Planes, config: &AuditConfig) -> anyhow::Result<Archive> {
    let archive = archive::start(config, &planes.clock)?;
    planes.metrics.register(Arc::clone(archive.counts()) as Arc<dyn Source>);
    let counts = Arc::clone(archive.counts());
    // As Kubernetes' own API servers, a replica whose audit log cannot be written stays ready: the others' cannot either, and
    // with `whenFull: block` reading goes on.
    planes.readiness.note(move || counts.notes());
    Ok(archive)
}

/// When the last request has left its event.
pub(super) async fn close(archive: Option<Archive>) {
    if let Some(archive) = archive {
        archive.close().await;
    }
}
