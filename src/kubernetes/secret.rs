//! A Secret as read from an API server: its values decoded, an error that names it when one is missing.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::error::{Error, Kind, Result};
use crate::kubernetes::api::Cluster;
use crate::kubernetes::resources::SECRETS;

/// The `data` of a Secret as text; values that are no text are left out.
pub fn decoded(data: &Value) -> BTreeMap<String, String> {
    let entries = data.as_object().into_iter().flatten();
    entries
        .filter_map(|(key, value)| {
            let bytes = STANDARD.decode(value.as_str()?).ok()?;
            Some((key.clone(), String::from_utf8(bytes).ok()?))
        })
        .collect()
}

/// Text as the `data` of a Secret.
pub fn encoded(data: &BTreeMap<String, String>) -> Value {
    data.iter().map(|(key, value)| (key.clone(), Value::String(STANDARD.encode(value)))).collect::<Map<_, _>>().into()
}

/// A Secret. Its values reach no log: there is no `Debug`.
pub struct Secret {
    name: String,
    object: Value,
}

impl Secret {
    /// Reads it; one that does not exist is of kind Unavailable, since somebody is about to write it.
    pub async fn read(api: &dyn Cluster, namespace: &str, name: &str) -> Result<Self> {
        let object = api
            .get(&SECRETS, Some(namespace), name)
            .await?
            .ok_or_else(|| Error::own(Kind::Unavailable, format!("Secret {name:?} does not exist")))?;
        Ok(Self::new(name, object))
    }

    /// Of an object that was read otherwise.
    pub fn new(name: &str, object: Value) -> Self {
        Self { name: name.to_owned(), object }
    }

    /// `metadata.resourceVersion`, or empty.
    pub fn version(&self) -> &str {
        self.object["metadata"]["resourceVersion"].as_str().unwrap_or_default()
    }

    /// The whole of `data`, encoded.
    pub fn data(&self) -> &Value {
        &self.object["data"]
    }

    /// One value.
    pub fn bytes(&self, key: &str) -> Result<Vec<u8>> {
        let text = self.object["data"][key].as_str().ok_or_else(|| self.lacks(key))?;
        STANDARD.decode(text).map_err(|e| self.lacks(key).because(e))
    }

    /// One value that must be text.
    pub fn text(&self, key: &str) -> Result<String> {
        String::from_utf8(self.bytes(key)?).map_err(|e| self.lacks(key).because(e))
    }

    fn lacks(&self, key: &str) -> Error {
        Error::own(Kind::Unavailable, format!("Secret {:?} has no usable key {key:?}", self.name))
    }
}
