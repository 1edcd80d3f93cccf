//! Which subresource of a pod is asked for.

use http::Method;

use crate::error::{Error, Kind, Result};
use crate::gateway::api::RequestInfo;

/// Which stream is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Exec,
    Attach,
    PortForward,
    Log,
}

impl Stream {
    const ALL: [Self; 4] = [Self::Exec, Self::Attach, Self::PortForward, Self::Log];

    /// `pods/{exec,attach,portforward,log}` of exact shape.
    pub(crate) fn of(info: &RequestInfo) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| info.is_pod_subresource(stream.subresource()))
    }

    pub(super) fn subresource(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
            Self::Log => "log",
        }
    }

    /// Whether it is a CONNECT to the API server's admission.
    pub(super) fn is_connect(self) -> bool {
        self != Self::Log
    }

    pub(super) fn check_method(self, method: &Method) -> Result<()> {
        let served = method == Method::GET || (self.is_connect() && method == Method::POST);
        if served {
            return Ok(());
        }
        Err(Error::client(Kind::MethodNotAllowed, "the server does not allow this method on the requested resource"))
    }
}
