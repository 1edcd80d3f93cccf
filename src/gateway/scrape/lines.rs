//! A tenant's lines, family by family, and how they are written. Pure.

use std::sync::Arc;

use super::catalog::{CLUSTER, NAMESPACE};
use crate::exposition::label;
use crate::names::TenantId;

/// A tenant's own two labels, written once.
#[derive(Debug, Clone)]
pub(super) struct Labelled(Arc<[u8]>);

/// Whole lines, and where each family ends in them.
#[derive(Debug, Default)]
pub(super) struct FamilyLines {
    pub(super) text: Vec<u8>,
    pub(super) ends: Vec<u32>,
}

impl Labelled {
    pub(super) fn new(id: &TenantId) -> Self {
        let mut text = Vec::new();
        label(&mut text, NAMESPACE, id.namespace().as_str());
        text.push(b',');
        label(&mut text, CLUSTER, id.name().as_str());
        Self(text.into())
    }
}

impl FamilyLines {
    /// What is added from now on is of the family in this place; those before it that were not begun have nothing.
    pub(super) fn begin(&mut self, family: usize) {
        let end = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        while self.ends.len() < family {
            self.ends.push(end);
        }
    }
}

/// Writes one sample of a tenant under the two parts of its name: its labels are the tenant's, those that are written already
/// (each behind a comma), and more.
pub(super) fn line(
    out: &mut Vec<u8>,
    name: (&str, &str),
    tenant: &Labelled,
    written: &[u8],
    more: &[(&str, &str)],
    value: f64,
) {
    for part in [name.0.as_bytes(), name.1.as_bytes(), b"{", tenant.0.as_ref(), written] {
        out.extend_from_slice(part);
    }
    for (name, value) in more {
        out.push(b',');
        label(out, name, value);
    }
    out.extend_from_slice(b"} ");
    number(out, value);
    out.push(b'\n');
}

/// Writes a number as Prometheus reads it; none takes more than some twenty bytes.
pub(super) fn number(out: &mut Vec<u8>, value: f64) {
    let size = value.abs();
    let text = match value {
        _ if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        _ if size != 0.0 && !(1e-5..1e16).contains(&size) => format!("{value:e}"),
        _ => value.to_string(),
    };
    out.extend_from_slice(text.as_bytes());
}
