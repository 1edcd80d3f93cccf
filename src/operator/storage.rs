//! Where a control plane's data is: decided once, written down before the StatefulSet is made, and never changed, since
//! a StatefulSet cannot get or lose its volume later. Who has decided is the spec, then what is already there, then the
//! host's default StorageClass.

use serde_json::{Value, json};

use crate::crd::{StorageKind, StorageStatus, VirtualClusterStatus, VolumeClaim};
use crate::error::{Kind, Result};
use crate::kubernetes::resources::{CLAIMS, STORAGE_CLASSES, VIRTUAL_CLUSTERS};
use crate::operator::cluster::Cluster;
use crate::operator::context::Context;
use crate::operator::control_plane;
use crate::operator::halt::{During, Halt, condition};
use crate::operator::host::name_of;
use crate::operator::status;

/// What marks a default class; the older key still counts for API servers.
const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// Reasons of storage in the pod.
const ASKED: &str = "Ephemeral";
const NO_CLASS: &str = "NoDefaultStorageClass";
const BEFORE: &str = "BeforeDurableDefault";

/// The decision: the recorded one, or a new one that is recorded from now on. `set` is the StatefulSet if there is one.
/// Also sets the condition `Durable`.
pub(crate) async fn ensure(
    context: &Context,
    cluster: &Cluster,
    set: Option<&Value>,
    next: &mut VirtualClusterStatus,
) -> Result<StorageStatus, Halt> {
    let decided = match &cluster.status.storage {
        Some(recorded) => Ok(recorded.clone()),
        None => match evident(cluster, set) {
            Some(evident) => Ok(evident),
            None => ask(context, cluster).await,
        },
    };
    let now = context.clock.now();
    match decided {
        Ok(storage) => {
            let (value, reason, message) = condition_of(&storage);
            status::note(next, condition::DURABLE, (value, reason, &message), cluster.generation, now);
            next.storage = Some(storage.clone());
            Ok(storage)
        }
        Err(halt) => {
            let unknown = ("Unknown", halt.reason, halt.message.as_str());
            status::note(next, condition::DURABLE, unknown, cluster.generation, now);
            Err(halt)
        }
    }
}

