//! Tables of real tags, and what holds of any.

use proptest::prelude::*;

use super::choosing::matches_pattern;
use super::*;

fn tags(text: &str) -> Vec<Tag> {
    text.split_whitespace().map(|tag| tag.parse().unwrap()).collect()
}

fn texts(tags: &[Tag]) -> String {
    tags.iter().map(Tag::as_str).collect::<Vec<_>>().join(" ")
}

/// Each line ascends.
const ASCENDING: [&str; 22] = [
    "0.9 1 1.1 1.2 1.9 1.10 1.42 1.100 2 2.0.1 10",
    "1.42 1.42.0 1.42.0.0 1.42.0.1 1.42.3 1.42.3.1 1.42.3.10 1.43",
    "v1.2 1.2 v1.3 1.3",
    "V1.2 release-1.2 v1.2 1.2",
    "1.0-dev 1.0-alpha 1.0-alpha.1 1.0-beta 1.0-beta2 1.0-beta.11 1.0-rc 1.0-rc.1 1.0-rc2 \
        1.0-rc10 1.0",
    "1.0a1 1.0b1 1.0b2 1.0rc1 1.0 1.0p1",
    "1.0-SNAPSHOT 1.0-M1 1.0-M2 1.0-RC1 1.0",
    "1.35 1.35-1 1.35-2 1.35-10 1.35-hotfix-customer9 1.35-hotfix-customer123 1.36",
    "1.35-rc1 1.35 1.35-hotfix 1.35-hotfix2 1.35-p1 1.35-p2 1.35-patch 1.35.1",
    "1.1.1a1 1.1.1 1.1.1w 1.1.2",
    "1.27.3-rc1-alpine 1.27.3 1.27.3-alpine 1.27.3-alpine3.9 1.27.3-alpine3.20 1.27.4",
    "2025.12.31 2026.1.2 2026.01.12 2026.1.13 2026.02.01",
    "2025-12-31 2026-01 2026-01-02 2026-01-12 2026-01-12-1 2026-02",
    "20251231 20260112 20260112.1 20260112.2 20260113",
    "RELEASE.2025-12-31T23-59-59Z RELEASE.2026-01-12T00-00-00Z RELEASE.2026-01-12T10-00-00Z",
    "7 99999999999999999999998 99999999999999999999999 100000000000000000000000",
    "1.42.0-rc1 1.42 1.42.0 1.42.1-rc1 1.42.1",
    "31-12-2025 01-01-2026 25-11-2026 2026-11-26",
    "31.12.2025 01.02.2026 25.11.2026",
    "20251231 20260112T093000Z 20260112T100000Z 20260113",
    "2026.1.0.dev0 2026.1.0a1 2026.1.0b0 2026.1.0b3 2026.1.0rc1 2026.1.0 2026.1.1",
    "b99 b100 b4567",
];

#[test]
fn versions_ascend() {
    for line in ASCENDING {
        let versions: Vec<Version> = line
            .split_whitespace()
            .map(|text| Version::parse(text).unwrap_or_else(|| panic!("{text}")))
            .collect();
        for (low, a) in versions.iter().enumerate() {
            for (high, b) in versions.iter().enumerate() {
                assert_eq!(a.cmp(b), low.cmp(&high), "{} and {} in {line}", a.text, b.text);
            }
        }
    }
}

#[test]
fn words_hashes_and_signatures_are_no_versions() {
    let hash = "b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c";
    let long_number = "1".repeat(40);
    for text in [
        "latest",
        "main",
        "stable",
        "edge",
        "nightly",
        "dev",
        "alpine",
        "pr-12",
        "v",
        "vault",
        "release",
        "version-x",
        "_1",
        "1.x",
        "1.42.x",
        "22-latest",
        "abc1234",
        "1a2b3c4",
        "1e10000",
        "1234567890abcdef1234567890abcdef12345678",
        "123e4567-e89b-12d3-a456-426614174000",
        "1a2b3c4-dirty",
        "sha-1a2b3c4",
        "sha256-1a2b3c4.sig",
        "sha256-1a2b3c4.att",
        "dkv-1a2b3c4d-0123456789ab",
        "customer-1.2",
        hash,
        &long_number,
    ] {
        assert_eq!(Version::parse(text), None, "{text}");
    }
    for text in [
        "1",
        "v1",
        "1234567",
        "20260112",
        "1.2-abc1234",
        "1.42-5-g1a2b3c4",
        "3.14-ubi9-minimal",
        "8u352-b08",
    ] {
        assert!(Version::parse(text).is_some(), "{text}");
    }
}

