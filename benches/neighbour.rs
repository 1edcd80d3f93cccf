//! What one tenant's flood costs its neighbour: B's latency while A is idle, while A floods past Portico, and while A puts
//! the same flood through it.
//!
//! The machine's cores are everybody's, so the flood past Portico is the peer: what it costs B is not Portico's doing.
//! `benches/run neighbour` prepares the tenants and sets the variables. `BENCH_SECONDS` for each measurement,
//! `BENCH_ROUNDS` of them, `BENCH_KINDS` (of get, watch, pod, exec, dns), `BENCH_LOAD` of a hundred of the floods' rates.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../tests/support/environment.rs"]
mod environment;
#[path = "neighbour/flood.rs"]
mod flood;
#[path = "neighbour/measure.rs"]
mod measure;
#[path = "../tests/support/percentile.rs"]
mod percentile;
#[path = "neighbour/place.rs"]
mod place;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use environment::{number, variable};
use flood::{Flood, Reached};
use measure::{Measured, Neighbour};
use place::Place;

/// A flood has found its rate.
const WARM_UP: Duration = Duration::from_secs(2);
/// What it left is worked off.
const REST: Duration = Duration::from_secs(3);

/// What B does, and A floods with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Get,
    Watch,
    Pod,
    Exec,
    Dns,
}

/// What A does meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Situation {
    Idle,
    Past,
    Through,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Get, Self::Watch, Self::Pod, Self::Exec, Self::Dns];

    fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Watch => "watch",
            Self::Pod => "pod",
            Self::Exec => "exec",
            Self::Dns => "dns",
        }
    }
}

/// All of one situation's rounds.
#[derive(Default)]
struct Sum {
    measured: Measured,
    reached: Reached,
}

/// Where A's floods go.
struct Targets {
    through: Arc<Place>,
    /// A's own API server at its own address.
    past: Arc<Place>,
    /// An API server like A's that Portico does not know: its pods are nobody's to sync.
    apart: Arc<Place>,
    /// A's pod, as the host knows it.
    host: Arc<Place>,
    /// A namespace of the host that is nobody's: a pod costs the host's API server the same whoever made it.
    direct: Arc<Place>,
}

impl Targets {
    fn of(&self, situation: Situation, kind: Kind) -> Vec<&Arc<Place>> {
        match (situation, kind) {
            (Situation::Idle, _) => Vec::new(),
            (Situation::Through, _) => vec![&self.through],
            (Situation::Past, Kind::Pod) => vec![&self.apart, &self.direct],
            (Situation::Past, Kind::Exec) => vec![&self.host],
            (Situation::Past, Kind::Get | Kind::Watch | Kind::Dns) => vec![&self.past],
        }
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    runtime.block_on(compare());
}

fn chosen() -> Vec<Kind> {
    let Ok(words) = std::env::var("BENCH_KINDS") else { return Kind::ALL.to_vec() };
    let of =
        |word| Kind::ALL.into_iter().find(|kind| kind.name() == word).unwrap_or_else(|| panic!("BENCH_KINDS: {word}"));
    words.split_whitespace().map(of).collect()
}

async fn compare() {
    let (kinds, rounds) = (chosen(), number("BENCH_ROUNDS", 3));
    let (length, load) = (Duration::from_secs(number("BENCH_SECONDS", 10)), number("BENCH_LOAD", 100));
    let namespace = variable("BENCH_NAMESPACE");
    let dns = |name: &str| {
        let address: IpAddr = variable(name).parse().unwrap_or_else(|_| panic!("{name} is no address"));
        SocketAddr::from((address, 53))
    };
    let responder = flood::responder().await;
    let place = async |config: &str, namespace: &str, pod: &str, dns| {
        Arc::new(Place::new(&variable(config), namespace, pod, dns).await)
    };
    let host_pod = |tenant: &str| format!("box-x-default-x-{tenant}");
    let targets = Targets {
        through: place("BENCH_A", "default", "box", dns("BENCH_A_DNS")).await,
        past: place("BENCH_A_PAST", "default", "box", responder.address).await,
        apart: place("BENCH_APART", "default", "box", responder.address).await,
        host: place("BENCH_HOST", &namespace, &host_pod("a"), responder.address).await,
        direct: place("BENCH_HOST", &variable("BENCH_DIRECT"), "none", responder.address).await,
    };
    let b = place("BENCH_B", "default", "box", dns("BENCH_B_DNS")).await;
    let host = place("BENCH_HOST", &namespace, &host_pod("b"), responder.address).await;
    for place in [&targets.through, &targets.past, &targets.apart, &b] {
        place.prepare().await;
    }
    let neighbour = Neighbour { inside: b, host, cluster: "b".to_owned() };
    println!("\nEach cell of B: p50 / p99 in ms. Floods: reached a second, of these refused.\n");
    println!(
        "| B does | A idle | A floods past Portico | A floods through it | p99 through / past | flood past | flood through | B failed |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for kind in kinds {
        let [idle, past, through] = one(kind, &targets, &neighbour, (rounds, length, load)).await;
        let ratio = through.measured.p99() / past.measured.p99();
        let failed = [&idle, &past, &through].map(|sum| sum.measured.failed.to_string()).join(" / ");
        println!(
            "| {} | {} | {} | {} | {ratio:.2} | {} | {} | {failed} |",
            kind.name(),
            idle.measured.words(),
            past.measured.words(),
            through.measured.words(),
            past.reached.words(),
            through.reached.words(),
        );
    }
}

/// The situations in turn, so that what changes on the machine meanwhile meets all of them.
async fn one(
    kind: Kind,
    targets: &Targets,
    neighbour: &Neighbour,
    (rounds, length, load): (u64, Duration, u64),
) -> [Sum; 3] {
    let mut sums: [Sum; 3] = Default::default();
    for round in 0..rounds {
        let mut order = [Situation::Idle, Situation::Past, Situation::Through];
        if round % 2 == 1 {
            order.reverse();
        }
        for situation in order {
            let floods: Vec<_> =
                targets.of(situation, kind).into_iter().map(|place| Flood::start(kind, place, load)).collect();
            tokio::time::sleep(WARM_UP).await;
            for flood in &floods {
                flood.counts_from_now();
            }
            let sum = &mut sums[situation as usize];
            neighbour.measure(kind, length, &mut sum.measured).await;
            let mut reached = Vec::new();
            for flood in floods {
                reached.push(flood.stop().await);
            }
            // Of two at once, the one that is behind says what was reached.
            if let Some(least) = reached.iter().min_by_key(|reached| reached.answered()) {
                sum.reached.add(least);
            }
            eprintln!("{} round {round} {situation:?}: {}", kind.name(), sum.measured.words());
            tokio::time::sleep(REST).await;
        }
    }
    sums
}
