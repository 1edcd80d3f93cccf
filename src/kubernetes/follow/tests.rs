//! The driver over a simulated API server: lost, repeated, refused and broken watches, lists in pages and streams.

use std::collections::BTreeMap;

use futures::StreamExt;
use serde_json::{Value, json};

use super::objects::{self, Change, Key};
use super::*;
use crate::kubernetes::ListOptions;
use crate::kubernetes::resources::CONFIG_MAPS;
use crate::kubernetes::testing::{Faults, Server};

fn server() -> Server {
    Server::new("s", Side::Backend, Faults::none())
}

fn put(server: &Server, name: &str, data: u32) {
    server.put("configmaps", json!({"metadata": {"namespace": "n", "name": name}, "data": {"n": data}}));
}

fn delete(server: &Server, name: &str) {
    server.delete_gracefully("configmaps", "n", name, None);
}

fn followed() -> Followed {
    Followed {
        owner: "test".to_owned(),
        resource: CONFIG_MAPS,
        namespace: None,
        options: ListOptions::default(),
        streams: true,
        resumes: true,
        relist_after: Duration::from_secs(600),
        patience: Duration::ZERO,
        bounds: Bounds::default(),
    }
}

fn clock() -> Clock {
    Clock::seeded("2026-01-01T00:00:00Z".parse().expect("time"), 1)
}

/// A reader that keeps what it is told, as all readers do: a list replaces.
struct Reader {
    follower: Follower,
    known: BTreeMap<String, Value>,
    list: Option<BTreeMap<String, Value>>,
    told: Vec<String>,
}

impl Reader {
    fn new(followed: Followed) -> Self {
        Self { follower: Follower::new(followed, clock()), known: BTreeMap::new(), list: None, told: Vec::new() }
    }

    async fn one(&mut self, server: &Server) {
        let event = self.follower.next(server).await;
        let read = |bytes: &Bytes| -> (String, Value, String) {
            let object: Value = serde_json::from_slice(bytes).expect("json");
            let text = |field: &str| object["metadata"][field].as_str().expect("text").to_owned();
            (text("name"), object["data"]["n"].clone(), text("resourceVersion"))
        };
        let line = match event {
            Event::Opens => "opens".to_owned(),
            Event::Lists => {
                self.list = Some(BTreeMap::new());
                "lists".to_owned()
            }
            Event::Applied(bytes) => {
                let (name, data, version) = read(&bytes);
                let line = format!("+{name}");
                match &mut self.list {
                    Some(list) => list.insert(name, data),
                    None => {
                        self.follower.reached(&version);
                        self.known.insert(name, data)
                    }
                };
                line
            }
            Event::Deleted(bytes) => {
                let (name, _, version) = read(&bytes);
                self.follower.reached(&version);
                self.list.as_mut().unwrap_or(&mut self.known).remove(&name);
                format!("-{name}")
            }
            Event::Listed(_) => {
                self.known = self.list.take().expect("a list had begun");
                "listed".to_owned()
            }
            Event::Watches => "watches".to_owned(),
            Event::Bookmark(_) => "bookmark".to_owned(),
            Event::Broken(error) => {
                self.list = None;
                format!("broken {:?}", error.kind())
            }
        };
        self.told.push(line);
    }

    /// Until nothing comes for a while of the paused clock.
    async fn settle(&mut self, server: &Server, while_: Duration) -> Vec<String> {
        let until = Instant::now() + while_;
        while tokio::time::timeout_at(until, self.one(server)).await.is_ok() {}
        self.told.retain(|line| !matches!(line.as_str(), "bookmark" | "watches"));
        std::mem::take(&mut self.told)
    }
}

const MOMENT: Duration = Duration::from_secs(5);

fn names(known: &BTreeMap<String, Value>) -> Vec<&str> {
    known.keys().map(String::as_str).collect()
}