/// Tags of the repository, tracked tag, pattern; the candidates in order.
const CANDIDATES: [(&str, &str, Option<&str>, &str); 57] = [
    // The tracked tag and words never count.
    ("latest", "latest", None, ""),
    ("latest main edge", "latest", None, ""),
    ("latest 1.64 1.63 main", "latest", None, "1.64 1.63"),
    ("1.9 1.10 1.8", "latest", None, "1.10 1.9 1.8"),
    ("1.35 main 1.34", "latest", None, "1.35 1.34"),
    ("1.2 1.2 1.1 1.2", "latest", None, "1.2 1.1"),
    ("sha256-1a2b3c4.sig 1.2 abc1234 dkv-1234567-0123 pr-12", "latest", None, "1.2"),
    // The most exact name first.
    ("1 1.42 1.42.3", "latest", None, "1.42.3 1.42 1"),
    ("1.42.3.1 1.42.3 1.42", "latest", None, "1.42.3.1 1.42.3 1.42"),
    ("1.42 1.42.0", "latest", None, "1.42.0 1.42"),
    ("2 1.42.3 1.42 1", "latest", None, "1.42.3 1.42 2 1"),
    ("2.0 1.42.3 1", "latest", None, "2.0 1.42.3 1"),
    ("v1 v1.2 v1.2.3 1.2", "latest", None, "v1.2.3 1.2 v1.2 v1"),
    ("v1.2 1.2", "latest", None, "1.2 v1.2"),
    ("v1.2.0 1.2", "latest", None, "v1.2.0 1.2"),
    // Pre-releases, revisions and what is made for a customer.
    ("1.43 1.43-rc1 1.43-rc2 1.42", "latest", None, "1.43 1.43-rc2 1.43-rc1 1.42"),
    ("1.43-rc1 1.42", "latest", None, "1.43-rc1 1.42"),
    ("1.43 1.43.0-rc1", "latest", None, "1.43 1.43.0-rc1"),
    ("1.35 1.35-hotfix-customer123 1.34", "latest", None, "1.35 1.35-hotfix-customer123 1.34"),
    ("1.35 1.35-1 1.35-2", "latest", None, "1.35-2 1.35-1 1.35"),
    ("1.35 1.35-p1 1.35-patch 1.35-patch2", "latest", None, "1.35-patch2 1.35-p1 1.35 1.35-patch"),
    ("1.35 1.35-abc1234", "latest", None, "1.35 1.35-abc1234"),
    ("1.35 1.35-5-gabc1234", "latest", None, "1.35 1.35-5-gabc1234"),
    // Single numbers, then dates and calendar versions.
    ("1.2 4711 4712", "latest", None, "1.2 4712 4711"),
    ("999 1000 1001", "latest", None, "1001 1000 999"),
    ("1.2 build-99 build-100", "latest", None, "1.2 build-100 build-99"),
    ("20260112 1.64", "latest", None, "1.64 20260112"),
    ("20260112 1", "latest", None, "1 20260112"),
    ("2026-01-12 1.64 2026.01.12", "latest", None, "1.64 2026.01.12 2026-01-12"),
    ("20260112 20260113 latest", "latest", None, "20260113 20260112"),
    ("2026 2026.1 2026.1.12 2025.12", "latest", None, "2026.1.12 2026.1 2026 2025.12"),
    ("1989 2050 2049", "latest", None, "2050 2049 1989"),
    ("2026.13 2026.12", "latest", None, "2026.13 2026.12"),
    (
        "RELEASE.2026-01-12T00-00-00Z RELEASE.2025-12-31T00-00-00Z",
        "latest",
        None,
        "RELEASE.2026-01-12T00-00-00Z RELEASE.2025-12-31T00-00-00Z",
    ),
    // Variants: preferred without one, within the one that is asked for.
    (
        "1.27.3-alpine 1.27.2 1.27.3-alpine-slim",
        "latest",
        None,
        "1.27.2 1.27.3-alpine 1.27.3-alpine-slim",
    ),
    ("1.27.3-alpine 1.27.3", "stable", None, "1.27.3 1.27.3-alpine"),
    ("1.27.3-alpine 1.27.3 1.27-alpine alpine", "alpine", None, "1.27.3-alpine 1.27-alpine"),
    (
        "1.27.3-alpine 1.27.3-alpine3.20 1.27.2-alpine",
        "alpine",
        None,
        "1.27.3-alpine 1.27.2-alpine 1.27.3-alpine3.20",
    ),
    ("1.27.3-alpine3.20 1.27.3-alpine 1.27.3-bookworm", "alpine3.20", None, "1.27.3-alpine3.20"),
    ("1.27.3-alpine 1.27.3", "stable-alpine", None, "1.27.3-alpine"),
    ("1.27.0-rc1-alpine 1.26.0-alpine 1.26.0", "alpine", None, "1.27.0-rc1-alpine 1.26.0-alpine"),
    (
        "1-bookworm 1.27-bookworm 1.27.3-bookworm 2.0-bookworm 1.27.3",
        "1-bookworm",
        None,
        "1.27.3-bookworm 1.27-bookworm",
    ),
    (
        "1.2.3-alpine3.20 1.2.4-alpine3.19 1.2.4 1.2-alpine3.20",
        "1.2-alpine3.20",
        None,
        "1.2.3-alpine3.20",
    ),
    ("16.0.0-ee.0 15.9.2-ee.0", "latest", None, "16.0.0-ee.0 15.9.2-ee.0"),
    ("1.42 1.42-amd64 1.42-arm64", "latest", None, "1.42 1.42-arm64 1.42-amd64"),
    ("1.42 1.42-x86_64 1.42-arm64v8", "latest", None, "1.42 1.42-x86_64 1.42-arm64v8"),
    (
        "1.42.3-debian-12-r5 1.42.3-debian-12-r10 1.42.3",
        "latest",
        None,
        "1.42.3 1.42.3-debian-12-r10 1.42.3-debian-12-r5",
    ),
    // A word that is nobody's variant is a channel.
    ("1.42 1.41 production", "production", None, "1.42 1.41"),
    ("1.43-beta1 1.42 beta", "beta", None, "1.43-beta1 1.42"),
    // A tracked line.
    ("1.42 1.42.3 1.42.2 1.43.0 1.4 1.420.1", "1.42", None, "1.42.3 1.42.2"),
    ("1.42.3 v1.42.4 v1.42", "1.42", None, "v1.42.4 1.42.3"),
    ("1.20.3 1.20.4 1.21 1.20.3-1", "1.20.3", None, "1.20.3-1"),
    ("1.20.3 1.20.4", "1.20.3", None, ""),
    // A pattern decides alone.
    ("1.64 1.64.1 20260112 latest", "latest", Some("2026*"), "20260112"),
    ("sha-abc1234 sha-def5678 1.64", "latest", Some("sha-*"), "sha-def5678 sha-abc1234"),
    ("job-9 job-10 latest", "latest", Some("*"), "job-10 job-9"),
    (
        "app-1.9 app-1.10 app-1.10-rc1 web-2",
        "latest",
        Some("app-?.*"),
        "app-1.10 app-1.10-rc1 app-1.9",
    ),
];

