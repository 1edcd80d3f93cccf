use super::*;
use crate::names::{HostName, TenantId};
use crate::usage::Placed;

const CONTAINER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const UID: &str = "5f2c0a52-0000-4000-8000-000000000001";

fn pod(node: &str, uid: &str, name: &str) -> HostPod {
    HostPod {
        node: node.to_owned(),
        uid: uid.to_owned(),
        namespace: "default".to_owned(),
        name: name.to_owned(),
        virtual_uid: format!("virtual-{name}"),
    }
}

fn placed() -> Placed {
    let name = |text: &str| HostName::parse(text).expect("name");
    Placed::from([
        (name("web-x-default-x-alpha"), pod("n", UID, "web")),
        (name("away-x-default-x-alpha"), pod("m", "u2", "away")),
        (name("waiting-x-default-x-alpha"), pod("", "u3", "waiting")),
    ])
}

fn filtered(text: &str, whole_node: bool) -> String {
    let (tenant, placed) = (TenantId::parse("team", "alpha").expect("id"), placed());
    let shown = Shown::on("n", &tenant, &placed);
    let (mut series, mut out) = (Series::new(&shown, whole_node), Vec::new());
    for line in text.split('\n') {
        series.line(line.as_bytes(), &mut out);
    }
    String::from_utf8(out).expect("text")
}

fn own(more: &str) -> String {
    format!("x{{namespace=\"team\",pod=\"web-x-default-x-alpha\"{more}}} 1")
}

#[test]
fn a_real_exposition() {
    let group = format!("/kubepods.slice/kubepods-pod{}.slice/cri-containerd-{CONTAINER}.scope", UID.replace('-', "_"));
    let text = format!(
        "# HELP container_cpu_usage_seconds_total Cumulative cpu time\n\
         # TYPE container_cpu_usage_seconds_total counter\n\
         container_cpu_usage_seconds_total{{container=\"\",cpu=\"total\",id=\"/\",image=\"\",name=\"\",namespace=\"\",pod=\"\"}} 99 1\n\
         container_cpu_usage_seconds_total{{container=\"app\",cpu=\"total\",id=\"{group}\",image=\"docker.io/library/nginx:1\",name=\"{CONTAINER}\",namespace=\"team\",pod=\"web-x-default-x-alpha\"}} 5 1700000000000\n\
         container_cpu_usage_seconds_total{{container=\"\",cpu=\"total\",id=\"/kubepods/pod{UID}\",image=\"\",name=\"\",namespace=\"team\",pod=\"web-x-default-x-alpha\"}} 6 2\n\
         container_cpu_usage_seconds_total{{container=\"app\",cpu=\"total\",id=\"/kubepods/podu9/c\",image=\"i\",name=\"c\",namespace=\"team\",pod=\"web-x-default-x-alphabet\"}} 7 2\n\
         # HELP container_secret Of others only\n\
         # TYPE container_secret gauge\n\
         container_secret{{namespace=\"other\",pod=\"web-x-default-x-alpha\"}} 1\n\
         # TYPE prober_probe_total counter\n\
         prober_probe_total{{container=\"app\",namespace=\"team\",pod=\"web-x-default-x-alpha\",pod_uid=\"{UID}\",probe_type=\"Liveness\",result=\"successful\"}} 3\n\
         prober_probe_total{{container=\"app\",namespace=\"team\",pod=\"web-x-default-x-alpha\",pod_uid=\"before\",probe_type=\"Liveness\",result=\"successful\"}} 3\n"
    );
    let expected = format!(
        "# HELP container_cpu_usage_seconds_total Cumulative cpu time\n\
         # TYPE container_cpu_usage_seconds_total counter\n\
         container_cpu_usage_seconds_total{{namespace=\"default\",pod=\"web\",id=\"/podvirtual-web/{CONTAINER}\",name=\"{CONTAINER}\",image=\"docker.io/library/nginx:1\",container=\"app\",cpu=\"total\"}} 5 1700000000000\n\
         container_cpu_usage_seconds_total{{namespace=\"default\",pod=\"web\",id=\"/podvirtual-web\",container=\"\",cpu=\"total\"}} 6 2\n\
         # TYPE prober_probe_total counter\n\
         prober_probe_total{{namespace=\"default\",pod=\"web\",pod_uid=\"virtual-web\",container=\"app\",probe_type=\"Liveness\",result=\"successful\"}} 3\n"
    );
    assert_eq!(filtered(&text, false), expected);
}

