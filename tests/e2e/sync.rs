//! What a tenant runs comes to be on the host, as little as possible of it, and comes back as status; nothing stays.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{AGNHOST, BUSYBOX, Dump, alpha, beta, eventually, eventually_is, names, run_id, sleeper};

fn deployment(name: &str, replicas: u32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [
                {"name": "main", "image": AGNHOST, "args": ["netexec", "--http-port=8080"], "ports": [{"containerPort": 8080}]}]}}}})
}

#[test]
fn a_deployment_stays_and_its_pods_run_on_the_host() {
    let space = alpha().space("deploy");
    let _dump = Dump(vec![alpha()]);
    space.apply(&deployment("web", 2).to_string());
    space.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"]).ok();
    let inside = names(&space.kubectl(&["get", "pods", "-o", "json"]).json());
    let wanted: BTreeSet<String> = inside.iter().map(|pod| space.host_name(pod)).collect();
    assert_eq!(space.on_host("pods"), wanted);
    let deployments = names(&alpha().on_host(&["get", "deployments,replicasets", "-o", "json"]).json());
    assert_eq!(deployments, BTreeSet::new());
    let pod = space.kubectl(&["get", "pods", "-o", "json"]).json()["items"][0].clone();
    assert_eq!(pod["status"]["phase"], "Running");
    assert!(pod["status"]["podIP"].is_string() && pod["spec"]["nodeName"].is_string(), "{pod}");
    let node = pod["spec"]["nodeName"].as_str().expect("a node");
    alpha().kubectl(&["get", "node", node]).ok();
    space.kubectl(&["scale", "deployment/web", "--replicas=1"]).ok();
    eventually_is("scaling down reaches the host", || space.on_host("pods").len() == 1);
    space.kubectl(&["delete", "deployment", "web"]).ok();
    eventually_is("deletion reaches the host", || space.on_host("pods").is_empty());
}

