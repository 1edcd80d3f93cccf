//! The books: what all processes counted on one day.
//!
//! A record goes in after its hour: sealed first, so that it changes no more; then added to the day's book in one write that also
//! names it; then removed. Whoever was interrupted finds it named and only removes it. A book has parts; one that is full says so
//! before the next begins, and a record that was seen to stand after the parts were read is in none of them: so two who keep the
//! books at once meet at the same write, and one of them loses.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::civil::Date;
use jiff::{ToSpan as _, tz::TimeZone};
use serde_json::Value;

use super::parts::{Parts, goes_on};
use super::stored::{Book, DAY, KIND, MOST_BYTES, Record, digest, kinds};
use crate::config::MeteringConfig;
use crate::consumption::Rows;
use crate::error::{Error, Kind, Result};
use crate::kubernetes::api::SharedCluster;
use crate::kubernetes::resources::CONFIG_MAPS;
use crate::kubernetes::{ListOptions, PageOf};
use crate::runtime::clock::Clock;
use crate::runtime::drain::Drain;

const INTERVAL: Duration = Duration::from_secs(300);
/// Processes write what they counted in an hour soon after it.
const LATE: i64 = 300;
/// Records and books on a page, and bytes of it.
const PAGE: usize = 20;
const LONGEST_PAGE: usize = 32 << 20;
/// Parts of one day's book.
const MOST_PARTS: usize = 64;
/// Names of records are kept in the book after these are gone: whoever wrote one asks for it there.
const NAMES: i32 = 2;

pub(super) struct Books {
    host: SharedCluster,
    namespace: String,
    config: MeteringConfig,
    clock: Clock,
}

impl Books {
    pub(super) fn new(parts: &Parts) -> Self {
        let (host, namespace) = (parts.host.clone(), parts.namespace.clone());
        Self { host, namespace, config: parts.config.clone(), clock: parts.clock.clone() }
    }

    pub(super) async fn run(self, mut drain: Drain) {
        let (mut pause, mut tidied) = (self.clock.jitter(INTERVAL / 10), None);
        while goes_on(&mut drain, pause).await {
            pause = self.clock.jitter(INTERVAL);
            let day = self.today();
            if let Err(error) = self.take_all().await {
                tracing::warn!(%error, "what was used could not be put into the books; it is tried again");
            }
            if tidied == Some(day) {
                continue;
            }
            match self.tidy(day).await {
                Ok(()) => tidied = Some(day),
                Err(error) => tracing::warn!(%error, "old books could not be tidied; it is tried again"),
            }
        }
    }

    /// Takes the records of hours that are over. One that cannot be taken keeps no other out: its failure is told at the end.
    pub(super) async fn take_all(&self) -> Result<()> {
        let now = self.clock.now().as_second();
        let (mut token, mut failed) = (String::new(), Ok(()));
        loop {
            let (objects, next) = self.page(kinds::RECORD, &token).await?;
            for object in &objects {
                match Record::of(object) {
                    Ok(record) if record.is_sealed || now >= record.hour.end().as_second() + LATE => {
                        failed = failed.and(self.take(record).await);
                    }
                    Ok(_) => {}
                    Err(why) => tracing::warn!(record = %object["metadata"]["name"], why, "left alone"),
                }
            }
            token = next;
            if token.is_empty() {
                return failed;
            }
        }
    }

