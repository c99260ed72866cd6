//! Keep-tags: made anew where the deployment is now, and let go when nothing needs them any more.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Deployment, Image, Outcome, Registry};

/// The keep-tags in a repository.
fn kept(deployment: &Deployment, repository: &str) -> Vec<String> {
    let tags = deployment.engine().docker(&["images", "--format", "{{.Tag}}", repository]);
    let mut tags: Vec<String> =
        tags.lines().filter(|tag| tag.starts_with("dkv-")).map(str::to_owned).collect();
    tags.sort();
    tags
}

#[test]
fn a_deployment_that_was_moved_or_copied_keeps_its_images_anew_and_says_so_once() {
    let registry = Registry::start();
    let repository = registry.repository("web");
    let deployment = Deployment::new("moved");
    deployment.write_product(&[("web", repository.clone())]);
    for version in ["1.0", "1.1", "1.2"] {
        registry.push(Image::new("web").tag(version).tag("latest"));
        deployment.dkv(["pull-latest"]).exit(0);
    }
    let here = deployment.directory();
    let [copy, moved] = ["copy", "moved"].map(|name| deployment.home().with_file_name(name));
    let at = |place: &Path, arguments: &[&str]| -> Outcome {
        deployment.dkv(arguments.iter().copied()).current_dir(place).exit(0)
    };
    assert_eq!(kept(&deployment, &repository).len(), 3);

    let copied = Command::new("cp").arg("-a").args([&here, &copy]).status().unwrap();
    assert!(copied.success());
    let outcome = at(&copy, &["pull"]);
    outcome.stderr_contains(&format!("this is a copy of the deployment in {}", here.display()));
    outcome.stderr_contains("3 of 3 remembered releases are here");
    assert_eq!(kept(&deployment, &repository).len(), 6);
    at(&copy, &["pull"]).stderr_lacks("remembered");
    at(&copy, &["pull-latest"]).stderr_lacks("remembered");
    at(&here, &["pull-latest"]).stderr_lacks("remembered");
    // The one that it is a copy of is still there.
    at(&copy, &["prune", "-y"]).stderr_contains("Nothing to remove");
    assert_eq!(kept(&deployment, &repository).len(), 6);

    let before = kept(&deployment, &repository);
    fs::rename(&here, &moved).unwrap();
    let outcome = at(&moved, &["pull-latest"]);
    outcome.stderr_contains(&format!("the deployment was moved here from {}", here.display()));
    outcome.stderr_contains("3 of 3 remembered releases are here");
    assert_eq!(kept(&deployment, &repository).len(), 9);
    at(&moved, &["up", "--dry-run"]).stderr_lacks("remembered");
    at(&moved, &["prune", "-y"]).stdout_contains("removed");
    let left = kept(&deployment, &repository);
    assert_eq!(left.len(), 6);
    let gone = before.iter().filter(|tag| !left.contains(tag)).count();
    assert_eq!(gone, 3, "those of the place where it was: {before:?} {left:?}");
    // Everything that is remembered is here, and is gone back to without a registry.
    at(&moved, &["rollback", "-y"]).stdout_contains("1.1");
    at(&copy, &["rollback-to", "web", "1.0", "-y"]);
    at(&copy, &["prune", "-y"]).stderr_contains("Nothing to remove");
    fs::rename(&moved, &here).unwrap();
}

#[test]
fn releases_that_ran_when_they_were_evicted_are_let_go_by_a_later_command() {
    let registry = Registry::start();
    let repository = registry.repository("web");
    let deployment = Deployment::new("evicted");
    deployment.write_product(&[("web", repository.clone())]);
    let advance = |number: usize| {
        registry.push(Image::new("web").version(&format!("v{number}")).tag("latest"));
        deployment.dkv(["pull-latest"]).exit(0);
    };
    advance(0);
    deployment.dkv(["up"]).exit(0);
    for number in 1..=6 {
        advance(number);
    }
    assert_eq!(kept(&deployment, &repository).len(), 6, "five are remembered, and one runs");
    deployment.dkv(["up"]).exit(0);
    deployment.dkv(["up"]).exit(0);
    assert_eq!(kept(&deployment, &repository).len(), 5, "nothing was recorded since");
    for number in 7..=12 {
        advance(number);
    }
    deployment.dkv(["down"]).exit(0);
    deployment.dkv(["pull-latest"]).exit(0).stdout_contains("up to date");
    assert_eq!(kept(&deployment, &repository).len(), 5, "nothing was new");
}
