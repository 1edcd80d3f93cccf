//! Any order of rounds, crashes and restarts, by seed.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// Any order of rounds, crashes and restarts.
#[tokio::test]
async fn never_more_than_allowed_none_after_a_failure_and_all_in_the_end() {
    for seed in 0..40 {
        let mut model = Model::new(seed);
        for _ in 0..200 {
            model.step().await;
        }
        model.come_to_rest().await;
    }
}

/// Clusters whose control planes behave as the seed says.
struct Model {
    world: World,
    random: StdRng,
    clusters: Vec<Modelled>,
    limits: RolloutConfig,
}

struct Modelled {
    name: String,
    is_new: bool,
    is_ready: bool,
    /// It was ready until the wave took it.
    is_away_by_us: bool,
    comes_back: bool,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let limits = RolloutConfig {
            max_unavailable_percent: random.random_range(1..=40),
            max_unavailable: random.random_range(1..=6),
            ..RolloutConfig::default()
        };
        let is_good = random.random_bool(0.5);
        let (world, mut clusters) = (World::new(), Vec::new());
        for at in 0..random.random_range(1..=30) {
            let name = format!("c{at}");
            world.add("team-a", &name, json!({}));
            let comes_back = is_good || random.random_bool(0.8);
            let is_ready = random.random_bool(0.9);
            clusters.push(Modelled { name, is_new: false, is_ready, is_away_by_us: false, comes_back });
        }
        let mut model = Self { world, random, clusters, limits };
        model.restart();
        model
    }

    fn restart(&mut self) {
        self.world.context = World::context(&self.world.host, self.world.now);
        Arc::make_mut(&mut self.world.context.config).operator.rollout = self.limits.clone();
        for cluster in &self.clusters {
            self.world.cluster("team-a", &cluster.name);
        }
    }

    async fn step(&mut self) {
        let at = self.random.random_range(0..self.clusters.len());
        match self.random.random_range(0..20) {
            0 => self.restart(),
            1 => self.later(),
            2..6 => self.recover(at),
            _ => self.round(at).await,
        }
    }

    fn later(&mut self) {
        self.world.now += jiff::SignedDuration::from_secs(400);
        self.world.context.clock = Clock::seeded(self.world.now, 1);
    }

    /// Pods that can come back do, those with the old image too.
    fn recover(&mut self, at: usize) {
        let cluster = &mut self.clusters[at];
        if cluster.comes_back && cluster.is_new {
            (cluster.is_ready, cluster.is_away_by_us) = (true, false);
        }
    }

    async fn round(&mut self, at: usize) {
        let (context, object) = (&self.world.context, self.world.cluster("team-a", &self.clusters[at].name));
        let failed = self.failed();
        let modelled = &mut self.clusters[at];
        let change = if modelled.is_new { Change::None } else { Change::Ours };
        let mut next = object.status.clone();
        rollout::begin_round(context, &object);
        let admitted = rollout::admit(context, &object, change, modelled.is_ready, &mut next).await.expect("written");
        let crash = self.random.random_range(0..20);
        if crash == 0 {
            return self.restart();
        }
        if admitted && !modelled.is_new {
            assert!(failed.is_empty(), "{} was updated after {failed:?} did not come back", modelled.name);
            (modelled.is_away_by_us, modelled.is_ready) = (modelled.is_ready, false);
            modelled.is_new = true;
        }
        self.check();
        if crash == 1 {
            return self.restart();
        }
        let halt =
            (!self.clusters[at].is_ready).then(|| Halt::waiting(condition::CONTROL_PLANE, "Starting", "not yet"));
        rollout::conclude(&self.world.context, &object, halt.as_ref(), &mut next);
        self.write(at, &next);
    }

    fn write(&self, at: usize, next: &VirtualClusterStatus) {
        let status = serde_json::to_value(next).expect("serializes");
        let name = &self.clusters[at].name;
        self.world.host.edit(&VIRTUAL_CLUSTERS, "team-a", name, |object| object["status"] = status.clone());
    }

    /// Those of which the host says that they failed.
    fn failed(&self) -> BTreeSet<String> {
        let phase = |name: &str| {
            let object = self.world.host.find(&VIRTUAL_CLUSTERS, "team-a", name).expect("there");
            object["status"]["rollout"]["phase"] == json!(RolloutPhase::Failed)
        };
        self.clusters.iter().filter(|c| phase(&c.name)).map(|c| c.name.clone()).collect()
    }

    fn check(&self) {
        let share = self.clusters.len() * usize::from(self.limits.max_unavailable_percent) / 100;
        let budget = share.clamp(1, self.limits.max_unavailable);
        let away = self.clusters.iter().filter(|c| c.is_away_by_us).count();
        assert!(away <= budget, "{away} away of {}, {budget} allowed", self.clusters.len());
    }

    /// Until one has failed that never comes back, or everybody is reached.
    async fn come_to_rest(&mut self) {
        for _ in 0..6 * self.clusters.len() + 20 {
            self.later();
            for at in 0..self.clusters.len() {
                self.recover(at);
                self.round(at).await;
            }
            self.check();
            let failed = self.failed();
            let is_stopped = self.clusters.iter().any(|c| !c.comes_back && failed.contains(&c.name));
            if is_stopped || self.clusters.iter().all(|c| c.is_new) {
                return;
            }
        }
        let left: Vec<&str> = self.clusters.iter().filter(|c| !c.is_new).map(|c| c.name.as_str()).collect();
        panic!("never reached: {left:?}, failed: {:?}", self.failed());
    }
}
