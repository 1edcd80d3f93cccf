//! Amounts by tenant, hour and namespace, and their written form.
//!
//! Text, so that people read it with kubectl: a line `@HOST-NAMESPACE/CLUSTER`, then one of each row, `HOUR NAMESPACE` and the
//! numbers in the order of [`Amounts`]. `-` stands for what is in no namespace, `*` for namespaces beyond those that are told apart.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use jiff::civil::Date;
use jiff::{Timestamp, tz::TimeZone};

use super::MOST_NAMESPACES;
use super::amounts::{Amounts, NUMBERS};
use crate::names::{TenantId, VirtualNamespace};

/// An hour of the calendar, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hour(i64);

/// Where something was used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Within {
    /// In none: calls of cluster-wide objects, discovery.
    None,
    /// In one of those that are not told apart.
    Others,
    /// In this namespace of the tenant.
    Namespace(VirtualNamespace),
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows(BTreeMap<TenantId, BTreeMap<(Hour, Within), Amounts>>);

const SECONDS: i64 = 3600;

impl Hour {
    /// In which this moment is.
    pub fn of(at: Timestamp) -> Self {
        Self(at.as_second().div_euclid(SECONDS))
    }

    /// The first hour of a day.
    pub fn first_of(day: Date) -> Option<Self> {
        Some(Self::of(day.to_zoned(TimeZone::UTC).ok()?.timestamp()))
    }

    /// Where it begins.
    pub fn begin(self) -> Timestamp {
        Timestamp::from_second(self.0 * SECONDS).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Where it ends.
    pub fn end(self) -> Timestamp {
        Self(self.0 + 1).begin()
    }

    /// Its day.
    pub fn day(self) -> Date {
        self.begin().to_zoned(TimeZone::UTC).date()
    }

    /// As it is written: `2026-11-30T15`.
    fn parse(text: &str) -> Option<Self> {
        let (day, hour) = text.split_once('T')?;
        let hour: i64 = hour.parse().ok().filter(|hour| (0..24).contains(hour))?;
        Some(Self(Self::first_of(day.parse().ok()?)?.0 + hour))
    }
}

impl fmt::Display for Hour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}T{:02}", self.day(), self.0.rem_euclid(24))
    }
}

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(name) => name.fmt(f),
            Self::None => f.write_str("-"),
            Self::Others => f.write_str("*"),
        }
    }
}

impl Within {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "-" => Some(Self::None),
            "*" => Some(Self::Others),
            name => VirtualNamespace::parse(name).ok().map(Self::Namespace),
        }
    }
}

impl Rows {
    /// Adds to a row; a namespace beyond those that are told apart in an hour stands with the others.
    pub fn add(&mut self, tenant: &TenantId, hour: Hour, within: Within, amounts: &Amounts) {
        if amounts.is_nothing() {
            return;
        }
        if !self.0.contains_key(tenant) {
            self.0.insert(tenant.clone(), BTreeMap::new());
        }
        let Some(rows) = self.0.get_mut(tenant) else { return };
        let key = (hour, within);
        if let Some(row) = rows.get_mut(&key) {
            row.add(amounts);
            return;
        }
        let is_named = matches!(key.1, Within::Namespace(_));
        let key = if !is_named || has_room(rows, hour, amounts) { key } else { (hour, Within::Others) };
        rows.entry(key).or_default().add(amounts);
    }

    /// Adds all of others.
    pub fn merge(&mut self, others: &Self) {
        for (tenant, hour, within, amounts) in others.iter() {
            self.add(tenant, hour, within.clone(), amounts);
        }
    }

    /// What of these is not in `earlier`, which were a part of them. Namespaces that stood apart there and stand with the others
    /// here are taken from those.
    #[must_use]
    pub fn without(&self, earlier: &Self) -> Self {
        let mut left = self.clone();
        for (tenant, hour, within, amounts) in earlier.iter() {
            let Some(rows) = left.0.get_mut(tenant) else { continue };
            let found = rows.remove(&(hour, within.clone())).unwrap_or_default();
            let beyond = amounts.without(&found);
            rows.insert((hour, within.clone()), found.without(amounts));
            if let Some(others) = rows.get_mut(&(hour, Within::Others)) {
                *others = others.without(&beyond);
            }
        }
        left.0.retain(|_, rows| {
            rows.retain(|_, amounts| !amounts.is_nothing());
            !rows.is_empty()
        });
        left
    }

