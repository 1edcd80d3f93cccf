//! What a plain cluster has and a virtual one once had not: nodes without the taint of new ones, time zones, volumes that
//! are what they say, aggregated APIs, and DNS under its usual name.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{
    BUSYBOX, Dump, Invocation, Running, Space, alpha, eventually, eventually_is, host, node, run_id, target, work,
};

/// Reasons and messages of the events on an object.
fn said(space: &Space, object: &str) -> String {
    let selector = format!("--field-selector=involvedObject.name={object}");
    space.kubectl(&["get", "events", &selector, "-o", "jsonpath={range .items[*]}{.reason}: {.message}\n{end}"]).out()
}

#[test]
fn nodes_have_no_taint_of_new_ones() {
    let _dump = Dump(vec![alpha()]);
    let nodes = || alpha().kubectl(&["get", "nodes", "-o", "json"]).json()["items"].clone();
    let untainted = || -> Result<String, String> {
        let nodes = nodes();
        let all = nodes.as_array().expect("a list");
        let first = all.first().ok_or("no node")?;
        match all.iter().find(|n| n["spec"].get("taints").is_some() || n["spec"]["unschedulable"] == true) {
            Some(node) => Err(node["spec"].to_string()),
            None => Ok(first["metadata"]["name"].as_str().expect("a name").to_owned()),
        }
    };
    let name = eventually("nodes without taints, as the host's", untainted);
    // What is set inside nobody would heed: it does not stay.
    alpha().kubectl(&["taint", "node", &name, "e2e.test/own=x:NoSchedule"]).ok();
    alpha().kubectl(&["cordon", &name]).ok();
    eventually("the host's word", untainted);
}

