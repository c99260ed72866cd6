//! Manifests as deployments have them, read and written.

use super::{Listing, Manifest, Rank, Service, Source};
use crate::model::history::{Bytes, Release};
use crate::model::reference::{Digest, Repository, ServiceName};

const PULLED: &str = include_str!("../../../tests/fixtures/manifests/dkapp-pulled.yaml");
const WIZARD: &str = include_str!("../../../tests/fixtures/manifests/dkapp-wizard.yaml");
const PROXY: &str = include_str!("../../../tests/fixtures/manifests/dkproxy.yaml");
const EXAMPLE: &str = include_str!("../../../version-manifest.example.yaml");

fn read(text: &str) -> Manifest {
    Manifest::read(text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn service<'a>(manifest: &'a Manifest, name: &str) -> &'a Service {
    &manifest.services[&name.parse::<ServiceName>().unwrap()]
}

fn digit(digit: char) -> Option<Digest> {
    Some(format!("sha256:{}", String::from(digit).repeat(64)).parse().unwrap())
}

fn tags(service: &Service) -> Vec<&str> {
    service.history.entries().iter().map(|entry| entry.tag.as_str()).collect()
}

#[test]
fn reads_what_the_old_tool_wrote() {
    let manifest = read(PULLED);
    assert!(manifest.is_legacy);
    let router = service(&manifest, "req_router");
    assert_eq!(router.current().unwrap().bytes.digest, digit('1'));
    assert_eq!(
        router.previous_index(),
        Some(1),
        "a fixed tag without a digest can be gone back to"
    );
    let tasks = service(&manifest, "taskservice");
    assert_eq!(tasks.current().unwrap().bytes.digest, None);
    assert_eq!(tasks.previous_index(), Some(2), "`latest` without a digest is lost");
    let settings = service(&manifest, "settings");
    assert_eq!(
        (settings.current().unwrap().tag.as_str(), &settings.current().unwrap().bytes.digest),
        ("1.40", &digit('2'))
    );
    let custom = service(&manifest, "conv_mgr");
    assert!(custom.custom_in_force().is_some());
    assert_eq!(custom.current().unwrap().bytes.digest, None);
    assert_eq!(manifest.services.len(), 4, "a service that is only in the history is left alone");
}

#[test]
fn an_override_holds_for_bytes_and_binds_to_those_under_its_tag() {
    let manifest = |digest: &str, custom: &str| {
        let hex = |digit: &str| format!("sha256:{}", digit.repeat(64));
        let history = [("2", "2"), ("2", "1"), ("1", "3")]
            .map(|(tag, digit)| format!("  - {{tag: '{tag}', digest: '{}'}}\n", hex(digit)));
        read(&format!(
            "schema_version: '1.1'\nservices:\n  web: {{image: acme/web, current_tag: '2', \
             image_digest: '{}'}}\nhistory:\n  web:\n{}custom_overrides:\n  web: {custom}\n",
            hex(digest),
            history.concat()
        ))
    };
    let in_force = |digest: &str, custom: &str| {
        service(&manifest(digest, custom), "web").custom_in_force().is_some()
    };
    let bound = format!("{{tag: '2', digest: 'sha256:{}'}}", "1".repeat(64));
    assert!(in_force("2", "{tag: '2'}"));
    assert!(!in_force("2", "{tag: '1'}"));
    assert!(!in_force("2", &bound), "other bytes under its tag are not it");
    assert!(in_force("1", &bound));
    let web = service(&manifest("2", "{tag: '1'}"), "web").clone();
    assert_eq!(web.custom.unwrap().digest, digit('3'));
}

#[test]
fn the_wizards_image_id_is_never_a_digest() {
    let manifest = read(WIZARD);
    let current = service(&manifest, "wsfe").current().unwrap();
    assert_eq!((&current.bytes.digest, &current.unverified_digest), (&None, &digit('3')));
    // A change of another service has raised the schema meanwhile.
    let ours = WIZARD.replace("schema_version: '1.0'", "schema_version: '1.1'");
    assert_eq!(service(&read(&ours), "wsfe").current().unwrap().bytes.digest, None);
}

#[test]
fn what_dkv_has_seen_in_the_daemon_is_a_digest_whoever_deployed_it() {
    let digest = digit('3').unwrap();
    let entry = format!(
        "history:\n  wsfe:\n  - {{tag: latest, digest: '{digest}', image_id: '{}', status: \
            current}}\n",
        digit('4').unwrap()
    );
    let service_lines = format!(
        "services:\n  wsfe: {{image: r.example/wsfe, current_tag: latest, image_digest: \
            '{digest}', deployed_by: migration}}\n"
    );
    for (history, expected) in [(entry.as_str(), Some(&digest)), ("", None)] {
        let manifest = read(&format!("schema_version: '1.1'\n{service_lines}{history}"));
        assert_eq!(
            service(&manifest, "wsfe").current().unwrap().bytes.digest.as_ref(),
            expected,
            "{history}"
        );
    }
}

