use http::HeaderMap;

use super::*;
use crate::upstream::Reach;

fn kubelets() -> Kubelets {
    let issued = rcgen::generate_simple_self_signed(vec!["host".to_owned()]).expect("certificate");
    let tls = crate::tls::client_config(issued.cert.pem().as_bytes(), None).expect("client configuration");
    let target = Target {
        side: Side::Host,
        host: "127.0.0.1".to_owned(),
        port: 1,
        server_name: "host".try_into().expect("name"),
        tls: Arc::clone(&tls),
        tls_without_identity: tls,
        credential: Credential::Certificate,
        path_prefix: String::new(),
        reach: Reach::default(),
    };
    let host = ApiClient::new(Arc::new(Pool::new(target, Clock::system())), HeaderMap::new());
    let kubelets = KubeletsConfig { enabled: true, ..KubeletsConfig::default() };
    let config = HostConfig { kubelets, ..HostConfig::default() };
    Kubelets::new(&config, &BTreeMap::new(), &host).expect("kubelets")
}

#[tokio::test(start_paused = true)]
async fn who_is_being_asked_keeps_his_connection_and_his_seats() {
    let kubelets = kubelets();
    let inner = kubelets.enabled().expect("enabled");
    let place = |port| Place { address: [127, 0, 0, 1].into(), port };
    let (_, seats) = inner.connected("asked", &place(1)).expect("connected");
    let _seat = seats.acquire_owned().await.expect("a seat");
    for n in 0..MOST_CONNECTED {
        tokio::time::advance(std::time::Duration::from_millis(1)).await;
        inner.connected(&format!("node-{n}"), &place(2)).expect("connected");
    }
    let connected = inner.connected.lock();
    assert_eq!((connected.len(), connected.contains_key("node-0")), (MOST_CONNECTED, false));
    let left = connected.get("asked").expect("still there").seats.available_permits();
    assert_eq!(left + 1, inner.config.max_requests_per_node);
}
