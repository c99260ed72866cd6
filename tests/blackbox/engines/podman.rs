//! Podman behind Docker's API.

use crate::support::{Deployment, Engine, Image, Registry};

#[test]
fn recording_updating_and_looking_work() {
    if !Engine::is("podman") {
        return;
    }
    let registry = Registry::start();
    let deployment = Deployment::new("podman");
    deployment.write_product(&[("web", registry.repository("web"))]);
    for version in ["1.0", "1.1"] {
        registry.push(Image::new("web").tag(version).tag("latest"));
        deployment.dkv(["pull-latest"]).exit(0);
    }
    deployment.dkv(["status"]).exit(0);
    let verified = deployment.dkv(["verify", "--json"]).exit(0).json();
    assert_eq!(verified["services"][0]["local"], true, "{verified}");
    deployment.dkv(["rollback", "-y"]).exit(0).stdout_contains("1.0");
    deployment.dkv(["verify"]).exit(0);
}
