//! `docs/config.md`, which `portico docs` prints, from the types' own doc comments and defaults, so that it cannot say anything else.

use std::fmt::Write as _;

use serde_json::Value;

use crate::config::Config;

const HEAD: &str = "# Configuration

`portico serve --config FILE` reads one YAML document. Every key may be left out; its default is given here. A key that
is not listed is refused, and the whole document with it.

This page is generated from the types in `src/config.rs` and beside it: change the comments there, then run
`make generated`.
";

/// The whole page.
pub fn markdown() -> String {
    let schema = schemars::schema_for!(Config).to_value();
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    let mut page = HEAD.to_owned();
    let none = serde_json::Map::new();
    for (key, property) in schema.pointer("/properties").and_then(Value::as_object).unwrap_or(&none) {
        let section = resolve(&schema, property);
        let intro = description(property).or_else(|| description(section)).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = write!(page, "\n## {key}\n\n{intro}\n");
        if section.get("properties").is_none() {
            continue;
        }
        page.push_str("\n| key | type | default | meaning |\n|---|---|---|---|\n");
        rows(&mut page, &schema, &defaults, key, section);
    }
    page
}

/// A row for each key; of a section within a section, for each of its own.
fn rows(page: &mut String, schema: &Value, defaults: &Value, path: &str, section: &Value) {
    let none = serde_json::Map::new();
    for (name, field) in section.get("properties").and_then(Value::as_object).unwrap_or(&none) {
        let path = format!("{path}.{name}");
        let inner = resolve(schema, field);
        if inner.get("properties").is_some() {
            rows(page, schema, defaults, &path, inner);
            continue;
        }
        let kind = kind(schema, field);
        let default = default(defaults.pointer(&format!("/{}", path.replace('.', "/"))));
        let meaning = description(field).unwrap_or_default();
        let _ = writeln!(page, "| `{path}` | {kind} | {default} | {meaning} |");
    }
}

/// Follows a `$ref`, also one that stands in an `allOf` beside a description.
fn resolve<'a>(schema: &'a Value, property: &'a Value) -> &'a Value {
    let direct = property.get("$ref").or_else(|| property.pointer("/allOf/0/$ref")).and_then(Value::as_str);
    direct.and_then(|r| schema.pointer(r.strip_prefix('#')?)).unwrap_or(property)
}

/// One line, safe in a table cell.
pub(crate) fn description(property: &Value) -> Option<String> {
    let text = property.get("description")?.as_str()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|"))
}

fn kind(schema: &Value, field: &Value) -> String {
    let named = field.get("$ref").and_then(Value::as_str).is_some_and(|r| r.ends_with("/Duration"));
    if named {
        return "duration".to_owned();
    }
    let field = resolve(schema, field);
    if let Some(variants) = choices(field) {
        return variants;
    }
    match field.get("type").and_then(Value::as_str) {
        Some("array") => format!("list of {}", field.get("items").map_or_else(String::new, |i| kind(schema, i))),
        Some("object") => "map".to_owned(),
        Some(other) => other.to_owned(),
        None => String::new(),
    }
}

/// The values of an enum, whether they have descriptions of their own or not.
pub(crate) fn choices(field: &Value) -> Option<String> {
    let plain = field.get("enum").and_then(Value::as_array).cloned();
    let described = field
        .get("oneOf")
        .and_then(Value::as_array)
        .map(|all| all.iter().filter_map(|v| v.get("const").cloned()).collect::<Vec<_>>());
    let all = plain.or(described)?;
    Some(all.iter().filter_map(Value::as_str).map(|v| format!("`{v}`")).collect::<Vec<_>>().join(" or "))
}

fn default(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) if text.is_empty() => "empty".to_owned(),
        Some(Value::Array(list)) if list.is_empty() => "empty".to_owned(),
        Some(Value::Object(map)) if map.is_empty() => "empty".to_owned(),
        Some(Value::String(text)) => format!("`{text}`"),
        Some(Value::Object(map)) => {
            let said = map.iter().filter(|(_, value)| !value.is_null());
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            said.map(|(key, value)| format!("`{key}: {}`", text(value))).collect::<Vec<_>>().join(", ")
        }
        Some(other) => format!("`{other}`"),
    }
}

/// Fails when a generated file that is committed is another one; writes it first when `PORTICO_BLESS` is set.
#[cfg(test)]
pub(crate) fn is_committed(file: &str, generated: &str) {
    let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("PORTICO_BLESS").is_some() {
        std::fs::write(&path, generated).expect("written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated, "{file} is stale: make generated");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_page_is_the_generated_one() {
        is_committed("docs/config.md", &markdown());
    }

    /// The chart's values have a schema of their own, and refuse what it does not know.
    #[test]
    fn every_part_of_the_configuration_may_be_set_by_the_chart() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/helm/portico/values.schema.json");
        let schema: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(file).expect("a schema")).expect("JSON");
        let parts = serde_json::to_value(Config::default()).expect("a configuration");
        for part in parts.as_object().expect("an object").keys() {
            assert!(schema["properties"]["config"]["properties"].get(part).is_some(), "{part}");
        }
    }

    #[test]
    fn a_default_of_several_values_says_each_that_there_is() {
        let value = serde_json::json!({"maxUnavailable": null, "paused": false, "timeout": "10m"});
        assert_eq!(default(Some(&value)), "`paused: false`, `timeout: 10m`");
    }

    #[test]
    fn every_field_says_what_it_means() {
        let rows: Vec<String> = markdown().lines().filter(|l| l.starts_with("| `")).map(str::to_owned).collect();
        assert!(rows.len() > 15, "{rows:?}");
        for row in rows {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            assert!(cells.len() == 4 && cells.iter().all(|c| !c.is_empty()), "{row}");
        }
    }
}
