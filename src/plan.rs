//! Manifest and observations to plan: which services, which releases, what each becomes. Pure.
#![deny(clippy::disallowed_methods)]

pub mod migrate;

use std::collections::BTreeSet;

use crate::error::{self, Error, Kind};
use crate::model::env_file::Pin;
use crate::model::history::{Advance, Bytes, Release};
use crate::model::manifest::{Custom, Manifest, Service, Source};
use crate::model::operation::{Moved, What};
use crate::model::reference::{Digest, ServiceName, Tag};
use crate::model::{track, version};

/// When and by whom a change is recorded.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// RFC 3339, UTC.
    pub at: String,
    /// The user's name.
    pub by: String,
}

/// What becomes of one service.
#[derive(Debug, Clone)]
pub struct Step {
    /// The service as it was read.
    pub before: Service,
    /// The service as it will be recorded.
    pub after: Service,
    /// What happens, in a word.
    pub outcome: Outcome,
    /// Releases that fall out of the history; their keep-tags go after the commit.
    pub evicted: Vec<Release>,
    /// What the operator should know beyond "from … to …".
    pub notes: Vec<String>,
}

/// What happens to a service, in the words of `--json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Nothing to record.
    Unchanged,
    /// The same bytes under another tag.
    Relabelled,
    /// Another release, from the registry or the daemon.
    Updated,
    /// The previous release.
    RolledBack,
    /// A release of the history that was asked for by name.
    Moved,
    /// Left alone: held, rejected or local.
    Skipped,
    /// Images are there and verified; nothing is recorded.
    Present,
    /// Fetched, nothing recorded.
    Pulled,
    /// Not done.
    Failed,
}

impl Step {
    /// Whether the manifest has to be written for this step.
    #[must_use]
    pub fn is_change(&self) -> bool {
        self.before != self.after
    }

    /// What to warn about if following the tag leads to a lower version than the one recorded: it
    /// may be the publisher's way back, or somebody else's way in.
    #[must_use]
    pub fn downgrade(&self) -> Option<String> {
        let (old, new) = (&self.before.current()?.tag, &self.after.current()?.tag);
        (self.outcome == Outcome::Updated && version::is_older(new, old)).then(|| {
            format!("`{}` moved back to an older version: {old} → {new}", self.after.track_name())
        })
    }

    /// Whether another image is recorded than before.
    #[must_use]
    pub fn has_other_bytes(&self) -> bool {
        let recorded = |service: &Service| {
            let bytes = service.current().map(|current| current.bytes.clone());
            (service.image.clone(), bytes.as_ref().and_then(Bytes::name).cloned())
        };
        recorded(&self.before) != recorded(&self.after)
    }

    /// Whether images are remembered that were not, or are no more.
    #[must_use]
    pub fn has_other_images(&self) -> bool {
        let remembered = |service: &Service| {
            let entries = service.history.entries().iter();
            entries.filter_map(|entry| entry.bytes.name().cloned()).collect::<BTreeSet<Digest>>()
        };
        self.has_other_bytes() || remembered(&self.before) != remembered(&self.after)
    }

    /// A step that changes nothing.
    #[must_use]
    pub fn unchanged(service: &Service) -> Self {
        Self {
            before: service.clone(),
            after: service.clone(),
            outcome: Outcome::Unchanged,
            evicted: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// Why an advance happens; it decides what becomes of holds and custom versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    /// Following the tracked tag.
    Latest,
    /// A version asked for by name; ends a hold.
    Version,
    /// A version set by hand.
    Custom {
        /// Why it was set.
        reason: Option<String>,
        /// Whether `pull-latest` shall leave the service alone from now on.
        hold: bool,
    },
}

/// A release as the registry or the daemon names it now.
#[derive(Debug, Clone)]
pub struct Found {
    /// The tag that was asked for.
    pub asked: Tag,
    /// The version that names the same bytes, where one is known.
    pub version: Option<Tag>,
    /// The release's bytes; its tag and stamp are filled in by the plan.
    pub bytes: Bytes,
}

/// The services named, or all; each once, in the manifest's order.
///
/// # Errors
///
/// A name that the manifest does not have (exit 2), with the nearest that it has.
pub fn select<'a>(
    manifest: &'a Manifest,
    names: &[ServiceName],
) -> Result<Vec<&'a Service>, Error> {
    if names.is_empty() {
        return Ok(manifest.services.values().collect());
    }
    let mut chosen = std::collections::HashSet::new();
    for name in names {
        chosen.insert(&find(manifest, name)?.name);
    }
    Ok(manifest.services.values().filter(|service| chosen.contains(&service.name)).collect())
}

