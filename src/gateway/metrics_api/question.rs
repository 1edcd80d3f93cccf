//! What is asked for. Pure.

use bytes::Bytes;
use http::Method;

use super::discovery::{self, GROUP, GROUP_PATH, VERSION, VERSION_PATH};
use crate::error::status::Status;
use crate::error::{Error, Kind, Result, Side};
use crate::gateway::api::{self, RequestInfo};
use crate::kubernetes::ListOptions;

/// A question that is answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) asks: Asks,
    /// As the objects themselves are asked for. A page (`limit`, `continue`) is all that there is, as with metrics-server.
    pub(super) options: ListOptions,
}

/// For what.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// What is always the same.
    Known(Bytes),
    Pods {
        namespace: Option<String>,
        name: Option<String>,
    },
    Nodes {
        name: Option<String>,
    },
}

impl Asks {
    /// The resource, for a message.
    pub(super) fn resource(&self) -> &'static str {
        match self {
            Self::Known(_) => "",
            Self::Pods { .. } => "pods",
            Self::Nodes { .. } => "nodes",
        }
    }
}

impl Question {
    pub(super) fn read(info: &RequestInfo, method: &Method, path: &str, query: Option<&str>) -> Result<Self> {
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        let asks = match path.trim_end_matches('/') {
            GROUP_PATH => Asks::Known(discovery::group()),
            VERSION_PATH => Asks::Known(discovery::resources()),
            // Whoever aggregates asks for these too, and does without: what is refused it would ask for again.
            "/apis" | "/openapi/v2" | "/openapi/v3" => return Err(nothing_there()),
            path if !is_of_the_group(info) => return Err(unknown(path)),
            _ if info.resource == "pods" => Asks::Pods { namespace: some(&info.namespace), name: some(&info.name) },
            _ if info.resource == "nodes" && info.namespace.is_empty() => Asks::Nodes { name: some(&info.name) },
            path => return Err(unknown(path)),
        };
        if *method != Method::GET || info.verb == "watch" {
            let message = "the server does not allow this method on the requested resource";
            return Err(Error::client(Kind::MethodNotAllowed, message));
        }
        if matches!(asks, Asks::Pods { namespace: None, name: Some(_) }) {
            return Err(nothing_there());
        }
        let parameter = |name| query.and_then(|query| api::parameter(query, name)).unwrap_or_default();
        let options = ListOptions {
            label_selector: parameter("labelSelector"),
            field_selector: fields(parameter("fieldSelector"))?,
            ..ListOptions::default()
        };
        Ok(Self { asks, options })
    }
}

fn is_of_the_group(info: &RequestInfo) -> bool {
    let is_plain = info.is_exact && !info.has_verb_prefix && info.subresource.is_empty();
    info.is_resource && is_plain && info.group == GROUP && info.version == VERSION
}

/// Metrics have no other fields than these; pods and nodes have, and would be chosen by them.
fn fields(selector: String) -> Result<String> {
    let key = |term: &str| term.split(['=', '!']).next().unwrap_or_default().trim().to_owned();
    let unknown =
        selector.split(',').map(key).find(|key| !matches!(key.as_str(), "" | "metadata.name" | "metadata.namespace"));
    match unknown {
        None => Ok(selector),
        Some(key) => {
            let message = format!("field label not supported: {key}");
            Err(Error::from_status(Side::Client, Status::failure(400, "BadRequest", message)))
        }
    }
}

/// Of the group itself there is no more.
fn unknown(path: &str) -> Error {
    let is_below = path.strip_prefix(GROUP_PATH).is_some_and(|rest| rest.starts_with('/'));
    if is_below { nothing_there() } else { not_here() }
}

fn nothing_there() -> Error {
    Error::client(Kind::NotFound, "the server could not find the requested resource")
}

