//! Which version is `latest`: by the registry's own word, with as few questions as that takes.

use serde_json::Value;

use crate::support::{Deployment, Image, Proxy, Registry};

/// A manifest with one service, `web`, and these further lines about it.
pub fn manifest(repository: &str, more: &[&str]) -> String {
    let lines: String = more.iter().map(|line| format!("    {line}\n")).collect();
    format!("schema_version: '1.1'\nservices:\n  web:\n    image: {repository}\n{lines}")
}

/// A deployment whose one service, `web`, has these lines.
fn deployment(repository: &str, more: &[&str]) -> Deployment {
    let deployment = Deployment::new("resolve");
    deployment.write("version-manifest.yaml", &manifest(repository, more));
    deployment
}

fn web(deployment: &Deployment) -> Value {
    deployment.manifest_data()["services"]["web"].clone()
}

/// Methods and targets of all requests, without the part that all have in common.
fn asked(proxy: &Proxy) -> Vec<String> {
    let requests = proxy.requests();
    let short = |target: &str| target.split("/web/").last().unwrap_or_default().to_owned();
    requests.iter().map(|seen| format!("{} {}", seen.method(), short(seen.target()))).collect()
}

#[test]
fn the_usual_case_takes_a_head_a_list_and_a_head() {
    let registry = Registry::start();
    let new = registry.push(Image::new("web").tag("1.42.3").tag("1.42").tag("1").tag("latest"));
    registry.push(Image::new("web").tag("1.41.0").tag("sha-0123abc").tag("main"));
    let proxy = Proxy::to(&registry);
    let deployment = deployment(&proxy.repository("web"), &[]);

    deployment.dkv(["pull-latest", "--no-pull"]).exit(0).stdout_contains("1.42.3");

    assert_eq!(
        asked(&proxy),
        [
            "HEAD manifests/latest",
            &format!("GET manifests/{}", new.digest),
            &format!("GET blobs/{}", new.config_digest()),
            "GET tags/list?n=1000",
            "HEAD manifests/1.42.3"
        ]
    );
    assert_eq!(
        (&web(&deployment)["current_tag"], &web(&deployment)["image_digest"]),
        (&"1.42.3".into(), &new.digest.into())
    );

    proxy.reset();
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0).stderr_contains("Nothing new");
    assert_eq!(asked(&proxy), ["HEAD manifests/latest"]);
}

#[test]
fn resolve_tags_says_how_it_knows_and_what_compose_will_do() {
    let registry = Registry::start();
    let pushed = registry.push(Image::new("web").tag("1.42").tag("latest"));
    let digest = format!("image_digest: {}", pushed.digest);
    let deployment = deployment(&registry.repository("web"), &["current_tag: latest", &digest]);

    let dry = deployment.dkv(["resolve-tags", "--dry-run"]).exit(0);
    dry.stdout_contains("latest → 1.42");
    assert_eq!(web(&deployment)["current_tag"], "latest");

    let outcome = deployment.dkv(["resolve-tags"]).exit(0);
    outcome
        .stdout_contains("web: latest → 1.42")
        .stdout_contains("same digest")
        .stderr_contains("new containers of web");
    assert_eq!(web(&deployment)["current_tag"], "1.42");
    assert!(
        deployment.versions_env().contains(&format!("DK_WEB_TAG=1.42@{}", pushed.digest)),
        "{}",
        deployment.versions_env()
    );
    let json = deployment.dkv(["resolve-tags", "--json"]).exit(0).json();
    assert_eq!(json["services"][0]["outcome"], "unchanged");
    assert_eq!(json["services"][0]["notes"][0], "a version already");
}

#[test]
fn what_no_version_names_stays_as_it_is() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("1.42"));
    let new = registry.push(
        Image::new("web").tag("latest").tag("main").tag("0123abcdef0123abcdef0123abcdef0123abcdef"),
    );
    let digest = format!("image_digest: {}", new.digest);
    let deployment = deployment(&registry.repository("web"), &["current_tag: latest", &digest]);
    let before = deployment.manifest();

    deployment
        .dkv(["resolve-tags"])
        .exit(0)
        .stdout_contains("unresolved")
        .stdout_contains("checked 1 of 1");
    assert_eq!(deployment.manifest(), before);

    deployment.write("version-manifest.yaml", &manifest(&registry.repository("web"), &[]));
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
    assert_eq!(
        (&web(&deployment)["current_tag"], &web(&deployment)["image_digest"]),
        (&"latest".into(), &new.digest.into())
    );
}

