//! Images of every kind judged and rewritten, and random documents pinned and unpinned.

use super::*;
use proptest::prelude::*;

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// `web` is tracked at 1.64, `stable` and `latest` move; `built` is local; `new` has no digest.
fn ask(_: &str, reference: &Reference) -> Answer {
    let known = |digest| {
        let keeps_tag =
            reference.tag.as_ref().is_some_and(|tag| matches!(tag.as_str(), "latest" | "stable"));
        Answer::Known(Known { tag: "1.64".parse().unwrap(), digest, keeps_tag })
    };
    match reference.repository.base_name() {
        "web" => known(digest("new")),
        "new" => Answer::Unrecorded("`dkv pull-latest new`".to_owned()),
        "unseen" => Answer::Unseen("nobody answers".to_owned()),
        "built" => Answer::Local,
        _ => Answer::Untracked,
    }
}

fn only(text: &str) -> Arc<Site> {
    let mut all = ComposeText::from_source(text).sites;
    assert_eq!(all.len(), 1, "{text}");
    all.remove(0)
}

/// The variables that have values beside `versions.env`.
fn lookup(name: &str) -> Option<String> {
    match name {
        "MOVING" => Some("stable".to_owned()),
        "OLD" => Some("1.63".to_owned()),
        "WHOLE" => Some("r.example/web:1.64".to_owned()),
        "PINNED" => Some(format!("r.example/web:1.64@{}", digest("old"))),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn judge_pin(site: &Site) -> Verdict {
    judge(site, &site.compose_services, &lookup, ask)
}

fn judge_back(site: &Site) -> Verdict {
    judge_unpin(site, None, false, |_| "1.64".parse().ok())
}

fn judged(image: &str) -> Verdict {
    judge_pin(&only(&format!("services:\n  a:\n    image: {image}\n")))
}

#[test]
fn every_kind_of_image_is_judged() {
    let (old, new) = (digest("old"), digest("new"));
    let loose = |tail: &str| Verdict::Loose(format!("r.example/web{tail}"));
    let stale = |tail: &str| Verdict::Stale(format!("r.example/web{tail}"));
    for (image, expected) in [
        ("r.example/web:1.64".to_owned(), loose(&format!(":1.64@{new}"))),
        ("r.example/web:latest".to_owned(), loose(&format!(":latest@{new}"))),
        ("r.example/web:1.63".to_owned(), loose(&format!(":1.64@{new}"))),
        ("r.example/web".to_owned(), loose(&format!(":1.64@{new}"))),
        (format!("r.example/web@{old}"), stale(&format!("@{new}"))),
        (format!("r.example/web:1.63@{old}"), stale(&format!(":1.64@{new}"))),
        (format!("r.example/web:stable@{old}"), stale(&format!(":stable@{new}"))),
        (format!("r.example/web:1.63@{new}"), Verdict::Current),
        (format!("r.example/web@{new}"), Verdict::Current),
        // What stands behind the `@` is no digest, and is replaced by one.
        (format!("r.example/web:1.64@sha256:{old}"), stale(&format!(":1.64@{new}"))),
        (format!("nginx:1@sha256:{old}"), Verdict::Invalid),
        // With variables the digest goes behind them; the line keeps what is written.
        (
            "r.example/web:${MOVING:-latest}".to_owned(),
            loose(&format!(":${{MOVING:-latest}}@{new}")),
        ),
        ("r.example/web:${TAG:-1.64}".to_owned(), loose(&format!(":${{TAG:-1.64}}@{new}"))),
        ("r.example/web:$OLD".to_owned(), loose(&format!(":1.64@{new}"))),
        ("${WHOLE}".to_owned(), Verdict::Loose(format!("${{WHOLE}}@{new}"))),
        (format!("${{WHOLE}}@{old}"), Verdict::Stale(format!("${{WHOLE}}@{new}"))),
        (format!("${{WHOLE}}@{new}"), Verdict::Current),
        ("${PINNED}".to_owned(), stale(&format!(":1.64@{new}"))),
        (format!("${{NO:-r.example/web:1.64@{old}}}"), stale(&format!(":1.64@{new}"))),
        (
            "${EMPTY}r.example/web:stable".to_owned(),
            Verdict::Loose(format!("${{EMPTY}}r.example/web:stable@{new}")),
        ),
        ("r.example/web:${TAG}".to_owned(), Verdict::Unset(vec!["TAG".to_owned()])),
        ("r.example/web:${TAG:?say which}".to_owned(), Verdict::Unset(vec!["TAG".to_owned()])),
        ("$IMAGE".to_owned(), Verdict::Unset(vec!["IMAGE".to_owned()])),
        ("new:1".to_owned(), Verdict::Unrecorded("`dkv pull-latest new`".to_owned())),
        (format!("unseen:1@{old}"), Verdict::Unseen("nobody answers".to_owned())),
        ("built:1".to_owned(), Verdict::Local),
        ("postgres:16-alpine".to_owned(), Verdict::Untracked),
        ("Not An Image".to_owned(), Verdict::Invalid),
    ] {
        assert_eq!(judged(&image), expected, "{image}");
    }
}

#[test]
fn unpinning_goes_back_to_tags() {
    let any = digest("any");
    for (image, expected) in [
        (format!("web:1.3@{any}"), Verdict::Loose("web:1.3".to_owned())),
        (format!("web@{any}"), Verdict::Loose("web:1.64".to_owned())),
        ("web:1.3".to_owned(), Verdict::Current),
        ("web".to_owned(), Verdict::Current),
        (format!("web:${{V:-1}}@{any}"), Verdict::Loose("web:${V:-1}".to_owned())),
    ] {
        let site = only(&format!("services:\n  a:\n    image: {image}\n"));
        assert_eq!(judge_back(&site), expected, "{image}");
    }
}

fn rewritten(text: &str, judge: impl Fn(&Site) -> Verdict) -> String {
    let text = ComposeText::from_source(text);
    let verdicts: Vec<Verdict> = text.sites.iter().map(|site| judge(site)).collect();
    let changes: Vec<(&Site, &str)> = text
        .sites
        .iter()
        .zip(&verdicts)
        .filter_map(|(site, verdict)| Some((site.as_ref(), verdict.wanted()?)))
        .collect();
    rewrite(&text, &changes).unwrap()
}

/// Remembers that `old` became `new`.
fn remember(memory: &mut memory::Memory, old: &str, new: &str) {
    let [old, new] = [old, new].map(ComposeText::from_source);
    let raw =
        |text: &ComposeText, site: &Site| text.document.source()[site.span.clone()].to_owned();
    let lines: Vec<(Arc<Site>, String, String)> = old
        .sites
        .iter()
        .zip(&new.sites)
        .map(|(before, after)| (Arc::clone(before), raw(&old, before), raw(&new, after)))
        .collect();
    let lines = lines.iter().map(|(site, old, new)| (site.as_ref(), old.as_str(), new.as_str()));
    memory.remember("compose.yaml", lines);
}

#[test]
fn what_stood_there_comes_back_whatever_it_was() {
    let old = digest("old");
    let text = format!(
        "services:\n  bare: {{image: web}}\n  digest:\n    image: web@{old} # ours\n  both:\n    \
            image: 'web:1.63@{old}'\n  variable:\n    image: ${{WHOLE}}\n  block:\n    image: >-   # \
            long\n      web:1.64\n  current:\n    image: web:1.64@{}\n  other:\n    image: \
            postgres:16@{old}\n",
        digest("new")
    );
    let pinned = rewritten(&text, judge_pin);
    let mut memory = memory::Memory::default();
    remember(&mut memory, &text, &pinned);
    let memory = memory::Memory::parse(memory.text().as_bytes()).unwrap();
    let back = |text: &str, memory: &memory::Memory| {
        rewritten(text, |site| {
            judge_unpin(site, memory.before("compose.yaml", site), true, |_| None)
        })
    };
    assert_eq!(back(&pinned, &memory), text, "{pinned}");
    // Pinned again, and edited elsewhere meanwhile.
    let next = pinned.replace(digest("new").as_str(), digest("next").as_str());
    let mut again = memory.clone();
    remember(&mut again, &pinned, &next);
    assert_eq!(back(&next, &again).matches("next").count(), 0);
    let edited = format!("# edited\n{}  new: {{image: web:1@{old}}}\n", pinned.replace("'", "\""));
    assert_eq!(
        back(&edited, &memory),
        format!("# edited\n{}  new: {{image: web:1@{old}}}\n", text.replace("'", "\""))
    );
}

#[test]
fn each_document_of_a_file_gets_its_own_text_back() {
    let text = "services:\n  a: {image: web}\n  b: {image: &b 'web:1.64'}\n---\nservices:\n  a: {image: \
        web:1.64}\n  b: {image: *b}\n--- # more\nservices: {a: {image: web:latest}}\n...\n";
    let pinned = rewritten(text, judge_pin);
    assert_eq!(pinned.matches(digest("new").as_str()).count(), 4, "{pinned}");
    let mut memory = memory::Memory::default();
    remember(&mut memory, text, &pinned);
    // A digest that was moved on by hand is known by its place.
    let moved = pinned.replace(digest("new").as_str(), digest("next").as_str());
    for pinned in [pinned, moved] {
        let back = rewritten(&pinned, |site| {
            judge_unpin(site, memory.before("compose.yaml", site), true, |_| None)
        });
        assert_eq!(back, text);
    }
}

#[test]
fn a_file_keeps_everything_but_the_images() {
    let (old, new) = (digest("old"), digest("new"));
    let text = format!(
        "\u{feff}# top: ü\r\nx-bot: &bot\r\n  image: \"web:1.64\"   # shared\r\nx-image: &image \
            'web:latest'\r\nservices:\r\n  \
         elena: {{<<: *bot, restart: 'no'}}\r\n  marcus:\r\n    <<: *bot\r\n  other: {{image: \
         *image}}\r\n  \
         flow: {{image: web@{old}, ports: ['80']}}\r\n  built: {{build: ., image: web:1.64}}\r\n  \
         tagged:\r\n    image: !!str\r\n      web:1.64\r\n  db: {{image: postgres:16}}"
    );
    let expected = text
        .replacen("\"web:1.64\"", &format!("\"web:1.64@{new}\""), 1)
        .replacen("'web:latest'", &format!("'web:latest@{new}'"), 1)
        .replacen(&format!("web@{old}"), &format!("web@{new}"), 1)
        .replacen("  web:1.64\r\n", &format!("  web:1.64@{new}\r\n"), 1);
    assert_eq!(rewritten(&text, judge_pin), expected);
}

#[test]
fn services_that_share_an_image_must_agree() {
    let all = ComposeText::from_source(
        "x: &x {image: 'web:1'}\nservices:\n  a: {<<: *x}\n  b:\n    <<: *x\n    build: null\n",
    )
    .sites;
    assert_eq!(all[0].compose_services, ["a", "b"]);
    let by_name = |name: &str, _: &Reference| {
        Answer::Known(Known { tag: "1".parse().unwrap(), digest: digest(name), keeps_tag: true })
    };
    let names = &all[0].compose_services;
    assert!(matches!(judge(&all[0], names, &|_| None, by_name), Verdict::Refused(_)));
    assert_eq!((all[0].position.line, all[0].position.column), (1, 15));
}

#[test]
fn files_that_name_different_bytes_disagree() {
    let (one, two) = (digest("1"), digest("2"));
    let images = [
        format!("web:1@{one}"),
        format!("docker.io/library/web:1@{two}"),
        format!("web:2@{two}"),
        "web:1".to_owned(),
    ];
    let places =
        images.iter().enumerate().map(|(index, image)| (format!("file{index}"), image.as_str()));
    let found = disagreements(places);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].image, "web:1");
    assert_eq!(found[0].digests.get(&two), Some(&vec!["file1".to_owned()]));
}

