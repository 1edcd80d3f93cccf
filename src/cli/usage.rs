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
use crate::metering::{Book, DAY, KIND, Record, kinds};
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
    /// A row for each namespace inside: `-` is what belongs to none, `*` those beyond 256 in an hour.
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
    let (mut records, mut rows, mut taken) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
    list(client, namespace, &format!("{KIND}={}", kinds::RECORD), |object| {
        records.extend(readable(object, Record::of))
    })
    .await?;
    let (mut absorbed, mut is_coarse) = (BTreeSet::new(), false);
    list(client, namespace, &format!("{KIND}={}{}", kinds::BOOK, period.days()), |object| {
        let Some(book) = readable(object, Book::of) else { return };
        let of_book: &mut Rows = rows.entry(book.name.clone()).or_default();
        for (tenant, hour, within, amounts) in book.rows.iter().filter(|row| period.has(row.1, book.is_by_day)) {
            is_coarse |= book.is_by_day && !period.has_all_of(hour);
            of_book.add(tenant, hour, within.clone(), amounts);
        }
        taken.extend(book.taken.into_keys());
        absorbed.extend(book.absorbed);
    })
    .await?;
    let mut all = Rows::default();
    rows.iter().filter(|(book, _)| !absorbed.contains(*book)).for_each(|(_, rows)| all.merge(rows));
    for record in records.iter().filter(|record| !taken.contains(&record.name)) {
        for (tenant, hour, within, amounts) in record.rows.iter().filter(|row| period.has(row.1, false)) {
            all.add(tenant, hour, within.clone(), amounts);
        }
    }
    if is_coarse {
        output::note("the hours of some days are not kept any more: of the first and the last day all is counted");
    }
    Ok(all)
}

const DAY_SECONDS: i64 = 86_400;
/// Days that are named one by one in a selector.
const MOST_NAMED_DAYS: i64 = 40;

impl Period {
    fn has(&self, hour: Hour, is_day: bool) -> bool {
        let begin = hour.begin();
        let begins_after = begin >= self.since;
        let ends_after = begins_after || (is_day && begin.as_second() + DAY_SECONDS > self.since.as_second());
        ends_after && begin < self.until
    }

    /// Of the day that begins then.
    fn has_all_of(&self, day: Hour) -> bool {
        let begin = day.begin();
        begin >= self.since && begin.as_second() + DAY_SECONDS <= self.until.as_second()
    }

    /// Selects its days, where they are few.
    fn days(&self) -> String {
        let (first, last) = (self.since.as_second(), self.until.as_second());
        if (last - first) / DAY_SECONDS > MOST_NAMED_DAYS {
            return String::new();
        }
        let moments = (first..last + DAY_SECONDS).step_by(86_400).filter_map(|at| Timestamp::from_second(at).ok());
        let days: BTreeSet<String> = moments.map(|at| Hour::of(at).day().to_string()).collect();
        format!(",{DAY} in ({})", days.into_iter().collect::<Vec<_>>().join(","))
    }
}

fn readable<T>(object: &Value, read: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
    let said = |why| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        output::note(&format!("ConfigMap {name} is left out, it was changed by somebody: {why}"));
    };
    read(object).map_err(said).ok()
}

/// Each of them, a page at a time.
async fn list(client: &Client, namespace: &str, selector: &str, mut each: impl FnMut(&Value)) -> Outcome<()> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let mut token = None;
    loop {
        let mut params = ListParams::default().labels(selector).limit(PAGE);
        params.continue_token = token;
        let action = format!("read what was used from ConfigMaps in namespace {namespace}");
        let page = api.list(&params).await.map_err(|e| Failure::api(&action, &e))?;
        page.items.iter().filter_map(|map| serde_json::to_value(map).ok()).for_each(|map| each(&map));
        token = page.metadata.continue_.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_selected_and_whole_days_counted_where_hours_are_gone() {
        let time = |text: &str| text.parse::<Timestamp>().expect("time");
        let period = |since: &str, until: &str| Period { since: time(since), until: time(until) };
        let noon = period("2026-11-28T12:00:00Z", "2026-11-30T00:00:00Z");
        assert_eq!(noon.days(), ",portico.dev/usage-day in (2026-11-28,2026-11-29,2026-11-30)");
        let midnight = Hour::of(time("2026-11-28T00:00:00Z"));
        assert_eq!(
            (noon.has(midnight, false), noon.has(midnight, true), noon.has_all_of(midnight)),
            (false, true, false)
        );
        let next = Hour::of(time("2026-11-29T00:00:00Z"));
        assert!(noon.has(next, false) && noon.has_all_of(next));
        assert!(!noon.has(Hour::of(time("2026-11-30T00:00:00Z")), true), "the end is not in it");
        assert!(!period("2026-11-28T12:00:00Z", "2026-11-29T12:00:00Z").has_all_of(next));
        assert_eq!(period("2026-01-01T00:00:00Z", "2026-11-30T00:00:00Z").days(), "", "too many to name");
    }
}