#[test]
fn nothing_of_others_whatever_it_is_called() {
    for labels in [
        r#"namespace="team",pod="web-x-default-x-alphabet""#,
        r#"namespace="team",pod="web-x-default-x-alph""#,
        r#"namespace="team",pod="eb-x-default-x-alpha""#,
        r#"namespace="team",pod="WEB-x-default-x-alpha""#,
        r#"namespace="team",pod="away-x-default-x-alpha""#,
        r#"namespace="team",pod="waiting-x-default-x-alpha""#,
        r#"namespace="team",pod="web""#,
        r#"namespace="default",pod="web""#,
        r#"namespace="TEAM",pod="web-x-default-x-alpha""#,
        r#"namespace="Team",pod="web-x-default-x-alpha""#,
        r#"namespace="team ",pod="web-x-default-x-alpha""#,
        r#"namespace="team2",pod="web-x-default-x-alpha""#,
        r#"namespace="team\n",pod="web-x-default-x-alpha""#,
        r#"namespace="other",exported_namespace="team",pod="web-x-default-x-alpha""#,
        r#"Namespace="team",Pod="web-x-default-x-alpha""#,
        r#"namespace="team",pod_name="web-x-default-x-alpha""#,
        r#"namespace="team",namespace="other",pod="web-x-default-x-alpha""#,
        r#"namespace="team",pod="web-x-default-x-alpha",pod="foreign""#,
        r#"namespace="other",namespace="team",pod="web-x-default-x-alpha""#,
        r#"pod="web-x-default-x-alpha""#,
        r#"namespace="team""#,
        r#"namespace="team",persistentvolumeclaim="data-x-default-x-alpha""#,
        r#"note="namespace=\"team\",pod=\"web-x-default-x-alpha\"""#,
        r#"note="}",namespace="other",pod="web-x-default-x-alpha""#,
        "note=\"\\n\\nx{namespace=\\\"team\\\",pod=\\\"web-x-default-x-alpha\\\"} 1\"",
        "namespace=\"other\nx{namespace=\"team\"",
    ] {
        for whole_node in [false, true] {
            for name in ["x", "container_x", "kubelet_volume_stats_used_bytes"] {
                let shown = filtered(&format!("# TYPE {name} gauge\n{name}{{{labels}}} 1"), whole_node);
                let is_nothing = shown.is_empty() || labels.starts_with("note=") && !name.starts_with('x');
                assert!(is_nothing, "{name}{{{labels}}}: {shown}");
            }
        }
    }
}

#[test]
fn labels_that_nobody_knows_or_that_tell_of_the_host_hide_the_series() {
    let underscored = UID.replace('-', "_");
    for more in [
        ",host_pod=\"web-x-default-x-alpha\"".to_owned(),
        ",container_label_io_kubernetes_pod_uid=\"x\"".to_owned(),
        format!(",device=\"/var/lib/kubelet/pods/{UID}/volumes\""),
        format!(",device=\"pod{underscored}\""),
        ",device=\"web-x-default-x-alpha\"".to_owned(),
        ",uid=\"another\"".to_owned(),
        ",pod_uid=\"\"".to_owned(),
    ] {
        assert_eq!(filtered(&own(&more), false), "", "{more}");
    }
    assert_eq!(
        filtered(&own(",device=\"/dev/sda\""), false),
        "x{namespace=\"default\",pod=\"web\",device=\"/dev/sda\"} 1\n"
    );
    let foreign_name = own(",container=\"app\",name=\"k8s_app_web-x-default-x-alpha_team_uid_0\",image=\"i\"");
    let shown = "x{namespace=\"default\",pod=\"web\",image=\"i\",container=\"app\"} 1\n";
    assert_eq!(filtered(&foreign_name, false), shown);
    let sandbox = own(&format!(",name=\"{CONTAINER}\",image=\"registry.example.com/pause\""));
    assert_eq!(filtered(&sandbox, false), "x{namespace=\"default\",pod=\"web\"} 1\n");
}

#[test]
fn exemplars_and_what_is_not_well_formed_are_left_out() {
    let with_exemplar = own("").replace(" 1", " 1 # {trace_id=\"foreign\"} 0.5");
    assert_eq!(filtered(&with_exemplar, false), "x{namespace=\"default\",pod=\"web\"} 1\n");
    for broken in [own("").replace('}', ""), own("").replace(" 1", ""), own("").replace('x', "1x"), "# EOF".to_owned()]
    {
        assert_eq!(filtered(&broken, true), "", "{broken}");
    }
}

