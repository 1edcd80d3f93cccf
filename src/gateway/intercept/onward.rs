//! The request to the host: rebuilt from what is known to be wanted, never the caller's own passed on.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::locate::Place;
use super::stream::Stream;
use crate::error::{Error, Kind, Result};
use crate::kubernetes::resources::PODS;
use crate::runtime::query;
use crate::upstream::Body;

/// A token smuggled as a subprotocol; it is the caller's and no pod's.
const BEARER_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// The URI of the host pod's subresource with the caller's parameters, as far as they are known.
pub(super) fn uri(stream: Stream, place: &Place, raw_query: &str) -> Result<Uri> {
    let mut path =
        PODS.path(Some(place.host_namespace.as_str()), Some(place.host_pod.as_str()), Some(stream.subresource()));
    let mut separator = '?';
    let mut add = |key: &[u8], value: &[u8]| {
        path.push(std::mem::replace(&mut separator, '&'));
        path.extend(percent_encode(key, QUERY));
        path.push('=');
        path.extend(percent_encode(value, QUERY));
    };
    if let Some(container) = &place.container {
        add(b"container", container.as_bytes());
    }
    for (key, value) in query::pairs(raw_query) {
        if allowed(stream).iter().any(|name| name.as_bytes() == key) {
            add(&key, &value);
        }
    }
    path.parse().map_err(|e| Error::client(Kind::BadRequest, "the parameters are too long or not valid").because(e))
}

/// `container` is ours to set. `insecureSkipTLSVerifyBackend` is the host's own affair.
fn allowed(stream: Stream) -> &'static [&'static str] {
    match stream {
        Stream::Exec => &["command", "stdin", "stdout", "stderr", "tty"],
        Stream::Attach => &["stdin", "stdout", "stderr", "tty"],
        Stream::PortForward => &["ports"],
        Stream::Log => {
            &["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream"]
        }
    }
}

/// The upgrade request to the host, with none of the caller's credentials or identity.
pub(super) fn upgrade(
    stream: Stream,
    place: &Place,
    method: Method,
    raw_query: &str,
    headers: &HeaderMap,
    protocol: &HeaderValue,
) -> Result<Request<Body>> {
    let mut request = Request::new(Body::Empty);
    *request.method_mut() = method;
    *request.uri_mut() = uri(stream, place, raw_query)?;
    let out = request.headers_mut();
    out.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    out.insert(header::UPGRADE, protocol.clone());
    for (name, value) in headers {
        let text = name.as_str();
        let kept = text.starts_with("sec-websocket-") || *name == STREAM_PROTOCOL || *name == header::ORIGIN;
        if kept && *name != header::SEC_WEBSOCKET_PROTOCOL {
            out.append(name.clone(), value.clone());
        }
    }
    for value in headers.get_all(header::SEC_WEBSOCKET_PROTOCOL) {
        let text = value.to_str().map_err(|_| Error::client(Kind::BadRequest, "the subprotocols cannot be read"))?;
        let kept: Vec<&str> = text.split(',').map(str::trim).filter(|p| !p.starts_with(BEARER_PROTOCOL)).collect();
        if !kept.is_empty() {
            let value = HeaderValue::try_from(kept.join(", "))
                .map_err(|e| Error::client(Kind::BadRequest, "the subprotocols cannot be read").because(e))?;
            out.append(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{self, ClusterName, HostNamespace, Limit, VirtualName, VirtualNamespace};

    fn place(container: Option<&str>) -> Place {
        let names = (VirtualName::parse("web"), VirtualNamespace::parse("default"), ClusterName::parse("vc"));
        let (name, namespace, cluster) =
            (names.0.expect("name"), names.1.expect("namespace"), names.2.expect("cluster"));
        Place {
            host_namespace: HostNamespace::parse("team").expect("host namespace"),
            host_pod: names::host_name(&name, &namespace, &cluster, Limit::Subdomain),
            namespace: "default".to_owned(),
            pod: "web".to_owned(),
            container: container.map(str::to_owned),
        }
    }

    fn built(stream: Stream, query: &str) -> String {
        uri(stream, &place(Some("c")), query).expect("uri").to_string()
    }

    #[test]
    fn commands_keep_their_order_and_bytes() {
        assert_eq!(
            built(Stream::Exec, "command=sh&command=-c&command=echo+%26%FF&stdin=true&container=evil"),
            "/api/v1/namespaces/team/pods/web-x-default-x-vc/exec?container=c&command=sh&command=-c\
             &command=echo%20%26%FF&stdin=true"
        );
    }

    #[test]
    fn unknown_parameters_do_not_cross() {
        assert_eq!(
            built(Stream::Log, "insecureSkipTLSVerifyBackend=true&follow=true&x=1&a;b=2&tailLines=%zz"),
            "/api/v1/namespaces/team/pods/web-x-default-x-vc/log?container=c&follow=true"
        );
        assert!(!built(Stream::Attach, "command=sh").contains("command"));
    }

    #[test]
    fn only_what_the_handshake_needs_crosses() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("cookie", "a=b"),
            ("impersonate-user", "admin"),
            ("x-remote-user", "admin"),
            ("sec-websocket-key", "k"),
            ("sec-websocket-protocol", "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
            ("x-stream-protocol-version", "v3.channel.k8s.io"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let protocol = HeaderValue::from_static("websocket");
        let request = upgrade(Stream::Exec, &place(Some("c")), Method::GET, "", &headers, &protocol).expect("request");
        let mut names: Vec<&str> = request.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let expected =
            ["connection", "sec-websocket-key", "sec-websocket-protocol", "upgrade", "x-stream-protocol-version"];
        assert_eq!(names, expected);
        assert_eq!(request.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
        assert_eq!(request.headers().get_all(STREAM_PROTOCOL).iter().count(), 2);
    }
}
