//! Dashboards, alerts and runbooks beside what there is: they ask for families, labels and values that `docs/metrics.md`
//! lists (a unit test compares that page with the code), and each alert has its runbook, each runbook its alert.

#[path = "../support/boards.rs"]
mod chart;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use self::chart::{Rule, chart_files, dashboards, panels, rules};

/// A ConfigMap holds no more.
const LARGEST: usize = 1 << 20;
/// What Grafana writes itself since its version 11.
const OLDEST_SCHEMA: u64 = 39;
/// What every sample has from its scrape.
const OF_THE_TARGET: [&str; 2] = ["instance", "job"];
const RUNBOOKS: &str = "docs/operations/runbooks.md";

/// One family of the page, or one that Prometheus makes.
#[derive(Debug, Clone, Default)]
struct Family {
    kind: String,
    /// With their values, where those are known; else nothing.
    labels: BTreeMap<String, Vec<String>>,
}

type Families = BTreeMap<String, Family>;

fn read(file: &str) -> String {
    std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).expect("readable")
}

fn families() -> Families {
    let mut families = Families::new();
    let page = read("docs/metrics.md");
    for row in page.lines().filter_map(|line| line.strip_prefix("| `")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        // An API server's own families have no meaning beside their names.
        let [name, kind, labels, ..] = cells[..] else { panic!("{row}") };
        let labels = labels.split("; ").filter(|label| !label.is_empty()).map(|label| {
            let (name, values) = label.split_once(": ").unwrap_or((label, ""));
            let bare = |text: &str| text.trim_matches('`').to_owned();
            (bare(name), values.split(", ").filter(|value| !value.is_empty()).map(bare).collect())
        });
        let family = Family { kind: kind.to_owned(), labels: labels.collect() };
        families.insert(name.trim_end_matches('`').to_owned(), family);
    }
    assert!(families.len() > 30, "the page is read: {families:?}");
    let made = |labels: &[&str]| Family {
        kind: "gauge".to_owned(),
        labels: labels.iter().map(|label| ((*label).to_owned(), Vec::new())).collect(),
    };
    families.insert("up".to_owned(), made(&[]));
    families.insert("ALERTS".to_owned(), made(&["alertname", "alertstate"]));
    for rule in rules().iter().filter(|rule| rule.alert.is_none()) {
        families.insert(rule.name.clone(), made(&["namespace", "cluster"]));
    }
    families
}

/// Names of series in a query, with where they end.
fn series(query: &str) -> Vec<(String, usize)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let (mut found, mut at) = (Vec::new(), 0);
    let mut braces = false;
    while let Some(c) = query[at..].chars().next() {
        let word: String = query[at..].chars().take_while(|c| is_word(*c)).collect();
        if word.is_empty() {
            braces = if c == '{' {
                true
            } else if c == '}' {
                false
            } else {
                braces
            };
            if c == '"' {
                at += 1 + query[at + 1..].find('"').expect("a string ends") + 1;
            } else {
                at += c.len_utf8();
            }
            continue;
        }
        at += word.len();
        let is_name = !word.starts_with(|c: char| c.is_ascii_digit());
        let is_asked = query[at..].starts_with(['{', '[']) || ["up", "ALERTS"].contains(&word.as_str());
        if is_name && !braces && (word.starts_with("portico_") || word.contains(':') || is_asked) {
            found.push((word, at));
        }
    }
    found
}

/// The family of a series: buckets, sums and counts are parts of a histogram.
fn family_of<'a>(families: &'a Families, series: &str) -> Option<(&'a Family, bool)> {
    if let Some(family) = families.get(series) {
        // Nobody shows a series by a histogram's own name.
        return (family.kind != "histogram").then_some((family, false));
    }
    let part = ["_bucket", "_sum", "_count"].iter().find_map(|part| series.strip_suffix(part))?;
    families.get(part).filter(|family| family.kind == "histogram").map(|family| (family, series.ends_with("_bucket")))
}