/// The service called `name`.
///
/// # Errors
///
/// As for [`select`].
pub fn find<'a>(manifest: &'a Manifest, name: &ServiceName) -> Result<&'a Service, Error> {
    if let Some(service) = manifest.find(name) {
        return Ok(service);
    }
    let near = manifest
        .services
        .keys()
        .map(|known| (strsim::damerau_levenshtein(known.as_str(), name.as_str()), known))
        .filter(|(distance, known)| *distance <= (known.as_str().len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance);
    let known: Vec<&str> = manifest.services.keys().map(ServiceName::as_str).collect();
    let hint = match (near, known.is_empty()) {
        (Some((_, known)), _) => format!("did you mean `{known}`?"),
        (None, false) => format!("the manifest has {}", known.join(", ")),
        (None, true) => "the manifest has no services".to_owned(),
    };
    Err(error::usage(format!("unknown service `{name}`")).with_hint(hint))
}

/// Makes `found` the current release of `service`.
#[must_use]
pub fn advance(service: &Service, found: Found, intent: &Intent, stamp: &Stamp) -> Step {
    advance_known(service, service, found, intent, stamp)
}

/// As [`advance`], for a service of which more is `known` than was `read`, such as the digest of a
/// release that only the daemon can tell.
#[must_use]
pub fn advance_known(
    read: &Service,
    known: &Service,
    found: Found,
    intent: &Intent,
    stamp: &Stamp,
) -> Step {
    let mut step = Step { before: read.clone(), ..Step::unchanged(known) };
    let service = known;
    let after = &mut step.after;
    let mut release = Release::new(found.asked.clone(), found.bytes);
    release.deployed_at = Some(stamp.at.clone());
    release.deployed_by = Some(stamp.by.clone());
    release.tag = match (found.version, intent) {
        (Some(version), _) => version,
        // An unresolved moving tag must not hide a version that is known for the same bytes.
        (None, Intent::Latest) => {
            let mut entries = service.history.entries().iter();
            let known = entries.find(|entry| entry.is_same(&release, |tag| service.is_moving(tag)));
            known.map_or(found.asked, |entry| entry.tag.clone())
        }
        (None, _) => found.asked,
    };
    let custom_left = service.custom_in_force().map(|custom| custom.tag.clone());
    let was_rolled_back =
        service.history.entries().iter().any(|entry| {
            entry.rolled_back && entry.is_same(&release, |tag| service.is_moving(tag))
        });
    let tag = release.tag.clone();
    match after.history.advance(release, |tag| service.is_moving(tag)) {
        Advance::Unchanged { relabelled_from: None } => step.outcome = Outcome::Unchanged,
        Advance::Unchanged { relabelled_from: Some(_) } => step.outcome = Outcome::Relabelled,
        Advance::Returned { evicted } | Advance::Added { evicted } => {
            step.outcome = Outcome::Updated;
            step.evicted = evicted;
            after.deployed_at = Some(stamp.at.clone());
            after.deployed_by = Some(stamp.by.clone());
            if was_rolled_back && *intent == Intent::Latest {
                step.notes.push(format!(
                    "{tag} was rolled back by hand before; `{}` still names it",
                    service.track_name()
                ));
            }
        }
    }
    match intent {
        Intent::Custom { reason, hold } => {
            let digest = after.current().and_then(|current| current.bytes.digest.clone());
            let custom = Custom {
                tag,
                digest,
                reason: reason.clone(),
                applied_at: Some(stamp.at.clone()),
                applied_by: Some(stamp.by.clone()),
            };
            let same = after.custom.as_ref().is_some_and(|old| {
                (&old.tag, &old.digest) == (&custom.tag, &custom.digest)
                    && (reason.is_none() || old.reason == custom.reason)
            });
            if !same {
                after.custom = Some(custom);
            }
            after.held |= hold;
        }
        Intent::Version => {
            if after.held {
                step.notes.push("no longer held".to_owned());
            }
            after.held = false;
            forget_custom(after);
        }
        Intent::Latest => {
            if let Some(custom) = custom_left
                && step.outcome == Outcome::Updated
            {
                step.notes.push(format!("replaces the custom version {custom}"));
            }
            forget_custom(after);
        }
    }
    step
}