#[test]
fn the_digest_of_another_repository_is_never_taken() {
    let (theirs, ours) = (digit('5').unwrap(), digit('6').unwrap());
    let ecr = "ecr: {registry: r.example, repository_alias: acme, use_private: false}";
    let read = |image: &str, digest: &str| {
        read(&format!(
            "schema_version: '1.0'\n{ecr}\nservices:\n  web: {{{image} current_tag: '1', \
                image_digest: '{digest}'}}\n"
        ))
    };
    let both = format!("[mirror.example/web@{theirs} r.example/acme/web@{ours}]");
    for image in ["", "image: r.example/acme/web,"] {
        let known = read(image, &both);
        assert_eq!(
            service(&known, "web").current().unwrap().bytes.digest.as_ref(),
            Some(&ours),
            "{image}"
        );
    }
    for digest in [format!("[mirror.example/web@{theirs}]"), format!("mirror.example/web@{theirs}")]
    {
        let foreign = read("image: r.example/acme/web,", &digest);
        assert_eq!(service(&foreign, "web").current().unwrap().bytes.digest, None, "{digest}");
        assert!(foreign.warnings[0].contains("other repositories"), "{:?}", foreign.warnings);
    }
}

#[test]
fn images_come_from_compose_or_from_the_default() {
    let mut manifest = read(PROXY);
    let vault: Repository = "hashicorp/vault".parse().unwrap();
    let hint = |service: &Service| {
        (service.name.as_str() == "vault").then(|| (vault.clone(), Some("1.20.3".parse().unwrap())))
    };
    manifest.settle(hint).unwrap();
    assert_eq!(service(&manifest, "vault").image.as_ref(), Some(&vault));
    assert_eq!(service(&manifest, "vault").track_name(), "1.20.3");
    assert_eq!(
        service(&manifest, "outpost").image.as_ref().unwrap().to_string(),
        "public.ecr.aws/n5k3t9x2/outpost"
    );
    assert_eq!(service(&manifest, "outpost").track_name(), "latest");
    assert_eq!(
        tags(service(&manifest, "outpost")),
        ["1.12", "1.11"],
        "the same release twice is one"
    );
}

#[test]
fn an_image_that_spells_out_the_default_follows_the_switch() {
    let private = PULLED.replace("use_private: false", "use_private: true").replace(
        "private_registry: ''",
        "private_registry: 123456789012.dkr.ecr.us-east-1.amazonaws.com",
    );
    let mut manifest = read(&private);
    manifest.settle(|_| None).unwrap();
    assert_eq!(
        service(&manifest, "settings").image.as_ref().unwrap().to_string(),
        "123456789012.dkr.ecr.us-east-1.amazonaws.com/settings"
    );
}

#[test]
fn dangerous_content_is_refused_where_it_stands() {
    for (from, to, line, part) in [
        ("current_tag: '1.64'", "current_tag: '$(touch x)'", 13, "not a valid tag"),
        ("current_tag: '1.64'", "current_tag: ''", 13, "empty"),
        ("current_tag: '1.64'", "current_tag:", 13, "expected text"),
        ("current_tag: '1.64'", "current_tag: [1]", 13, "expected text"),
        ("  req_router:\n    image", "  req router:\n    image", 11, "not a valid service name"),
        ("image: public.ecr.aws/n5k3t9x2/req_router", "image: 'a b'", 12, "not a valid image name"),
        ("req_router@sha256:1111", "req_router@sha256:x111", 16, "not a valid digest"),
        ("schema_version: '1.0'", "schema_version: '2.0'", 1, "newer"),
        ("customer_id: ''", "customer_id: ''\ncustomer_id: x", 4, "duplicate"),
        ("use_private: false", "use_private: perhaps", 7, "true or false"),
        ("  - tag: '1.63'", "  - tag: ''", 40, "empty"),
        (
            "  req_router:\n  - tag: '1.64'",
            "  req_router: oops\n  x:\n  - tag: '1.64'",
            36,
            "expected a list",
        ),
    ] {
        assert!(PULLED.contains(from), "{from}");
        let error =
            Manifest::read(PULLED.replacen(from, to, 1).as_bytes()).expect_err(to).to_string();
        assert!(error.contains(&format!("line {line}")) && error.contains(part), "{to}: {error}");
    }
    assert!(Manifest::read(b"").is_err());
    assert!(Manifest::read(b"a: \xff").is_err());
}

#[test]
fn two_current_entries_mean_the_newest() {
    let manifest = read(&PULLED.replacen("status: previous", "status: current", 1));
    assert_eq!(service(&manifest, "req_router").current().unwrap().tag.as_str(), "1.64");
    assert!(manifest.warnings.iter().any(|warning| warning.contains("req_router")));
}