#[test]
fn configuration_reaches_the_pod_and_only_what_is_used_crosses() {
    let space = alpha().space("config");
    let _dump = Dump(vec![alpha()]);
    for name in ["used", "unused"] {
        space.kubectl(&["create", "configmap", name, "--from-literal=key=map"]).ok();
        space.kubectl(&["create", "secret", "generic", name, "--from-literal=key=secret"]).ok();
    }
    space.apply(
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"l": "v"}}, "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": BUSYBOX, "command": ["sh", "-c", "trap exit TERM; while true; do sleep 1; done"],
                "env": [
                    {"name": "FROM_MAP", "valueFrom": {"configMapKeyRef": {"name": "used", "key": "key"}}},
                    {"name": "FROM_SECRET", "valueFrom": {"secretKeyRef": {"name": "used", "key": "key"}}},
                    {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "NS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "volumeMounts": [{"name": "m", "mountPath": "/m"}, {"name": "s", "mountPath": "/s"}, {"name": "d", "mountPath": "/d"}]}],
            "volumes": [{"name": "m", "configMap": {"name": "used"}}, {"name": "s", "secret": {"secretName": "used"}},
                {"name": "d", "downwardAPI": {"items": [
                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                    {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}})
        .to_string(),
    );
    space.wait("pod/p", "condition=Ready");
    let env = space.sh("p", "echo $FROM_MAP $FROM_SECRET $POD $NS").ok();
    assert_eq!(env.trim(), format!("map secret p {}", space.name));
    assert!(!space.sh("p", "echo $IP").ok().trim().is_empty());
    let files = space.sh("p", "cat /m/key; echo; cat /s/key; echo; cat /d/name; echo; cat /d/labels").ok();
    assert_eq!(files.trim(), "map\nsecret\np\nl=\"v\"");
    assert!(space.on_host("configmaps").contains(&space.host_name("used")));
    assert!(!space.on_host("configmaps").contains(&space.host_name("unused")));
    assert!(!space.on_host("secrets").contains(&space.host_name("unused")));
    // A change comes to the host; the kubelet brings it into the volume in its own time.
    space.kubectl(&["patch", "configmap", "used", "-p", r#"{"data":{"key":"new"}}"#]).ok();
    eventually_is("the change", || {
        let found = alpha().on_host(&["get", "configmap", &space.host_name("used"), "-o", "jsonpath={.data.key}"]);
        found.out() == "new"
    });
    space.kubectl(&["delete", "pod", "p", "--now"]).ok();
    eventually_is("what no pod uses is taken away", || space.on_host("secrets").is_empty());
}

#[test]
fn a_pod_calls_its_own_api_server_with_its_own_token() {
    let space = alpha().space("token");
    let _dump = Dump(vec![alpha()]);
    space.pod("box");
    let rules = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "view"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": space.name}]});
    space.apply(&rules.to_string());
    let path = format!("/api/v1/namespaces/{}/pods/box", space.name);
    for server in ["https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT", "https://kubernetes.default.svc"] {
        let line = format!(
            "cd /var/run/secrets/kubernetes.io/serviceaccount && /bin/wget -q -O - -T 20 --ca-certificate ca.crt \
             --header \"Authorization: Bearer $(cat token)\" {server}{path}"
        );
        let answer: Value = eventually(server, || {
            space.sh("box", &line).result().and_then(|t| serde_json::from_str(&t).map_err(|e| e.to_string()))
        });
        assert_eq!(answer["metadata"]["name"], "box", "{server}");
    }
    let namespace = space.sh("box", "cat /var/run/secrets/kubernetes.io/serviceaccount/namespace").ok();
    assert_eq!(namespace, space.name);
    // The token is worth nothing at the host.
    let token = space.sh("box", "cat /var/run/secrets/kubernetes.io/serviceaccount/token").ok();
    let at_host =
        crate::harness::with_user(&crate::harness::host_kubeconfig(), &json!({"token": token.trim()}), "tenant-token");
    crate::harness::kubectl(&at_host, &["get", "namespaces"]).fails(&["unauthorized", "logged in", "credentials"]);
}

#[test]
fn a_service_has_one_address_on_both_sides() {
    let space = alpha().space("service");
    let _dump = Dump(vec![alpha()]);
    space.apply(&deployment("web", 1).to_string());
    space.kubectl(&["expose", "deployment", "web", "--port=80", "--target-port=8080"]).ok();
    space.pod("box");
    space.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"]).ok();
    let address = space.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]).ok();
    let host_address = eventually("the Service on the host", || {
        alpha().on_host(&["get", "service", &space.host_name("web"), "-o", "jsonpath={.spec.clusterIP}"]).result()
    });
    assert_eq!(address, host_address);
    let answer = eventually("the Service answers", || {
        space.sh("box", &format!("/bin/wget -q -O - -T 5 http://{address}/hostname")).result()
    });
    assert!(answer.starts_with("web-"), "{answer}");
    space.kubectl(&["delete", "service", "web"]).ok();
    eventually_is("the host's Service goes", || space.on_host("services").is_empty());
}

#[test]
fn a_claim_is_bound_and_keeps_its_data() {
    let space = alpha().space("claim");
    let _dump = Dump(vec![alpha()]);
    space.apply(
        &json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
        .to_string(),
    );
    let pod = |name: &str| {
        let mut pod: Value = serde_saphyr::from_str(&sleeper(name)).expect("a pod");
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
        pod["spec"]["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
        pod.to_string()
    };
    space.apply(&pod("first"));
    space.wait("pod/first", "condition=Ready");
    space.wait("pvc/data", "jsonpath={.status.phase}=Bound");
    space.sh("first", "echo kept >/data/file").ok();
    space.kubectl(&["delete", "pod", "first"]).ok();
    space.apply(&pod("second"));
    space.wait("pod/second", "condition=Ready");
    assert_eq!(space.sh("second", "cat /data/file").ok().trim(), "kept");
    let volume = space.kubectl(&["get", "pvc", "data", "-o", "jsonpath={.spec.volumeName}"]).ok();
    alpha().kubectl(&["get", "pv", &volume]).ok();
    space.kubectl(&["delete", "pod", "second"]).ok();
    space.kubectl(&["delete", "pvc", "data"]).ok();
    eventually_is("the host's claim goes", || space.on_host("persistentvolumeclaims").is_empty());
}

#[test]
fn an_ingress_points_at_the_hosts_service() {
    let space = alpha().space("ingress");
    let _dump = Dump(vec![alpha()]);
    space.apply(
        &json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}},
            {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web"}, "spec": {"rules": [
                {"host": format!("{}.example.test", space.name), "http": {"paths": [{"path": "/", "pathType": "Prefix",
                    "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}}]})
        .to_string(),
    );
    let found = eventually("the Ingress on the host", || {
        alpha().on_host(&["get", "ingress", &space.host_name("web"), "-o", "json"]).result()
    });
    let found: Value = serde_json::from_str(&found).expect("JSON");
    let backend = &found["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"];
    assert_eq!(*backend, json!(space.host_name("web")));
    space.kubectl(&["delete", "ingress,service", "web"]).ok();
    eventually_is("the host's Ingress goes", || space.on_host("ingresses").is_empty());
}

#[test]
fn events_of_the_host_are_told_inside_with_inside_names() {
    let space = alpha().space("events");
    let _dump = Dump(vec![alpha()]);
    space.pod("box");
    let selector = "--field-selector=involvedObject.name=box";
    let events = eventually("events of the kubelet", || {
        let list = space.kubectl(&["get", "events", selector, "-o", "json"]).json();
        let told = |reason: &str| list["items"].as_array().is_some_and(|l| l.iter().any(|e| e["reason"] == reason));
        if told("Started") { Ok(list) } else { Err(list.to_string()) }
    });
    assert!(!events.to_string().contains("-x-"), "{events}");
}

#[test]
fn baseline_refuses_what_would_reach_the_node_and_says_why() {
    let space = beta().space("baseline");
    let _dump = Dump(vec![beta()]);
    let container = |security: Value| json!([{"name": "main", "image": BUSYBOX, "command": ["sleep", "3600"], "securityContext": security}]);
    let pods = [
        ("hostnet", "hostNetwork", json!({"hostNetwork": true, "containers": container(json!({}))})),
        ("hostpid", "hostPID", json!({"hostPID": true, "containers": container(json!({}))})),
        (
            "hostpath",
            "hostPath",
            json!({"containers": container(json!({})), "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
        ),
        ("privileged", "privileged", json!({"containers": container(json!({"privileged": true}))})),
        (
            "capability",
            "capabilities",
            json!({"containers": container(json!({"capabilities": {"add": ["SYS_ADMIN"]}}))}),
        ),
    ];
    for (name, _, spec) in &pods {
        space.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string());
    }
    for (name, word, _) in &pods {
        eventually(&format!("an event that names {word}"), || {
            let said = space.events(name, "");
            if said.to_lowercase().contains(&word.to_lowercase()) { Ok(()) } else { Err(said) }
        });
    }
    assert_eq!(space.on_host("pods"), BTreeSet::new());
}

#[test]
fn hostile_labels_and_annotations_of_portico_do_not_cross() {
    let space = beta().space("labels");
    let _dump = Dump(vec![beta()]);
    let mut pod: Value = serde_saphyr::from_str(&sleeper("box")).expect("a pod");
    pod["metadata"]["labels"] = json!({"app": "box", "portico.dev/component": "portico", "portico.dev/control-plane": "alpha", "portico.dev/cluster": "alpha"});
    pod["metadata"]["annotations"] = json!({"portico.dev/object-name": "other", "portico.dev/object-uid": "00000000"});
    space.apply(&pod.to_string());
    space.wait("pod/box", "condition=Ready");
    let found = beta().on_host(&["get", "pod", &space.host_name("box"), "-o", "json"]).json();
    let labels = &found["metadata"]["labels"];
    assert_eq!(labels["portico.dev/cluster"], "beta");
    assert_eq!(labels["app"], "box");
    assert!(labels["portico.dev/component"].is_null() && labels["portico.dev/control-plane"].is_null(), "{labels}");
    assert_eq!(found["metadata"]["annotations"]["portico.dev/object-name"], "box");
}

#[test]
fn hostile_references_to_other_tenants_objects_lead_nowhere() {
    let (mine, theirs) = (alpha().space("refs"), beta().space("refs"));
    let _dump = Dump(vec![alpha(), beta()]);
    mine.kubectl(&["create", "secret", "generic", "treasure", "--from-literal=key=gold"]).ok();
    let mut pod: Value = serde_saphyr::from_str(&sleeper("thief")).expect("a pod");
    pod["spec"]["volumes"] =
        json!([{"name": "s", "secret": {"secretName": mine.host_name("treasure"), "optional": true}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "s", "mountPath": "/s"}]);
    theirs.apply(&pod.to_string());
    theirs.wait("pod/thief", "condition=Ready");
    assert_eq!(theirs.sh("thief", "ls /s").ok().trim(), "");
}

#[test]
fn deleting_a_namespace_empties_the_host() {
    let space = alpha().space("empty");
    let _dump = Dump(vec![alpha()]);
    space.apply(&deployment("web", 1).to_string());
    space.kubectl(&["expose", "deployment", "web", "--port=80", "--target-port=8080"]).ok();
    space.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"]).ok();
    alpha().kubectl(&["delete", "namespace", &space.name, "--timeout=90s"]).ok();
    for kind in ["pods", "services", "configmaps", "secrets", "endpoints"] {
        eventually(kind, || match space.on_host(kind) {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}, run {}", run_id())),
        });
    }
}
