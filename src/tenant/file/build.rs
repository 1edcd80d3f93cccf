//! Tenants out of the list and its files: all of them or none.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::authority::Authority;
use super::material::{Folder, Material, Sum};
use crate::config::Config;
use crate::crd::OnLoss;
use crate::crd::policy::GrantedPolicy;
use crate::error::{Error, Kind, Result, Side};
use crate::issuers::Issuers;
use crate::kubernetes::kubeconfig::{self, Files};
use crate::names::TenantId;
use crate::roster::{Listed, Route};
use crate::runtime::clock::Clock;
use crate::tenant::life::Life;
use crate::tenant::{Assertion, Backend, Nodes, Snapshot, Tenant};
use crate::tls::{self, ClientTrust, ServerTls};
use crate::translate::Placement;
use crate::upstream::{Credential, Reach, Target};

/// Who has no Services on a host has no address of one.
const NO_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Which clusters the entries are.
pub(super) type Identities = HashMap<TenantId, Identity>;

/// What tenants are built with.
pub(super) struct World<'a> {
    pub(super) folder: &'a Folder,
    pub(super) config: &'a Config,
    /// Names and addresses of the shared listener, which lead to every entry's port as well.
    pub(super) names: &'a [String],
    pub(super) authority: Option<&'a Authority>,
    pub(super) clock: &'a Clock,
}

/// All of them.
pub(super) struct Built {
    pub(super) tenants: Vec<Arc<Tenant>>,
    pub(super) identities: Identities,
    pub(super) shared: ServerTls,
    /// Of all that they were built from.
    pub(super) fingerprint: String,
}

/// PEM of a chain and its key, and of the CA where that is ours.
struct Serving {
    pair: (Vec<u8>, Vec<u8>),
    ca: String,
}

/// Those of which nothing changed are the same as before.
pub(super) fn all(
    world: &World<'_>,
    list: &[Listed],
    before: (&Snapshot, &Identities),
    next_generation: impl Fn() -> u64,
) -> Result<Built> {
    let given = world.given()?;
    world.authority.iter().for_each(|authority| authority.begin());
    let shared = world.serving("", &given, world.names)?;
    let mut whole = Sum::default();
    whole.add(&shared.pair.0);
    let shared = ServerTls::from_pem(&shared.pair.0, &shared.pair.1)
        .map_err(|error| Error::client(Kind::Invalid, "the serving certificate cannot be used").because(error))?;
    let (mut tenants, mut identities) = (Vec::with_capacity(list.len()), Identities::new());
    for (at, listed) in list.iter().enumerate() {
        let (tenant, identity) = world.tenant(listed, &given, before, &next_generation).map_err(|error| {
            let message = format!("virtualClusters[{at}] ({}) cannot be served", listed.id);
            Error::client(Kind::Invalid, message).because(error)
        })?;
        whole.add(tenant.fingerprint.as_bytes());
        tenants.push(tenant);
        identities.insert(listed.id.clone(), identity);
    }
    if let Some(authority) = world.authority {
        authority.keep_asked();
    }
    Ok(Built { tenants, identities, shared, fingerprint: whole.digest() })
}