#[test]
fn an_edit_by_hand_means_the_release_that_it_names() {
    let digest = |digit: &str| match digit {
        "" => String::new(),
        digit => format!("sha256:{}", digit.repeat(64)),
    };
    for (tag, written, current, all, warning) in [
        ("2", "2", ("2", "2"), "2 1 0", ""),
        ("1", "1", ("1", "1"), "2 1 0", "current_tag counts"),
        ("1", "2", ("1", "1"), "2 1 0", "current_tag counts"),
        ("1", "", ("1", "1"), "2 1 0", "current_tag counts"),
        ("1", "9", ("1", "9"), "1 2 1 0", ""),
        ("3", "2", ("3", "2"), "3 1 0", "is called 3 now"),
        ("3", "1", ("3", "1"), "2 3 0", "is called 3 now"),
        ("3", "9", ("3", "9"), "3 2 1 0", ""),
        ("3", "", ("3", ""), "3 2 1 0", "whose digest is not known"),
        // What is left of another release is not that of an old entry without one.
        ("0", "2", ("0", ""), "2 1 0", "current_tag counts"),
        ("0", "9", ("0", "9"), "2 1 0", "current_tag counts"),
    ] {
        let entry = |number: &str, status| {
            format!("  - {{tag: '{number}', digest: '{}', status: {status}}}\n", digest(number))
        };
        let manifest = read(&format!(
            "schema_version: '1.1'\nservices:\n  web:\n    image: r.example/web\n    current_tag: \
            '{tag}'\n    image_digest: '{}'\nhistory:\n  web:\n{}{}  - {{tag: '0'}}\n",
            digest(written),
            entry("2", "current"),
            entry("1", "previous"),
        ));
        let web = service(&manifest, "web");
        let found = web.current().unwrap();
        let of = found.bytes.digest.as_ref().map(ToString::to_string).unwrap_or_default();
        assert_eq!((found.tag.as_str(), of), (current.0, digest(current.1)), "{tag} {written}");
        assert_eq!(tags(web).join(" "), all, "{tag} {written}");
        let said = manifest.warnings.join("; ");
        assert_eq!(said.is_empty(), warning.is_empty(), "{tag} {written}: {said}");
        assert!(said.contains(warning), "{tag} {written}: {said}");
    }
}

#[test]
fn a_cursor_moved_by_hand_leaves_the_time_of_the_other_release() {
    for (tag, at, expected) in [
        // As dkv wrote it, after a rollback too.
        ("2", "2026-03-03", Some("2026-03-03")),
        ("1", "2026-03-03", Some("2026-01-01")),
        ("1", "2026-02-02", Some("2026-01-01")),
        // Of what was never there nothing is known, unless somebody says so.
        ("3", "2026-02-02", None),
        ("3", "2026-04-04", Some("2026-04-04")),
    ] {
        let manifest = read(&format!(
            "schema_version: '1.1'\nservices:\n  web:\n    image: r.example/web\n    current_tag: \
            '{tag}'\n    deployed_at: '{at}'\nhistory:\n  web:\n  - {{tag: '2', deployed_at: \
            '2026-02-02', status: current}}\n  - {{tag: '1', deployed_at: '2026-01-01'}}\n",
        ));
        let web = service(&manifest, "web");
        assert_eq!(web.deployed_at.as_deref(), expected, "{tag} {at}");
    }
}

#[test]
fn the_id_of_an_image_means_the_release_that_has_it() {
    let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
    for (tag, written, expected) in [("1", "a", "1"), ("2", "a", "1"), ("1", "9", "9")] {
        let entry = |number: &str, id: &str, status| {
            let (bytes, id) = (digest(number), digest(id));
            format!(
                "  - {{tag: '{number}', digest: '{bytes}', image_id: '{id}', status: {status}}}\n"
            )
        };
        let manifest = read(&format!(
            "schema_version: '1.1'\nservices:\n  web:\n    image: r.example/web\n    current_tag: \
            '{tag}'\n    image_digest: '{}'\nhistory:\n  web:\n{}{}",
            digest(written),
            entry("2", "b", "current"),
            entry("1", "a", "previous"),
        ));
        let current = service(&manifest, "web").current().unwrap();
        let found = current.bytes.digest.as_ref().map(ToString::to_string);
        let meant = if tag == "2" { "2" } else { expected };
        assert_eq!(found, Some(digest(meant)), "{tag} {written}");
    }
}

#[test]
fn the_example_at_the_top_level_is_read_as_it_says() {
    let manifest = read(EXAMPLE);
    assert!(!manifest.is_legacy && manifest.warnings.is_empty(), "{:?}", manifest.warnings);
    assert!(manifest.services.len() >= 3);
    assert!(manifest.services.values().any(|service| service.source == Source::Local));
    assert!(manifest.services.values().any(|service| service.held));
}

