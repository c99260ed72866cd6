//! What the files say, each read once, with what is taken away, led astray and left to Compose.

use super::*;
use crate::compose::argv::Generation;
use crate::compose::files::{Configured, Files};

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    directory
}

/// Reads the first of these files, and with it what it names.
fn written(files: &[(&str, &str)]) -> ComposeFiles {
    ComposeFiles::of(directory(files).path(), &[files[0].0.into()])
}

fn fixture(name: &str, files: &[&str]) -> ComposeFiles {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/compose").join(name);
    let files = ComposeFiles::of(&directory, &files.iter().map(PathBuf::from).collect::<Vec<_>>());
    files.require().unwrap();
    files
}

/// The image of a service; empty where it has none.
fn image<'f>(files: &'f ComposeFiles, service: &str) -> &'f str {
    let line = files.service(service).unwrap_or_else(|| panic!("no {service}: {files:#?}"));
    line.image_text().unwrap_or_default()
}

fn names<'l>(lines: impl IntoIterator<Item = &'l Line>) -> Vec<&'l str> {
    lines.into_iter().map(|line| line.service.as_str()).collect()
}

#[test]
fn image_lines_keep_their_variables() {
    let files = fixture("dkproxy", &["docker-compose.yml"]);
    let vault = files.service("vault").unwrap().template().unwrap();
    assert_eq!(vault.variables(), ["DK_VAULT_IMAGE", "DK_VAULT_TAG"]);
    assert_eq!(vault.default_value().as_deref(), Some("hashicorp/vault:1.20.3"));
}

#[test]
fn merge_keys_and_extended_services_give_their_image() {
    let files = fixture("whisperengine-dev", &["docker-compose.yml"]);
    assert_eq!(image(&files, "marcus-bot"), "whisperengine-bot:${VERSION:-latest}");
    let files = fixture("whisperengine-prod", &["docker-compose.yml"]);
    assert_eq!(image(&files, "assistant"), "whisperengine/whisperengine:${VERSION:-v1.0.2}");
    assert_eq!(image(&fixture("hive", &["docker-compose.yml"]), "app"), "");
}

#[test]
fn every_way_to_share_an_image_leads_to_where_it_is_written() {
    let text = "x-image: &image r/a:1\nx-base: &base\n  !!merge <<: [&in {image: r/in:1}, {build: .}]\n\
                x-deep: &deep {<<: *base, &k restart: &r always}\nservices:\n  <<: {merged: {image: r/m:1}}\n  \
                alias: {image: *image}\n  nested: {<<: *deep}\n  list:\n    <<: [{restart: *r}, *deep]\n    \
                image: !override r/own:1\n  'quoted': {image: 'r/q:1'}\n  tagged: !override\n    image: !!str r/t:1\n";
    let files = written(&[("a.yml", text)]);
    files.require().unwrap();
    let places: Vec<(&str, &str, usize, bool)> = files
        .services()
        .map(|line| {
            let site = line.image.as_ref().unwrap();
            assert_eq!(
                files.text(&site.file).unwrap().document.source()[site.span.clone()],
                site.image
            );
            (line.service.as_str(), site.image.as_str(), site.position.line, line.has_build)
        })
        .collect();
    assert_eq!(
        places,
        [
            ("alias", "r/a:1", 1, false),
            ("nested", "r/in:1", 3, true),
            ("list", "r/own:1", 11, true),
            ("quoted", "r/q:1", 12, false),
            ("tagged", "r/t:1", 14, false),
            ("merged", "r/m:1", 6, false),
        ]
    );
    assert_eq!(files.service("alias").unwrap().place.as_ref().unwrap().line, 7);
}

#[test]
fn the_last_file_with_an_image_decides() {
    let names_of_files = ["docker-compose.yml", "docker-compose.secretvm.yml"];
    let files = fixture("privexbot", &names_of_files);
    assert_eq!(files.lines().iter().filter(|line| line.service == "backend").count(), 2);
    assert_eq!(names(files.services()), ["backend", "postgres"]);
    assert_eq!(files.service("backend").unwrap().file, Path::new(names_of_files[1]));
}

