//! exec, attach, logs, port-forward and cp reach the host's pods, over WebSocket and over SPDY, for those who may.

use std::hash::{BuildHasher as _, Hasher as _};

use serde_json::json;

use crate::harness::sidecar::audit_log;
use crate::harness::{
    AGNHOST, BUSYBOX, Dump, Invocation, Space, alpha, beta, eventually, http_get, sleeper, user_of, with_user,
};

/// kubectl takes SPDY when WebSocket is switched off.
const PROTOCOLS: [(&str, &str); 2] = [("websocket", "true"), ("spdy", "false")];
const EXEC: &str = "KUBECTL_REMOTE_COMMAND_WEBSOCKETS";
const FORWARD: &str = "KUBECTL_PORT_FORWARD_WEBSOCKETS";

fn noise(len: usize) -> Vec<u8> {
    let state = std::collections::hash_map::RandomState::new();
    (0..len as u64 / 8 + 1)
        .flat_map(|n| {
            let mut hasher = state.build_hasher();
            hasher.write_u64(n);
            hasher.finish().to_le_bytes()
        })
        .take(len)
        .collect()
}

#[test]
fn exec_carries_codes_streams_and_bytes() {
    let space = alpha().space("exec");
    let _dump = Dump(vec![alpha()]);
    space.pod("box");
    let sent = noise(1 << 20);
    for (protocol, websockets) in PROTOCOLS {
        let exec = |arguments: &[&str]| space.invocation(arguments).env(EXEC, websockets);
        let code = exec(&["exec", "box", "--", "sh", "-c", "exit 7"]).run();
        assert_eq!(code.code, 7, "{protocol}: {code}");
        let both = exec(&["exec", "box", "--", "sh", "-c", "echo out; echo err >&2"]).run();
        assert_eq!((both.out().as_str(), both.err.trim()), ("out\n", "err"), "{protocol}");
        let back = exec(&["exec", "-i", "box", "--", "cat"]).stdin(&sent).run();
        assert_eq!(back.code, 0, "{protocol}: {}", back.err);
        assert!(back.bytes == sent, "{protocol}: {} of {} bytes, or other ones", back.bytes.len(), sent.len());
        exec(&["exec", "box", "-c", "none", "--", "true"]).run().fails(&["none"]);
        exec(&["exec", "nobody", "--", "true"]).run().fails(&["not found"]);
    }
}

/// With the tenant and its user, though all of them are Portico's calls.
#[test]
fn the_hosts_audit_log_says_whose_an_exec_was() {
    let space = alpha().space("audited");
    let _dump = Dump(vec![alpha()]);
    space.pod("box");
    space.kubectl(&["exec", "box", "--", "true"]).ok();
    let pod = space.host_name("box");
    let entry = eventually("an entry", || {
        let all = audit_log();
        let is_it =
            |e: &&serde_json::Value| e["objectRef"]["name"] == pod.as_str() && e["objectRef"]["subresource"] == "exec";
        all.iter().find(is_it).cloned().ok_or_else(|| format!("{} entries, none of {pod}", all.len()))
    });
    let agent = entry["userAgent"].as_str().unwrap_or_default();
    let whose = format!("({}/{}; ", alpha().namespace, alpha().name);
    assert!(agent.starts_with("portico/") && agent.contains(&whose), "{entry}");
    let user = alpha().kubectl(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]).ok();
    assert!(agent.contains(&user), "{entry}");
}

#[test]
fn many_execs_in_a_row() {
    let space = alpha().space("execs");
    let _dump = Dump(vec![alpha()]);
    space.pod("box");
    for n in 0..10 {
        let (_, websockets) = PROTOCOLS[n % 2];
        let said = space.invocation(&["exec", "box", "--", "echo", &n.to_string()]).env(EXEC, websockets).run().ok();
        assert_eq!(said.trim(), n.to_string());
    }
}

#[test]
fn attach_reads_and_writes() {
    let space = alpha().space("attach");
    let _dump = Dump(vec![alpha()]);
    for (protocol, websockets) in PROTOCOLS {
        space.apply(
            &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": protocol}, "spec": {"restartPolicy": "Never", "containers": [
                {"name": "main", "image": BUSYBOX, "stdin": true, "command": ["sh", "-c", "while read -r word; do echo got $word; done"]}]}})
            .to_string(),
        );
        space.wait(&format!("pod/{protocol}"), "condition=Ready");
        let mut attached = space.invocation(&["attach", "-i", protocol]).env(EXEC, websockets).start();
        for word in ["first", "second"] {
            attached.write(format!("{word}\n").as_bytes());
            attached.line_with(&format!("got {word}"));
        }
    }
}

