//! The tenant that the other planes serve, out of what a round found.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::files::Material;
use super::host::Surroundings;
use super::settings::Settings;
use crate::crd::OnLoss;
use crate::error::Result;
use crate::kubernetes::ApiClient;
use crate::runtime::clock::Clock;
use crate::tenant::life::Life;
use crate::tenant::{Assertion, Backend, Nodes, Tenant};
use crate::tls::certificates::Pair;
use crate::tls::{ClientTrust, ServerTls};
use crate::translate::Placement;

/// Everything one generation is made of.
pub(super) struct Inputs<'a> {
    pub(super) settings: &'a Settings,
    pub(super) material: &'a Material,
    pub(super) surroundings: &'a Surroundings,
    pub(super) serving: &'a Pair,
}

impl Inputs<'_> {
    /// Equal fingerprints mean that there is nothing to swap.
    pub(super) fn fingerprint(&self) -> String {
        let around = self.surroundings;
        let mut sha = Sha256::new();
        for part in [
            &self.material.digest,
            &self.serving.certificate,
            &around.address.to_string(),
            &around.owner.as_ref().map(|o| o.uid.clone()).unwrap_or_default(),
            &format!("{:?}", around.selected_by),
            around.store.as_deref().unwrap_or_default(),
        ] {
            sha.update(part.len().to_be_bytes());
            sha.update(part.as_bytes());
        }
        HEXLOWER.encode(&sha.finalize())
    }

    /// `same` is a tenant whose connections go on being used.
    pub(super) fn build(
        &self,
        fingerprint: String,
        generation: u64,
        same: Option<&Tenant>,
        clock: &Clock,
    ) -> Result<Tenant> {
        let (settings, material, around) = (self.settings, self.material, self.surroundings);
        let (backend, api) = match same {
            Some(tenant) => (tenant.backend.clone(), tenant.api.clone()),
            None => connections(material, clock),
        };
        let owner_uid = around.owner.as_ref().map(|owner| owner.uid.clone());
        Ok(Tenant {
            id: settings.id.clone(),
            uid: owner_uid.unwrap_or_else(|| around.service_uid.clone()),
            owner: around.owner.clone(),
            nodes: Nodes::Host,
            placement: Placement {
                guarded_labels: Arc::new(around.selected_by.clone()),
                service_account: settings.flags.service_account.clone(),
                ..Placement::default()
            },
            generation,
            life: Life::default(),
            hosts: Vec::new(),
            port: settings.port,
            server_tls: ServerTls::from_pem(self.serving.certificate.as_bytes(), self.serving.key.as_bytes())?,
            client_trust: ClientTrust::from_pem(material.client_ca.certificate.as_bytes())?,
            // k3s shows the same certificate as its front proxy, which the gateway is here.
            aggregator: None,
            server_ca_pem: material.server_ca.certificate.clone(),
            backend,
            api,
            // k3s' arguments are its owner's.
            audiences: None,
            issuers: Arc::default(),
            // As k3s itself: `anonymous-auth=false`.
            anonymous: false,
            api_service_ip: around.address,
            dns_service_ip: around.address,
            cluster_domain: settings.flags.cluster_domain.clone(),
            policy: settings.flags.policy.clone(),
            limits: crate::crd::Limits::default(),
            audit: None,
            store: around.store.clone(),
            on_loss: OnLoss::Hold,
            fingerprint,
        })
    }
}

fn connections(material: &Material, clock: &Clock) -> (Backend, ApiClient) {
    let assertion = if material.is_front_proxy { Assertion::FrontProxy } else { Assertion::Impersonate };
    Backend::new(material.target.clone(), assertion, clock)
}
