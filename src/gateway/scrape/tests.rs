use std::collections::BTreeSet;
use std::sync::Arc;

use http::{HeaderMap, header};
use proptest::prelude::*;

use super::catalog::Catalog;
use super::counts::Counts;
use super::gather::{Gathered, Gathering};
use super::lines::{FamilyLines, Labelled, number};
use super::page::{Format, Page, Section};
use super::shown::{self, Outcome, Problem, Shown};
use crate::config::{Config, ScrapeConfig};
use crate::exposition::{Line, Lines};
use crate::names::TenantId;

const FAMILIES: &str = "a_total: 'counter by verb, namespace', b: gauge, c_seconds: 'histogram by verb at 0.1, 1'";
const WELL: Outcome = Outcome { seconds: 0.25, problem: None, dropped: 0 };

fn config() -> ScrapeConfig {
    let text = format!("gateway: {{scrape: {{families: {{{FAMILIES}}}}}}}");
    Config::parse(&text).expect("valid").gateway.scrape
}

fn catalog() -> Arc<Catalog> {
    Arc::new(Catalog::new(&config()))
}

fn labelled(name: &str) -> Labelled {
    Labelled::new(&TenantId::parse("team", name).expect("id"))
}

fn gather_within(body: &[u8], series: usize, bytes: usize) -> Gathered {
    let mut gathering = Gathering::new(&catalog(), series);
    let mut lines = Lines::new(1000);
    lines.push(body, |line| gathering.line(line));
    lines.finish(|line| gathering.line(line));
    gathering.drop_lines(lines.too_long());
    gathering.finish(&labelled("x"), bytes)
}

fn gather(body: &str) -> (String, u64) {
    let gathered = gather_within(body.as_bytes(), 1000, 1 << 20);
    (String::from_utf8(gathered.lines.text).expect("text"), gathered.dropped)
}

/// A whole page about tenants of these names.
fn page(format: Format, bodies: &[(&str, &str)]) -> String {
    let heads: Arc<[_]> = shown::about().chain(catalog().heads()).collect();
    let shown = bodies.iter().map(|(name, body)| {
        let mut gathering = Gathering::new(&catalog(), 1000);
        body.lines().for_each(|line| gathering.line(line.as_bytes()));
        let gathered = gathering.finish(&labelled(name), 1 << 20);
        Arc::new(Shown::scraped(&labelled(name), WELL, &gathered.lines, None))
    });
    let mut page = Page::new(format, vec![Section { heads, tenants: shown.collect() }], None);
    let pieces: Vec<_> = std::iter::from_fn(|| page.next_piece()).collect();
    assert!(page.next_piece().is_none(), "it ends once");
    String::from_utf8(pieces.concat()).expect("text")
}

/// Names of the families that stand on a page, each head once, and every sample below the head of its family.
fn families(page: &str) -> Vec<String> {
    let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
    for line in page.lines() {
        match Line::parse(line.as_bytes()) {
            Some(Line::Type { family, .. }) => {
                assert!(seen.insert(family.to_owned()), "{family} twice");
                order.push(family.to_owned());
            }
            Some(Line::Sample(sample)) => {
                let family = order.last().expect("a head before any sample");
                assert!(sample.name.starts_with(family.as_str()), "{} below {family}", sample.name);
                let value = |name: &str| sample.labels.get(name).map(|value| value.into_owned());
                assert_eq!(value("namespace").as_deref(), Some("team"), "{line}");
                assert!(value("virtualcluster").is_some(), "{line}");
            }
            Some(Line::About { .. } | Line::End) => {}
            other => panic!("{other:?}: {line}"),
        }
    }
    order
}

#[test]
fn series_are_added_up_by_the_labels_that_stay() {
    let body = "# TYPE a_total counter\n\
        a_total{verb=\"GET\",code=\"200\"} 2\na_total{verb=\"GET\",code=\"404\"} 3\na_total{verb=\"PUT\"} 1\n\
        a_total 7\nb{x=\"1\"} 1.5\nother{verb=\"GET\"} 9\n";
    let expected = "a_total{namespace=\"team\",virtualcluster=\"x\"} 7\n\
        a_total{namespace=\"team\",virtualcluster=\"x\",verb=\"GET\"} 5\n\
        a_total{namespace=\"team\",virtualcluster=\"x\",verb=\"PUT\"} 1\n\
        b{namespace=\"team\",virtualcluster=\"x\"} 1.5\n";
    assert_eq!(gather(body), (expected.to_owned(), 0));
}

