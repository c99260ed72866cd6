//! Each kind of drift once, and what is none.

use super::*;
use crate::docker::{ImageList, Labels};
use crate::report::drift::FindingKind as Found;

const IMAGE: &str = "r.example/web";
const HASH: &str = "0123abcd";

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// `web` at 1.64, after 1.63; the daemon's IDs are known. `extra` goes behind the service's image.
fn manifest(extra: &str) -> Manifest {
    let entry = |tag: &str, status: &str| {
        format!(
            "  - {{tag: '{tag}', digest: '{}', image_id: '{}', status: {status}}}\n",
            digest(tag),
            digest(&format!("id {tag}"))
        )
    };
    let text = format!(
        "schema_version: '1.1'\nservices:\n  web:\n    image: {IMAGE}\n{extra}    current_tag: \
            '1.64'\n    \
         image_digest: {}\nhistory:\n  web:\n{}{}",
        digest("1.64"),
        entry("1.64", "current"),
        entry("1.63", "previous"),
    );
    let mut manifest = Manifest::read(text.as_bytes()).unwrap();
    manifest.settle(|_| None).unwrap();
    manifest
}

fn pin(tag: &str) -> String {
    format!("{IMAGE}:{tag}@{}", digest(tag))
}

fn start(name: &str, image: &str) -> ServiceStart {
    let text = Some(format!("${{DK_WEB_IMAGE:-{IMAGE}}}:${{DK_WEB_TAG:-latest}}"));
    ServiceStart {
        compose_service: name.into(),
        image: Some(image.into()),
        text,
        is_active: true,
        ..ServiceStart::default()
    }
}

fn listed(tag: &str) -> ListedImage {
    let image: Repository = IMAGE.parse().unwrap();
    let keep = format!("dkv-{HASH}-{}", digest(tag).short()).parse().unwrap();
    ListedImage {
        id: digest(&format!("id {tag}")),
        tags: vec![(image.clone(), keep)],
        digests: vec![(image, digest(tag))],
    }
}

fn images(listed: impl IntoIterator<Item = ListedImage>) -> LocalImages {
    listed.into_iter().collect::<ImageList>().into()
}

fn container(name: &str, tag: &str, labels: &[(&str, &str)]) -> Container {
    let label =
        |(key, value): &(&str, &str)| (format!("com.docker.compose.{key}"), (*value).to_owned());
    Container {
        id: name.into(),
        name: name.into(),
        image_id: Some(digest(&format!("id {tag}"))),
        image: pin(tag),
        labels: labels.iter().map(label).collect::<Labels>(),
        state: ContainerState::Running,
    }
}

const OURS: [(&str, &str); 2] = [("project", "shop"), ("service", "web")];

/// Everything agrees.
fn agreeing(manifest: &Manifest) -> Views<'_> {
    let value = format!("1.64@{}", digest("1.64"));
    Views {
        manifest,
        members: Box::leak(Box::new(Members::of(manifest))),
        deployment: HASH,
        only_by_keep_tag: Box::leak(Box::default()),
        env: EnvView {
            file: "versions.env".into(),
            wrong: None,
            values: [("DK_WEB_TAG".to_owned(), value)].into(),
        },
        starts: vec![start("web", &pin("1.64"))],
        files: Vec::new(),
        others: Vec::new(),
        incomparable: Vec::new(),
        disagreements: Vec::new(),
        daemon: Some(DaemonView {
            project: Some("shop".into()),
            directory: "/srv/shop".into(),
            images: images([listed("1.64"), listed("1.63")]),
            containers: vec![container("shop-web-1", "1.64", &OURS)],
            hanging: Vec::new(),
        }),
        remote: None,
    }
}

fn kinds(views: &Views<'_>) -> Vec<Found> {
    compare(views).drift.into_iter().map(|finding| finding.kind).collect()
}

fn note_kinds(views: &Views<'_>) -> Vec<Found> {
    compare(views).notes.into_iter().map(|finding| finding.kind).collect()
}

