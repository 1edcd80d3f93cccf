//! The server's calls.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::future::BoxFuture;
use portico::error::{Kind, Result};
use portico::kubernetes::api::{Cluster, Events, Listing};
use portico::kubernetes::{ListOptions, Page, PageOf, PatchKind, Resource, WatchEvent};
use serde_json::{Value, json};

use super::stream::{Stream, applied};
use super::{Server, State, field, key};

/// RFC 7386.
/// What every TokenRequest is answered with.
pub const TOKEN: &str = "planted-account-token";

fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let map = target.as_object_mut().expect("object");
    for (field, value) in patch {
        if value.is_null() {
            map.remove(field);
        } else {
            merge(map.entry(field.clone()).or_insert(Value::Null), value);
        }
    }
}

impl Server {
    fn listing(&self, resource: &Resource, namespace: Option<&str>, options: &ListOptions) -> (Vec<Value>, u64) {
        let mut state = self.state.lock();
        state.lists.push((resource.plural.to_owned(), options.label_selector.clone()));
        state.counts.lists += 1;
        let hides = self.faults.hides(self.side);
        let items =
            state.objects.iter().filter(|(k, o)| !hides && State::matches(k, o, resource.plural, namespace, options));
        (items.map(|(_, o)| o.clone()).collect(), state.version)
    }
}

impl Cluster for Server {
    fn get<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Value>>> {
        Box::pin(async move {
            self.up().await?;
            match self.right(resource, namespace) {
                // An object of a kind that is not served is as absent as any.
                Err(error) if error.kind() == Kind::NotFound => return Ok(None),
                outcome => outcome?,
            }
            self.state.lock().counts.gets += 1;
            self.hanging(namespace).await;
            self.faults.before(self.side, false).await?;
            let found = self.state.lock().objects.get(&key(resource, namespace, name)).cloned();
            self.faults.after(self.side).await?;
            Ok(found)
        })
    }

