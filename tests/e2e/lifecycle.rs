//! Virtual clusters come, are listed and connected to, and go without a trace.

use crate::harness::{
    Dump, Invocation, SYSTEM, Tenant, alpha, eventually, gateway_url, host, host_kubeconfig, kubectl, left, portico,
    run_id, sleeper, system_services, target, with_user, work,
};

#[test]
fn created_once_listed_and_described() {
    let alpha = alpha();
    let again = portico(&["create", &alpha.name, "-n", &alpha.namespace, "--host", "alpha.e2e.test"]);
    assert!(again.err.contains("already exists"), "{again}");
    again.ok();
    let names = portico(&["list", "-A", "-o", "name"]).ok();
    assert!(names.lines().any(|l| l == "virtualcluster.portico.dev/alpha"), "{names}");
    let described = portico(&["describe", "alpha", "-n", "e2e-a", "-o", "json"]).json();
    assert_eq!(described["status"]["phase"], "Ready");
    for condition in described["status"]["conditions"].as_array().expect("conditions") {
        assert_eq!(condition["status"], "True", "{condition}");
    }
    let table = portico(&["list", "-n", "e2e-a"]).ok();
    assert!(table.contains("Ready") && table.contains("ENDPOINT") && table.contains("5Gi"), "{table}");
}

#[test]
fn what_is_not_there_ends_with_3() {
    let missing = portico(&["describe", "nobody", "-n", "default"]);
    assert_eq!(missing.code, 3, "{missing}");
    assert!(missing.err.contains("hint: "), "{missing}");
    assert_eq!(portico(&["delete", "nobody", "-n", "default"]).code, 3);
    portico(&["delete", "nobody", "-n", "default", "--ignore-not-found"]).ok();
}

#[test]
fn connect_runs_a_command_and_ends_with_its_code() {
    let alpha = alpha();
    let connect = ["connect", &alpha.name, "-n", &alpha.namespace, "--"];
    let answer = portico(&[&connect[..], &["kubectl", "get", "namespaces", "-o", "name"]].concat()).ok();
    assert!(answer.contains("namespace/kube-system"), "{answer}");
    assert_eq!(portico(&[&connect[..], &["sh", "-c", "exit 7"]].concat()).code, 7);
}

#[test]
fn connect_forwards_a_port_when_the_secret_names_no_public_address() {
    let _dump = Dump(vec![alpha()]);
    // A Secret of the form that Portico writes without publicURL, and a user who may read it and no VirtualCluster.
    let name = format!("forwarded-{}", run_id());
    let by_name = std::fs::read_to_string(alpha().by_sni()).expect("read");
    let file = work().join("localhost.yaml");
    std::fs::write(&file, by_name.replace(&gateway_url(), "https://localhost:8443")).expect("written");
    let from_file = format!("--from-file=config={}", file.display());
    alpha().on_host(&["create", "secret", "generic", &format!("vc-{name}"), &from_file]).ok();
    let subject = format!("--serviceaccount=e2e-a:{name}");
    alpha().on_host(&["create", "serviceaccount", &name]).ok();
    alpha().on_host(&["create", "role", &name, "--verb=get", "--resource=secrets"]).ok();
    alpha().on_host(&["create", "rolebinding", &name, &format!("--role={name}"), &subject]).ok();
    let token = alpha().on_host(&["create", "token", &name]).ok();
    let user = with_user(&host_kubeconfig(), &serde_json::json!({"token": token.trim()}), &name);
    let connect = ["connect", &name, "-n", "e2e-a", "--", "kubectl", "get", "namespaces", "-o", "name"];
    let refused = Invocation::new("portico", &user, &connect).run();
    assert!(refused.code == 1 && refused.err.contains("--server"), "{refused}");
    let rules = ["--verb=get,list,create", "--resource=pods,pods/portforward"];
    host(&[&["-n", SYSTEM, "create", "role", name.as_str()], &rules[..]].concat()).ok();
    host(&["-n", SYSTEM, "create", "rolebinding", &name, &format!("--role={name}"), &subject]).ok();
    let answer = eventually("the forwarded port", || Invocation::new("portico", &user, &connect).run().result());
    assert!(answer.contains("namespace/kube-system"), "{answer}");
    alpha().on_host(&["delete", "secret,serviceaccount,role,rolebinding", &name, "--ignore-not-found"]);
    alpha().on_host(&["delete", "secret", &format!("vc-{name}")]).ok();
    host(&["-n", SYSTEM, "delete", "role,rolebinding", &name]).ok();
}

