//! Host names that several clusters want: who has them is said, and nothing of the others' is written anywhere.

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::*;

/// DNS names in a cluster's serving certificate.
fn certified(world: &World, namespace: &str, name: &str) -> Vec<String> {
    let secret = world.host.find(&SECRETS, namespace, &format!("{name}-pki")).expect("secret");
    let data = crate::operator::secret::data(&secret);
    let der = crate::tls::certificates_from_pem(data[pki::GATEWAY].as_bytes()).expect("certificate");
    let (_, certificate) = X509Certificate::from_der(&der[0]).expect("certificate");
    let names = certificate.subject_alternative_name().expect("readable").expect("there").value;
    let text =
        |name: &GeneralName<'_>| if let GeneralName::DNSName(name) = name { Some((*name).to_owned()) } else { None };
    names.general_names.iter().filter_map(text).collect()
}

fn message(status: &Value) -> String {
    let conditions = status["conditions"].as_array().expect("conditions");
    let hosts = conditions.iter().find(|c| c["type"] == condition::HOSTS).expect("condition");
    hosts["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn names_of_others_are_refused_and_the_holder_is_named() {
    let world = World::new();
    let wanted = ["green.team-green.portico.local", "Portico.Example.com.", "App.example.com", "own.example.com"];
    world.add("team-blue", "blue", json!({"expose": {"hosts": wanted}}));
    world.add("team-green", "green", json!({"expose": {"hosts": ["app.example.com"]}}));
    world.host.edit(&VIRTUAL_CLUSTERS, "team-green", "green", |green| {
        green["metadata"]["creationTimestamp"] = json!("2025-12-31T23:59:59Z");
    });
    let (_, status) = world.round("team-blue", "blue").await;
    assert_eq!(World::condition(&status, condition::HOSTS), ("False".to_owned(), "Reserved".to_owned()));
    let said = message(&status);
    for part in [
        "green.team-green.portico.local is reserved for team-green/green",
        "Portico.Example.com. is reserved for the shared listener",
        "App.example.com belongs to team-green/green, which is older",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(World::condition(&status, condition::CERTIFICATES).0, "True", "it is served all the same");
    let names = certified(&world, "team-blue", "blue");
    assert!(
        names.contains(&"own.example.com".to_owned()) && names.contains(&"blue.team-blue.portico.local".to_owned())
    );
    for foreign in ["green.team-green.portico.local", "portico.example.com", "app.example.com"] {
        assert!(!names.iter().any(|name| name.eq_ignore_ascii_case(foreign)), "{names:?}");
    }
    let endpoints = status["endpoints"].as_array().expect("endpoints");
    assert_eq!(endpoints, &[json!(format!("{PUBLIC}/clusters/team-blue/blue")), json!("https://own.example.com")]);
    let (_, status) = world.round("team-green", "green").await;
    assert_eq!(World::condition(&status, condition::HOSTS), ("True".to_owned(), "Accepted".to_owned()));
    assert!(certified(&world, "team-green", "green").contains(&"app.example.com".to_owned()));

    world.host.remove(&VIRTUAL_CLUSTERS, "team-green", "green");
    let (_, status) = world.round("team-blue", "blue").await;
    let said = message(&status);
    assert!(!said.contains("App.example.com") && said.contains("green.team-green"), "{said}");
    assert!(certified(&world, "team-blue", "blue").contains(&"app.example.com".to_owned()));
}

#[tokio::test]
async fn a_port_that_somebody_wrote_into_a_status_stays_its_holders() {
    let world = World::new();
    world.add("team-a", "victim", json!({}));
    world.round("team-a", "victim").await;
    world.add("team-b", "thief", json!({}));
    world.host.edit(&VIRTUAL_CLUSTERS, "team-b", "thief", |thief| {
        thief["metadata"]["creationTimestamp"] = json!("2026-01-02T00:00:00Z");
        thief["status"] = json!({"port": 20_000});
    });
    world.cluster("team-a", "victim");
    let (_, status) = world.round("team-b", "thief").await;
    assert_eq!(status["port"], 20_002);
    let (_, status) = world.round("team-a", "victim").await;
    assert_eq!(status["port"], 20_000);
}
