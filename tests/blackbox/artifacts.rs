//! What a registry has under a tag is not always an image, nor a whole one, nor one for this host.

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::resolution::manifest;
use crate::support::{Deployment, Image, Registry};

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
    let noise: Vec<u8> = (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
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
