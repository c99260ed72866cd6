//! Two generations of Compose: which of them can work on the containers that are here.

use crate::support::deployment::Compose;
use crate::support::{Deployment, Engine, Image, Registry};

#[test]
fn compose_v1_does_not_take_over_what_v2_made() {
    let registry = Registry::start();
    let deployment = Deployment::new("v1overv2");
    deployment.write_product(&[("web", registry.repository("web"))]);
    registry.push(Image::new("web").tag("1.0").tag("latest"));
    deployment.dkv(["pull-latest"]).exit(0);
    deployment.dkv(["up"]).compose(Compose::V2).exit(0);
    let engine = deployment.engine();
    let before = engine.containers(deployment.project(), "web");
    registry.push(Image::new("web").tag("1.1").tag("latest"));
    for command in [&["restart"][..], &["up"], &["update-safe", "--no-data-backup"]] {
        let outcome = deployment.dkv(command.iter().copied()).compose(Compose::V1).exit(6);
        outcome.stderr_contains("made by Compose 2.").stderr_contains("HOME");
        assert_eq!(engine.containers(deployment.project(), "web"), before, "{command:?}");
        assert_eq!(engine.version(deployment.project(), "web"), "1.0", "{command:?}");
    }
}

#[test]
fn what_compose_v1_cannot_take_over_on_a_new_engine_is_refused() {
    if !Engine::is("containerd") {
        return;
    }
    let registry = Registry::start();
    let deployment = Deployment::new("unnamed");
    deployment.write_product(&[("web", registry.repository("web"))]);
    let compose = deployment.read("docker-compose.yml");
    deployment.write("docker-compose.yml", &format!("{compose}    volumes: [/data]\n"));
    registry.push(Image::new("web").tag("1.0").tag("latest"));
    deployment.dkv(["pull-latest"]).exit(0);
    deployment.dkv(["up"]).compose(Compose::V1).exit(0);
    registry.push(Image::new("web").tag("1.1").tag("latest"));
    let update = deployment.dkv(["update-safe", "--no-data-backup"]).compose(Compose::V1).exit(6);
    update.stderr_contains("volume without a name").stderr_contains("nothing was stopped");
    assert_eq!(deployment.engine().version(deployment.project(), "web"), "1.0");
    assert!(!deployment.manifest().contains("rejected"), "{}", deployment.manifest());
}
