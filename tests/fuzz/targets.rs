//! The parsers that read what others write, each with what must hold for any input at all. They may
//! take no more memory than [`MEMORY_LIMIT`]; who runs them bounds the time.

use std::alloc::System;

use cap::Cap;
use dkv::fuzzing::{
    Bytes, Challenge, Digest, DockerConfig, Listing, Manifest, Platform, Reference, Release,
    Service, Tag, link,
};
use futures_util::FutureExt as _;

/// The most bytes that may be allocated at any time; asking for more ends the process.
pub const MEMORY_LIMIT: usize = 256 * 1024 * 1024;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, MEMORY_LIMIT);

/// One parser.
pub struct Target {
    /// Its name, and that of its directory in `corpus`.
    pub name: &'static str,
    /// Takes one input; panics when something does not hold.
    pub run: fn(&[u8]),
}

/// All targets.
pub const ALL: [Target; 5] = [
    Target { name: "manifest", run: manifest },
    Target { name: "reference", run: reference },
    Target { name: "link", run: links },
    Target { name: "challenge", run: challenge },
    Target { name: "docker-config", run: docker_config },
];

/// What is read is read again from its text; an edit is refused, or is there and nothing else.
fn manifest(data: &[u8]) {
    let mut before = match Manifest::read(data) {
        Ok(manifest) => manifest,
        Err(error) => {
            // What it quotes of the text is made harmless where it is printed.
            assert!(error.line > 0 && error.column > 0 && !error.message.is_empty(), "{error:?}");
            return;
        }
    };
    let again = Manifest::read(before.source().as_bytes()).expect("the same text");
    assert_eq!(again.services, before.services);
    // An image that is no name is somebody's mistake, but not a reason to fail in another way.
    let _ = before.settle(|_| None);
    let Some(old) = again.services.values().last() else { return };
    let new = updated(old);
    let Ok(text) = again.with(std::slice::from_ref(&new), &Listing::default()) else { return };
    let after = Manifest::read(text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(after.services.len(), again.services.len());
    for (name, service) in &after.services {
        if *name != new.name {
            assert_eq!(Some(service), again.services.get(name), "\n{text}");
            continue;
        }
        assert_eq!(service.held, new.held, "\n{text}");
        let current = |service: &Service| {
            service.current().map(|current| (current.tag.clone(), current.bytes.digest.clone()))
        };
        assert_eq!(current(service), current(&new), "\n{text}");
        assert_eq!(service.history.entries().len(), new.history.entries().len(), "\n{text}");
    }
    let unchanged =
        after.with(&[after.services[&new.name].clone()], &Listing::default()).expect("no edit");
    assert_eq!(unchanged, text);
}

/// The service with a new release, held or no longer so.
fn updated(service: &Service) -> Service {
    let mut after = service.clone();
    after.held = !after.held;
    let mut release =
        Release::new("1.2.3".parse().expect("a tag"), Bytes::of(Some(Digest::of(b"fuzz"))));
    release.deployed_at = Some("2026-01-12T12:29:08Z".to_owned());
    release.deployed_by = Some("# \"fuzz\": '".to_owned());
    after.history.advance(release, |_| false);
    after
}

/// What is accepted is harmless to a shell, a header and YAML, and reads the same again.
fn reference(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match text.parse::<Reference>() {
        Ok(reference) => {
            assert_eq!(reference.to_string(), text);
            let harmless = |c: char| c.is_ascii_alphanumeric() || ".-_/:@[]".contains(c);
            assert!(text.chars().all(harmless), "{text:?}");
            let canonical =
                format!("{}/{}", reference.repository.host(), reference.repository.path());
            // It may be too long where the short form was not.
            assert!(canonical.len() > 255 || canonical.parse() == Ok(reference.repository.clone()));
            assert!(
                !reference.repository.base_name().is_empty()
                    && !reference.repository.api_host().is_empty()
            );
        }
        Err(error) => assert!(is_printable(&error.to_string()), "{error}"),
    }
    if let Ok(tag) = text.parse::<Tag>() {
        assert!(tag.as_str().len() <= 128);
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!((digest.hex().len(), digest.short().len()), (64, 12));
    }
    assert_eq!(Platform::of_this_program().os, "linux");
}

/// What is taken from a link to the next page is a query and nothing more.
fn links(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Some(target) = link::next(text.lines()) else { return };
    let page = "https://registry.example:5000/v2/a/b/tags/list?n=1000".parse().expect("an address");
    if let Ok(query) = link::query(&page, target) {
        let is_safe = |c: char| c.is_ascii_graphic() && c != '#';
        assert!(!query.is_empty() && query.chars().all(is_safe), "{target:?}");
    }
}

/// A token server is reached by TLS, or is on loopback for a registry that is there, too.
fn challenge(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for registry in ["registry.example", "127.0.0.1:5000"] {
        match Challenge::parse(text.lines(), registry) {
            Ok(challenge) => {
                assert!(!challenge.scope_for("a/b").is_empty());
                if let Challenge::Bearer { realm, .. } = &challenge {
                    let is_safe = realm.scheme() == "https"
                        || (realm.scheme() == "http" && registry.starts_with("127."));
                    assert!(
                        is_safe && realm.username().is_empty() && realm.password().is_none(),
                        "{realm}"
                    );
                }
            }
            Err(error) => assert!(is_printable(&error), "{error:?}"),
        }
    }
}

/// A login is found without waiting where no helper can be, and what is wrong is said without
/// control characters.
fn docker_config(data: &[u8]) {
    let config = match DockerConfig::parse(data) {
        Ok(config) => config,
        Err(error) => return assert!(is_printable(&error), "{error:?}"),
    };
    for host in ["docker.io", "registry.example", "127.0.0.1:5000"] {
        match config.login(host, None).now_or_never().expect("no helper is asked") {
            Ok(Some(credentials)) => assert!(!credentials.server.is_empty()),
            Ok(None) => {}
            Err(problem) => assert!(is_printable(&problem), "{problem:?}"),
        }
    }
}

fn is_printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}
