use super::*;

#[test]
fn what_may_be_seen() {
    for what in What::ALL {
        for (node, port) in
            [("n-1.example", None), ("n-1.example:10250", Some(10250)), ("https:n-1.example:10250", Some(10250))]
        {
            let asked = Asked::parse(&format!("/api/v1/nodes/{node}/proxy{}", what.path())).expect("served");
            assert_eq!((asked.node.as_str(), asked.port, asked.what), ("n-1.example", port, what));
        }
    }
}

#[test]
fn nothing_else_and_no_other_spelling() {
    for rest in [
        "",
        "/",
        "/configz",
        "/run/a/b/c",
        "/exec/a/b/c",
        "/attach/a/b/c",
        "/portForward/a/b",
        "/logs",
        "/logs/",
        "/containerLogs/a/b/c",
        "/runningpods",
        "/runningpods/",
        "/debug/pprof/",
        "/debug/pprof/heap",
        "/debug/flags/v",
        "/checkpoint/a/b/c",
        "/cri/exec/x",
        "/spec",
        "/stats",
        "/stats/",
        "/stats/container",
        "/metrics/",
        "/metrics//",
        "//metrics",
        "/metrics/cadvisor/",
        "/metrics/cadvisor/exec",
        "/metrics/cadvisorx",
        "/metrics/../exec",
        "/metrics/cadvisor/../../exec/a/b/c",
        "/exec/../metrics",
        "/./metrics",
        "/metrics%2fcadvisor",
        "/metrics%2Fcadvisor",
        "/%6detrics",
        "/metrics%00",
        "/metrics;a=b",
        "/metrics?x",
        "/metrics#x",
        "/metrics\\cadvisor",
        "/Metrics",
        "/METRICS",
        "/metrics ",
        "/ metrics",
        "/exec/healthz",
        "/run/metrics",
        "/exec/metrics/cadvisor",
        "/containerLogs/a/b/healthz",
        "/pods/",
        "/pods/x",
        "/pods/../exec",
        "/healthz/",
        "/healthz/ping",
        "/healthz/exec",
        "/healthz/log",
        "/healthz/syncloop",
        "/stats/summary/",
        "/stats/summary/x",
        "/stats//summary",
        "/stats/summary/../../exec",
        "/metrics/slis",
        "/metrics/cadvisor%20",
        "/proxy/metrics",
        "/api/v1/nodes/n/proxy/metrics",
        "/flagz",
        "/statusz",
        "/metrics\u{fe00}",
        "/ｍetrics",
        "/metrics\t",
        "/metrics\n",
    ] {
        assert_eq!(Asked::parse(&format!("/api/v1/nodes/n/proxy{rest}")), None, "{rest:?}");
    }
    for path in [
        "/api/v1/nodes/n/proxy",
        "/api/v1/nodes//proxy/metrics",
        "/api/v1//nodes/n/proxy/metrics",
        "//api/v1/nodes/n/proxy/metrics",
        "/api/v1/nodes/n//proxy/metrics",
        "/api/v1/nodes/n/Proxy/metrics",
        "/api/v1/nodes/n/prox%79/metrics",
        "/api/v1/proxy/nodes/n/metrics",
        "/api/v1/nodes/n/metrics",
        "/api/v1/nodes/n/proxy/proxy/metrics",
        "/api/v1/namespaces/a/nodes/n/proxy/metrics",
        "/api/v2/nodes/n/proxy/metrics",
        "/apis/v1/nodes/n/proxy/metrics",
        "/api/v1/nodes/../proxy/metrics",
        "/api/v1/nodes/./proxy/metrics",
        "/api/v1/nodes/a%2Fb/proxy/metrics",
        "/api/v1/nodes/N/proxy/metrics",
        "/api/v1/nodes/n%2e/proxy/metrics",
        "/api/v1/nodes/-n/proxy/metrics",
        "/api/v1/nodes/n:/proxy/metrics",
        "/api/v1/nodes/:10250/proxy/metrics",
        "/api/v1/nodes/n:0x280a/proxy/metrics",
        "/api/v1/nodes/n:+10250/proxy/metrics",
        "/api/v1/nodes/n:010250/proxy/metrics",
        "/api/v1/nodes/n:75786/proxy/metrics",
        "/api/v1/nodes/http:n:10255/proxy/metrics",
        "/api/v1/nodes/https:n/proxy/metrics",
        "/api/v1/nodes/https:n:/proxy/metrics",
        "/api/v1/nodes/HTTPS:n:10250/proxy/metrics",
        "/api/v1/nodes/https:https:n:10250/proxy/metrics",
        "/api/v1/nodes/n:10250:10250/proxy/metrics",
        "/api/v1/nodes/n%3A10250/proxy/metrics",
        "/api/v1/nodes/[::1]:10250/proxy/metrics",
        "/api/v1/nodes/n@m/proxy/metrics",
        "/api/v1/nodes/n:10250@evil/proxy/metrics",
        "/api/v1/nodes/n /proxy/metrics",
        "api/v1/nodes/n/proxy/metrics",
        "",
    ] {
        assert_eq!(Asked::parse(path), None, "{path:?}");
    }
}

proptest::proptest! {
    #[test]
    fn what_is_read_is_what_was_written(path in "/api/v1/nodes/[a-z:.%0-9/]{0,24}/proxy/[a-z/.%]{0,20}") {
        if let Some(asked) = Asked::parse(&path) {
            let port = |port| format!("{}:{port}", asked.node);
            let names = [Some(asked.node.to_string()), asked.port.map(port), asked.port.map(|p| format!("https:{}", port(p)))];
            let written = |name: String| format!("/api/v1/nodes/{name}/proxy{}", asked.what.path());
            proptest::prop_assert!(names.into_iter().flatten().any(|name| written(name) == path));
        }
    }
}
