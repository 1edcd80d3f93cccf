//! Runs the tests that the rows name, and says row by row what was seen.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use comfy_table::{ContentArrangement, Table};
use serde_json::Value;

use crate::root;
use crate::rows::{Rows, Test};

/// End-to-end tests need a cluster and have a runner of their own.
const END_TO_END: &str = "e2e";
/// What a test writes that could not do what it is for, with the reason.
const NOT_RUN: &str = "not run: ";
const WIDTH: u16 = 160;

/// What became of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Held,
    Failed,
    /// With the reason.
    NotRun(String),
    /// It could have run and did not: it is not there, or its target ended before.
    Missing,
}

/// Runs all, target by target.
pub fn all(rows: &Rows) -> BTreeMap<Test, Seen> {
    let mut by_target: BTreeMap<&str, Vec<&Test>> = BTreeMap::new();
    for test in rows.tests() {
        by_target.entry(test.target()).or_default().push(test);
    }
    let end_to_end = by_target.remove(END_TO_END).unwrap_or_default();
    let programs = programs(by_target.keys().copied());
    let mut seen = BTreeMap::new();
    for (target, tests) in by_target {
        let outcome = programs.get(target).map(|program| run(program, &tests)).unwrap_or_default();
        seen.extend(judge(&tests, &outcome));
    }
    seen.extend(run_end_to_end(&end_to_end));
    seen
}

/// The table, and how many rows are not held.
pub fn table(rows: &Rows, seen: &BTreeMap<Test, Seen>) -> (String, usize) {
    let mut table = Table::new();
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table.set_header(["row", "tried", "right", "seen"]);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut failed = 0;
    let mut why = BTreeSet::new();
    for row in rows.all() {
        let of_row: Vec<_> = row.tests.iter().map(|test| seen.get(test).unwrap_or(&Seen::Missing)).collect();
        let (said, is_bad) = row_of(&of_row);
        failed += usize::from(is_bad);
        let bad = row.tests.iter().zip(&of_row).filter(|(_, seen)| matches!(seen, Seen::Failed | Seen::Missing));
        why.extend(bad.map(|(test, seen)| format!("{seen:?}: {test}")));
        *counts.entry(said.split([',', ' ']).next().unwrap_or_default().replace("not", "not run")).or_default() += 1;
        table.add_row([&row.id, &row.tried, &row.right, &said]);
    }
    let counts: Vec<_> = counts.iter().map(|(said, count)| format!("{count} {said}")).collect();
    let why: String = why.into_iter().map(|line| line + "\n").collect();
    (format!("{table}\n{why}{} rows: {}", rows.all().count(), counts.join(", ")), failed)
}

/// What is said of a row with these tests, and whether that is bad.
pub fn row_of(seen: &[&Seen]) -> (String, bool) {
    let away: Vec<_> =
        seen.iter().filter_map(|seen| if let Seen::NotRun(why) = seen { Some(why) } else { None }).collect();
    if seen.contains(&&Seen::Failed) {
        return ("FAILED".to_owned(), true);
    }
    if seen.contains(&&Seen::Missing) {
        return ("MISSING".to_owned(), true);
    }
    let said = match away.as_slice() {
        _ if seen.is_empty() => "none".to_owned(),
        [] => "held".to_owned(),
        [why, ..] if away.len() == seen.len() => format!("not run ({why})"),
        [why, ..] => format!("held, {} of {} not run ({why})", away.len(), seen.len()),
    };
    (said, false)
}

