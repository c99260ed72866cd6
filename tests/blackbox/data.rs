//! `restore-data`: killed anywhere, the data is all old or all new, or nothing starts on it.

use std::fs;
use std::process::Command;

use crate::support::Outcome;
use crate::support::deployment::Compose;
use crate::update_safe::Product;

/// What a restore changes the disk with.
const CALLS: [&str; 10] = [
    "rename",
    "renameat2",
    "mkdir",
    "unlink",
    "unlinkat",
    "rmdir",
    "fsync",
    "syncfs",
    "chmod",
    "fchmodat",
];

/// A deployment whose data in a directory and in a file was saved at `old`, and is `now` now. No
/// container runs, so that each try is quick.
fn saved(topic: &str) -> (Product, String) {
    let product = Product::with(topic, Compose::V2, |product| {
        let manifest = product.deployment.manifest();
        let backup = "data_backup: {paths: [./data, ./one.conf]}\n";
        product.deployment.write("version-manifest.yaml", &(manifest + backup));
        put(product, "old");
    });
    product.publish("web", "2", |image| image);
    let done = product.dkv(["--json", "update-safe"]).exit(0);
    let backup = done.json()["data_backup"].as_str().unwrap().to_owned();
    product.dkv(["down"]).exit(0);
    (product, backup)
}

fn put(product: &Product, what: &str) {
    let directory = product.deployment.path("data");
    if directory.exists() {
        fs::remove_dir_all(&directory).unwrap();
    }
    for name in ["a", "b/c", &format!("only-{what}")] {
        product.deployment.write(&format!("data/{name}"), what);
    }
    product.deployment.write("one.conf", what);
}

/// Which data is there; `None` for a mixture, and for leftovers.
fn there(product: &Product) -> Option<&'static str> {
    let mut parts: Vec<String> = product.deployment.list("data");
    parts.sort();
    let read = |name: &str| fs::read_to_string(product.deployment.path(name)).unwrap_or_default();
    ["old", "now"].into_iter().find(|what| {
        let files = ["data/a", "data/b/c", &format!("data/only-{what}"), "one.conf"];
        let left = product.deployment.list(".");
        parts == ["a", "b", &format!("only-{what}")]
            && files.iter().all(|name| read(name) == *what)
            && !left.iter().any(|name| name.starts_with(".dkv-"))
    })
}

fn killed_at(product: &Product, backup: &str, call: &str, number: usize) -> Outcome {
    let trace = format!("trace={call}");
    let inject = format!("inject={call}:signal=KILL:when={number}");
    let strace = ["-f", "-qq", "-e", &trace, "-e", &inject];
    product.dkv(["restore-data", backup, "-y", "--no-copy"]).under_strace(strace).finish()
}

#[test]
fn killed_anywhere_a_restore_is_finished_or_undone_and_nothing_starts_between() {
    let (product, backup) = saved("killed");
    let (mut tries, mut between) = (0, 0);
    for call in CALLS {
        for number in 1.. {
            put(&product, "now");
            let outcome = killed_at(&product, &backup, call, number);
            if outcome.code() == Some(0) {
                break;
            }
            tries += 1;
            let what = format!("killed at {call} {number}:\n{outcome}");
            let pulled = product.dkv(["pull-latest", "--no-pull"]).finish();
            if pulled.code() == Some(3) {
                assert!(pulled.stderr.contains("half of both"), "{what}\n{pulled}");
                between += 1;
            } else {
                assert_eq!(pulled.code(), Some(0), "{what}\n{pulled}");
            }
            let journal = journal(&product);
            if journal.contains("unpacking") {
                let status = product.dkv(["status"]).exit(0);
                status.stderr_contains("before it replaced anything");
            }
            if number % 2 == 0 && !journal.is_empty() && !journal.contains("in-place") {
                product.dkv(["restore-data", "--abort", "-y"]).exit(0);
                assert_eq!(there(&product), Some("now"), "undone, {what}");
            } else {
                product.dkv(["restore-data", &backup, "-y", "--no-copy"]).exit(0);
                assert_eq!(there(&product), Some("old"), "finished, {what}");
            }
        }
    }
    eprintln!("killed at {tries} places, {between} of them between old and new");
    assert!(tries >= 30 && between >= 10, "{tries} places, {between} between");
}

