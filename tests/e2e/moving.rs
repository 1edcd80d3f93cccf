//! From one form to another: what runs goes on running, under the same uids.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{
    AGNHOST, Dump, Space, Tenant, eventually, eventually_is, host, portico, read, run_id, sleeper, uids, work,
};

const KINDS: &str = "pods,services,persistentvolumeclaims,configmaps,secrets";

/// Everything on the host that stands for something of this cluster.
fn copies(tenant: &Tenant) -> Value {
    let label = format!("portico.dev/cluster={}", tenant.name);
    tenant.on_host(&["get", KINDS, "-l", &label, "-o", "json"]).json()
}

/// Kinds of the owners of everything on the host but Secrets with tokens, which belong to their pods.
fn owners(tenant: &Tenant) -> BTreeSet<String> {
    let list = copies(tenant);
    let items = list["items"].as_array().expect("a list").iter();
    let owners = items.flat_map(|o| o["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default());
    owners.filter_map(|o| o["kind"].as_str().map(str::to_owned)).filter(|kind| kind != "Pod").collect()
}

/// A Deployment, a Service, a pod with a volume, a ConfigMap and a Secret.
fn workload(space: &Space) {
    space.kubectl(&["create", "configmap", "settings", "--from-literal=key=map"]).ok();
    space.kubectl(&["create", "secret", "generic", "password", "--from-literal=key=secret"]).ok();
    space
        .kubectl(&[
            "create",
            "deployment",
            "web",
            "--replicas=2",
            &format!("--image={AGNHOST}"),
            "--",
            "/agnhost",
            "netexec",
        ])
        .ok();
    space.kubectl(&["expose", "deployment", "web", "--port=80", "--target-port=8080"]).ok();
    space.apply(
        &json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
        .to_string(),
    );
    let mut pod: Value = serde_saphyr::from_str(&sleeper("box")).expect("a pod");
    pod["spec"]["volumes"] = json!([{"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "m", "configMap": {"name": "settings"}}, {"name": "s", "secret": {"secretName": "password"}}]);
    pod["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "d", "mountPath": "/d"}, {"name": "m", "mountPath": "/m"}, {"name": "s", "mountPath": "/s"}]);
    space.apply(&pod.to_string());
    space.wait("pod/box", "condition=Ready");
    space.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"]).ok();
}

/// The pod's own API server by token and CA, and a Service by name: at the addresses that the pod was started with.
fn inside_works(space: &Space) {
    let line = "cd /var/run/secrets/kubernetes.io/serviceaccount && /bin/wget -q -O - -T 10 --ca-certificate ca.crt \
                --header \"Authorization: Bearer $(cat token)\" https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/version";
    eventually("the API from inside", || space.sh("box", line).result());
    let line = format!("/bin/wget -q -O - -T 10 http://web.{}.svc.cluster.local/hostname", space.name);
    let answer = eventually("a Service by name from inside", || space.sh("box", &line).result());
    assert!(answer.starts_with("web-"), "{answer}");
}

/// What the docs say (docs/operations/move.md), step by step; the kubeconfig is edited here, not by `kubectl config`.
fn move_to_shared(tenant: &Tenant) -> Tenant {
    let (name, namespace) = (tenant.name.as_str(), tenant.namespace.as_str());
    // The backend's own address, and an admin's kubeconfig for it.
    let backend = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("{name}-k3s")},
        "spec": {"selector": {"app": name}, "ports": [{"port": 443, "targetPort": 6443}]}});
    crate::harness::sidecar::apply(namespace, &backend.to_string());
    let get = |service: &str| tenant.on_host(&["get", "service", service, "-o", "jsonpath={.spec.clusterIP}"]).ok();
    let mut kubeconfig = read(&tenant.kubeconfig);
    kubeconfig["clusters"][0]["cluster"]["server"] = format!("https://{}", get(&format!("{name}-k3s"))).into();
    kubeconfig["clusters"][0]["cluster"]["tls-server-name"] = "kubernetes".into();
    let file = work().join(format!("{namespace}-{name}-backend.yaml"));
    std::fs::write(&file, kubeconfig.to_string()).expect("written");
    tenant.on_host(&["create", "secret", "generic", "backend", &format!("--from-file=config={}", file.display())]).ok();
    // The syncer goes, k3s stays; then the Service's address changes hands.
    let without = r#"[{"op": "remove", "path": "/spec/template/spec/containers/1"}]"#;
    tenant.on_host(&["patch", "statefulset", name, "--type=json", "-p", without]).ok();
    tenant.on_host(&["rollout", "status", &format!("statefulset/{name}"), "--timeout=120s"]).ok();
    let address = get(name);
    tenant.on_host(&["delete", "service", name]).ok();
    let flags = ["--distro", "external", "--backend-secret", "backend", "--service-ip", &address];
    Tenant::create(name, namespace, &flags)
}

#[test]
fn a_sidecar_moves_to_the_shared_form_and_nothing_is_made_again() {
    let namespace = format!("e2e-move-{}", run_id());
    let before: &'static Tenant = Box::leak(Box::new(Tenant::sidecar("mover", &namespace)));
    let _dump = Dump(vec![before]);
    let space = before.space("work");
    workload(&space);
    inside_works(&space);
    let known = uids(&copies(before));
    assert!(known.len() >= 8, "{known:?}");
    assert_eq!(owners(before), BTreeSet::from(["StatefulSet".to_owned()]));

    let after: &'static Tenant = Box::leak(Box::new(move_to_shared(before)));
    eventually("everything belongs to the VirtualCluster", || match owners(after) {
        kinds if kinds == BTreeSet::from(["VirtualCluster".to_owned()]) => Ok(()),
        kinds => Err(format!("{kinds:?}")),
    });
    let space = Space { tenant: after, name: space.name.clone() };
    assert_eq!(space.sh("box", "cat /m/key /s/key").ok(), "mapsecret");
    inside_works(&space);
    space.pod("after");
    let now = uids(&copies(after));
    for (object, uid) in &known {
        assert_eq!(now.get(object), Some(uid), "{object} was made again");
    }
    // It goes as any VirtualCluster does; the control plane is not Portico's to stop.
    portico(&["delete", "mover", "-n", &namespace]).ok();
    eventually_is("the copies go", || uids(&copies(after)).is_empty());
    host(&["-n", &namespace, "rollout", "status", "statefulset/mover", "--timeout=5s"]).ok();
    host(&["delete", "namespace", &namespace, "--wait=false"]).ok();
    // Its namespace inside is gone with the copies' cluster: nothing to clean up there.
    std::mem::forget(space);
}
