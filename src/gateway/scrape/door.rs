//! Who may read pages about the whole fleet: bearers of a token whom the host cluster knows and lets.
//!
//! Promises: who was let in not long ago never waits for strangers; these have few places, of which one source has half, and a
//! refusal costs its place a second, whether its bearer waits for it or not, so a flood of invented tokens asks the host
//! little; nor does one of invented pages by a user who may read any, since his new ones are judged at a pace. Must not know what is on a page.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::{Error, Kind, Result};
use crate::gateway::identity::{self, Credentials};
use crate::gateway::places::{Place, Places};
use crate::kubernetes::{ApiClient, Reviews, Verdict};
use crate::names::TenantId;
use crate::runtime::task::{self, Task};

/// What a reader of the whole fleet may get in the host cluster.
pub(super) const METRICS: &str = "/fleet/metrics";
/// Where targets are listed.
pub(super) const TARGETS: &str = "/fleet/targets";
/// Requests of tokens that were not accepted lately.
const STRANGERS: usize = 16;
/// Pages under way. Two Prometheus servers scrape at the same moment, and one may be slow.
const PAGES: usize = 4;
const REFUSAL: Duration = Duration::from_secs(1);

/// The door of the fleet.
#[derive(Debug)]
pub(crate) struct Door {
    reviews: Arc<Reviews>,
    strangers: Places,
    /// One for each place that is taken, and some that have just ended.
    judging: Mutex<Vec<Task>>,
    turns: Arc<Semaphore>,
}

impl Door {
    /// The host judges.
    pub(crate) fn new(host: ApiClient) -> Self {
        let (strangers, turns) = (Places::new(STRANGERS, STRANGERS), Arc::new(Semaphore::new(PAGES)));
        Self { reviews: Arc::new(Reviews::new(host)), strangers, judging: Mutex::default(), turns }
    }

    /// A place for who shows this token for one of these paths, none where he needs none.
    pub(super) async fn enter(&self, token: &str, paths: &[String], peer: IpAddr) -> Result<Option<Place>> {
        if self.reviews.was_accepted(token, paths) {
            return Ok(None);
        }
        // One for all: whose token it is, nobody knows yet.
        let of = TenantId::parse("fleet", "fleet").map_err(|e| Error::own(Kind::Internal, "no name").because(e))?;
        let message = "too many callers that are not known yet ask for the fleet, please try again later";
        let place = self.strangers.enter(&of, peer).await;
        place.map(Some).ok_or_else(|| Error::client(Kind::TooManyRequests, message))
    }

    /// Whether the bearer may get one of these paths, asked in turn. A place is taken until that is known and, where he may
    /// not, for the second that it costs: whoever resets his stream does not have it back sooner.
    pub(super) async fn judge(&self, token: String, paths: Vec<String>, place: Option<Place>) -> Result<()> {
        let Some(place) = place else { return judge(&self.reviews, &token, &paths).await };
        let (tell, told) = oneshot::channel();
        let reviews = Arc::clone(&self.reviews);
        let task = task::spawn("judging of a stranger", async move {
            let outcome = judge(&reviews, &token, &paths).await;
            drop(place);
            // Who does not wait any more need not be told.
            let _ = tell.send(outcome);
        });
        {
            let mut judging = self.judging.lock();
            judging.retain(|task| !task.is_finished());
            judging.push(task);
        }
        told.await.unwrap_or_else(|_| Err(Error::own(Kind::Internal, "a token was not judged")))
    }

    /// A turn to make a page; none when as many are under way as may be.
    pub(super) fn turn(&self) -> Result<OwnedSemaphorePermit> {
        let busy = |_| Error::client(Kind::TooManyRequests, "too many pages of the fleet are under way");
        Arc::clone(&self.turns).try_acquire_owned().map_err(busy)
    }
}

async fn judge(reviews: &Reviews, token: &str, paths: &[String]) -> Result<()> {
    let verdict = reviews.judge(token, paths).await;
    if !matches!(verdict, Ok(Verdict::Allowed)) {
        tokio::time::sleep(REFUSAL).await;
    }
    match verdict {
        Ok(Verdict::Allowed) => Ok(()),
        Ok(Verdict::Unknown) => Err(Error::client(Kind::Unauthorized, "the host cluster does not know this token")),
        Ok(Verdict::Forbidden) => {
            let path = paths.first().map_or(METRICS, String::as_str);
            Err(Error::client(Kind::Forbidden, format!("this user may not get the nonresource URL {path} of the host")))
        }
        Ok(Verdict::Hasty) => {
            let message = "this user asks for more new pages than are judged for one, please try again later";
            Err(Error::client(Kind::TooManyRequests, message))
        }
        Err(error) => {
            let message = "the host cluster cannot be asked about this token";
            Err(Error::own(Kind::Unavailable, message).because(error))
        }
    }
}

/// The token that is shown.
pub(super) fn token(headers: &mut HeaderMap) -> Result<String> {
    let shown = identity::credentials(headers, false)?;
    let Credentials::Bearer(value) = shown else {
        return Err(Error::client(Kind::Unauthorized, "show a bearer token of the host cluster"));
    };
    let text = value.to_str().ok().and_then(|text| text.split_once(' ')).map(|(_, token)| token.trim().to_owned());
    text.ok_or_else(|| Error::client(Kind::Unauthorized, "the bearer token is not readable"))
}
