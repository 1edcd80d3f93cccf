//! Images of containers: those that the host has under another name.

use serde_json::{Map, Value};

use super::super::{View, json};

/// The image that a container of the host runs.
pub fn image<'a>(of_tenant: &'a str, view: &'a View) -> &'a str {
    view.translate_images.get(of_tenant).map_or(of_tenant, String::as_str)
}

/// Those of all containers, replaced.
pub(super) fn translate(spec: &mut Map<String, Value>, view: &View) {
    for list in ["containers", "initContainers"] {
        json::each(spec, list, |container| json::rename(container, "image", |i| image(i, view).to_owned()));
    }
}
