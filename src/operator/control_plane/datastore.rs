//! A database outside of the pod: what its Secret must hold, and how the control plane gets it. The address holds a
//! password, so it reaches the container by reference only: no object of ours and no command line carries it.

use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::crd::{Distro, pki};
use crate::kubernetes::resources::SECRETS;
use crate::operator::cluster::Cluster;
use crate::operator::context::Context;
use crate::operator::halt::{During, Halt, condition};
use crate::operator::secret::{self, Data};

/// Where the files are mounted.
const FOLDER: &str = "/datastore";
const VOLUME: &str = "datastore";
/// Keys of the Secret that are files, and the variable's ending that says where each is.
const FILES: [(&str, &str); 3] = [("ca.crt", "CAFILE"), ("tls.crt", "CERTFILE"), ("tls.key", "KEYFILE")];
/// `nats` is k3s' only.
const SCHEMES: [&str; 5] = ["mysql://", "postgres://", "postgresql://", "https://", "http://"];

/// A database as a pod sees it.
#[derive(Debug, Clone)]
pub(crate) struct Datastore {
    secret: String,
    key: String,
    /// Those of [`FILES`] that the Secret holds.
    files: Vec<(&'static str, &'static str)>,
    /// Changes with the Secret's content, which a running container does not read again.
    pub(super) digest: String,
}

/// What the Secret says; `None` when the cluster keeps its data itself.
pub(crate) async fn find(context: &Context, cluster: &Cluster, pki: &Data) -> Result<Option<Datastore>, Halt> {
    let Some(reference) = &cluster.spec.storage.datastore_endpoint else { return Ok(None) };
    let (namespace, name, key) = (cluster.namespace(), &reference.secret_name, &reference.key);
    let found = context.host.get(&SECRETS, namespace, name).await.during(condition::CONTROL_PLANE)?;
    let data = found.as_ref().map(secret::data).unwrap_or_default();
    let blocked = |what: &str| {
        let message = format!(
            "Secret {name:?} in namespace {namespace:?} {what}: kubectl -n {namespace} create secret generic {name} \
             --from-literal={key}=ADDRESS, with --from-file=ca.crt=FILE (and tls.crt, tls.key) for TLS; ADDRESS is \
             mysql://…, postgres://… or https://… of an etcd"
        );
        Halt::blocked(condition::CONTROL_PLANE, "NoDatastore", message)
    };
    let Some(address) = data.get(key).filter(|address| !address.trim().is_empty()) else {
        let what = if found.is_some() { format!("has no key {key:?}") } else { "does not exist".to_owned() };
        return Err(blocked(&what));
    };
    if !is_known(address, cluster.spec.distro) {
        return Err(blocked(&format!("holds an address of an unknown kind under {key:?}")));
    }
    if data.contains_key("tls.crt") != data.contains_key("tls.key") {
        return Err(blocked("holds only one of tls.crt and tls.key"));
    }
    let files = FILES.into_iter().filter(|(file, _)| data.contains_key(*file)).collect();
    Ok(Some(Datastore { secret: name.clone(), key: key.clone(), files, digest: digest(pki, &data, key) }))
}

fn is_known(address: &str, distro: Distro) -> bool {
    SCHEMES.iter().any(|scheme| address.starts_with(scheme))
        || (distro == Distro::K3s && address.starts_with("nats://"))
}

/// Stands in an annotation that more people may read than Secrets, so it begins with a key: without it a weak password
/// could be tried out against the digest.
fn digest(pki: &Data, data: &Data, address: &str) -> String {
    let mut sha = Sha256::new();
    let mut add = |value: Option<&String>| {
        let value = value.map(String::as_str).unwrap_or_default();
        sha.update((value.len() as u64).to_be_bytes());
        sha.update(value);
    };
    add(pki.get(pki::FRONT_PROXY_CA_KEY));
    add(data.get(address));
    for (file, _) in FILES {
        add(data.get(file));
    }
    HEXLOWER.encode(&sha.finalize()[..10])
}

impl Datastore {
    /// Environment variables, all beginning with `prefix`.
    pub(super) fn environment(&self, prefix: &str) -> Vec<Value> {
        let mut all = vec![json!({
            "name": format!("{prefix}_DATASTORE_ENDPOINT"),
            "valueFrom": {"secretKeyRef": {"name": self.secret, "key": self.key}},
        })];
        for (file, variable) in &self.files {
            all.push(json!({"name": format!("{prefix}_DATASTORE_{variable}"), "value": format!("{FOLDER}/{file}")}));
        }
        all
    }

    /// The volume of its files, if it has any.
    pub(super) fn volume(&self) -> Option<Value> {
        let items: Vec<Value> = self.files.iter().map(|(file, _)| json!({"key": file, "path": file})).collect();
        let secret = json!({"secretName": self.secret, "defaultMode": 0o440, "items": items});
        (!self.files.is_empty()).then(|| json!({"name": VOLUME, "secret": secret}))
    }

    /// Where a container finds them.
    pub(super) fn mount(&self) -> Option<Value> {
        (!self.files.is_empty()).then(|| json!({"name": VOLUME, "mountPath": FOLDER, "readOnly": true}))
    }

    /// For tests of what is rendered.
    #[cfg(test)]
    pub(super) fn example() -> Self {
        let (secret, key) = ("dev-database".to_owned(), "endpoint".to_owned());
        Self { secret, key, files: FILES.into(), digest: "def".to_owned() }
    }
}