/// Label, operator and value of each matcher that follows a name.
fn matchers(rest: &str) -> Vec<(String, String, String)> {
    let Some(inside) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(inside, _)| inside) else {
        return Vec::new();
    };
    let one = |matcher: &str| {
        let at = matcher.find(['=', '!']).unwrap_or_else(|| panic!("a matcher: {matcher}"));
        let (label, rest) = matcher.split_at(at);
        let (operator, value) = rest.split_at(rest.find('"').expect("a value"));
        (label.trim().to_owned(), operator.trim().to_owned(), value.trim().trim_matches('"').to_owned())
    };
    inside.split(',').filter(|matcher| !matcher.trim().is_empty()).map(one).collect()
}

/// What a query asks for that is not there.
fn unknown(families: &Families, query: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut labels: BTreeSet<String> = OF_THE_TARGET.iter().map(|label| (*label).to_owned()).collect();
    for (name, end) in series(query) {
        let Some((family, is_bucket)) = family_of(families, &name) else {
            wrong.push(format!("{name} is no family"));
            continue;
        };
        let begins = query[..end - name.len()].trim_end();
        let is_rate = ["rate(", "increase("].iter().any(|f| begins.ends_with(f));
        if is_rate == (family.kind == "gauge") {
            wrong.push(format!("{name} is a {}: {query}", family.kind));
        }
        labels.extend(family.labels.keys().cloned());
        labels.extend(is_bucket.then(|| "le".to_owned()));
        for (label, operator, value) in matchers(&query[end..]) {
            let Some(values) = family.labels.get(&label) else {
                if !OF_THE_TARGET.contains(&label.as_str()) {
                    wrong.push(format!("{name} has no label {label}"));
                }
                continue;
            };
            let is_known = |one: &str| match one.strip_suffix(".*") {
                Some(begin) => values.iter().any(|value| value.starts_with(begin)),
                None => values.iter().any(|value| value == one),
            };
            let is_open = values.is_empty() || value.contains('$');
            let all: Vec<&str> = if operator.contains('~') { value.split('|').collect() } else { vec![&value] };
            wrong.extend(
                all.into_iter()
                    .filter(|one| !is_open && !is_known(one))
                    .map(|one| format!("{name} has no {label} {one:?}, only {values:?}")),
            );
        }
    }
    for (at, _) in query.match_indices("by (") {
        let list = query[at + 4..].split(')').next().expect("a list").split(',').map(str::trim);
        wrong.extend(list.filter(|label| !labels.contains(*label)).map(|label| format!("by {label}: {query}")));
    }
    wrong
}

