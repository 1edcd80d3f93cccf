//! Pods, field by field.

use super::*;
use crate::translate::legacy;

fn sample_pod() -> Value {
    json!({
        "metadata": {"name": "web-0", "namespace": "default", "uid": "u1", "labels": {"app": "web"}},
        "spec": {"subdomain": "web", "serviceAccountName": "builder", "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"name": "c", "image": "nginx:1", "env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "creds", "key": "k"}}}],
                "volumeMounts": [{"name": "s", "mountPath": "/s"}, {"name": "api", "mountPath": "/api"}]}],
            "volumes": [{"name": "s", "secret": {"secretName": "creds"}},
                {"name": "api", "projected": {"sources": [{"configMap": {"name": "c"}}, {"serviceAccountToken": {"path": "token"}}]}}]},
    })
}

#[test]
fn what_a_pod_uses_of_others_is_left_out_and_its_token_stays_where_it_was() {
    let mut host = stored(&to_host(&sample_pod(), &Around::default(), &view()).expect("valid"));
    host["spec"]["volumes"][0]["secret"]["secretName"] = json!("creds-x-default-x-vc2");
    host["spec"]["volumes"][1]["projected"]["sources"][0]["configMap"]["name"] = json!("admins");
    host["spec"]["containers"][0]["env"].as_array_mut().expect("env").last_mut().expect("own")["valueFrom"]["secretKeyRef"]
        ["name"] = json!("admins");
    host["spec"]["imagePullSecrets"][0]["name"] = json!("admins");
    host["spec"]["ephemeralContainers"] = json!([{"name": "debug"}]);
    let back = restored(POD, &host);
    let spec = &back.object["spec"];
    assert!(!spec.to_string().contains("vc2") && !spec.to_string().contains("admins"), "{spec:#}");
    assert!(spec.get("imagePullSecrets").is_none() && spec["containers"][0].get("env").is_none(), "{spec:#}");
    assert_eq!(spec["volumes"][0], json!({"name": "left-out-0", "emptyDir": {}}));
    assert_eq!(spec["volumes"][1]["projected"]["sources"][0], json!({"downwardAPI": {}}));
    let token = json!({"path": "token", "expirationSeconds": 3607});
    assert_eq!(spec["volumes"][1]["projected"]["sources"][1]["serviceAccountToken"], token);
    assert_eq!(spec["containers"][0]["volumeMounts"], json!([{"name": "api", "mountPath": "/api"}]));
    assert_eq!((&spec["subdomain"], &spec["hostname"]), (&json!("web"), &json!("web-0")));
    // Ephemeral containers, three names, one volume, and for whom the token was.
    assert_eq!(back.lost.len(), 6, "{:#?}", back.lost);
}

#[test]
fn a_relinked_pod_keeps_the_secret_that_it_mounts() {
    let view = view();
    let mut host = stored(&to_host(&sample_pod(), &Around::default(), &view).expect("valid"));
    let mounted = pod::tokens(&sample_pod(), None, &view).expect("tokens").secret;
    for uid in ["u2", "u3"] {
        let created = with_uid(&restored(POD, &host), uid);
        let patch = relink(POD, &host, &created, &view).expect("its own");
        assert_eq!(patch["metadata"]["uid"], "host-uid");
        for (key, value) in patch["metadata"]["annotations"].as_object().expect("annotations") {
            host["metadata"]["annotations"][key] = value.clone();
        }
        assert_eq!(identity::recorded_uid(&host), uid);
        assert_eq!(pod::tokens(&created, Some(&host), &view).expect("tokens").secret, mounted);
        assert_eq!(pod::update::update(&created, &host, &view).patch, None);
        assert_eq!(pod::update::resize(&created, &host, &view), None);
        assert_eq!(relink(POD, &host, &created, &view).expect("again"), json!({"metadata": {"uid": "host-uid"}}));
    }
}

#[test]
fn an_unknown_account_and_a_choice_of_images_are_said() {
    let mut view = view();
    let mut host = to_host(&sample_pod(), &Around::default(), &view).expect("valid");
    host["metadata"]["annotations"].as_object_mut().expect("object").remove(pod::SERVICE_ACCOUNT);
    for image in ["a", "b"] {
        view.translate_images.insert(image.to_owned(), "nginx:1".to_owned());
    }
    let back = object(POD, &host, &view, &Recorded::default()).expect("ours");
    assert_eq!(back.object["spec"]["serviceAccountName"], "default");
    assert_eq!(back.object["spec"]["containers"][0]["image"], "nginx:1");
    assert!(back.lost.iter().any(|l| l.contains("ServiceAccount")) && back.lost.iter().any(|l| l.contains("nginx:1")));
}

#[test]
fn a_pod_of_vcluster_comes_back_as_far_as_can_be_told() {
    let view = view();
    let mut host = old_vcluster().pod(&sample_pod(), "builder-token-abcde");
    host["metadata"]["uid"] = json!("h");
    let object_of = sample_pod();
    let legacy::Verdict::Adopt { patch, .. } = judged(&host, &object_of, &view) else { panic!("not adopted") };
    for field in ["labels", "annotations"] {
        for (key, value) in patch["metadata"][field].as_object().expect("object") {
            host["metadata"][field][key] = value.clone();
        }
    }
    let back = object(POD, &host, &view, &Recorded::default()).expect("ours");
    let spec = &back.object["spec"];
    assert_eq!(back.object["metadata"]["labels"], json!({"app": "web"}));
    assert!(back.object["metadata"].get("annotations").is_none(), "{:#}", back.object["metadata"]);
    assert_eq!(spec["volumes"][0]["secret"]["secretName"], "creds");
    assert_eq!(spec["volumes"][1]["projected"]["sources"][1]["serviceAccountToken"]["path"], "token");
    assert_eq!((&spec["dnsPolicy"], &spec["hostAliases"]), (&json!("ClusterFirst"), &json!([])));
    assert_eq!(spec["serviceAccountName"], "builder");
}

fn judged(host: &Value, object: &Value, view: &View) -> legacy::Verdict {
    legacy::judge(POD, host, &[object], legacy::Around::default(), view)
}

#[test]
fn tokens_are_read_back_from_their_record() {
    let listed = [("token-0-0", "", 3607), ("token-1-1", "https://vault,token=x@y", 7200), ("token-10-1", "b", 600)];
    let spec = pod::volumes::token_spec("u", "sa", listed.into_iter());
    let read = pod::volumes::tokens_of_spec(&spec);
    assert_eq!(read.len(), listed.len(), "{read:?}");
    for (key, audience, seconds) in listed {
        assert_eq!(read.get(key), Some(&(audience.to_owned(), seconds)), "{key} in {spec}");
    }
    assert_eq!(pod::volumes::token_place("token-10-1"), Some((10, 1)));
    for wrong in ["token-01-1", "token-1", "token-+1-1", "token"] {
        assert_eq!(pod::volumes::token_place(wrong), None, "{wrong}");
    }
}
