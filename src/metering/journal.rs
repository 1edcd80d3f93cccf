//! What this process counted, written down.
//!
//! For each hour and part of the tenants one record, written again as a whole: a write that is repeated counts nothing twice.
//! Whoever keeps the books seals the records of past hours before it takes them, so a process that comes late finds its record
//! sealed or gone, and begins another with what is not in that one.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::SignedDuration;

use super::parts::Parts;
use super::stored::{Book, MOST_BYTES, Record, digest};
use crate::consumption::{Hour, Rows};
use crate::error::{Error, Kind, Result};
use crate::kubernetes::resources::CONFIG_MAPS;
use crate::names::TenantId;
use crate::runtime::drain::Drain;

/// Parts of a process' tenants, so that no record is larger than an API server takes.
const PARTS: u64 = 4;
/// Hours that could not be written for so long go to the one of now: their records would be asked for in vain by then.
const OLDEST: SignedDuration = SignedDuration::from_hours(36);
/// Calls for one record: what the answer to one says is tried with the next.
const TRIES: usize = 4;
/// For the last writes when the process ends.
const PATIENCE: Duration = Duration::from_secs(5);

/// Of this process.
pub struct Journal {
    pub(super) parts: Parts,
    sheets: tokio::sync::Mutex<BTreeMap<(Hour, u64), Sheet>>,
    /// Records that were begun: no two of a process have one name, whatever its clock does.
    begun: AtomicU32,
}

/// One hour's record.
#[derive(Debug)]
struct Sheet {
    /// Of its record.
    number: u32,
    /// All that it should say.
    rows: Rows,
    /// What it said when that was known last.
    written: Rows,
    /// What it says since, if the last write was done.
    tried: Rows,
    version: String,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Nobody has written it.
    New,
    /// As it was written.
    Known,
    /// A write had no answer, or not the expected one.
    Unsure,
}

impl Journal {
    /// Nothing written yet.
    pub fn new(parts: Parts) -> Self {
        parts.consumption.begin_to_take();
        Self { parts, sheets: tokio::sync::Mutex::default(), begun: AtomicU32::new(0) }
    }

    /// Writes until the drain begins, also while the process leaves.
    pub async fn run(&self, mut drain: Drain) {
        let interval = self.parts.config.interval.0;
        let writes = async {
            loop {
                tokio::time::sleep(self.parts.clock.jitter(interval)).await;
                self.write(false).await;
            }
        };
        // A write that is given up is settled by the next one.
        tokio::select! {
            () = writes => {}
            _ = drain.signaled() => {}
        }
    }

    /// Writes what was counted last, when nothing runs any more.
    pub async fn close(&self) {
        if tokio::time::timeout(PATIENCE, self.write(true)).await.is_err() {
            tracing::warn!("what was used last could not be written in time");
        }
    }