#[test]
fn half_restored_data_stops_everything_that_would_start_it() {
    let (product, backup) = saved("half");
    let half = (1..200).find(|number| {
        put(&product, "now");
        let outcome = killed_at(&product, &backup, "rename", *number);
        assert_ne!(outcome.code(), Some(0), "never between");
        there(&product).is_none() && journal(&product).contains("replacing")
    });
    assert!(half.is_some());
    for command in ["up", "updb", "restart", "start", "build", "update", "pull-latest"] {
        // A dry run ends as the command itself does.
        for words in [&[command][..], &[command, "--dry-run"]] {
            let refused = product.dkv(words.iter().copied()).exit(3);
            refused.stderr_contains("half of both").stderr_contains(&backup);
        }
    }
    product.dkv(["update-safe"]).exit(3).stderr_contains("half of both");
    product.dkv(["update-safe", "--dry-run"]).exit(3).stderr_contains("half of both");
    product.dkv(["status"]).exit(0).stderr_contains("half of both");
    product.dkv(["restore-data", "data-20200101000000.tar.zst", "-y"]).exit(3);
    // By the name that `dkv backups` shows.
    let shown = backup.strip_suffix(".tar.zst").unwrap();
    product.dkv(["restore-data", shown, "-y"]).exit(0);
    assert_eq!(there(&product), Some("old"));
    product.dkv(["up"]).exit(0);
    product.dkv(["restore-data", "--abort", "-y"]).exit(3).stderr_contains("no unfinished");
}

fn journal(product: &Product) -> String {
    fs::read_to_string(product.deployment.path(".version-backups/restore-journal.json"))
        .unwrap_or_default()
}

#[test]
fn what_was_there_becomes_a_backup_and_a_full_disk_changes_nothing() {
    let (product, backup) = saved("copied");
    put(&product, "now");
    let plan = product.dkv(["restore-data", &backup, "--dry-run"]).exit(0);
    plan.stdout_contains("would save first what is in").stdout_contains("a backup of its own");
    let plan = product.dkv(["restore-data", &backup, "--dry-run", "--no-copy"]).exit(0);
    plan.stdout_lacks("would save");
    product
        .dkv(["restore-data", "--abort", &backup])
        .exit(2)
        .stderr_contains("dkv restore-data [OPTIONS] --abort\n");
    let done = product.dkv(["--json", "restore-data", &backup, "-y"]).exit(0);
    assert_eq!(there(&product), Some("old"));
    let copy = done.json()["copy"].as_str().unwrap().to_owned();
    product.dkv(["restore-data", &copy, "-y"]).exit(0);
    assert_eq!(there(&product), Some("now"));
    // Three are kept, but never is the one removed that is being put back.
    for _ in 0..3 {
        product.dkv(["restore-data", &backup, "-y"]).exit(0);
    }
    assert_eq!(there(&product), Some("old"));

    let directory = product.deployment.path("data");
    fs::remove_dir_all(&directory).unwrap();
    fs::create_dir(&directory).unwrap();
    let mount = |args: &[&str]| {
        assert!(Command::new(args[0]).args(&args[1..]).arg(&directory).status().unwrap().success());
    };
    mount(&["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs"]);
    product.deployment.write("data/a", "full");
    let refused = product.dkv(["restore-data", &backup, "-y"]).finish();
    let left = product.deployment.list("data");
    mount(&["umount"]);
    assert_eq!(refused.code(), Some(3), "{refused}");
    assert_eq!(left, ["a"], "{refused}");
    assert_eq!(product.deployment.read("one.conf"), "old");
}

#[test]
fn a_backup_of_another_deployment_is_not_believed_about_its_place() {
    let (product, backup) = saved("strange");
    put(&product, "now");
    let manifest = product.deployment.manifest();
    let paths = "paths: [./data, ./one.conf]";
    product.deployment.write("version-manifest.yaml", &manifest.replace(paths, "paths: [./data]"));
    let refused = product.dkv(["restore-data", &backup, "-y"]).exit(3);
    refused.stderr_contains("one.conf").stderr_contains("--anywhere");
    product.dkv(["restore-data", &backup, "--dry-run"]).exit(3).stderr_contains("--anywhere");
    assert_eq!(there(&product), Some("now"));
    let mut asked = product.dkv(["restore-data", &backup]).tty().interactive().spawn();
    asked.answer("may be another's", "n");
    asked.exit(2);
    assert_eq!(there(&product), Some("now"));
    product.dkv(["restore-data", &backup, "-y", "--anywhere"]).exit(0);
    assert_eq!(there(&product), Some("old"));
}

