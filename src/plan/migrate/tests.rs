//! What is proposed for files, manifests and containers of every kind, as text.

use super::*;
use crate::model::history::Release;
use crate::model::image_line::Entry;
use crate::model::manifest::Listing;

fn entry(service: &str) -> Entry {
    Entry { document: 0, service: service.to_owned() }
}

fn line(service: &str, text: &str) -> Line {
    let image = Template::parse(text).unwrap().default_value().unwrap().parse().unwrap();
    let written = ComposeChange {
        compose_service: service.to_owned(),
        there: entry(service),
        file: "compose.yaml".to_owned(),
        line: None,
        from: Some(text.to_owned()),
        to: None,
        written: false,
        template: None,
        left: None,
        cut: Vec::new(),
        own_file: "compose.yaml".to_owned(),
        own: entry(service),
    };
    Line {
        written,
        image,
        platform: None,
        is_sourced: false,
        has_build: false,
        is_never_pulled: false,
        is_database: false,
        nests_defaults: false,
        present: None,
    }
}

/// A line whose variables have values now, as `.env` gives them.
fn evaluated(service: &str, text: &str, image: &str) -> Line {
    let written = ComposeChange { from: Some(text.to_owned()), ..line(service, "x").written };
    Line { written, image: image.parse().unwrap(), ..line(service, "x") }
}

fn digest(seed: u8) -> Digest {
    Digest::of(&[seed])
}

fn running(line: Line, named: &str, id: u8, digests: &[(&str, u8)]) -> Line {
    let digests = digests.iter().map(|(name, seed)| (name.parse().unwrap(), digest(*seed)));
    let present = Present {
        is_running: true,
        named: named.parse().ok(),
        image_id: digest(id),
        digests: digests.collect(),
        tags: Vec::new(),
    };
    Line { present: Some(present), ..line }
}

fn built(line: Line) -> Line {
    Line { has_build: true, ..line }
}

fn tracking(name: &str) -> Choice {
    Choice { track: BTreeSet::from([name.to_owned()]), ..Choice::default() }
}

fn proposed(lines: &[Line]) -> Proposal<'_> {
    propose(lines, None, "DK_", &Choice::default())
}

/// Services to add with `+`, images left alone with `-`, lines to change with `~`, lines that stay
/// with `!`, other versions with `?`, notes with `#`.
fn told(all: &Proposal<'_>) -> Vec<String> {
    let mut told = Vec::new();
    for new in &all.services {
        let Service { name, track, env_tag, env_image, compose_services, .. } = &new.service;
        let tag = new.tag.as_ref().map_or("-", Tag::as_str);
        let more = [track.as_ref().map(Tag::as_str), env_image.as_deref(), env_tag.as_deref()];
        let more = more.map(|one| one.unwrap_or("-")).join(" ");
        told.push(format!("+ {name} {tag} ({more}) = {}", compose_services.join(" ")));
        told.extend(new.notes.iter().map(|note| format!("# {note}")));
    }
    let untracked = all.untracked.iter();
    told.extend(
        untracked.map(|one| format!("- {} = {}", one.image, one.compose_services.join(" "))),
    );
    told.extend(all.changes.iter().map(|change| match (&change.to, &change.left) {
        (Some(to), _) => format!("~ {} {to}", change.compose_service),
        (None, why) => format!("! {} {}", change.compose_service, why.as_deref().unwrap()),
    }));
    told.extend(all.others.iter().map(|other| format!("? {}", other.compose_service)));
    told.extend(all.notes.iter().map(|note| format!("# {note}")));
    told
}