#[test]
fn several_in_one_namespace_and_nothing_left_behind() {
    let namespace = format!("e2e-pair-{}", run_id());
    for name in ["one", "two"] {
        portico(&["create", name, "-n", &namespace, "--no-wait"]).ok();
    }
    let tenants: Vec<&'static Tenant> =
        ["one", "two"].map(|name| &*Box::leak(Box::new(Tenant::create(name, &namespace, &[])))).into();
    let _dump = Dump(tenants.clone());
    for tenant in &tenants {
        eventually("account", || tenant.kubectl(&["get", "serviceaccount", "default"]).result());
        Invocation::kubectl(&tenant.kubeconfig, &["apply", "-f", "-"]).stdin(sleeper("web").as_bytes()).run().ok();
    }
    for tenant in &tenants {
        tenant.kubectl(&["wait", "pod/web", "--for=condition=Ready", "--timeout=90s"]).ok();
        tenant.on_host(&["get", "pod", &format!("web-x-default-x-{}", tenant.name)]).ok();
    }
    // One goes, the other notices nothing.
    portico(&["delete", "one", "-n", &namespace]).ok();
    assert_eq!(left(&namespace, "one"), Vec::<String>::new());
    assert_eq!(system_services(&namespace, "one"), 0);
    let dead = tenants[0].kubectl(&["get", "pods"]);
    dead.fails(&["not found", "could not find", "notfound", "no virtual cluster"]);
    tenants[1].kubectl(&["exec", "web", "--", "true"]).ok();
    // The whole namespace goes, without the VirtualCluster being deleted first.
    host(&["delete", "namespace", &namespace, "--timeout=120s"]).ok();
    eventually("Portico's own Services are gone", || match system_services(&namespace, "two") {
        0 => Ok(()),
        n => Err(format!("{n} Services")),
    });
    let list = portico(&["list", "-A"]).ok();
    assert!(!list.contains(&namespace), "{list}");
}

#[test]
fn tighter_limits_come_into_force_and_wider_ones_do_not() {
    let namespace = format!("e2e-limits-{}", run_id());
    let tenant = &*Box::leak(Box::new(Tenant::create("modest", &namespace, &[])));
    let _dump = Dump(vec![tenant]);
    let limits = serde_json::json!({
        "limits": {"requestsPerSecond": 1, "requestBurst": 2, "requestsInFlight": 1_000_000},
        "resources": {"limits": {"memory": "900Gi", "cpu": "1"}},
    });
    let patch = serde_json::json!({"spec": limits}).to_string();
    host(&["-n", &namespace, "patch", "virtualcluster", "modest", "--type=merge", "-p", &patch]).ok();
    eventually("the limits are in force", || {
        let words = portico(&["describe", "modest", "-n", &namespace]).ok();
        let in_flight = "Requests in flight  400 (of 1000000: the configuration allows no more)";
        if words.contains(in_flight) && words.contains("Requests/s          1\n") { Ok(()) } else { Err(words) }
    });
    let path = "jsonpath={.spec.template.spec.containers[0].resources.limits}";
    eventually("its control plane is bounded", || {
        let limits = host(&["-n", &namespace, "get", "statefulset", "modest", "-o", path]).json();
        let wanted = serde_json::json!({"cpu": "1", "memory": "16Gi", "ephemeral-storage": "4Gi"});
        if limits == wanted { Ok(()) } else { Err(limits.to_string()) }
    });
    // Its own callers are told, and nobody else is.
    eventually("too many in a second", || {
        // kubectl comes again after the time that it is told.
        let said: String = (0..4).map(|_| tenant.kubectl(&["-v=6", "get", "--raw", "/api"]).err).collect();
        if said.contains("429") { Ok(()) } else { Err(said) }
    });
    alpha().kubectl(&["get", "--raw", "/api"]).ok();
    host(&["delete", "namespace", &namespace, "--wait=false"]).ok();
}

#[test]
fn a_user_with_rights_in_one_namespace_is_enough() {
    let namespace = format!("e2e-user-{}", run_id());
    host(&["create", "namespace", &namespace]).ok();
    host(&["-n", &namespace, "create", "serviceaccount", "dev"]).ok();
    let subject = format!("--serviceaccount={namespace}:dev");
    host(&["-n", &namespace, "create", "rolebinding", "dev-admin", "--clusterrole=admin", &subject]).ok();
    let token = host(&["-n", &namespace, "create", "token", "dev"]).ok();
    let user = serde_json::json!({"token": token.trim()});
    let kubeconfig = with_user(&host_kubeconfig(), &user, "dev");
    kubectl(&kubeconfig, &["get", "nodes"]).fails(&["forbidden"]);
    let as_dev = |arguments: &[&str]| Invocation::new("portico", &kubeconfig, arguments).run();
    as_dev(&["create", "mine", "-n", &namespace]).ok();
    let answer = as_dev(&["connect", "mine", "-n", &namespace, "--", "kubectl", "auth", "can-i", "*", "*"]).ok();
    assert_eq!(answer.trim(), "yes");
    as_dev(&["delete", "mine", "-n", &namespace]).ok();
    as_dev(&["list", "-A"]).fails(&["may not"]);
    host(&["delete", "namespace", &namespace, "--wait=false"]).ok();
}

#[test]
fn the_programs_are_there() {
    for name in ["kubectl", "helm", "portico"] {
        assert!(target().join("bin").join(name).exists(), "{name}: make up");
    }
}
