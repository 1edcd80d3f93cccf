//! A Secret from a backup beside a VirtualCluster that was made again: taken over when it is whole and comes in time,
//! otherwise said.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

const CLUSTER: &str = "dev";
const PKI: &str = "dev-pki";
const KUBECONFIG: &str = "vc-dev";

impl World {
    /// A cluster that ran and was deleted, with all that it owned; yields what a backup holds of a Secret.
    async fn with_a_deleted_one(distro: &str) -> (Self, Value, Value) {
        let world = Self::new();
        world.make(distro).await;
        let saved = [PKI, KUBECONFIG].map(|name| world.secret(name));
        world.delete();
        let [pki, kubeconfig] = saved;
        (world, pki, kubeconfig)
    }

    async fn make(&self, distro: &str) -> Value {
        self.add("team-a", CLUSTER, json!({"distro": distro}));
        self.round("team-a", CLUSTER).await.1
    }

    fn delete(&self) {
        self.host.remove(&VIRTUAL_CLUSTERS, "team-a", CLUSTER);
        for (resource, name) in [
            (&SECRETS, PKI),
            (&SECRETS, KUBECONFIG),
            (&STATEFUL_SETS, CLUSTER),
            (&SERVICES, CLUSTER),
            (&SERVICES, "dev-headless"),
            (&crate::kubernetes::resources::SERVICE_ACCOUNTS, KUBECONFIG),
        ] {
            self.host.remove(resource, "team-a", name);
        }
    }

    fn secret(&self, name: &str) -> Value {
        self.host.find(&SECRETS, "team-a", name).expect("a Secret")
    }

    fn set_is_there(&self) -> bool {
        self.host.find(&STATEFUL_SETS, "team-a", CLUSTER).is_some()
    }

    fn owner(&self) -> Value {
        self.host.find(&VIRTUAL_CLUSTERS, "team-a", CLUSTER).expect("there")["metadata"]["uid"].clone()
    }

    fn running_pki(&self) -> Value {
        let set = self.host.find(&STATEFUL_SETS, "team-a", CLUSTER).expect("a StatefulSet");
        set["spec"]["template"]["metadata"]["annotations"]["portico.dev/pki"].clone()
    }
}

/// As the steps of the documentation save it.
fn stripped(secret: &Value) -> Value {
    let mut secret = secret.clone();
    let metadata = secret["metadata"].as_object_mut().expect("metadata");
    for field in ["ownerReferences", "uid", "resourceVersion", "generation"] {
        metadata.remove(field);
    }
    secret
}

fn written_by(secret: &Value, manager: &str) -> Value {
    let mut secret = secret.clone();
    secret["metadata"]["managedFields"] = json!([{"manager": manager, "operation": "Update"}]);
    secret
}

fn certificates(status: &Value) -> (String, String) {
    World::condition(status, condition::CERTIFICATES)
}

fn is(value: &str, reason: &str) -> (String, String) {
    (value.to_owned(), reason.to_owned())
}

#[tokio::test]
async fn a_pki_that_was_put_back_first_is_taken_over() {
    for distro in ["k8s", "k3s"] {
        let (world, saved, _) = World::with_a_deleted_one(distro).await;
        world.host.put(&SECRETS, "team-a", stripped(&saved));
        let status = world.make(distro).await;
        assert_eq!(certificates(&status).0, "True", "{status}");
        let taken = world.secret(PKI);
        assert_eq!(taken["metadata"]["ownerReferences"][0]["uid"], world.owner());
        for key in [pki::SERVER_CA, pki::CLIENT_CA_KEY, pki::SERVICE_ACCOUNT_KEY, pki::K3S_TOKEN] {
            assert_eq!(taken["data"][key], saved["data"][key], "{key}");
        }
        assert!(world.set_is_there());
        let before = world.host.writes();
        world.round("team-a", CLUSTER).await;
        assert_eq!(world.host.writes(), before, "taken over once");
    }
}

#[tokio::test]
async fn one_that_names_its_old_owner_is_told_from_one_that_this_left() {
    let (world, saved, _) = World::with_a_deleted_one("k8s").await;
    world.host.put(&SECRETS, "team-a", written_by(&saved, "portico"));
    let status = world.make("k8s").await;
    assert!(status["message"].as_str().is_some_and(|m| m.contains("still being deleted")), "{status}");
    assert!(!world.set_is_there(), "nobody else may have the keys of a new cluster");
    world.host.put(&SECRETS, "team-a", written_by(&saved, "kubectl-client-side-apply"));
    world.round("team-a", CLUSTER).await;
    let owners = world.secret(PKI)["metadata"]["ownerReferences"].clone();
    assert_eq!(owners.as_array().map(Vec::len), Some(1));
    assert_eq!(owners[0]["uid"], world.owner());
}