#[test]
fn a_histogram_keeps_the_buckets_that_are_listed() {
    let body = "c_seconds_bucket{verb=\"GET\",le=\"0.05\"} 1\nc_seconds_bucket{verb=\"GET\",le=\"0.1\"} 2\n\
        c_seconds_bucket{verb=\"GET\",le=\"0.9999999999999999\"} 4\nc_seconds_bucket{verb=\"GET\",le=\"+Inf\"} 5\n\
        c_seconds_sum{verb=\"GET\"} 2.5\nc_seconds_count{verb=\"GET\"} 5\n\
        c_seconds_sum{verb=\"PUT\"} 1\nc_seconds_bucket{verb=\"LIST\",le=\"+Inf\"} 3\n";
    let (text, dropped) = gather(body);
    let line = |suffix: &str, verb: &str, more: &str, value: &str| {
        format!("c_seconds{suffix}{{namespace=\"team\",virtualcluster=\"x\",verb=\"{verb}\"{more}}} {value}\n")
    };
    let expected = [
        line("_bucket", "GET", ",le=\"0.1\"", "2"),
        line("_bucket", "GET", ",le=\"1.0\"", "4"),
        line("_bucket", "GET", ",le=\"+Inf\"", "5"),
        line("_sum", "GET", "", "2.5"),
        line("_count", "GET", "", "5"),
        line("_bucket", "LIST", ",le=\"+Inf\"", "3"),
        line("_count", "LIST", "", "3"),
    ];
    assert_eq!((text, dropped), (expected.concat(), 0), "and of PUT nobody knows how many there were");
}

#[test]
fn a_tenant_forges_nobodys_labels_and_no_lines() {
    let (text, dropped) = gather(
        "a_total{namespace=\"other\",virtualcluster=\"y\",verb=\"x\\n# TYPE a_total gauge\"} 1\n\
         a_total{verb=\"\\q\\\"}\\\\ 5\",namespace=\"other\"} 2 1700000000000\n\
         a_total{verb=\"ok\"} NaN\na_total{verb=\"ok\"} +Inf\na_total{verb=\"open} 1\na_total{verb=\"ok\"} one\n",
    );
    let expected =
        "a_total{namespace=\"team\",virtualcluster=\"x\",verb=\"\\\\q\\\"}\\\\ 5\",exported_namespace=\"other\"} 2\n";
    assert_eq!((text.as_str(), dropped), (expected, 5));
    let long = format!("a_total{{verb=\"{}\"}} 1\n", "v".repeat(257));
    assert_eq!(gather(&long), (String::new(), 1));
}

#[test]
fn what_is_over_the_bounds_is_left_out_and_counted() {
    let body: String = (0..1000).map(|n| format!("a_total{{verb=\"v{n:04}\"}} 1\n")).collect();
    let twice = format!("{body}{body}");
    let gathered = gather_within(twice.as_bytes(), 10, 1 << 20);
    assert_eq!((gathered.series, gathered.dropped), (10, 2 * 990));
    let text = String::from_utf8(gathered.lines.text).expect("text");
    assert!(text.lines().all(|line| line.ends_with("} 2")), "whole sums of those that are kept: {text}");
    let gathered = gather_within(body.as_bytes(), 1000, 1000);
    assert!(gathered.lines.text.len() <= 1000 && gathered.dropped == 1000 - gathered.series as u64);
    // A histogram counts as what it may take, or a tenant would have fifty times as much of these.
    let many: String = (0..1000).map(|n| format!("c_seconds_count{{verb=\"v{n}\"}} 1\n")).collect();
    assert_eq!(gather_within(many.as_bytes(), 12, 1 << 20).series, 2 * 2);
    assert_eq!(gather_within("x".repeat(2000).as_bytes(), 10, 1000).dropped, 1);
}

#[test]
fn a_family_stands_once_whatever_tenants_call_it() {
    let hostile = "# TYPE a_total gauge\n# TYPE a_total histogram\n# HELP a_total Mine.\na_total 1\n# EOF\na_total_bucket 3\n\
        b 1\na_total 4\n# TYPE portico_tenant_up counter\nportico_tenant_up 1\nup 1\n";
    for format in [Format::Text, Format::OpenMetrics] {
        let text = page(format, &[("x", hostile), ("y", "b 5\na_total 2\n"), ("z", "")]);
        let total = if format == Format::Text { "a_total" } else { "a" };
        let order = families(&text);
        assert_eq!(
            order[..3],
            ["portico_tenant_up", "portico_tenant_scrape_duration_seconds", "portico_tenant_scrape_series_dropped"]
        );
        assert_eq!(order[3..], [total, "b"]);
        assert!(text.contains(&format!("# TYPE {total} counter\n")) && !text.contains("Mine"), "{text}");
        assert!(text.contains(
            "a_total{namespace=\"team\",virtualcluster=\"x\"} 5\na_total{namespace=\"team\",virtualcluster=\"y\"} 2\n"
        ));
        assert_eq!(text.matches("portico_tenant_up{").count(), 3);
        assert_eq!(text.ends_with("# EOF\n"), format == Format::OpenMetrics);
    }
}

#[test]
fn a_long_page_comes_in_pieces_and_is_the_same() {
    let body: String = (0..900).map(|n| format!("a_total{{verb=\"verb-{n}\"}} 1\n")).collect();
    let names: Vec<String> = (0..20).map(|n| format!("t{n}")).collect();
    let bodies: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), body.as_str())).collect();
    let text = page(Format::OpenMetrics, &bodies);
    assert_eq!(families(&text).last().map(String::as_str), Some("a"));
    assert_eq!(text.matches("\na_total{").count(), 20 * 900);
    assert!(text.len() > 1_000_000 && text.ends_with("} 1\n# EOF\n"));
}

