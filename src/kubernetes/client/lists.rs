//! Lists and watches of the client: a whole list, one page of it as it came, a watch.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{ApiClient, DEADLINE};
use crate::error::{Error, Kind, Result};
use crate::kubernetes::resource::{ListOptions, Query, Resource};
use crate::kubernetes::watch::WatchStream;
use crate::upstream::Class;

/// client-go's page size.
const PAGE: usize = 500;
/// Long enough to be cheap, short enough that a lost end of a watch is found.
const WATCH_SECONDS: u64 = 450;
const WATCH_GRACE: Duration = Duration::from_secs(30);
/// A list of metadata alone. Whoever reads it must be content with whole objects, from servers that know no such form.
const METADATA: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json";

/// Which page of a list, and how much of it is read.
#[derive(Debug, Clone, Copy)]
pub struct PageOf<'a> {
    /// Of the page before; empty for the first.
    pub token: &'a str,
    /// Objects that are asked for; 0: all that there are.
    pub limit: usize,
    /// Objects that are taken; a server that sends more than that breaks the protocol.
    pub most: usize,
    /// Longest answer; a longer one is [`Kind::TooLarge`].
    pub bytes: usize,
}

/// One page of a list: objects as they came, which may carry neither apiVersion nor kind.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The objects.
    pub items: Vec<Bytes>,
    /// The list's resourceVersion.
    pub version: String,
    /// Of the next page; empty after the last.
    pub token: String,
}

impl ApiClient {
    /// A whole list, page by page (500 each), as items complete with apiVersion and kind, and the list's resourceVersion.
    pub async fn list(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<(Vec<Value>, String)> {
        let path = resource.path(namespace, None, None);
        let mut items = Vec::new();
        let mut token = String::new();
        let mut paged = true;
        loop {
            let mut query = Query::of(options);
            if paged {
                query.add("limit", &PAGE.to_string());
                query.add("continue", &token);
            }
            let page = match self.get_path(&query.on(&path), DEADLINE).await {
                Ok(bytes) => self.parse::<Parsed>(&bytes)?,
                // The continue token expired under a slow reader: begin again, whole, as client-go does.
                Err(error) if error.kind() == Kind::Gone && !token.is_empty() => {
                    items.clear();
                    paged = false;
                    token.clear();
                    continue;
                }
                Err(error) => return Err(error),
            };
            items.extend(page.items.into_iter().flatten().map(|item| resource.complete(item)));
            token = page.metadata.token;
            if token.is_empty() {
                return Ok((items, page.metadata.resource_version));
            }
        }
    }

    /// One page of a list.
    pub async fn page(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        options: &ListOptions,
        page: PageOf<'_>,
    ) -> Result<Page> {
        let mut query = Query::of(options);
        if page.limit > 0 {
            query.add("limit", &page.limit.to_string());
            query.add("continue", page.token);
        }
        let path = query.on(&resource.path(namespace, None, None));
        let bytes = if options.only_metadata {
            self.get_as(&path, METADATA, DEADLINE, page.bytes).await?
        } else {
            self.get_bounded(&path, DEADLINE, page.bytes).await?
        };
        let broken = |what: &str| Error::new(self.side(), Kind::Protocol, what.to_owned());
        let read = Raw::read(&bytes, page.most).map_err(|e| broken("a list cannot be read").because(e))?;
        if read.is_cut {
            return Err(broken("a list has more objects than it may have"));
        }
        let items = read.items.iter().map(|item| bytes.slice_ref(item.get().as_bytes())).collect();
        Ok(Page { items, version: read.metadata.resource_version, token: read.metadata.token })
    }

    /// A watch from `resource_version`, bookmarks on, server-side timeout ~ 5 to 10 minutes (jittered).
    pub async fn watch(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        options: &ListOptions,
        resource_version: &str,
    ) -> Result<WatchStream> {
        let mut query = Query::of(options);
        query.add("resourceVersion", resource_version);
        self.start_watch(&resource.path(namespace, None, None), query).await
    }

    /// A watch that begins with the whole list (`sendInitialEvents`): Applied events, then a Bookmark with
    /// `initial_events_end`. `Err` of kind Invalid (422) when the server does not know it: then list and watch.
    pub async fn watch_list(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<WatchStream> {
        let mut query = Query::of(options);
        query.add("sendInitialEvents", "true");
        query.add("resourceVersionMatch", "NotOlderThan");
        self.start_watch(&resource.path(namespace, None, None), query).await
    }

    async fn start_watch(&self, path: &str, mut query: Query) -> Result<WatchStream> {
        let jittered = self.clock.jitter(Duration::from_secs(WATCH_SECONDS)).as_secs();
        query.add("watch", "true");
        query.add("allowWatchBookmarks", "true");
        query.add("timeoutSeconds", &jittered.to_string());
        let request = self.request(Method::GET, &query.on(path), "", Bytes::new())?;
        let response = self.send(Class::Watch, request, DEADLINE).await?;
        if !response.status().is_success() {
            return Err(self.within(DEADLINE, self.refusal(response)).await?);
        }
        let idle = Duration::from_secs(jittered) + WATCH_GRACE;
        Ok(WatchStream::new(response.into_body(), self.side(), idle))
    }
}

#[derive(Deserialize)]
struct Parsed {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(default)]
    items: Option<Vec<Value>>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct PageMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    token: String,
}

/// A page whose objects are found but not parsed, up to a bound.
#[derive(Default)]
struct Raw<'a> {
    metadata: PageMeta,
    items: Vec<&'a RawValue>,
    is_cut: bool,
}