#[test]
fn candidates_stand_in_the_order_of_preference() {
    for (all, tracked, pattern, expected) in CANDIDATES {
        let tracked: Tag = tracked.parse().unwrap();
        let mut all = tags(all);
        assert_eq!(
            texts(&candidates(&all, &tracked, pattern)),
            expected,
            "{} for {tracked}",
            texts(&all)
        );
        all.reverse();
        assert_eq!(
            texts(&candidates(&all, &tracked, pattern)),
            expected,
            "{} for {tracked}, reversed",
            texts(&all)
        );
    }
}

#[test]
fn the_most_specific_name_of_a_digest_is_its_version() {
    for (names, tracked, expected) in [
        ("latest 1 1.42 1.42.3", "latest", Some("1.42.3")),
        ("latest 1.42 v1.42", "latest", Some("1.42")),
        ("latest 20260112 1.42", "latest", Some("1.42")),
        ("latest 20260112 abc1234", "latest", Some("20260112")),
        ("latest abc1234 main", "latest", None),
        ("latest", "latest", None),
        ("1.20.3 1.20 1 latest", "1.20.3", None),
        ("1.20.3 1.20 1 latest", "1.20", Some("1.20.3")),
        ("1.35-hotfix-customer123 latest", "latest", Some("1.35-hotfix-customer123")),
    ] {
        let chosen = choose(&tags(names), &tracked.parse().unwrap(), None);
        assert_eq!(chosen.as_ref().map(Tag::as_str), expected, "{names}");
    }
}