#[tokio::test(start_paused = true)]
async fn a_list_streamed_or_in_pages_and_the_watch_behind_it() {
    for streams in [true, false] {
        let server = server();
        server.streams_lists(streams);
        server.page_size(2);
        for name in ["a", "b", "c", "d", "e"] {
            put(&server, name, 0);
        }
        let mut reader = Reader::new(followed());
        let told = reader.settle(&server, MOMENT).await;
        assert_eq!(told, ["opens", "lists", "+a", "+b", "+c", "+d", "+e", "listed"], "streams: {streams}");
        assert_eq!(server.counts().pages, if streams { 0 } else { 3 });
        put(&server, "b", 1);
        delete(&server, "c");
        assert_eq!(reader.settle(&server, MOMENT).await, ["+b", "-c"]);
        assert_eq!((names(&reader.known), &reader.known["b"]), (vec!["a", "b", "d", "e"], &json!(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_or_breaks_goes_on_where_it_was() {
    let server = server();
    put(&server, "a", 0);
    let mut reader = Reader::new(followed());
    reader.settle(&server, MOMENT).await;
    for polite in [true, false] {
        server.cut_watches(polite);
        delete(&server, "a");
        put(&server, "a", 1);
        let told = reader.settle(&server, MOMENT).await;
        let broken: &[&str] = if polite { &[] } else { &["broken Closed"] };
        assert_eq!(told, [broken, &["opens", "-a", "+a"]].concat());
    }
    assert_eq!(server.counts().lists, 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_watch_cannot_tell_any_more_is_listed() {
    let server = server();
    put(&server, "kept", 0);
    put(&server, "gone", 0);
    let mut reader = Reader::new(followed());
    reader.settle(&server, MOMENT).await;
    server.cut_watches(false);
    delete(&server, "gone");
    put(&server, "new", 0);
    server.compact();
    let told = reader.settle(&server, MOMENT).await;
    let wanted = ["broken Closed", "opens", "broken Gone", "opens", "lists", "+kept", "+new", "listed"];
    assert_eq!(told, wanted);
    assert_eq!(names(&reader.known), ["kept", "new"]);
}

#[tokio::test(start_paused = true)]
async fn lost_events_are_made_up_for_by_the_next_list_and_repeated_ones_do_no_harm() {
    let server = server();
    put(&server, "a", 0);
    let mut reader = Reader::new(followed());
    reader.settle(&server, MOMENT).await;
    server.repeat_events(true);
    put(&server, "a", 1);
    assert_eq!(reader.settle(&server, MOMENT).await, ["+a", "+a"]);
    server.lose_events(2);
    delete(&server, "a");
    put(&server, "b", 0);
    assert!(reader.settle(&server, MOMENT).await.is_empty(), "nobody knows");
    let told = reader.settle(&server, Duration::from_secs(721)).await;
    assert_eq!(told, ["opens", "lists", "+b", "listed"]);
    assert_eq!((names(&reader.known), server.counts().lists), (vec!["b"], 2));
}

#[tokio::test(start_paused = true)]
async fn without_resuming_a_list_comes_between_watches() {
    let server = server();
    put(&server, "a", 0);
    let mut reader = Reader::new(Followed { resumes: false, ..followed() });
    reader.settle(&server, MOMENT).await;
    // An older store under the same versions: only a list tells.
    let backup = server.backup();
    put(&server, "b", 0);
    assert_eq!(reader.settle(&server, MOMENT).await, ["+b"]);
    server.restore(&backup);
    put(&server, "c", 0);
    let told = reader.settle(&server, MOMENT).await;
    assert_eq!(told, ["broken Closed", "opens", "lists", "+a", "+c", "listed"]);
    assert_eq!(names(&reader.known), ["a", "c"]);
    // Between an orderly end and the next list nothing is known to be new, and whoever reads learns it at once.
    server.cut_watches(true);
    let told = reader.settle(&server, MOMENT).await;
    assert_eq!(told, ["broken Gone", "opens", "lists", "+a", "+c", "listed"]);
}

#[tokio::test(start_paused = true)]
async fn it_is_told_when_a_watch_is_open() {
    for streams in [true, false] {
        let server = server();
        server.streams_lists(streams);
        let mut reader = Reader::new(followed());
        let watches = server.counts().watches;
        for line in ["opens", "lists", "listed"] {
            reader.one(&server).await;
            assert_eq!(reader.told.last().map(String::as_str), Some(line), "streams: {streams}");
        }
        reader.one(&server).await;
        assert_eq!(reader.told.last().map(String::as_str), Some("watches"), "streams: {streams}");
        assert!(server.counts().watches > watches);
        server.cut_watches(true);
        for line in ["opens", "watches"] {
            reader.one(&server).await;
            assert_eq!(reader.told.last().map(String::as_str), Some(line), "streams: {streams}");
        }
    }
}

/// Whoever fails over an event or a list gets it again, and nothing of it counts.
#[tokio::test(start_paused = true)]
async fn what_was_not_taken_comes_again() {
    let server = server();
    put(&server, "a", 0);
    put(&server, "b", 0);
    let mut reader = Reader::new(followed());
    while reader.told.last().is_none_or(|line| line != "+a") {
        reader.one(&server).await;
    }
    reader.follower.reopen();
    let told = reader.settle(&server, MOMENT).await;
    assert_eq!(told, ["opens", "lists", "+a", "opens", "lists", "+a", "+b", "listed"], "half a list is none");
    // The reader fails over an event before it says that it was reached.
    put(&server, "c", 0);
    assert!(matches!(reader.follower.next(&server).await, Event::Applied(_)));
    reader.follower.reopen();
    assert_eq!(reader.settle(&server, MOMENT).await, ["opens", "+c"]);
    // It doubts the server that sent the list.
    reader.follower.relist();
    while reader.told.last().is_none_or(|line| line != "listed") {
        reader.one(&server).await;
    }
    reader.told.clear();
    reader.follower.reject(&Error::backend(Kind::Conflict, "another store"));
    let told = reader.settle(&server, MOMENT).await;
    assert_eq!(told, ["opens", "lists", "+a", "+b", "+c", "listed"]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expires_leads_to_one_list_asked_for_whole() {
    let server = server();
    server.streams_lists(false);
    server.page_size(2);
    for name in ["a", "b", "c"] {
        put(&server, name, 0);
    }
    let mut reader = Reader::new(followed());
    while reader.told.last().is_none_or(|line| line != "+b") {
        reader.one(&server).await;
    }
    server.expire_tokens();
    delete(&server, "a");
    let told = reader.settle(&server, MOMENT).await;
    assert_eq!(told, ["opens", "lists", "+a", "+b", "lists", "+b", "+c", "listed"]);
    assert_eq!(names(&reader.known), ["b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_list_without_end_is_given_up() {
    for streams in [true, false] {
        let server = server();
        server.streams_lists(streams);
        for n in 0..20 {
            put(&server, &format!("o{n:02}"), 0);
        }
        let bounds = Bounds { objects: 10, page: 5, ..Bounds::default() };
        let mut reader = Reader::new(Followed { bounds, ..followed() });
        let told = reader.settle(&server, Duration::from_millis(100)).await;
        assert_eq!((told.len(), told.last().map(String::as_str)), (13, Some("broken TooLarge")));
        assert!(reader.known.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_or_ends_watches_at_once_is_asked_with_growing_pauses() {
    let server = server();
    put(&server, "a", 0);
    server.short_watches(true);
    let mut reader = Reader::new(followed());
    reader.settle(&server, Duration::from_secs(300)).await;
    assert!((10..40).contains(&server.counts().lists), "{:?}", server.counts());
    server.short_watches(false);
    server.down(true);
    let told = reader.settle(&server, Duration::from_secs(300)).await;
    assert!((10..40).contains(&told.iter().filter(|line| line.starts_with("broken")).count()), "{told:?}");
    server.down(false);
    put(&server, "b", 0);
    reader.settle(&server, Duration::from_secs(30)).await;
    assert_eq!(names(&reader.known), ["a", "b"]);
}

/// The call may be dropped wherever it waits: nothing is lost.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_loses_nothing() {
    let faults = Faults::new(3);
    let server = Server::new("s", Side::Backend, faults.clone());
    let mut reader = Reader::new(followed());
    for n in 0..300_u32 {
        put(&server, &format!("o{}", n % 7), n);
        if n % 5 == 0 {
            delete(&server, &format!("o{}", n % 3));
        }
        if n % 40 == 0 {
            server.compact();
        }
        let _ = tokio::time::timeout(Duration::from_millis(u64::from(n % 9)), reader.one(&server)).await;
    }
    faults.stop();
    reader.follower.relist();
    reader.settle(&server, Duration::from_secs(60)).await;
    let there: BTreeMap<String, Value> = server
        .objects("configmaps")
        .iter()
        .map(|o| (o["metadata"]["name"].as_str().expect("name").to_owned(), o["data"]["n"].clone()))
        .collect();
    assert_eq!(reader.known, there);
}

#[tokio::test(start_paused = true)]
async fn whole_objects_say_what_is_gone_and_what_cannot_be_read_is_there() {
    let server = server();
    put(&server, "a", 0);
    put(&server, "b", 0);
    let before = Key { namespace: "n".to_owned(), name: "before".to_owned() };
    let shared = std::sync::Arc::new(server.clone());
    let mut changes = Box::pin(objects::changes(shared, followed(), [before], clock()));
    let keys = |keys: &[Key]| keys.iter().map(|key| key.name.clone()).collect::<Vec<_>>();
    let Some(Change::Reset { live, removed }) = changes.next().await else { panic!("a reset comes first") };
    assert_eq!(
        (live.len(), live[0]["kind"].as_str(), keys(&removed)),
        (2, Some("ConfigMap"), vec!["before".to_owned()])
    );
    put(&server, "a", 1);
    assert!(matches!(changes.next().await, Some(Change::Applied(object)) if object["data"]["n"] == 1));
    // Too deep to be parsed, but there.
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    server.change("configmaps", "n", "b", |object| object["deep"] = deep);
    server.cut_watches(false);
    server.compact();
    delete(&server, "a");
    server.compact();
    let Some(Change::Reset { live, removed }) = changes.next().await else { panic!("a list") };
    assert_eq!((live.len(), keys(&removed)), (0, vec!["a".to_owned()]));
    delete(&server, "b");
    assert!(matches!(changes.next().await, Some(Change::Deleted(key)) if key.name == "b"));
}