#[test]
fn services_are_named_grouped_and_followed_as_the_lines_say() {
    let ecr = "public.ecr.aws/n5k3t9x2";
    let pin = format!("harystyles/backend@{}", digest(9));
    let bot = |service: &str| built(line(service, "whisper-bot:${VERSION:-latest}"));
    for (lines, expected) in [
        (
            vec![
                line(
                    "req-router",
                    &format!(
                        "${{DK_REQ_ROUTER_IMAGE:-{ecr}/req_router}}:${{DK_REQ_ROUTER_TAG:-latest}}"
                    ),
                ),
                line("vault", "${DK_VAULT_IMAGE:-hashicorp/vault}:${DK_VAULT_TAG:-1.20.3}"),
                line("nginx", "nginx:latest"),
                line("cache", &format!("{ecr}/redis:7")),
                line("beside", &format!("{ecr}/beside:latest")),
            ],
            &[
                "+ req_router latest (- - -) = req-router",
                "+ vault 1.20.3 (1.20.3 - -) = vault",
                "+ beside latest (- - -) = beside",
                "- nginx:latest = nginx",
                "- public.ecr.aws/n5k3t9x2/redis:7 = cache",
                "~ beside ${DK_BESIDE_IMAGE:-public.ecr.aws/n5k3t9x2/beside}:${DK_BESIDE_TAG:-latest}",
            ][..],
        ),
        (
            vec![bot("migrate"), bot("elena"), line("db", "postgres:16.4-alpine")],
            &["+ whisper-bot latest (- - VERSION) = migrate elena", "- postgres:16.4-alpine = db"],
        ),
        (
            vec![
                line("migrate", "w/engine:${VERSION:-v1.0.2}"),
                line("assistant", "w/engine:${VERSION:-v1.0.2}"),
                line("ui", "w/engine-ui:v2"),
            ],
            &[
                "+ engine v1.0.2 (v1.0.2 - VERSION) = migrate assistant",
                "+ engine-ui v2 (v2 - -) = ui",
                "~ ui ${DK_ENGINE_UI_IMAGE:-w/engine-ui}:${DK_ENGINE_UI_TAG:-v2}",
            ],
        ),
        // Without variables, what the application files name and is no infrastructure.
        (
            vec![
                line("backend", &pin),
                line("postgres", "postgres:16-alpine"),
                line("vectors", "agnohq/pgvector:16"),
                Line { is_database: true, ..line("pg", "someone/else:1") },
            ],
            &[
                "+ backend - (- - -) = backend",
                "- postgres:16-alpine = postgres",
                "- agnohq/pgvector:16 = vectors",
                "- someone/else:1 = pg",
            ],
        ),
        // What is written is what is followed, also beside a digest.
        (
            vec![line("b", &format!("a/b:1.42@{}", digest(9))), line("c", "a/c:stable")],
            &["+ b 1.42 (1.42 - -) = b", "+ c stable (stable - -) = c"],
        ),
        (
            vec![
                line("a", "r.example/a:${V:-1}-alpine"),
                line("b", "${REGISTRY:-r.example}/b:${B_VERSION:-2}"),
            ],
            &[
                "+ a 1-alpine (1-alpine - -) = a",
                "+ b 2 (2 - B_VERSION) = b",
                "~ a ${DK_A_IMAGE:-r.example/a}:${DK_A_TAG:-1-alpine}",
            ],
        ),
        // Two names in variables make two services of one repository.
        (
            vec![
                line("one", "r.example/a/web:1"),
                line("red", "${DK_RED_IMAGE:-r.example/c/app}:${DK_RED_TAG:-1}"),
                line("blue", "${DK_BLUE_IMAGE:-r.example/c/app}:${DK_BLUE_TAG:-2}"),
                line("grey", "r.example/c/app:1"),
            ],
            &["+ web 1 (1 - -) = one", "+ red 1 (1 - -) = red grey", "+ blue 2 (2 - -) = blue"],
        ),
        (
            vec![line("one", "r.example/a/web:1"), line("two", "r.example/b/web:1")],
            &["+ web 1 (1 - -) = one", "+ b-web 1 (1 - -) = two"],
        ),
        (
            vec![running(line("a", "r/a:${V:-latest}"), "r/a:dkv-0123abcd-0123456789ab", 1, &[])],
            &["+ a latest (- - V) = a"],
        ),
        // The variable of one line can be fed; the other's cannot be kept as a default.
        (
            vec![
                evaluated("a", "r.example/svc:${APP_TAG:-1}", "r.example/svc:1"),
                evaluated("lite", "r.example/svc:${LITE_TAG:?must be set}", "r.example/svc:1"),
            ],
            &[
                "+ svc 1 (1 - APP_TAG) = a lite",
                "! lite its tag comes from LITE_TAG, which has no default or says something else \
                 than it, and Compose v1 knows no default inside a default",
            ],
        ),
    ] {
        let told = told(&proposed(&lines));
        let told: Vec<&str> = told.iter().map(String::as_str).collect();
        // Most lines to change are those of the pins and literals that the next test is about.
        let is_meant = |one: &&str| !one.starts_with('~') || expected.contains(one);
        assert_eq!(told.into_iter().filter(is_meant).collect::<Vec<_>>(), expected);
    }
    let lines = [line("two", "nginx:1"), line("x", "${DK_X_TAG:-r/x}")];
    let all = propose(&lines, None, "DK_", &tracking("two"));
    assert_eq!(all.services[0].service.name.as_str(), "nginx");
    let images =
        [format!("{ecr}/a"), "x/y".to_owned(), "1.dkr.ecr.eu-west-1.amazonaws.com/z".into()];
    let images: Vec<Repository> = images.iter().map(|image| image.parse().unwrap()).collect();
    let of = |images: &[Repository]| {
        let ecr = ecr_of(images.iter())?;
        Some((ecr.use_private, ecr.repository_alias, ecr.private_registry, ecr.private_region))
    };
    let private = "1.dkr.ecr.eu-west-1.amazonaws.com";
    assert_eq!(of(&images), Some((false, "n5k3t9x2".into(), String::new(), "us-east-1".into())));
    assert_eq!(of(&images[1..]), Some((true, String::new(), private.into(), "eu-west-1".into())));
    assert_eq!(of(&images[1..2]), None);
}