#[test]
fn time_zones_are_known() {
    let space = alpha().space("zones");
    let _dump = Dump(vec![alpha()]);
    let job = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "often"}, "spec": {
        "schedule": "* * * * *", "timeZone": "Europe/Rome", "jobTemplate": {"spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "main", "image": BUSYBOX, "command": ["true"]}]}}}}}});
    // The API server validates it,
    space.apply(&job.to_string());
    // and the controller manager schedules by it.
    eventually("the first run", || {
        let time = space.kubectl(&["get", "cronjob", "often", "-o", "jsonpath={.status.lastScheduleTime}"]).ok();
        if time.is_empty() { Err(said(&space, "often")) } else { Ok(()) }
    });
    let mut unknown = job;
    unknown["metadata"]["name"] = "never".into();
    unknown["spec"]["timeZone"] = "Europe/Nowhere".into();
    let refused = space.invocation(&["apply", "-f", "-"]).stdin(unknown.to_string().as_bytes()).run();
    refused.fails(&["unknown time zone"]);
}

/// Which members of the layers of an image begin with this path; the image is as `make image` leaves it.
fn in_image(image: &str, path: &str) -> String {
    let archive = target().join("image").join(format!("{image}.tar"));
    let line = format!(
        "for b in $(tar -tf '{0}' | grep blobs/); do tar -xOf '{0}' $b | tar -tvf - 2>/dev/null; done | grep ' {path}'",
        archive.display()
    );
    let found = Command::new("sh").args(["-c", &line]).output().expect("a shell");
    String::from_utf8_lossy(&found.stdout).into_owned()
}

#[test]
fn the_control_planes_image_has_authorities_to_check_others_by() {
    for image in ["control-plane", "k3s-stand-in"] {
        let found = in_image(image, "etc/ssl/certs/ca-certificates.crt");
        let size: Option<u64> = found.split_whitespace().nth(2).and_then(|size| size.parse().ok());
        assert!(size.is_some_and(|size| size > 100_000), "{image}: {found:?}");
    }
}

#[test]
fn a_claim_that_names_its_volume_is_refused_and_never_bound_to_another() {
    let space = alpha().space("static");
    let _dump = Dump(vec![alpha()]);
    // The host's: without rights to its classes, a sidecar shows none.
    let class = host(&["get", "storageclass", "-o", "jsonpath={.items[0].metadata.name}"]).ok();
    let size = json!({"storage": "64Mi"});
    let volume = |name: &str, claim: Value| {
        let name = format!("{}-{name}", space.name);
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
            "capacity": size, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": class, "hostPath": {"path": format!("/tmp/{name}")}, "claimRef": claim}})
    };
    let claim = |name: &str, class: &str, volume: Option<String>| {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": {
            "storageClassName": class, "volumeName": volume, "accessModes": ["ReadWriteOnce"], "resources": {"requests": size}}})
    };
    let reserved = json!({"namespace": space.name, "name": "reserved"});
    let volumes = json!([volume("a", Value::Null), volume("b", reserved)]);
    space.apply(&json!({"apiVersion": "v1", "kind": "List", "items": volumes}).to_string());
    let named = Some(format!("{}-a", space.name));
    let claims = json!([
        claim("named", &class, named.clone()),
        claim("classless", "", named),
        claim("reserved", &class, None),
        claim("plain", &class, None),
    ]);
    // A class that waits for a consumer must not be the reason that nothing is bound.
    let mounts: Vec<Value> = ["named", "reserved", "plain"]
        .map(|name| {
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1,
                "containers": [{"name": "main", "image": BUSYBOX, "command": ["sh", "-c", "trap exit TERM; while true; do sleep 1; done"],
                    "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": name}}]}})
        })
        .into();
    space.apply(&json!({"apiVersion": "v1", "kind": "List", "items": claims}).to_string());
    space.apply(&json!({"apiVersion": "v1", "kind": "List", "items": mounts}).to_string());
    for name in ["named", "classless", "reserved"] {
        eventually(&format!("an event on {name}"), || {
            let said = said(&space, name);
            if said.contains("SyncDenied") { Ok(()) } else { Err(said) }
        });
    }
    // By then the others would be bound, too.
    space.wait("pvc/plain", "jsonpath={.status.phase}=Bound");
    for name in ["named", "classless", "reserved"] {
        assert_eq!(space.kubectl(&["get", "pvc", name, "-o", "jsonpath={.status.phase}"]).ok(), "Pending", "{name}");
        assert!(!space.on_host("persistentvolumeclaims").contains(&space.host_name(name)), "{name}");
    }
    // The way out that the event names.
    alpha().kubectl(&["delete", "pv", &format!("{}-a", space.name), &format!("{}-b", space.name)]).ok();
    space.wait("pvc/reserved", "jsonpath={.status.phase}=Bound");
    space.kubectl(&["delete", "pod", "named", "reserved", "plain", "--now"]).ok();
    space.kubectl(&["delete", "pvc", "--all"]).ok();
    eventually_is("the host's claims go", || space.on_host("persistentvolumeclaims").is_empty());
}

/// Starts it beside the pods of the node; yields it and its port.
fn extension_server(space: &Space, group: &str) -> (Running, String) {
    let authority = alpha().kubectl(&[
        "-n",
        "kube-system",
        "get",
        "configmap",
        "extension-apiserver-authentication",
        "-o",
        "jsonpath={.data.requestheader-client-ca-file}",
    ]);
    let own = rcgen::generate_simple_self_signed(vec!["things".to_owned()]).expect("a certificate");
    let folder = work().join(format!("extension-{}", space.name));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let (certificate, key) = (file("tls.crt", &own.cert.pem()), file("tls.key", &own.signing_key.serialize_pem()));
    let authority = file("authority.crt", &authority.ok());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/extension_server.py");
    let script = script.display().to_string();
    let arguments = [script.as_str(), &node(), &certificate, &key, &authority, group];
    let server = Invocation::new("/usr/bin/python3", &alpha().kubeconfig, &arguments).start();
    let port = server.line_with("port ").trim_start_matches("port ").to_owned();
    (server, port)
}

