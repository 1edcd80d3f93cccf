//! Whether a tenant's API server will take an address that a Service of ours must have: asked before the Service that is
//! there goes, since an address cannot be changed, only had by a new Service.

use crate::error::{Error, Kind, Result, Side};
use crate::kubernetes::resources::SERVICES;
use crate::kubernetes::{ListOptions, service_range};
use crate::syncer::cache::text;
use crate::syncer::tenant::Member;

/// Fails with the API server's reason, or with who has the address.
pub async fn is_free(member: &Member, namespace: &str, address: &str) -> Result<()> {
    // Since Kubernetes 1.33 a dry run tells the range only.
    let options = ListOptions { field_selector: format!("spec.clusterIP={address}"), ..ListOptions::default() };
    let (holders, _) = member.api.list(&SERVICES, None, &options).await?;
    if let Some(holder) = holders.first() {
        let holder = format!("{}/{}", text(holder, "namespace"), text(holder, "name"));
        let message = format!("{address} is the address of Service {holder}: delete that one");
        return Err(Error::new(Side::Backend, Kind::Invalid, message));
    }
    let probe = service_range::probe(Some(address));
    member.api.try_create(&SERVICES, Some(namespace), &probe).await?;
    Ok(())
}