/// An image in some quotes, with what may stand around it on its line.
fn image_text() -> impl Strategy<Value = (String, &'static str)> {
    let repository = prop::sample::select(
        &["web", "r.example:5000/a/web", "docker.io/library/web", "postgres", "built", "new"][..],
    );
    let tag = prop::sample::select(&["1.64", "latest", "stable"][..]);
    let quote = prop::sample::select(&["", "'", "\""][..]);
    let whole = prop_oneof![
        6 => (repository, tag).prop_map(|(repository, tag)| format!("{repository}:{tag}")),
        1 => Just("$DK_WEB_IMAGE:$DK_WEB_TAG".to_owned()),
    ];
    (whole, quote)
}

/// A Compose file with anchors, aliases, merges, comments and both line endings. The second value
/// has a hole, `\0`, in place of each image.
fn compose_file() -> impl Strategy<Value = (String, String)> {
    let service =
        (image_text(), 0u8..6, prop::sample::select(&["", " # note", "   "][..]), any::<bool>());
    (prop::collection::vec(service, 1..8), any::<bool>(), any::<bool>(), image_text())
        .prop_map(|(services, crlf, last, shared)| {
            let quoted = |(image, quote): &(String, &str)| {
                (format!("{quote}{image}{quote}"), format!("{quote}\0{quote}"))
            };
            let mut texts =
                [String::from("# Compose\nx-common: &common\n  image: "), String::new()];
            texts[1] = texts[0].clone();
            let shared = quoted(&shared);
            texts[0] += &shared.0;
            // Nobody may use it, and then it is no image at all.
            let is_used = services.iter().any(|(_, shape, ..)| matches!(shape, 2 | 3));
            texts[1] += if is_used { &shared.1 } else { &shared.0 };
            for text in &mut texts {
                *text += "\nservices:\n";
            }
            for (index, (image, shape, comment, extra)) in services.iter().enumerate() {
                let (written, hole) = quoted(image);
                for (text, image) in texts.iter_mut().zip([&written, &hole]) {
                    *text += &match shape {
                        0 => format!("  s{index}:{comment}\n    image: {image}{comment}\n"),
                        1 => format!("  s{index}: {{image: {image}, restart: 'no'}}{comment}\n"),
                        2 => format!("  s{index}:\n    <<: *common\n    labels: [\"a:b\", 'c']\n"),
                        3 => format!("  s{index}: {{<<: *common}}\n"),
                        4 => format!(
                            "  s{index}: &s{index}\n    image: &i{index} {image}{comment}\n\n"
                        ),
                        _ => format!("  ? s{index}\n  : image:\n      {image}\n"),
                    };
                    if *extra {
                        *text += "  # between: services\n";
                    }
                }
            }
            texts.map(|mut text| {
                if !last {
                    text.truncate(text.trim_end().len());
                }
                if crlf { text.replace('\n', "\r\n") } else { text }
            })
        })
        .prop_map(|[text, holes]| (text, holes))
}

proptest! {
    #[test]
    fn pinning_and_unpinning_change_nothing_else((text, holes) in compose_file()) {
        let pinned = rewritten(&text, judge_pin);
        let mut rest = pinned.as_str();
        let mut pieces = holes.split('\0');
        rest = rest.strip_prefix(pieces.next().unwrap()).unwrap();
        for piece in pieces {
            // An image holds no quote and no blank, so it ends where the next piece can begin.
            let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | ',')).unwrap_or(rest.len());
            rest = rest[end..].strip_prefix(piece).unwrap();
        }
        prop_assert_eq!(rest, "");
        prop_assert_eq!(&rewritten(&pinned, judge_pin), &pinned);
        let mut memory = memory::Memory::default();
        remember(&mut memory, &text, &pinned);
        prop_assert_eq!(rewritten(&pinned, |site| {
            judge_unpin(site, memory.before("compose.yaml", site), true, |_| None)
        }), text);
    }
}