/// What a test program says of each test that it ran, with `--show-output`.
pub fn read(text: &str) -> HashMap<String, Seen> {
    let mut seen = HashMap::new();
    let mut speaking = None;
    for line in text.lines() {
        if let Some((name, outcome)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... ")) {
            let name = name.split(" - ").next().unwrap_or(name);
            let outcome = match outcome.split_once(", ") {
                Some(("ignored", why)) => Seen::NotRun(why.to_owned()),
                _ if outcome == "ignored" => Seen::NotRun("ignored".to_owned()),
                _ if outcome == "ok" => Seen::Held,
                _ => Seen::Failed,
            };
            seen.insert(name.to_owned(), outcome);
        } else if let Some(name) = line.strip_prefix("---- ").and_then(|line| line.strip_suffix(" stdout ----")) {
            speaking = Some(name.to_owned());
        } else if let (Some(why), Some(name)) = (line.strip_prefix(NOT_RUN), &speaking)
            && seen.get(name) == Some(&Seen::Held)
        {
            seen.insert(name.clone(), Seen::NotRun(why.to_owned()));
        }
    }
    seen
}

fn judge(tests: &[&Test], outcome: &HashMap<String, Seen>) -> Vec<(Test, Seen)> {
    let of = |test: &Test| {
        outcome.iter().find(|(listed, _)| test.is(listed)).map_or(Seen::Missing, |(_, seen)| seen.clone())
    };
    tests.iter().map(|test| ((*test).clone(), of(test))).collect()
}

/// The compiled tests by target. Cargo says where they are.
fn programs<'a>(targets: impl Iterator<Item = &'a str>) -> HashMap<String, PathBuf> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root()).args(["test", "--locked", "--no-run", "--message-format=json-render-diagnostics"]);
    for target in targets {
        match target {
            "lib" => command.arg("--lib"),
            other => command.args(["--test", other]),
        };
    }
    let output = command.stderr(Stdio::inherit()).output().expect("cargo runs");
    assert!(output.status.success(), "the tests do not compile");
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages
        .filter(|message| message.pointer("/profile/test") == Some(&Value::Bool(true)))
        .filter_map(|message| {
            let is_lib = message.pointer("/target/kind/0")?.as_str()? == "lib";
            let name = if is_lib { "lib" } else { message.pointer("/target/name")?.as_str()? };
            Some((name.to_owned(), PathBuf::from(message.get("executable")?.as_str()?)))
        })
        .collect()
}

fn run(program: &Path, tests: &[&Test]) -> HashMap<String, Seen> {
    let listed = Command::new(program).current_dir(root()).arg("--list").output().expect("a test program runs");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let listed = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    let wanted: Vec<_> = listed.filter(|listed| tests.iter().any(|test| test.is(listed))).collect();
    let mut command = Command::new(program);
    command.current_dir(root()).args(["--show-output", "--exact"]).args(&wanted);
    if std::env::var_os("PORTICO_H2SPEC").is_some() {
        command.arg("--include-ignored");
    }
    spoken(command)
}

/// Runs it, shows what it says where something failed, and reads it.
fn spoken(mut command: Command) -> HashMap<String, Seen> {
    let output = command.stderr(Stdio::inherit()).output().expect("a test program runs");
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        println!("{text}");
    }
    read(&text)
}

fn run_end_to_end(tests: &[&Test]) -> Vec<(Test, Seen)> {
    if !is_cluster_up() {
        let away = Seen::NotRun("no cluster".to_owned());
        return tests.iter().map(|test| ((*test).clone(), away.clone())).collect();
    }
    let mut command = Command::new(root().join("tests/e2e/run"));
    command.current_dir(root()).args(["--exact", "--show-output"]);
    command.args(tests.iter().map(|test| test.path_in_target()));
    let outcome = spoken(command);
    // Those that kill Portico are ignored beside others; 'make e2e' runs them alone.
    judge(tests, &outcome)
}

fn is_cluster_up() -> bool {
    let kubeconfig = std::env::var_os("PORTICO_E2E_KUBECONFIG").map(PathBuf::from);
    let kubeconfig = kubeconfig.unwrap_or_else(|| root().join("target/cluster/kubeconfig"));
    let mut command = Command::new(root().join("target/bin/kubectl"));
    command.arg("--kubeconfig").arg(&kubeconfig).args(["get", "--raw", "/readyz", "--request-timeout=5s"]);
    let answer = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    kubeconfig.exists() && answer.is_ok_and(|status| status.success())
}
