use super::*;

fn build(args: &SpecArgs, file: &str) -> Outcome<VirtualClusterSpec> {
    args.build(|_| Ok(file.to_owned()))
}

#[test]
fn flags_win_over_the_file() {
    let args = SpecArgs {
        file: Some("f".into()),
        hosts: vec!["b.example".into()],
        storage: Some("1Gi".into()),
        pod_security: Some(PodSecurity::Restricted),
        ..SpecArgs::default()
    };
    let file = "kind: VirtualCluster\nspec:\n  image: my/image\n  expose: {hosts: [a.example]}\n  policy: {podSecurity: privileged}\n";
    let spec = build(&args, file).expect("valid");
    assert_eq!(spec.image, "my/image");
    assert_eq!(spec.expose.hosts, ["a.example", "b.example"]);
    assert_eq!(spec.policy.pod_security, Some(PodSecurity::Restricted));
    assert_eq!(spec.storage.volume_claim.expect("claim").size, "1Gi");
}

#[test]
fn data_in_the_pod_alone_is_asked_for_by_name() {
    let ephemeral = SpecArgs { ephemeral: true, file: Some("f".into()), ..SpecArgs::default() };
    let spec = build(&ephemeral, "storage: {volumeClaim: {size: 1Gi}}").expect("the flag wins");
    assert!(spec.storage.ephemeral && spec.storage.volume_claim.is_none());
    assert!(build(&ephemeral, "storage: {datastoreEndpoint: {secretName: db}}").is_err());
    assert!(build(&ephemeral, "{distro: external, backend: {kubeconfigSecret: {name: s}}}").is_err());
    let volume = SpecArgs { storage: Some("1Gi".into()), file: Some("f".into()), ..SpecArgs::default() };
    assert!(!build(&volume, "storage: {ephemeral: true}").expect("the flag wins").storage.ephemeral);
    let both = SpecArgs { file: Some("f".into()), ..SpecArgs::default() };
    assert!(build(&both, "storage: {ephemeral: true, volumeClaim: {size: 1Gi}}").is_err());
    assert!(!build(&SpecArgs::default(), "").expect("valid").storage.ephemeral);
}

#[test]
fn a_bare_spec_is_read_and_another_kind_refused() {
    let args = SpecArgs { file: Some("f".into()), ..SpecArgs::default() };
    assert_eq!(build(&args, "image: x\n").expect("valid").image, "x");
    assert!(build(&args, "kind: Pod\nspec: {}\n").is_err());
}

#[test]
fn external_and_its_secret_belong_together() {
    let external = SpecArgs { distro: Some(Distro::External), ..SpecArgs::default() };
    assert!(build(&external, "").is_err());
    let secret = SpecArgs { backend_secret: Some("s".into()), ..SpecArgs::default() };
    assert_eq!(build(&secret, "").expect("valid").distro, Distro::External);
    let wrong = SpecArgs { backend_secret: Some("s".into()), distro: Some(Distro::K8s), ..SpecArgs::default() };
    assert!(build(&wrong, "").is_err());
}

#[test]
fn replicas_a_database_and_a_version_where_they_fit() {
    let args = SpecArgs { distro: Some(Distro::K3s), replicas: Some(2), ..SpecArgs::default() };
    assert!(build(&args, "").is_err(), "nothing to share");
    let args = SpecArgs { datastore_secret: Some("db".into()), version: Some("v1.33.1-k3s1".into()), ..args };
    let spec = build(&args, "").expect("valid");
    assert_eq!((spec.replicas, spec.version.as_str()), (2, "v1.33.1-k3s1"));
    let secret = spec.storage.datastore_endpoint.expect("a database");
    assert_eq!((secret.secret_name.as_str(), secret.key.as_str()), ("db", "endpoint"));
    assert!(build(&SpecArgs { distro: Some(Distro::K8s), ..args }, "").is_err(), "a version of what?");
    assert_eq!(build(&SpecArgs::default(), "").expect("valid").replicas, 1);
}