#[test]
fn every_query_asks_for_what_there_is() {
    let families = families();
    let mut wrong = Vec::new();
    for (file, board) in dashboards() {
        let asked = panels(&board);
        assert!(asked.len() > 10, "{file} asks something");
        for panel in asked {
            assert!(!series(&panel.query).is_empty(), "{file}, {}: {}", panel.title, panel.query);
            wrong.extend(
                unknown(&families, &panel.query).into_iter().map(|why| format!("{file}, {}: {why}", panel.title)),
            );
        }
        for variable in board["templating"]["list"].as_array().expect("variables") {
            let query = variable["definition"].as_str().unwrap_or_default();
            // As a query, label_values(series, label) is one that asks for nothing but the series.
            wrong.extend(unknown(&families, query).into_iter().map(|why| format!("{file}, variable: {why}")));
        }
    }
    for Rule { name, query, .. } in rules() {
        assert!(!series(&query).is_empty(), "{name}: {query}");
        wrong.extend(unknown(&families, &query).into_iter().map(|why| format!("{name}: {why}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn dashboards_are_whole() {
    let mut uids = BTreeSet::new();
    for (file, text) in chart_files("dashboards") {
        assert!(file.ends_with(".json") && text.len() < LARGEST, "{file} fits a ConfigMap");
        let board: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(board["schemaVersion"].as_u64() >= Some(OLDEST_SCHEMA), "{file}");
        assert!(uids.insert(board["uid"].to_string()), "{file}: another one has its uid");
        assert_eq!(board["uid"], file.trim_end_matches(".json"), "{file}");
        let variables = board["templating"]["list"].as_array().expect("variables");
        let names: BTreeSet<&str> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
        assert!(names.contains("datasource"), "{file}: the data source is chosen by who looks");
        let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
        for panel in board["panels"].as_array().expect("panels") {
            let title = format!("{file}, {}", panel["title"]);
            assert!(ids.insert(panel["id"].as_u64()), "{title}: its id is another one's");
            occupies(panel, &mut places, &title);
            if panel["type"] == "row" {
                continue;
            }
            assert!(
                panel["description"].as_str().is_some_and(|text| text.contains(['?', '.'])),
                "{title}: no description"
            );
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}: no unit");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
            for target in panel["targets"].as_array().expect("targets") {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            }
        }
        let queries: String = panels(&board).into_iter().map(|panel| panel.query + "\n").collect();
        for variable in
            queries.split('$').skip(1).map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        {
            let name = variable.into_iter().next().unwrap_or_default();
            assert!(name == "__rate_interval" || names.contains(name), "{file}: nobody sets ${name}");
        }
    }
}

/// Each panel has a place of its own on the board.
fn occupies(panel: &Value, places: &mut BTreeSet<(u64, u64)>, title: &str) {
    let side = |key: &str| panel["gridPos"][key].as_u64().unwrap_or_else(|| panic!("{title}: no {key}"));
    let (x, y) = (side("x"), side("y"));
    assert!(x + side("w") <= 24, "{title} is cut off");
    for column in x..x + side("w") {
        for line in y..y + side("h") {
            assert!(places.insert((column, line)), "{title} lies on another one");
        }
    }
}

#[test]
fn each_alert_has_its_runbook_and_each_runbook_its_alert() {
    let page = read(RUNBOOKS);
    let sections: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let all = rules();
    let alerts: Vec<(&str, &Value)> = all.iter().filter_map(|rule| Some((&*rule.name, rule.alert.as_ref()?))).collect();
    assert_eq!(sections, alerts.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "in this order");
    for (name, alert) in alerts {
        let annotation = |key: &str| alert["annotations"][key].as_str().unwrap_or_else(|| panic!("{name}: no {key}"));
        assert_eq!(annotation("runbook_url"), format!("{RUNBOOKS}#{}", name.to_lowercase()), "{name}");
        assert!(["critical", "warning", "info"].iter().any(|s| alert["labels"]["severity"] == *s), "{name}: severity");
        assert!(alert["for"].is_string(), "{name}: for");
        let whose = ["max by (", "sum by (", "min by ("].map(|f| format!("{f}namespace, cluster"));
        let is_of_one =
            |expr: &str| whose.iter().any(|w| expr.starts_with(w)) || expr.starts_with("namespace_cluster:");
        let names_it = annotation("summary").contains("{{ $labels.namespace }}/{{ $labels.cluster }}");
        assert!(names_it == is_of_one(alert["expr"].as_str().expect("expr")), "{name}: whose? {alert}");
        assert!(annotation("description").len() > 40, "{name}: {alert}");
    }
}

#[test]
fn a_question_for_what_is_not_there_is_found() {
    let families = families();
    for query in [
        "rate(portico_gateway_request_total[5m])",
        "portico_gateway_request_duration_seconds",
        "rate(portico_gateway_connections[5m])",
        "portico_gateway_connections_total",
        "sum by (tenant) (portico_gateway_long_running)",
        "portico_operator_condition{condition=\"Redy\"}",
        "portico_operator_condition{kind=\"Ready\"}",
        "rate(portico_gateway_handshake_failures_total{reason=~\"too-few-.*|no-certificate\"}[5m])",
        "portico_gateway_request_duration_seconds_total",
        "apiserver_request_totals{verb=\"GET\"}",
        "sum by (cluster) (rate(apiserver_request_total[5m]))",
    ] {
        assert_eq!(unknown(&families, query).len(), 1, "{query}: {:?}", unknown(&families, query));
    }
}
