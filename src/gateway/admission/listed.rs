//! A tenant's admission rules, listed for one call.
//!
//! Promises: of the objects, which a tenant makes as large and as many as it likes, only one page is held at a time, drawn
//! on the tenant's budget, and only rules are kept of it. How long it takes is bounded by the caller.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::rules::{
    Binding, Configuration, MUTATING, MUTATING_POLICIES, Policy, PolicyKind, VALIDATING, VALIDATING_POLICIES,
};
use crate::error::{Error, Kind, Result, Side};
use crate::gateway::buffer::{self, Failure, Share};
use crate::kubernetes::{ApiClient, Resource};

/// Of one page.
const DEADLINE: Duration = Duration::from_secs(10);
/// Objects on a page: nearly always all of them, and one that is as large as etcd takes it when it must be.
const PAGES: [usize; 3] = [100, 10, 1];
const LONGEST_PAGE: usize = 2 << 20;
/// Policies that cover one stream: more are refused like one that is bound.
const MOST_POLICIES: usize = 1000;

/// One API server, and what may be read of it.
#[derive(Clone, Copy)]
struct Reading<'a> {
    api: &'a ApiClient,
    buffers: &'a Arc<Share>,
}

#[derive(Debug, Deserialize)]
struct Page<T> {
    #[serde(default)]
    metadata: PageMeta,
    items: Option<Vec<T>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PageMeta {
    #[serde(rename = "continue")]
    token: String,
}

/// Who judges this stream, in words.
pub(super) async fn judge(api: &ApiClient, buffers: &Arc<Share>, subresource: &str) -> Result<Option<String>> {
    let reading = Reading { api, buffers };
    let (validating, mutating, validating_policy, mutating_policy) = futures::future::try_join4(
        Box::pin(webhook(reading, &VALIDATING, subresource)),
        Box::pin(webhook(reading, &MUTATING, subresource)),
        Box::pin(policy(reading, &VALIDATING_POLICIES, subresource)),
        Box::pin(policy(reading, &MUTATING_POLICIES, subresource)),
    )
    .await?;
    Ok(validating.or(mutating).or(validating_policy).or(mutating_policy))
}

async fn webhook(reading: Reading<'_>, resource: &Resource, subresource: &str) -> Result<Option<String>> {
    let mut found = None;
    each_page(reading, resource, |configurations: Vec<Configuration>| {
        found = configurations.iter().find_map(|configuration| configuration.covering(subresource).map(str::to_owned));
        found.is_none()
    })
    .await?;
    Ok(found.map(|name| format!("the admission webhook \"{name}\"")))
}

/// A policy acts only where it is bound.
async fn policy(reading: Reading<'_>, of: &PolicyKind, subresource: &str) -> Result<Option<String>> {
    let mut covering = HashSet::new();
    each_page_as_served(reading, &of.policies, |policies: Vec<Policy>| {
        covering.extend(policies.into_iter().filter(|p| p.covers(subresource)).map(|p| p.metadata.name));
        covering.len() <= MOST_POLICIES
    })
    .await?;
    if covering.len() > MOST_POLICIES {
        return Ok(Some(format!("one of more than {MOST_POLICIES} objects of kind {}", of.kind)));
    }
    if covering.is_empty() {
        return Ok(None);
    }
    let mut found = None;
    each_page_as_served(reading, &of.bindings, |bindings: Vec<Binding>| {
        found = bindings.into_iter().map(|binding| binding.spec.policy_name).find(|name| covering.contains(name));
        found.is_none()
    })
    .await?;
    Ok(found.map(|name| format!("the {} \"{name}\"", of.kind)))
}

/// The same in the first of these versions that is served.
async fn each_page_as_served<T>(
    reading: Reading<'_>,
    versions: &[Resource],
    mut look: impl FnMut(Vec<T>) -> bool,
) -> Result<()>
where
    T: DeserializeOwned,
{
    for resource in versions {
        if each_page(reading, resource, &mut look).await? {
            break;
        }
    }
    Ok(())
}

/// Shows every page of a list to `look` until that says false. A page that is too long is asked for anew, shorter. Whether
/// the kind is served in this version.
async fn each_page<T>(reading: Reading<'_>, resource: &Resource, mut look: impl FnMut(Vec<T>) -> bool) -> Result<bool>
where
    T: DeserializeOwned,
{
    let (mut token, mut limits) = (String::new(), PAGES.iter());
    let mut limit = limits.next();
    while let Some(count) = limit {
        let bytes = match read_page(reading, resource, *count, &token).await {
            Ok(Some(bytes)) => bytes,
            // An API server that does not serve the kind has none of it.
            Ok(None) => return Ok(false),
            Err(Failure::TooLong(_)) => {
                limit = limits.next();
                continue;
            }
            Err(failure) => return Err(failure.of(Side::Backend)),
        };
        let _drawn = reading.buffers.draw(buffer::weight(&bytes))?;
        let page: Page<T> = serde_json::from_slice(&bytes)
            .map_err(|e| Error::backend(Kind::Protocol, "the cluster's admission rules cannot be read").because(e))?;
        token = page.metadata.token;
        if !look(page.items.unwrap_or_default()) || token.is_empty() {
            return Ok(true);
        }
    }
    let message = "an admission rule of this cluster is too large to be read here; streams are refused rather than let \
                   past it";
    Err(Error::client(Kind::Forbidden, message))
}

/// `None`: there is no such kind.
async fn read_page(
    Reading { api, buffers }: Reading<'_>,
    resource: &Resource,
    limit: usize,
    token: &str,
) -> Result<Option<Bytes>, Failure> {
    let mut path = format!("{}?limit={limit}", resource.path(None, None, None));
    if !token.is_empty() {
        path.push_str("&continue=");
        path.extend(percent_encoding::utf8_percent_encode(token, percent_encoding::NON_ALPHANUMERIC));
    }
    match api.open(&path, DEADLINE).await {
        Ok(body) => buffer::read(body, LONGEST_PAGE, DEADLINE, buffers).await.map(Some),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(Failure::Full(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_page_is_read_whatever_it_lacks() {
        let exec =
            json!({"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec"]});
        let page: Page<Configuration> = serde_json::from_value(json!({"items": [
            {"webhooks": null}, {}, {"webhooks": [{"name": "w", "rules": null}, {"name": "v", "rules": [exec]}]}]}))
        .expect("a page");
        let found = page.items.expect("items").iter().find_map(|c| c.covering("exec").map(str::to_owned));
        assert_eq!(found.as_deref(), Some("v"));
        assert!(!Policy::default().covers("exec"));
    }
}