#[test]
fn the_newest_version_is_a_release_of_the_same_variant() {
    for (all, tracked, pattern, expected) in [
        ("latest 1.42 1.43 1.44-rc1", "latest", None, Some("1.43")),
        ("latest 1.43 1.43-hotfix-customer123", "latest", None, Some("1.43")),
        ("latest 1.43 1.43-2", "latest", None, Some("1.43-2")),
        ("latest 1.44-rc1", "latest", None, Some("1.44-rc1")),
        ("beta 1.43 1.44-beta1", "beta", None, Some("1.44-beta1")),
        ("1.42 1.42.1 1.43.0", "1.42", None, Some("1.43.0")),
        ("1.20.3 1.20.2", "1.20.3", None, Some("1.20.3")),
        ("alpine 1.42-alpine 1.43", "alpine", None, Some("1.42-alpine")),
        ("latest 1.43 20260112", "latest", None, Some("1.43")),
        ("latest 1.43 20260112", "latest", Some("20*"), Some("20260112")),
        ("latest main", "latest", None, None),
    ] {
        let found = newest(&tags(all), &tracked.parse().unwrap(), pattern, None);
        assert_eq!(found.as_ref().map(Tag::as_str), expected, "{all} for {tracked}");
    }
    let all = tags("stable 2026.1.2 2026.1.1 2026.2.0b1 0.118.5");
    for (current, expected) in
        [("2026.1.1", "2026.1.2"), ("0.118.5", "0.118.5"), ("gone", "0.118.5")]
    {
        let found = newest(&all, &"stable".parse().unwrap(), None, Some(&current.parse().unwrap()));
        assert_eq!(found.as_ref().map(Tag::as_str), Some(expected), "{current}");
    }
}

#[test]
fn what_is_likely_has_its_turn_in_long_lists() {
    let old = (0..100).map(|n| format!("0.{n}.0"));
    let calendar = (1..100).map(|n| format!("2026.1.{n}"));
    let nightly = (0..500).map(|n| format!("2026.2.0.dev{n}"));
    let builds = (0..500).map(|n| format!("0.100.0-rc{n}"));
    let all: Vec<Tag> = old
        .chain(calendar)
        .chain(nightly)
        .chain(builds)
        .map(|text| text.parse().unwrap())
        .collect();
    let order = candidates(&all, &"latest".parse().unwrap(), None);
    let place = |tag: &str| order.iter().position(|candidate| candidate.as_str() == tag).unwrap();
    assert_eq!(order.len(), all.len());
    assert_eq!((place("0.100.0-rc499"), place("0.99.0"), place("0.60.0")), (0, 10, 49));
    assert_eq!((place("2026.1.99"), place("2026.1.1")), (50, 148));
    assert!(place("0.59.0") > place("2026.1.1") && place("2026.2.0.dev1") > place("2026.1.1"));
}

#[test]
fn patterns_match_whole_tags() {
    for (pattern, text, expected) in [
        ("*", "", true),
        ("*", "1.2", true),
        ("1.?", "1.2", true),
        ("1.?", "1.22", false),
        ("1.*", "1.", true),
        ("*-alpine", "1.2-alpine", true),
        ("*-alpine", "1.2-alpine3", false),
        ("*a*b*", "xaxxb", true),
        ("*ab", "aab", true),
        ("a", "A", false),
        ("", "1", false),
        ("?", "", false),
    ] {
        assert_eq!(matches_pattern(pattern, text), expected, "{pattern} {text}");
    }
}