/// What is tracked with `+`, what is not with `-`, each with its reason.
fn reasons(all: &Proposal<'_>) -> Vec<String> {
    let services = all.services.iter();
    let tracked = services.map(|new| format!("+ {}: {}", new.service.name, new.reason));
    let left = all.untracked.iter();
    let left = left.map(|one| format!("- {}: {}", one.compose_services.join(" "), one.reason));
    tracked.chain(left).collect()
}

#[test]
fn everything_is_tracked_but_data_and_plumbing_whatever_variables_say() {
    for (lines, expected) in [
        (
            vec![line("db", "postgres:${POSTGRES_VERSION:-16}"), line("web", "acme/web:1.2")],
            &["+ web: an application", "- db: a database, which holds data"][..],
        ),
        (
            vec![
                line("app", "nextcloud:31"),
                line("db", "mariadb:11"),
                line("cache", "redis:alpine"),
                line("proxy", "nginxproxy/nginx-proxy"),
                line("letsencrypt", "nginxproxy/acme-companion"),
            ],
            &[
                "+ nextcloud: an application",
                "- db: a database, which holds data",
                "- cache: a cache, which holds data",
                "- proxy: a reverse proxy",
                "- letsencrypt: a companion of a reverse proxy",
            ],
        ),
        // One publisher's, all with variables or none; its database holds data as any does.
        (
            vec![
                line("studio", "base/studio:1"),
                line("kong", "kong:2.8"),
                line("rest", "rest/rest:${REST:-v12}"),
                line("meta", "base/postgres-meta:1"),
                line("db", "base/postgres:15"),
            ],
            &[
                "+ studio: an application",
                "+ kong: an application",
                "+ rest: an application",
                "+ postgres-meta: an application",
                "- db: a database, which holds data",
            ],
        ),
        // What stands in front is the product's where its publisher is, or where it is built.
        (
            vec![
                line("web", "acme/web:1"),
                line("front", "acme/nginx:1"),
                built(line("edge", "edge-nginx:1")),
                line("other", "else/nginx:1"),
            ],
            &[
                "+ web: an application",
                "+ nginx: a reverse proxy, the publisher's of acme/web",
                "+ edge-nginx: has a build section",
                "- other: a reverse proxy",
            ],
        ),
        // A publisher that packages everything says nothing.
        (
            vec![line("tv", "linuxserver/sonarr"), line("swag", "linuxserver/swag")],
            &["+ sonarr: an application", "- swag: a reverse proxy"],
        ),
        (
            vec![line("proxy", "traefik:v3"), line("db", "redis:7")],
            &[
                "+ traefik: a reverse proxy, and nothing else is here",
                "- db: a cache, which holds data",
            ],
        ),
        (vec![line("db", "postgres:16")], &["- db: a database, which holds data"]),
    ] {
        assert_eq!(reasons(&proposed(&lines)), expected);
    }
}