/// The lines of `text` that do not belong to the service `name` in any section.
fn foreign_lines<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let mut mine = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with(|c: char| !c.is_whitespace())
            || (line.starts_with("  ") && !line.starts_with("   ") && !line.starts_with("  -"))
        {
            mine = line.trim_start().starts_with(&format!("{name}:"));
        }
        if !mine && !line.starts_with("schema_version") {
            lines.push(line);
        }
    }
    lines
}

#[test]
fn recording_a_release_changes_no_line_of_another_service() {
    for text in [PULLED.to_owned(), PULLED.replace('\n', "\r\n")] {
        let manifest = read(&text);
        let mut router = service(&manifest, "req_router").clone();
        let mut release = Release::new("1.65".parse().unwrap(), Bytes::of(digit('9')));
        release.deployed_at = Some("2026-02-01T00:00:00Z".to_owned());
        release.deployed_by = Some("bob".to_owned());
        router.history.advance(release, |tag| tag.as_str() == "latest");
        router.deployed_at = Some("2026-02-01T00:00:00Z".to_owned());
        let written = manifest.with(&[router], &Listing::default()).unwrap();
        let again = read(&written);
        assert!(!again.is_legacy);
        let router = service(&again, "req_router");
        assert_eq!(tags(router), ["1.65", "1.64", "1.63"]);
        assert_eq!(
            router.history.entries()[1].bytes.digest,
            digit('1'),
            "the digest that only the service had"
        );
        assert_eq!(
            (router.status(0), router.status(1), router.status(2)),
            (Rank::Current, Rank::Previous, Rank::Archived)
        );
        assert_eq!(foreign_lines(&text, "req_router"), foreign_lines(&written, "req_router"));
        assert_eq!(text.contains('\r'), written.contains('\r'));
        assert_eq!(
            written.matches("\r\n").count(),
            if text.contains('\r') { written.matches('\n').count() } else { 0 }
        );
        let same = read(&written);
        let unchanged: Vec<Service> = same.services.values().cloned().collect();
        assert_eq!(
            same.with(&unchanged, &Listing::default()).unwrap(),
            written,
            "nothing new, nothing written"
        );
    }
}

#[test]
fn a_service_of_its_own_is_added_with_its_history() {
    let manifest = read(PULLED);
    let mut added =
        Service::new("mcp-server".parse().unwrap(), Some("r.example/mcp".parse().unwrap()));
    added.history.advance(Release::new("1.0".parse().unwrap(), Bytes::of(digit('7'))), |_| false);
    let written = manifest.with(&[added], &Listing::default()).unwrap();
    let again = read(&written);
    assert_eq!(again.services.len(), 5);
    assert_eq!(service(&again, "mcp-server").current().unwrap().bytes.digest, digit('7'));
}

/// The old tool wrote only beside the service who had deployed what is current.
#[test]
fn who_deployed_a_release_is_still_known_when_it_is_left() {
    let text = "schema_version: '1.0'\nservices:\n  web:\n    image: r.example/web\n    \
        current_tag: '1.0'\n    deployed_by: alice\n\
                history:\n  web:\n  - {tag: '1.0', deployed_at: '2026-01-05T09:00:00', status: \
                current}\n";
    let manifest = read(text);
    let mut web = service(&manifest, "web").clone();
    let mut next = Release::new("1.1".parse().unwrap(), Bytes::of(digit('1')));
    next.deployed_by = Some("bob".to_owned());
    web.history.advance(next, |_| false);
    web.deployed_by = Some("bob".to_owned());
    let written = read(&manifest.with(&[web], &Listing::default()).unwrap());
    let by: Vec<_> = service(&written, "web")
        .history
        .entries()
        .iter()
        .map(|entry| entry.deployed_by.as_deref())
        .collect();
    assert_eq!(by, [Some("bob"), Some("alice")]);
}

/// What the operator called a release stays its name when another one follows.
#[test]
fn a_release_renamed_by_hand_keeps_its_name_when_it_is_left() {
    let one = "1".repeat(64);
    let text = format!(
        "schema_version: '1.1'\nservices:\n  web:\n    image: r.example/web\n    current_tag: \
        1.0-lts\n    image_digest: sha256:{one}\nhistory:\n  web:\n  - {{tag: '1.0', digest: \
        'sha256:{one}', status: current}}\n"
    );
    let manifest = read(&text);
    let mut web = service(&manifest, "web").clone();
    web.history.advance(Release::new("1.1".parse().unwrap(), Bytes::of(digit('2'))), |_| false);
    let written = read(&manifest.with(&[web], &Listing::default()).unwrap());
    assert_eq!(tags(service(&written, "web")), ["1.1", "1.0-lts"]);
}