#[test]
fn a_restore_that_replaced_nothing_is_told_by_the_next_start() {
    let (product, backup) = saved("nothing");
    put(&product, "now");
    assert_ne!(killed_at(&product, &backup, "syncfs", 1).code(), Some(0));
    assert!(journal(&product).contains("unpacking"), "{}", journal(&product));
    product.dkv(["up"]).exit(0).stderr_contains(&format!("{backup} was interrupted before"));
    assert_eq!(there(&product), Some("now"));
    assert_eq!(journal(&product), "");
}

/// A database: keeps `rows` where it is told to, and does what it is sent over a wire, as others do
/// over a network.
const DATABASE: &str = "for place in $PLACES; do test -e $place/rows || echo old >$place/rows; done; \
     while :; do test ! -e /tmp/wire/$NAME || { sh /tmp/wire/$NAME; rm /tmp/wire/$NAME; }; \
     sleep 0.05; done";

/// A release that changes the rows of every database, and fails.
const MIGRATION: &str = "for name in pg my ext; do \
     echo 'for place in $PLACES; do echo migrated >$place/rows; echo >$place/new; done' \
     >/tmp/wire/$name; done; \
     for name in pg my ext; do while test -e /tmp/wire/$name; do sleep 0.05; done; done; exit 1";

/// A product whose databases stand beside the application, with data in every kind of place.
fn layouts(topic: &str, compose: Compose) -> Product {
    Product::with(topic, compose, |product| {
        for name in ["postgres", "mysql", "redis"] {
            product.publish(name, "1", |image| image.script(DATABASE).volume("/unnamed"));
        }
        let image = |name| format!("{}:1", product.registry.repository(name));
        let project = product.deployment.project();
        let external = format!("{project}-external");
        let label = format!("com.docker.compose.project={project}");
        let engine = product.deployment.engine();
        engine.docker(&["volume", "create", "--label", &label, &external]);
        fs::create_dir(product.deployment.path("bound")).unwrap();
        let bound = product.deployment.path("bound");
        let services = product.deployment.read("docker-compose.yml").replacen(
            "  side:",
            "    volumes: ['wire:/tmp/wire']\n  side:",
            1,
        );
        product.deployment.write(
            "docker-compose.yml",
            &format!(
                "{services}
    volumes: ['wire:/tmp/wire', 'uploads:/uploads']
  pg:
    image: {}
    stop_signal: SIGKILL
    environment: {{NAME: pg, PLACES: /named /bind /unnamed}}
    volumes: ['wire:/tmp/wire', 'named:/named', './bind:/bind', './pg.conf:/etc/pg.conf',
      '/var/run/docker.sock:/var/run/docker.sock']
  my:
    image: {}
    stop_signal: SIGKILL
    environment: {{NAME: my, PLACES: /bound}}
    volumes: ['wire:/tmp/wire', 'bound:/bound', 'named:/backup:ro']
    tmpfs: [/unnamed]
  ext:
    image: {}
    stop_signal: SIGKILL
    environment: {{NAME: ext, PLACES: /ext}}
    volumes: ['wire:/tmp/wire', 'ext:/ext']
    tmpfs: [/unnamed]
  asleep:
    image: {}
    profiles: [asleep]
    volumes: ['asleep:/data']
volumes:
  wire: {{}}
  named: {{}}
  uploads: {{}}
  asleep: {{}}
  ext: {{external: true, name: {external}}}
  bound: {{driver_opts: {{type: none, o: bind, device: '{}'}}}}
",
                image("postgres"),
                image("mysql"),
                image("redis"),
                image("redis"),
                bound.display(),
            ),
        );
        product.deployment.write("pg.conf", "");
    })
}

/// What the databases of [`layouts`] hold.
fn rows(product: &Product) -> Vec<String> {
    let engine = product.deployment.engine();
    let places =
        [("pg", "/named"), ("pg", "/bind"), ("pg", "/unnamed"), ("my", "/bound"), ("ext", "/ext")];
    let held = places.map(|(service, place)| {
        let name = &engine.containers(product.deployment.project(), service)[0];
        let script = format!("cat {place}/rows; test ! -e {place}/new || echo new");
        engine.docker(&["exec", name, "sh", "-c", &script])
    });
    held.into_iter().collect()
}