#[test]
fn the_operator_decides_and_the_manifest_remembers() {
    let text = "schema_version: '1.1'\nservices:\n  web: {image: r/web, compose_services: [web, \
                job]}\n  api: {image: r/api}\nuntracked: [old, db]\nhistory:\n  gone: []\n";
    let manifest = Manifest::read(text.as_bytes()).unwrap();
    let members = Members::of(&manifest);
    let lines = [
        line("web", "r/web"),
        line("job", "r/web"),
        line("api", "r/api"),
        line("old", "r/api"),
        line("db", "postgres:16"),
        line("gone", "r/gone"),
        line("new", "r/new"),
    ];
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let settled = |track: &[&str], untrack: &[&str], remove: &[&str]| {
        let remove = remove.iter().map(|name| name.parse().unwrap()).collect();
        let choice = Choice { track: names(track), untrack: names(untrack), remove };
        let all = propose(&lines, Some((&manifest, &members)), "DK_", &choice);
        let narrowed = all.narrowed.iter().map(|one| one.compose_services.join(" "));
        let listing = Listing {
            removed: all.removed.clone(),
            untracked: Some(all.left_out.clone()),
            project: None,
        };
        let written = manifest.with(&all.narrowed, &listing).unwrap();
        let written = Manifest::read(written.as_bytes()).unwrap();
        assert_eq!(written.untracked, all.left_out);
        assert!(all.removed.iter().all(|name| !written.services.contains_key(name)));
        (reasons(&all), all.left_out.join(" "), narrowed.collect::<Vec<_>>().join("; "))
    };
    let remembered = |name: &str| format!("- {name}: `untracked` in the manifest says so");
    let taken_out = "- gone: somebody took gone out of the manifest, but for its history";
    let (told, left_out, _) = settled(&[], &[], &[]);
    let expected = ["+ new: an application", &remembered("old"), &remembered("db"), taken_out]
        .map(str::to_owned);
    assert_eq!((told, left_out.as_str()), (expected.to_vec(), "old db"));

    let (told, left_out, narrowed) = settled(&["db", "gone"], &["job", "new"], &["api"]);
    let expected = [
        "+ postgres: asked for",
        "+ gone: asked for",
        "- job: left out",
        "- api: left out",
        &remembered("old"),
        "- new: left out",
    ];
    assert_eq!(told, expected);
    assert_eq!((left_out.as_str(), narrowed.as_str()), ("old job new api", "web"));
}

#[test]
fn a_variable_that_an_untracked_image_has_is_not_fed() {
    let lines = [
        line("kibana", "acme/kibana:${STACK:-8}"),
        line("es", "elasticsearch:${STACK:-8}"),
        line("web", "acme/web:${WEB:-1}"),
    ];
    let all = proposed(&lines);
    let fed: Vec<_> = all.services.iter().map(|new| new.service.env_tag.as_deref()).collect();
    assert_eq!(fed, [None, Some("WEB")]);
}

#[test]
fn a_variable_that_is_a_part_of_another_tag_is_not_fed() {
    let lines = [
        line("web", "acme/web:${VERSION:-1}"),
        line("worker", "acme/worker:${VERSION:-1}-worker"),
        line("api", "acme/api:${API:-1}"),
    ];
    let all = proposed(&lines);
    let fed: Vec<_> = all.services.iter().map(|new| new.service.env_tag.as_deref()).collect();
    assert_eq!(fed, [None, None, Some("API")]);
}

#[test]
fn one_variable_cannot_feed_two_images() {
    let lines = [line("a", "w/engine:${VERSION:-v1}"), line("ui", "w/ui:${VERSION:-v1}")];
    assert_eq!(
        told(&proposed(&lines)),
        [
            "+ engine v1 (v1 - -) = a",
            "# a gets its tag from VERSION, which other images use as well; one variable cannot \
             carry two digests",
            "+ ui v1 (v1 - -) = ui",
            "# ui gets its tag from VERSION, which other images use as well; one variable cannot \
             carry two digests",
            "~ a ${DK_ENGINE_IMAGE:-w/engine}:${DK_ENGINE_TAG:-v1}",
            "~ ui ${DK_UI_IMAGE:-w/ui}:${DK_UI_TAG:-v1}",
        ]
    );
}

