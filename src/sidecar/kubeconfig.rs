//! The kubeconfig Secret: a cluster admin's certificate, signed by k3s' client CA and renewed in time, owned by the
//! StatefulSet so that it goes with it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::files::Material;
use super::host::Surroundings;
use super::settings::Settings;
use crate::error::{Error, Kind, Result};
use crate::kubernetes::ApiClient;
use crate::kubernetes::kubeconfig::issue::{self, Way};
use crate::kubernetes::resources::SECRETS;
use crate::kubernetes::secret::{decoded, encoded};
use crate::names::keys;
use crate::translate::identity;

/// As k3s' own admin.
const ADMIN: &str = "system:admin";

/// Writes the Secret when it is missing or not what it should be. Another replica's is as good as ours.
pub(super) async fn ensure(
    host: &ApiClient,
    settings: &Settings,
    around: &Surroundings,
    material: &Material,
    names: &[String],
    now: Timestamp,
) -> Result<()> {
    let (namespace, name) = (settings.namespace.as_str(), settings.flags.kubeconfig_secret.as_str());
    let found = host.get(&SECRETS, Some(namespace), name).await?;
    if let Some(found) = &found {
        check_ours(found, settings, around, &material.server_ca.certificate)?;
    }
    let old = found.as_ref().map(|secret| decoded(&secret["data"]));
    let data = issue::plan(old.as_ref(), &material.client_ca, ADMIN, &ways(settings, material), now)?;
    let metadata = metadata(settings, around, names);
    let is_right = |secret: &Value| {
        old.as_ref() == Some(&data)
            && secret["metadata"]["annotations"][keys::CERTIFICATE_NAMES]
                == metadata["annotations"][keys::CERTIFICATE_NAMES]
            && secret["metadata"]["labels"][keys::SIDECAR] == metadata["labels"][keys::SIDECAR]
    };
    if found.as_ref().is_some_and(is_right) {
        return Ok(());
    }
    let mut secret =
        json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "data": encoded(&data)});
    let written = match found {
        None => host.create(&SECRETS, Some(namespace), &secret).await,
        Some(found) => {
            secret["type"] = found["type"].clone();
            secret["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"].clone();
            host.replace(&SECRETS, Some(namespace), name, "", &secret).await
        }
    };
    match written {
        Ok(_) => {
            tracing::info!(secret = name, "the kubeconfig is written");
            Ok(())
        }
        // Another replica was faster; the next round reads its Secret.
        Err(error) if matches!(error.kind(), Kind::Conflict | Kind::AlreadyExists) => Ok(()),
        Err(error) => Err(error),
    }
}

fn metadata(settings: &Settings, around: &Surroundings, names: &[String]) -> Value {
    let mut metadata = json!({
        "name": settings.flags.kubeconfig_secret,
        "namespace": settings.namespace,
        "labels": {
            keys::SIDECAR: settings.id.name().as_str(),
            "app": "portico",
            "vcluster-name": settings.id.name().as_str(),
        },
        // `portico connect` reads there which addresses can be verified.
        "annotations": {keys::CERTIFICATE_NAMES: names.join(",")},
    });
    if let Some(owner) = &around.owner {
        metadata["ownerReferences"] = json!([identity::owner_reference(owner)]);
    }
    metadata
}

/// Ours, or what vcluster 0.3 left: that has neither an owner nor a label, but is a kubeconfig of this very cluster.
fn check_ours(secret: &Value, settings: &Settings, around: &Surroundings, server_ca: &str) -> Result<()> {
    let metadata = &secret["metadata"];
    let owners = metadata["ownerReferences"].as_array();
    let is_owned = around.owner.as_ref().is_some_and(|owner| {
        owners.is_some_and(|owners| owners.iter().any(|found| found["uid"] == owner.uid.as_str()))
    });
    let is_labelled = metadata["labels"][keys::SIDECAR] == settings.id.name().as_str();
    if is_owned || is_labelled || trusts(&decoded(&secret["data"]), server_ca) {
        return Ok(());
    }
    Err(Error::own(
        Kind::AlreadyExists,
        format!(
            "Secret {:?} exists and is not this cluster's: delete it, or choose another with --out-kube-config-secret",
            settings.flags.kubeconfig_secret
        ),
    ))
}

/// Whether there is a kubeconfig and nothing else, and all its clusters are verified by this CA.
fn trusts(data: &BTreeMap<String, String>, server_ca: &str) -> bool {
    let (Some(config), 1) = (data.get(issue::CONFIG), data.len()) else { return false };
    let Ok(document) = serde_saphyr::from_str::<Value>(config) else { return false };
    let clusters = document["clusters"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_ours = |cluster: &Value| {
        let ca = cluster["cluster"]["certificate-authority-data"].as_str().and_then(|text| STANDARD.decode(text).ok());
        ca.is_some_and(|ca| ca.trim_ascii() == server_ca.trim().as_bytes())
    };
    !clusters.is_empty() && clusters.iter().all(is_ours)
}

/// The first as vcluster wrote it: through a forwarded port. The second verifies by a name that the certificate always
/// has, for addresses that it has not.
fn ways(settings: &Settings, material: &Material) -> Vec<Way> {
    let name = settings.id.name();
    let way = |context: String, tls_server_name| Way {
        context,
        server: "https://localhost:8443".to_owned(),
        tls_server_name,
        authority: material.server_ca.certificate.clone(),
    };
    let verified = format!("{}.{}.svc", settings.flags.service, settings.namespace);
    vec![way(name.to_string(), None), way(format!("{name}-verified-by-name"), Some(verified))]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(config: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("config".to_owned(), config.to_owned())])
    }

    #[test]
    fn a_kubeconfig_of_another_cluster_is_never_written_over() {
        let config = |ca: &str| {
            let ca = STANDARD.encode(ca);
            format!(
                "kind: Config\nclusters: [{{name: c, cluster: {{server: 'https://localhost:8443', certificate-authority-data: {ca}}}}}]\n"
            )
        };
        assert!(trusts(&data(&config("OURS\n")), "OURS"));
        assert!(!trusts(&data(&config("THEIRS")), "OURS"));
        assert!(!trusts(&data("kind: Config\nclusters: []\n"), "OURS"));
        assert!(!trusts(&data("password"), "OURS"));
        let mut more = data(&config("OURS"));
        more.insert("password".to_owned(), "x".to_owned());
        assert!(!trusts(&more, "OURS"), "what else is in it would be lost");
    }
}
