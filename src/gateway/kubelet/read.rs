//! Figures of one kubelet, read and filtered.
//!
//! Promises: series pass line by line, and only what is shown of them is kept; a summary is read whole; both are drawn on the
//! tenant's budget and bounded. An answer that breaks off is an error, never a shorter one.

use bytes::Bytes;

use super::asked::{Asked, What};
use super::figures::Figures;
use super::series::Series;
use super::shown::Shown;
use super::summary;
use crate::config::NodeUsage;
use crate::error::{Error, Kind, Result};
use crate::exposition::Lines;
use crate::gateway::buffer::{self, Drawn, Failure, Written};
use crate::gateway::context::Context;
use crate::kubernetes::kubelets::KubeletAnswer;
use crate::runtime::yielding;

const TEXT: &str = "text/plain;version=0.0.4";
const JSON: &str = "application/json";
/// What a kubelet may say: five hundred pods have some fifty MB of series.
const LONGEST_SERIES: usize = 64 << 20;
const LONGEST_LINE: usize = 64 << 10;
const LONGEST_SUMMARY: usize = 16 << 20;
const LONGEST_HEALTH: usize = 64 << 10;
/// What one tenant is shown of it.
const LONGEST_SHOWN: usize = 16 << 20;
/// Bytes of series that are looked at for one unit of a turn: some ten microseconds.
const BYTES_PER_WORK: usize = 256;

/// Whether this tenant sees figures of whole nodes.
pub(super) fn shows_whole_node(context: &Context) -> bool {
    context.tenant.policy.node_usage() == NodeUsage::Real
}

/// Asks the kubelet.
pub(super) async fn figures(context: &Context, asked: &Asked) -> Result<Figures> {
    let (accept, longest) = match asked.what {
        What::Summary => (JSON, LONGEST_SUMMARY),
        What::Healthz => (TEXT, LONGEST_HEALTH),
        _ => (TEXT, LONGEST_SERIES),
    };
    let usage = context.usage();
    // First: what is new on the node is not shown for a moment, what went is not found under a name that is new.
    let placed = match asked.what {
        What::Healthz => None,
        _ => Some(usage.placed(&context.tenant.id).await?),
    };
    let answer = usage.kubelets().get(asked.node.as_str(), asked.what.path(), accept, longest).await?;
    let answer = answer.ok_or_else(|| Error::own(Kind::Unavailable, "the node is gone"))?;
    let Some(placed) = placed else { return health(answer) };
    let (node, whole_node) = (asked.node.as_str(), shows_whole_node(context));
    let shown = Shown::on(node, &context.tenant.id, &placed);
    let answer = answer.success()?;
    match asked.what {
        What::Summary => summarized(context, answer, node, &shown, whole_node).await.map(Figures::Json),
        _ => series(context, answer, Series::new(&shown, whole_node)).await.map(Figures::Text),
    }
}

/// The kubelet's word, not its words.
fn health(answer: KubeletAnswer) -> Result<Figures> {
    if answer.status().is_server_error() { Ok(Figures::Unwell) } else { answer.success().map(|_| Figures::Well) }
}

async fn series(context: &Context, mut answer: KubeletAnswer, mut series: Series<'_>) -> Result<Bytes> {
    let (mut lines, mut out) = (Lines::new(LONGEST_LINE), Vec::new());
    let mut written = Written::new(LONGEST_SHOWN, context.entry.buffers());
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
    context: &Context,
    mut answer: KubeletAnswer,
    node: &str,
    shown: &Shown<'_>,
    whole_node: bool,
) -> Result<Bytes> {
    let buffers = context.entry.buffers();
    let mut body = Written::new(LONGEST_SUMMARY, buffers);
    while let Some(piece) = answer.chunk().await? {
        body.add(&piece).map_err(failed)?;
    }
    drop(answer);
    let body = body.into_bytes();
    yielding::charge(body.len() / BYTES_PER_WORK).await;
    let (mut drawn, mut refusal): (Vec<Drawn>, Option<Error>) = (Vec::new(), None);
    let mut draw = |text: &[u8]| {
        // Taken apart, and what of it is shown.
        match buffers.draw(2 * buffer::weight(text)) {
            Ok(part) => drawn.push(part),
            Err(error) => refusal = Some(error),
        }
        refusal.is_none()
    };
    let summary = summary::shown(&body, node, shown, whole_node, &mut draw);
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    let unreadable = || Error::own(Kind::Unavailable, "the node's kubelet says something that is no summary");
    let text = serde_json::to_vec(&summary.ok_or_else(unreadable)?)
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
