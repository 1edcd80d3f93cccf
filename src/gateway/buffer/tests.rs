use http_body_util::{Full, StreamBody};
use hyper::body::Frame;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn share(limit: usize) -> Arc<Share> {
    Share::of(Arc::new(Budget::new(limit)), Arc::default())
}

fn body(length: usize) -> Full<Bytes> {
    Full::new(Bytes::from(vec![b'x'; length]))
}

#[tokio::test]
async fn the_budget_is_drawn_as_bytes_come_and_given_back_with_the_last_reference() {
    let share = share(4 << 20);
    let pieces = (0..100).map(|_| Ok::<_, BoxError>(Frame::data(Bytes::from(vec![1; 1000]))));
    let stream = StreamBody::new(futures::stream::iter(pieces));
    let bytes = read(stream, 200_000, SECOND, &share).await.expect("read");
    assert_eq!(bytes.len(), 100_000);
    assert!((100_000..=200_000).contains(&share.in_use()), "{}", share.in_use());
    assert_eq!(share.in_use(), share.process.used.load(Ordering::Relaxed));
    let copy = bytes.slice(1..2);
    drop(bytes);
    assert!(share.in_use() >= 100_000);
    drop(copy);
    assert_eq!((share.in_use(), share.process.used.load(Ordering::Relaxed)), (0, 0));
}

#[tokio::test]
async fn over_a_share_or_over_all_it_is_429_and_the_other_tenant_has_its_own() {
    let process = Arc::new(Budget::new(400_000));
    let (a, b) = (Share::of(Arc::clone(&process), Arc::default()), Share::of(Arc::clone(&process), Arc::default()));
    let held = read(body(60_000), 100_000, SECOND, &a).await.expect("read");
    let refused = read(body(60_000), 100_000, SECOND, &a).await;
    let Err(Failure::Full(error)) = refused else { panic!("{refused:?}") };
    assert_eq!(
        (error.kind(), error.to_status().details.expect("details").retry_after_seconds),
        (Kind::TooManyRequests, 1)
    );
    assert_eq!((a.in_use(), a.refused()), (60_000, 1));
    let others = read(body(60_000), 100_000, SECOND, &b).await.expect("read");
    let _all = [a.draw(40_000), b.draw(40_000)].map(|drawn| drawn.expect("its share"));
    let (c, d, e) = (
        Share::of(Arc::clone(&process), Arc::default()),
        Share::of(Arc::clone(&process), Arc::default()),
        Share::of(Arc::clone(&process), Arc::default()),
    );
    let _rest = [c.draw(100_000), d.draw(100_000)].map(|drawn| drawn.expect("the rest"));
    assert_eq!(e.draw(1).expect_err("full").kind(), Kind::TooManyRequests);
    assert_eq!(e.in_use(), 0);
    drop((held, others));
    e.draw(1).expect("there is again");
}

#[tokio::test]
async fn what_never_fits_is_413() {
    assert_eq!(share(400).draw(101).expect_err("too large").kind(), Kind::TooLarge);
}

#[tokio::test]
async fn limits_and_deadlines_give_everything_back() {
    let share = share(4 << 20);
    assert!(matches!(read(body(1001), 1000, SECOND, &share).await, Err(Failure::TooLong(1000))));
    assert_eq!(read(body(1000), 1000, SECOND, &share).await.expect("exactly").len(), 1000);
    assert_eq!(read(body(0), 1000, SECOND, &share).await.expect("nothing").len(), 0);
    tokio::time::pause();
    let never = StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, BoxError>>());
    assert!(matches!(read(never, 1000, SECOND, &share).await, Err(Failure::Late)));
    assert_eq!(share.in_use(), 0);
}

#[test]
fn no_text_is_parsed_into_more_than_its_weight() {
    assert_eq!(size_of::<serde_json::Value>(), 32);
    assert!(weight(br#"{"a":"{[,:\"{","b":[]}"#) < 2 * OBJECT);
    let bomb = format!("[{}]", vec![r#"{"":0}"#; 1000].join(","));
    assert!(weight(bomb.as_bytes()) > 1000 * OBJECT);
    assert!(weight(format!("[{}]", vec!["{}"; 1000].join(",")).as_bytes()) < 1000 * OBJECT);
    assert!(weight(format!("[{}]", vec!["0"; 1000].join(",")).as_bytes()) > 1000 * VALUE);
}