#[test]
fn a_page_about_nobody_is_a_page() {
    assert_eq!(page(Format::Text, &[]), "");
    assert_eq!(page(Format::OpenMetrics, &[]), "# EOF\n");
}

#[test]
fn what_is_wrong_with_a_tenant_is_said() {
    let outcome = Outcome { seconds: 5.0, problem: Some(Problem::Late), dropped: 0 };
    let shown = Shown::scraped(&labelled("x"), outcome, &FamilyLines::default(), None);
    let of = |at| String::from_utf8(shown.family(at).to_vec()).expect("text");
    assert_eq!(of(0), "portico_tenant_up{namespace=\"team\",virtualcluster=\"x\"} 0\n");
    assert_eq!(of(3), "portico_tenant_scrape_problem{namespace=\"team\",virtualcluster=\"x\",reason=\"late\"} 1\n");
    assert_eq!((of(4), of(100)), (String::new(), String::new()));
    let outcome = Outcome { problem: Some(Problem::NoRoom), ..outcome };
    let shown = Shown::scraped(&labelled("x"), outcome, &FamilyLines::default(), None);
    assert!(shown.family(0).ends_with(b"} 1\n"), "it is up, and Portico is short of room");
}

#[test]
fn room_is_given_back_with_the_result() {
    let counts = Arc::new(Counts::new(100));
    let first = counts.room(60).expect("there is room");
    assert!(counts.room(60).is_none());
    let shown = Shown::scraped(&labelled("x"), WELL, &FamilyLines::default(), Some(first));
    drop(shown);
    assert!(counts.room(60).is_some());
}

#[test]
fn the_format_is_the_scrapers_choice() {
    let wanted =
        |accept: &str| Format::wanted(&HeaderMap::from_iter([(header::ACCEPT, accept.parse().expect("value"))]));
    let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
        application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,*/*;q=0.2";
    assert_eq!(wanted(prometheus), Format::OpenMetrics);
    assert_eq!(wanted("application/openmetrics-text; version=1.0.0"), Format::OpenMetrics);
    for text in [
        "",
        "*/*",
        "text/plain",
        "application/openmetrics-text;q=0",
        "application/openmetrics-text;version=2.0.0",
        "application/openmetrics-text;q=0.1,text/plain",
        "application/openmetrics-text;q=x",
    ] {
        assert_eq!(wanted(text), Format::Text, "{text}");
    }
    assert_eq!(Format::wanted(&HeaderMap::new()), Format::Text);
}

#[test]
fn numbers_are_short_and_read_the_same() {
    for value in [0.0, 1.0, -2.5, 1e15, 123_456_789.125, 1e16, 1e300, 1e-300, f64::MAX, f64::MIN_POSITIVE] {
        let mut text = Vec::new();
        number(&mut text, value);
        let text = String::from_utf8(text).expect("text");
        assert!(text.len() < 30 && text.parse() == Ok(value), "{text}");
    }
}

fn words() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "a_total",
        "b",
        "c_seconds_bucket",
        "c_seconds_count",
        "z",
        "# TYPE a_total gauge\nb",
    ]);
    let label = prop::sample::select(vec!["verb", "namespace", "virtualcluster", "le", "code", "exported_namespace"]);
    let labels = prop::collection::vec((label, any::<String>()), 0..4);
    (name, labels, any::<f64>(), any::<bool>()).prop_map(|(name, labels, value, escapes)| {
        let labels: Vec<String> = labels
            .into_iter()
            .map(|(label, text)| {
                let text =
                    if escapes { text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n") } else { text };
                format!("{label}=\"{text}\"")
            })
            .collect();
        format!("{name}{{{}}} {value}", labels.join(","))
    })
}

proptest! {
    /// Whatever a tenant sends, a page is well formed, within its bounds, and its own.
    #[test]
    fn hostile_bodies_make_pages_like_any_other(lines in prop::collection::vec(words(), 0..60), noise: Vec<u8>) {
        let mut body = lines.join("\n").into_bytes();
        body.push(b'\n');
        body.extend(noise);
        let gathered = gather_within(&body, 20, 2000);
        prop_assert!(gathered.lines.text.len() <= 2000 && gathered.series <= 20);
        let shown = Shown::scraped(&labelled("x"), WELL, &gathered.lines, None);
        let heads: Arc<[_]> = shown::about().chain(catalog().heads()).collect();
        let sections = vec![Section { heads, tenants: vec![Arc::new(shown)] }];
        let mut page = Page::new(Format::Text, sections, None);
        let text = String::from_utf8(std::iter::from_fn(|| page.next_piece()).collect::<Vec<_>>().concat())?;
        families(&text);
        for line in text.lines() {
            if let Some(Line::Sample(sample)) = Line::parse(line.as_bytes()) {
                let own = sample.labels.iter().filter(|(name, _)| *name == "virtualcluster").collect::<Vec<_>>();
                prop_assert_eq!(own, [("virtualcluster", "x")]);
            }
        }
    }
}
