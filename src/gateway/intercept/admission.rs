//! Whether the backend's admission would judge this stream. Portico cannot offer a CONNECT to it, so it refuses what it
//! would otherwise let pass unjudged.

use super::stream::Stream;
use crate::error::status::Status;
use crate::error::{Error, Result, Side};
use crate::gateway::admission::Asked;
use crate::gateway::context::Context;

/// Refuses with 403 when some admission rule covers this CONNECT.
pub(super) async fn check(context: &Context, stream: Stream) -> Result<()> {
    let subresource = stream.subresource();
    let asked = Asked {
        tenant: &context.tenant,
        account: context.entry.account(),
        buffers: context.entry.buffers(),
        clock: context.clock(),
        drain: context.drain(),
    };
    let admission = &context.connection.gateway.tenants.admission;
    let Some(judge) = Box::pin(admission.judge(asked, subresource)).await? else { return Ok(()) };
    let name = &context.info.name;
    let message = format!(
        "pods \"{name}\" is forbidden: {judge} of this cluster judges CONNECT on pods/{subresource}, and the gateway \
         cannot ask it; streams are refused rather than let past it"
    );
    let status = Status::failure(403, "Forbidden", message).about("", "pods", name);
    Err(Error::from_status(Side::Client, status))
}