#[test]
fn nothing_disagrees() {
    let manifest = manifest("");
    let found = compare(&agreeing(&manifest));
    assert!(found.clean && found.notes.is_empty(), "{found:?}");
    let web = &found.services[0];
    assert!(web.env_as_recorded && web.compose[0].as_recorded && web.local == Some(true));
    assert_eq!(web.running[0].as_recorded, Some(true));
    assert!(web.releases.iter().all(|state| state.restorable == Restorable::Here));
}

#[test]
fn the_env_file_is_told_of_once() {
    let manifest = manifest("");
    for kind in [Found::EnvMissing, Found::EnvStale, Found::EnvEdited] {
        let mut views = agreeing(&manifest);
        views.env.wrong = Some(kind);
        views.starts = vec![start("web", &format!("{IMAGE}:latest"))];
        assert_eq!(kinds(&views), [kind]);
    }
    let mut views = agreeing(&manifest);
    views.env.wrong = Some(Found::EnvMissing);
    views.starts[0].text = Some(pin("1.64"));
    assert_eq!(kinds(&views), []);
}

#[test]
fn compose_files_are_compared_with_the_record() {
    let manifest = manifest("");
    let file = |verdict| FileImage {
        unset: None,
        place: "c.yml:3".into(),
        compose_services: vec!["web".into()],
        image: pin("1.63"),
        verdict,
        template: None,
    };
    for (verdict, kind) in [
        (Verdict::Stale(pin("1.64")), Found::OtherDigestPinned),
        (Verdict::Loose(pin("1.64")), Found::LiteralTag),
    ] {
        let mut views = agreeing(&manifest);
        views.files = vec![file(verdict)];
        views.starts = vec![ServiceStart { text: Some(pin("1.63")), ..start("web", &pin("1.63")) }];
        assert_eq!(kinds(&views), [kind]);
    }
    let mut views = agreeing(&manifest);
    let digests = [
        ("sha256:1".to_owned(), vec!["a.yml:1".to_owned()]),
        ("sha256:2".to_owned(), vec!["b.yml:1".to_owned()]),
    ];
    views.disagreements = vec![PinDisagreement { image: IMAGE.into(), digests: digests.into() }];
    let found = compare(&views);
    assert_eq!(
        (found.drift[0].kind, found.drift[0].mend.as_deref()),
        (Found::FilesDisagree, Some("`dkv pin`"))
    );
}

#[test]
fn variables_of_another_name_are_noticed() {
    let manifest = manifest("");
    let mut views = agreeing(&manifest);
    views.starts = vec![ServiceStart {
        text: Some(format!("{IMAGE}:${{VERSION:-latest}}")),
        ..start("web", &format!("{IMAGE}:latest"))
    }];
    assert_eq!(kinds(&views), [Found::ComposeDiffers]);
    let mend = |views: &Views<'_>| compare(views).drift[0].mend.clone().unwrap();
    assert!(mend(&views).contains("`env_tag: VERSION`"));
    for (image, expected) in
        [("1.63", "`dkv pin` writes the recorded version there"), ("latest", "--write")]
    {
        let text = Some(format!("${{REG:-r.example}}/web:{image}"));
        views.starts = vec![ServiceStart { text, ..start("web", &format!("{IMAGE}:{image}")) }];
        assert!(mend(&views).contains(expected), "{}", mend(&views));
    }
}

#[test]
fn services_of_one_product_must_have_one_image() {
    let listing = manifest("    compose_services: [web, migrate]\n");
    let mut views = agreeing(&listing);
    views.starts.push(start("migrate", &pin("1.63")));
    assert_eq!(kinds(&views), [Found::ImagesDiffer]);
    views.starts[1] = start("migrate", "acme/migrations:1");
    assert_eq!(kinds(&views), [Found::ImagesDiffer]);
    assert!(
        compare(&views).drift[0]
            .message
            .contains("migrate belongs to web, but would start acme/migrations:1")
    );
}

fn bot(name: &str, image: &str, text: &str, waits_for: &[&str]) -> ServiceStart {
    ServiceStart {
        text: Some(text.into()),
        waits_for_end_of: waits_for.iter().map(|name| (*name).into()).collect(),
        ..start(name, image)
    }
}

