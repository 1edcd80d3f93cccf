//! Journals and books against a simulated API server: lost answers, late processes, two who keep the books.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use super::books::Books;
use super::stored::{Book, MOST_BYTES, Record};
use super::{Journal, Parts};
use crate::config::MeteringConfig;
use crate::consumption::{Amounts, Consumption, Hour, Rows};
use crate::error::Side;
use crate::kubernetes::testing::{Faults, Link, Server};
use crate::names::TenantId;
use crate::runtime::clock::Clock;

const NAMESPACE: &str = "portico-system";
const SEEDS: u64 = 40;

fn time(text: &str) -> Timestamp {
    text.parse().expect("time")
}

fn id(name: &str) -> TenantId {
    TenantId::parse("team", name).expect("id")
}

fn parts(server: &Server, process: &str, now: Timestamp) -> Parts {
    Parts {
        config: MeteringConfig::default(),
        host: Arc::new(server.clone()),
        namespace: NAMESPACE.to_owned(),
        process: process.to_owned(),
        consumption: Arc::default(),
        clock: Clock::seeded(now, 7),
    }
}

/// The same at another time.
fn later(parts: &Parts, minutes: i64) -> Parts {
    Parts { clock: Clock::seeded(parts.clock.now() + minutes.minutes(), 7), ..parts.clone() }
}

fn use_some(consumption: &Consumption, name: &str, calls: u64) {
    consumption.tab(&id(name), "uid").add("default", &Amounts { calls, ..Amounts::default() });
}

/// As `portico usage` reads it.
fn kept(server: &Server) -> (Rows, usize, usize) {
    let (mut rows, mut taken, mut records, mut books) = (Rows::default(), Vec::new(), Vec::new(), 0);
    let all = server.objects("configmaps").into_iter().filter_map(|object| Book::of(&object).ok());
    let absorbed: Vec<String> = all.flat_map(|book| book.absorbed).collect();
    for object in server.objects("configmaps") {
        match object["metadata"]["labels"][super::KIND].as_str() {
            Some("record") => records.push(Record::of(&object).expect("record")),
            Some("book") => {
                let book = Book::of(&object).expect("book");
                if absorbed.contains(&book.name) {
                    continue;
                }
                rows.merge(&book.rows);
                taken.extend(book.taken.into_keys());
                books += 1;
            }
            _ => panic!("not ours: {object}"),
        }
    }
    let open = records.iter().filter(|record| !taken.contains(&record.name));
    open.for_each(|record| rows.merge(&record.rows));
    (rows, records.len(), books)
}

fn calls(server: &Server) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (tenant, _, _, amounts) in kept(server).0.iter() {
        *sums.entry(tenant.name().to_string()).or_default() += amounts.calls;
    }
    sums
}

#[tokio::test]
async fn what_processes_count_is_summed_and_past_hours_go_into_the_book() {
    let server = Server::new("host", Side::Host, Faults::none());
    let one = parts(&server, "one", time("2026-11-30T15:10:00Z"));
    let two = parts(&server, "two", time("2026-11-30T15:10:00Z"));
    let (first, second) = (Journal::new(one.clone()), Journal::new(two.clone()));
    for _ in 0..3 {
        use_some(&one.consumption, "dev", 1);
        first.write(false).await;
    }
    use_some(&two.consumption, "dev", 10);
    use_some(&two.consumption, "ci", 5);
    second.write(false).await;
    assert_eq!(calls(&server), BTreeMap::from([("ci".to_owned(), 5), ("dev".to_owned(), 13)]));
    let writes = server.counts().writes;
    second.write(false).await;
    assert_eq!(server.counts().writes, writes, "nothing new, nothing written");

    Books::new(&later(&one, 49)).take_all().await.expect("taken");
    assert_eq!(kept(&server).2, 0, "the hour lasts");
    Books::new(&later(&one, 56)).take_all().await.expect("taken");
    let (rows, records, books) = kept(&server);
    assert_eq!((records, books), (0, 1));
    assert_eq!(rows.iter().map(|(_, hour, ..)| hour.to_string()).collect::<Vec<_>>(), ["2026-11-30T15"; 2]);

    // Late: its record is gone, and what it adds is not what is in the book.
    use_some(&two.consumption, "dev", 100);
    second.write(false).await;
    assert_eq!(calls(&server)["dev"], 113);
    second.write(true).await;
    Books::new(&one).take_all().await.expect("taken");
    assert_eq!((calls(&server)["dev"], kept(&server).1), (113, 0), "sealed at the end, taken at once");
}

