//! `portico usage`: what virtual clusters used, from the books and the records that are in none yet.

mod shown;
mod span;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, ListParams};
use serde_json::Value;

use self::shown::{Format, Line};
use self::span::Span;
use super::failure::{Failure, Outcome};
use super::host::HostArgs;
use super::output;
use crate::consumption::{Amounts, Hour, Rows};
use crate::metering::{Book, KIND, Record, kinds};
use crate::names::TenantId;

const PAGE: u32 = 20;

/// Arguments of `portico usage`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this virtual cluster, which may be gone.
    name: Option<String>,
    /// All namespaces.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// From so long ago (90m, 24h, 7d), or from a day or time (2026-11-01, 2026-11-01T12:00:00Z), in whole hours, UTC. Of days
    /// whose hours are not kept, the whole day counts.
    #[arg(long, value_name = "SPAN|TIME", default_value = "24h")]
    since: Span,
    /// Until then; default: now.
    #[arg(long, value_name = "SPAN|TIME")]
    until: Option<Span>,
    /// A row for each namespace inside: `-` is what belongs to none, `*` those beyond 64.
    #[arg(long)]
    namespaces: bool,
    /// Form of the result; csv and json have seconds and bytes.
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    /// Namespace where Portico runs.
    #[arg(long, value_name = "NAMESPACE", default_value = "portico-system", env = "PORTICO_NAMESPACE")]
    portico_namespace: String,
}

/// Whole hours.
#[derive(Debug, Clone, Copy)]
struct Period {
    since: Timestamp,
    until: Timestamp,
}

pub(super) async fn run(host: &HostArgs, args: Args) -> Outcome<()> {
    let now = Timestamp::now();
    let period = Period {
        since: Hour::of(args.since.before(now)).begin(),
        until: args.until.map_or(now, |until| until.before(now)),
    };
    if period.since >= period.until {
        return Err(Failure::new("the time that was asked for is empty", "--since must be before --until"));
    }
    let host = host.connect().await?;
    let namespace = (!args.all_namespaces).then_some(host.namespace.as_str());
    let is_meant = |tenant: &TenantId| {
        namespace.is_none_or(|namespace| namespace == tenant.namespace().as_str())
            && args.name.as_deref().is_none_or(|name| name == tenant.name().as_str())
    };
    let found = read(&host.client, &args.portico_namespace, period).await?;
    if found.is_empty() {
        let place = &args.portico_namespace;
        output::note(&format!(
            "no usage is kept in namespace {place} for this time; is Portico there (--portico-namespace), and metering.enabled?"
        ));
    }
    let mut sums: BTreeMap<(TenantId, String), Amounts> = BTreeMap::new();
    for (tenant, _, within, amounts) in found.iter().filter(|(tenant, ..)| is_meant(tenant)) {
        let within = if args.namespaces { within.to_string() } else { String::new() };
        sums.entry((tenant.clone(), within)).or_default().add(amounts);
    }
    let lines: Vec<Line> =
        sums.into_iter().map(|((tenant, within), amounts)| Line { tenant, within, amounts }).collect();
    shown::show(args.output, args.namespaces, (period.since, period.until), &lines)
}

/// Records first: one that goes into a book meanwhile is named there, and not counted again.
async fn read(client: &Client, namespace: &str, period: Period) -> Outcome<Rows> {
    let records = list(client, namespace, kinds::RECORD).await?;
    let books = list(client, namespace, kinds::BOOK).await?;
    let (mut rows, mut taken, mut is_coarse) = (Rows::default(), BTreeSet::new(), false);
    for object in &books {
        let Some(book) = readable(object, Book::of) else { continue };
        for (tenant, hour, within, amounts) in book.rows.iter() {
            if period.has(hour, book.is_by_day) {
                is_coarse |= book.is_by_day && hour.begin() < period.since;
                rows.add(tenant, hour, within.clone(), amounts);
            }
        }
        taken.extend(book.taken.into_keys());
    }
    for object in &records {
        let Some(record) = readable(object, Record::of) else { continue };
        if taken.contains(&record.name) {
            continue;
        }
        for (tenant, hour, within, amounts) in record.rows.iter().filter(|row| period.has(row.1, false)) {
            rows.add(tenant, hour, within.clone(), amounts);
        }
    }
    if is_coarse {
        output::note("the hours of the first day are not kept any more: all of that day is counted");
    }
    Ok(rows)
}

impl Period {
    fn has(&self, hour: Hour, is_day: bool) -> bool {
        let begin = hour.begin();
        let ends_after = if is_day { begin.as_second() + 86_400 > self.since.as_second() } else { begin >= self.since };
        ends_after && begin < self.until
    }
}

fn readable<T>(object: &Value, read: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
    let said = |why| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        output::note(&format!("ConfigMap {name} is left out, it was changed by somebody: {why}"));
    };
    read(object).map_err(said).ok()
}

async fn list(client: &Client, namespace: &str, kind: &str) -> Outcome<Vec<Value>> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let (mut found, mut token) = (Vec::new(), None);
    loop {
        let mut params = ListParams::default().labels(&format!("{KIND}={kind}")).limit(PAGE);
        params.continue_token = token;
        let action = format!("read what was used from ConfigMaps in namespace {namespace}");
        let page = api.list(&params).await.map_err(|e| Failure::api(&action, &e))?;
        found.extend(page.items.iter().filter_map(|map| serde_json::to_value(map).ok()));
        token = page.metadata.continue_.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(found);
        }
    }
}
