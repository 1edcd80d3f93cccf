//! A connection that carries one upgrade request and then whatever it was upgraded to.

use std::time::Duration;

use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;

use super::dial::{self, Address};
use crate::error::{Error, Kind, Result};
use crate::upstream::{Body, Target};

/// A fresh HTTP/1.1 connection for one upgrade request.
pub struct UpgradeConnection {
    sender: SendRequest<Body>,
    address: Address,
    target: Target,
    credential: Option<HeaderValue>,
}

impl UpgradeConnection {
    pub(super) fn new(
        sender: SendRequest<Body>,
        address: Address,
        target: Target,
        credential: Option<HeaderValue>,
    ) -> Self {
        Self { sender, address, target, credential }
    }

    /// Sends the upgrade request and waits for the response head. On 101 use `hyper::upgrade::on(response)`; nothing
    /// beyond the request head is sent before that.
    pub async fn send(mut self, mut request: Request<Body>, deadline: Duration) -> Result<Response<Incoming>> {
        self.address.prepare(&mut request)?;
        self.address.fit(&mut request, false);
        if let Some(value) = self.credential.take() {
            request.headers_mut().entry(header::AUTHORIZATION).or_insert(value);
        }
        match tokio::time::timeout(deadline, self.sender.send_request(request)).await {
            Ok(outcome) => outcome.map_err(|e| dial::hyper_error(self.target.side, e)),
            Err(_) => Err(Error::new(self.target.side, Kind::Timeout, "the API server did not answer in time")),
        }
    }
}

impl std::fmt::Debug for UpgradeConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpgradeConnection").field("target", &self.target).finish_non_exhaustive()
    }
}