#[test]
fn local_and_published_images_of_one_product_are_mixed() {
    let local = |start: &ServiceStart| {
        start.image.as_deref().is_some_and(|image| image.starts_with("whisperengine-bot:"))
    };
    let elena = |text: &str, waits: &[&str]| bot("elena", "whisperengine-bot:latest", text, waits);
    let migrate = |image: &str, text: &str| bot("db-migrate", image, text, &[]);
    let published = "whisperengine/whisperengine:latest";
    let by_step =
        [elena("whisperengine-bot:latest", &["db-migrate"]), migrate(published, published)];
    let by_variable = [
        elena("whisperengine-bot:${VERSION:-latest}", &[]),
        migrate(published, "whisperengine/whisperengine:${VERSION:-latest}"),
    ];
    let by_name = [
        elena("whisperengine-bot:1", &[]),
        migrate("acme/whisperengine-bot:1", "acme/whisperengine-bot:1"),
    ];
    let once = ServiceStart { is_one_shot: true, ..migrate(published, published) };
    let by_restart = [elena("whisperengine-bot:latest", &[]), once];
    for starts in [by_step, by_restart, by_variable, by_name] {
        let found = mixed(&starts, local);
        assert_eq!(found.len(), 1, "{starts:?}");
        assert_eq!(
            (found[0].0.compose_service.as_str(), found[0].1.compose_service.as_str()),
            ("elena", "db-migrate")
        );
    }
    let apart = [
        elena("${REGISTRY:-r:1}/whisperengine-bot:${VERSION:-1}", &["buckets"]),
        bot("buckets", "minio/mc:1", "${REGISTRY:-r:1}/minio/mc:${MC:-1}", &[]),
        bot(
            "db",
            "whisperengine/whisperengine-postgres:16",
            "whisperengine/whisperengine-postgres:16",
            &[],
        ),
    ];
    assert!(mixed(&apart, local).is_empty());
    let app = bot("app", "whisperengine-bot:1", "whisperengine-bot:1", &["hook"]);
    let namesakes = [
        app.clone(),
        bot("db", "acme/whisperengine-bot-postgres:16", "acme/whisperengine-bot-postgres:16", &[]),
        bot("hook", "acme/whisperengine-bots:1", "acme/whisperengine-bots:1", &[]),
    ];
    assert!(mixed(&namesakes, local).is_empty());
}

#[test]
fn a_local_build_may_go_by_any_tag_that_names_it() {
    let local = manifest("    source: local\n");
    let mut views = agreeing(&local);
    views.starts = vec![ServiceStart {
        text: Some(format!("{IMAGE}:latest")),
        ..start("web", &format!("{IMAGE}:latest"))
    }];
    assert_eq!(kinds(&views), [Found::LiteralTag]);
    let mut image = listed("1.64");
    image.tags.push((IMAGE.parse().unwrap(), "latest".parse().unwrap()));
    views.daemon.as_mut().unwrap().images = images([image, listed("1.63")]);
    assert_eq!(kinds(&views), []);
    views.daemon = None;
    assert_eq!(kinds(&views), []);
}

#[test]
fn containers_are_compared_with_the_record() {
    let manifest = manifest("");
    for (tag, kind) in [("1.63", Found::RunsOlder), ("0.9", Found::RunsOther)] {
        let mut views = agreeing(&manifest);
        let daemon = views.daemon.as_mut().unwrap();
        daemon.containers = vec![container("a", tag, &OURS), container("b", tag, &OURS)];
        assert_eq!(kinds(&views), [kind], "{tag}");
        let daemon = views.daemon.as_mut().unwrap();
        daemon.containers.iter_mut().for_each(|container| container.state = ContainerState::Exited);
        assert_eq!(kinds(&views), [], "{tag}");
        views.starts.push(ServiceStart {
            waits_for_end_of: vec!["web".into()],
            ..start("app", &pin("1.64"))
        });
        assert_eq!(kinds(&views), [kind], "{tag}");
    }
}