    async fn take(&self, mut record: Record) -> Result<()> {
        if !record.is_sealed {
            record.is_sealed = true;
            let text = record.rows.text();
            match self.replace(&record.name, &record.object(&self.namespace, &text)).await {
                Ok(_) => {}
                // Its process wrote it just now, or it is gone: the next round sees how it stands.
                Err(error) if matches!(error.kind(), Kind::Conflict | Kind::NotFound) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        let mut books = self.books(record.hour.day()).await?;
        if books.iter().any(|book| !book.absorbed.is_empty()) {
            // Its parts are being put together.
            return Ok(());
        }
        if !books.iter().any(|book| book.taken.contains_key(&record.name)) {
            let found = self.host.get(&CONFIG_MAPS, Some(&self.namespace), &record.name).await?;
            let Some(Ok(found)) = found.map(|found| Record::of(&found)) else { return Ok(()) };
            if !found.is_sealed {
                return Ok(());
            }
            let last = books.pop();
            self.enter(&found, last).await?;
            record = found;
        }
        self.host.delete(&CONFIG_MAPS, Some(&self.namespace), &record.name, &record.uid, None).await?;
        Ok(())
    }

    /// Adds it to the last part, or to one after that.
    async fn enter(&self, record: &Record, last: Option<Book>) -> Result<()> {
        let mut book = last.unwrap_or_else(|| Book::new(record.hour.day(), 0, false));
        let own = record.rows.text().len();
        let has_next = book.part + 1 < MOST_PARTS;
        if has_next && (book.is_full || (!book.version.is_empty() && book.length() + own > MOST_BYTES)) {
            if !book.is_full {
                book.is_full = true;
                self.replace(&book.name, &book.object(&self.namespace, &book.rows.text())).await?;
            }
            book = Book::new(book.day, book.part + 1, book.is_by_day);
        }
        let rows = if book.is_by_day { record.rows.by_day() } else { record.rows.clone() };
        book.rows.merge(&rows);
        book.taken.insert(record.name.clone(), digest(&record.rows));
        let text = book.rows.fit(MOST_BYTES);
        let object = book.object(&self.namespace, &text);
        if book.version.is_empty() {
            self.host.create(&CONFIG_MAPS, Some(&self.namespace), ("", ""), &object).await?;
        } else {
            self.replace(&book.name, &object).await?;
        }
        Ok(())
    }

    /// All parts of one day's.
    async fn books(&self, day: Date) -> Result<Vec<Book>> {
        let mut books = Vec::new();
        for part in 0..MOST_PARTS {
            let name = Book::name(day, part);
            let Some(found) = self.host.get(&CONFIG_MAPS, Some(&self.namespace), &name).await? else { break };
            let unreadable = |why| Error::host(Kind::Invalid, format!("ConfigMap {name} is no book of usage: {why}"));
            books.push(Book::of(&found).map_err(unreadable)?);
        }
        Ok(books)
    }

    /// Books that are too old go; rows of old days become one a day, and its parts one, where they fit.
    pub(super) async fn tidy(&self, today: Date) -> Result<()> {
        let before = |days: i32| today.saturating_sub(days.days());
        let (oldest, by_hour) = (before(days(self.config.keep_days)), before(days(self.config.keep_hours_for_days)));
        let (mut token, mut found) = (String::new(), BTreeSet::new());
        let mut failed = Ok(());
        loop {
            let (objects, next) = self.page(kinds::BOOK, &token).await?;
            for book in objects.iter().filter_map(|object| Book::of(object).ok()) {
                if book.day < oldest {
                    failed = failed.and(self.remove(&book).await);
                } else if book.day < by_hour.min(before(NAMES)) {
                    found.insert(book.day);
                }
            }
            token = next;
            if token.is_empty() {
                break;
            }
        }
        for day in found {
            failed = failed.and(self.tidy_day(day).await);
        }
        failed
    }

    /// No process writes records of it any more.
    async fn tidy_day(&self, day: Date) -> Result<()> {
        let mut books = self.books(day).await?;
        if let Some(first) = books.first_mut().filter(|first| !first.absorbed.is_empty()) {
            return self.finish(first.clone()).await;
        }
        let is_tidy = |book: &Book| book.is_by_day && book.taken.is_empty() && books.len() == 1;
        if books.iter().all(is_tidy) || !self.has_no_record(day).await? {
            return Ok(());
        }
        let before = books.clone();
        for book in &mut books {
            (book.rows, book.is_by_day) = (book.rows.by_day(), true);
            book.taken.clear();
        }
        let mut all = Rows::default();
        books.iter().for_each(|book| all.merge(&book.rows));
        let text = all.text();
        if text.len() > MOST_BYTES {
            for (book, _) in books.iter().zip(&before).filter(|(book, before)| book != before) {
                self.replace(&book.name, &book.object(&self.namespace, &book.rows.text())).await?;
            }
            return Ok(());
        }
        let mut books = books.into_iter();
        let Some(mut first) = books.next() else { return Ok(()) };
        first.absorbed = books.map(|book| book.name).collect();
        first.is_full = false;
        let stored = self.replace(&first.name, &first.object(&self.namespace, &text)).await?;
        let unreadable = |why| Error::host(Kind::Protocol, format!("a book cannot be read again: {why}"));
        self.finish(Book::of(&stored).map_err(unreadable)?).await
    }

    /// Removes the parts that are in the first one.
    async fn finish(&self, mut first: Book) -> Result<()> {
        for name in &first.absorbed {
            if let Some(part) = self.host.get(&CONFIG_MAPS, Some(&self.namespace), name).await? {
                let uid = part["metadata"]["uid"].as_str().unwrap_or_default();
                self.host.delete(&CONFIG_MAPS, Some(&self.namespace), name, uid, None).await?;
            }
        }
        if !first.absorbed.is_empty() {
            first.absorbed.clear();
            self.replace(&first.name, &first.object(&self.namespace, &first.rows.text())).await?;
        }
        Ok(())
    }

    async fn remove(&self, book: &Book) -> Result<()> {
        self.host.delete(&CONFIG_MAPS, Some(&self.namespace), &book.name, &book.uid, None).await.map(|_| ())
    }

    async fn has_no_record(&self, day: Date) -> Result<bool> {
        let selector = format!("{KIND}={},{DAY}={day}", kinds::RECORD);
        let (records, _) = self.select(selector, "", 1).await?;
        Ok(records.is_empty())
    }

    async fn page(&self, kind: &str, token: &str) -> Result<(Vec<Value>, String)> {
        self.select(format!("{KIND}={kind}"), token, PAGE).await
    }

    async fn select(&self, label_selector: String, token: &str, limit: usize) -> Result<(Vec<Value>, String)> {
        let options = ListOptions { label_selector, ..ListOptions::default() };
        let page = PageOf { token, limit, most: limit, bytes: LONGEST_PAGE };
        let page = self.host.page(&CONFIG_MAPS, Some(&self.namespace), &options, page).await?;
        let broken = |e| Error::host(Kind::Protocol, "a ConfigMap cannot be read").because(e);
        let objects = page.items.iter().map(|item| serde_json::from_slice(item).map_err(broken));
        Ok((objects.collect::<Result<_>>()?, page.token))
    }

    async fn replace(&self, name: &str, object: &Value) -> Result<Value> {
        self.host.replace(&CONFIG_MAPS, Some(&self.namespace), name, object).await
    }

    fn today(&self) -> Date {
        self.clock.now().to_zoned(TimeZone::UTC).date()
    }
}

fn days(days: u32) -> i32 {
    i32::try_from(days).unwrap_or(i32::MAX)
}