#[tokio::test]
async fn a_sealed_record_is_never_added_to() {
    let server = Server::new("host", Side::Host, Faults::none());
    let parts = parts(&server, "one", time("2026-11-30T15:59:00Z"));
    let journal = Journal::new(parts.clone());
    use_some(&parts.consumption, "dev", 1);
    journal.write(false).await;
    let record = server.objects("configmaps").pop().expect("record");
    server.change("configmaps", NAMESPACE, record["metadata"]["name"].as_str().expect("name"), |record| {
        record["data"]["sealed"] = "true".into();
    });
    use_some(&parts.consumption, "dev", 2);
    journal.write(false).await;
    assert_eq!((calls(&server)["dev"], kept(&server).1), (3, 2));
}

/// Every answer may be lost, whether the call was done or not; processes are killed between; two keep the books.
#[tokio::test(start_paused = true)]
async fn nothing_is_counted_twice_and_what_was_written_is_not_lost() {
    for seed in 0..SEEDS {
        let faults = Faults::new(seed);
        let server = Server::new("host", Side::Host, Arc::clone(&faults));
        let (mut now, chance) = (time("2026-11-30T20:00:00Z"), Clock::seeded(Timestamp::UNIX_EPOCH, seed));
        let (mut used, mut lost) = (0, 0);
        let mut process = parts(&server, "first", now);
        let mut journal = Journal::new(process.clone());
        for step in 0..120 {
            now += i64::try_from(chance.random_below(12)).expect("small").minutes();
            process.clock = Clock::seeded(now, seed);
            journal.parts.clock = process.clock.clone();
            let amount = 1 + chance.random_below(9);
            use_some(&process.consumption, "dev", amount);
            used += amount;
            journal.write(false).await;
            if chance.random_below(8) == 0 {
                lost += journal.unwritten().await;
                process = parts(&server, &format!("process-{step}"), now);
                journal = Journal::new(process.clone());
            }
            let (one, other) = (Books::new(&process), Books::new(&process));
            let _ = tokio::join!(one.take_all(), other.take_all());
        }
        faults.stop();
        journal.write(true).await;
        now += 2.hours();
        process.clock = Clock::seeded(now, seed);
        let books = Books::new(&process);
        books.take_all().await.expect("no more faults");
        let (rows, records, _) = kept(&server);
        let sum: u64 = rows.iter().map(|(_, _, _, amounts)| amounts.calls).sum();
        assert_eq!(records, 0, "seed {seed}");
        assert!(
            sum <= used && sum + lost >= used,
            "seed {seed}: {sum} kept of {used}, {lost} not written by the killed"
        );
        books.tidy(now.to_zoned(TimeZone::UTC).date() + 5.days()).await.expect("tidied");
        let (days, ..) = kept(&server);
        assert_eq!(days.iter().map(|(_, _, _, amounts)| amounts.calls).sum::<u64>(), sum, "seed {seed}");
        assert!(days.iter().all(|(_, hour, ..)| Hour::first_of(hour.day()) == Some(hour)), "seed {seed}");
        books.tidy(now.to_zoned(TimeZone::UTC).date() + 100.days()).await.expect("tidied");
        assert!(kept(&server).0.is_empty(), "seed {seed}");
    }
}

#[tokio::test]
async fn a_host_that_is_away_loses_nothing() {
    let server = Server::new("host", Side::Host, Faults::none());
    let parts = parts(&server, "one", time("2026-11-30T15:10:00Z"));
    let mut journal = Journal::new(parts.clone());
    server.link(Link::Refused);
    for hour in 0..5 {
        use_some(&parts.consumption, "dev", 1);
        journal.parts = later(&parts, 60 * hour);
        journal.write(false).await;
    }
    server.link(Link::Up);
    journal.write(false).await;
    let (rows, records, _) = kept(&server);
    assert_eq!((calls(&server)["dev"], records), (5, 5));
    assert_eq!(rows.iter().count(), 5, "each in its hour");
}

#[tokio::test]
async fn a_full_part_is_followed_by_another() {
    let server = Server::new("host", Side::Host, Faults::none());
    let parts = parts(&server, "one", time("2026-11-30T15:10:00Z"));
    for process in 0..4 {
        let parts = Parts { process: format!("p{process}"), consumption: Arc::default(), ..parts.clone() };
        for tenant in 0..300 {
            for namespace in 0..64 {
                let tab = parts.consumption.tab(&id(&format!("cluster-number-{tenant}-of-process-{process}")), "uid");
                tab.add(&format!("namespace-{namespace}"), &Amounts { calls: 1, ..Amounts::default() });
            }
        }
        Journal::new(parts).write(true).await;
    }
    let of_records = calls(&server);
    Books::new(&parts).take_all().await.expect("taken");
    let (_, records, books) = kept(&server);
    assert!(records == 0 && books > 2, "{books}");
    assert_eq!((calls(&server), of_records.len()), (of_records, 1200));
    let sizes = server.objects("configmaps").into_iter().map(|o| o["data"]["rows"].as_str().map_or(0, str::len));
    assert!(sizes.max() <= Some(MOST_BYTES));
}