#[test]
fn an_override_keeps_what_it_does_not_name_and_takes_away_what_it_resets() {
    let directory = directory(&[
        (
            "a.yml",
            "services:\n  a: {image: x}\n  b: {build: .}\n  c: {image: x, build: .}\n  d: {image: x}\n  \
             e: {image: x, build: .}\n",
        ),
        (
            "b.yml",
            "services:\n  a: {build: .}\n  b: {image: x}\n  c: {image: !reset null}\n  d: !reset null\n  \
             e: {build: !reset null}\n  f: null\n",
        ),
    ]);
    let files = ComposeFiles::of(directory.path(), &["a.yml".into(), "b.yml".into()]);
    let all: Vec<(&str, &str, bool)> = files
        .services()
        .map(|line| (line.service.as_str(), line.image_text().unwrap_or(""), line.has_build))
        .collect();
    assert_eq!(all, [("a", "x", true), ("b", "x", true), ("c", "", true), ("e", "x", false)]);
    assert_eq!(files.service("a").unwrap().file, Path::new("a.yml"));
    assert_eq!(files.service("b").unwrap().file, Path::new("b.yml"));
}

#[test]
fn includes_are_followed_and_come_first() {
    let files = written(&[
        (
            "compose.yaml",
            "include: [sub/a.yaml, {path: [sub/b.yaml], env_file: x.env}, '${ELSEWHERE}/c.yaml',\n  \
             'oci://r.example/d', {path: e.yaml, project_directory: ./sub}, sub/b.yaml]\n\
             services: {web: {image: w}}",
        ),
        ("sub/a.yaml", "include: [b.yaml]\nservices: {a: {image: !override x}}"),
        ("sub/b.yaml", "services: {b: {image: y}, c: {image: !reset null, build: .}}"),
        ("e.yaml", "services: {e: {extends: {file: f.yaml, service: f}}}"),
        ("sub/f.yaml", "services: {f: {image: z}}"),
    ]);
    files.require().unwrap();
    assert_eq!(names(files.lines()), ["b", "c", "a", "e", "web"]);
    let images: Vec<&str> = ["a", "b", "c", "e"].map(|service| image(&files, service)).into();
    assert_eq!(images, ["x", "y", "", "z"]);
    assert_eq!(files.services_of(&["compose.yaml".into()]).len(), 5);
    assert_eq!(
        files.not_compared(),
        [
            "compose.yaml:1: it includes ${ELSEWHERE}/c.yaml, whose variables only Compose fills in",
            "compose.yaml:2: it includes oci://r.example/d, which only Compose fetches",
        ]
    );
    let root = files.text(Path::new("compose.yaml")).unwrap();
    assert_eq!(root.includes[1].env_files, ["x.env"]);
    let order: Vec<String> = files.texts().map(ComposeText::name).collect();
    assert_eq!(order, ["compose.yaml", "sub/a.yaml", "sub/b.yaml", "e.yaml", "sub/f.yaml"]);
}

#[test]
fn an_extended_line_is_found_where_it_is_written() {
    let files = written(&[
        (
            "compose.yaml",
            "services:\n  a:\n    extends: {file: base.yml, service: base}\n  b:\n    build: .\n  \
             c:\n    extends: a\n  d: {extends: {service: gone}}\n  e:\n    extends: b\n",
        ),
        ("base.yml", "include: [nobody.yml]\nservices:\n  base:\n    image: r/a:1\n"),
    ]);
    let at = |service: &str| files.service(service).unwrap().place.clone();
    let base = Entry { document: 0, service: "base".to_owned() };
    assert_eq!(at("a"), Some(Place { file: "base.yml".into(), entry: base, line: 4 }));
    assert_eq!(at("c"), at("a"));
    assert_eq!(at("b").unwrap().line, 5);
    // Who extends a build makes an image of its own.
    assert_eq!((at("e").unwrap().entry.service.as_str(), at("e").unwrap().line), ("e", 10));
    assert_eq!((at("d"), files.service("nobody")), (None, None));
    files.require().unwrap();
    assert_eq!(
        files.not_compared(),
        [
            "compose.yaml:8: it extends `gone`, which compose.yaml lacks",
            "compose.yaml:8: the service `d`, which has neither an image nor a build section",
        ]
    );
    // What an extended file includes is nobody's.
    let kinds: Vec<ProblemKind> = files.problems().iter().map(|problem| problem.kind).collect();
    assert_eq!(kinds, [ProblemKind::Missing, ProblemKind::NoService]);
}

