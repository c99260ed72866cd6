//! Tests with the real Compose programs: `docker-compose` 1 on the `PATH`, and the Compose 2
//! program that the variable `DKV_TEST_COMPOSE_V2` names (`tests/run.sh` sets it). They start no
//! containers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::config::{Condition, Source};
use super::files::{Configured, Files};
use super::run::{Compose, Environment, Output};
use super::texts::ComposeFiles;
use super::{Generation, Set, dotenv, rewrite};
use crate::error::{self, Kind};
use crate::model::image_line::{self, Entry};
use crate::model::interpolation::Template;
use crate::model::reference::Reference;

/// Compose 1 and Compose 2, each as the only Compose that is found. The second is the program
/// that `DKV_TEST_COMPOSE_V2` names.
fn real() -> Vec<(Generation, Environment, tempfile::TempDir)> {
    let v2 = PathBuf::from(
        std::env::var_os("DKV_TEST_COMPOSE_V2").expect("tests/run.sh says where Compose 2 is"),
    );
    let path = std::env::var_os("PATH").expect("PATH is set");
    let v1 = std::env::split_paths(&path)
        .map(|directory| directory.join("docker-compose"))
        .find(|file| file.exists());
    let only = |program: PathBuf| {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(program, directory.path().join("docker-compose")).unwrap();
        (
            Environment::default()
                .with([("PATH".to_owned(), directory.path().to_str().unwrap().to_owned())]),
            directory,
        )
    };
    [(Generation::V1, v1.expect("docker-compose is installed")), (Generation::V2, v2)]
        .into_iter()
        .map(|(generation, program)| {
            let (environment, directory) = only(program);
            (generation, environment, directory)
        })
        .collect()
}

fn compose(directory: &Path, lookup: &dyn Fn(&str) -> Option<String>) -> Compose {
    Compose::new(
        Files::discover(directory, &Configured::default(), lookup).unwrap(),
        Output::Capture,
    )
}