fn a_release_that_migrates_and_fails(compose: Compose, topic: &str) {
    let product = layouts(topic, compose);
    assert_eq!(rows(&product), ["old"; 5]);
    product.publish("web", "2", |image| image.script(MIGRATION));
    let plan = product.dkv(["update-safe", "--dry-run"]).exit(0);
    for text in ["volume", "_named", "./bind (pg)", "the unnamed volume at /unnamed", "_bound"] {
        plan.stdout_contains(text);
    }
    plan.stdout_contains("would stop while their data is saved: ext, my, pg");
    plan.stdout_lacks("docker.sock").stdout_lacks("pg.conf").stdout_lacks("wire");
    assert!(!product.deployment.exists(".version-backups/data"));

    let failed = product.dkv(["update-safe", "--timeout", "8s"]).exit(7);
    failed.stderr_contains("not saved: volume").stderr_contains("_uploads (side)");
    assert_eq!(rows(&product), ["migrated\nnew"; 5], "the release had migrated:\n{failed}");
    let data = failed.stderr.split("`dkv restore-data ").nth(1).expect("the way back");
    let backup = data.split('`').next().unwrap();
    product.dkv(["restore-data", backup, "-y"]).exit(0).stderr_contains("Stopping ext, my, pg");
    assert_eq!(rows(&product), ["old"; 5]);
    product.assert_runs("1");

    // What was there before is a backup as well.
    let listed = product.dkv(["backups", "--json"]).exit(0).json();
    let [copy, first] = listed["data"].as_array().unwrap().as_slice() else { panic!("{listed}") };
    assert_eq!(copy["replaced_by"], backup);
    let change = &first["changes"][0];
    assert_eq!(
        [&first["name"], &change["service"], &change["from"], &change["to"]],
        [backup, "web", "1", "2"]
    );
    assert_eq!(first["sources"].as_array().unwrap().len(), 5, "{listed}");
    assert!(first["update_started_at"].is_string() && first["bytes"].as_u64().unwrap() > 0);
    product.dkv(["restore-data", "data-", "-y"]).exit(2).stderr_contains("begins several");
    let name = copy["name"].as_str().unwrap();
    product.dkv(["restore-data", name.split('.').next().unwrap(), "-y"]).exit(0);
    assert_eq!(rows(&product), ["migrated\nnew"; 5]);
}

#[test]
fn databases_of_the_one_file_are_saved_wherever_they_keep_their_data_v1() {
    a_release_that_migrates_and_fails(Compose::V1, "layouts1");
}

#[test]
fn databases_of_the_one_file_are_saved_wherever_they_keep_their_data_v2() {
    a_release_that_migrates_and_fails(Compose::V2, "layouts2");
}

#[test]
fn what_is_not_saved_is_said_and_how_to_change_it() {
    let product = Product::with("unsaved", Compose::V2, |product| {
        let compose = product.deployment.read("docker-compose.yml");
        let volumes = "    volumes: ['uploads:/uploads']\nvolumes: {uploads: {}}\n";
        product.deployment.write("docker-compose.yml", &(compose + volumes));
    });
    let manifest = product.deployment.manifest();
    let saying = |setting: &str| {
        product.deployment.write("version-manifest.yaml", &format!("{manifest}{setting}\n"));
        product.publish("web", "2", |image| image.crashing(1));
        product.dkv(["update-safe", "--dry-run"]).finish()
    };
    let told = saying("");
    told.stderr_contains("warning: no data would be saved").stderr_contains("_uploads (side)");
    let hint = "data_backup: {services: {side: true}}";
    told.stderr_contains(hint);
    saying(hint).stdout_contains("would save: volume ").stdout_contains("_uploads (side)");
    saying("data_backup: {services: {side: false}}").stderr_lacks("warning");
    saying("data_backup: none").stdout_contains("`data_backup: none`").stderr_lacks("warning");
    let misspelled = saying("data_backup: {services: {sied: true}}");
    assert_eq!(misspelled.code(), Some(3), "{misspelled}");
    misspelled.stderr_contains("`sied`").stderr_contains("side");

    saying("");
    let failed = product.update().exit(7);
    failed.stderr_contains("warning: no data is saved").stderr_contains("has saved none of it");
    product.assert_runs("1");
}
