//! Credentials of the simulated world: requests come whenever, machines' Secrets are wanted and not wanted any more. Whatever
//! breaks, a request is answered once, and what is not wanted is gone, on the host and inside.

use std::collections::BTreeSet;

use portico::tls::issued;
use serde_json::{Value, json};

use super::super::text;
use super::{VIRTUAL_CLUSTERS, World};

const REQUESTS: &str = "credentialrequests";
const LABEL: &str = "portico.dev/kubeconfig";

impl World {
    /// Somebody asks for a certificate, of whatever has the name or of the one that has it now.
    pub(super) fn ask(&mut self, (namespace, cluster): (&str, &str)) {
        let (_, request) = issued::new_request().expect("made");
        let created = self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let uid = if self.below(2) == 0 { self.uid((namespace, cluster)) } else { None };
        let name = format!("r-{}", self.below(1 << 30));
        let user = ["jane", "system:admin"][self.below(2)];
        self.host.put(
            REQUESTS,
            json!({"apiVersion": "portico.dev/v1alpha1", "kind": "CredentialRequest",
                "metadata": {"namespace": namespace, "name": name, "creationTimestamp": created},
                "spec": {"virtualCluster": cluster, "virtualClusterUID": uid.unwrap_or_default(),
                    "request": request, "user": user}}),
        );
    }

    /// Its owner wants Secrets for machines, or does not any more.
    pub(super) fn want_kubeconfigs(&mut self, (namespace, cluster): (&str, &str)) {
        let Some(uid) = self.uid((namespace, cluster)) else { return };
        self.backends.of(&uid).put("clusterroles", json!({"metadata": {"name": "view"}}));
        let role = ["", "view"][self.below(2)];
        let all = [
            json!({"secretName": format!("{cluster}-robot"), "user": "robot", "clusterRole": role}),
            json!({"secretName": format!("{cluster}-other"), "user": "other", "groups": ["machines"]}),
        ];
        let wanted: Vec<Value> = all.into_iter().filter(|_| self.below(2) == 0).collect();
        self.host.change(VIRTUAL_CLUSTERS, namespace, cluster, |object| {
            object["spec"]["kubeconfigs"] = json!(wanted);
        });
    }

    /// An answer stays what it is.
    pub(super) fn observe_answers(&mut self) {
        for request in self.host.objects(REQUESTS) {
            let status = &request["status"];
            if status.is_null() {
                continue;
            }
            let seed = self.seed;
            let is_reserved = request["spec"]["user"] == "system:admin";
            assert!(!is_reserved || status["phase"] == "Denied", "seed {seed}: {request}");
            let before = self.answers.entry(text(&request, "uid")).or_insert_with(|| status.clone());
            assert_eq!(before, status, "seed {seed}: {} was answered twice", text(&request, "name"));
        }
    }

    pub(super) fn check_credentials(&self, living: &[Value]) {
        let seed = self.seed;
        assert!(self.host.objects(REQUESTS).is_empty(), "seed {seed}: requests are left");
        let secrets = self.host.objects("secrets");
        let names =
            |objects: &mut dyn Iterator<Item = &Value>| objects.map(|o| text(o, "name")).collect::<BTreeSet<_>>();
        for object in living {
            let wanted: Vec<&Value> = object["spec"]["kubeconfigs"].as_array().into_iter().flatten().collect();
            let uid = text(object, "uid");
            let of_it = |secret: &&Value| secret["metadata"]["ownerReferences"][0]["uid"] == uid.as_str();
            let is_labelled = |secret: &&Value| secret["metadata"]["labels"][LABEL].is_string();
            let found = names(&mut secrets.iter().filter(of_it).filter(is_labelled));
            let wish = |entry: &&Value| entry["secretName"].as_str().expect("name").to_owned();
            assert_eq!(found, wanted.iter().map(wish).collect(), "seed {seed}: {}", text(object, "name"));
            let bound = self.backends.of(&uid).objects("clusterrolebindings");
            let to_be_bound = wanted.iter().filter(|entry| entry["clusterRole"] == "view");
            let to_be_bound = to_be_bound.map(|entry| format!("portico:kubeconfig:{}", wish(entry))).collect();
            let of_secret = |name: &String| name.rsplit_once(':').expect("of a cluster").0.to_owned();
            let bound: BTreeSet<String> = names(&mut bound.iter()).iter().map(of_secret).collect();
            assert_eq!(bound, to_be_bound, "seed {seed}: bindings of {}", text(object, "name"));
        }
    }
}
