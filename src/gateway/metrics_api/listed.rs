//! Pods and nodes as the tenant's API server shows them, to Portico itself.
//!
//! Promises: of the objects, which a tenant makes as large and as many as it likes, one page is held at a time, drawn on the tenant's
//! budget before it is asked for, and names, labels and containers' names are all that is read of it; a list ends. What is too
//! large to be read ever is left out, and its neighbours are not; what cannot be read at the moment is an error, never left out.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{Error, Kind, Result, Side};
use crate::gateway::aggregator::{Asked, DEADLINE};
use crate::gateway::buffer::{Drawn, Share};
use crate::kubernetes::{ListOptions, Page, PageOf, Resource, listed_path};
use crate::runtime::yielding;

/// What an API server has at hand is sent at once: so much of it is read.
const AT_HAND: PageOf<'_> = PageOf { token: "", limit: 0, most: MOST, bytes: PAGE_BYTES };
/// Objects of a page, where there is more; and of those that are too large.
const PAGES: [usize; 3] = [200, 10, 1];
const PAGE_BYTES: usize = 2 << 20;
/// Objects of a list, and what is said of all of them.
const MOST: usize = 10_000;
pub(super) const LONGEST_ANSWER: usize = 8 << 20;
/// As a table, without the objects.
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
/// What a part of an object takes, at most: names of one letter in a list.
const GROWS: usize = 16;
/// Reading so many bytes is as much work as making one record of DNS.
const BYTES_PER_WORK: usize = 128;

/// What is read of an object.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Shown<'a> {
    #[serde(borrow)]
    pub(super) metadata: Metadata<'a>,
    #[serde(borrow)]
    spec: Spec<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Metadata<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) namespace: Cow<'a, str>,
    /// As they are written.
    #[serde(borrow)]
    pub(super) labels: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(borrow)]
    containers: Option<Vec<Named<'a>>>,
    #[serde(borrow)]
    init_containers: Option<Vec<Named<'a>>>,
    #[serde(borrow)]
    ephemeral_containers: Option<Vec<Named<'a>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Table {
    metadata: TableMeta,
}

#[derive(Deserialize)]
struct TableMeta {
    #[serde(default, rename = "continue")]
    token: String,
}

impl Shown<'_> {
    /// Whether a pod has a container of this name here: the host's may have others.
    pub(super) fn has_container(&self, name: &str) -> bool {
        let Spec { containers, init_containers, ephemeral_containers } = &self.spec;
        [containers, init_containers, ephemeral_containers].into_iter().flatten().flatten().any(|one| one.name == name)
    }
}