#[test]
fn a_stated_cap_ends_the_search_among_ten_thousand() {
    let registry = Registry::start();
    let old = registry.push(Image::new("web").tag("0.1"));
    registry.add_tags("web", (0..9_999).map(|number| format!("1.{number}")), &old.digest);
    let new = registry.push(Image::new("web").version("new").tag("latest"));
    let proxy = Proxy::to(&registry).tag_pages(1_000);
    let digest = format!("image_digest: {}", new.digest);
    let deployment = deployment(&proxy.repository("web"), &["current_tag: latest", &digest]);

    deployment.dkv(["resolve-tags"]).exit(0).stdout_contains("unresolved: checked 200 of 10,000");
    assert_eq!(proxy.count("GET", "/tags/list"), 11);
    assert_eq!(proxy.count("HEAD", "/manifests/"), 200);
}

#[test]
fn the_fifth_newest_of_ten_thousand_takes_five_heads() {
    let registry = Registry::start();
    let old = registry.push(Image::new("web").tag("0.1"));
    registry.add_tags("web", (0..9_998).map(|number| format!("1.{number}")), &old.digest);
    let new = registry.push(Image::new("web").version("new").tag("1.9993").tag("latest"));
    let proxy = Proxy::to(&registry).tag_pages(1_000);
    let digest = format!("image_digest: {}", new.digest);
    let deployment = deployment(&proxy.repository("web"), &["current_tag: latest", &digest]);

    deployment.dkv(["resolve-tags"]).exit(0).stdout_contains("latest → 1.9993");

    let pages = proxy.count("GET", "/tags/list");
    assert_eq!((pages, proxy.count("HEAD", "/manifests/")), (10, 5), "{:?}", asked(&proxy));
    // And one look at a digest that somebody else has written.
    assert_eq!(proxy.count("GET", &format!("/manifests/{}", new.digest)), 1);
    assert_eq!(proxy.requests().len(), 16);
}

#[test]
fn tags_with_a_suffix_resolve_within_it() {
    let registry = Registry::start();
    let alpine = registry.push(
        Image::new("web").tag("1.42-alpine").tag("1-alpine").tag("alpine").tag("1.42.0-alpine"),
    );
    let bookworm = registry.push(Image::new("web").tag("1.42.1-bookworm").tag("1-bookworm"));
    registry.push(Image::new("web").tag("1.43").tag("latest"));
    for (track, pushed, version) in
        [("alpine", &alpine, "1.42.0-alpine"), ("1-bookworm", &bookworm, "1.42.1-bookworm")]
    {
        let lines = [
            format!("track: {track}"),
            format!("current_tag: {track}"),
            format!("image_digest: {}", pushed.digest),
        ];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let deployment = deployment(&registry.repository("web"), &lines);
        deployment.dkv(["resolve-tags"]).exit(0).stdout_contains(&format!("{track} → {version}"));
        assert_eq!(web(&deployment)["current_tag"], version);

        deployment
            .write("version-manifest.yaml", &manifest(&registry.repository("web"), &lines[..1]));
        deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
        assert_eq!(web(&deployment)["current_tag"], version);
    }
}

#[test]
fn the_most_exact_name_wins_and_a_pattern_overrules() {
    let registry = Registry::start();
    let repository = registry.repository("web");
    registry.push(
        Image::new("web")
            .tag("latest")
            .tag("1")
            .tag("1.42")
            .tag("v1.42.3")
            .tag("20260112")
            .tag("deadbee")
            .tag("build-4711"),
    );
    let resolved = |pattern: &[&str]| {
        let deployment = deployment(&repository, pattern);
        deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
        web(&deployment)["current_tag"].as_str().unwrap().to_owned()
    };
    assert_eq!(resolved(&[]), "v1.42.3");
    assert_eq!(resolved(&["version_pattern: 'build-*'"]), "build-4711");
    assert_eq!(resolved(&["version_pattern: '2026????'"]), "20260112");
    assert_eq!(resolved(&["version_pattern: 'no-*'"]), "latest");
}

#[test]
fn a_date_counts_when_no_other_version_names_the_digest() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("1.42"));
    registry.push(Image::new("web").tag("latest").tag("2026.01.12"));
    let deployment = deployment(&registry.repository("web"), &[]);
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
    assert_eq!(web(&deployment)["current_tag"], "2026.01.12");
}

