//! Virtual clusters scraped from outside, with tokens of real ServiceAccounts of the host and of a tenant.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Dump, Tenant, alpha, beta, eventually, gateway_url, host, kill_containers, kubectl, raw, run_id};

/// Longer than results are shared.
const OLD: Duration = Duration::from_secs(6);

/// A token of a new account of the host, which may read the fleet or not.
pub(crate) fn token(may: bool) -> String {
    let name = format!("fleet-{}-{may}", run_id());
    host(&["-n", "default", "create", "serviceaccount", &name]);
    if may {
        let subject = format!("--serviceaccount=default:{name}");
        host(&["create", "clusterrolebinding", &name, "--clusterrole=portico-fleet-metrics", &subject]);
    }
    host(&["-n", "default", "create", "token", &name]).ok().trim().to_owned()
}

/// Code and body of a page at the shared address, with nothing but this token.
fn get(path: &str, token: &str) -> (u16, String) {
    let authorization = format!("Bearer {token}");
    let headers: &[(&str, &str)] = &[("authorization", &authorization)];
    let answer = raw(&alpha().kubeconfig, path, if token.is_empty() { &[] } else { headers }, |config| {
        config.cluster_url = gateway_url().parse().expect("a URL");
        config.auth_info = kube::config::AuthInfo::default();
    });
    let answer = answer.expect("an answer");
    (answer.code, answer.text())
}

/// The value of a series of this tenant.
fn value(page: &str, name: &str, tenant: &Tenant) -> Option<f64> {
    let labels = format!("{name}{{namespace=\"{}\",virtualcluster=\"{}\"", tenant.namespace, tenant.name);
    page.lines().find(|line| line.starts_with(&labels))?.rsplit(' ').next()?.parse().ok()
}

#[test]
fn the_fleet_is_scraped_with_a_token_of_the_host() {
    let _dump = Dump(vec![alpha(), beta()]);
    let (reader, other) = (token(true), token(false));
    // The replica that is asked shows its own series of those whom it has served.
    let page = eventually("both are on the page", || {
        let both = [alpha(), beta()];
        both.iter().for_each(|tenant| drop(tenant.kubectl(&["get", "--raw", "/readyz"]).ok()));
        let (code, page) = get("/fleet/metrics", &reader);
        let is_whole = both.iter().all(|tenant| {
            let is_served = value(&page, "portico_gateway_requests_in_flight", tenant).is_some();
            is_served && value(&page, "portico_tenant_up", tenant) == Some(1.0)
        });
        if code == 200 && is_whole { Ok(page) } else { Err(format!("{code}: {page:.2000}")) }
    });
    for tenant in [alpha(), beta()] {
        for family in
            ["apiserver_request_total", "apiserver_request_duration_seconds_count", "process_resident_memory_bytes"]
        {
            assert!(
                value(&page, family, tenant).is_some_and(|value| value > 0.0),
                "{family} of {}: {page:.20000}",
                tenant.name
            );
        }
        assert!(value(&page, "portico_gateway_requests_in_flight", tenant).is_some(), "{page:.20000}");
        assert_eq!(value(&page, "portico_tenant_scrape_series_dropped", tenant), Some(0.0), "the default list fits");
        let one = get(&format!("/fleet/metrics/{}/{}", tenant.namespace, tenant.name), &reader);
        assert!(one.0 == 200 && value(&one.1, "portico_tenant_up", tenant) == Some(1.0), "{one:?}");
    }
    for (token, code) in [("", 401), ("invented", 401), (other.as_str(), 403)] {
        for path in ["/fleet/metrics", "/fleet/targets"] {
            assert_eq!(get(path, token).0, code, "{path}");
        }
    }
    let (code, list) = get("/fleet/targets", &reader);
    assert_eq!(code, 200, "{list}");
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let of = |tenant: &Tenant| {
        let path = format!("/fleet/metrics/{}/{}", tenant.namespace, tenant.name);
        let groups = list.as_array().expect("a list").iter();
        groups.filter(|group| group["labels"]["__metrics_path__"] == path.as_str()).count()
    };
    assert_eq!((of(alpha()), of(beta())), (1, 1), "{list}");
    // A tenant's admin and his accounts are nobody there.
    let hostile = beta().space("fleet");
    hostile.kubectl(&["create", "serviceaccount", "thief"]).ok();
    let stolen = hostile.kubectl(&["create", "token", "thief"]).ok();
    assert_eq!(get("/fleet/metrics", stolen.trim()).0, 401);
    beta().kubectl(&["get", "--raw", "/fleet/metrics"]).fails(&["could not find", "not found"]);
}

#[test]
fn a_tenants_own_page_is_for_whom_the_tenant_lets() {
    let space = alpha().space("page");
    let _dump = Dump(vec![alpha()]);
    let page = alpha().kubectl(&["get", "--raw", "/portico/metrics"]).ok();
    assert_eq!(value(&page, "portico_tenant_up", alpha()), Some(1.0), "{page:.2000}");
    assert!(!page.contains(&format!("namespace=\"{}\"", beta().namespace)), "{page:.20000}");
    let account = space.account("scraper", &serde_json::json!([]));
    kubectl(&account, &["get", "--raw", "/portico/metrics"]).fails(&["cannot get path"]);
    let role = format!("page-{}", run_id());
    alpha().kubectl(&["create", "clusterrole", &role, "--verb=get", "--non-resource-url=/portico/metrics"]).ok();
    let subject = format!("--serviceaccount={}:scraper", space.name);
    alpha().kubectl(&["create", "clusterrolebinding", &role, &format!("--clusterrole={role}"), &subject]).ok();
    eventually("the account may", || kubectl(&account, &["get", "--raw", "/portico/metrics"]).result());
    // The API server's own stays what it is, and asks for its own right.
    kubectl(&account, &["get", "--raw", "/metrics"]).fails(&["cannot get path"]);
    assert!(alpha().kubectl(&["get", "--raw", "/metrics"]).ok().contains("# HELP apiserver_request_total"));
    alpha().kubectl(&["delete", "clusterrole,clusterrolebinding", &role]).ok();
}

#[test]
fn a_control_plane_that_is_away_is_down_and_the_others_are_not() {
    let namespace = format!("e2e-scrape-{}", run_id());
    let dying: &'static Tenant = Box::leak(Box::new(Tenant::create("silent", &namespace, &["--ephemeral"])));
    let _dump = Dump(vec![alpha(), dying]);
    let reader = token(true);
    let up = || match value(&get("/fleet/metrics", &reader).1, "portico_tenant_up", dying) {
        Some(1.0) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    // While it came up it was away, and is asked again after some seconds.
    eventually("it is up", up);
    // It may be back before anybody asks; from the second time on the kubelet lets it wait.
    let mut page = String::new();
    let is_down = (0..5).any(|_| {
        std::thread::sleep(OLD);
        kill_containers(&namespace, "portico.dev/control-plane=silent");
        page = get("/fleet/metrics", &reader).1;
        value(&page, "portico_tenant_up", dying) == Some(0.0)
    });
    assert!(is_down, "{page:.2000}");
    assert_eq!(value(&page, "portico_tenant_up", alpha()), Some(1.0), "{page:.2000}");
    eventually("it is up again", up);
    host(&["delete", "namespace", &namespace, "--wait=false"]).ok();
}
