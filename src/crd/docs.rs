//! `docs/virtualcluster.md`: every field of a VirtualCluster, from the schema and the rules that the API server checks, so that it
//! cannot say anything else.

use std::fmt::Write as _;

use serde_json::Value;

use super::rules::RULES;
use crate::config::docs::{choices, description};

const HEAD: &str = "# VirtualCluster

`apiVersion: portico.dev/v1alpha1`, `kind: VirtualCluster`, short name `vc`: one object is one virtual cluster, in the namespace
that its control plane and its copies live in. Every field of `spec` may be left out; `spec: {}` is a cluster.

*Fixed* fields cannot be changed later: the API server refuses it, with the reason. What is in force is in `status`. This page is
generated from the types in `src/crd.rs`: change the comments there, then run `make generated`.
";

/// The whole page.
pub fn markdown() -> String {
    let definition = super::definition();
    let schema = definition.pointer("/spec/versions/0/schema/openAPIV3Schema/properties").unwrap_or(&Value::Null);
    let fixed = fixed();
    let mut page = HEAD.to_owned();
    page.push_str("\n## spec\n\n| field | type | default | fixed | meaning |\n|---|---|---|---|---|\n");
    page.extend(rows(&schema["spec"], "", &mut |path, field| {
        let kept = if is_fixed(&fixed, path) { "yes" } else { "" };
        let meaning = description(field).unwrap_or_default();
        format!("| `{path}` | {} | {} | {kept} | {meaning} |", kind(field), default(field))
    }));
    page.push_str("\n## Rules over several fields\n\nThe API server refuses what breaks one, with these words:\n\n");
    for (_, _, message) in RULES {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "- {message}");
    }
    page.push_str("\n## status\n\nWritten by Portico only.\n\n| field | type | meaning |\n|---|---|---|\n");
    page.extend(rows(&schema["status"], "", &mut |path, field| {
        format!("| `{path}` | {} | {} |", kind(field), description(field).unwrap_or_default())
    }));
    page
}

/// Paths that a rule compares with what they were; `true` where their content is compared, not only whether they are there.
fn fixed() -> Vec<(String, bool)> {
    let mut paths = Vec::new();
    for (_, rule, _) in RULES.iter().filter(|(place, ..)| *place == "spec") {
        for (at, _) in rule.match_indices("oldSelf.") {
            let path = rule[at + "oldSelf.".len()..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '.');
            paths.push((path.collect::<String>(), !rule[..at].ends_with("has(")));
        }
    }
    paths
}

fn is_fixed(fixed: &[(String, bool)], path: &str) -> bool {
    let below = |other: &str| path.strip_prefix(other).is_some_and(|rest| rest.starts_with('.'));
    fixed.iter().any(|(other, whole)| path == other || (*whole && below(other)))
}

/// A row for each field below, objects first, then what is in them. Maps and lists of objects show what is in one of them.
fn rows(object: &Value, above: &str, row: &mut impl FnMut(&str, &Value) -> String) -> Vec<String> {
    let mut all = Vec::new();
    for (name, field) in object["properties"].as_object().into_iter().flatten() {
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        all.push(row(&path, field) + "\n");
        all.extend(rows(field, &path, row));
        all.extend(rows(&field["items"], &format!("{path}[]"), row));
    }
    all
}

fn kind(field: &Value) -> String {
    if let Some(choices) = choices(field) {
        return choices;
    }
    match field["type"].as_str() {
        Some("array") => format!("list of {}", kind(&field["items"])),
        Some("object") if field["additionalProperties"].is_object() => "map".to_owned(),
        Some(other) => other.to_owned(),
        None if field["x-kubernetes-int-or-string"] == true => "number or string".to_owned(),
        None => "any".to_owned(),
    }
}

fn default(field: &Value) -> String {
    match &field["default"] {
        Value::Null => String::new(),
        Value::String(text) if text.is_empty() => String::new(),
        Value::Object(_) => String::new(),
        Value::Array(list) if list.is_empty() => String::new(),
        Value::String(text) => format!("`{text}`"),
        other => format!("`{other}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::docs::is_committed;

    #[test]
    fn the_committed_page_is_the_generated_one() {
        is_committed("docs/virtualcluster.md", &markdown());
    }

    #[test]
    fn every_field_says_what_it_means() {
        let page = markdown();
        let (spec, status) = page.split_once("## status").expect("two parts");
        let cells =
            |row: &str| row.trim_matches('|').split(" | ").map(str::trim).map(str::to_owned).collect::<Vec<_>>();
        for (part, count) in [(spec, 5), (status, 3)] {
            let rows: Vec<&str> = part.lines().filter(|line| line.starts_with("| `")).collect();
            assert!(rows.len() > 8, "{rows:?}");
            for row in rows {
                let cells = cells(row);
                assert!(cells.len() == count && !cells[0].is_empty() && !cells[1].is_empty(), "{row}");
                assert!(cells.last().is_some_and(|meaning| !meaning.is_empty()), "{row}");
            }
        }
    }

    #[test]
    fn what_cannot_be_changed_is_marked() {
        let fixed = fixed();
        for path in ["distro", "network.clusterDomain", "storage.ephemeral", "storage.volumeClaim.size"] {
            assert!(is_fixed(&fixed, path), "{path} in {fixed:?}");
        }
        assert!(is_fixed(&fixed, "storage.datastoreEndpoint"));
        assert!(!is_fixed(&fixed, "storage.datastoreEndpoint.secretName"), "the address may move");
        assert!(!is_fixed(&fixed, "replicas"));
    }
}