/// What needs no question: the StatefulSet that is there, else the spec.
fn evident(cluster: &Cluster, set: Option<&Value>) -> Option<StorageStatus> {
    let spec = &cluster.spec.storage;
    if !cluster.spec.distro.is_ours() {
        return Some(StorageStatus { kind: StorageKind::External, ..StorageStatus::default() });
    }
    if spec.datastore_endpoint.is_some() {
        return Some(StorageStatus { kind: StorageKind::Database, ..StorageStatus::default() });
    }
    if let Some(set) = set {
        let templates = set["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten();
        let reason = if spec.ephemeral { ASKED } else { BEFORE };
        return Some(templates.into_iter().next().map_or_else(|| in_the_pod(reason), of_claim));
    }
    if spec.ephemeral {
        return Some(in_the_pod(ASKED));
    }
    spec.volume_claim.as_ref().map(|claim| volume(&claim.size, &claim.class))
}

/// What depends on the host of this moment, written down before anything is made of it. The VirtualCluster is read anew
/// and written against that version, so that of two answers the first stands.
async fn ask(context: &Context, cluster: &Cluster) -> Result<StorageStatus, Halt> {
    let (host, namespace, name) = (&context.host, cluster.namespace(), cluster.name());
    let current = host.get(&VIRTUAL_CLUSTERS, namespace, name).await.during(condition::CONTROL_PLANE)?;
    let current = current.filter(|object| object["metadata"]["uid"] == cluster.uid.as_str()).unwrap_or_default();
    if let Ok(recorded) = serde_json::from_value::<StorageStatus>(current["status"]["storage"].clone()) {
        return Ok(recorded);
    }
    let claim = host.get(&CLAIMS, namespace, &control_plane::claim_name(cluster)).await;
    let decided = match claim.during(condition::CONTROL_PLANE)? {
        // It was put there to be used: restored, most likely.
        Some(claim) => of_claim(&claim),
        None => match default_class(&classes(context).await?) {
            Some(class) => volume(&VolumeClaim::default().size, class),
            None => in_the_pod(NO_CLASS),
        },
    };
    let patch = json!({
        "metadata": {"uid": cluster.uid, "resourceVersion": current["metadata"]["resourceVersion"]},
        "status": {"storage": decided},
    });
    host.patch_status(&VIRTUAL_CLUSTERS, namespace, name, &patch).await.during(condition::CONTROL_PLANE)?;
    tracing::info!(tenant = %cluster.id, kind = ?decided.kind, class = %decided.class, "where its data will be");
    Ok(decided)
}

async fn classes(context: &Context) -> Result<Vec<Value>, Halt> {
    match context.host.list(&STORAGE_CLASSES, "", "").await {
        Ok(classes) => Ok(classes),
        // Neither guess is safe: a claim that nobody fulfils, or data that is lost with the pod.
        Err(error) if error.kind() == Kind::Forbidden => Err(Halt::blocked(
            condition::CONTROL_PLANE,
            "StorageClassesUnknown",
            "Portico may not list StorageClasses, so it is not known whether a volume can be had: an admin gives ClusterRole \
             portico the right to list storageclasses.storage.k8s.io, or make the cluster anew with spec.storage.volumeClaim \
             (portico create --storage SIZE --storage-class NAME) or spec.storage.ephemeral (--ephemeral)",
        )),
        Err(error) => Err(Halt::failed(condition::CONTROL_PLANE, &error)),
    }
}

/// The default class as the API server's admission chooses it: of several the newest, then by name.
fn default_class(classes: &[Value]) -> Option<&str> {
    let is_default = |class: &&Value| DEFAULT_CLASS.iter().any(|key| class["metadata"]["annotations"][*key] == "true");
    let created = |class: &Value| class["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
    let mut defaults: Vec<&Value> = classes.iter().filter(is_default).collect();
    defaults.sort_by_key(|class| (std::cmp::Reverse(created(class)), name_of(class)));
    defaults.first().map(|class| name_of(class))
}

fn volume(size: &str, class: &str) -> StorageStatus {
    let (size, class) = (size.to_owned(), class.to_owned());
    StorageStatus { kind: StorageKind::Volume, size, class, reason: String::new() }
}

fn in_the_pod(reason: &str) -> StorageStatus {
    StorageStatus { kind: StorageKind::Pod, reason: reason.to_owned(), ..StorageStatus::default() }
}

/// A claim or the template of one.
fn of_claim(claim: &Value) -> StorageStatus {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    volume(&text(&claim["spec"]["resources"]["requests"]["storage"]), &text(&claim["spec"]["storageClassName"]))
}

/// Status, reason and message of the condition.
fn condition_of(storage: &StorageStatus) -> (&'static str, &'static str, String) {
    let StorageStatus { kind, size, class, reason } = storage;
    match kind {
        StorageKind::Volume if class.is_empty() => {
            ("True", "Volume", format!("the data is on a volume of {size} of the default StorageClass"))
        }
        StorageKind::Volume => {
            ("True", "Volume", format!("the data is on a volume of {size} of StorageClass {class:?}"))
        }
        StorageKind::Database => ("True", "Database", "the data is in the database of spec.storage".to_owned()),
        StorageKind::External => {
            ("True", "External", "the API server is not Portico's and keeps its own data".to_owned())
        }
        StorageKind::Pod => {
            let (reason, why, what) = match reason.as_str() {
                ASKED => (ASKED, "spec.storage.ephemeral asks for it", ""),
                NO_CLASS => (
                    NO_CLASS,
                    "the host had no default StorageClass when this cluster was made",
                    "; to keep it, make the cluster anew with spec.storage.volumeClaim or datastoreEndpoint",
                ),
                _ => (
                    BEFORE,
                    "this cluster was made before a volume was the default",
                    "; to keep it, make the cluster anew (docs/operations/upgrade.md)",
                ),
            };
            let message = format!("the data is lost with the control plane's pod, since {why}{what}");
            ("False", reason, message)
        }
    }
}