#[test]
fn paths_are_relative_to_the_project() {
    let directory = directory(&[
        (".env", "COMPOSE_FILE=deploy/a.yml:deploy/sub/b.yml\nV=1\n"),
        ("deploy/.env", "V=2\nW=3\nCOMPOSE_PROJECT_NAME=shop\n"),
        ("deploy/a.yml", "services: {a: {image: x}}"),
        ("deploy/sub/b.yml", "services: {b: {extends: {file: base.yml, service: base}}}"),
        ("deploy/base.yml", "services: {base: {image: from/deploy}}"),
        ("deploy/sub/base.yml", "services: {base: {image: from/sub}}"),
    ]);
    let files = Files::discover(directory.path(), &Configured::default(), &|_| None).unwrap();
    assert_eq!(image(&ComposeFiles::read(&files, Generation::V2), "b"), "from/deploy");
    let values: Vec<Option<String>> = ["V", "W"].map(|name| files.dot_env(name)).into();
    assert_eq!(values, [Some("1".to_owned()), Some("3".to_owned())]);
    assert_eq!(files.project_name_variable(), Some("shop"));
}

#[test]
fn circles_end() {
    for (files, line) in [
        (&[("a.yml", "include: [a.yml]")][..], None),
        (
            &[("a.yml", "include: [sub/../b.yml]"), ("b.yml", "include: [./a.yml]"), ("sub/x", "")],
            None,
        ),
        (&[("a.yml", "services:\n  a: {extends: b}\n  b: {extends: {service: a}}")], Some(3)),
        (
            &[
                ("a.yml", "services: {a: {extends: {file: b.yml, service: b}}}"),
                ("b.yml", "services: {b: {extends: {file: a.yml, service: a}}}"),
            ],
            Some(1),
        ),
    ] {
        let files = written(files);
        let error = files.require().unwrap_err();
        assert_eq!(error::kind(&error), error::Kind::State);
        assert!(error.to_string().contains("itself"), "{error}");
        assert_eq!(files.problems()[0].line, line, "{error}");
    }
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_read() {
    for (files, kind, line) in [
        (&[("b.yml", "services: ]")][..], ProblemKind::Invalid, Some(1)),
        (&[("b.yml", "- list")], ProblemKind::Invalid, Some(1)),
        (&[("b.yml", "a: 1\na: 2")], ProblemKind::Invalid, Some(2)),
        (&[("b.yml", "a: 1\n<<: 1")], ProblemKind::Invalid, Some(2)),
        (&[("b.yml/is/a/directory", "")], ProblemKind::Unreadable, None),
        (&[], ProblemKind::Missing, None),
    ] {
        let top = ("a.yml", "include: [b.yml]\nservices: {a: {image: x}}");
        let files = written(&[&[top], files].concat());
        let error = files.require().unwrap_err();
        assert_eq!(error::kind(&error), error::Kind::State);
        assert!(error.to_string().contains("b.yml"), "{error}");
        let problem = &files.problems()[0];
        assert_eq!((problem.kind, problem.line), (kind, line), "{error}");
        assert_eq!(problem.named_by.as_deref(), Some(Path::new("a.yml")));
        assert_eq!(image(&files, "a"), "x");
    }
    let empty = written(&[("a.yml", "# nothing yet\n")]);
    assert!(empty.require().unwrap().lines().is_empty());
    let unused = "services: {a: {extends: {file: b.yml, service: b}}}";
    let base = "services: {b: {image: x}, c: {extends: {file: gone.yml, service: c}}}";
    let files = written(&[("a.yml", unused), ("b.yml", base)]);
    assert_eq!((image(files.require().unwrap(), "a"), files.problems().len()), ("x", 1));
}

#[test]
fn what_is_no_image_of_a_service_is_kept_or_named() {
    let text = "models:\n  llm: {model: ai/smollm2}\nservices:\n  a:\n    image: x\n    \
                extends: {file: base.yml, service: base}\n    volumes:\n      - /tmp:/tmp\n      \
                - {type: image, source: 'r/data:${V}', target: /data}\n      - {type: bind, source: r}\n    \
                pre_start:\n      - {image: r/init:1, command: x}\n      - command: y\n  \
                cloud:\n    provider: {type: acme}\n  empty: {command: x}\n";
    let base = "services:\n  base:\n    volumes: [{type: image, source: r/old:1, target: /data},\n      \
                {type: image, source: r/more:1, target: /more}]\n";
    let files = written(&[("a.yml", text), ("base.yml", base)]);
    let others: Vec<(&str, &str, String, &str)> = files
        .other_images()
        .iter()
        .map(|other| (other.service.as_str(), other.key, other.site.place(), &*other.site.image))
        .collect();
    assert_eq!(
        others,
        [
            ("a", "volumes", "base.yml:4".to_owned(), "r/more:1"),
            ("a", "volumes", "a.yml:9".to_owned(), "r/data:${V}"),
            ("a", "pre_start", "a.yml:12".to_owned(), "r/init:1"),
        ]
    );
    assert_eq!(
        files.not_compared(),
        [
            "a.yml:2: the model `llm`, ai/smollm2",
            "a.yml:14: the service `cloud`, which `acme` provides",
            "a.yml:16: the service `empty`, which has neither an image nor a build section",
        ]
    );
}

#[test]
fn files_beside_the_deployment_are_none_of_it() {
    let directory = directory(&[
        ("compose.yaml", "include: [inc-compose.yml]\nservices: {a: {image: x}}"),
        ("docker-compose.yml", "services: {old: {image: x}}"),
        ("docker-compose.ci.yml", "services: {a: {extends: {file: ci.yml, service: ci}}}"),
        ("ci.yml", "services: {ci: {image: y}}"),
        ("inc-compose.yml", "services: {inc: {image: z}}"),
        ("broken-compose.yml", "services: ["),
        (".compose.yml", ""),
        ("compose.txt", ""),
        ("sub-compose.yml/x", ""),
    ]);
    let files = Files::discover(directory.path(), &Configured::default(), &|_| None).unwrap();
    let mut read = ComposeFiles::read(&files, Generation::V2);
    let by = |read: &ComposeFiles| {
        read.text(Path::new("inc-compose.yml")).and_then(|text| text.named_by.clone())
    };
    assert_eq!(by(&read).as_deref(), Some(Path::new("compose.yaml")));
    read.read_beside(&files).unwrap();
    assert_eq!(by(&read), None);
    let order: Vec<String> = read.texts().map(ComposeText::name).collect();
    assert_eq!(
        order,
        [
            "compose.yaml",
            "docker-compose.yml",
            "docker-compose.ci.yml",
            "inc-compose.yml",
            "ci.yml"
        ]
    );
    assert_eq!(names(read.services()), ["inc", "a"]);
    assert_eq!(read.problems().len(), 1);
    assert!(!read.problems()[0].is_certain);
    read.require().unwrap();
}

#[test]
fn a_command_line_names_files_from_here_as_well_and_no_others() {
    let directory = directory(&[("a.yml", "include: [b.yml]"), ("b.yml", "")]);
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    let files = ComposeFiles::named(
        directory.path(),
        &["a.yml".into(), elsewhere.path().into(), "c.yml".into()],
    );
    assert_eq!((files.texts().count(), files.problems().len()), (2, 1));
    assert_eq!(files.problems()[0].path, Path::new("c.yml"));
}

#[test]
fn a_project_name_is_noticed() {
    let files = written(&[("a.yml", "name: ${PROXY_ALIAS}")]);
    assert!(files.names_project(&["a.yml".into()]));
    assert!(!files.names_project(&["b.yml".into()]));
    let files = written(&[("a.yml", "services: {name: {image: a}}")]);
    assert!(!files.names_project(&["a.yml".into()]));
}