    fn read_path<'a>(&'a self, path: &'a str, _most: usize) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            self.up().await?;
            self.faults.before(self.side, false).await?;
            let said = self.state.lock().said.get(path).map(|said| Bytes::from(said.to_string()));
            self.faults.after(self.side).await?;
            said.map_or_else(|| self.fail(Kind::NotFound, "there is nothing at this path"), Ok)
        })
    }

    fn list<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        options: &'a ListOptions,
    ) -> BoxFuture<'a, Result<Listing>> {
        Box::pin(async move {
            self.up().await?;
            self.right(resource, namespace)?;
            self.faults.before(self.side, false).await?;
            self.faults.read_right(self.side)?;
            let (items, version) = self.listing(resource, namespace, options);
            self.faults.after(self.side).await?;
            Ok((items, version.to_string()))
        })
    }

    fn page<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        options: &'a ListOptions,
        page: PageOf<'a>,
    ) -> BoxFuture<'a, Result<Page>> {
        Box::pin(async move {
            self.up().await?;
            self.right(resource, namespace)?;
            self.faults.before(self.side, false).await?;
            self.faults.read_right(self.side)?;
            self.state.lock().counts.pages += 1;
            let takes = self.state.lock().orders.page_takes;
            if !takes.is_zero() {
                tokio::time::sleep(takes).await;
            }
            let (version, begin): (u64, usize) = match page.token.split_once('/') {
                Some((version, begin)) => (version.parse().unwrap_or(0), begin.parse().unwrap_or(0)),
                None => {
                    let (items, version) = self.listing(resource, namespace, options);
                    self.state.lock().paged = (version, items);
                    (version, 0)
                }
            };
            let cut = {
                let state = self.state.lock();
                let (of, items) = &state.paged;
                if *of != version {
                    return self.fail(Kind::Gone, "the token is too old");
                }
                let limit = if page.limit == 0 { usize::MAX } else { page.limit };
                let limit = if page.limit == 0 { limit } else { limit.min(state.orders.page.unwrap_or(usize::MAX)) };
                let end = begin.saturating_add(limit).min(items.len());
                let shown = |object: &Value| match options.only_metadata {
                    true => json!({"metadata": object["metadata"]}).to_string().into(),
                    false => serde_json::to_vec(object).expect("json").into(),
                };
                let bytes = items[begin..end].iter().map(shown).collect();
                let token = if end < items.len() { format!("{version}/{end}") } else { String::new() };
                Page { items: bytes, version: version.to_string(), token }
            };
            if page.token.is_empty() && self.faults.strikes(50) {
                self.expire_tokens();
            }
            self.faults.after(self.side).await?;
            Ok(cut)
        })
    }

    fn watch<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        options: &'a ListOptions,
        from: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Box<dyn Events>>> {
        Box::pin(async move {
            self.up().await?;
            self.right(resource, namespace)?;
            self.faults.before(self.side, false).await?;
            self.faults.read_right(self.side)?;
            if from.is_none() && (self.state.lock().orders.no_streams || self.faults.strikes(100)) {
                return self.fail(Kind::Invalid, "sendInitialEvents is not known here");
            }
            let mut initial = VecDeque::new();
            let (position, life, cut) = {
                let mut state = self.state.lock();
                state.counts.watches += 1;
                let position = match from {
                    Some(from) => from.parse().unwrap_or(0),
                    None => {
                        state.counts.lists += 1;
                        for (key, object) in &state.objects {
                            if !self.faults.hides(self.side)
                                && State::matches(key, object, resource.plural, namespace, options)
                            {
                                initial.push_back(applied(object));
                            }
                        }
                        let resource_version = state.version.to_string();
                        initial.push_back(WatchEvent::Bookmark { resource_version, initial_events_end: true });
                        state.version
                    }
                };
                if position < state.compacted {
                    return self.fail(Kind::Gone, "too old");
                }
                (position, state.life, state.cut)
            };
            Ok(Box::new(Stream {
                moved: self.moved.subscribe(),
                server: self.clone(),
                plural: resource.plural,
                namespace: namespace.map(str::to_owned),
                options: options.clone(),
                position,
                life,
                cut,
                ready: initial,
            }) as Box<dyn Events>)
        })
    }

    fn create<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        (name, subresource): (&'a str, &'a str),
        object: &'a Value,
    ) -> BoxFuture<'a, Result<Value>> {
        Box::pin(async move {
            self.up().await?;
            self.right(resource, namespace)?;
            self.faults.before(self.side, true).await?;
            if resource.plural == "selfsubjectaccessreviews" {
                let asked = object["spec"]["resourceAttributes"]["namespace"].as_str();
                let plural = object["spec"]["resourceAttributes"]["resource"].as_str().unwrap_or_default();
                let is_allowed = self.allows(asked, plural);
                return Ok(json!({"status": {"allowed": is_allowed}}));
            }
            let made = self.write(resource.plural, |state| match subresource {
                "token" => Ok(json!({"status": {"token": TOKEN, "expirationTimestamp": "2026-01-01T01:00:00Z"}})),
                "binding" => {
                    let key = key(resource, namespace, name);
                    let Some(mut pod) = state.objects.get(&key).cloned() else {
                        return self.fail(Kind::NotFound, "no such pod");
                    };
                    if pod["metadata"]["uid"] != object["metadata"]["uid"] || !pod["spec"]["nodeName"].is_null() {
                        return self.fail(Kind::Conflict, "bound already or another pod");
                    }
                    pod["spec"]["nodeName"] = object["target"]["name"].clone();
                    Ok(state.put(key, pod))
                }
                _ => {
                    let key = key(resource, namespace, &field(object, "name"));
                    if state.objects.contains_key(&key) {
                        return self.fail(Kind::AlreadyExists, "exists");
                    }
                    if resource.plural == "services"
                        && let Some(why) = state.refuses_address(&key, object)
                    {
                        return self.fail(Kind::Invalid, &why);
                    }
                    Ok(state.put(key, object.clone()))
                }
            })?;
            self.faults.after(self.side).await?;
            Ok(made)
        })
    }

    fn try_create<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        object: &'a Value,
    ) -> BoxFuture<'a, Result<Value>> {
        Box::pin(async move {
            self.up().await?;
            self.right(resource, namespace)?;
            self.faults.before(self.side, false).await?;
            if resource.plural != "services" {
                return self.fail(Kind::Invalid, "nothing is known of this kind");
            }
            // Since 1.33 nothing is said of who has it.
            match self.state.lock().refuses_address(&key(resource, namespace, ""), object) {
                Some(why) if why.contains("range") => self.fail(Kind::Invalid, &why),
                _ => Ok(object.clone()),
            }
        })
    }

    fn replace<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        name: &'a str,
        object: &'a Value,
    ) -> BoxFuture<'a, Result<Value>> {
        Box::pin(async move {
            self.up().await?;
            self.right(resource, namespace)?;
            self.faults.before(self.side, true).await?;
            let put = self.write(resource.plural, |state| {
                let key = key(resource, namespace, name);
                let Some(known) = state.objects.get(&key) else { return self.fail(Kind::NotFound, "gone") };
                let (known, wanted) = (&known["metadata"], &object["metadata"]);
                let is_that = |field: &str| wanted[field].is_null() || wanted[field] == known[field];
                if !is_that("resourceVersion") || !is_that("uid") {
                    return self.fail(Kind::Conflict, "another version");
                }
                Ok(state.put(key, object.clone()))
            })?;
            self.faults.after(self.side).await?;
            Ok(put)
        })
    }

    fn apply<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        name: &'a str,
        object: &'a Value,
    ) -> BoxFuture<'a, Result<Value>> {
        Box::pin(async move {
            self.up().await?;
            self.right(resource, namespace)?;
            self.faults.before(self.side, true).await?;
            let applied = self.write(resource.plural, |state| {
                let key = key(resource, namespace, name);
                let known = state.objects.get(&key);
                let wanted = &object["metadata"]["uid"];
                if !wanted.is_null() && known.is_none_or(|k| k["metadata"]["uid"] != *wanted) {
                    return self.fail(Kind::Conflict, "uid");
                }
                let mut object = object.clone();
                if let Some(known) = known {
                    for kept in ["status"] {
                        if object[kept].is_null() && !known[kept].is_null() {
                            object[kept] = known[kept].clone();
                        }
                    }
                    let same = |o: &Value| {
                        let mut o = o.clone();
                        for own in ["uid", "resourceVersion", "generation", "name", "namespace"] {
                            o["metadata"].as_object_mut().expect("metadata").remove(own);
                        }
                        o
                    };
                    if same(&object) == same(known) {
                        return Ok(known.clone());
                    }
                }
                Ok(state.put(key, object))
            })?;
            self.faults.after(self.side).await?;
            Ok(applied)
        })
    }

    fn patch<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        (name, subresource): (&'a str, &'a str),
        _kind: PatchKind,
        patch: &'a Value,
    ) -> BoxFuture<'a, Result<Value>> {
        Box::pin(async move {
            self.up().await?;
            self.right(resource, namespace)?;
            self.faults.before(self.side, true).await?;
            let patched = self.write(resource.plural, |state| {
                let key = key(resource, namespace, name);
                let Some(mut object) = state.objects.get(&key).cloned() else {
                    return self.fail(Kind::NotFound, "gone");
                };
                let wanted = &patch["metadata"]["uid"];
                if !wanted.is_null() && object["metadata"]["uid"] != *wanted {
                    return self.fail(Kind::Conflict, "uid");
                }
                let version = &patch["metadata"]["resourceVersion"];
                if !version.is_null() && object["metadata"]["resourceVersion"] != *version {
                    return self.fail(Kind::Conflict, "another version");
                }
                match subresource {
                    "" => merge(&mut object, patch),
                    part => merge(&mut object[part], &patch[part]),
                }
                Ok(state.put(key, object))
            })?;
            self.faults.after(self.side).await?;
            Ok(patched)
        })
    }

    fn delete<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: Option<&'a str>,
        name: &'a str,
        uid: &'a str,
        grace: Option<u64>,
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            self.up().await?;
            self.right(resource, namespace)?;
            self.faults.before(self.side, true).await?;
            let done = self.write(resource.plural, |state| {
                let key = key(resource, namespace, name);
                let fits = state.objects.get(&key).is_some_and(|o| uid.is_empty() || field(o, "uid") == uid);
                if fits {
                    state.delete(&key, grace);
                }
                Ok(fits)
            })?;
            self.faults.after(self.side).await?;
            Ok(done)
        })
    }
}