#[tokio::test]
async fn half_a_pki_is_neither_taken_over_nor_replaced() {
    let (world, saved, _) = World::with_a_deleted_one("k8s").await;
    let stranger = World::new();
    stranger.make("k8s").await;
    let other = stranger.secret(PKI);
    for (key, value) in [
        (pki::CLIENT_CA_KEY, Value::Null),
        (pki::SERVER_CA_KEY, other["data"][pki::SERVER_CA_KEY].clone()),
        (pki::SERVICE_ACCOUNT_PUBLIC, other["data"][pki::SERVICE_ACCOUNT_PUBLIC].clone()),
        (pki::FRONT_PROXY_CA, STANDARD.encode("no certificate").into()),
    ] {
        let mut half = stripped(&saved);
        half["data"][key] = value;
        world.host.put(&SECRETS, "team-a", half);
        let before = world.secret(PKI);
        let status = match world.host.find(&VIRTUAL_CLUSTERS, "team-a", CLUSTER) {
            Some(_) => world.round("team-a", CLUSTER).await.1,
            None => world.make("k8s").await,
        };
        assert_eq!(certificates(&status), is("False", "PkiIncomplete"), "{key}");
        assert!(status["message"].as_str().is_some_and(|m| m.contains("delete secret dev-pki")), "{status}");
        assert_eq!(world.secret(PKI), before, "{key}");
        assert!(!world.set_is_there());
    }
}

/// The wrong order: the control plane was made with new keys, then the old ones came.
#[tokio::test]
async fn a_pki_that_comes_too_late_is_said_and_taken_only_when_a_person_wants_it() {
    for keeps_owner in [true, false] {
        let (world, saved, _) = World::with_a_deleted_one("k8s").await;
        world.make("k8s").await;
        let running = world.running_pki();
        if keeps_owner {
            // `kubectl apply` of the backup.
            world.host.edit(&SECRETS, "team-a", PKI, |secret| {
                secret["data"] = saved["data"].clone();
                secret["metadata"]["annotations"] = saved["metadata"]["annotations"].clone();
            });
        } else {
            world.host.put(&SECRETS, "team-a", stripped(&saved));
        }
        let late = world.secret(PKI);
        let (_, status) = world.round("team-a", CLUSTER).await;
        assert_eq!(certificates(&status), is("False", "PkiReplaced"));
        let said = status["message"].as_str().unwrap_or_default();
        assert!(said.contains("portico.dev/pki-of=this") && said.contains("delete the VirtualCluster"), "{said}");
        assert_eq!((world.secret(PKI), world.running_pki()), (late, running.clone()));

        world.host.edit(&SECRETS, "team-a", PKI, |secret| {
            secret["metadata"]["annotations"]["portico.dev/pki-of"] = "this".into();
        });
        let (_, status) = world.round("team-a", CLUSTER).await;
        assert_eq!(certificates(&status).0, "True", "{status}");
        assert_ne!(world.running_pki(), running, "its pod is started with them");
        assert_eq!(world.secret(PKI)["metadata"]["ownerReferences"][0]["uid"], world.owner());
        assert_ne!(world.secret(PKI)["metadata"]["annotations"]["portico.dev/pki-of"], "this", "once");
    }
}

#[tokio::test]
async fn the_same_keys_again_and_a_new_pki_on_request_are_no_exchange() {
    let world = World::new();
    world.make("k8s").await;
    let (saved, running) = (world.secret(PKI), world.running_pki());
    world.host.put(&SECRETS, "team-a", stripped(&saved));
    let (_, status) = world.round("team-a", CLUSTER).await;
    assert_eq!((certificates(&status).0.as_str(), world.running_pki()), ("True", running.clone()));
    world.host.remove(&SECRETS, "team-a", PKI);
    let (_, status) = world.round("team-a", CLUSTER).await;
    assert_eq!(certificates(&status).0, "True", "{status}");
    assert_ne!(world.running_pki(), running);
    // Of the same cluster, and perhaps of the same data: what was lost is put back.
    world.host.edit(&SECRETS, "team-a", PKI, |secret| {
        secret["data"] = saved["data"].clone();
        secret["metadata"]["annotations"] = saved["metadata"]["annotations"].clone();
    });
    let (_, status) = world.round("team-a", CLUSTER).await;
    assert_eq!((certificates(&status).0.as_str(), world.running_pki()), ("True", running));
    // Changed by hand, without a word of where it is from.
    let stranger = World::new();
    stranger.make("k8s").await;
    let other = stranger.secret(PKI)["data"].clone();
    world.host.edit(&SECRETS, "team-a", PKI, |secret| secret["data"] = other.clone());
    let (_, status) = world.round("team-a", CLUSTER).await;
    assert_eq!(certificates(&status), is("False", "PkiReplaced"));
}

#[tokio::test]
async fn a_kubeconfig_from_the_backup_is_taken_over_and_one_of_others_is_not() {
    let (world, saved_pki, saved) = World::with_a_deleted_one("k8s").await;
    world.host.put(&SECRETS, "team-a", stripped(&saved_pki));
    let theirs = json!({"metadata": {"name": KUBECONFIG, "labels": {"app": "vcluster"}}, "data": {"config": "eA=="}});
    world.host.put(&SECRETS, "team-a", theirs);
    let before = world.secret(KUBECONFIG);
    let status = world.make("k8s").await;
    assert_eq!(certificates(&status), is("False", "NameTaken"));
    assert_eq!(world.secret(KUBECONFIG), before);

    world.host.put(&SECRETS, "team-a", stripped(&saved));
    let (_, status) = world.round("team-a", CLUSTER).await;
    assert_eq!(certificates(&status).0, "True", "{status}");
    let taken = world.secret(KUBECONFIG);
    assert_eq!(taken["metadata"]["ownerReferences"][0]["uid"], world.owner());
    assert_eq!(taken["data"]["client-certificate"], saved["data"]["client-certificate"], "copies of it work on");
}
