//! A local port whose connections end at a pod, over the host API's port-forward.

use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::cli::failure::{Failure, Outcome, chain};
use crate::cli::output;

use super::kubeconfig::Access;

use crate::runtime::task;

/// Port of the gateway's shared listener.
const GATEWAY_PORT: u16 = 8443;
/// Port of a control plane.
const API_SERVER_PORT: u16 = 6443;
/// Connections forwarded at once.
const CONNECTIONS: usize = 128;

/// Where forwarded connections end.
pub(super) struct Target {
    pods: Api<Pod>,
    namespace: String,
    selection: Selection,
    port: u16,
}

/// How the pod is found; asked again for each connection, since pods come and go.
enum Selection {
    Gateway,
    /// The pod beside k3s, by name.
    Sidecar(String),
    ControlPlane(String),
}

/// The gateway when it can be reached and the tenant can be named there, else the control plane's pod.
pub(super) async fn choose(
    client: &Client,
    namespace: &str,
    name: &str,
    portico_namespace: &str,
    access: &Access,
) -> Outcome<Target> {
    if access.is_sidecar() {
        return Ok(Target {
            pods: Api::namespaced(client.clone(), namespace),
            namespace: namespace.to_owned(),
            selection: Selection::Sidecar(format!("{name}-0")),
            port: GATEWAY_PORT,
        });
    }
    let gateway = Target {
        pods: Api::namespaced(client.clone(), portico_namespace),
        namespace: portico_namespace.to_owned(),
        selection: Selection::Gateway,
        port: GATEWAY_PORT,
    };
    if access.has_name() && gateway.opens().await.is_ok() {
        return Ok(gateway);
    }
    let own = Target {
        pods: Api::namespaced(client.clone(), namespace),
        namespace: namespace.to_owned(),
        selection: Selection::ControlPlane(name.to_owned()),
        port: API_SERVER_PORT,
    };
    own.opens().await.map_err(|why| {
        Failure::new(
            format!("neither the gateway nor the control plane can be reached through the host API: {why}"),
            "ask the admin for the gateway's address and give it: portico connect NAME --server https://ADDRESS:PORT",
        )
    })?;
    Ok(own)
}

impl Target {
    /// Whether a connection can be made now.
    async fn opens(&self) -> Result<(), String> {
        let pod = self.pod().await?;
        let forwarder = self.pods.portforward(&pod, &[self.port]).await.map_err(|e| chain(&e))?;
        forwarder.abort();
        Ok(())
    }

    async fn pod(&self) -> Result<String, String> {
        let Selection::Gateway = self.selection else { return Ok(self.describe()) };
        let selector = "portico.dev/component=portico";
        let found = self.pods.list(&ListParams::default().labels(selector)).await.map_err(|e| chain(&e))?;
        found
            .items
            .into_iter()
            .find(is_ready)
            .and_then(|pod| pod.metadata.name)
            .ok_or_else(|| format!("no ready pod {selector} in namespace {}", self.namespace))
    }

    fn describe(&self) -> String {
        match &self.selection {
            Selection::Gateway => "the gateway".to_owned(),
            Selection::Sidecar(pod) => pod.clone(),
            Selection::ControlPlane(name) => format!("{name}-0"),
        }
    }

    async fn carry(&self, mut local: TcpStream) -> Result<(), String> {
        let pod = self.pod().await?;
        let mut forwarder = self.pods.portforward(&pod, &[self.port]).await.map_err(|e| chain(&e))?;
        let mut remote = forwarder.take_stream(self.port).ok_or("the port was not forwarded")?;
        // A connection that either side resets has simply ended.
        let _ = tokio::io::copy_bidirectional(&mut local, &mut remote).await;
        drop(remote);
        forwarder.abort();
        Ok(())
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// A bound local port.
pub(super) struct Forward {
    listener: TcpListener,
    address: SocketAddr,
    target: Arc<Target>,
}

impl Forward {
    pub(super) async fn bind(port: u16, target: Target) -> Outcome<Self> {
        let unusable = |e: std::io::Error| {
            Failure::new(format!("local port {port} cannot be used: {e}"), "choose another with --local-port, or none")
        };
        let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(unusable)?;
        let address = listener.local_addr().map_err(unusable)?;
        Ok(Self { listener, address, target: Arc::new(target) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn to_gateway(&self) -> bool {
        matches!(self.target.selection, Selection::Gateway | Selection::Sidecar(_))
    }

    pub(super) fn target(&self) -> String {
        self.target.describe()
    }

    /// Forwards until `end`.
    pub(super) async fn run_until(&self, end: impl Future<Output = ()>) -> Outcome<()> {
        self.run_while(end).await
    }

    /// Forwards while `work` runs and hands back its result.
    pub(super) async fn run_while<T>(&self, work: impl Future<Output = T>) -> Outcome<T> {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let mut carried: Vec<task::Task<()>> = Vec::new();
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                result = &mut work => return Ok(result),
                accepted = self.listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    carried.retain(|task| !task.is_finished());
                    let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
                    let target = Arc::clone(&self.target);
                    carried.push(task::spawn("connect.forward", async move {
                        if let Err(why) = target.carry(stream).await {
                            output::note(&format!("a connection could not be forwarded: {why}"));
                        }
                        drop(permit);
                    }));
                }
            }
        }
    }
}
