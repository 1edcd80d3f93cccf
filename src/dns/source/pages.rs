//! A list page by page, for API servers that cannot stream it.

use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::dns::project::Bounded;
use crate::error::{Error, Kind, Result};
use crate::kubernetes::{ApiClient, Resource};

/// Objects of a page. Half a megabyte, if they are as most are.
const PAGE: usize = 100;
/// Objects of a page after one was too large: at etcd's limit of 1.5 MiB each they fit.
const SMALL_PAGE: usize = 5;
/// Bytes of a page.
const LARGEST_PAGE: usize = 16 << 20;
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(default)]
    metadata: PageMetadata,
    #[serde(default, borrow)]
    items: Items<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct PageMetadata {
    resource_version: String,
    #[serde(rename = "continue")]
    token: String,
}

#[derive(Default, Deserialize)]
#[serde(transparent)]
struct Items<'a>(#[serde(borrow)] Bounded<&'a RawValue, PAGE>);

/// A list under way.
#[derive(Debug)]
pub(super) struct Pages {
    path: String,
    limit: usize,
    /// Of the next page; none when there is none.
    token: Option<String>,
    version: String,
}

impl Pages {
    /// All objects of a kind.
    pub(super) fn of(resource: &Resource) -> Self {
        Self { path: resource.path(None, None, None), limit: PAGE, token: Some(String::new()), version: String::new() }
    }

    /// The objects of the next page; none after the last.
    pub(super) async fn next(&mut self, api: &ApiClient) -> Result<Option<Vec<Bytes>>> {
        let Some(token) = &self.token else { return Ok(None) };
        let bytes = loop {
            let mut asked = format!("{}?limit={}", self.path, self.limit);
            if !token.is_empty() {
                asked.push_str("&continue=");
                asked.extend(utf8_percent_encode(token, NON_ALPHANUMERIC));
            }
            match api.get_bounded(&asked, DEADLINE, LARGEST_PAGE).await {
                Err(error) if error.kind() == Kind::TooLarge && self.limit > SMALL_PAGE => self.limit = SMALL_PAGE,
                outcome => break outcome?,
            }
        };
        let broken = |what: &str| Error::new(api.side(), Kind::Protocol, what.to_owned());
        let Page { metadata, items: Items(items) } =
            serde_json::from_slice(&bytes).map_err(|e| broken("a list cannot be read").because(e))?;
        if items.is_cut {
            return Err(broken("a page of a list has more objects than were asked for"));
        }
        let objects = items.items.iter().map(|item| bytes.slice_ref(item.get().as_bytes())).collect();
        self.token = Some(metadata.token).filter(|token| !token.is_empty());
        self.version = metadata.resource_version;
        Ok(Some(objects))
    }

    /// From which a watch goes on.
    pub(super) fn into_version(self) -> String {
        self.version
    }
}
