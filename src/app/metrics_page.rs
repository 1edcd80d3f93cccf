//! `docs/metrics.md` from the families themselves. What dashboards and alerts ask for is compared with that page, so it
//! holds every family, label and value that there can be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::host;
use crate::config::docs::is_committed;
use crate::consumption::Consumption;
use crate::names::TenantId;
use crate::runtime::clock::Clock;
use crate::runtime::telemetry::{Families, Metrics, Source};
use crate::runtime::traces;
use crate::runtime::watched::{IfDown, Watched};
use crate::syncer::kinds::{self, Switches};
use crate::syncer::stats::{Kept, Live, Snapshot};
use crate::syncer::{Catalog, Stats};
use crate::tenant::file;
use crate::tenant::memory::Memory;
use crate::{archive, dns, gateway, operator};

const HEAD: &str = "# Metrics

What `/metrics` of a replica shows ([how to read it](operations/monitoring.md)). `namespace` and `cluster` name a virtual
cluster by its VirtualCluster; they vanish with it. A family without a sample is left out, so counts by verb and code begin
with the first request of that kind. Families of the syncer and the operator are shown by each replica that may run them,
and say something on the one that does.

This page is generated from what the planes show: change the help texts there, then run `make generated`.

| family | type | labels | meaning |
|---|---|---|---|
";
const FLEET: &str = "
## The page of the fleet

What [the gateway shows of virtual clusters](operations/metrics.md) beside their series of those above, which say `virtualcluster` there
instead of `cluster`: families of the API servers are those of `gateway.scrape.families`, by default.

| family | type | labels | meaning |
|---|---|---|---|
";
/// Labels whose values are anybody's.
const OPEN: [&str; 3] = ["namespace", "cluster", "task"];

#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

struct Others;

impl Source for Others {
    fn collect(&self, families: &mut Families) {
        host::show(families, true, 0);
    }
}

struct Synced(TenantId);

impl Live for Synced {
    fn describe(&self, snapshot: &mut Snapshot) {
        let objects = kinds::all(&Switches::default()).into_iter().flat_map(|kind| {
            let (plural, phases) = (kind.resource().plural, kind.counted());
            let or_none = |phases: &'static [&'static str]| if phases.is_empty() { &[""] } else { phases };
            phases.map(or_none).into_iter().flatten().map(move |phase| (plural, *phase, 0)).collect::<Vec<_>>()
        });
        snapshot.kept.push(Kept { id: self.0.clone(), bytes: 0, cut: 0, unsaid: 0, objects: objects.collect() });
    }
}

/// All that a process of any role shows.
fn everything() -> String {
    let (metrics, id) = (Metrics::default(), TenantId::parse("team", "dev").expect("valid"));
    let (memory, watched) = (Memory::default(), Watched::new(Clock::system()));
    let (_account, _duty) = (memory.account(&id, "uid"), watched.duty("any", IfDown::Noted));
    memory.measured(1, 2);
    let stats = Arc::new(Stats::new(&Catalog::new(kinds::all(&Switches::default()))));
    let synced: Arc<dyn Live> = Arc::new(Synced(id.clone()));
    stats.attach(Arc::downgrade(&synced));
    for source in [
        gateway::example(id.clone()),
        dns::example(id.clone()),
        operator::example(&id),
        stats,
        archive::example(),
        file::example(),
    ] {
        metrics.register(source);
    }
    let consumption = Arc::new(Consumption::default());
    let tab = consumption.tab(&id, "uid");
    tab.missed();
    metrics.register(Arc::clone(&consumption) as Arc<dyn Source>);
    metrics.register(Arc::new(memory));
    metrics.register(Arc::new(traces::example()));
    metrics.register(Arc::new(watched));
    metrics.register(Arc::new(Others));
    metrics.render().expect("renders")
}

fn families(page: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in page.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help.trim_end_matches('.').clone_into(&mut families.entry(name.to_owned()).or_default().help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            kind.clone_into(&mut families.entry(name.to_owned()).or_default().kind);
        } else {
            let (series, _) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let parts = ["_bucket", "_sum", "_count"].map(|part| name.strip_suffix(part));
            let known = parts.into_iter().flatten().find(|name| families.contains_key(*name)).unwrap_or(name);
            let family = families.get_mut(known).expect("its TYPE comes before");
            for (label, value) in labels.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('=')) {
                family.labels.entry(label.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
            }
        }
    }
    families
}

fn labels(family: &Family) -> String {
    let shown = family.labels.iter().filter(|(label, _)| *label != "le").map(|(label, values)| {
        let values: Vec<_> =
            values.iter().filter(|value| !value.is_empty()).map(|value| format!("`{value}`")).collect();
        if OPEN.contains(&label.as_str()) { format!("`{label}`") } else { format!("`{label}`: {}", values.join(", ")) }
    });
    shown.collect::<Vec<_>>().join("; ")
}

#[test]
fn the_committed_page_is_the_generated_one() {
    let mut page = HEAD.to_owned();
    for (name, family) in families(&everything()) {
        assert!(name.starts_with("portico_") && !family.help.is_empty(), "{name}");
        assert_eq!(family.kind == "counter", name.ends_with("_total"), "{name} is a {}", family.kind);
        writeln!(page, "| `{name}` | {} | {} | {} |", family.kind, labels(&family), family.help).expect("written");
    }
    page.push_str(FLEET);
    for [name, kind, help, labels] in gateway::of_the_fleet() {
        writeln!(page, "| `{name}` | {kind} | {labels} | {} |", help.trim_end_matches('.')).expect("written");
    }
    is_committed("docs/metrics.md", &page);
}

/// A family that no example shows would be missing on the page.
#[test]
fn no_family_is_forgotten() {
    let mut known = families(&everything());
    known.extend(gateway::of_the_fleet().into_iter().map(|[name, ..]| (name, Family::default())));
    let mut forgotten = Vec::new();
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("listed") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("read");
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            for name in code.split('"').filter(|word| word.starts_with("portico_")) {
                let is_name = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && !name.ends_with('_');
                if is_name && !known.contains_key(name) && !path.ends_with("tests.rs") {
                    forgotten.push(format!("{name} in {}", path.display()));
                }
            }
        }
    }
    assert!(forgotten.is_empty(), "{forgotten:#?}");
}
