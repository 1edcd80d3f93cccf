//! Whether k3s takes the cluster IPs of the host: they are shared, so its `--service-cidr` must hold the host's range.

use crate::error::Result;
use crate::kubernetes::resources::{SERVICE_CIDRS, SERVICES};
use crate::kubernetes::rights::Access;
use crate::kubernetes::{ApiClient, ListOptions, service_range};
use crate::sidecar::state::State;
use crate::tenant::Tenant;

/// Done once for each generation of the tenant that answers.
#[derive(Debug, Default)]
pub(super) struct Check {
    range: Option<String>,
    compared: Option<u64>,
    /// Whether the last run had its answer.
    done: bool,
}

/// Whom the host is asked as, and where.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) host: &'a ApiClient,
    pub(super) access: &'a Access,
    pub(super) namespace: &'a str,
}

impl Check {
    /// Says what is wrong in the notes; a server that does not answer yet is asked again in a later round.
    pub(super) async fn run(&mut self, asking: &Asking<'_>, tenant: &Tenant, state: &State) {
        self.compare(asking, tenant, state).await;
        self.done = self.compared == Some(tenant.generation);
    }

    /// Whether both sides have answered.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    async fn compare(&mut self, asking: &Asking<'_>, tenant: &Tenant, state: &State) {
        if self.compared == Some(tenant.generation) {
            return;
        }
        if self.range.is_none() {
            match host_range(asking).await {
                Ok(range) => self.range = Some(range),
                Err(error) => {
                    tracing::debug!(%error, "the host's service range is not known");
                    return;
                }
            }
        }
        let Some(range) = &self.range else { return };
        let Some((first, last)) = service_range::ends(range) else {
            state.note("service range", &format!("{range} on the host cannot be compared"));
            self.compared = Some(tenant.generation);
            return;
        };
        let api = &tenant.api;
        let mut ask = |probe| async move { api.try_create(&SERVICES, Some("default"), &probe).await };
        for address in [first, last] {
            match service_range::contains(&mut ask, address).await {
                Ok(true) => {}
                Ok(false) => {
                    let text = format!(
                        "k3s does not take {address}: start it with --service-cidr={range}, the host's range, or Services \
                         get no addresses that pods can use"
                    );
                    state.note("service range", &text);
                    self.compared = Some(tenant.generation);
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, "the tenant's service range is not known");
                    return;
                }
            }
        }
        state.note("service range", &format!("{range} on the host, and k3s takes it"));
        self.compared = Some(tenant.generation);
    }
}

/// As an object where that may be read, else by dry runs.
async fn host_range(asking: &Asking<'_>) -> Result<String> {
    let Asking { host, access, namespace } = *asking;
    if access.read(&SERVICE_CIDRS) {
        let (ranges, _) = host.list(&SERVICE_CIDRS, None, &ListOptions::default()).await?;
        let own = ranges.iter().find(|range| range["metadata"]["name"] == "kubernetes");
        if let Some(range) = own.and_then(|range| range["spec"]["cidrs"][0].as_str()) {
            return Ok(range.to_owned());
        }
    }
    service_range::find(|probe| async move { host.try_create(&SERVICES, Some(namespace), &probe).await }).await
}
