//! Steps that end in an answer: what is created, changed or deleted is tried until the API server has said yes or no, so
//! that nobody has to guess what became of a request that was cut.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use kube::config::{KubeConfigOptions, Kubeconfig};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// No single answer takes this long.
const ANSWER: Duration = Duration::from_secs(15);
/// No step takes this long, whatever is killed meanwhile.
const STEP: Duration = Duration::from_secs(300);
/// The label that says which step made an object.
const STEP_LABEL: &str = "chaos-step";

/// What came of all steps.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) accepted: AtomicUsize,
    /// Answers, or the want of one, after which a step was tried again.
    pub(crate) repeated: AtomicUsize,
    /// What must not happen, in words.
    pub(crate) findings: Mutex<Vec<String>>,
}

/// One API server under one identity.
#[derive(Clone)]
pub(crate) struct Steps {
    client: kube::Client,
    tally: Arc<Tally>,
}

#[derive(Debug, Clone, Copy)]
enum Verb {
    Create,
    Change,
    Delete,
}

struct Step {
    verb: Verb,
    list: String,
    path: String,
    body: Value,
}

enum Answer {
    Is(Value),
    Refused(u16, String),
    Lost(String),
}

impl Steps {
    pub(crate) async fn new(kubeconfig: &Path, tally: &Arc<Tally>) -> Self {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
        let mut config =
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("usable");
        config.default_retry = false;
        let client = kube::Client::try_from(config).expect("a client");
        Self { client, tally: Arc::clone(tally) }
    }

    /// The object as it was accepted. `step` tells it apart from its predecessors of the same name.
    pub(crate) async fn create(&self, list: &str, name: &str, mut object: Value, step: &str) -> Option<Value> {
        object["metadata"]["name"] = name.into();
        object["metadata"]["labels"][STEP_LABEL] = step.into();
        self.until_answered(&Step::new(Verb::Create, list, name, object)).await
    }

    /// The object as it was accepted; it must be the one with this uid.
    pub(crate) async fn change(&self, list: &str, name: &str, uid: &str, mut patch: Value) -> Option<Value> {
        patch["metadata"]["uid"] = uid.into();
        self.until_answered(&Step::new(Verb::Change, list, name, patch)).await
    }

    /// Whether the deletion was accepted of the object with this uid.
    pub(crate) async fn delete(&self, list: &str, name: &str, uid: &str) -> bool {
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}});
        self.until_answered(&Step::new(Verb::Delete, list, name, options)).await.is_some()
    }

    fn found(&self, what: String) {
        eprintln!("chaos: {what}");
        self.tally.findings.lock().push(what);
    }

    /// Tries again until there is an answer; none in all that time is a finding.
    async fn until_answered(&self, step: &Step) -> Option<Value> {
        let until = Instant::now() + STEP;
        let mut tries = 0;
        loop {
            match self.attempt(step, tries).await {
                Ok(answer) => {
                    self.tally.accepted.fetch_add(usize::from(answer.is_some()), Ordering::SeqCst);
                    return answer;
                }
                Err(why) if Instant::now() >= until => {
                    self.found(format!("{step}: not within {STEP:?}: {why}"));
                    return None;
                }
                Err(_) => {
                    tries += 1;
                    self.tally.repeated.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
            }
        }
    }

    /// `Err` with the reason is to be tried again; `Ok(None)` is not, and a finding.
    async fn attempt(&self, step: &Step, tries: usize) -> Result<Option<Value>, String> {
        let (method, path) = match step.verb {
            Verb::Create => (Method::POST, &step.list),
            Verb::Change => (Method::PATCH, &step.path),
            Verb::Delete => (Method::DELETE, &step.path),
        };
        match (step.verb, self.call(method, path, Some(&step.body)).await) {
            (_, Answer::Is(object)) => Ok(Some(object)),
            // An earlier try of this step, or one that still leaves.
            (Verb::Create, Answer::Refused(409, why)) => match self.call(Method::GET, &step.path, None).await {
                Answer::Is(found) if is_of(step, &found) => Ok(Some(found)),
                _ => Err(why),
            },
            // Behind a cut answer that is this step's own doing.
            (Verb::Delete, Answer::Refused(404, _)) if tries > 0 => Ok(Some(Value::Null)),
            (Verb::Change | Verb::Delete, Answer::Refused(404, why)) => {
                self.found(format!("{step}: it was accepted, and is not there: {why}"));
                Ok(None)
            }
            (_, Answer::Refused(code, why)) => Err(format!("{code} {why}")),
            (_, Answer::Lost(why)) => Err(why),
        }
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let form = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = http::Request::builder().method(method).uri(path).header(http::header::CONTENT_TYPE, form);
        let request = request.body(bytes).expect("a request");
        match tokio::time::timeout(ANSWER, self.client.request::<Value>(request)).await {
            Ok(Ok(object)) => Answer::Is(object),
            Ok(Err(kube::Error::Api(status))) => Answer::Refused(status.code, status.message.clone()),
            Ok(Err(error)) => Answer::Lost(format!("{error:?}")),
            Err(_) => Answer::Lost("no answer".to_owned()),
        }
    }
}

fn is_of(step: &Step, found: &Value) -> bool {
    found["metadata"]["labels"][STEP_LABEL] == step.body["metadata"]["labels"][STEP_LABEL]
}

impl Step {
    fn new(verb: Verb, list: &str, name: &str, body: Value) -> Self {
        Self { verb, list: list.to_owned(), path: format!("{list}/{name}"), body }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {}", self.verb, self.path)
    }
}