/// Tags made of the pieces that versions are made of, and any tag at all.
fn any_tag() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("1"),
        Just("01"),
        Just("0"),
        Just("42"),
        Just("2026"),
        Just("12"),
        Just("20260112"),
        Just("rc"),
        Just("hotfix"),
        Just("p"),
        Just("b"),
        Just("alpine"),
        Just("abc1234"),
        Just("99999999999999999999999"),
        Just("x"),
        Just("T")
    ];
    let separator = prop_oneof![Just(""), Just("."), Just("-"), Just("_"), Just("..")];
    let built = (
        prop_oneof![Just(""), Just("v"), Just("release-")],
        prop::collection::vec((piece, separator), 1..6),
    )
        .prop_map(|(prefix, parts)| {
            parts
                .into_iter()
                .fold(prefix.to_owned(), |text, (piece, separator)| text + piece + separator)
        });
    let any = prop::collection::vec(prop::sample::select(b"abcvx019._-ABZ_".to_vec()), 1..12)
        .prop_map(|bytes| String::from_utf8(bytes).unwrap());
    prop_oneof![built, any].prop_filter("a tag", |text| text.parse::<Tag>().is_ok())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_order_is_total(a in any_tag(), b in any_tag(), c in any_tag()) {
        if let (Some(x), Some(y), Some(z)) = (Version::parse(&a), Version::parse(&b), Version::parse(&c)) {
            prop_assert_eq!(x.cmp(&y), y.cmp(&x).reverse());
            prop_assert_eq!(x.cmp(&y) == Ordering::Equal, a == b);
            if x <= y && y <= z {
                prop_assert!(x <= z);
            }
        }
    }

    #[test]
    fn a_more_exact_name_is_asked_about_first(all in prop::collection::vec(prop::collection::vec(0..3u8, 1..5), 2..20)) {
        let texts: Vec<String> = all.iter().map(|numbers| numbers.iter().map(u8::to_string).collect::<Vec<_>>().join(".")).collect();
        let order = candidates(&tags(&texts.join(" ")), &"latest".parse().unwrap(), None);
        for (place, earlier) in order.iter().enumerate() {
            for later in &order[place + 1..] {
                prop_assert!(!later.as_str().starts_with(&format!("{earlier}.")), "{earlier} \
                    before {later}");
            }
        }
    }

    #[test]
    fn preference_depends_on_nothing_but_the_set(all in prop::collection::vec(any_tag(), 0..12), tracked in any_tag(), pattern in prop::option::of(prop_oneof![Just("*"), Just("1*"), Just("*-*"), Just("v?.*")])) {
        let all = tags(&all.join(" "));
        let tracked: Tag = tracked.parse().unwrap();
        let order = candidates(&all, &tracked, pattern);
        let mut shuffled = all.clone();
        shuffled.sort();
        prop_assert_eq!(&order, &candidates(&shuffled, &tracked, pattern));
        prop_assert!(!order.contains(&tracked));
        // Without the first, the others keep their order: the choice among some names agrees
        // with it.
        if pattern.is_some() && let Some((first, others)) = order.split_first() {
            prop_assert_eq!(choose(&order, &tracked, pattern), Some(first.clone()));
            prop_assert_eq!(candidates(others, &tracked, pattern), others);
        }
        let _ = newest(&all, &tracked, pattern, order.first());
    }
}

#[test]
fn older_is_said_only_of_what_compares() {
    let is_older =
        |new: &str, old: &str| super::is_older(&new.parse().unwrap(), &old.parse().unwrap());
    for (new, old) in [
        ("1.41", "1.42"),
        ("1.42-rc1", "1.42"),
        ("v1.9", "1.10"),
        ("1.42", "1.42-hotfix1"),
        ("2026.01", "2026.02"),
    ] {
        assert!(is_older(new, old) && !is_older(old, new), "{new} {old}");
    }
    for (new, old) in [
        ("1.42", "1.42.0"),
        ("v1.42", "1.42"),
        ("1.42-alpine", "1.42"),
        ("1.42", "2026.01.12"),
        ("latest", "1.42"),
        ("1", "main"),
    ] {
        assert!(!is_older(new, old) && !is_older(old, new), "{new} {old}");
    }
}