/// Two indexes that differ but hold the same image for this host: by every command, and saying so.
#[test]
fn the_same_platform_digest_is_the_same_version_and_is_said_to_be() {
    let registry = Registry::start();
    let versioned = Image::new("web")
        .tag("1.42")
        .platforms(&["amd64", "arm64"])
        .index_annotation("by", "release");
    registry.push(versioned);
    let moving = Image::new("web")
        .version("1.42")
        .tag("latest")
        .platforms(&["amd64", "arm64"])
        .index_annotation("by", "nightly");
    let latest = registry.push(moving);
    let repository = registry.repository("web");

    let digest = format!("image_digest: {}", latest.digest);
    let resolving = deployment(&repository, &["current_tag: latest", &digest]);
    let outcome = resolving.dkv(["resolve-tags"]).exit(0);
    outcome.stdout_contains("latest → 1.42").stdout_contains("same image for this platform");
    assert_eq!(
        (&web(&resolving)["current_tag"], &web(&resolving)["image_digest"]),
        (&"1.42".into(), &latest.digest.clone().into())
    );

    let recording = deployment(&repository, &[]);
    recording
        .dkv(["pull-latest", "--no-pull"])
        .exit(0)
        .stdout_contains("same image for this platform");
    assert_eq!(
        (&web(&recording)["current_tag"], &web(&recording)["image_digest"]),
        (&"1.42".into(), &latest.digest.clone().into())
    );

    let checking = deployment(&repository, &["current_tag: '1.41'"]);
    let json = checking.dkv(["check-updates", "--json"]).exit(0).json();
    assert_eq!(json["services"][0]["available_version"], "1.42");
    assert_eq!(json["services"][0]["evidence"], "same-platform-digest");
    checking.dkv(["check-updates"]).exit(0).stdout_contains("same image for this platform");
}

/// An index against its own image, in both directions.
#[test]
fn an_index_and_its_image_are_the_same_version() {
    let registry = Registry::start();
    let index = registry.push(Image::new("web").tag("1.42").platforms(&["amd64", "arm64"]));
    registry.move_tag("web", "latest", index.platform_digest("amd64"));
    let image = deployment(&registry.repository("web"), &[]);
    image.dkv(["pull-latest", "--no-pull"]).exit(0);
    assert_eq!(web(&image)["current_tag"], "1.42");
    assert_eq!(web(&image)["image_digest"], index.platform_digest("amd64"));

    let index = registry
        .push(Image::new("other/web").tag("latest").version("7").platforms(&["amd64", "arm64"]));
    registry.move_tag("other/web", "7.0", index.platform_digest("amd64"));
    let indexed = deployment(&registry.repository("other/web"), &[]);
    indexed.dkv(["pull-latest", "--no-pull"]).exit(0);
    assert_eq!(
        (&web(&indexed)["current_tag"], &web(&indexed)["image_digest"]),
        (&"7.0".into(), &index.digest.into())
    );
}

#[test]
fn the_image_of_another_platform_is_no_evidence() {
    let registry = Registry::start();
    let index = registry
        .push(Image::new("web").tag("latest").version("1.42").platforms(&["amd64", "arm64"]));
    registry.move_tag("web", "1.42", index.platform_digest("arm64"));
    let deployment = deployment(&registry.repository("web"), &[]);
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
    assert_eq!(web(&deployment)["current_tag"], "latest");
}

/// Where no daemon will look at it, what an index says of its images is not believed.
#[test]
fn the_image_that_an_index_leads_to_is_looked_at_before_it_is_recorded() {
    let registry = Registry::start();
    let image = Image::new("web").tag("1.42").tag("latest");
    let index = registry.push(image.platforms(&["amd64", "arm64"]));
    let response = registry.manifest("web", "latest").unwrap();
    let text = response.text().replace("amd64", "other").replace("arm64", "amd64");
    let media_type = response.header("content-type").unwrap();
    let repository = format!("{}/web", registry.namespace());
    let swapped = text.replace("other", "arm64");
    registry.put_manifest(&repository, "latest", media_type, swapped.as_bytes());
    let deployment = deployment(&registry.repository("web"), &[]);
    let before = deployment.manifest();
    let outcome = deployment.dkv(["pull-latest", "--no-pull"]).exit(5);
    outcome.stderr_contains("no image for linux/amd64").stderr_contains("it has linux/arm64");

    registry.move_tag("web", "latest", &index.digest);
    registry.delete("web", index.platform_digest("amd64"));
    let outcome = deployment.dkv(["pull-latest", "--no-pull"]).exit(5);
    outcome.stderr_contains(index.platform_digest("amd64")).stderr_contains("does not have that");
    assert_eq!(deployment.manifest(), before);
}

