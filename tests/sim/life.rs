//! The syncer and its tenants as they come and go: what is left of a syncer that was stopped, and how the tenants' own Services
//! get their addresses.

use std::sync::{Arc, Weak};
use std::time::Duration;

use portico::kubernetes::rights::{Access, Rules};
use portico::syncer::world;
use portico::syncer::{Member, Running};
use serde_json::json;
use tokio::sync::watch;

use super::server::Faults;
use super::{DRIFT, World, kinds, run_paused};

/// Nothing may be read, so that what can be made up is.
fn limited() -> (watch::Sender<Arc<Rules>>, Access) {
    let (sender, rules) = watch::channel(Arc::default());
    (sender, Access::followed(rules))
}

async fn is_gone(world: &Weak<world::World>) -> bool {
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.upgrade().is_none()
}

#[test]
fn a_stopped_syncer_leaves_nothing_whatever_its_rights_were() {
    run_paused(async {
        let (_sender, access) = limited();
        for access in [Access::granted(), access] {
            let mut world = World::with(0, Faults::none(), kinds::catalog());
            world.restart_as(access);
            super::panics::put(&world, "a");
            tokio::time::sleep(DRIFT).await;
            let running: Running = world.running.take().expect("runs");
            let known = running.world();
            // A tenant that is made again, and one that goes.
            let member = |n: usize, uid: &str| {
                let mut view = world.tenants[n].view.clone();
                uid.clone_into(&mut view.uid);
                let api = Arc::new(world.tenants[n].server.clone());
                let on_loss = portico::crd::OnLoss::Discard;
                Member {
                    view,
                    api,
                    fingerprint: uid.to_owned(),
                    adopts: false,
                    on_loss,
                    limits: portico::crd::Limits::default(),
                }
            };
            running.set_members(vec![member(0, "again"), member(1, "again")]);
            tokio::time::sleep(DRIFT).await;
            running.set_members(vec![member(0, "again")]);
            tokio::time::sleep(DRIFT).await;
            running.stop().await;
            assert!(is_gone(&known).await, "what it knew outlives its run");
        }
    });
}

fn kubernetes(world: &World) -> (String, String) {
    let service = world.tenants[0].server.read("services", "default", "kubernetes").expect("there");
    (service["spec"]["clusterIP"].as_str().unwrap().to_owned(), super::text(&service, "uid"))
}

/// The address of the API is somebody's, then it is outside of the range, then it is free.
#[test]
fn a_service_whose_successor_would_be_refused_stays() {
    run_paused(async {
        let mut world = World::with(0, Faults::none(), kinds::catalog());
        world.running = None;
        let server = world.tenants[0].server.clone();
        let wanted = world.tenants[0].view.api_service_ip.to_string();
        server.delete_gracefully("services", "default", "kubernetes", None);
        super::wrong_service(&server);
        let before = kubernetes(&world);
        let metadata = json!({"name": "web", "namespace": "ns"});
        server.put("services", json!({"metadata": metadata, "spec": {"clusterIP": wanted}}));
        world.start();
        tokio::time::sleep(DRIFT * 30).await;
        assert_eq!(kubernetes(&world), before, "taken");
        world.tenants[0].view.api_service_ip = "1.2.3.4".parse().unwrap();
        server.delete_gracefully("services", "ns", "web", None);
        world.start();
        tokio::time::sleep(DRIFT * 30).await;
        assert_eq!(kubernetes(&world), before, "outside of the range");
        world.tenants[0].view.api_service_ip = wanted.parse().unwrap();
        world.start();
        tokio::time::sleep(DRIFT).await;
        assert_eq!(kubernetes(&world).0, wanted);
    });
}
