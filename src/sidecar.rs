//! The original form: one virtual cluster, from the files of the k3s in the same pod and the Service in front of it, with
//! the rights of one namespace.
//!
//! A round reads both, makes the serving certificate, puts the tenant into the registry and keeps its kubeconfig Secret;
//! the other planes then serve it like any tenant. Promises: nothing is written but this Secret and the DNS ports of the
//! own Service; what changes (k3s' certificates, addresses of the Service) is in force without a restart; a round that
//! fails says why in `/readyz` and leaves the last tenant in force. Must not know how requests or objects are served.

mod certificate;
mod fallbacks;
mod files;
mod host;
mod kubeconfig;
mod range;
mod settings;
mod state;
mod tenant;

use std::sync::Arc;
use std::time::Duration;

pub use self::fallbacks::{cluster_resources, lacks_essentials, missing_rights};
pub use self::host::{OwnPod, own_pod};
pub use self::settings::{Files, Flags, Settings};
pub use self::state::State;
use crate::error::Result;
use crate::kubernetes::ApiClient;
use crate::kubernetes::rights::Access;
use crate::runtime::clock::Clock;
use crate::runtime::drain::Drain;
use crate::tenant::Registry;
use crate::tls::certificates::Pair;

/// How often everything is looked at again.
const REFRESH: Duration = Duration::from_secs(30);
/// How soon again while something is missing.
const RETRY: Duration = Duration::from_millis(500);
/// How soon again while k3s does not answer.
const UNANSWERED: Duration = Duration::from_secs(2);

/// How long requests may still begin on connections that others have taken the place of.
const GRACE: Duration = Duration::from_secs(60);

/// What the sidecar is made of.
#[derive(Clone)]
pub struct Parts {
    /// The flags.
    pub settings: Settings,
    /// The host API server.
    pub host: ApiClient,
    /// What is filled, with one tenant.
    pub registry: Arc<Registry>,
    /// What may be done on the host.
    pub access: Access,
    /// Name of the pod of this process, if it is in one.
    pub pod: Option<String>,
    /// What is shown to people.
    pub state: State,
    /// The clock of the process; tests bring their own.
    pub clock: Clock,
}

/// Keeps the tenant until the drain begins.
pub async fn run(parts: Parts, mut drain: Drain) {
    let mut sidecar = Sidecar { parts, serving: None, digest: String::new(), range: range::Check::default() };
    loop {
        let outcome = tokio::select! {
            outcome = sidecar.round() => outcome,
            _ = drain.signaled() => return,
        };
        sidecar.parts.state.settle(&outcome);
        let wait = match outcome {
            Ok(()) if sidecar.range.is_done() => REFRESH,
            Ok(()) => UNANSWERED,
            Err(_) => RETRY,
        };
        tokio::select! {
            () = tokio::time::sleep(sidecar.parts.clock.jitter(wait)) => {}
            _ = drain.signaled() => return,
        }
    }
}

struct Sidecar {
    parts: Parts,
    /// The serving certificate, in memory only: every replica makes its own.
    serving: Option<Pair>,
    /// Of the files that the tenant in force was made from.
    digest: String,
    range: range::Check,
}

impl Sidecar {
    /// Files, host, certificate, tenant, Secret: in this order, each once.
    async fn round(&mut self) -> Result<()> {
        let parts = &self.parts;
        let (settings, now) = (&parts.settings, parts.clock.now());
        let material = files::read(&settings.flags.files).await?;
        // In each round: a pod that begins has no address yet.
        let own = match &parts.pod {
            Some(name) => own_pod(&parts.host, &settings.namespace, name).await?,
            None => None,
        };
        let surroundings = host::look(&parts.host, settings, own.as_ref()).await?;
        host::ensure_dns_ports(&parts.host, settings, &surroundings).await?;
        let names = certificate::names(settings, &surroundings);
        let serving = certificate::serving(self.serving.take(), &material.server_ca, &names, now)?;
        self.serving = Some(serving.clone());
        let inputs = tenant::Inputs { settings, material: &material, surroundings: &surroundings, serving: &serving };
        let fingerprint = inputs.fingerprint();
        let snapshot = parts.registry.load();
        let old = snapshot.by_id(&settings.id).cloned();
        let tenant = match old {
            Some(tenant) if tenant.fingerprint == fingerprint => tenant,
            old => {
                // While k3s' files are the same, so are the connections: nothing that runs notices a change of names.
                let same = old.as_deref().filter(|_| self.digest == material.digest);
                let tenant =
                    Arc::new(inputs.build(fingerprint, parts.registry.next_generation(), same, &parts.clock)?);
                parts.registry.put(&tenant);
                if let Some(old) = old.filter(|_| self.digest != material.digest) {
                    old.backend.pool.retire(GRACE);
                }
                self.digest.clone_from(&material.digest);
                tracing::info!(tenant = %tenant.id, generation = tenant.generation, "tenant in force");
                tenant
            }
        };
        if !settings.flags.kubeconfig_secret.is_empty() {
            kubeconfig::ensure(&parts.host, settings, &surroundings, &material, &names, now).await?;
        }
        let asking = range::Asking { host: &parts.host, access: &parts.access, namespace: &settings.namespace };
        self.range.run(&asking, &tenant, &parts.state).await;
        Ok(())
    }
}
