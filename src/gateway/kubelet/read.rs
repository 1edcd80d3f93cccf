//! Figures of one kubelet, read and filtered.
//!
//! Promises: series pass line by line, and only what is shown of them is kept; a summary is read whole; both are drawn on the
//! tenant's budget and bounded. An answer that breaks off is an error, never a shorter one. It is read though whoever asked has
//! left, and ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::allowance::OneEach;
use super::asked::{Asked, What};
use super::figures::Figures;
use super::series::Series;
use super::shown::Shown;
use super::summary;
use crate::config::NodeUsage;
use crate::error::{Error, Kind, Result};
use crate::exposition::Lines;
use crate::gateway::buffer::{self, Drawn, Failure, Share, Written};
use crate::gateway::context::Context;
use crate::kubernetes::kubelets::KubeletAnswer;
use crate::runtime::yielding;
use crate::tenant::Tenant;
use crate::usage::Usage;

const TEXT: &str = "text/plain;version=0.0.4";
const JSON: &str = "application/json";
/// What a kubelet may say: five hundred pods have some fifty MB of series.
const LONGEST_SERIES: usize = 64 << 20;
const LONGEST_LINE: usize = 64 << 10;
const LONGEST_SUMMARY: usize = 16 << 20;
const LONGEST_HEALTH: usize = 64 << 10;
/// What one tenant is shown of it.
const LONGEST_SHOWN: usize = 16 << 20;
/// Looking at so many bytes is as much work as making one record of DNS.
const BYTES_PER_WORK: usize = 256;
/// All of it: which pods there are, the kubelet's turn, and what it says.
const LONGEST: Duration = Duration::from_secs(30);

/// Whether this tenant sees figures of whole nodes.
pub(super) fn shows_whole_node(tenant: &Tenant) -> bool {
    tenant.policy.node_usage() == NodeUsage::Real
}

/// What is read, and for whom.
#[derive(Debug)]
pub(super) struct Reading {
    tenant: Arc<Tenant>,
    usage: Arc<Usage>,
    buffers: Arc<Share>,
    one_each: Arc<OneEach>,
    asked: Asked,
}

impl Reading {
    pub(super) fn new(context: &Context, asked: &Asked) -> Result<Self> {
        Ok(Self {
            tenant: Arc::clone(&context.tenant),
            usage: Arc::clone(context.usage()?),
            buffers: Arc::clone(context.entry.buffers()),
            one_each: Arc::clone(context.entry.kubelets().one_each()),
            asked: asked.clone(),
        })
    }

    /// Asks the kubelet.
    pub(super) async fn figures(self) -> Result<Figures> {
        let late = |_| Error::own(Kind::Unavailable, "the node's kubelet could not be read in time");
        tokio::time::timeout(LONGEST, self.asked()).await.map_err(late)?
    }

    async fn asked(&self) -> Result<Figures> {
        let Asked { node, what, .. } = &self.asked;
        let (accept, longest) = match what {
            What::Summary => (JSON, LONGEST_SUMMARY),
            What::Healthz => (TEXT, LONGEST_HEALTH),
            _ => (TEXT, LONGEST_SERIES),
        };
        let _seat = self.one_each.of(node).await?;
        // First: what is new on the node is not shown for a moment, what went is not found under a name that is new.
        let placed = match what {
            What::Healthz => None,
            _ => Some(self.usage.placed(&self.tenant.id, &self.tenant.uid).await?),
        };
        let answer = self.usage.kubelets().get(node.as_str(), what.path(), accept, longest).await?;
        let answer = answer.ok_or_else(|| Error::own(Kind::Unavailable, "the node is gone"))?;
        let Some(placed) = placed else { return health(answer) };
        let (node, whole_node) = (node.as_str(), shows_whole_node(&self.tenant));
        let shown = Shown::on(node, &self.tenant.id, &placed);
        let answer = answer.success()?;
        match what {
            What::Summary => summarized(&self.buffers, answer, node, &shown, whole_node).await.map(Figures::Json),
            _ => series(&self.buffers, answer, Series::new(&shown, whole_node)).await.map(Figures::Text),
        }
    }
}

/// The kubelet's word, not its words.
fn health(answer: KubeletAnswer) -> Result<Figures> {
    if answer.status().is_server_error() { Ok(Figures::Unwell) } else { answer.success().map(|_| Figures::Well) }
}

async fn series(buffers: &Arc<Share>, mut answer: KubeletAnswer, mut series: Series<'_>) -> Result<Bytes> {
    let (mut lines, mut out) = (Lines::new(LONGEST_LINE), Vec::new());
    let mut written = Written::new(LONGEST_SHOWN, buffers);
    while let Some(piece) = answer.chunk().await? {
        lines.push(&piece, |line| series.line(line, &mut out));
        written.add(&out).map_err(failed)?;
        out.clear();
        yielding::charge(piece.len() / BYTES_PER_WORK).await;
    }
    lines.finish(|line| series.line(line, &mut out));
    written.add(&out).map_err(failed)?;
    Ok(written.into_bytes())
}

async fn summarized(
    buffers: &Arc<Share>,
    mut answer: KubeletAnswer,
    node: &str,
    shown: &Shown<'_>,
    whole_node: bool,
) -> Result<Bytes> {
    let mut body = Written::new(LONGEST_SUMMARY, buffers);
    while let Some(piece) = answer.chunk().await? {
        body.add(&piece).map_err(failed)?;
    }
    drop(answer);
    let body = body.into_bytes();
    yielding::charge(body.len() / BYTES_PER_WORK).await;
    let unreadable = || Error::own(Kind::Unavailable, "the node's kubelet says something that is no summary");
    let parts = summary::parts(&body, shown, whole_node).ok_or_else(unreadable)?;
    // Taken apart, and what of it is shown.
    let draw = |text: &str| buffers.draw(2 * buffer::weight(text.as_bytes()));
    let mut drawn: Vec<Drawn> = parts.node.map(draw).transpose()?.into_iter().collect();
    let (of_node, mut pods) = (summary::of_node(node, parts.node), Vec::new());
    for (pod, text) in parts.pods {
        drawn.push(draw(text)?);
        pods.extend(summary::of_pod(pod, text));
        yielding::charge(text.len() / BYTES_PER_WORK).await;
    }
    let text = serde_json::to_vec(&json!({"node": of_node, "pods": pods}))
        .map_err(|e| Error::own(Kind::Internal, "a summary cannot be written").because(e))?;
    let mut written = Written::new(LONGEST_SHOWN, buffers);
    written.add(&text).map_err(failed)?;
    Ok(written.into_bytes())
}

fn failed(failure: Failure) -> Error {
    match failure {
        Failure::Full(error) => error,
        _ => Error::own(Kind::Unavailable, "the node's kubelet says more about this cluster's pods than can be shown"),
    }
}
