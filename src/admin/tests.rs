use http_body_util::BodyExt as _;

use super::*;
use crate::drain;

async fn get(shared: &Shared, target: &str) -> (u16, String) {
    let request = Request::get(target).body(()).expect("request");
    let response = answer(shared, &request);
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    (code, String::from_utf8(bytes.to_vec()).expect("text"))
}

#[tokio::test]
async fn readiness_names_what_is_awaited() {
    let (trigger, drain) = drain::channel();
    let shared = Shared { readiness: Readiness::default(), metrics: Metrics::default(), draining: drain.watch() };
    let tenants = shared.readiness.await_for("tenants", "the first list is not complete");
    shared.readiness.check("host", || None);
    let (code, report) = get(&shared, "/readyz").await;
    assert_eq!(code, 503);
    assert!(report.contains("[-]tenants the first list is not complete") && report.contains("[+]host ok"), "{report}");
    assert_eq!(get(&shared, "/livez").await.0, 200);
    drop(tenants);
    assert_eq!(get(&shared, "/readyz").await, (200, "ok\n".to_owned()));
    assert!(get(&shared, "/readyz?verbose").await.1.contains("[+]tenants ok"));
    trigger.start(std::time::Duration::from_secs(1));
    let (code, report) = get(&shared, "/readyz").await;
    assert!(code == 503 && report.contains("[-]shutdown"), "{report}");
    assert_eq!(get(&shared, "/debug").await.0, 404);
}