/// Shows one object to `look`. Whether there is one.
pub(super) async fn one(
    asked: &Asked<'_>,
    kind: &Resource,
    namespace: Option<&str>,
    name: &str,
    mut look: impl FnMut(&Shown<'_>) -> Result<()>,
) -> Result<bool> {
    let _drawn = asked.state.buffers.draw(PAGE_BYTES)?;
    let path = kind.path(namespace, Some(name), None);
    match asked.tenant.api.get_bounded(&path, DEADLINE, PAGE_BYTES).await {
        Ok(object) => read(asked, &object, &mut look).map(|()| true),
        Err(error) if error.kind() == Kind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Shows each object to `look`.
pub(super) async fn each(
    asked: &Asked<'_>,
    kind: &Resource,
    namespace: Option<&str>,
    options: &ListOptions,
    mut look: impl FnMut(&Shown<'_>) -> Result<()>,
) -> Result<()> {
    let _drawn = asked.state.buffers.draw(PAGE_BYTES)?;
    let at_hand = ListOptions { any_state: true, ..options.clone() };
    let mut page = match asked.tenant.api.page(kind, namespace, &at_hand, AT_HAND).await {
        Ok(page) => Some(page),
        // It is more than is read at once, in objects or bytes.
        Err(error) if matches!(error.kind(), Kind::TooLarge | Kind::Protocol) => None,
        Err(error) => return Err(error),
    };
    let (mut token, mut shown, mut size) = (String::new(), 0, 0);
    loop {
        let read = match page.take() {
            Some(page) => page,
            None => next_page(asked, kind, namespace, options, &token, &mut size).await?,
        };
        shown += read.items.len().max(1);
        if shown > MOST {
            return Err(too_much("there are more objects than are read: name a namespace"));
        }
        for item in &read.items {
            yielding::charge(item.len() / BYTES_PER_WORK).await;
            self::read(asked, item, &mut look)?;
        }
        token = read.token;
        if token.is_empty() {
            return Ok(());
        }
    }
}

/// As large as it may be: `size` shrinks where it is too large, and grows again behind. One object that is too large by itself is
/// left out.
async fn next_page(
    asked: &Asked<'_>,
    kind: &Resource,
    namespace: Option<&str>,
    options: &ListOptions,
    token: &str,
    size: &mut usize,
) -> Result<Page> {
    let api = &asked.tenant.api;
    while let Some(&count) = PAGES.get(*size) {
        let of = PageOf { token, limit: count, most: count, bytes: PAGE_BYTES };
        match api.page(kind, namespace, options, of).await {
            Ok(page) => {
                *size = size.saturating_sub(1);
                return Ok(page);
            }
            Err(error) if error.kind() == Kind::TooLarge => *size += 1,
            Err(error) => return Err(error),
        }
    }
    *size = PAGES.len() - 1;
    let continued = percent_encoding::utf8_percent_encode(token, percent_encoding::NON_ALPHANUMERIC);
    let path = listed_path(kind, namespace, options);
    let first = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{first}includeObject=None&limit=1&continue={continued}");
    let table = api.get_as(&path, TABLE, DEADLINE, PAGE_BYTES).await?;
    let table: Table = serde_json::from_slice(&table)
        .map_err(|e| Error::backend(Kind::Protocol, "a table of the cluster's API server cannot be read").because(e))?;
    tracing::debug!(tenant = %asked.tenant.id, kind = kind.plural, "an object is too large to be read");
    Ok(Page { token: table.metadata.token, ..Page::default() })
}

/// One that cannot be read is left out: its neighbours are not.
fn read(asked: &Asked<'_>, item: &[u8], look: &mut impl FnMut(&Shown<'_>) -> Result<()>) -> Result<()> {
    let Some(_drawn) = drawn(&asked.state.buffers, item)? else { return Ok(()) };
    match serde_json::from_slice::<Shown<'_>>(item) {
        Ok(object) => look(&object),
        Err(error) => {
            tracing::debug!(tenant = %asked.tenant.id, %error, "an object cannot be read");
            Ok(())
        }
    }
}

/// What taking an object apart takes; `None`: it is more than there ever is beside a page and an answer.
fn drawn(buffers: &Arc<Share>, item: &[u8]) -> Result<Option<Drawn>> {
    let bytes = item.len().saturating_mul(GROWS);
    let never = |error: &Error| error.kind() == Kind::TooLarge;
    match buffers.draw(bytes) {
        Ok(drawn) => Ok(Some(drawn)),
        Err(error) if never(&error) => Ok(None),
        Err(error) => match buffers.draw(bytes.saturating_add(PAGE_BYTES + LONGEST_ANSWER)) {
            Err(beside) if never(&beside) => Ok(None),
            _ => Err(error),
        },
    }
}

fn too_much(message: &str) -> Error {
    Error::new(Side::Client, Kind::TooLarge, message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::buffer::Budget;

    #[test]
    fn what_cannot_be_read_now_is_an_error_and_what_never_can_is_left_out() {
        let share = Share::of(Arc::new(Budget::new(64 << 20)), Arc::default());
        let code = |size: usize| match drawn(&share, &vec![b'x'; size]) {
            Ok(drawn) => drawn.map(|_| 200),
            Err(error) => Some(error.to_status().code),
        };
        assert_eq!((code(300 << 10), code(2 << 20)), (Some(200), None));
        let _held = share.draw(12 << 20).expect("free");
        assert_eq!(
            (code(100 << 10), code(300 << 10), code(900 << 10), code(2 << 20)),
            (Some(200), Some(429), None, None)
        );
    }

    #[test]
    fn an_object_is_read_whatever_it_lacks() {
        let pod =
            br#"{"kind":"Pod","metadata":{"name":"a","labels":{"k": "v"}},"spec":{"containers":[{"name":"m\u0061in"}],
            "initContainers":null,"ephemeralContainers":[{"image":"x"}]}}"#;
        let pod: Shown<'_> = serde_json::from_slice(pod).expect("a pod");
        assert!(pod.has_container("main") && !pod.has_container("istio-proxy"));
        assert_eq!((&*pod.metadata.name, pod.metadata.labels.expect("labels").get()), ("a", r#"{"k": "v"}"#));
        assert!(!serde_json::from_slice::<Shown<'_>>(b"{}").expect("nothing").has_container("main"));
        for broken in ["7", r#"{"metadata":7}"#, r#"{"spec":{"containers":{}}}"#] {
            assert!(serde_json::from_str::<Shown<'_>>(broken).is_err(), "{broken}");
        }
    }
}
