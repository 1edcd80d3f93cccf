//! `metrics.k8s.io` for a tenant's own API server, which asks as aggregator and has judged the user by then.
//!
//! Promises: whoever asks by the aggregator's certificate gets this and nothing else, read only, and nothing of it is ever
//! forwarded, so it cannot go round; pods and nodes are those that the tenant's API server shows, in its words, with the
//! containers that they have there; what is asked at once and in a second is bounded apart from the tenant's users. Must not know
//! where figures come from.
//!
//! An answer's way: question → listed → pods or nodes → written.

pub mod figures;

mod discovery;
mod listed;
mod nodes;
mod pods;
mod question;
mod written;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::body::Incoming;

pub use self::figures::{Figures, NodeFigures, PodFigures};
use self::question::{Asks, Question};
use super::aggregator::{Asked, DEADLINE};
use super::reading::Hold;
use super::respond::{self, Body};
use super::scarce;
use crate::crd::GatewayLimits;
use crate::error::status::Status;
use crate::error::{Error, Kind, Result, Side};

/// A controller asks every 15 s for each of its autoscalers; a user of the tenant has three quarters of what is free.
const LIMITS: GatewayLimits = GatewayLimits {
    connections: 8,
    requests_per_second: 20,
    request_burst: 60,
    requests_in_flight: 8,
    long_running: 0,
};
/// Of a user's name, for whom no seat is kept by what is beyond.
const LONGEST_USER: usize = 256;

/// The user for whom an aggregator says that it asks. Of anybody else it means nothing.
pub(super) fn said_user(headers: &HeaderMap) -> String {
    let said = headers.get("x-remote-user").and_then(|user| user.to_str().ok()).unwrap_or_default();
    said.get(..said.floor_char_boundary(LONGEST_USER)).unwrap_or_default().to_owned()
}

/// Answers it, or says why not.
pub(super) async fn serve(asked: Asked<'_>, request: Request<Incoming>, wants_upgrade: bool) -> Result<Response<Body>> {
    asked.record.user(asked.user);
    asked.record.upstream("metrics");
    let question = question(&asked, &request, wants_upgrade);
    enter(&asked)?;
    if let Ok(Question { asks: Asks::Known(bytes), .. }) = &question {
        // An aggregator asks for it again and again, and takes no seat of those who ask for figures.
        return Ok(respond::json(StatusCode::OK, bytes.clone()));
    }
    take_seat(&asked)?;
    let question = question?;
    scarce::check(asked.state, &asked.info, request.method())?;
    let answer = tokio::time::timeout(DEADLINE, answer(&asked, &question)).await;
    let late =
        |_| unable(question.asks.resource(), &Error::own(Kind::Unavailable, "the figures were not there in time"));
    let bytes = answer.map_err(late)??;
    Ok(respond::json(StatusCode::OK, bytes))
}

fn question(asked: &Asked<'_>, request: &Request<Incoming>, wants_upgrade: bool) -> Result<Question> {
    let question = Question::read(&asked.info, request.method(), asked.path, request.uri().query())?;
    if wants_upgrade {
        return Err(question::not_here());
    }
    if takes_json(request.headers()) { Ok(question) } else { Err(not_acceptable()) }
}

async fn answer(asked: &Asked<'_>, question: &Question) -> Result<Bytes> {
    let figures = &asked.connection.gateway.host()?.figures;
    let unable = |error: Error| unable(question.asks.resource(), &error);
    match &question.asks {
        Asks::Known(bytes) => Ok(bytes.clone()),
        Asks::Pods { namespace, name } => {
            let known = figures.pods(asked.tenant).await.map_err(unable)?;
            Box::pin(pods::answer(asked, &known, namespace.as_deref(), name.as_deref(), &question.options)).await
        }
        Asks::Nodes { name } => {
            let known = nodes::figures(asked.tenant, &**figures).await.map_err(unable)?;
            Box::pin(nodes::answer(asked, &known, name.as_deref(), &question.options)).await
        }
    }
}

/// On its connections, of which it may have some beyond all that the tenant's users have.
fn enter(asked: &Asked<'_>) -> Result<()> {
    let (tenant, state, gateway) = (asked.tenant, asked.state, &asked.connection.gateway);
    let granted = tenant.limits.at_gateway(&gateway.config);
    if !asked.connection.pass.known(&tenant.id, granted.connections.saturating_add(LIMITS.connections)) {
        state.metrics.refused_connection();
        return Err(Error::client(
            Kind::TooManyRequests,
            "this cluster has too many connections, please try again later",
        ));
    }
    asked.record.reading().is_of(&state.account);
    Ok(())
}

/// In flight.
fn take_seat(asked: &Asked<'_>) -> Result<()> {
    let (state, gateway) = (asked.state, &asked.connection.gateway);
    let seat = state.aggregator.admit(&LIMITS, asked.user.as_bytes(), false, gateway.clock.instant());
    let seat = seat.map_err(|why| {
        state.metrics.refused(why);
        why.error()
    })?;
    asked.record.hold(Hold::Seat(seat));
    Ok(())
}

/// Whether JSON will do: clients that ask for protobuf or tables name it, or anything, beside those.
fn takes_json(headers: &HeaderMap) -> bool {
    let mut named = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    if named.peek().is_none() {
        return true;
    }
    let is_json = |entry: &str| {
        let mut parts = entry.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        matches!(kind, "*/*" | "application/*" | "application/json") && !parts.any(|part| part.starts_with("as="))
    };
    named.flat_map(|value| value.split(',')).any(|entry| is_json(entry.trim()))
}

fn not_acceptable() -> Error {
    let message = "only the following media types are accepted: application/json";
    Error::from_status(Side::Client, Status::failure(406, "NotAcceptable", message))
}

/// As an API server says it whose extension is away; why, the person who asks may read where it is not the host's affair. No
/// time to come again: clients would, ten times, and nobody would see what is wrong.
fn unable(resource: &str, error: &Error) -> Error {
    let mut message =
        format!("the server is currently unable to handle the request (get {resource}.{})", discovery::GROUP);
    if error.side() == Side::Own && error.kind() == Kind::Unavailable {
        message.push_str(": ");
        message.push_str(error.message());
    }
    tracing::debug!(%error, resource, "no figures");
    let status = Status::failure(503, "ServiceUnavailable", message).about(discovery::GROUP, resource, "");
    // Whose fault it is, is said above; this is what the client is told, word by word.
    Error::from_status(Side::Client, status).because(error.to_string())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn json_is_found_among_what_is_accepted() {
        let takes = |values: &[&'static str]| {
            takes_json(&values.iter().map(|value| (header::ACCEPT, HeaderValue::from_static(value))).collect())
        };
        assert!(takes(&[]) && takes(&["application/json"]) && takes(&["application/vnd.kubernetes.protobuf, */*"]));
        assert!(takes(&["application/json;as=Table;v=v1;g=meta.k8s.io,application/json"]));
        assert!(takes(&["text/html", "application/json;q=0.5"]));
        assert!(!takes(&["application/vnd.kubernetes.protobuf"]) && !takes(&["application/json;as=Table;v=v1"]));
    }
}