#[test]
fn containers_beside_the_deployment_are_found() {
    let manifest = manifest("");
    let elsewhere = [("project", "test"), ("service", "web"), ("project.working_dir", "/srv/test")];
    let here = [("project", "test"), ("service", "web"), ("project.working_dir", "/srv/shop")];
    let orphan = [("project", "shop"), ("service", "old-web")];
    for (labels, expected) in [
        (&[][..], &[Found::StartedOutside][..]),
        (&here[..], &[Found::StartedOutside]),
        (&orphan[..], &[Found::StartedOutside]),
        (&elsewhere[..], &[]),
    ] {
        let mut views = agreeing(&manifest);
        views.daemon.as_mut().unwrap().containers.push(container("other", "1.64", labels));
        assert_eq!(kinds(&views), expected, "{labels:?}");
    }
    let mut views = agreeing(&manifest);
    let mut foreign = container("db", "x", &[]);
    foreign.image = "postgres:16".into();
    views.daemon.as_mut().unwrap().containers.push(foreign);
    assert_eq!(kinds(&views), []);
}

#[test]
fn what_was_recorded_and_never_pulled_is_not_here() {
    let text = format!(
        "services:\n  web: {{image: {IMAGE}, current_tag: '1.64', image_digest: '{}'}}\n",
        digest("1.64")
    );
    let mut manifest = Manifest::read(text.as_bytes()).unwrap();
    manifest.settle(|_| None).unwrap();
    let mut views = agreeing(&manifest);
    let daemon = views.daemon.as_mut().unwrap();
    daemon.images = LocalImages::default();
    daemon.containers.clear();
    assert_eq!((kinds(&views), note_kinds(&views)), (vec![Found::NotPulled], vec![]));
    views.daemon.as_mut().unwrap().containers = vec![container("shop-web-1", "1.64", &OURS)];
    assert_eq!(kinds(&views), [Found::ImageGone]);
}

#[test]
fn images_that_are_gone_are_missed() {
    let manifest = manifest("");
    let key = |tag: &str| (IMAGE.parse().unwrap(), digest(tag));
    let remote = |old: bool| RemoteView {
        has: [(key("1.64"), true), (key("1.63"), old)].into(),
        tracked: BTreeMap::new(),
    };
    let mut views = agreeing(&manifest);
    views.daemon.as_mut().unwrap().images = LocalImages::default();
    assert_eq!(kinds(&views), [Found::ImageGone, Found::ReleaseNotHere]);
    views.remote = Some(remote(true));
    assert_eq!(kinds(&views), [Found::ImageGone, Found::ReleaseNotHere]);
    assert_eq!(compare(&views).services[0].releases[1].restorable, Restorable::Registry);
    views.remote = Some(remote(false));
    assert_eq!(kinds(&views), [Found::ImageGone, Found::ReleaseLost]);

    let mut views = agreeing(&manifest);
    views.remote = Some(remote(false));
    assert_eq!((kinds(&views), note_kinds(&views)), (vec![], vec![Found::OnlyHere]));
    views.daemon = None;
    assert_eq!(kinds(&views), []);
    assert_eq!(compare(&views).services[0].releases[1].restorable, Restorable::Unknown);
}

#[test]
fn keep_tags_must_name_the_recorded_image() {
    let manifest = manifest("");
    let mut views = agreeing(&manifest);
    let (mut current, mut other) = (listed("1.64"), listed("1.63"));
    other.tags.append(&mut current.tags);
    views.daemon.as_mut().unwrap().images = images([current.clone(), other]);
    assert_eq!(kinds(&views), [Found::KeepTagMoved]);
    views.daemon.as_mut().unwrap().images = images([current, listed("1.63")]);
    assert_eq!((kinds(&views), note_kinds(&views)), (vec![], vec![Found::NotKept]));
}

#[test]
fn what_nothing_tracks_is_no_drift() {
    let manifest = manifest("");
    let mut views = agreeing(&manifest);
    let untracked =
        |name: &str, image: &str| ServiceStart { text: Some(image.into()), ..start(name, image) };
    views.starts.push(untracked("nginx", "nginx:latest"));
    views.starts.push(ServiceStart { is_active: false, ..untracked("debug", "busybox") });
    assert_eq!((kinds(&views), note_kinds(&views)), (vec![], vec![Found::Untracked]));
}