#[test]
fn without_versions_env_a_line_starts_what_it_started() {
    let pin = format!("a/svc@{}", digest(9));
    let pinned = format!("${{DK_SVC_IMAGE:-a/svc}}:${{DK_SVC_TAG:-latest@{}}}", digest(9));
    for (text, image, expected) in [
        (pin.as_str(), pin.as_str(), Ok(pinned.as_str())),
        (
            "${REG:-foo}/cold/svc:1.1",
            "127.0.0.1:5000/cold/svc:1.1",
            Ok("${REG:-foo}/cold/svc:${DK_SVC_TAG:-1.1}"),
        ),
        ("${REG:?set it}/svc", "r.example/svc", Ok("${REG:?set it}/svc:${DK_SVC_TAG:-latest}")),
        ("$REG/svc:1", "r.example:5000/svc:1", Ok("$REG/svc:${DK_SVC_TAG:-1}")),
        (
            "r.example:5000/o/svc",
            "r.example:5000/o/svc",
            Ok("${DK_SVC_IMAGE:-r.example:5000/o/svc}:${DK_SVC_TAG:-latest}"),
        ),
        (
            "r.example/svc:${V:-1}-alpine",
            "r.example/svc:1-alpine",
            Ok("${DK_SVC_IMAGE:-r.example/svc}:${DK_SVC_TAG:-1-alpine}"),
        ),
        ("r.example/svc:${V:-1}-alpine", "r.example/svc:2-alpine", Err("its tag comes from V")),
        ("r.example/svc:${V:?!}-alpine", "r.example/svc:2-alpine", Err("its tag comes from V")),
        ("${IMAGE:-r.example/svc:1}", "r.example/svc:1", Err("IMAGE gives the image and its tag")),
        ("${IMAGE}", "r.example/svc:1", Err("IMAGE gives the image and its tag in one")),
    ] {
        let lines = [evaluated("svc", text, image)];
        let all = proposed(&lines);
        let change = &all.changes[0];
        match expected {
            Ok(to) => assert_eq!(change.to.as_deref(), Some(to), "{text}"),
            Err(why) => assert!(change.left.as_ref().unwrap().starts_with(why), "{change:?}"),
        }
        let fed = (&all.services[0].service.env_tag, &all.services[0].service.env_image);
        assert!(!text.starts_with("${IMAGE") || fed == (&None, &None), "nothing that breaks it");
    }
    let mut whole = [built(line("app", "shop-app"))];
    whole[0].written.from = None;
    assert_eq!(
        told(&proposed(&whole)),
        ["+ app - (- - -) = app", "~ app ${DK_APP_IMAGE:-shop-app}:${DK_APP_TAG:-latest}"]
    );
}

#[test]
fn what_runs_decides_over_what_the_file_says() {
    let text = "${DK_WEB_IMAGE:-r.example/web}:${DK_WEB_TAG:-latest}";
    let digests = [("r.example/web", 7), ("r.example/other", 8)];
    let lines = [running(line("web", text), "r.example/web:1.64", 1, &digests)];
    let web = &proposed(&lines).services[0];
    assert_eq!(web.tag.as_ref().map(Tag::as_str), Some("1.64"));
    // An image ID is no digest.
    assert_eq!(web.digests, [digest(7)]);

    let bot = |service, id| running(line(service, "bot:${VERSION:-latest}"), "bot:latest", id, &[]);
    let torn = [bot("migrate", 2), bot("elena", 1)];
    assert!(proposed(&torn).services[0].notes[0].contains("different images"));
    let renamed = [running(line("web", text), "r.example/old:1", 1, &[])];
    assert!(proposed(&renamed).services[0].notes[0].contains("started as r.example/old:1"));
}

#[test]
fn what_a_file_claims_of_a_digest_is_not_confirmed() {
    let claimed = format!("r.example/o/a:1.2@{}", digest(1));
    let is_confirmed = |line: Line| proposed(&[line]).services[0].is_confirmed;
    assert!(!is_confirmed(line("a", &claimed)));
    let mut running = running(line("a", &claimed), &claimed, 1, &[("r.example/o/a", 1)]);
    assert!(!is_confirmed(running.clone()), "the daemon looks at the digest only");
    let tags = vec![("r.example/o/a".parse().unwrap(), "1.2".parse().unwrap())];
    running.present.as_mut().unwrap().tags = tags;
    assert!(is_confirmed(running));
}