    /// The same by day: each row stands in the first hour of its day.
    #[must_use]
    pub fn by_day(&self) -> Self {
        let mut days = Self::default();
        for (tenant, hour, within, amounts) in self.iter() {
            days.add(tenant, Hour::first_of(hour.day()).unwrap_or(hour), within.clone(), amounts);
        }
        days
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = (&TenantId, Hour, &Within, &Amounts)> {
        self.0.iter().flat_map(|(tenant, rows)| {
            rows.iter().map(move |((hour, within), amounts)| (tenant, *hour, within, amounts))
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their written form, in at most so many bytes if that can be: then namespaces stand together, those that used least of the
    /// processor first.
    pub fn fit(&mut self, most: usize) -> String {
        let mut text = self.text();
        // Those with the most names give way first: nobody loses his few for the many of another.
        let mut apart = MOST_NAMESPACES;
        while text.len() > most && apart > 0 {
            apart = apart * 3 / 4;
            self.keep_apart(apart);
            text = self.text();
        }
        text
    }

    /// The written form.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (tenant, rows) in &self.0 {
            let _ = writeln!(text, "@{tenant}");
            for ((hour, within), amounts) in rows {
                let _ = write!(text, "{hour} {within}");
                amounts.numbers().iter().for_each(|number| {
                    let _ = write!(text, " {number}");
                });
                text.push('\n');
            }
        }
        text
    }

    /// Reads it; or says which line cannot be read.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut rows, mut tenant) = (Self::default(), None);
        for line in text.lines().filter(|line| !line.is_empty()) {
            let broken = || format!("the line {line:?} cannot be read");
            if let Some(name) = line.strip_prefix('@') {
                let parsed = name.split_once('/').and_then(|(namespace, name)| TenantId::parse(namespace, name).ok());
                tenant = Some(parsed.ok_or_else(broken)?);
                continue;
            }
            let (hour, within, amounts) = row(line).ok_or_else(broken)?;
            rows.add(tenant.as_ref().ok_or_else(broken)?, hour, within, &amounts);
        }
        Ok(rows)
    }

    fn keep_apart(&mut self, most: usize) {
        for rows in self.0.values_mut() {
            let mut named: BTreeMap<Hour, Vec<_>> = BTreeMap::new();
            for (key, amounts) in rows.iter().filter(|(key, _)| matches!(key.1, Within::Namespace(_))) {
                named.entry(key.0).or_default().push(((amounts.cpu, amounts.pods, amounts.calls), key.clone()));
            }
            for mut of_hour in named.into_values().filter(|of_hour| of_hour.len() > most) {
                of_hour.sort_by(|(one, _), (other, _)| other.cmp(one));
                for (_, key) in of_hour.drain(most..) {
                    let Some(amounts) = rows.remove(&key) else { continue };
                    rows.entry((key.0, Within::Others)).or_default().add(&amounts);
                }
            }
        }
    }
}

/// Whether one more namespace stands apart in this hour. Where pods are comes before what callers named.
fn has_room(rows: &mut BTreeMap<(Hour, Within), Amounts>, hour: Hour, amounts: &Amounts) -> bool {
    let of_hour = || (hour, Within::None)..(Hour(hour.0 + 1), Within::None);
    let is_named = |key: &(Hour, Within)| matches!(key.1, Within::Namespace(_));
    if rows.range(of_hour()).filter(|(key, _)| is_named(key)).count() < MOST_NAMESPACES {
        return true;
    }
    if amounts.is_calls_alone() {
        return false;
    }
    let least = rows.range(of_hour()).find(|(key, row)| is_named(key) && row.is_calls_alone());
    let Some(row) = least.map(|(key, _)| key.clone()).and_then(|key| rows.remove(&key)) else { return false };
    rows.entry((hour, Within::Others)).or_default().add(&row);
    true
}

fn row(line: &str) -> Option<(Hour, Within, Amounts)> {
    let mut words = line.split(' ');
    let (hour, within) = (Hour::parse(words.next()?)?, Within::parse(words.next()?)?);
    let mut numbers = [0; NUMBERS];
    for number in &mut numbers {
        *number = words.next()?.parse().ok()?;
    }
    words.next().is_none().then(|| (hour, within, Amounts::of(numbers)))
}

#[cfg(test)]
mod tests;