#[test]
fn logs_whole_and_followed() {
    let space = alpha().space("logs");
    let _dump = Dump(vec![alpha()]);
    let script = "for i in 1 2 3 4 5; do echo line $i; done; until [ -e /tmp/end ]; do sleep 0.2; done; echo last";
    space.apply(
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "talker"}, "spec": {"restartPolicy": "Never", "containers": [
            {"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script]}]}})
        .to_string(),
    );
    space.wait("pod/talker", "condition=Ready");
    eventually("the first lines", || match space.kubectl(&["logs", "talker"]).ok() {
        text if text == "line 1\nline 2\nline 3\nline 4\nline 5\n" => Ok(()),
        text => Err(text),
    });
    let follow = space.invocation(&["logs", "-f", "talker", "--tail=1"]).start();
    follow.line_with("line 5");
    space.sh("talker", "touch /tmp/end").ok();
    follow.line_with("last");
    let limited = space.kubectl(&["logs", "talker", "--limit-bytes=6"]).ok();
    assert_eq!(limited, "line 1");
}

#[test]
fn port_forward_serves_http() {
    let space = alpha().space("forward");
    let _dump = Dump(vec![alpha()]);
    web(&space, "web");
    for (protocol, websockets) in PROTOCOLS {
        let forward = space.invocation(&["port-forward", "pod/web", ":8080"]).env(FORWARD, websockets).start();
        let line = forward.line_with("Forwarding from 127.0.0.1:");
        let port = line.split("127.0.0.1:").nth(1).and_then(|l| l.split(' ').next()).expect("a port").to_owned();
        for _ in 0..3 {
            let answer =
                http_get(&format!("127.0.0.1:{port}"), "/hostname").unwrap_or_else(|e| panic!("{protocol}: {e}"));
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("web"), "{protocol}: {answer}");
        }
    }
}

fn web(space: &Space, name: &str) {
    space.apply(
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [
            {"name": "main", "image": AGNHOST, "args": ["netexec", "--http-port=8080"]}]}})
        .to_string(),
    );
    space.wait(&format!("pod/{name}"), "condition=Ready");
}

#[test]
fn files_are_copied_both_ways() {
    let space = alpha().space("cp");
    let _dump = Dump(vec![alpha()]);
    space.pod("box");
    let dir = tempfile::tempdir().expect("a folder");
    let (there, back) = (dir.path().join("there"), dir.path().join("back"));
    let sent = noise(300_000);
    std::fs::write(&there, &sent).expect("written");
    space.kubectl(&["cp", &there.display().to_string(), "box:/tmp/file"]).ok();
    space.kubectl(&["cp", "box:/tmp/file", &back.display().to_string()]).ok();
    assert!(std::fs::read(&back).expect("copied") == sent, "other bytes came back");
}

#[test]
fn who_may_only_get_may_not_exec() {
    let space = alpha().space("getonly");
    let _dump = Dump(vec![alpha()]);
    space.pod("box");
    let reader = space.account(
        "reader",
        &json!([{"apiGroups": [""], "resources": ["pods", "pods/exec", "pods/attach", "pods/portforward"], "verbs": ["get", "list"]}]),
    );
    for (_, websockets) in PROTOCOLS {
        let exec = ["-n", &space.name, "exec", "box", "--", "true"];
        Invocation::kubectl(&reader, &exec).env(EXEC, websockets).run().fails(&["forbidden"]);
        let forward = ["-n", &space.name, "port-forward", "pod/box", ":8080"];
        // kubectl notices at the first connection by WebSocket; a refused upgrade ends it with SPDY.
        if websockets == "false" {
            Invocation::kubectl(&reader, &forward).env(FORWARD, websockets).run().fails(&["forbidden"]);
        }
    }
    crate::harness::kubectl(&reader, &["-n", &space.name, "logs", "box"]).fails(&["forbidden"]);
}

#[test]
fn hostile_the_same_names_in_two_tenants_never_mix() {
    let (mine, theirs) = (alpha().space("twin"), beta().space("twin"));
    assert_eq!(mine.name, theirs.name);
    let _dump = Dump(vec![alpha(), beta()]);
    for space in [&mine, &theirs] {
        space.pod("twin");
        space.sh("twin", &format!("echo {} >/tmp/whose", space.tenant.name)).ok();
    }
    for space in [&mine, &theirs] {
        assert_eq!(space.sh("twin", "cat /tmp/whose").ok().trim(), space.tenant.name);
    }
    // beta's admin at alpha's pod, and a pod of beta with the name that alpha's has on the host.
    let intruder = with_user(&alpha().kubeconfig, &user_of(&beta().kubeconfig), "intruder");
    for (_, websockets) in PROTOCOLS {
        let exec = ["-n", &mine.name, "exec", "twin", "--", "cat", "/tmp/whose"];
        Invocation::kubectl(&intruder, &exec).env(EXEC, websockets).run().fails(&[
            "unauthorized",
            "logged in",
            "credentials",
        ]);
    }
    let crafted = mine.host_name("twin");
    theirs.apply(&sleeper(&crafted));
    theirs.wait(&format!("pod/{crafted}"), "condition=Ready");
    let said = theirs.sh(&crafted, "cat /tmp/whose");
    assert!(!said.out().contains("alpha"), "{said}");
}

#[test]
fn host_names_do_not_leak_in_errors() {
    let space = alpha().space("leak");
    let _dump = Dump(vec![alpha()]);
    space.pod("box");
    let refused = space.kubectl(&["logs", "box", "-c", "none"]);
    assert!(!refused.err.contains("-x-") && !refused.err.contains("e2e-a"), "{refused}");
    refused.fails(&["none"]);
}