#[test]
fn what_has_a_build_section_may_still_be_pulled() {
    let named = || built(line("a", "acme/web:1"));
    let mut nameless = built(line("a", "shop-a"));
    nameless.written.from = None;
    for (lines, expected) in [
        (vec![line("a", "acme/web:1")], Build::None),
        (vec![named(), line("b", "acme/web:1")], Build::OrPulled),
        (vec![Line { is_never_pulled: true, ..named() }], Build::Only),
        (vec![nameless], Build::Only),
    ] {
        assert_eq!(proposed(&lines).services[0].build, expected);
    }
}

/// The other versions of the only service, recorded with what was found; `*` where a registry may
/// know better.
fn others(lines: &[Line]) -> (Option<String>, Vec<String>) {
    let all = proposed(lines);
    let [new] = all.services.as_slice() else { panic!("{:?}", told(&all)) };
    let mut recorded = new.service.clone();
    let tag = new.tag.clone().unwrap_or_else(|| "resolved".parse().unwrap());
    let image_id = new.present.map(|present| present.image_id.clone());
    let bytes = Bytes { image_id, ..Bytes::of(new.digests.first().cloned()) };
    recorded.history.advance(Release::new(tag, bytes), |_| false);
    let others = new.others(&recorded, "DK_").map(|(other, image)| {
        format!("{}{}", other.compose_service, if image.is_some() { "*" } else { "" })
    });
    (new.tag.as_ref().map(ToString::to_string), others.collect())
}

#[test]
fn one_version_is_recorded_whole_and_the_others_are_named() {
    let svc = "r.example/o/svc";
    let [one, two] = [1, 2].map(|seed| format!("{svc}:1.1@{}", digest(seed)));
    let own = format!("${{DK_SVC_IMAGE:-{svc}}}:${{DK_SVC_TAG:-1.1}}");
    let plain = format!("{svc}:1.1");
    for (texts, expected) in [
        ([&one, &two, &two], vec!["a"]),
        ([&one, &two, &plain], vec!["b"]),
        // A line that follows decides over literal ones.
        ([&two, &plain, &own], vec!["a"]),
    ] {
        let [a, b, c] = texts;
        let lines = [line("a", a), line("b", b), line("c", c)];
        let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(others(&lines), (Some("1.1".to_owned()), expected), "{texts:?}");
    }
    // What runs decides over both, and is known to differ.
    let runs = |name, text: &str, id| running(line(name, text), &plain, id, &[(svc, id)]);
    let lines = [line("a", &plain), runs("b", &plain, 2), runs("c", &own, 1)];
    assert_eq!(others(&lines).1, ["b"]);
}

