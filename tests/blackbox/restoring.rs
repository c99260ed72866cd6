//! The way back of an update: followers, counts and profiles as they were, whoever takes it up.

use std::net::TcpListener;

use crate::support::deployment::Compose;
use crate::support::{Health, Image};
use crate::update_safe::Product;

/// The network or PID namespace that a service's container has of another.
fn joined(product: &Product, service: &str, what: &str) -> String {
    let container = product.inspected(service);
    assert_eq!(container["State"]["Running"], true, "{service}");
    let mode = container["HostConfig"][what].as_str().unwrap_or_default();
    mode.strip_prefix("container:").unwrap_or_default().to_owned()
}

#[test]
fn what_is_made_again_without_compose_joins_its_peers_as_they_are_now() {
    for compose in [Compose::V2, Compose::V1] {
        let product = Product::with("again", compose, |product| {
            let file = product.deployment.read("docker-compose.yml");
            let far = format!("{}:1", product.registry.repository("side"));
            let follows = format!(
                "    network_mode: service:web\n  far:\n    image: {far}\n    network_mode: \
                    service:side\n    volumes_from: [web]\n"
            );
            let web = "    volumes: ['/kept']\n  side:";
            let file = file.replace("  side:", web).trim_end().to_owned() + "\n" + &follows;
            product.deployment.write("docker-compose.yml", &file);
        });
        let volume = |service: &str| product.inspected(service)["Mounts"][0]["Name"].to_string();
        let before = (volume("web"), product.container("web"));
        // From now on no `up` of these files can start web: not its new version, and not the old.
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let file = product.deployment.read("docker-compose.yml");
        let ports = format!("    volumes: ['/kept']\n    ports: ['127.0.0.1:{port}:80']\n");
        product
            .deployment
            .write("docker-compose.yml", &file.replace("    volumes: ['/kept']\n", &ports));
        product.publish("web", "2", |image: Image| image.health(Health::Passing));
        let failed = product.dkv(["update-safe"]).exit(7);
        failed.stderr_contains("the very containers that ran, without Compose");
        product.assert_runs("1");
        // Compose v1 leaves the old one until the new one runs.
        assert_eq!(product.container("web") == before.1, compose == Compose::V1);
        assert_eq!(volume("web"), before.0, "{compose:?}");
        assert_eq!(volume("far"), before.0, "{compose:?}");
        assert_eq!(joined(&product, "side", "NetworkMode"), product.container("web"));
        assert_eq!(joined(&product, "far", "NetworkMode"), product.container("side"));
        drop(taken);
    }
}
