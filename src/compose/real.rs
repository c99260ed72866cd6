//! Tests with the real Compose programs: `docker-compose` 1 on the `PATH`, and the Compose 2
//! program that the variable `DKV_TEST_COMPOSE_V2` names (`tests/run.sh` sets it). They start no
//! containers.

use std::path::{Path, PathBuf};

use super::config::{Condition, Source};
use super::files::{Configured, Files};
use super::run::{Compose, Environment, Output};
use super::{Generation, Set, dotenv};
use crate::error::{self, Kind};
use crate::model::interpolation::Template;

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