#[test]
fn an_extension_api_server_knows_whom_the_aggregator_speaks_for() {
    let space = alpha().space("aggregated");
    let _dump = Dump(vec![alpha()]);
    let group = format!("g{}.example.test", run_id());
    let (_server, port) = extension_server(&space, &group);
    let port: u16 = port.parse().expect("a port");
    space.apply(
        &json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "things"},
                "spec": {"ports": [{"name": "https", "port": 443, "targetPort": port}]}},
            {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "things"},
                "subsets": [{"addresses": [{"ip": node()}], "ports": [{"name": "https", "port": port}]}]},
            {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": format!("v1.{group}")},
                "spec": {"group": group, "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
                    "insecureSkipTLSVerify": true, "service": {"namespace": space.name, "name": "things", "port": 443}}}]})
        .to_string(),
    );
    // Without its server it would keep every namespace of the tenant from being deleted.
    let _registered = Registered(format!("v1.{group}"));
    let answer: Value = eventually("the aggregated API", || {
        let text = alpha().kubectl(&["get", "--raw", &format!("/apis/{group}/v1/whoami")]).result()?;
        serde_json::from_str(&text).map_err(|e| e.to_string())
    });
    let me = alpha().kubectl(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]).ok();
    assert_eq!(answer["user"], me.as_str(), "{answer}");
    let names = ["-o", "jsonpath={.data.requestheader-allowed-names}"];
    let published = ["-n", "kube-system", "get", "configmap", "extension-apiserver-authentication"];
    let allowed: Vec<String> =
        serde_json::from_str(&alpha().kubectl(&[&published[..], &names].concat()).ok()).expect("a list of names");
    let client = answer["client"].as_str().unwrap_or_default();
    assert!(!client.is_empty() && allowed.iter().any(|name| name == client), "{client:?} of {allowed:?}");
}

/// An APIService of alpha.
struct Registered(String);

impl Drop for Registered {
    fn drop(&mut self) {
        alpha().kubectl(&["delete", "apiservice", &self.0, "--ignore-not-found"]);
    }
}

#[test]
fn dns_has_its_usual_name() {
    let space = alpha().space("kubedns");
    let _dump = Dump(vec![alpha()]);
    space.pod("box");
    let server = space.sh("box", "sed -n 's/^nameserver //p' /etc/resolv.conf | head -n1").ok().trim().to_owned();
    let name = "kube-dns.kube-system.svc.cluster.local";
    let line = format!("nslookup -type=a {name} 2>&1 | sed -n '/^Name:/,$p' | sed -n 's/^Address[ 0-9]*: *//p'");
    eventually(name, || match space.sh("box", &line).result()?.trim() {
        found if found == server => Ok(()),
        found => Err(format!("{found:?} instead of {server}")),
    });
    space.sh("box", &format!("nslookup -type=a kubernetes.default.svc.cluster.local {server}")).ok();
    let found = alpha().kubectl(&["-n", "kube-system", "get", "service", "kube-dns", "-o", "json"]).json();
    assert_eq!(found["metadata"]["labels"]["k8s-app"], "kube-dns");
    let endpoints = ["get", "endpoints", "kube-dns", "-o", "jsonpath={.subsets[0].addresses[0].ip}"];
    assert_eq!(alpha().kubectl(&[&["-n", "kube-system"], &endpoints[..]].concat()).ok(), server);
    eventually_is("the controller manager's slice of it", || {
        let selector = "kubernetes.io/service-name=kube-dns";
        let slices = ["get", "endpointslices", "-l", selector, "-o", "jsonpath={.items[*].endpoints[*].addresses[0]}"];
        alpha().kubectl(&[&["-n", "kube-system"], &slices[..]].concat()).out() == server
    });
    // On the host that address is a Service of Portico's own already.
    for kind in ["services", "endpoints", "endpointslices"] {
        let labels = format!("portico.dev/cluster={},portico.dev/namespace=kube-system", alpha().name);
        let all = alpha().on_host(&["get", kind, "-l", &labels, "-o", "name"]).out();
        assert!(!all.contains("kube-dns"), "{all}");
    }
}
