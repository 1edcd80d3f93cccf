//! One trace from the caller's request to the host pod.

use data_encoding::HEXLOWER;
use portico::config::HostConfig;
use portico::runtime::clock::Clock;

use crate::collector::{Collector, says};
use crate::world::{HOST_NAMESPACE, World, echoing, websocket};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

#[tokio::test]
async fn an_exec_is_one_trace_from_its_caller_to_the_host_pod() {
    let collector = Collector::start(|config| config.sampling_rate_per_million = 0).await;
    let (host, traces) = (HostConfig::default(), collector.traces.clone());
    let world = World::whole(&host, Clock::system(), traces, echoing).await;
    world.pod(&world.a, "web");
    let request = format!("{}\ntraceparent: 00-{TRACE}-b7ad6b7169203331-01", websocket("web"));
    let (wire, head) = world.ask(&world.a, "jane", &request).await;
    assert_eq!(head.code, 101, "{head:?}");
    let told = world.streams().remove(0).header("traceparent").expect("told").to_owned();
    drop(wire);
    let (root, parts) = collector.trace("get pods/exec").await;
    assert_eq!(HEXLOWER.encode(&root.trace_id), TRACE);
    assert_eq!((says(&root, "enduser.id"), says(&root, "http.response.status_code")), (Some("jane"), Some("101")));
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    for name in ["enter", "authorize", "ask API server", "admit", "locate", "host"] {
        assert!(names.contains(&name), "{name} of {names:?}");
    }
    let host = parts.iter().find(|part| part.name == "host").expect("found above");
    assert_eq!(told, format!("00-{TRACE}-{}-01", HEXLOWER.encode(&host.span_id)));
    assert_eq!(says(host, "k8s.namespace.name"), Some(HOST_NAMESPACE));
    assert_eq!(says(host, "k8s.pod.name"), Some("web-x-default-x-alpha"));
    let all = format!("{:?}", collector.spans());
    assert!(!all.contains("echo hi"), "no command: {all}");
}