/// Lets the service of `step` follow `asked` from now on, if following its tag would take it back
/// from that: where the tag names one release, or a line that `asked` is not on. Where it goes on
/// following a tag that moves, the step says so.
pub fn follow(step: &mut Step, asked: &Tag) {
    let service = &step.before;
    if service.track_name() == asked.as_str() || service.source == Source::Local {
        return;
    }
    let parts_with = service.track.as_ref().filter(|track| match track::is_release(track) {
        true => true,
        false => {
            version::Version::parse(track.as_str()).is_some()
                && !track::is_of_line(asked.as_str(), track.as_str(), None)
        }
    });
    if let Some(track) = parts_with {
        step.notes.push(format!("follows `{asked}` from now on, not `{track}`"));
        step.after.track = Some(asked.clone());
    } else if step.is_change() {
        step.notes.push(format!(
            "still follows `{}`, which the next `dkv pull-latest` takes; `dkv version-set {} {asked} \
             --hold` stays",
            service.track_name(),
            service.name
        ));
    }
}

/// Drops a custom override that is not what is current any more.
fn forget_custom(service: &mut Service) {
    if service.custom_in_force().is_none() {
        service.custom = None;
    }
}

/// Takes `service` to its previous release; `None` if it has none.
#[must_use]
pub fn rollback(service: &Service, stamp: &Stamp) -> Option<Step> {
    let mut step = Step::unchanged(service);
    step.after.history.rollback(|tag| service.is_moving(tag))?;
    step.outcome = Outcome::RolledBack;
    settle_move(&mut step, stamp);
    Some(step)
}

/// Takes `service` to the release at `index` of its history.
#[must_use]
pub fn move_to(service: &Service, index: usize, stamp: &Stamp) -> Step {
    let mut step = Step::unchanged(service);
    if service.history.current_index() == Some(index) {
        return step;
    }
    step.after.history.move_to(index);
    step.outcome = Outcome::Moved;
    settle_move(&mut step, stamp);
    step
}

/// What becomes of every service that differs where the record goes from `before` to `after`, which
/// it was or will be again.
#[must_use]
pub fn go_to(before: &Manifest, after: &Manifest) -> Vec<Step> {
    let nothing = |service: &Service| Service::new(service.name.clone(), service.image.clone());
    let now = after.services.values().map(|service| {
        let known = before.services.get(&service.name);
        (known.cloned().unwrap_or_else(|| nothing(service)), service.clone())
    });
    let is_gone = |service: &&Service| !after.services.contains_key(&service.name);
    let gone = before.services.values().filter(is_gone);
    let gone = gone.map(|service| (service.clone(), nothing(service)));
    let steps = now.chain(gone).filter_map(|(before, after)| {
        let moved = Moved::between(Some(&before), Some(&after))?;
        let is_remembered = |one: &&Release| {
            let mut left = after.history.entries().iter();
            !left.any(|entry| entry.bytes.name() == one.bytes.name())
        };
        let evicted = before.history.entries().iter().filter(is_remembered).cloned().collect();
        let (outcome, notes) = match moved.what {
            What::Version => (Outcome::Moved, Vec::new()),
            What::Renamed => (Outcome::Relabelled, Vec::new()),
            what => (Outcome::Unchanged, vec![what.words().to_owned()]),
        };
        Some(Step { before, after, outcome, evicted, notes })
    });
    steps.collect()
}

fn settle_move(step: &mut Step, stamp: &Stamp) {
    if let Some(custom) = step.before.custom_in_force() {
        step.notes.push(format!("leaves the custom version {}", custom.tag));
    }
    forget_custom(&mut step.after);
    step.after.deployed_at = Some(stamp.at.clone());
    step.after.deployed_by = Some(stamp.by.clone());
}

/// The local tag that keeps a release from being pruned, `dkv-<deployment>-<12 digits>`; `None` for
/// a release that nothing but its tag names.
#[must_use]
pub fn keep_tag(release: &Release, deployment: &str) -> Option<Tag> {
    let digest = release.bytes.name()?;
    format!("{KEEP_TAG_PREFIX}{deployment}-{}", digest.short()).parse().ok()
}

/// What every keep-tag begins with.
pub const KEEP_TAG_PREFIX: &str = "dkv-";

/// What Compose gets as the tag of a service: `tag@digest`, or the keep-tag of a local build and of
/// what this host has `only_by_keep_tag`, or the tag alone where nothing else is known or wanted.
#[must_use]
pub fn compose_tag(
    service: &Service,
    pin: Pin,
    deployment: &str,
    only_by_keep_tag: &BTreeSet<Digest>,
) -> String {
    let Some(current) = service.current() else { return service.track_name().to_owned() };
    match (&current.bytes.digest, service.source) {
        (_, Source::Local) => {
            match keep_tag(current, deployment).filter(|_| current.bytes.image_id.is_some()) {
                Some(keep) => keep.to_string(),
                None => current.tag.to_string(),
            }
        }
        (Some(digest), Source::Registry) if pin == Pin::Digest => {
            let keep = keep_tag(current, deployment).filter(|_| only_by_keep_tag.contains(digest));
            keep.map_or_else(|| format!("{}@{digest}", current.tag), |keep| keep.to_string())
        }
        _ => current.tag.to_string(),
    }
}