/// The aggregator's certificate opens nothing else.
pub(super) fn not_here() -> Error {
    Error::client(Kind::Forbidden, "the aggregator is answered for metrics.k8s.io only")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &Method, target: &str) -> Result<Question> {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let info = RequestInfo::parse(method, path, query).expect("a request");
        Question::read(&info, method, path, query)
    }

    #[test]
    fn what_is_answered() {
        let asks = |path: &str| read(&Method::GET, path).map(|question| question.asks).ok();
        let text = |text: &str| Some(text.to_owned());
        let pods = "/apis/metrics.k8s.io/v1beta1/namespaces/a/pods";
        assert_eq!(asks("/apis/metrics.k8s.io"), Some(Asks::Known(discovery::group())));
        assert_eq!(asks("/apis/metrics.k8s.io/v1beta1/"), Some(Asks::Known(discovery::resources())));
        assert_eq!(asks("/apis/metrics.k8s.io/v1beta1/pods"), Some(Asks::Pods { namespace: None, name: None }));
        assert_eq!(asks(pods), Some(Asks::Pods { namespace: text("a"), name: None }));
        assert_eq!(asks(&format!("{pods}/p")), Some(Asks::Pods { namespace: text("a"), name: text("p") }));
        assert_eq!(asks("/apis/metrics.k8s.io/v1beta1/nodes/n"), Some(Asks::Nodes { name: text("n") }));
        let options =
            read(&Method::GET, &format!("{pods}?labelSelector=a+in+(b)&fieldSelector=metadata.name%3Dp&limit=1"));
        let options = options.expect("answered").options;
        assert_eq!((options.label_selector.as_str(), options.field_selector.as_str()), ("a in (b)", "metadata.name=p"));
    }

    #[test]
    fn hostile_paths_are_not() {
        for path in [
            "/",
            "/api",
            "/version",
            "/api/v1/pods",
            "/api/v1/namespaces/a/secrets",
            "/apis/custom.metrics.k8s.io/v1beta1/pods",
            "/portico/store",
            "/api/metrics.k8s.io/v1beta1/pods",
            "/apis/metrics.k8s.io%2Fv1beta1",
            "/apis/metrics.k8s.iox/v1beta1/pods",
            "/openapi/v2/x",
            "/apis/x",
        ] {
            assert_eq!(read(&Method::GET, path).expect_err(path).kind(), Kind::Forbidden, "{path}");
        }
        let pods = "/apis/metrics.k8s.io/v1beta1/namespaces/a/pods";
        assert_eq!(read(&Method::GET, &format!("{pods}?watch=1")).expect_err("a watch").kind(), Kind::MethodNotAllowed);
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS] {
            assert_eq!(read(&method, pods).expect_err("a write").kind(), Kind::MethodNotAllowed, "{method}");
        }
        for path in [
            "/apis/metrics.k8s.io/v1/pods",
            "/apis/metrics.k8s.io/v1beta1/namespaces/a",
            "/apis/metrics.k8s.io/v1beta1/namespaces/a/secrets",
            "/apis/metrics.k8s.io/v1beta1/namespaces/a/nodes",
            "/apis/metrics.k8s.io/v1beta1/namespaces/a/pods/p/exec",
            "/apis/metrics.k8s.io/v1beta1/nodes/n/proxy/metrics",
            "/apis/metrics.k8s.io/v1beta1/watch/pods",
            "/apis/metrics.k8s.io/v1beta1/proxy/pods/p",
            "/apis/metrics.k8s.io/v1beta1/pods/p",
            "/apis",
            "/openapi/v2",
            "/openapi/v3",
        ] {
            assert_eq!(read(&Method::GET, path).expect_err("nothing there").kind(), Kind::NotFound, "{path}");
        }
        for fields in ["spec.nodeName=n", "metadata.name=a,status.phase!=Running", "metadata.namex=a"] {
            let refused = read(&Method::GET, &format!("{pods}?fieldSelector={fields}")).expect_err("not a field");
            assert_eq!(refused.kind(), Kind::BadRequest, "{fields}");
        }
    }
}