    /// Takes what was counted, and writes what changed. At the end the hour is over for this process.
    pub(super) async fn write(&self, is_the_end: bool) {
        let mut sheets = self.sheets.lock().await;
        let now = Hour::of(self.parts.clock.now());
        let mut taken = Rows::default();
        self.parts.consumption.take(now, &mut taken);
        for (tenant, hour, within, amounts) in taken.iter() {
            let sheet = sheets.entry((hour, part_of(tenant))).or_insert_with(|| self.sheet(Rows::default()));
            sheet.rows.add(tenant, hour, within.clone(), amounts);
        }
        self.drop_oldest(&mut sheets, now);
        // The newest first: an API server that hangs holds up what is old already.
        for (key, sheet) in sheets.iter_mut().rev() {
            let is_over = key.0 < now || is_the_end;
            if !is_over && sheet.standing == Standing::Known && sheet.rows == sheet.written {
                continue;
            }
            match self.write_sheet(*key, sheet, is_over).await {
                Ok(()) if is_over => sheet.rows = Rows::default(),
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, hour = %key.0, "what was used could not be written; it is tried again");
                    if error.kind() != Kind::Conflict {
                        break;
                    }
                }
            }
        }
        sheets.retain(|_, sheet| !sheet.rows.is_empty());
    }

    fn sheet(&self, rows: Rows) -> Sheet {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let [written, tried] = std::array::from_fn(|_| Rows::default());
        Sheet { number, rows, written, tried, version: String::new(), standing: Standing::New }
    }

    /// What of the oldest hours is surely not written goes to the hour of now.
    fn drop_oldest(&self, sheets: &mut BTreeMap<(Hour, u64), Sheet>, now: Hour) {
        let too_old = |hour: Hour| now.begin().duration_since(hour.begin()) > OLDEST;
        while let Some(oldest) = sheets.first_entry().filter(|oldest| too_old(oldest.key().0)) {
            let ((hour, part), sheet) = oldest.remove_entry();
            tracing::error!(%hour, "what was used in an hour could not be written for days: what is left of it stands in this one");
            let known = if sheet.standing == Standing::Unsure { &sheet.tried } else { &sheet.written };
            let left = sheet.rows.without(known);
            let target = sheets.entry((now, part)).or_insert_with(|| self.sheet(Rows::default()));
            for (tenant, _, within, amounts) in left.iter() {
                target.rows.add(tenant, now, within.clone(), amounts);
            }
        }
    }

    async fn write_sheet(&self, (hour, part): (Hour, u64), sheet: &mut Sheet, is_over: bool) -> Result<()> {
        for _ in 0..TRIES {
            if sheet.standing == Standing::Unsure {
                self.settle(hour, part, sheet).await?;
            }
            if sheet.rows.is_empty() {
                return Ok(());
            }
            let text = sheet.rows.fit(MOST_BYTES);
            let record = Record {
                name: self.name(hour, part, sheet.number),
                uid: String::new(),
                version: sheet.version.clone(),
                hour,
                is_sealed: is_over,
                rows: Rows::default(),
            };
            let object = record.object(&self.parts.namespace, &text);
            let (host, namespace) = (&self.parts.host, Some(self.parts.namespace.as_str()));
            let is_new = sheet.standing == Standing::New;
            sheet.standing = Standing::Unsure;
            sheet.tried = sheet.rows.clone();
            let answer = match is_new {
                true => host.create(&CONFIG_MAPS, namespace, ("", ""), &object).await,
                false => host.replace(&CONFIG_MAPS, namespace, &record.name, &object).await,
            };
            match answer {
                Ok(stored) => {
                    sheet.version = stored["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
                    sheet.standing = Standing::Known;
                    sheet.written = std::mem::take(&mut sheet.tried);
                    return Ok(());
                }
                // Not done; but an earlier one may have been, whose answer was lost.
                Err(error) if matches!(error.kind(), Kind::Conflict | Kind::AlreadyExists | Kind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::host(Kind::Conflict, "a record of what was used changes whenever it is written"))
    }

    /// Finds out what became of the last write.
    async fn settle(&self, hour: Hour, part: u64, sheet: &mut Sheet) -> Result<()> {
        let name = self.name(hour, part, sheet.number);
        let namespace = Some(self.parts.namespace.as_str());
        let found = self.parts.host.get(&CONFIG_MAPS, namespace, &name).await?;
        let Some(found) = found.map(|found| Record::of(&found)) else {
            match self.taken(hour, &name).await? {
                Some(said) => *sheet = self.sheet(sheet.rows.without(&sheet.said(&said))),
                // Never made, or somebody removed it.
                None => *sheet = self.sheet(std::mem::take(&mut sheet.rows)),
            }
            return Ok(());
        };
        match found {
            Ok(record) if record.is_sealed => *sheet = self.sheet(sheet.rows.without(&record.rows)),
            Ok(record) => {
                (sheet.version, sheet.written, sheet.standing) = (record.version, record.rows, Standing::Known);
            }
            Err(why) => {
                tracing::warn!(
                    record = name,
                    why,
                    "a record of what was used was changed by somebody; another is begun"
                );
                *sheet = self.sheet(sheet.rows.without(&sheet.written));
            }
        }
        Ok(())
    }

    /// The digest of what the day's book took of it.
    async fn taken(&self, hour: Hour, record: &str) -> Result<Option<String>> {
        for part in 0.. {
            let name = Book::name(hour.day(), part);
            let found = self.parts.host.get(&CONFIG_MAPS, Some(&self.parts.namespace), &name).await?;
            let Some(found) = found else { break };
            // Whether it is there cannot be known: it is neither written again nor forgotten.
            let unreadable = |why| Error::host(Kind::Invalid, format!("ConfigMap {name} is no book of usage: {why}"));
            let book = Book::of(&found).map_err(unreadable)?;
            if let Some(digest) = book.taken.get(record) {
                return Ok(Some(digest.clone()));
            }
        }
        Ok(None)
    }

    /// Calls that were taken and may not have been written.
    #[cfg(test)]
    pub(super) async fn unwritten(&self) -> u64 {
        let sheets = self.sheets.lock().await;
        let unsure = |sheet: &&Sheet| sheet.standing == Standing::Unsure || sheet.rows != sheet.written;
        let rows = sheets.values().filter(unsure).flat_map(|sheet| sheet.rows.iter());
        rows.map(|(_, _, _, amounts)| amounts.calls).sum()
    }

    fn name(&self, hour: Hour, part: u64, number: u32) -> String {
        let hour = hour.to_string().to_lowercase();
        format!("portico-usage-{hour}-{part}-{}-{number}", self.parts.process)
    }
}

fn part_of(tenant: &TenantId) -> u64 {
    let mut hasher = DefaultHasher::new();
    tenant.hash(&mut hasher);
    hasher.finish() % PARTS
}

impl Sheet {
    /// What it said when it was taken, of which only the digest is known.
    fn said(&self, taken: &str) -> Rows {
        let known = [&self.tried, &self.written].into_iter().find(|rows| digest(rows) == taken);
        // Somebody changed it by hand, then.
        known.unwrap_or(&self.written).clone()
    }
}