/// What `rollback-to` was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A release of the history, by its index.
    Release(usize),
    /// A tag that the history does not have.
    Tag(Tag),
    /// A digest that the history does not have.
    Digest(Digest),
}

/// Finds what `text` names: a tag or a digest (12 or more of its digits will do) of the history,
/// else a tag or a digest of the registry.
///
/// # Errors
///
/// Several releases fit, the text is neither tag nor digest (exit 2), or the release it names is
/// lost (exit 3).
pub fn find_target(service: &Service, text: &str) -> Result<Target, Error> {
    let entries = service.history.entries();
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let is_prefix = hex.len() >= 12 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    let fitting = entries.iter().enumerate().filter(|(_, entry)| {
        let mut digests = [&entry.bytes.digest, &entry.bytes.image_id].into_iter().flatten();
        entry.tag.as_str() == text
            || is_prefix && digests.any(|digest| digest.hex().starts_with(hex))
    });
    let fitting: Vec<usize> = fitting.map(|(index, _)| index).collect();
    let usable: Vec<usize> = fitting
        .iter()
        .copied()
        .filter(|index| !entries[*index].is_lost(|tag| service.is_moving(tag)))
        .collect();
    match (usable.as_slice(), fitting.as_slice()) {
        ([index], _) => Ok(Target::Release(*index)),
        ([], [_, ..]) => Err(Error::new(
            Kind::State,
            format!(
                "{}: the history has `{text}` only without a digest, so nobody knows which bytes \
                it named",
                service.name
            ),
        )
        .with_hint(format!(
            "`dkv version-pull {} {text}` takes what the tag names today",
            service.name
        ))),
        ([], []) if text.starts_with("sha256:") => text.parse().map(Target::Digest).map_err(|_| {
            error::usage(format!("{}: no release of the history begins with {text}", service.name))
                .with_hint("the registry is only asked for whole digests")
        }),
        ([], []) => text.parse().map(Target::Tag).map_err(|error| error::usage(error.to_string())),
        (several, _) => {
            let digests: Vec<String> = several
                .iter()
                .filter_map(|index| {
                    entries[*index]
                        .bytes
                        .digest
                        .as_ref()
                        .or(entries[*index].bytes.image_id.as_ref())
                })
                .map(|digest| digest.short().to_owned())
                .collect();
            Err(error::usage(format!(
                "{}: {} releases of the history are called `{text}`",
                service.name,
                several.len()
            ))
            .with_hint(format!("name one by its digest: {}", digests.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp { at: "2026-01-12T12:29:08Z".to_owned(), by: "alice".to_owned() }
    }

    fn found(tag: &str, version: Option<&str>, bytes: &[u8]) -> Found {
        Found {
            asked: tag.parse().unwrap(),
            version: version.map(|version| version.parse().unwrap()),
            bytes: Bytes::of(Some(Digest::of(bytes))),
        }
    }

    fn service() -> Service {
        Service::new("web".parse().unwrap(), Some("r.example/web".parse().unwrap()))
    }

    fn after(service: &Service, found: Found) -> Service {
        advance(service, found, &Intent::Latest, &stamp()).after
    }

    fn tag(service: &Service) -> &str {
        service.current().unwrap().tag.as_str()
    }

    #[test]
    fn a_version_that_was_asked_for_is_followed_where_the_old_tag_would_lead_back() {
        for (track, asked, follows) in [
            (Some("16.4"), "16.5", "16.5"),
            (Some("16.4"), "16", "16"),
            (Some("16.4"), "latest", "latest"),
            (Some("16.4"), "16.4", "16.4"),
            (Some("16"), "16.4", "16"),
            (Some("16"), "17", "17"),
            (Some("16"), "17.1", "17.1"),
            (Some("17-alpine"), "17.1-alpine", "17-alpine"),
            (Some("stable"), "1.2", "stable"),
            (None, "1.2", "latest"),
            (None, "main", "latest"),
        ] {
            let service = Service { track: track.map(|track| track.parse().unwrap()), ..service() };
            let mut step = Step::unchanged(&service);
            follow(&mut step, &asked.parse().unwrap());
            assert_eq!(step.after.track_name(), follows, "{track:?} {asked}");
            assert_eq!(step.is_change(), step.after.track_name() != track.unwrap_or("latest"));
        }
    }

    #[test]
    fn an_unresolved_tag_does_not_hide_a_known_version() {
        let one = after(&service(), found("latest", Some("1.0"), b"1"));
        let same = advance(&one, found("latest", None, b"1"), &Intent::Latest, &stamp());
        assert!(!same.is_change());
        let two = after(&one, found("latest", None, b"2"));
        assert_eq!(tag(&two), "latest");
        let back = after(&two, found("latest", None, b"1"));
        assert_eq!(tag(&back), "1.0");
    }

    #[test]
    fn a_custom_version_lasts_until_something_else_is_current() {
        let one = after(&service(), found("latest", Some("1.0"), b"1"));
        let intent = Intent::Custom { reason: Some("patch".to_owned()), hold: true };
        let set = advance(&one, found("1.0-fix", None, b"fix"), &intent, &stamp()).after;
        assert!(set.held && set.custom_in_force().is_some());
        let rolled = rollback(&set, &stamp()).unwrap();
        assert_eq!(tag(&rolled.after), "1.0");
        assert!(rolled.after.custom.is_none());
        let followed = advance(&set, found("latest", Some("1.1"), b"3"), &Intent::Latest, &stamp());
        assert!(followed.after.custom.is_none());
        assert!(followed.notes.iter().any(|note| note.contains("1.0-fix")));
        // It holds for those bytes, not for what else is published under their tag.
        let vendors = found("latest", Some("1.0-fix"), b"vendor");
        assert!(advance(&set, vendors, &Intent::Latest, &stamp()).after.custom.is_none());
        let again = Intent::Custom { reason: None, hold: false };
        let same = advance(&set, found("1.0-fix", None, b"fix"), &again, &stamp());
        assert!(!same.is_change());
        let newer = advance(&set, found("1.0-fix", None, b"fix 2"), &again, &stamp()).after;
        assert_eq!(newer.custom_in_force().unwrap().reason, None);
        assert!(!advance(&set, found("1.2", None, b"4"), &Intent::Version, &stamp()).after.held);
    }

    #[test]
    fn targets_are_found_by_tag_by_digest_and_by_its_beginning() {
        let mut service = service();
        for (name, bytes) in [("latest", b"1"), ("latest", b"2"), ("1.3", b"3")] {
            service = after(&service, found(name, None, bytes));
        }
        assert_eq!(find_target(&service, "1.3"), Ok(Target::Release(0)));
        assert_eq!(find_target(&service, Digest::of(b"1").as_str()), Ok(Target::Release(2)));
        assert_eq!(find_target(&service, Digest::of(b"2").short()), Ok(Target::Release(1)));
        assert_eq!(find_target(&service, "latest").unwrap_err().kind(), Kind::Usage);
        assert_eq!(find_target(&service, "1.4"), Ok(Target::Tag("1.4".parse().unwrap())));
        assert_eq!(
            find_target(&service, Digest::of(b"9").as_str()),
            Ok(Target::Digest(Digest::of(b"9")))
        );
        assert!(find_target(&service, "a b").is_err());
    }

    #[test]
    fn following_the_tag_to_a_release_that_was_rolled_back_says_so() {
        let one = after(&service(), found("latest", Some("1.0"), b"1"));
        let two = after(&one, found("latest", Some("1.1"), b"2"));
        let back = rollback(&two, &stamp()).unwrap().after;
        let step = advance(&back, found("latest", Some("1.1"), b"2"), &Intent::Latest, &stamp());
        assert_eq!(step.outcome, Outcome::Updated);
        assert!(step.notes[0].contains("rolled back by hand"));
    }

    #[test]
    fn a_tag_that_moved_to_an_older_version_is_worth_a_warning() {
        let one = after(&service(), found("latest", Some("1.1"), b"2"));
        let back = advance(&one, found("latest", Some("1.0"), b"1"), &Intent::Latest, &stamp());
        assert_eq!(
            back.downgrade().as_deref(),
            Some("`latest` moved back to an older version: 1.1 → 1.0")
        );
        assert_eq!(
            advance(&one, found("latest", Some("1.2"), b"3"), &Intent::Latest, &stamp())
                .downgrade(),
            None
        );
        assert_eq!(
            advance(&one, found("latest", Some("1.0"), b"2"), &Intent::Latest, &stamp())
                .downgrade(),
            None
        );
    }
}