/// A list as it is found, what is followed, what runs; what is asked about first, and the newest.
type Found = (&'static str, &'static str, Option<&'static str>, &'static str, Option<&'static str>);

const FOUND: [Found; 24] = [
    // Architectures and channels in front.
    (
        "latest develop nightly amd64-latest arm64v8-latest 4.0.16.2944-ls299 4.0.15.2941-ls298 \
            amd64-4.0.16.2944-ls299 amd64-4.0.15.2941-ls298 arm64v8-4.0.16.2944-ls299 \
            develop-4.0.17.2950-ls12 develop-4.0.17.2947-ls11 version-4.0.16.2944 5.14 2021.11.19",
        "amd64-latest",
        None,
        "amd64-4.0.16.2944-ls299",
        Some("amd64-4.0.16.2944-ls299"),
    ),
    (
        "latest develop 4.0.16.2944-ls299 5.14 develop-4.0.17.2950-ls12 develop-4.0.17.2947-ls11 \
            develop-version-4.0.17.2950",
        "develop",
        Some("develop-4.0.17.2947-ls11"),
        "develop-4.0.17.2950-ls12",
        Some("develop-4.0.17.2950-ls12"),
    ),
    (
        "latest 4.0.16.2944-ls299 4.0.15.2941-ls298 4.0.14.2939-ls297 5.14 5.13 \
            develop-4.0.17.2950-ls12",
        "latest",
        Some("4.0.15.2941-ls298"),
        "5.14",
        Some("4.0.16.2944-ls299"),
    ),
    (
        "latest 4.0.16.2944-ls299 4.0.15.2941-ls298 4.0.14.2939-ls297 5.14 5.13",
        "latest",
        None,
        "5.14",
        Some("4.0.16.2944-ls299"),
    ),
    (
        "amd64-4.0.16.2944-ls299 amd64-4.0.16.2944-ls300 4.0.17.1-ls1 amd64-4.0.17.2950-ls1",
        "amd64-4.0.16.2944",
        None,
        "amd64-4.0.16.2944-ls300",
        Some("amd64-4.0.17.2950-ls1"),
    ),
    (
        "server full server-cuda b4567 server-b4567 server-b4568 server-cuda-b4560",
        "server",
        None,
        "server-b4568",
        Some("server-b4568"),
    ),
    (
        "server server-cuda server-b4567 server-cuda-b4560 server-cuda-b4561",
        "server-cuda",
        None,
        "server-cuda-b4561",
        Some("server-cuda-b4561"),
    ),
    ("latest b4566 b4567 full-b4567", "latest", None, "b4567", Some("b4567")),
    (
        "pg14-v0.2.0 pg14-v0.3.0 pg16-v0.3.0 pg16-v0.4.0",
        "pg14-v0.2.0",
        None,
        "",
        Some("pg14-v0.3.0"),
    ),
    (
        "pg16 pg17 pg16-v0.3.0 pg16-v0.4.0 pg17-v0.5.0",
        "pg16",
        None,
        "pg16-v0.4.0",
        Some("pg16-v0.4.0"),
    ),
    (
        "nightly nightly-20260112 nightly-20260113 1.42",
        "nightly",
        None,
        "nightly-20260113",
        Some("nightly-20260113"),
    ),
    ("main main-1a2b3c4 main-2b3c4d5 1.42", "main", None, "1.42", Some("1.42")),
    ("stable stable-1.2 stable-1.3", "stable", None, "stable-1.3", Some("stable-1.3")),
    ("stable stable-1.2 1.3", "stable", None, "1.3", Some("1.3")),
    ("pr-12 pr-13 pr", "pr", None, "pr-13", Some("pr-13")),
    // A suffix stays a suffix.
    ("alpine alpine-3.20 1.27-alpine 1.28", "alpine", None, "1.27-alpine", Some("1.27-alpine")),
    ("latest-amd64 1.42-amd64 amd64-1.43", "latest-amd64", None, "1.42-amd64", Some("1.42-amd64")),
    // Days.
    ("latest 24-11-2026 25-11-2026 01-12-2025", "latest", None, "25-11-2026", Some("25-11-2026")),
    ("latest 24.11.2026 25.11.2026 01.12.2025", "latest", None, "25.11.2026", Some("25.11.2026")),
    (
        "latest RELEASE.2026-01-01T00-00-00Z RELEASE.2026-01-02T10-00-00Z \
            RELEASE.2026-01-02T10-00-00Z-cpuv1 RELEASE.2026-01-03T00-00-00Z-cpuv1 edge",
        "latest",
        Some("RELEASE.2026-01-01T00-00-00Z"),
        "RELEASE.2026-01-02T10-00-00Z",
        Some("RELEASE.2026-01-02T10-00-00Z"),
    ),
    (
        "stable beta dev 2026.1.3 2026.1.2 2026.2.0b1 2026.2.0.dev202601120210 0.118.5",
        "stable",
        Some("2026.1.2"),
        "0.118.5",
        Some("2026.1.3"),
    ),
    (
        "22 22.5 22.5.1 23 23.1.0 23.1.0-alpine 22-alpine",
        "22",
        Some("22.5.1"),
        "22.5.1",
        Some("23.1.0"),
    ),
    ("16 16.4 17.0 17 16.4-alpine 17beta1 18beta1", "16.4", Some("16.4"), "", Some("17.0")),
    ("latest 4711 4712 1.2", "latest", Some("4711"), "1.2", Some("4712")),
];

#[test]
fn lists_as_they_are_found_are_understood() {
    for (all, tracked, current, first, newest_of_all) in FOUND {
        let tracked: Tag = tracked.parse().unwrap();
        let current: Option<Tag> = current.map(|tag| tag.parse().unwrap());
        let order = candidates(&tags(all), &tracked, None);
        let found = order.first().map_or("", Tag::as_str);
        assert_eq!(found, first, "{all} for {tracked}");
        let found = newest(&tags(all), &tracked, None, current.as_ref());
        assert_eq!(found.as_ref().map(Tag::as_str), newest_of_all, "{all} for {tracked}");
    }
}

#[test]
fn of_two_schemes_nothing_is_older() {
    let is_older =
        |new: &str, old: &str| super::is_older(&new.parse().unwrap(), &old.parse().unwrap());
    for (new, old) in [
        ("amd64-4.0.15.2941-ls298", "amd64-4.0.16.2944-ls299"),
        ("develop-4.0.17.2947", "develop-4.0.17.2950"),
        ("24-11-2026", "25-11-2026"),
        ("31-12-2025", "01-01-2026"),
        ("31.12.2025", "01.01.2026"),
        ("20260111", "2026-01-12"),
        ("20260112", "20260112.1"),
        ("RELEASE.2026-01-01T00-00-00Z", "RELEASE.2026-01-02T00-00-00Z"),
        ("2026.1.0.dev0", "2026.1.0b1"),
        ("1.42-5-gabc1234", "1.42-6-g1234abc"),
        ("1.41-alpine", "1.42-bookworm"),
        ("4711", "4712"),
        ("1.9", "1.10.1"),
    ] {
        assert!(is_older(new, old) && !is_older(old, new), "{new} {old}");
    }
    for (new, old) in [
        ("5.14", "4.0.16.2944-ls299"),
        ("amd64-4.0.15", "arm64v8-4.0.16"),
        ("4.0.15", "amd64-4.0.16"),
        ("develop-4.0.15", "4.0.16"),
        ("20260112-1a2b3c4", "20260112-f1a2b3c"),
        ("1.2-1a2b3c4", "1.2-f1a2b3c"),
        ("1.2-1a2b3c4", "1.2"),
        ("20260112", "2026.1.13"),
        ("01-25-2026", "02-02-2026"),
        ("4711", "1.2"),
        ("1.35-hotfix-a", "1.35-hotfix-b"),
        ("1.35-1", "1.35-hotfix"),
        ("pr-12", "pr-13"),
        ("customer-latest", "customer-1.2"),
    ] {
        assert!(!is_older(new, old) && !is_older(old, new), "{new} {old}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_compares_compares_one_way(a in any_tag(), b in any_tag(), c in any_tag()) {
        if let (Some(x), Some(y), Some(z)) = (Version::parse(&a), Version::parse(&b), Version::parse(&c)) {
            prop_assert_eq!(x.compare(&y), y.compare(&x).map(Ordering::reverse));
            if x.compare(&y) == Some(Ordering::Less) && y.compare(&z) == Some(Ordering::Less) {
                prop_assert!(matches!(x.compare(&z), None | Some(Ordering::Less)), "{a} {b} {c}");
            }
        }
    }
}
