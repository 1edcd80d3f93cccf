//! What a tenant's bound claims hold, by its namespaces.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::config::Quantity;
use crate::error::{Error, Kind, Result};
use crate::kubernetes::resources::CLAIMS;
use crate::kubernetes::{ApiClient, ListOptions, PageOf};
use crate::names::{TenantId, keys};

/// Claims on a page: a tenant's annotations may be long, and then there are fewer.
const PAGES: [usize; 3] = [200, 25, 1];
const LONGEST_PAGE: usize = 8 << 20;
/// Claims of one tenant that are metered.
const MOST: usize = 5_000;
const LONGEST_READING: Duration = Duration::from_secs(15);

#[derive(Deserialize)]
struct Claim {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
    capacity: BTreeMap<String, String>,
}

/// Bytes by virtual namespace.
pub(super) async fn capacities(host: &ApiClient, tenant: &TenantId) -> Result<BTreeMap<String, u64>> {
    let late = |_| Error::host(Kind::Timeout, "the claims of a virtual cluster could not be listed in time");
    tokio::time::timeout(LONGEST_READING, read(host, tenant)).await.map_err(late)?
}

async fn read(host: &ApiClient, tenant: &TenantId) -> Result<BTreeMap<String, u64>> {
    let options =
        ListOptions { label_selector: format!("{}={}", keys::CLUSTER, tenant.name()), ..ListOptions::default() };
    let (mut found, mut seen, mut token, mut size) = (BTreeMap::new(), 0, String::new(), 0);
    while seen < MOST {
        let of = PageOf { token: &token, limit: PAGES[size], most: PAGES[size], bytes: LONGEST_PAGE };
        let page = match host.page(&CLAIMS, Some(tenant.namespace().as_str()), &options, of).await {
            Err(error) if error.kind() == Kind::TooLarge && size + 1 < PAGES.len() => {
                size += 1;
                continue;
            }
            page => page?,
        };
        seen += page.items.len();
        for item in &page.items {
            let claim: Claim = serde_json::from_slice(item)
                .map_err(|e| Error::host(Kind::Protocol, "a claim cannot be read").because(e))?;
            if let Some((namespace, bytes)) = claim.holds(tenant) {
                let sum: &mut u64 = found.entry(namespace).or_default();
                *sum = sum.saturating_add(bytes);
            }
        }
        token = page.token;
        if token.is_empty() {
            break;
        }
    }
    Ok(found)
}

impl Claim {
    fn holds(&self, tenant: &TenantId) -> Option<(String, u64)> {
        let namespace = self.metadata.annotations.get(keys::OBJECT_NAMESPACE)?;
        let is_the_tenants =
            self.metadata.labels.get(keys::CLUSTER).map(String::as_str) == Some(tenant.name().as_str());
        if !is_the_tenants || self.status.phase != "Bound" {
            return None;
        }
        let bytes = Quantity::parse(self.status.capacity.get("storage")?).ok()?.units();
        Some((namespace.clone(), bytes))
    }
}
