//! Pods and nodes as the tenant's API server shows them, to Portico itself.
//!
//! Promises: of the objects, which a tenant makes as large and as many as it likes, one page is held at a time, drawn on the tenant's
//! budget before it is asked for, and names, labels and containers' names are all that is read of it; a list ends.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{Error, Kind, Result, Side};
use crate::gateway::aggregator::{Asked, DEADLINE};
use crate::kubernetes::{ListOptions, PageOf, Resource};
use crate::runtime::yielding;

/// What an API server has at hand is sent at once: so much of it is read.
const AT_HAND: PageOf<'_> = PageOf { token: "", limit: 0, most: MOST, bytes: PAGE_BYTES };
/// Objects of a page, where there is more; and of one that is too large.
const PAGES: [usize; 2] = [200, 10];
const PAGE_BYTES: usize = 2 << 20;
/// Objects of a list.
const MOST: usize = 10_000;
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

impl Shown<'_> {
    /// Whether a pod has a container of this name here: the host's may have others.
    pub(super) fn has_container(&self, name: &str) -> bool {
        let Spec { containers, init_containers, ephemeral_containers } = &self.spec;
        [containers, init_containers, ephemeral_containers].into_iter().flatten().flatten().any(|one| one.name == name)
    }
}

/// One object; `None`: there is none.
pub(super) async fn one(
    asked: &Asked<'_>,
    kind: &Resource,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<Bytes>> {
    let path = kind.path(namespace, Some(name), None);
    match asked.tenant.api.get_bounded(&path, DEADLINE, PAGE_BYTES).await {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
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
    let (api, buffers) = (&asked.tenant.api, &asked.state.buffers);
    let _drawn = buffers.draw(PAGE_BYTES)?;
    let at_hand = ListOptions { any_state: true, ..options.clone() };
    let mut page = match api.page(kind, namespace, &at_hand, AT_HAND).await {
        Ok(page) => Some(page),
        // It is more than is read at once, in objects or bytes.
        Err(error) if matches!(error.kind(), Kind::TooLarge | Kind::Protocol) => None,
        Err(error) => return Err(error),
    };
    let (mut token, mut shown, mut limits) = (String::new(), 0, PAGES.iter());
    let mut limit = limits.next();
    loop {
        let read = match (page.take(), limit) {
            (Some(page), _) => page,
            (None, None) => return Err(too_much("an object is too large to be read")),
            (None, Some(count)) => {
                let of = PageOf { token: &token, limit: *count, most: *count, bytes: PAGE_BYTES };
                match api.page(kind, namespace, options, of).await {
                    Ok(page) => page,
                    Err(error) if error.kind() == Kind::TooLarge => {
                        limit = limits.next();
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        shown += read.items.len();
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

/// One that cannot be read, or takes more than there is, is left out: its neighbours are not.
pub(super) fn read(asked: &Asked<'_>, item: &[u8], look: &mut impl FnMut(&Shown<'_>) -> Result<()>) -> Result<()> {
    let Ok(_drawn) = asked.state.buffers.draw(item.len().saturating_mul(GROWS)) else { return Ok(()) };
    match serde_json::from_slice::<Shown<'_>>(item) {
        Ok(object) => look(&object),
        Err(error) => {
            tracing::debug!(tenant = %asked.tenant.id, %error, "an object cannot be read");
            Ok(())
        }
    }
}

fn too_much(message: &str) -> Error {
    Error::new(Side::Client, Kind::TooLarge, message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

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
