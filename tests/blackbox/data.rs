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
    product.dkv(["restore-data", &backup, "-y"]).exit(0);
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
