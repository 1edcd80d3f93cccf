use std::fs;

use super::*;
use crate::config::audit::{AuditFile, AuditSpool, AuditWebhook};

fn file(path: &std::path::Path, max_size_mb: u64, max_files: u32) -> AuditConfig {
    let file = AuditFile { path: path.to_string_lossy().into_owned(), max_size_mb, max_files };
    AuditConfig { enabled: true, file, ..AuditConfig::default() }
}

fn add(archive: &Archive, number: usize, bytes: usize) {
    let line = format!("{{\"n\":{number},\"x\":\"{}\"}}\n", "y".repeat(bytes)).into_bytes();
    let now = tokio::time::Instant::now();
    archive.trail().add(&Arc::default(), line, None, (true, false), now);
}

fn numbers(path: &std::path::Path) -> Vec<u64> {
    let text = fs::read_to_string(path).expect("read");
    assert!(text.is_empty() || text.ends_with('\n'));
    let read = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("whole")["n"].as_u64().expect("n");
    text.lines().map(read).collect()
}

#[tokio::test]
async fn what_was_given_is_written_before_the_end() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("audit.log");
    let archive = start(&file(&path, 100, 10), &Clock::system()).expect("begun");
    for n in 0..1000 {
        add(&archive, n, 10);
    }
    archive.close().await;
    assert_eq!(numbers(&path), (0..1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_torn_line_is_cut_and_the_file_goes_on() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("audit.log");
    fs::write(&path, "{\"n\":1}\n{\"n\":2}\n{\"n\":").expect("written");
    let archive = start(&file(&path, 100, 10), &Clock::system()).expect("begun");
    add(&archive, 3, 0);
    archive.close().await;
    assert_eq!(numbers(&path), [1, 2, 3]);
}

#[tokio::test]
async fn full_files_are_put_aside_and_the_oldest_goes() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("audit.log");
    let archive = start(&file(&path, 1, 3), &Clock::system()).expect("begun");
    for n in 0..1000 {
        add(&archive, n, 6000);
        while archive.trail().waiting() > 1 << 20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    archive.close().await;
    let of = |end: &str| folder.path().join(format!("audit.log{end}"));
    let all: Vec<u64> = [".2", ".1", ""].iter().flat_map(|end| numbers(&of(end))).collect();
    assert!(all.len() > 300 && all.last() == Some(&999), "{}", all.len());
    assert!(all.windows(2).all(|two| two[0] + 1 == two[1]), "nothing is missing between them");
    assert!(!of(".3").exists());
    for end in ["", ".1", ".2"] {
        assert!(fs::metadata(of(end)).expect("there").len() <= 1 << 20);
    }
}

#[tokio::test]
async fn a_second_process_writes_a_file_of_its_own() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("audit.log");
    let [first, second] = [(); 2].map(|()| start(&file(&path, 1, 3), &Clock::system()).expect("begun"));
    add(&first, 1, 0);
    add(&second, 2, 0);
    first.close().await;
    second.close().await;
    assert_eq!((numbers(&path), numbers(&folder.path().join("audit-1.log"))), (vec![1], vec![2]));
}

#[tokio::test]
async fn what_cannot_be_written_is_said_at_the_beginning() {
    let nowhere = start(&file("/nowhere/audit.log".as_ref(), 1, 1), &Clock::system()).expect_err("no such folder");
    assert!(nowhere.to_string().contains("/nowhere/audit.log"), "{nowhere}");
    let folder = tempfile::tempdir().expect("folder");
    let spool = AuditSpool { path: folder.path().to_string_lossy().into_owned(), ..AuditSpool::default() };
    let webhook = AuditWebhook {
        url: "https://sink.example.com/audit".to_owned(),
        ca_file: "/nowhere/ca.crt".to_owned(),
        ..AuditWebhook::default()
    };
    let config = AuditConfig { enabled: true, spool, webhook, ..AuditConfig::default() };
    let error = start(&config, &Clock::system()).expect_err("no CA");
    assert!(error.to_string().contains("/nowhere/ca.crt"), "{error}");
}
