//! The host's kubelets, dialed by Portico itself: never through the API server's `nodes/proxy`, whose right is as good as
//! root on every node.
//!
//! Promises: what a kubelet sends is read under a bound of bytes and a deadline that its caller cannot lengthen; so many
//! requests at once to all and to one; a bounded number of nodes is known and connected to; shown to kubelets is a token that
//! is good for reading figures and nothing else, unless the configuration says otherwise. Must not know tenants, or what the
//! answers mean.

mod nodes;
mod token;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use self::nodes::Nodes;
pub use self::nodes::Place;
use self::token::Token;
use crate::config::{HostConfig, KubeletsConfig};
use crate::error::{Error, Kind, Result, Side};
use crate::kubernetes::ApiClient;
use crate::kubernetes::client::user_agent;
use crate::runtime::clock::Clock;
use crate::tls::trust;
use crate::upstream::{Body, Class, Credential, Pool, ResponseBody, Target};

/// Kubelets that are connected to at once, no fewer than figures are kept of: of more, those that were asked longest ago lose
/// their connections, unless they are being asked.
const MOST_CONNECTED: usize = 512;

/// All kubelets of the host.
#[derive(Debug)]
pub struct Kubelets(Option<Inner>);

#[derive(Debug)]
struct Inner {
    config: KubeletsConfig,
    /// What is the same for all of them.
    target: Target,
    token: Option<Token>,
    nodes: Nodes,
    clock: Clock,
    seats: Arc<Semaphore>,
    connected: Mutex<HashMap<String, Connected>>,
}

#[derive(Debug)]
struct Connected {
    place: Place,
    pool: Arc<Pool>,
    seats: Arc<Semaphore>,
    used: Instant,
}

/// What a kubelet answers, as it comes.
#[derive(Debug)]
pub struct KubeletAnswer {
    status: StatusCode,
    body: ResponseBody,
    left: usize,
    until: Instant,
    _seats: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Kubelets {
    /// None may be asked.
    pub fn off() -> Self {
        Self(None)
    }

    /// As the configuration says. Only nodes with the labels of `selector` are there.
    pub fn new(config: &HostConfig, selector: &BTreeMap<String, String>, host: &ApiClient) -> Result<Self> {
        let kubelets = config.kubelets.clone();
        if !kubelets.enabled {
            return Ok(Self::off());
        }
        let mut target = host.pool().target().clone();
        let clock = host.pool().clock().clone();
        let token = (!kubelets.service_account.is_empty())
            .then(|| Token::new(host.clone(), &config.system_namespace, &kubelets.service_account, clock.clone()));
        if token.is_some() {
            target.tls = Arc::clone(&target.tls_without_identity);
            target.credential = Credential::Certificate;
        }
        if kubelets.insecure_skip_tls_verify {
            tracing::warn!(
                "certificates of kubelets are not verified: whoever can pose as one gets the token shown to them"
            );
            target.tls = trust::trusting_anybody(&target.tls);
        } else if !kubelets.ca.is_empty() {
            target.tls = trust::trusting(&target.tls, kubelets.ca.as_bytes())?;
        }
        target.path_prefix = String::new();
        Ok(Self(Some(Inner {
            seats: Arc::new(Semaphore::new(kubelets.max_requests.clamp(1, Semaphore::MAX_PERMITS))),
            nodes: Nodes::new(host.clone(), selector.clone(), clock.clone()),
            config: kubelets,
            connected: Mutex::default(),
            target,
            token,
            clock,
        })))
    }

    /// Whether they may be asked.
    pub fn is_enabled(&self) -> bool {
        self.0.is_some()
    }

    /// Where the kubelet of this node is; `None` when there is no such node, or it has no address.
    pub async fn place(&self, node: &str) -> Result<Option<Place>> {
        Ok(*self.enabled()?.nodes.get(node).await?)
    }

    /// All nodes that there are, up to a bound.
    pub async fn places(&self) -> Result<Arc<BTreeMap<String, Place>>> {
        self.enabled()?.nodes.all().await
    }

    /// Asks the kubelet of a node, for an answer of at most `most` bytes. `Ok(None)`: there is no such node.
    pub async fn get(
        &self,
        node: &str,
        path: &'static str,
        accept: &'static str,
        most: usize,
    ) -> Result<Option<KubeletAnswer>> {
        let inner = self.enabled()?;
        let Some(place) = self.place(node).await? else { return Ok(None) };
        let until = inner.clock.instant() + inner.config.request_timeout.0;
        let asked = tokio::time::timeout_at(until, inner.ask(node, &place, path, accept));
        let (status, body, seats) = asked.await.map_err(|_| late())??;
        Ok(Some(KubeletAnswer { status, body, left: most, until, _seats: seats }))
    }

    fn enabled(&self) -> Result<&Inner> {
        self.0.as_ref().ok_or_else(|| {
            Error::own(Kind::Unavailable, "the kubelets of the host are not asked: host.kubelets.enabled is false")
        })
    }
}

impl KubeletAnswer {
    /// What the kubelet said.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The same, when it is what was asked for.
    pub fn success(self) -> Result<Self> {
        match self.status {
            status if status.is_success() => Ok(self),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Error::own(
                Kind::Unavailable,
                "the host's kubelets refuse this to Portico: the rights of the chart's kubelets.enabled are missing, \
                 or a kubelet knows neither tokens nor these rights",
            )),
            status => Err(Error::own(Kind::Unavailable, format!("the node's kubelet answers {status}"))),
        }
    }