#[test]
fn two_services_of_one_repository_are_told_apart_by_their_variables() {
    let entry = |name: &str, tag: &str| {
        format!(
            "  {name}: {{image: {IMAGE}, current_tag: '{tag}', image_digest: '{}'}}\n",
            digest(tag)
        )
    };
    let text = format!("services:\n{}{}", entry("red", "1.64"), entry("blue", "1.63"));
    let mut manifest = Manifest::read(text.as_bytes()).unwrap();
    manifest.settle(|_| None).unwrap();
    let mut views = agreeing(&manifest);
    let follows = |name: &str, variable: &str, tag: &str| ServiceStart {
        text: Some(format!("{IMAGE}:${{{variable}:-latest}}")),
        ..start(name, &pin(tag))
    };
    // Their Compose names say nothing, or even the opposite.
    views.starts =
        vec![follows("lamp", "DK_RED_TAG", "1.64"), follows("red", "DK_BLUE_TAG", "1.63")];
    let daemon = views.daemon.as_mut().unwrap();
    let labels = |name| [("project", "shop"), ("service", name)];
    daemon.containers = vec![
        container("shop-lamp-1", "1.64", &labels("lamp")),
        container("shop-red-1", "1.63", &labels("red")),
    ];
    assert_eq!(kinds(&views), []);
    views.starts[1].image = Some(pin("1.64"));
    assert_eq!(kinds(&views), [Found::ComposeDiffers]);
}

#[test]
fn images_beside_a_services_own_are_compared_too() {
    let manifest = manifest("");
    let other = |image: String| OtherUse {
        place: "c.yml:9".into(),
        used_by: "the volumes of app".into(),
        image,
    };
    let mut views = agreeing(&manifest);
    views.others = vec![other(pin("1.64")), other("r.example/else:1".into())];
    assert_eq!(kinds(&views), []);
    views.others.push(other(pin("1.63")));
    views.incomparable = vec!["c.yml:3: the model `m`, ai/m".into()];
    assert_eq!(kinds(&views), [Found::OtherImageDiffers]);
    assert_eq!(note_kinds(&views), [Found::NotCompared]);
}

#[test]
fn a_generated_file_is_mended_in_its_template() {
    let manifest = manifest("");
    for verdict in [Verdict::Stale(pin("1.64")), Verdict::Loose(pin("1.64"))] {
        let mut views = agreeing(&manifest);
        views.files = vec![FileImage {
            unset: None,
            place: "c.yml:3".into(),
            compose_services: vec!["web".into()],
            image: pin("1.63"),
            verdict,
            template: Some("c.yml.j2".into()),
        }];
        let mend = compare(&views).drift[0].mend.clone().unwrap();
        assert!(
            mend.contains("c.yml.j2") && !mend.contains("--write") && !mend.contains("dkv pin"),
            "{mend}"
        );
    }
    let mut views = agreeing(&manifest);
    let text = Some(format!("{IMAGE}:1.64"));
    views.starts = vec![ServiceStart {
        text,
        template: Some("c.yml.j2".into()),
        ..start("web", &format!("{IMAGE}:1.64"))
    }];
    assert!(compare(&views).drift[0].mend.as_ref().unwrap().contains("c.yml.j2"));
}

#[test]
fn a_literal_line_of_another_version_is_mended_by_what_changes_it() {
    let manifest = manifest("");
    for (tag, expected) in [("1.64", "--write"), ("latest", "--write"), ("1.63", "`dkv pin`")] {
        let mut views = agreeing(&manifest);
        views.files = vec![FileImage {
            unset: None,
            place: "c.yml:3".into(),
            compose_services: vec!["web".into()],
            image: format!("{IMAGE}:{tag}"),
            verdict: Verdict::Loose(pin("1.64")),
            template: None,
        }];
        let mend = compare(&views).drift[0].mend.clone().unwrap();
        assert!(
            mend.contains(expected) && (tag != "1.63" || !mend.contains("--write")),
            "{tag}: {mend}"
        );
    }
}

