//! Texts, patterns, days, merging and files; no daemon.

use chrono::{FixedOffset, TimeZone as _};
use futures_util::{StreamExt as _, stream};

use super::archive::{compress_file, runs_of};
use super::filter::{Matcher, start_of_day};
use super::merge::{Lines, RawLine, merge};
use super::*;
use crate::model::manifest::LogSettings;

fn at(seconds: i64) -> DateTime<Utc> {
    Utc.timestamp_opt(seconds, 0).unwrap()
}

#[test]
fn a_line_is_shown_as_one_line_that_a_terminal_does_not_obey() {
    assert_eq!(display_safe(b"\x1b[1;31mred\x1b[0m\talert \xff"), "red\talert \u{fffd}");
}

#[test]
fn trouble_is_found_by_words() {
    let trouble = [
        "2026-01-02 ERROR cannot connect",
        "level=error msg=x",
        "thread 'main' panicked at src/main.rs:1",
        "goroutine: panic: nil",
        "Traceback (most recent call last):",
        "ValueError: x",
        "java.lang.NullPointerException",
        "FATAL:  password authentication failed for user",
        "Out of memory: Killed process 12",
        "[ERR] timeout",
        "3 errors",
        "Segmentation fault (core dumped)",
    ];
    let calm = [
        "GET / 200",
        "mirror is up",
        "err := nil",
        "terrors of the deep",
        "skilled worker",
        "failover ready",
        "expanic",
    ];
    let matcher = Matcher::new(true, None).unwrap();
    for line in trouble {
        assert!(matcher.matches(line), "{line}");
    }
    for line in calm {
        assert!(!matcher.matches(line), "{line}");
    }
}

#[test]
fn patterns_are_regular_expressions() {
    let matches = |pattern, text| Matcher::new(false, Some(pattern)).unwrap().matches(text);
    assert!(matches("order [0-9]+", "took order 17"));
    assert!(!matches("Order", "order"));
    assert!(matches("(?i)Order", "order"));
    assert!(!Matcher::new(true, Some("db")).unwrap().matches("db is up"));
    assert!(Matcher::new(true, Some("db")).unwrap().matches("db error"));
    assert!(Matcher::new(false, None).unwrap().is_open() && Matcher::default().matches(""));
    let error = Matcher::new(false, Some("f(")).unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::Usage);
    assert!(error.to_string().contains("`f(`"), "{error}");
}

#[test]
fn a_day_begins_in_its_own_zone() {
    let now =
        FixedOffset::east_opt(3_600).unwrap().with_ymd_and_hms(2026, 1, 12, 0, 30, 0).unwrap();
    assert_eq!(start_of_day(&now), "2026-01-11T23:00:00Z".parse::<DateTime<Utc>>().unwrap());
}

fn log(origin: &'static str, times: &[i64]) -> Lines {
    let lines: Vec<_> = times
        .iter()
        .map(|time| Ok(RawLine { origin: origin.into(), time: at(*time), bytes: Vec::new() }))
        .collect();
    Box::pin(stream::iter(lines))
}

#[tokio::test]
async fn logs_are_merged_by_time_and_a_broken_one_stops_no_other() {
    let broken: Lines = Box::pin(stream::iter(vec![
        Ok(RawLine { origin: "b".into(), time: at(2), bytes: Vec::new() }),
        Err(anyhow::anyhow!("gone")),
    ]));
    let merged: Vec<_> =
        merge(vec![log("a", &[1, 4, 5]), broken, log("c", &[]), log("d", &[3])]).collect().await;
    let seen: Vec<_> = merged
        .iter()
        .map(|(index, line)| (*index, line.as_ref().ok().map(|line| line.time.timestamp())))
        .collect();
    assert_eq!(
        seen,
        [(0, Some(1)), (1, Some(2)), (1, None), (3, Some(3)), (0, Some(4)), (0, Some(5))]
    );
}

#[test]
fn a_file_is_read_in_runs_that_are_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dkv-2026-01-02.log");
    let text = "2026-01-02T00:00:01Z web 111111111111 | one\n2026-01-02T00:00:03Z db 222222222222 \
        | three | four\n\
                not ours\n2026-01-02T00:00:02.5Z web 333333333333 | two\n2026-01-02T00:00:04Z web \
                333333333333 | \n";
    std::fs::write(&path, text).unwrap();
    let read = |path: &std::path::Path| -> Vec<Vec<String>> {
        let runs = runs_of(path).unwrap();
        let text = |saved: std::io::Result<super::archive::SavedLine>| {
            let saved = saved.unwrap();
            format!(
                "{} {} {}",
                saved.line.origin,
                saved.container,
                String::from_utf8(saved.line.bytes).unwrap()
            )
        };
        runs.into_iter().map(|run| run.lines().map(text).collect()).collect()
    };
    let expected = [
        vec!["web 111111111111 one".to_owned(), "db 222222222222 three | four".to_owned()],
        vec!["web 333333333333 two".to_owned(), "web 333333333333 ".to_owned()],
    ];
    assert_eq!(read(&path), expected);

    // Compressed it says the same, also when more is added to what was compressed before.
    compress_file(&path).unwrap();
    assert!(!path.exists());
    let compressed = directory.path().join("dkv-2026-01-02.log.zst");
    assert_eq!(read(&compressed), expected);
    std::fs::write(&path, "2026-01-02T00:00:05Z web 333333333333 | five\n").unwrap();
    compress_file(&path).unwrap();
    assert_eq!(read(&compressed)[1][2], "web 333333333333 five");
}

#[test]
fn old_files_are_compressed_and_removed_and_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let now = Utc.with_ymd_and_hms(2026, 1, 12, 12, 0, 0).unwrap();
    let names = [
        "dkv-2026-01-12.log",
        "dkv-2026-01-09.log",
        "dkv-2026-01-08.log",
        "dkv-2026-01-05.log",
        "dkv-2026-01-04.log",
        "dkv-2026-01-01.log.zst",
    ];
    let others = [
        "app.log",
        "2020-01-01.log",
        "2020-01-01.log.zst",
        "dkv-2020-01-01.txt",
        "dkv-2020-1-1.log",
    ];
    for name in names.iter().chain(&others) {
        std::fs::write(directory.path().join(name), "x").unwrap();
    }
    std::fs::create_dir(directory.path().join("dkv-2020-01-02.log")).unwrap();
    Archive::new(directory.path().to_owned(), LogSettings::default()).tidy(&now).unwrap();
    let mut left: Vec<String> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    let mut expected = [
        "dkv-2026-01-12.log",
        "dkv-2026-01-09.log",
        "dkv-2026-01-08.log.zst",
        "dkv-2026-01-05.log.zst",
        "dkv-2020-01-02.log",
    ]
    .to_vec();
    expected.extend(others);
    expected.sort_unstable();
    assert_eq!(left, expected);
}

#[test]
fn an_archive_without_a_directory_is_empty() {
    let archive = Archive::new("/no/such/directory".into(), LogSettings::default());
    assert!(archive.runs(at(0), None).unwrap().is_empty());
    archive.tidy(&Utc::now()).unwrap();
}
