//! One tenant's side as a client sees it: its API server by one way, its pod, its resolver.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::UdpSocket;

/// Longer than any answer worth waiting for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// What is read and written.
pub(crate) const CONFIG: &str = "bench";
/// A Service of every tenant of the bench.
const NAME: &str = "web.default.svc.cluster.local.";

pub(crate) struct Place {
    pub(crate) client: kube::Client,
    pub(crate) namespace: String,
    pod: String,
    dns: SocketAddr,
}

/// What became of one call.
#[derive(Debug)]
pub(crate) enum Outcome {
    Answered(Duration),
    /// Told to come again later.
    Refused,
    Failed(String),
}

impl Place {
    pub(crate) async fn new(kubeconfig: &str, namespace: &str, pod: &str, dns: SocketAddr) -> Self {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let mut config = config.expect("usable");
        config.default_retry = false;
        let client = kube::Client::try_from(config).expect("a client");
        Self { client, namespace: namespace.to_owned(), pod: pod.to_owned(), dns }
    }

    /// Makes what is read and written, or finds it.
    pub(crate) async fn prepare(&self) {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CONFIG}, "data": {"n": "0"}});
        match self.call(Method::POST, &self.list("configmaps"), Some(&object)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => panic!("the API server cannot be used: {error:?}"),
        }
    }

    pub(crate) fn list(&self, plural: &str) -> String {
        format!("/api/v1/namespaces/{}/{plural}", self.namespace)
    }

    pub(crate) async fn get(&self) -> Outcome {
        let (path, began) = (format!("{}/{CONFIG}", self.list("configmaps")), Instant::now());
        outcome(began, self.call(Method::GET, &path, None).await)
    }

    pub(crate) async fn write(&self, n: &str) -> Outcome {
        let (path, began) = (format!("{}/{CONFIG}", self.list("configmaps")), Instant::now());
        outcome(began, self.call(Method::PATCH, &path, Some(&json!({"data": {"n": n}}))).await)
    }

    pub(crate) async fn create_pod(&self, name: &str) -> Outcome {
        let began = Instant::now();
        outcome(began, self.call(Method::POST, &self.list("pods"), Some(&pod(name))).await)
    }

    pub(crate) async fn delete_pod(&self, name: &str) -> Outcome {
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
        let (path, began) = (format!("{}/{name}", self.list("pods")), Instant::now());
        outcome(began, self.call(Method::DELETE, &path, Some(&options)).await)
    }

    /// Until the first byte; then the command is waited for.
    pub(crate) async fn exec(&self) -> Outcome {
        let whole = async {
            let began = Instant::now();
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
            let parameters = AttachParams::default().stdout(true).stderr(false);
            let mut process = match pods.exec(&self.pod, ["echo", "x"], &parameters).await {
                Ok(process) => process,
                Err(error) if format!("{error:?}").contains("429") => return Outcome::Refused,
                Err(error) => return Outcome::Failed(format!("{error:?}")),
            };
            let mut byte = [0; 1];
            let mut stdout = process.stdout().expect("asked for");
            if let Err(error) = stdout.read_exact(&mut byte).await {
                return Outcome::Failed(error.to_string());
            }
            let took = began.elapsed();
            let rest = drain(stdout).await.and(process.join().await.map_err(|error| error.to_string()));
            rest.map_or_else(Outcome::Failed, |()| Outcome::Answered(took))
        };
        tokio::time::timeout(PATIENCE, whole).await.unwrap_or_else(|_| Outcome::Failed("no answer".to_owned()))
    }

    /// A socket that is kept: each source port would be an entry of its own in the node's connection table.
    pub(crate) async fn resolver(&self) -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.expect("a port");
        socket.connect(self.dns).await.expect("a route");
        socket
    }

    /// Events of a list from now on.
    pub(crate) async fn now(&self, plural: &str, selector: &str) -> Result<http::Request<Vec<u8>>, String> {
        let list = self.list(plural);
        let whole = self.call(Method::GET, &format!("{list}?{selector}"), None).await.map_err(|e| format!("{e:?}"))?;
        let version = whole["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        let path = format!("{list}?watch=1&timeoutSeconds=3600&resourceVersion={version}&{selector}");
        http::Request::get(path).body(Vec::new()).map_err(|error| error.to_string())
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, kube::Error> {
        let form = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = http::Request::builder().method(method).uri(path).header(http::header::CONTENT_TYPE, form);
        let request = request.body(bytes).expect("a request");
        let answer = tokio::time::timeout(PATIENCE, self.client.request::<Value>(request)).await;
        answer.unwrap_or_else(|_| Err(kube::Error::Service("no answer".into())))
    }
}

/// One question for a name that is there.
pub(crate) async fn ask(socket: &UdpSocket, id: u16) -> Outcome {
    let mut question = Message::new(id, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(Name::from_str(NAME).expect("a name"), RecordType::A));
    let bytes = question.to_vec().expect("a question");
    let whole = async {
        let began = Instant::now();
        socket.send(&bytes).await.map_err(|error| error.to_string())?;
        let mut buffer = [0; 2048];
        loop {
            let length = socket.recv(&mut buffer).await.map_err(|error| error.to_string())?;
            let answer = Message::from_vec(&buffer[..length]).map_err(|error| error.to_string())?;
            // That of an earlier question comes too late for it.
            if answer.metadata.id == id {
                return Ok((began.elapsed(), answer.metadata.response_code));
            }
        }
    };
    match tokio::time::timeout(Duration::from_secs(2), whole).await {
        Ok(Ok((took, ResponseCode::NoError))) => Outcome::Answered(took),
        Ok(Ok((_, ResponseCode::Refused | ResponseCode::ServFail))) => Outcome::Refused,
        Ok(Ok((_, code))) => Outcome::Failed(code.to_string()),
        Ok(Err::<_, String>(why)) => Outcome::Failed(why),
        Err(_) => Outcome::Failed("no answer".to_owned()),
    }
}

fn outcome(began: Instant, answer: Result<Value, kube::Error>) -> Outcome {
    match answer {
        Ok(_) => Outcome::Answered(began.elapsed()),
        Err(kube::Error::Api(status)) if status.code == 429 => Outcome::Refused,
        Err(error) => Outcome::Failed(format!("{error:?}")),
    }
}

async fn drain(mut stream: impl AsyncRead + Unpin) -> Result<(), String> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.map(|_| ()).map_err(|error| error.to_string())
}

/// For a node that is not there, so that no kubelet takes part.
fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeSelector": {"bench.example/node": "none"}, "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": "bench.example/none:1",
                "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}}}]}})
}