impl World<'_> {
    /// What the admin brings for all names.
    fn given(&self) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let own = &self.config.certificates;
        let given = self.authority.is_none().then_some((own.certificate_file.as_str(), own.key_file.as_str()));
        given.map(|files| self.folder.pair(files)).transpose()
    }

    fn serving(&self, of: &str, given: &Option<(Vec<u8>, Vec<u8>)>, names: &[String]) -> Result<Serving> {
        match (given, self.authority) {
            (Some(pair), _) => Ok(Serving { pair: pair.clone(), ca: String::new() }),
            (None, Some(authority)) => {
                let pair = authority.leaf(of, names)?;
                let pair = (pair.certificate.into_bytes(), pair.key.into_bytes());
                Ok(Serving { pair, ca: authority.certificate().to_owned() })
            }
            (None, None) => Err(Error::own(Kind::Internal, "there is neither a certificate nor a CA")),
        }
    }

    fn tenant(
        &self,
        listed: &Listed,
        given: &Option<(Vec<u8>, Vec<u8>)>,
        (before, known): (&Snapshot, &Identities),
        next_generation: &impl Fn() -> u64,
    ) -> Result<(Arc<Tenant>, Identity)> {
        let material = Material::read(self.folder, listed)?;
        let serving = match &material.serving {
            Some(pair) => Serving { pair: pair.clone(), ca: String::new() },
            None => {
                let names: Vec<String> = listed.hosts.iter().chain(&listed.names).chain(self.names).cloned().collect();
                self.serving(&listed.id.to_string(), given, &names)?
            }
        };
        let old = before.by_id(&listed.id);
        let is_same = |old: &&Arc<Tenant>| {
            old.fingerprint.split_once('-').is_some_and(|(connections, _)| connections == material.connections)
        };
        let same = old.filter(is_same);
        // Of a thousand entries that did not change none has its TLS made.
        let (identity, target) = match known.get(&listed.id).filter(|_| same.is_some()) {
            Some(identity) => (identity.clone(), None),
            None => {
                let target = self.target(listed, &material)?;
                let identity = Identity::new(listed, &target, &material.authority()?, known.get(&listed.id));
                (identity, Some(target))
            }
        };
        let uid = identity.uid.clone();
        let mut everything = Sum::default();
        [uid.as_bytes(), material.everything.as_bytes(), &serving.pair.0].iter().for_each(|part| everything.add(part));
        let fingerprint = format!("{}-{}", material.connections, everything.digest());
        if let Some(unchanged) = old.filter(|old| old.fingerprint == fingerprint) {
            return Ok((Arc::clone(unchanged), identity));
        }
        let (backend, api) = match (same, target) {
            (Some(old), None) => (old.backend.clone(), old.api.clone()),
            (_, Some(target)) => Backend::new(target, assertion(&listed.route), self.clock),
            (None, None) => return Err(Error::own(Kind::Internal, "an API server has no address")),
        };
        // What is known of an issuer whose entry did not change goes on, whatever else did.
        let none = Arc::<Issuers>::default();
        let of_before = old.filter(|old| old.uid == uid).map_or(none, |old| Arc::clone(&old.issuers));
        let client_trust = match &material.client_ca {
            Some(ca) => ClientTrust::from_pem(ca)
                .map_err(|e| Error::client(Kind::Invalid, "clientCAFile cannot be used").because(e))?,
            None => ClientTrust::nobody(),
        };
        let tenant = Arc::new(Tenant {
            id: listed.id.clone(),
            uid,
            owner: None,
            nodes: Nodes::Own,
            placement: Placement::default(),
            generation: next_generation(),
            life: Life::default(),
            hosts: listed.hosts.clone(),
            port: listed.port.unwrap_or_default(),
            server_tls: ServerTls::from_pem(&serving.pair.0, &serving.pair.1)?,
            client_trust,
            aggregator: None,
            server_ca_pem: serving.ca,
            backend,
            api,
            audiences: None,
            issuers: Arc::new(Issuers::new(&listed.issuers, &self.config.auth.jwt, &of_before)),
            anonymous: listed.anonymous,
            api_service_ip: NO_ADDRESS,
            dns_service_ip: NO_ADDRESS,
            cluster_domain: "cluster.local".to_owned(),
            policy: GrantedPolicy::default(),
            limits: listed.limits,
            audit: listed.audit.clone().map(Arc::new),
            store: None,
            on_loss: OnLoss::default(),
            fingerprint,
        });
        Ok((tenant, identity))
    }

    fn target(&self, listed: &Listed, material: &Material) -> Result<Target> {
        if let Some((text, folder)) = &material.kubeconfig {
            return kubeconfig::target(text, Side::Backend, &Files::Below(folder.clone()));
        }
        let Route::FrontProxy { host, port, server_name, .. } = &listed.route else {
            return Err(Error::own(Kind::Internal, "a kubeconfig was not read"));
        };
        let (chain, key) = &material.identity;
        // Somebody's own certificate, an admin's above all, would make every caller that user: an API server believes it before the
        // headers beside it. Those of front proxies have no groups (kubeadm, k3s).
        if let Some(group) = tls::certificates::organization(chain) {
            let message = format!(
                "backend.frontProxyCertificateFile is a user's, of the group {group:?}: it must be by the CA of \
                 --requestheader-client-ca-file, and of no group"
            );
            return Err(Error::client(Kind::Invalid, message));
        }
        Ok(Target {
            side: Side::Backend,
            host: host.clone(),
            port: *port,
            server_name: kubeconfig::server_name(server_name)?,
            tls: tls::client_config(&material.ca, Some((chain, key)))?,
            tls_without_identity: tls::client_config(&material.ca, None)?,
            credential: Credential::Certificate,
            path_prefix: String::new(),
            reach: Reach::default(),
        })
    }
}

fn assertion(route: &Route) -> Assertion {
    match route {
        Route::Kubeconfig(_) => Assertion::Impersonate,
        Route::FrontProxy { .. } => Assertion::FrontProxy,
    }
}

/// Which cluster an entry was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    uid: String,
    place: String,
    ca: String,
}

impl Identity {
    /// The same as before where its address or its CA is: either moves. Where both are others it is another cluster, of which nothing is
    /// known.
    fn new(listed: &Listed, target: &Target, authority: &[u8], before: Option<&Self>) -> Self {
        let mut ca = Sum::default();
        ca.add(authority);
        let place = format!("{}:{}{}", target.host, target.port, target.path_prefix);
        Self::of(&listed.id.to_string(), place, ca.digest(), before)
    }

    fn of(name: &str, place: String, ca: String, before: Option<&Self>) -> Self {
        if let Some(same) = before.filter(|before| before.place == place || before.ca == ca) {
            return Self { uid: same.uid.clone(), place, ca };
        }
        let mut whole = Sum::default();
        [name, &place, &ca].iter().for_each(|part| whole.add(part.as_bytes()));
        // Never again what it was called on the way from one to the other and back.
        before.iter().for_each(|before| whole.add(before.uid.as_bytes()));
        Self { uid: whole.digest(), place, ca }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its address moves, then its CA, and then both go back at once: that is another cluster than the one of just before.
    #[test]
    fn an_identity_never_comes_back() {
        let of = |place: &str, ca: &str, before: Option<&Identity>| {
            Identity::of("team/a", place.to_owned(), ca.to_owned(), before)
        };
        let first = of("one:6443", "CA", None);
        assert_eq!(of("one:6443", "CA", None), first, "the same at each start");
        let moved = of("two:6443", "CA", Some(&first));
        let renewed = of("two:6443", "another CA", Some(&moved));
        assert_eq!((&moved.uid, &renewed.uid), (&first.uid, &first.uid));
        let back = of("one:6443", "CA", Some(&renewed));
        assert_ne!(back.uid, renewed.uid);
        assert_ne!(of("two:6443", "another CA", Some(&back)).uid, back.uid);
    }
}
