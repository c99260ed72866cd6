//! The fuzz targets under libFuzzer: `DKV_FUZZ_TARGET` names the one that runs.
#![no_main]
#![allow(clippy::expect_used, clippy::panic, reason = "a fuzz target stops at the first surprise")]

#[path = "../targets.rs"]
mod targets;

use std::sync::OnceLock;

use targets::Target;

static TARGET: OnceLock<&'static Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("DKV_FUZZ_TARGET").unwrap_or_default();
        targets::ALL.iter().find(|target| target.name == name).expect("DKV_FUZZ_TARGET names a \
            target")
    });
    (target.run)(data);
});
