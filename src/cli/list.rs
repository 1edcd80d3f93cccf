//! `portico list` and `portico describe`.

use std::fmt::Write as _;

use kube::api::{Api, ListParams};

use super::cluster;
use super::failure::{Failure, Outcome};
use super::host::HostArgs;
use super::output::{self, Format};
use crate::crd::{GrantedLimits, Limits, PodSecurity, VirtualCluster};

/// Arguments of `portico list`.
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// All namespaces.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Form of the result.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// Arguments of `portico describe`.
#[derive(Debug, clap::Args)]
pub(super) struct DescribeArgs {
    /// Virtual cluster.
    name: String,
    /// Form of the result.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn list(host: &HostArgs, args: ListArgs) -> Outcome<()> {
    let host = host.connect().await?;
    let (api, place): (Api<VirtualCluster>, String) = if args.all_namespaces {
        (Api::all(host.client), "in all namespaces".to_owned())
    } else {
        (Api::namespaced(host.client, &host.namespace), format!("in namespace {}", host.namespace))
    };
    let mut clusters = api
        .list(&ListParams::default())
        .await
        .map_err(|e| Failure::api(&format!("list virtual clusters {place}"), &e))?
        .items;
    for cluster in &mut clusters {
        cluster.metadata.managed_fields = None;
    }
    let shown = output::structured(
        args.output,
        &serde_json::json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": clusters}),
    )?;
    if shown {
        return Ok(());
    }
    if args.output == Format::Name {
        clusters.iter().for_each(|c| output::line(&reference(c)));
    } else if clusters.is_empty() {
        output::note(&format!("no virtual clusters {place}"));
    } else {
        let header = ["NAME", "NAMESPACE", "PHASE", "VERSION", "STORAGE", "AGE", "ENDPOINT"];
        output::table(&header, clusters.iter().map(row).collect());
    }
    Ok(())
}

pub(super) async fn describe(host: &HostArgs, args: DescribeArgs) -> Outcome<()> {
    let host = host.connect().await?;
    let api: Api<VirtualCluster> = Api::namespaced(host.client, &host.namespace);
    let mut found = cluster::get(&api, &host.namespace, &args.name).await?;
    found.metadata.managed_fields = None;
    if output::structured(args.output, &found)? {
        return Ok(());
    }
    if args.output == Format::Name {
        output::line(&reference(&found));
        return Ok(());
    }
    output::text(&words(&found));
    Ok(())
}

fn reference(cluster: &VirtualCluster) -> String {
    format!("virtualcluster.portico.dev/{}", cluster.metadata.name.as_deref().unwrap_or_default())
}

fn row(cluster: &VirtualCluster) -> Vec<String> {
    let status = cluster.status.clone().unwrap_or_default();
    vec![
        cluster.metadata.name.clone().unwrap_or_default(),
        cluster.metadata.namespace.clone().unwrap_or_default(),
        cluster::phase(cluster).to_owned(),
        or_dash(&status.version),
        cluster::storage(cluster),
        cluster::age(cluster),
        or_dash(status.endpoints.first().map_or("", String::as_str)),
    ]
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

fn words(cluster: &VirtualCluster) -> String {
    let status = cluster.status.clone().unwrap_or_default();
    let spec = &cluster.spec;
    let storage = cluster::durability(cluster).unwrap_or_else(|| cluster::storage(cluster));
    let mut out = String::new();
    let fields = [
        ("Name", cluster.metadata.name.clone().unwrap_or_default()),
        ("Namespace", cluster.metadata.namespace.clone().unwrap_or_default()),
        ("Phase", cluster::phase(cluster).to_owned()),
        ("Message", cluster::message(cluster)),
        ("Distro", format!("{:?}", spec.distro).to_lowercase()),
        ("Version", or_dash(&status.version)),
        ("Storage", storage),
        ("Pod security", pod_security(spec.policy.pod_security, status.pod_security)),
        ("Kubeconfig", or_dash(&status.kubeconfig_secret)),
        ("Age", cluster::age(cluster)),
    ];
    for (label, value) in fields {
        let _ = writeln!(out, "{:<14}{value}", format!("{label}:"));
    }
    list_of(&mut out, "Endpoints", &status.endpoints);
    if let Some(granted) = &status.limits {
        list_of(&mut out, "Limits", &limits(&spec.limits, granted));
    }
    let conditions: Vec<String> = status
        .conditions
        .iter()
        .map(|c| format!("{:<25}{:<9}{:<22}{}", c.r#type, c.status, c.reason, c.message))
        .collect();
    list_of(&mut out, "Conditions", &conditions);
    out
}

/// The standard in force, and what was asked for where that is another one.
fn pod_security(asked: Option<PodSecurity>, granted: Option<PodSecurity>) -> String {
    let name = |level: PodSecurity| format!("{level:?}").to_lowercase();
    let asked = asked.unwrap_or_default();
    match granted {
        Some(granted) if granted != asked => {
            format!("{} (of {}: the configuration allows no more)", name(granted), name(asked))
        }
        _ => name(asked),
    }
}

/// What is in force, and what was asked for where that is more.
fn limits(asked: &Limits, granted: &GrantedLimits) -> Vec<String> {
    let line = |what: &str, asked: Option<u32>, granted: u32| match asked {
        Some(asked) if asked > granted => format!("{what:<20}{granted} (of {asked}: the configuration allows no more)"),
        _ => format!("{what:<20}{granted}"),
    };
    let GrantedLimits { gateway, dns, syncer } = granted;
    vec![
        line("Connections", asked.connections, gateway.connections),
        line("Requests/s", asked.requests_per_second, gateway.requests_per_second),
        line("Burst", asked.request_burst, gateway.request_burst),
        line("Requests in flight", asked.requests_in_flight, gateway.requests_in_flight),
        line("Watches, streams", asked.long_running, gateway.long_running),
        line("DNS questions/s", asked.dns_questions_per_second, dns.dns_questions_per_second),
        line("DNS forwarded/s", asked.forwarded_questions_per_second, dns.forwarded_questions_per_second),
        line("Events/s", asked.events_per_second, syncer.events_per_second),
    ]
}

fn list_of(out: &mut String, label: &str, values: &[String]) {
    if values.is_empty() {
        let _ = writeln!(out, "{:<14}-", format!("{label}:"));
        return;
    }
    let _ = writeln!(out, "{label}:");
    for value in values {
        let _ = writeln!(out, "  {}", value.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn limits_say_what_is_in_force_and_what_was_asked_for_in_vain() {
        let asked = Limits {
            requests_per_second: Some(7),
            dns_questions_per_second: Some(1_000_000),
            forwarded_questions_per_second: Some(3),
            events_per_second: Some(101),
            ..Limits::default()
        };
        let lines = limits(&asked, &asked.granted(&Config::default()));
        for line in [
            "Requests/s          7",
            "DNS questions/s     5000 (of 1000000: the configuration allows no more)",
            "DNS forwarded/s     3",
            "Events/s            100 (of 101: the configuration allows no more)",
        ] {
            assert!(lines.iter().any(|found| found == line), "{lines:?}");
        }
    }
}