    /// The next piece. An answer that is longer or takes longer than it may is an error, as is one that breaks off.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            let frame = tokio::time::timeout_at(self.until, self.body.frame()).await.map_err(|_| late())?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|e| Error::own(Kind::Unavailable, "the node's kubelet broke off").because(e))?;
            let Ok(data) = frame.into_data() else { continue };
            self.left = self
                .left
                .checked_sub(data.len())
                .ok_or_else(|| Error::own(Kind::Unavailable, "the node's kubelet says more than is read of it"))?;
            return Ok(Some(data));
        }
    }
}

impl Inner {
    async fn ask(
        &self,
        node: &str,
        place: &Place,
        path: &'static str,
        accept: &'static str,
    ) -> Result<(StatusCode, ResponseBody, (OwnedSemaphorePermit, OwnedSemaphorePermit))> {
        let (pool, own) = self.connected(node, place)?;
        // Its own first: who waits for a node that hangs takes nothing of the others.
        let own = own.acquire_owned().await.map_err(closed)?;
        let seat = Arc::clone(&self.seats).acquire_owned().await.map_err(closed)?;
        let mut request = Request::new(Body::Empty);
        *request.method_mut() = Method::GET;
        *request.uri_mut() = http::Uri::from_static(path);
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(accept));
        request.headers_mut().insert(header::USER_AGENT, user_agent());
        let shown = match &self.token {
            Some(token) => Some((token, token.current().await?)),
            None => None,
        };
        if let Some((_, shown)) = &shown {
            request.headers_mut().insert(header::AUTHORIZATION, shown.value.clone());
        }
        let response = pool.send(Class::Unary, request, self.config.request_timeout.0).await.map_err(|error| {
            tracing::debug!(%error, node, "a kubelet does not answer");
            Error::own(Kind::Unavailable, "the node's kubelet does not answer").because(error)
        })?;
        if let (Some((token, shown)), StatusCode::UNAUTHORIZED) = (&shown, response.status()) {
            token.refused(shown);
        }
        Ok((response.status(), response.into_body(), (own, seat)))
    }

    fn connected(&self, node: &str, place: &Place) -> Result<(Arc<Pool>, Arc<Semaphore>)> {
        let now = self.clock.instant();
        let mut connected = self.connected.lock();
        if let Some(known) = connected.get_mut(node).filter(|known| known.place == *place) {
            known.used = now;
            return Ok((Arc::clone(&known.pool), Arc::clone(&known.seats)));
        }
        let seats = connected.get(node).map_or_else(
            || Arc::new(Semaphore::new(self.config.max_requests_per_node.clamp(1, Semaphore::MAX_PERMITS))),
            |known| Arc::clone(&known.seats),
        );
        let mut target = self.target.clone();
        (target.host, target.port, target.side) = (place.address.to_string(), place.port, Side::Host);
        target.server_name = ServerName::from(place.address);
        let pool = Arc::new(Pool::new(target, self.clock.clone()));
        let fresh = Connected { place: *place, pool: Arc::clone(&pool), seats: Arc::clone(&seats), used: now };
        let mut gone = connected.insert(node.to_owned(), fresh);
        if connected.len() > MOST_CONNECTED {
            let unused = connected.iter().filter(|(name, known)| *name != node && Arc::strong_count(&known.seats) == 1);
            let oldest = unused.min_by_key(|(_, known)| known.used).map(|(name, _)| name.clone());
            gone = oldest.and_then(|oldest| connected.remove(&oldest)).or(gone);
        }
        drop(connected);
        drop(gone);
        Ok((pool, seats))
    }
}

fn late() -> Error {
    Error::own(Kind::Unavailable, "the node's kubelet did not answer in time")
}

fn closed(error: tokio::sync::AcquireError) -> Error {
    Error::own(Kind::Internal, "the seats of a kubelet were closed").because(error)
}

#[cfg(test)]
mod tests;