fn fixture(name: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Compose {
    compose(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/compose").join(name),
        lookup,
    )
}

fn deployment(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

#[tokio::test]
async fn real_application_and_databases_are_one_project() {
    for (generation, environment, _programs) in real() {
        let tag = format!("1.64@sha256:{}", "0".repeat(64));
        let environment = environment.with([("DK_REQ_ROUTER_TAG".to_owned(), tag.clone())]);
        let compose = fixture("dkapp", &|_| None);
        assert_eq!(compose.tool(&environment).await.unwrap().generation, generation);
        let all = compose.config(Set::All, &environment, None).await.unwrap();
        assert_eq!((all.name.as_str(), all.services.len()), ("dkapp", 12));
        let image = all.service("req-router").unwrap().image.as_deref();
        assert_eq!(image, Some(format!("public.ecr.aws/n5k3t9x2/req_router:{tag}").as_str()));
        let mounts = &all.service("elasticsearch").unwrap().mounts;
        assert!(
            mounts
                .iter()
                .any(|mount| mount.source == Source::Volume("dkapp_esdata".into())
                    && !mount.read_only)
        );
        assert!(
            mounts.iter().any(|mount| matches!(mount.source, Source::Bind(_)) && mount.read_only)
        );

        let databases = compose.config(Set::Databases, &environment, None).await.unwrap();
        assert_eq!((databases.name.as_str(), databases.services.len()), ("dkapp", 2));
        let application = compose.config(Set::Application, &environment, None).await.unwrap();
        assert_eq!((application.name.as_str(), application.services.len()), ("dkapp", 10));
    }
}

#[tokio::test]
async fn real_one_shots_and_profiles_are_the_same_to_both() {
    for (_, environment, _programs) in real() {
        let project = fixture("whisperengine-dev", &|_| None)
            .config(Set::All, &environment, None)
            .await
            .unwrap();
        let services: Vec<&str> =
            project.services.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(services, ["db-migrate", "elena-bot"]);
        assert_eq!(
            project.service("elena-bot").unwrap().depends_on["db-migrate"].condition,
            Condition::CompletedSuccessfully
        );
        assert!(project.service("db-migrate").unwrap().has_build);

        let with_profile = |name: &str| (name == "COMPOSE_PROFILES").then(|| "all".to_owned());
        let environment = environment.with([("COMPOSE_PROFILES".to_owned(), "all".to_owned())]);
        let project = fixture("whisperengine-dev", &with_profile)
            .config(Set::All, &environment, None)
            .await
            .unwrap();
        assert!(project.service("marcus-bot").is_some());

        let project =
            fixture("privexbot", &|_| None).config(Set::All, &environment, None).await.unwrap();
        assert!(project.service("backend").unwrap().image.as_deref().unwrap().contains("@sha256:"));
        let project = fixture("whisperengine-prod", &|_| None)
            .config(Set::All, &environment, None)
            .await
            .unwrap();
        assert_eq!(
            project.service("assistant").unwrap().image.as_deref(),
            Some("whisperengine/whisperengine:v1.0.2")
        );
        let project =
            fixture("hive", &|_| None).config(Set::All, &environment, None).await.unwrap();
        assert_eq!(project.service("app").unwrap().image, None);
    }
}

#[tokio::test]
async fn real_name_of_the_application_holds_for_its_databases() {
    let application = "name: ${ALIAS}-shop\nservices: {web: {image: a}}\n";
    let deployment = deployment(&[
        ("docker-compose.yml", application),
        ("docker-compose.override.yml", "services: {web: {restart: always}}\n"),
        (
            "db-docker-compose.yml",
            "services: {db: {image: b, volumes: ['data:/data']}}\nvolumes: {data: }\n",
        ),
    ]);
    for (generation, environment, _programs) in real() {
        let environment = environment.with([("ALIAS".to_owned(), "eu".to_owned())]);
        let compose = compose(deployment.path(), &|_| None);
        match generation {
            Generation::V1 => {
                let error = compose.config(Set::All, &environment, None).await.unwrap_err();
                assert!(
                    error::find(&error).unwrap().hint().unwrap().contains("Compose 2"),
                    "{error}"
                );
            }
            Generation::V2 => {
                for set in [Set::Application, Set::Databases, Set::All] {
                    assert_eq!(
                        compose.config(set, &environment, None).await.unwrap().name,
                        "eu-shop"
                    );
                }
                let all = compose.config(Set::All, &environment, None).await.unwrap();
                assert_eq!(all.service("web").unwrap().restart.as_deref(), Some("always"));
                let stranger = "name: other\nservices: {db: {image: b}}\n";
                std::fs::write(deployment.path().join("db-docker-compose.yml"), stranger).unwrap();
                let compose = self::compose(deployment.path(), &|_| None);
                let error = compose.config(Set::All, &environment, None).await.unwrap_err();
                assert_eq!(error::kind(&error), Kind::State);
            }
        }
    }
}

/// A service of some files: its name, its image, and whether it is built.
type Said = (String, String, bool);

/// The services of some files as Compose 2 starts them, and as they are read without it: each with
/// its image, and whether it is built.
fn both_read(files: &[(&str, &str)]) -> [Result<Vec<Said>, String>; 2] {
    let (_, environment, _programs) = real().remove(1);
    let directory = deployment(files);
    let compose = compose(directory.path(), &|_| None);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let theirs = runtime.block_on(compose.config(Set::All, &environment, None));
    let theirs = theirs.map(|project| {
        let services = project.services.into_iter();
        services.map(|one| (one.name, one.image.unwrap_or_default(), one.has_build)).collect()
    });
    let files = Files::discover(directory.path(), &Configured::default(), &|_| None).unwrap();
    let read = ComposeFiles::read(&files, Generation::V2);
    let ours = read.require().map(|read| {
        let image = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let lines = read.services();
        lines.map(|one| (one.service.clone(), image(one.image_text()), one.has_build)).collect()
    });
    [theirs, ours].map(|read| {
        let mut read: Vec<_> = read.map_err(|error| format!("{error:#}"))?;
        read.sort();
        Ok(read)
    })
}

#[test]
fn real_documents_of_a_file_are_merged_as_they_are_read() {
    let base = "services:\n  a: {image: 'r/a:1', build: .}\n  b: {image: 'r/b:1'}\n---\nservices:\n  \
        a: {image: 'r/a:2'}\n  c: {image: 'r/c:1', extends: b}\n  b: {build: .}\n";
    let a = |text: &'static str| vec![("compose.yaml", text)];
    for files in [
        a(
            "services: {a: {image: 'r/a:1'}}\n---\nname: two\nservices: {a: {image: 'r/a:2'}, c: {image: x}}",
        ),
        a(
            "services: {a: {image: 'r/a:1', build: .}, b: {image: b}}\n--- # more\nservices:\n  a: {image: \
            !reset null}\n  b: !reset null\n...\n---\nservices: {c: !override {image: 'r/c:1'}}\n...\n",
        ),
        a(
            "services: {a: {image: 'r/a:1', build: .}}\n---\nservices: {a: !override {image: 'r/a:2'}}",
        ),
        a(
            "services: {a: {image: 'r/a:1'}, b: {image: b}}\n---\nservices: !override {a: {image: c}}",
        ),
        a("services: {a: {image: 'r/a:1'}, c: {extends: a}}\n---\nservices: {a: {image: 'r/a:2'}}"),
        a("x-a: &a {image: 'r/a:1'}\nservices: {a: *a}\n---\nservices: {b: *a, c: {<<: *a}}"),
        vec![
            (
                "compose.yaml",
                "services: {x: {image: x}}\n---\ninclude: [base.yaml]\nservices: {y: {image: y}}",
            ),
            ("base.yaml", "services: {a: {image: 'r/a:1'}}\n---\nservices: {a: {image: 'r/a:2'}}"),
        ],
        vec![
            ("compose.yaml", "include: [base.yaml]\n---\nservices: {a: {image: 'r/a:3'}}"),
            ("base.yaml", "services: {a: {image: 'r/a:1'}}\n---\nservices: {a: {build: .}}"),
        ],
        vec![
            ("compose.yaml", "services: {x: {image: x}}"),
            ("compose.override.yaml", "services: {x: {image: y}}\n---\nservices: {x: {image: z}}"),
        ],
        vec![
            (
                "compose.yaml",
                "services:\n  a: {extends: {file: base.yaml, service: a}}\n  b: {extends: {file: \
                    base.yaml, service: b}}\n  c: {extends: {file: base.yaml, service: c}}\n",
            ),
            ("base.yaml", base),
        ],
    ] {
        let [theirs, ours] = both_read(&files);
        assert!(theirs.is_ok() && ours == theirs, "{files:?}\n{theirs:?}\n{ours:?}");
    }
    // What it refuses dkv refuses, or leaves to it.
    for (files, is_refused) in [
        (a("services: {a: {image: a}}\n---\n"), true),
        (a("---\n---\nservices: {a: {image: a}}\n"), true),
        (a("services: {a: {image: a}}\n---\n- a\n"), true),
        (a("services: {a: {extends: b}}\n---\nservices: {b: {image: b}}"), false),
    ] {
        let [theirs, ours] = both_read(&files);
        assert_eq!((theirs.is_err(), ours.is_err()), (true, is_refused), "{files:?}\n{ours:?}");
    }
}

#[tokio::test]
async fn real_compose_1_is_explained_where_it_refuses_several_documents() {
    let (_, environment, _programs) = real().remove(0);
    let several = "services: {a: {image: a}}\n---\nservices: {a: {image: b}}\n";
    let deployment = deployment(&[("docker-compose.yml", several)]);
    let compose = compose(deployment.path(), &|_| None);
    let error = compose.config(Set::All, &environment, None).await.unwrap_err();
    let hint = error::find(&error).unwrap().hint().unwrap();
    assert!(hint.contains("several documents") && hint.contains("docker-compose.yml:3"), "{hint}");
}

/// What Compose 2 makes of `environment` entries, given the text of `.env`; `None` if it refuses.
fn compose_v2_evaluates(texts: &[String], dot_env: &str) -> Option<Vec<String>> {
    let values: Vec<String> =
        texts.iter().enumerate().map(|(index, text)| format!("V{index}: {text:?}")).collect();
    let file = format!("services: {{web: {{image: a, environment: {{{}}}}}}}", values.join(", "));
    let deployment = deployment(&[("compose.yaml", &file), (".env", dot_env)]);
    let program = std::env::var_os("DKV_TEST_COMPOSE_V2")
        .expect("DKV_TEST_COMPOSE_V2 names a Compose 2 program");
    let mut command = std::process::Command::new(program);
    command
        .args(["config", "--format", "json"])
        .current_dir(deployment.path())
        .env("A", "a")
        .env("EMPTY", "")
        .env_remove("B");
    let output = command.output().unwrap();
    let project: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let value = |index: usize| {
        project["services"]["web"]["environment"][format!("V{index}")]
            .as_str()
            .unwrap()
            .replace("$$", "$")
    };
    output.status.success().then(|| (0..texts.len()).map(value).collect())
}

fn samples(pattern: &'static str, count: usize) -> Vec<String> {
    use proptest::strategy::{Strategy as _, ValueTree as _};
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    (0..count).map(|_| pattern.new_tree(&mut runner).unwrap().current()).collect()
}

#[test]
fn real_interpolation_agrees_with_ours() {
    let lookup = |name: &str| match name {
        "A" => Some("a".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    let samples = samples(
        "(x|-|:|[$] |[$]A|[$][$]|[$][{](A|B|EMPTY)(:?[-+?](x|[$]A|[$][{]B:-y[}]|[$]1|-|:)*)?[}]){1,4}",
        400,
    );
    let evaluated = samples
        .into_iter()
        .filter_map(|text| Some((Template::parse(&text).ok()?.evaluate(&lookup).ok()?, text)));
    let (ours, texts): (Vec<String>, Vec<String>) = evaluated.unzip();
    assert!(texts.len() > 200);
    let theirs = compose_v2_evaluates(&texts, "").unwrap();
    for ((text, ours), theirs) in texts.iter().zip(ours).zip(theirs) {
        assert_eq!(ours, theirs, "{text}");
    }
    for text in
        ["${", "${A", "${}", "${1}", "${A!b}", "${A:b}", "${A:-${B}", "${B:?no}", "${EMPTY:?}"]
    {
        assert_eq!(compose_v2_evaluates(&[text.to_owned()], ""), None, "{text}");
    }
}

#[test]
fn real_dot_env_agrees_with_ours() {
    let inherited = |name: &str| (name == "A").then(|| "a".to_owned());
    let lines = [
        "N=1",
        "N = 1 ",
        "N: 1",
        "export N=1",
        "N=1 # c",
        "N=1#2",
        "N=",
        "N= # c",
        "N='x y' # c",
        "N='$A'",
        "N=\"a\\nb\\\"c\"",
        "N=\"a\\$c\"",
        "N=\"one\ntwo\"",
        "N=$A/x",
        "M=b\nN=${M:-c}${NONE:-d}",
        "A=b\nN=$A",
        "N=1\nN=2",
        "N=a b",
        "N=\"a\\tb\"",
        "N='it\\'s'",
        "N=a\\nb",
        "N=\"a\\\\b\"",
        "N=\"\"",
        "N=\"a\" b",
        "N= 'a'",
        "N=a'b'",
        "N='a'b\nM=1",
        "N.x=1\nN=2",
        "N=\"$A\\$A$$\"",
        "N=#c",
        "N=a\t#c",
        "N=\"a\\zb\"",
        "N='a\\b'",
    ];
    for text in lines {
        let ours =
            dotenv::parse(text, &inherited).ok().map(|mut all| all.remove("N").unwrap_or_default());
        let theirs =
            compose_v2_evaluates(&["$N".to_owned()], text).map(|mut values| values.remove(0));
        assert_eq!(ours, theirs, "{text:?}");
    }
}

/// A Compose file whose image lines have every form: the text, and each service's image line as it
/// is written, by the number of its definition, so that those of one definition want the same.
fn lines_of_every_form() -> impl Strategy<Value = (String, Vec<(String, usize, String)>)> {
    let digest = format!("sha256:{}", "1".repeat(64));
    let repository = prop::sample::select(vec!["web", "acme/web", "r.example:5000/a/web"]);
    let tail = prop::sample::select(vec![
        ":1.2".to_owned(),
        String::new(),
        format!("@{digest}"),
        format!(":1.2@{digest}"),
        ":${SET}".to_owned(),
        ":$SET".to_owned(),
        ":${NONE:-1.2}".to_owned(),
        ":${SET:-1.2}".to_owned(),
        ":${EMPTY:-1.2}".to_owned(),
        ":${NONE-1.2}".to_owned(),
        ":${SET:?say which}".to_owned(),
        ":${SET?}".to_owned(),
        ":v${SET:+7}-${NONE:-x}".to_owned(),
        ":${NONE:-${SET:-1.2}}".to_owned(),
        "${SET:+:$SET}".to_owned(),
        "${NONE:-:1.2}".to_owned(),
        format!("@${{NONE:-{digest}}}"),
    ]);
    let head =
        prop::sample::select(vec!["", "${EMPTY}", "${NONE:-}", "${MIRROR}", "${MIRROR:-x/}"]);
    let whole =
        prop::sample::select(vec!["${WHOLE}", "$WHOLE", "${NONE:-acme/web:1.2}", "${WHOLE:?}"]);
    let image = prop_oneof![
        5 => (head, repository, tail).prop_map(|(head, name, tail)| format!("{head}{name}{tail}")),
        1 => whole.prop_map(str::to_owned),
    ];
    let service = (image.clone(), 0_u8..12, any::<bool>());
    (prop::collection::vec(service, 3..14), image, any::<bool>()).prop_map(
        |(services, shared, crlf)| {
            let mut text = format!(
                "# top: ü\nx-one: &one\n  image: '{shared}' # shared\nx-two: &two\n  <<: *one\n  \
                    restart: 'no'\nx-image: &image \"{shared}\"\nservices:\n"
            );
            let mut all: Vec<(String, usize, String)> = Vec::new();
            // The service whose line others may merge.
            let mut anchored: Option<(usize, String)> = None;
            for (number, (image, shape, comment)) in services.iter().enumerate() {
                let (name, end) = (format!("s{number}"), if *comment { " # why" } else { "" });
                let (lines, own, image) = match shape {
                    0 | 1 => {
                        anchored = Some((number, image.clone()));
                        let line = format!("  {name}: &{name}{end}\n    image:   {image}{end}\n");
                        (line, number, image)
                    }
                    10 | 11 if anchored.is_some() => {
                        let (other, image) = anchored.as_ref().unwrap();
                        (format!("  {name}:\n    <<: *s{other}\n    tty: true\n"), *other, image)
                    }
                    2 => (
                        format!("  {name}:\n    image: '{image}'{end}\n    tty: true\n"),
                        number,
                        image,
                    ),
                    3 => (
                        format!("  {name}: {{tty: true, image: \"{image}\"}}{end}\n"),
                        number,
                        image,
                    ),
                    4 => (format!("  {name}:\n    <<: *two\n    tty: true{end}\n"), 1000, &shared),
                    5 => (format!("  {name}: {{<<: [*two, *one]}}{end}\n"), 1000, &shared),
                    6 => (format!("  {name}:\n    image: *image{end}\n"), 1000, &shared),
                    7 => (
                        format!("  {name}:\n    image: >-{end}\n      {image}\n    tty: true\n"),
                        number,
                        image,
                    ),
                    8 => (
                        format!("  {name}: &{name}\n    !!merge <<: *one\n    tty: true\n"),
                        1000,
                        &shared,
                    ),
                    _ => (format!("  ? {name}\n  : image:\n      {image}{end}\n"), number, image),
                };
                text += &lines;
                all.push((name, own, image.clone()));
            }
            (if crlf { text.replace('\n', "\r\n") } else { text }, all)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]

    /// With their variables the lines that follow say exactly what is recorded, and without them
    /// what they said; the others go on as they are. Compose 2 itself is asked.
    #[test]
    fn real_lines_that_follow_mean_the_same_without_versions_env(
        (text, services) in lines_of_every_form(),
        left in 0_usize..8,
    ) {
        let set = [
            ("SET", "9"), ("EMPTY", ""), ("MIRROR", "mirror.example/"), ("WHOLE", "acme/whole:3"),
        ];
        let lookup = |name: &str| {
            set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let now = |text: &str| -> Option<Reference> {
            Template::parse(text).ok()?.evaluate(&lookup).ok()?.parse().ok()
        };
        let own = |own: usize| [format!("DK_S{own}_IMAGE"), format!("DK_S{own}_TAG")];
        let recorded = |own: usize| {
            [format!("rec.example/s{own}"), format!("7@sha256:{own:064}")]
        };
        // What dkv cannot read either is no tracked image; one in eight is left alone.
        let wanted: BTreeMap<String, (usize, String)> = services
            .iter()
            .enumerate()
            .filter(|(number, _)| number % 8 != left)
            .filter_map(|(_, (name, of, image))| {
                let new = image_line::following(Some(image), &now(image)?, &own(*of), true);
                Some((name.clone(), (*of, new.unwrap().text)))
            })
            .collect();
        let images = wanted
            .iter()
            .map(|(name, (_, new))| (Entry { document: 0, service: name.clone() }, new.clone()))
            .collect();
        let done = rewrite::set_images(&text, &images).unwrap();
        prop_assert!(done.refused.is_empty(), "{:?}\n{}", done.refused, text);

        let (_, environment, _programs) = real().remove(1);
        let variables = set.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = environment.with(variables);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ask = |text: &str, environment: &Environment| -> BTreeMap<String, String> {
            let directory = deployment(&[("compose.yaml", text)]);
            let compose = compose(directory.path(), &|_| None);
            let project = runtime.block_on(compose.config(Set::All, environment, None));
            let services = project.unwrap_or_else(|error| panic!("{error:#}\n{text}")).services;
            services.into_iter().map(|one| (one.name, one.image.unwrap_or_default())).collect()
        };
        let means = |images: BTreeMap<String, String>| -> Vec<(String, String)> {
            let meaning = |image: String| match image.parse::<Reference>() {
                Ok(Reference { repository, digest: Some(digest), .. }) => repository.with_digest(&digest),
                Ok(image) => format!("{}:{}", image.repository, image_line::version_named(&image)),
                Err(_) => image,
            };
            images.into_iter().map(|(name, image)| (name, meaning(image))).collect()
        };
        let before = means(ask(&text, &environment));
        let without = means(ask(&done.text, &environment));
        prop_assert_eq!(&without, &before, "{}\nbecame\n{}", &text, &done.text);
        let all = wanted.values().flat_map(|(of, _)| {
            own(*of).into_iter().zip(recorded(*of)).collect::<Vec<_>>()
        });
        let with = ask(&done.text, &environment.clone().with(all.collect::<Vec<_>>()));
        for (name, image) in &before {
            let expected = match wanted.get(name) {
                Some((of, _)) => recorded(*of).join(":"),
                None => with[name].clone(),
            };
            prop_assert_eq!(&with[name], &expected, "{}\n{}", name, &done.text);
            if !wanted.contains_key(name) {
                let own = means(BTreeMap::from([(name.clone(), with[name].clone())]));
                prop_assert_eq!(&own[0].1, image, "{}", &done.text);
            }
        }
    }
}
