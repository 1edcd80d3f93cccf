//! The chart's dashboards, alerts and recording rules, as far as tests ask about them.
#![allow(dead_code, unreachable_pub, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

/// One question of a panel.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Title of the dashboard.
    pub board: String,
    /// Title of the panel.
    pub title: String,
    /// PromQL with Grafana's variables.
    pub query: String,
}

/// One rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Of an alert, its name; of a recorded series, that of the series.
    pub name: String,
    /// PromQL.
    pub query: String,
    /// The whole of an alert; nothing of a recorded series.
    pub alert: Option<Value>,
}

/// What stands in the chart's folder of that name, by file name.
pub fn chart_files(folder: &str) -> BTreeMap<String, String> {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "deploy/helm/portico", folder].iter().collect();
    let entries = std::fs::read_dir(folder).expect("the chart's folder");
    let paths = entries.map(|entry| entry.expect("entry").path());
    let read = |path: PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, std::fs::read_to_string(path).expect("readable"))
    };
    paths.map(read).collect()
}

/// All dashboards, by file name.
pub fn dashboards() -> BTreeMap<String, Value> {
    let parsed = |(name, text): (String, String)| {
        let board = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        (name, board)
    };
    chart_files("dashboards").into_iter().map(parsed).collect()
}

/// What a dashboard asks.
pub fn panels(board: &Value) -> Vec<Panel> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let asked = list(&board["panels"]).into_iter().flat_map(|panel| {
        let title = text(&panel["title"]);
        list(&panel["targets"]).into_iter().map(move |target| (title.clone(), text(&target["expr"])))
    });
    asked.map(|(title, query)| Panel { board: text(&board["title"]), title, query }).collect()
}

/// All rules.
pub fn rules() -> Vec<Rule> {
    let files = chart_files("rules");
    let groups = files.iter().flat_map(|(name, text)| {
        let file: Value = serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{name}: {e}"));
        file["groups"].as_array().cloned().expect("groups")
    });
    let rules = groups.flat_map(|group| group["rules"].as_array().cloned().expect("rules"));
    rules
        .map(|rule| {
            let text = |key: &str| rule[key].as_str().map(str::to_owned);
            let query = text("expr").expect("expr");
            match (text("alert"), text("record")) {
                (Some(name), None) => Rule { name, query, alert: Some(rule.clone()) },
                (None, Some(name)) => Rule { name, query, alert: None },
                _ => panic!("neither an alert nor a record: {rule}"),
            }
        })
        .collect()
}
