//! The cases of h2spec against the gateway: `make h2spec`.

use std::sync::Arc;

use portico::config::GatewayConfig;
use portico::runtime::clock::Clock;
use portico::tenant::Tenant;

use crate::world::World;

/// Path of the program.
const PROGRAM: &str = "PORTICO_H2SPEC";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs h2spec: make h2spec"]
async fn the_gateway_speaks_http2_as_the_standard_says() {
    let program = std::env::var(PROGRAM).unwrap_or_else(|_| panic!("{PROGRAM} names h2spec"));
    let config = GatewayConfig { max_unknown: 1024, max_unknown_per_tenant: 1024, ..Default::default() };
    let world = World::with(config, Clock::system()).await;
    // Without a credential, and answered once a request's body is there: one case sends a second head and takes an answer
    // that was before it (a 401 needs no body) for an answer to it.
    let open = Tenant { anonymous: true, ..world.a.tenant(2, &world.a.client_ca, &world.clock) };
    world.registry.put(&Arc::new(open));
    let mut command = tokio::process::Command::new(program);
    command.args(["--tls", "--insecure", "--host", "127.0.0.1", "--timeout", "5"]);
    command.args(["--port", &world.address.port().to_string(), "--path", "/clusters/team/alpha/api"]);
    assert!(command.status().await.expect("h2spec runs").success(), "not all cases pass");
}
