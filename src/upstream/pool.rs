//! Connections to one API server, kept by class.

use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;

use crate::clock::Clock;
use crate::error::{Error, Kind, Result, Side};
use crate::upstream::{Body, Target};

/// Which connections a request may use; classes never share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Short requests under our own identity.
    Unary,
    /// Watches and other long-running requests under our own identity.
    Watch,
    /// Short requests with the caller's own token: no client certificate, and a 401 may close the connection.
    Token,
    /// Long-running requests with the caller's own token.
    TokenWatch,
}

/// A pool of connections to one [`Target`].
#[derive(Debug)]
pub struct Pool {
    target: Target,
}

/// A fresh HTTP/1.1 connection for one upgrade request.
#[derive(Debug)]
pub struct UpgradeConnection {
    _private: (),
}

impl Pool {
    /// A pool without connections; the first request dials.
    pub fn new(target: Target, _clock: Clock) -> Self {
        Self { target }
    }

    /// Where it leads.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Sends a request (path and query only in the URI, or full; `Host`/authority and our credential are set here) and
    /// waits at most `head_deadline` for the response head. The body is the caller's to read and to time.
    pub async fn send(
        &self,
        _class: Class,
        _request: Request<Body>,
        _head_deadline: Duration,
    ) -> Result<Response<Incoming>> {
        Err(Error::own(Kind::Internal, "not built yet"))
    }

    /// Dials an HTTP/1.1 connection for one upgrade. `with_identity` false leaves our certificate and credential out.
    pub async fn dial_upgrade(&self, _with_identity: bool, _deadline: Duration) -> Result<UpgradeConnection> {
        Err(Error::own(Kind::Internal, "not built yet"))
    }

    /// Whether the last dial or request reached the server; for readiness and `describe`.
    pub fn is_reachable(&self) -> bool {
        self.target.side == Side::Host
    }

    /// Closes idle connections and lets running requests finish; further sends fail.
    pub fn close(&self) {}
}

impl UpgradeConnection {
    /// Sends the upgrade request and waits for the response head. On 101 use `hyper::upgrade::on(response)`; nothing
    /// beyond the request head is sent before that.
    pub async fn send(self, _request: Request<Body>, _deadline: Duration) -> Result<Response<Incoming>> {
        Err(Error::own(Kind::Internal, "not built yet"))
    }
}
