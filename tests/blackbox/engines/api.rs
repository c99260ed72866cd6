//! Versions of the Engine API: agreed on with every engine, fixed by whoever wants that.

use crate::support::{Deployment, Engine, Image, Proxy, Registry};

#[test]
fn a_version_is_agreed_on_and_a_fixed_one_is_spoken() {
    let (oldest, newest) = Engine::machine().api_versions();
    let oldest = oldest.max(40);
    let registry = Registry::start();
    let deployment = Deployment::new("api");
    deployment.write_product(&[("web", registry.repository("web"))]);
    let proxy = Proxy::to_engine();
    for (version, fixed) in [("1.0", None), ("1.1", Some(newest)), ("1.2", Some(oldest))] {
        registry.push(Image::new("web").tag(version).tag("latest"));
        let dkv = |arguments: &[&str]| {
            let run = deployment.dkv(arguments.iter().copied());
            let run = run.env("DOCKER_HOST", format!("tcp://{}", proxy.address()));
            match fixed {
                Some(minor) => run.env("DOCKER_API_VERSION", format!("1.{minor}")),
                None => run,
            }
        };
        proxy.reset();
        dkv(&["pull-latest"]).exit(0).stdout_contains(version);
        let expected = format!("/v1.{}/", fixed.unwrap_or(newest));
        let requests = proxy.requests();
        assert!(requests.len() > 3, "{requests:?}");
        let others = requests.iter().filter(|one| !one.target().starts_with(&expected));
        let others: Vec<&str> = others.map(|one| one.target()).collect();
        assert!(others.is_empty() || (others == ["/_ping"] && fixed.is_none()), "{others:?}");
        dkv(&["up", "--no-wait"]).exit(0);
        dkv(&["verify"]).exit(0);
        dkv(&["status"]).exit(0).stdout_contains(version);
    }
    let fixed = |minor: u32| {
        let run = deployment.dkv(["status"]);
        run.env("DOCKER_API_VERSION", format!("1.{minor}")).exit(6)
    };
    fixed(newest + 1).stderr_contains("DOCKER_API_VERSION").stderr_contains("lower it");
    fixed(39).stderr_contains("older than 1.40");
    if oldest > 40 {
        fixed(oldest - 1).stderr_contains("raise it");
    }
}
