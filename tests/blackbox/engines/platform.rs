//! An image of several platforms of which this host has another one's.

use crate::support::{Deployment, Engine, Image, Registry};

/// The architecture of what the daemon has by a name.
fn architecture(engine: &Engine, name: &str) -> String {
    engine.image(name).expect("an image")["Architecture"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_here_for_another_platform_is_pulled_for_this_one_or_named() {
    let registry = Registry::start();
    let deployment = Deployment::new("elsewhere");
    deployment.write_product(&[("web", registry.repository("web"))]);
    let pushed =
        registry.push(Image::new("web").tag("1.0").tag("latest").platforms(&["amd64", "arm64"]));
    let engine = deployment.engine();
    let before = deployment.manifest();
    for is_recorded in [false, true] {
        deployment.write("version-manifest.yaml", &before);
        let command = match is_recorded {
            true => {
                deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
                ["up", "--no-wait"].as_slice()
            }
            false => ["pull-latest"].as_slice(),
        };
        for id in engine.docker(&["images", "-q", &pushed.repository]).lines() {
            let _ = engine.try_docker(&["rmi", "-f", id]);
        }
        engine.docker(&["pull", "-q", "--platform", "linux/arm64", &pushed.pin()]);
        assert_eq!(architecture(engine, &pushed.pin()), "arm64");
        let dkv = || deployment.dkv(command.iter().copied());
        if !Engine::has_containerd_store() {
            // This store has one image by one digest.
            let text = dkv().exit(6);
            text.stderr_contains("is here for linux/arm64 only, and linux/amd64 is needed");
            let hint = format!("`docker rmi {}`", pushed.pin());
            text.stderr_contains(&hint).stderr_lacks("publisher");
            assert!(engine.containers(deployment.project(), "web").is_empty());
            engine.docker(&["rmi", &pushed.pin()]);
        }
        dkv().exit(0);
        assert_eq!(architecture(engine, &pushed.pin()), "amd64");
        deployment.dkv(["up", "--no-wait"]).exit(0);
        deployment.dkv(["verify"]).exit(0);
        deployment.dkv(["down"]).exit(0);
    }
}
