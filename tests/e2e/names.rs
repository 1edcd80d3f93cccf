//! Names of others: asked for by the hostile tenant, they stay where they are, also when Portico starts anew.

use serde_json::{Value, json};

use crate::harness::{Dump, SYSTEM, Tenant, alpha, beta, eventually, gateway_url, host, raw, read, settled};

const RESTARTS: usize = 10;

/// `HostsAccepted` of a VirtualCluster: status and message.
fn accepted(tenant: &Tenant) -> (String, String) {
    let object = tenant.on_host(&["get", "virtualcluster", &tenant.name, "-o", "json"]).json();
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|c| c["type"] == "HostsAccepted").unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&found["status"]), text(&found["message"]))
}

fn ask_for(tenant: &Tenant, hosts: &[String]) {
    let patch = json!({"spec": {"expose": {"hosts": hosts}}}).to_string();
    tenant.on_host(&["patch", "virtualcluster", &tenant.name, "--type=merge", "-p", &patch]).ok();
}

/// Takes the names back, whatever happened.
struct Restored(&'static Tenant);

impl Drop for Restored {
    fn drop(&mut self) {
        let none = json!({"spec": {"expose": {"hosts": []}}}).to_string();
        self.0.on_host(&["patch", "virtualcluster", &self.0.name, "--type=merge", "-p", &none]);
    }
}

/// alpha answers under these names with a certificate of its own CA, which alpha's kubeconfig trusts and nobody else's does.
fn is_alphas(names: &[String]) -> Result<(), String> {
    for name in names {
        let answer = raw(&alpha().by_sni(), "/api/v1/namespaces/default", &[], |config| {
            config.tls_server_name = Some(name.clone());
        })?;
        if answer.code != 200 {
            return Err(format!("{name}: {} {}", answer.code, answer.text()));
        }
    }
    Ok(())
}

#[test]
#[ignore = "restarts Portico under every other test; tests/e2e/run runs it alone"]
fn hostile_names_of_others_stay_theirs_over_restarts() {
    settled();
    let _dump = Dump(vec![alpha(), beta()]);
    let url: http::Uri = gateway_url().parse().expect("a URL");
    let by_name = read(&alpha().by_sni());
    let default = by_name["clusters"][0]["cluster"]["tls-server-name"].as_str().expect("a name").to_owned();
    let own = "alpha.e2e.test".to_owned();
    // Whichever test came first: alpha has had its name for longer than beta asks for it, but age decides.
    let created = |tenant: &Tenant| {
        let field = "jsonpath={.metadata.creationTimestamp}";
        tenant.on_host(&["get", "virtualcluster", &tenant.name, "-o", field]).ok()
    };
    let is_older = created(alpha()) < created(beta());
    let _restored = Restored(beta());
    let mut wanted = vec![default.clone(), "localhost".to_owned(), "kubernetes.default.svc".to_owned()];
    wanted.extend(url.host().filter(|host| host.parse::<std::net::IpAddr>().is_err()).map(str::to_owned));
    if is_older {
        wanted.push(own.clone());
    }
    ask_for(beta(), &wanted);
    eventually("beta is told who has the names", || {
        let (status, message) = accepted(beta());
        let alphas_id = format!("{}/{}", alpha().namespace, alpha().name);
        let named = message.matches(&alphas_id).count() == 1 + usize::from(is_older);
        let all = wanted.iter().all(|name| message.contains(name.as_str()));
        if status == "False" && named && all { Ok(()) } else { Err(format!("{status} {message}")) }
    });
    assert_eq!(accepted(alpha()).0, "True");
    let names = [default, own];
    for round in 0..RESTARTS {
        // Not by kills: a container that ends again and again is started later and later.
        host(&["-n", SYSTEM, "rollout", "restart", "deployment/portico"]).ok();
        host(&["-n", SYSTEM, "rollout", "status", "deployment/portico", "--timeout=180s"]).ok();
        // Every replica may answer: each request is a connection of its own.
        for _ in 0..6 {
            eventually(&format!("restart {round}"), || is_alphas(&names));
        }
    }
    ask_for(beta(), &["beta.e2e.test".to_owned()]);
    eventually("a free name is beta's", || match accepted(beta()) {
        (status, _) if status == "True" => Ok(()),
        refused => Err(format!("{refused:?}")),
    });
}