impl<'a> Raw<'a> {
    fn read(json: &'a [u8], most: usize) -> serde_json::Result<Self> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let mut page = Self::default();
        reader.deserialize_map(Fields { page: &mut page, most })?;
        reader.end()?;
        Ok(page)
    }
}

struct Fields<'p, 'a> {
    page: &'p mut Raw<'a>,
    most: usize,
}

impl<'a> Visitor<'a> for Fields<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'a, str>>()? {
            match key.as_ref() {
                "metadata" => self.page.metadata = map.next_value()?,
                "items" => map.next_value_seed(Items { page: self.page, most: self.most })?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

struct Items<'p, 'a> {
    page: &'p mut Raw<'a>,
    most: usize,
}

impl<'a> DeserializeSeed<'a> for Items<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Items<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list or null")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<(), A::Error> {
        while self.page.items.len() < self.most {
            match list.next_element()? {
                Some(item) => self.page.items.push(item),
                None => return Ok(()),
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {
            self.page.is_cut = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_keeps_its_objects_as_they_came_up_to_a_bound() {
        let json =
            br#"{"kind":"PodList","items":[{"a": 1},{"b":[2]},{}],"metadata":{"resourceVersion":"7","continue":"t"}}"#;
        let page = Raw::read(json, 3).expect("read");
        assert_eq!(page.items.iter().map(|item| item.get()).collect::<Vec<_>>(), [r#"{"a": 1}"#, r#"{"b":[2]}"#, "{}"]);
        assert_eq!((page.metadata.resource_version.as_str(), page.metadata.token.as_str()), ("7", "t"));
        assert!(!page.is_cut);
        let cut = Raw::read(json, 2).expect("read");
        assert!(cut.is_cut && cut.items.len() == 2);
        assert!(Raw::read(br#"{"items":null,"metadata":{}}"#, 1).expect("read").items.is_empty());
        for broken in [&b"[]"[..], b"{\"items\":7}", b"{\"items\":[", b"{}{}"] {
            assert!(Raw::read(broken, 1).is_err());
        }
    }

    #[test]
    fn any_page_is_survived_and_none_is_longer_than_it_may_be() {
        crate::runtime::fuzz::bytes("list", &[], |input| {
            let page = Raw::read(input, 2).ok()?;
            assert!(page.items.len() <= 2);
            assert!(page.items.iter().all(|item| serde_json::from_str::<IgnoredAny>(item.get()).is_ok()));
            Some((page.items.len(), page.is_cut, page.metadata.token.is_empty()))
        });
    }
}