#[test]
fn version_pull_of_a_moving_tag_resolves_it() {
    let registry = Registry::start();
    let pushed = registry.push(Image::new("web").tag("1.42").tag("latest"));
    let deployment = deployment(&registry.repository("web"), &[]);
    deployment.dkv(["version-pull", "web", "latest"]).exit(0).stdout_contains("1.42");
    assert_eq!(
        (&web(&deployment)["current_tag"], &web(&deployment)["image_digest"]),
        (&"1.42".into(), &pushed.digest.into())
    );
}

/// The daemon resolves what was built here.
#[test]
fn a_local_build_is_resolved_by_the_daemon() {
    let deployment = Deployment::new("local");
    let repository = format!("{}-bot", deployment.project());
    let id = deployment.load(&repository, Image::new("bot").tag("latest").tag("2.1"));
    deployment.write("version-manifest.yaml", &manifest(&repository, &["source: local"]));
    deployment.dkv(["pull-latest"]).exit(0).stdout_contains("2.1");
    let history = deployment.manifest_data()["history"]["web"][0].clone();
    assert_eq!((&history["tag"], &history["image_id"]), (&"2.1".into(), &id.into()));
}

/// The tag moved to an older version: followed, and said loudly.
#[test]
fn a_tag_that_moved_back_is_followed_and_said_loudly() {
    let registry = Registry::start();
    let old = registry.push(Image::new("web").tag("1.41"));
    registry.push(Image::new("web").tag("1.42").tag("latest"));
    let deployment = deployment(&registry.repository("web"), &[]);
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0).stderr_lacks("older");
    registry.move_tag("web", "latest", &old.digest);

    deployment.dkv(["check-updates"]).exit(0).stdout_contains("older");
    let outcome = deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
    outcome.stderr_contains("warning: web: `latest` moved back to an older version: 1.42 → 1.41");
    assert_eq!(web(&deployment)["current_tag"], "1.41");
}

#[test]
fn a_deleted_tag_is_named() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("1.42").tag("latest"));
    let deployment = deployment(&registry.repository("web"), &[]);
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
    let before = deployment.manifest();
    registry.delete_tag("web", "latest");

    deployment
        .dkv(["pull-latest", "--no-pull"])
        .exit(5)
        .stderr_contains("web:latest")
        .stderr_contains("web");
    deployment.dkv(["check-updates"]).exit(5).stdout_contains("web:latest");
    deployment.dkv(["version-pull", "web", "9.9", "--no-pull"]).exit(5).stderr_contains("web:9.9");
    assert_eq!(deployment.manifest(), before);
}

/// A registry without a tag list (some mirrors) resolves nothing, and says why.
#[test]
fn without_a_list_of_tags_nothing_is_guessed() {
    let registry = Registry::start();
    let pushed = registry.push(Image::new("web").tag("1.42").tag("latest"));
    let proxy = Proxy::to(&registry);
    proxy.fault(crate::support::On::target("/tags/list"), crate::support::Fault::status(404));
    let digest = format!("image_digest: {}", pushed.digest);
    let deployment = deployment(&proxy.repository("web"), &["current_tag: latest", &digest]);
    deployment
        .dkv(["resolve-tags"])
        .exit(0)
        .stdout_contains("unresolved")
        .stdout_contains("list of tags");
    assert_eq!(web(&deployment)["current_tag"], "latest");
}

/// That nothing could be found out is no success.
#[test]
fn a_registry_that_cannot_be_asked_is_no_answer() {
    let registry = Registry::start();
    let pushed = registry.push(Image::new("web").tag("1.42").tag("latest"));
    let nobody = crate::support::registry::free_address();
    let lines = format!("    current_tag: latest\n    image_digest: {}\n", pushed.digest);
    let gone = deployment(
        &format!("{nobody}/a/web"),
        &["current_tag: latest", &format!("image_digest: {}", pushed.digest)],
    );
    let outcome = gone.dkv(["resolve-tags"]).exit(5);
    outcome
        .stdout_contains("unresolved")
        .stdout_contains(&nobody.to_string())
        .stderr_contains("error: ");
    gone.write(
        "version-manifest.yaml",
        &format!("{}  here:\n    image: {}\n{lines}", gone.manifest(), registry.repository("web")),
    );
    gone.dkv(["resolve-tags"]).exit(9).stdout_contains("here: latest → 1.42");
    let here = &gone.manifest_data()["services"]["here"];
    assert_eq!(
        (&here["current_tag"], &web(&gone)["current_tag"]),
        (&"1.42".into(), &"latest".into())
    );
}