#[test]
fn each_tag_of_a_repository_is_a_service() {
    let arm = |line: Line| Line { platform: "linux/arm64".parse().ok(), ..line };
    let sourced = |line: Line| Line { is_sourced: true, ..line };
    let own = "${DK_WEB_IMAGE:-r/web}:${DK_WEB_TAG:-latest}";
    for (lines, expected) in [
        (
            vec![line("web", "acme/tool:web-server"), line("signal", "acme/tool:signaling-server")],
            &[
                "+ web web-server (web-server - -) = web",
                "+ signal signaling-server (signaling-server - -) = signal",
            ][..],
        ),
        (
            vec![
                line("llm", "acme/llm"),
                line("b", "acme/llm:latest"),
                line("amd", "acme/llm:rocm"),
            ],
            &["+ llm - (- - -) = llm b", "+ amd rocm (rocm - -) = amd"],
        ),
        (
            vec![
                line("app", "r/app:1.4"),
                line("migrate", "r/app:1.4"),
                line("w", "r/app:1.4-worker"),
            ],
            &["+ app 1.4 (1.4 - -) = app migrate", "+ w 1.4-worker (1.4-worker - -) = w"],
        ),
        (
            vec![line("a", "r/x:1"), arm(line("b", "r/x:1")), arm(line("c", "r/x:1"))],
            &["+ a 1 (1 - -) = a", "+ b 1 (1 - -) = b c"],
        ),
        // One variable gives one value.
        (
            vec![line("a", "r/x:${VERSION:-1}"), line("b", "r/x:${VERSION:-2}")],
            &["+ x 1 (1 - VERSION) = a b"],
        ),
        (
            vec![line("a", "r/x:${VERSION:-1}"), line("b", "r/x:${VERSION:-1}-worker")],
            &["+ a 1 (1 - -) = a", "+ b 1-worker (1-worker - -) = b"],
        ),
        // What a variable holds is followed, unless it is dkv's own and holds a record.
        (
            vec![evaluated("a", "r/a:${A_TAG:-2026.8.0}", "r/a:2026.9.0")],
            &["+ a 2026.9.0 (2026.9.0 - A_TAG) = a"],
        ),
        (vec![evaluated("web", own, "r/web:16")], &["+ web 16 (16 - -) = web"]),
        (vec![sourced(evaluated("web", own, "r/web:1.64"))], &["+ web 1.64 (- - -) = web"]),
        // What runs has been told to, and stays.
        (
            vec![running(line("web", "r/web:1.2"), "r/web:1.3", 1, &[])],
            &["+ web 1.3 (1.3 - -) = web"],
        ),
        (
            vec![running(line("db", "postgres:16"), "postgres:16.4", 1, &[])],
            &["+ postgres 16.4 (16 - -) = db"],
        ),
    ] {
        let mut told = told(&propose(&lines, None, "DK_", &tracking("db")));
        told.retain(|one| one.starts_with('+'));
        assert_eq!(told, expected);
    }
    let several = [line("llm", "acme/llm:latest"), line("amd", "acme/llm:rocm")];
    assert_eq!(
        proposed(&several).notes,
        ["acme/llm has several tags here, each a service of its own: llm (latest), amd (rocm)"]
    );
    // With a manifest: what is another program beside the recorded one, and what was changed.
    let text = "schema_version: '1.1'\nservices:\n  llm: {image: acme/llm}\n  db: {image: r/db, \
                track: '16.4'}\n";
    let manifest = Manifest::read(text.as_bytes()).unwrap();
    let lines =
        [line("llm", "acme/llm:latest"), line("amd", "acme/llm:rocm"), line("db", "r/db:16.5")];
    let all =
        propose(&lines, Some((&manifest, &Members::of(&manifest))), "DK_", &Choice::default());
    let mut told = told(&all);
    told.retain(|one| !one.starts_with('~'));
    assert_eq!(told, ["+ amd rocm (rocm - -) = amd", "? db"]);
}

#[test]
fn a_manifest_gets_what_it_lacks_only() {
    let text = format!(
        "schema_version: '1.1'\nservices:\n  svc: {{image: r/svc, current_tag: '1.1', \
         image_digest: '{}'}}\n  bot: {{image: r/bot, env_tag: VERSION}}\n  red: {{image: r/app}}\n  \
         blue: {{image: r/app}}\n",
        digest(1)
    );
    let manifest = Manifest::read(text.as_bytes()).unwrap();
    let lines = [
        line("a", "r/svc:1.1"),
        line("b", "r/svc:latest"),
        line("c", "r/svc:1.2"),
        line("d", &format!("r/svc@{}", digest(1))),
        line("e", &format!("r/svc:1.1@{}", digest(2))),
        line("f", "${DK_SVC_IMAGE:-r/svc}:${DK_SVC_TAG:-0.9}"),
        line("mcp", "${DK_MCP_IMAGE:-r/mcp}:${DK_MCP_TAG:-latest}"),
        line("elena", "r/bot:${VERSION:-latest}"),
        line("grey", "r/app:1"),
        line("green", "${DK_GREEN_IMAGE:-r/app}:${DK_GREEN_TAG:-1}"),
    ];
    let all =
        propose(&lines, Some((&manifest, &Members::of(&manifest))), "DK_", &Choice::default());
    let mut told = told(&all);
    told.retain(|one| !one.starts_with('~'));
    assert_eq!(
        told,
        [
            "+ mcp latest (- - -) = mcp",
            "+ green 1 (1 - -) = green",
            "? c",
            "? e",
            "# grey: `red` and `blue` have its image; list it under `compose_services` of the one \
             it runs",
        ]
    );
    let changes: Vec<&str> =
        all.changes.iter().map(|change| change.compose_service.as_str()).collect();
    assert_eq!(changes, ["a", "b", "c", "d", "e"]);
}
