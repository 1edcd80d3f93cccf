//! The ConfigMaps: a record of one process and hour, a book of one day.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use jiff::civil::Date;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::consumption::{Hour, Rows};

/// Label: `record` or `book`.
pub const KIND: &str = "portico.dev/usage";
/// Label: the day, UTC.
pub const DAY: &str = "portico.dev/usage-day";
/// Bytes of rows in one ConfigMap, of which the API server takes one MiB.
pub(super) const MOST_BYTES: usize = 700 << 10;

/// Values of [`KIND`].
pub mod kinds {
    /// Of one process and hour.
    pub const RECORD: &str = "record";
    /// Of one day.
    pub const BOOK: &str = "book";
}

/// What one process counted in one hour: all of it, whenever it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Of the ConfigMap.
    pub name: String,
    /// Empty before it is written.
    pub(super) uid: String,
    pub(super) version: String,
    pub(super) hour: Hour,
    /// It changes no more.
    pub(super) is_sealed: bool,
    /// What it says.
    pub rows: Rows,
}

/// One part of a day's book.
#[derive(Debug, Clone, PartialEq)]
pub struct Book {
    /// Of the ConfigMap.
    pub name: String,
    pub(super) uid: String,
    pub(super) version: String,
    /// Its day.
    pub day: Date,
    pub(super) part: usize,
    /// Another part follows, and nothing is added to this one.
    pub(super) is_full: bool,
    /// Its rows are of whole days.
    pub is_by_day: bool,
    /// Records that are in it, each with the digest of what it said.
    pub taken: BTreeMap<String, String>,
    /// Other parts whose rows are in it: they are not to be read, and about to go.
    pub absorbed: BTreeSet<String>,
    /// What it says.
    pub rows: Rows,
}

impl Record {
    /// Reads one, or says what is wrong with it.
    pub fn of(object: &Value) -> Result<Self, String> {
        let (name, uid, version) = identity(object);
        let rows = Rows::parse(data(object, "rows"))?;
        let hour: i64 = data(object, "hour").parse().map_err(|_| "it names no hour".to_owned())?;
        let begin = jiff::Timestamp::from_second(hour).map_err(|e| e.to_string())?;
        Ok(Self { name, uid, version, hour: Hour::of(begin), is_sealed: data(object, "sealed") == "true", rows })
    }

    /// The ConfigMap, with its rows in this form.
    pub(super) fn object(&self, namespace: &str, text: &str) -> Value {
        let mut object = object(namespace, &self.name, kinds::RECORD, self.hour.day(), &self.version);
        object["data"] = json!({
            "hour": self.hour.begin().as_second().to_string(),
            "sealed": self.is_sealed.to_string(),
            "rows": text,
        });
        object
    }
}

impl Book {
    /// Reads one, or says what is wrong with it.
    pub fn of(object: &Value) -> Result<Self, String> {
        let (name, uid, version) = identity(object);
        let label = object["metadata"]["labels"][DAY].as_str().unwrap_or_default();
        let day: Date = label.parse().map_err(|_| format!("its day {label:?} is none"))?;
        let part = name.rsplit('-').next().and_then(|part| part.parse().ok()).ok_or("it has no number")?;
        let taken = data(object, "records").lines().filter_map(|line| line.split_once(' '));
        let taken = taken.map(|(name, digest)| (name.to_owned(), digest.to_owned())).collect();
        let is = |key| data(object, key) == "true";
        let (is_full, is_by_day) = (is("full"), is("byDay"));
        let absorbed = data(object, "absorbed").lines().map(str::to_owned).collect();
        let rows = Rows::parse(data(object, "rows"))?;
        Ok(Self { name, uid, version, day, part, is_full, is_by_day, taken, absorbed, rows })
    }

    /// An empty one.
    pub(super) fn new(day: Date, part: usize, is_by_day: bool) -> Self {
        Self {
            name: Self::name(day, part),
            uid: String::new(),
            version: String::new(),
            day,
            part,
            is_full: false,
            is_by_day,
            taken: BTreeMap::new(),
            absorbed: BTreeSet::new(),
            rows: Rows::default(),
        }
    }

    /// The names of its records, as they are written.
    fn records(&self) -> String {
        let taken: Vec<String> = self.taken.iter().map(|(name, digest)| format!("{name} {digest}")).collect();
        taken.join("\n")
    }

    /// Bytes that it takes.
    pub(super) fn length(&self) -> usize {
        self.rows.text().len() + self.records().len()
    }

    pub(super) fn name(day: Date, part: usize) -> String {
        format!("portico-usage-{day}-{part}")
    }

    /// The ConfigMap.
    pub(super) fn object(&self, namespace: &str, text: &str) -> Value {
        let mut object = object(namespace, &self.name, kinds::BOOK, self.day, &self.version);
        let absorbed: Vec<&str> = self.absorbed.iter().map(String::as_str).collect();
        object["data"] = json!({
            "full": self.is_full.to_string(),
            "byDay": self.is_by_day.to_string(),
            "records": self.records(),
            "absorbed": absorbed.join("\n"),
            "rows": text,
        });
        object
    }
}

/// Tells whether rows are the same.
pub(super) fn digest(rows: &Rows) -> String {
    HEXLOWER.encode(&Sha256::digest(rows.text())[..16])
}

fn object(namespace: &str, name: &str, kind: &str, day: Date, version: &str) -> Value {
    let labels = json!({KIND: kind, DAY: day.to_string(), "app.kubernetes.io/managed-by": "portico"});
    let mut metadata = json!({"name": name, "namespace": namespace, "labels": labels});
    if !version.is_empty() {
        metadata["resourceVersion"] = version.into();
    }
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
}

fn identity(object: &Value) -> (String, String, String) {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    (text("name"), text("uid"), text("resourceVersion"))
}

fn data<'a>(object: &'a Value, key: &str) -> &'a str {
    object["data"][key].as_str().unwrap_or_default()
}