#[test]
fn the_node_itself_is_shown_where_it_may_be_and_who_runs_on_it_never() {
    let underscored = UID.replace('-', "_");
    let text = format!(
        "# TYPE machine_cpu_cores gauge\nmachine_cpu_cores{{boot_id=\"b\",machine_id=\"m\",system_uuid=\"s\"}} 2\n\
         node_cpu_usage_seconds_total 9 1\n\
         container_cpu_usage_seconds_total{{container=\"\",id=\"/\",image=\"\",name=\"\",namespace=\"\",pod=\"\"}} 8\n\
         container_cpu_usage_seconds_total{{id=\"/kubepods/burstable\"}} 7\n\
         kubelet_running_pods 3\n\
         container_fs_usage_bytes{{device=\"/dev/sda1\",id=\"/\"}} 5\n\
         kubelet_runtime_operations_total{{operation_type=\"create_container\"}} 4\n\
         container_cpu_usage_seconds_total{{id=\"/kubepods/burstable/pod{UID}\"}} 6\n\
         container_cpu_usage_seconds_total{{id=\"/kubepods.slice/kubepods-pod{UID}.slice\"}} 6\n\
         container_cpu_usage_seconds_total{{id=\"/docker/{CONTAINER}\"}} 6\n\
         container_cpu_usage_seconds_total{{id=\"/x\",name=\"etcd\"}} 6\n\
         kubelet_volume_stats_used_bytes{{namespace=\"other\",persistentvolumeclaim=\"c\"}} 6\n\
         container_fs_usage_bytes{{device=\"/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~empty-dir/secret\",id=\"/\"}} 6\n\
         container_fs_usage_bytes{{device=\"/run/containerd/io.containerd.grpc.v1.cri/sandboxes/{CONTAINER}/shm\",id=\"/\"}} 6\n\
         container_fs_usage_bytes{{device=\"/dev/mapper/pvc-{UID}\",id=\"/\"}} 6\n\
         container_fs_usage_bytes{{device=\"/dev/mapper/pvc_{underscored}\",id=\"/\"}} 6\n\
         container_fs_usage_bytes{{device=\"/var/lib/kubelet/plugins/csi/pv/data\",id=\"/\"}} 6\n\
         container_fs_usage_bytes{{device=\"/dev/sda1\",id=\"/\",mount=\"/data\"}} 6\n\
         kubelet_secret_total{{workload=\"etcd\"}} 6\n\
         kubelet_secret_total{{container=\"etcd\"}} 6\n\
         kubelet_secret_total{{Pod=\"etcd\"}} 6\n\
         kubelet_running_pods{{type=\"a\",type=\"b\"}} 6\n\
         rest_client_requests_total{{host=\"10.96.0.1\"}} 6\n\
         apiserver_audit_event_total 6\n"
    );
    assert_eq!(filtered(&text, false), "");
    let shown = "# TYPE machine_cpu_cores gauge\nmachine_cpu_cores 2\nnode_cpu_usage_seconds_total 9 1\n\
                 container_cpu_usage_seconds_total{container=\"\",id=\"/\",image=\"\",name=\"\",namespace=\"\",pod=\"\"} 8\n\
                 container_cpu_usage_seconds_total{id=\"/kubepods/burstable\"} 7\nkubelet_running_pods 3\n\
                 container_fs_usage_bytes{device=\"/dev/sda1\",id=\"/\"} 5\nkubelet_runtime_operations_total{operation_type=\"create_container\"} 4\n";
    assert_eq!(filtered(&text, true), shown);
}

#[test]
fn comments_without_end_take_no_memory() {
    let (tenant, placed) = (TenantId::parse("team", "alpha").expect("id"), placed());
    let shown = Shown::on("n", &tenant, &placed);
    let (mut series, mut out) = (Series::new(&shown, false), Vec::new());
    for _ in 0..10_000 {
        series.line(b"# HELP x once more and once more and once more", &mut out);
    }
    assert!(series.begun.comments.len() < 2 * LONGEST_COMMENTS && out.is_empty());
}

proptest::proptest! {
    /// Whatever the labels' values are: what is shown reads as series of the tenant's own pods, and as many as there are.
    #[test]
    fn what_is_shown_is_the_tenants(
        series in proptest::collection::vec((0..4_usize, 0..5_usize, "[a-z\"\\\\\n}{, =#]{0,12}", 0..3_usize), 0..20)
    ) {
        let namespaces = ["team", "other", "TEAM", ""];
        let pods = ["web-x-default-x-alpha", "web-x-default-x-alphabet", "away-x-default-x-alpha", "foreign", ""];
        let names = ["device", "container", "unheard_of"];
        let (mut text, mut expected) = (Vec::new(), 0);
        for (namespace, pod, value, name) in &series {
            text.extend_from_slice(b"x{");
            for (label, value) in [("namespace", namespaces[*namespace]), (names[*name], value), ("pod", pods[*pod])] {
                exposition::label(&mut text, label, value);
                text.push(b',');
            }
            text.extend_from_slice(b"} 1\n");
            expected += usize::from(*namespace == 0 && *pod == 0 && *name < 2);
        }
        let shown = filtered(&String::from_utf8(text).expect("text"), false);
        let mut count = 0;
        for line in shown.lines() {
            let Some(Line::Sample(sample)) = Line::parse(line.as_bytes()) else { panic!("{line}") };
            let (namespace, pod) = (sample.labels.get("namespace"), sample.labels.get("pod"));
            proptest::prop_assert_eq!((namespace.as_deref(), pod.as_deref()), (Some("default"), Some("web")));
            proptest::prop_assert!(!line.contains("unheard_of") && !line.contains("-x-"));
            count += 1;
        }
        proptest::prop_assert_eq!(count, expected);
    }
}
