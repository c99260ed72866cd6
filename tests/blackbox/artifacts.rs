//! What a registry has under a tag is not always an image, nor a whole one, nor one for this host.

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::resolution::manifest;
use crate::support::{Deployment, Fault, Image, On, Proxy, Registry};

/// A registry, and a deployment whose one service is `web` in it.
fn bench() -> (Registry, Deployment) {
    let registry = Registry::start();
    let deployment = Deployment::new("artifacts");
    deployment.write("version-manifest.yaml", &manifest(&registry.repository("web"), &[]));
    (registry, deployment)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// The bytes are what their digest says, and no archive: that is how they were pushed.
#[test]
fn a_layer_that_is_no_archive_is_the_registrys_fault_and_named() {
    let (registry, deployment) = bench();
    let before = deployment.manifest();
    let noise: Vec<u8> =
        (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let half = gzip(&noise);
    for (number, bytes) in [&noise[..], &half[..half.len() / 2], &half].into_iter().enumerate() {
        let image = Image::new("web").tag("latest").version(&format!("corrupt-{number}"));
        registry.push(image.last_layer(bytes));
        let layer = crate::support::image::digest(bytes);
        let outcome = deployment.dkv(["pull-latest"]).finish();
        assert_eq!(outcome.code(), Some(5), "{number}: {outcome}");
        outcome.stderr_contains(&layer["sha256:".len()..][..12]).stderr_contains("web");
        assert_eq!(deployment.manifest(), before);
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Puts a manifest of `web` with a configuration and a layer of these types under `tag`.
fn artifact(registry: &Registry, tag: &str, config_type: &str, layer_type: &str) {
    let part = |kind: &str, bytes: &[u8]| {
        let digest = registry.put_blob("web", bytes);
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    };
    put(
        registry,
        tag,
        MANIFEST,
        &json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": part(config_type, b"{}"), "layers": [part(layer_type, tag.as_bytes())]}),
    );
}

fn put(registry: &Registry, tag: &str, media_type: &str, content: &Value) {
    let repository = format!("{}/web", registry.namespace());
    registry.put_manifest(&repository, tag, media_type, content.to_string().as_bytes());
}

/// What is no image for this host is refused by whoever asks for it: the registry's list of tags
/// has it like any other.
#[test]
fn what_is_no_image_for_the_host_is_refused_with_and_without_a_daemon() {
    let (registry, deployment) = bench();
    let image = registry.push(Image::new("web").tag("1.0").platforms(&["arm64"]).oci());
    let arm = image.platform_digest("arm64");
    artifact(
        &registry,
        "chart",
        "application/vnd.cncf.helm.config.v1+json",
        "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
    );
    artifact(&registry, "signature", CONFIG, "application/vnd.dev.cosign.simplesigning.v1+json");
    artifact(
        &registry,
        "other",
        "application/vnd.acme.thing.v1+json",
        "application/vnd.oci.image.layer.v1.tar+gzip",
    );
    let index =
        |entries: Value| json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    put(&registry, "empty", INDEX, &index(json!([])));
    put(
        &registry,
        "attested",
        INDEX,
        &index(json!([{"mediaType": MANIFEST, "digest": arm, "size": 1,
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"}}])),
    );
    registry.move_tag("web", "single", arm);
    let before = deployment.manifest();
    for (tag, what) in [
        ("chart", "is a Helm chart, no image"),
        ("signature", "is a signature, no image"),
        ("other", "is an artifact (application/vnd.acme.thing.v1+json), no image"),
        ("empty", "is an empty index, no image"),
        ("attested", "is an index without any image, no image"),
        ("1.0", "has no image for linux/amd64"),
        ("single", "has no image for linux/amd64"),
    ] {
        for more in [&["--no-pull"][..], &["--dry-run"], &[]] {
            for command in ["version-pull", "version-set"] {
                let outcome = deployment
                    .dkv([command, "web", tag].into_iter().chain(more.iter().copied()))
                    .finish();
                assert_eq!(outcome.code(), Some(5), "{command} {tag} {more:?}: {outcome}");
                if !more.is_empty() {
                    outcome.stderr_contains(what);
                }
                outcome.stderr_contains("web");
            }
        }
    }
    let followed = manifest(&registry.repository("web"), &["track: chart"]);
    deployment.write("version-manifest.yaml", &followed);
    deployment.dkv(["pull-latest", "--no-pull"]).exit(5).stderr_contains("is a Helm chart");
    deployment.dkv(["pull-latest"]).exit(5).stderr_contains("chart");
    deployment.dkv(["pin", "--latest"]).exit(5).stderr_contains("is a Helm chart");
    assert_eq!(deployment.manifest(), followed);
    deployment.write("version-manifest.yaml", &before);

    // What another machine will run is recorded for that one.
    let outcome = deployment.dkv(["version-pull", "web", "1.0", "--no-pull"]).exit(5);
    outcome.stderr_contains("--platform").stderr_contains("linux/arm64");
    for tag in ["1.0", "single"] {
        deployment.write("version-manifest.yaml", &before);
        deployment
            .dkv(["version-pull", "web", tag, "--no-pull", "--platform", "linux/arm64"])
            .exit(0);
    }
    deployment
        .write("version-manifest.yaml", &manifest(&registry.repository("web"), &["track: '1.0'"]));
    deployment.dkv(["pull-latest", "--no-pull", "--platform", "arm64"]).exit(0);
    let release = deployment.manifest_data()["history"]["web"][0].clone();
    assert_eq!(
        (&release["digest"], &release["platform_digest"]),
        (&json!(image.digest), &json!(arm))
    );
    deployment.dkv(["pull-latest", "--no-pull", "--platform", "a/b/c/d"]).exit(2);
    deployment.dkv(["pull-latest", "--platform", "arm64"]).exit(2);
}

/// A digest that only a header names is no release: what is new is fetched once and hashed.
#[test]
fn without_a_daemon_what_is_new_is_fetched_once() {
    let (registry, _) = bench();
    let image = registry.push(Image::new("web").tag("1.0").tag("latest").platforms(&["amd64"]));
    let proxy = Proxy::to(&registry);
    let deployment = Deployment::new("artifacts");
    deployment.write("version-manifest.yaml", &manifest(&proxy.repository("web"), &[]));
    let before = deployment.manifest();
    for command in [
        &["pull-latest", "--no-pull"][..],
        &["version-pull", "web", "1.0", "--no-pull"],
        &["version-set", "web", "latest", "--no-pull"],
    ] {
        proxy.reset();
        proxy.fault(On::target("/manifests/").method("HEAD"), Fault::WrongDigestHeader);
        let outcome = deployment.dkv(command.iter().copied()).exit(5);
        outcome.stderr_contains("and does not have that");
        assert_eq!(deployment.manifest(), before);
        proxy.reset();
        proxy.fault(On::target("/manifests/sha256").method("GET"), Fault::WrongBody);
        deployment.dkv(command.iter().copied()).exit(5).stderr_contains("wrong content");
        assert_eq!(deployment.manifest(), before);
    }
    proxy.reset();
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
    // The index, the image and its configuration.
    assert_eq!(proxy.count("GET", "/manifests/"), 2);
    assert_eq!(proxy.count("GET", "/blobs/"), 1);
    proxy.reset();
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0).stderr_contains("Nothing new");
    assert_eq!(proxy.requests().len(), 1);
    drop(image);
}