#[test]
fn without_composes_answer_no_container_is_called_an_outsider() {
    let manifest = manifest("");
    let labels = [("project", "shop"), ("service", "cron"), ("project.working_dir", "/srv/shop")];
    let here = [("project", "other"), ("service", "web"), ("project.working_dir", "/srv/shop")];
    let mut views = agreeing(&manifest);
    let daemon = views.daemon.as_mut().unwrap();
    daemon.containers =
        vec![container("shop-cron-1", "1.64", &labels), container("web", "1.63", &here)];
    assert_eq!(kinds(&views), [Found::StartedOutside, Found::StartedOutside]);
    views.daemon.as_mut().unwrap().project = None;
    assert_eq!(
        kinds(&views),
        [Found::RunsOlder],
        "what stands in this directory still says what runs"
    );
}

#[test]
fn the_keep_tag_of_a_local_build_is_what_compose_needs() {
    let local = manifest("    source: local\n");
    let mut views = agreeing(&local);
    let keep = format!("dkv-{HASH}-{}", digest("1.64").short());
    views.starts = vec![start("web", &format!("{IMAGE}:{keep}"))];
    views.env.values = [("DK_WEB_TAG".to_owned(), keep)].into();
    assert_eq!(kinds(&views), []);
    let mut image = listed("1.64");
    image.tags.clear();
    views.daemon.as_mut().unwrap().images = images([image, listed("1.63")]);
    assert_eq!(kinds(&views), [Found::KeepTagGone]);
}

#[test]
fn what_only_content_shows_is_here_and_compose_is_to_be_told_how_it_is_called() {
    let manifest = manifest("");
    let mut views = agreeing(&manifest);
    let mut moved = [listed("1.64"), listed("1.63")];
    for image in &mut moved {
        image.digests[0].0 = "mirror.example/web".parse().unwrap();
    }
    let known = ["1.64", "1.63"].map(|tag| (digest(tag), digest(&format!("id {tag}"))));
    views.daemon.as_mut().unwrap().images = images(moved).known_by_content(known);
    let found = compare(&views);
    assert_eq!(found.drift[0].kind, Found::ImageGone);
    assert!(found.drift[0].message.contains("not by the digest"), "{found:?}");
    let web = &found.services[0];
    assert_eq!((web.local, web.releases[1].restorable), (Some(true), Restorable::Here));
    assert_eq!(web.running[0].as_recorded, Some(true), "the bytes are those");

    let told = BTreeSet::from([digest("1.64")]);
    views.only_by_keep_tag = &told;
    let keep = format!("dkv-{HASH}-{}", digest("1.64").short());
    views.starts = vec![start("web", &format!("{IMAGE}:{keep}"))];
    views.env.values = [("DK_WEB_TAG".to_owned(), keep)].into();
    assert_eq!(kinds(&views), []);
}

#[test]
fn a_release_without_a_digest_is_local_by_its_tag() {
    for (tag, as_recorded) in [("1.64", Some(true)), ("latest", None)] {
        let text = format!(
            "services:\n  web: {{image: {IMAGE}, current_tag: '{tag}', image_digest: ''}}\n"
        );
        let mut manifest = Manifest::read(text.as_bytes()).unwrap();
        manifest.settle(|_| None).unwrap();
        let mut views = agreeing(&manifest);
        let mut image = listed("1.64");
        image.tags.push((IMAGE.parse().unwrap(), tag.parse().unwrap()));
        views.daemon.as_mut().unwrap().images = images([image]);
        let found = compare(&views);
        assert_eq!(
            (found.services[0].local, found.services[0].running[0].as_recorded),
            (Some(true), as_recorded),
            "{tag}"
        );
    }
}

#[test]
fn what_was_never_built_is_to_be_built() {
    let text = format!("services:\n  web: {{image: {IMAGE}, source: local}}\n");
    let mut manifest = Manifest::read(text.as_bytes()).unwrap();
    manifest.settle(|_| None).unwrap();
    let mut views = agreeing(&manifest);
    views.daemon.as_mut().unwrap().containers.clear();
    views.starts = vec![start("web", &format!("{IMAGE}:latest"))];
    let found = compare(&views);
    assert_eq!(found.notes[0].mend.as_deref(), Some("`dkv build`"));
    assert!(found.clean && found.services[0].releases.is_empty(), "{found:?}");
}
