//! Whether the caller may, as the tenant's API server would judge it: `get` on `nodes/proxy` of this node, and nobody in its
//! admission who wants to judge the CONNECT that it is.

use std::time::Duration;

use serde_json::json;

use crate::error::status::Status;
use crate::error::{Error, Kind, Result, Side};
use crate::gateway::admission;
use crate::gateway::context::Context;
use crate::gateway::review::{self, Refused};

/// Of one question to the tenant's API server.
pub(super) const DEADLINE: Duration = review::DEADLINE;

/// 403 unless both let it pass. The node is named as the path names it, port and all.
pub(super) async fn check(context: &Context) -> Result<()> {
    let attributes = json!({
        "verb": "get", "group": "", "version": "v1", "resource": "nodes", "subresource": "proxy", "name": context.info.name,
    });
    let late = |_| Error::backend(Kind::Timeout, "the cluster's API server did not authorize in time");
    let answer =
        tokio::time::timeout(DEADLINE, Box::pin(review::access(context, &attributes))).await.map_err(late)??;
    if !answer.allowed {
        let name = &context.info.name;
        let refused = Refused { verb: "get", resource: "nodes", subresource: "proxy", namespace: None, name };
        return Err(refused.error(context, &answer.reason).await);
    }
    let asked = admission::Asked {
        tenant: &context.tenant,
        account: context.entry.account(),
        buffers: context.entry.buffers(),
        clock: context.clock(),
        drain: context.drain(),
    };
    let judge = Box::pin(context.connection.gateway.tenants.admission.judge(asked, "proxy")).await?;
    let Some(judge) = judge else { return Ok(()) };
    let name = &context.info.name;
    let message = format!(
        "nodes \"{name}\" is forbidden: {judge} of this cluster judges CONNECT on nodes/proxy, and the gateway cannot ask \
         it; kubelets are refused rather than shown past it"
    );
    Err(Error::from_status(Side::Client, Status::failure(403, "Forbidden", message).about("", "nodes", name)))
}
