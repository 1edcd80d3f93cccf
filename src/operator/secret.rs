//! Secrets as maps of text, and back; values never reach a log.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::error::Result;
use crate::kubernetes::resources::SECRETS;
use crate::kubernetes::secret::{decoded, encoded};
use crate::operator::cluster::Cluster;
use crate::operator::host::{Host, name_of};
use crate::operator::restored::{self, Whose};

/// Decoded data; keys that are no text are left out.
pub(crate) type Data = BTreeMap<String, String>;

/// The data of a Secret object.
pub(crate) fn data(secret: &Value) -> Data {
    decoded(&secret["data"])
}

/// A Secret object.
pub(crate) fn object(metadata: &Value, kind: &str, data: &Data) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": encoded(data)})
}

/// What is there under a name of this cluster's, and whose it is; one that is somebody else's is an error.
pub(crate) async fn read(host: &Host, cluster: &Cluster, name: &str) -> Result<Option<(Value, Whose)>> {
    let Some(existing) = host.get(&SECRETS, cluster.namespace(), name).await? else { return Ok(None) };
    let whose = restored::whose(&SECRETS, &existing, cluster)?;
    Ok(Some((existing, whose)))
}

/// Creates it, or replaces exactly the version that was read: of two writers one fails and reads again. One that was
/// somebody else's is this owner's from then on.
pub(crate) async fn write(host: &Host, namespace: &str, existing: Option<&Value>, desired: &Value) -> Result<()> {
    let Some(existing) = existing else {
        host.create(&SECRETS, namespace, desired).await?;
        return Ok(());
    };
    let mut next = existing.clone();
    next["data"] = desired["data"].clone();
    for texts in ["labels", "annotations"] {
        for (key, value) in desired["metadata"][texts].as_object().into_iter().flatten() {
            next["metadata"][texts][key] = value.clone();
        }
    }
    let owners = &desired["metadata"]["ownerReferences"];
    let is_owned = |by: &Value| next["metadata"]["ownerReferences"].as_array().is_some_and(|all| all.contains(by));
    if owners.as_array().into_iter().flatten().any(|owner| !is_owned(owner)) {
        next["metadata"]["ownerReferences"] = owners.clone();
    }
    host.replace(&SECRETS, namespace, &next).await?;
    tracing::info!(namespace, secret = name_of(desired), "wrote a Secret anew");
    Ok(())
}
