//! The forms of the result: for people in hours, for machines in seconds and bytes.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::super::failure::Outcome;
use super::super::output;
use crate::consumption::Amounts;
use crate::names::TenantId;

/// Form of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Table,
    /// Comma-separated, with a header.
    Csv,
    /// JSON.
    Json,
}

/// Of one virtual cluster, or of one namespace inside.
pub(super) struct Line {
    pub(super) tenant: TenantId,
    pub(super) within: String,
    pub(super) amounts: Amounts,
}

const MEBIBYTE: f64 = 1_048_576.0;

/// Prints it.
pub(super) fn show(
    format: Format,
    namespaces: bool,
    (since, until): (Timestamp, Timestamp),
    lines: &[Line],
) -> Outcome<()> {
    match format {
        Format::Table if lines.is_empty() => output::note(&format!("nothing was used since {since}")),
        Format::Table => {
            let mut header = vec!["NAMESPACE", "NAME", "WITHIN"];
            header.extend(COLUMNS.iter().map(|(title, _)| title));
            let mut rows: Vec<Vec<String>> = lines.iter().map(row).collect();
            if !namespaces {
                header.remove(2);
                rows.iter_mut().for_each(|row| drop(row.remove(2)));
            }
            output::table(&header, rows);
        }
        Format::Csv => {
            let names = numbers(&Amounts::default()).map(|(name, _)| name).join(",");
            let mut text = format!("namespace,virtualCluster,virtualNamespace,{names}\n");
            for Line { tenant, within, amounts } in lines {
                let numbers = numbers(amounts).map(|(_, number)| number.to_string()).join(",");
                let _ = writeln!(text, "{},{},{within},{numbers}", tenant.namespace(), tenant.name());
            }
            output::text(&text);
        }
        Format::Json => {
            let items: Vec<Value> = lines.iter().map(object).collect();
            let whole = json!({"since": since.to_string(), "until": until.to_string(), "items": items});
            output::structured(output::Format::Json, &whole)?;
        }
    }
    Ok(())
}

fn object(line: &Line) -> Value {
    let mut object = Map::new();
    object.insert("namespace".to_owned(), line.tenant.namespace().as_str().into());
    object.insert("virtualCluster".to_owned(), line.tenant.name().as_str().into());
    if !line.within.is_empty() {
        object.insert("virtualNamespace".to_owned(), line.within.as_str().into());
    }
    object.extend(numbers(&line.amounts).map(|(name, number)| (name.to_owned(), json!(number))));
    Value::Object(object)
}

/// Names hold no commas.
fn numbers(amounts: &Amounts) -> [(&'static str, f64); 10] {
    let bytes = |mebibytes: u64| mebibytes as f64 * MEBIBYTE;
    [
        ("podSeconds", amounts.pods as f64 / 1000.0),
        ("cpuCoreSeconds", amounts.cpu as f64 / 1000.0),
        ("memoryByteSeconds", bytes(amounts.memory)),
        ("volumeByteSeconds", bytes(amounts.volumes)),
        ("networkReceivedBytes", amounts.received as f64),
        ("networkSentBytes", amounts.sent as f64),
        ("apiCalls", amounts.calls as f64),
        ("apiBytes", amounts.call_bytes as f64),
        ("streamBytes", amounts.stream_bytes as f64),
        ("missedReadings", amounts.missed as f64),
    ]
}

type Column = (&'static str, fn(&Amounts) -> String);

const COLUMNS: [Column; 10] = [
    ("POD HOURS", |a| hours(a.pods as f64 / 1000.0)),
    ("CPU CORE HOURS", |a| hours(a.cpu as f64 / 1000.0)),
    ("MEMORY GIB HOURS", |a| hours(a.memory as f64 / 1024.0)),
    ("VOLUME GIB HOURS", |a| hours(a.volumes as f64 / 1024.0)),
    ("RECEIVED", |a| bytes(a.received)),
    ("SENT", |a| bytes(a.sent)),
    ("API CALLS", |a| a.calls.to_string()),
    ("API BYTES", |a| bytes(a.call_bytes)),
    ("STREAM BYTES", |a| bytes(a.stream_bytes)),
    ("MISSED", |a| a.missed.to_string()),
];

fn row(line: &Line) -> Vec<String> {
    let mut row = vec![line.tenant.namespace().to_string(), line.tenant.name().to_string(), line.within.clone()];
    row.extend(COLUMNS.iter().map(|(_, show)| show(&line.amounts)));
    row
}

fn hours(seconds: f64) -> String {
    format!("{:.3}", seconds / 3600.0)
}

fn bytes(number: u64) -> String {
    let units = ["B", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let mut value = number as f64;
    let mut at = 0;
    while value >= 1024.0 && at + 1 < units.len() {
        value /= 1024.0;
        at += 1;
    }
    let unit = units.get(at).copied().unwrap_or_default();
    if at == 0 { format!("{number}{unit}") } else { format!("{value:.1}{unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_hours_and_machines_seconds() {
        let tenant = TenantId::parse("team", "dev").expect("id");
        let amounts = Amounts {
            pods: 7_200_000,
            cpu: 1_800_500,
            memory: 512 * 3600,
            volumes: 10 * 1024 * 3600,
            received: 3 << 30,
            sent: 1023,
            calls: 12,
            call_bytes: 1536,
            stream_bytes: 0,
            missed: 2,
        };
        let line = Line { tenant, within: "default".to_owned(), amounts };
        let expected =
            ["team", "dev", "default", "2.000", "0.500", "0.500", "10.000", "3.0Gi", "1023B", "12", "1.5Ki", "0B", "2"];
        assert_eq!(row(&line), expected);
        let object = object(&line);
        assert_eq!((object["cpuCoreSeconds"].as_f64(), object["apiCalls"].as_f64()), (Some(1800.5), Some(12.0)));
        assert_eq!(object["memoryByteSeconds"].as_f64(), Some(512.0 * 3600.0 * 1_048_576.0));
        assert_eq!(object["virtualNamespace"], "default");
    }
}
