//! Secrets as maps of text, and back; values never reach a log.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::error::Result;
use crate::operator::apply::{self, Mark};
use crate::operator::host::{Host, name_of};
use crate::upstream::resources::SECRETS;
use crate::upstream::secret::{decoded, encoded};

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

/// What is there, after a check that it is ours.
pub(crate) async fn read(host: &dyn Host, namespace: &str, name: &str, mark: Mark<'_>) -> Result<Option<Value>> {
    let existing = host.get(&SECRETS, namespace, name).await?;
    if let Some(existing) = &existing {
        apply::check_ours(&SECRETS, existing, mark)?;
    }
    Ok(existing)
}

/// Creates it, or replaces exactly the version that was read: of two writers one fails and reads again.
pub(crate) async fn write(host: &dyn Host, namespace: &str, existing: Option<&Value>, desired: &Value) -> Result<()> {
    let Some(existing) = existing else {
        host.create(&SECRETS, namespace, desired).await?;
        return Ok(());
    };
    let mut next = existing.clone();
    next["data"] = desired["data"].clone();
    if let Some(labels) = desired["metadata"]["labels"].as_object() {
        for (key, value) in labels {
            next["metadata"]["labels"][key] = value.clone();
        }
    }
    host.replace(&SECRETS, namespace, &next).await?;
    tracing::info!(namespace, secret = name_of(desired), "wrote a Secret anew");
    Ok(())
}
