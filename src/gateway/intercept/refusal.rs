//! What the host answered instead of a stream, in the tenant's terms.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Body as HttpBody;

use super::locate::Place;
use crate::error::status::Status;
use crate::error::{BoxError, Error, Kind, Result};
use crate::gateway::buffer;
use crate::gateway::respond::{self, Body};

const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
/// The host's own words about one pod; so little that it is not drawn on the budget of the tenants' bodies.
const MAX_BODY: usize = 16 << 10;
/// The API server itself gives a kubelet's refusal ten seconds.
const DEADLINE: Duration = Duration::from_secs(10);

/// The answer for the tenant. A host 401 or 403 is our fault, not the caller's; redirects are never followed.
pub(super) async fn answer<B>(place: &Place, response: Response<B>) -> Result<Response<Body>>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let (parts, body) = response.into_parts();
    // Without a body the head says enough.
    let body = buffer::read_short(body, MAX_BODY, DEADLINE).await.unwrap_or_default();
    let code = parts.status;
    if code.is_success() || code.is_redirection() || code.is_informational() {
        return Err(Error::host(Kind::Protocol, format!("the host answered a stream with {code}")));
    }
    if code == StatusCode::FORBIDDEN && is_handshake_refusal(&parts.headers, &body) {
        return Ok(no_common_protocol(&parts.headers));
    }
    let text = String::from_utf8_lossy(&body);
    if matches!(code, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Err(Error::host(Kind::Forbidden, format!("the host refused a stream with {code}: {text}")));
    }
    tracing::debug!(%code, %text, pod = %place.host_pod, "the host refused a stream");
    Ok(respond::status(&status(place, code, &body)))
}

/// The runtime refuses unknown stream protocols with a 403 of its own (protocols.md 3.2, 3.4); the API server's own
/// 403 always has a Status.
fn is_handshake_refusal(headers: &HeaderMap, body: &Bytes) -> bool {
    headers.contains_key(ACCEPTED) || body.is_empty()
}

fn no_common_protocol(headers: &HeaderMap) -> Response<Body> {
    let status = Status::failure(403, "Forbidden", "no stream protocol in common");
    let mut response = respond::status(&status);
    for value in headers.get_all(ACCEPTED) {
        response.headers_mut().append(ACCEPTED, HeaderValue::clone(value));
    }
    response
}

fn status(place: &Place, code: StatusCode, body: &[u8]) -> Status {
    let given = Status::of_answer(code.as_u16(), body);
    let message = match () {
        // Addresses of nodes are not the tenant's to know, and nothing it could act on.
        () if code.is_server_error() && given.message.contains("dial") => "the pod's node does not answer".to_owned(),
        () if given.message.is_empty() => format!("the stream was refused: {code}"),
        () => place.in_virtual_terms(&given.message),
    };
    let status = Status::failure(given.code, &given.reason, message);
    if code == StatusCode::NOT_FOUND { status.about("", "pods", &place.pod) } else { status }
}

impl Place {
    /// Host names in a message, mapped back. The namespace only where it stands as a name: it may be a common word.
    pub(super) fn in_virtual_terms(&self, message: &str) -> String {
        let (host, own) = (self.host_namespace.as_str(), self.namespace.as_str());
        message
            .replace(self.host_pod.as_str(), &self.pod)
            .replace(&format!("\"{host}\""), &format!("\"{own}\""))
            .replace(&format!("{host}/{}", self.pod), &format!("{own}/{}", self.pod))
            .replace(&format!("{host}_{}", self.pod), &format!("{own}_{}", self.pod))
            .replace(&format!("_{host}("), &format!("_{own}("))
            .replace(&format!("namespace {host}"), &format!("namespace {own}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{self, ClusterName, HostNamespace, Limit, VirtualName, VirtualNamespace};
    use http_body_util::{BodyExt as _, Full};

    fn place() -> Place {
        let name = VirtualName::parse("web").expect("name");
        let namespace = VirtualNamespace::parse("default").expect("namespace");
        let cluster = ClusterName::parse("vc").expect("cluster");
        Place {
            host_namespace: HostNamespace::parse("team").expect("host namespace"),
            host_pod: names::host_name(&name, &namespace, &cluster, Limit::Subdomain),
            namespace: "default".to_owned(),
            pod: "web".to_owned(),
            container: None,
        }
    }

    async fn refused(code: u16, body: &str) -> Result<Status> {
        let response = Response::builder().status(code).body(Full::new(Bytes::copy_from_slice(body.as_bytes())));
        let answer = answer(&place(), response.expect("response")).await?;
        let bytes = answer.into_body().collect().await.expect("body").to_bytes();
        Ok(serde_json::from_slice(&bytes).expect("status"))
    }

    #[tokio::test]
    async fn names_are_mapped_back() {
        let text = r#"{"kind":"Status","status":"Failure","reason":"NotFound","code":404,
            "message":"pods \"web-x-default-x-vc\" not found in \"team\"","details":{"name":"web-x-default-x-vc"}}"#;
        let status = refused(404, text).await.expect("relayed");
        assert_eq!(status.message, "pods \"web\" not found in \"default\"");
        assert_eq!(status.details.expect("details").name, "web");
        let status = refused(500, "container not found (\"c\")").await.expect("relayed");
        assert_eq!((status.code, status.message.as_str()), (500, "container not found (\"c\")"));
    }

    #[tokio::test]
    async fn a_host_refusal_of_our_rights_is_ours() {
        let text = r#"{"kind":"Status","status":"Failure","reason":"Forbidden","code":403,
            "message":"pods \"web-x-default-x-vc\" is forbidden: User \"system:serviceaccount:portico-system:portico\""}"#;
        for code in [401, 403] {
            let shown = refused(code, text).await.expect_err("ours").to_status();
            assert_eq!(shown.code, 500);
            assert!(!shown.message.contains("portico-system") && !shown.message.contains("-x-"), "{}", shown.message);
        }
    }

    #[tokio::test]
    async fn redirects_and_successes_are_never_passed_on() {
        for code in [200, 204, 301, 307] {
            assert_eq!(refused(code, "").await.expect_err("ours").to_status().code, 500, "{code}");
        }
    }

    #[tokio::test]
    async fn no_node_address_is_shown() {
        let status = refused(502, "error dialing backend: dial tcp 10.0.0.5:10250: connect: refused").await;
        assert!(!status.expect("relayed").message.contains("10.0.0.5"));
    }
}
