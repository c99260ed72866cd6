//! The releases of one service and the cursor among them.
//!
//! The order of the entries changes only when an advance puts a release in front; rollbacks move
//! the cursor and mark what they leave. Two things follow, and the property test below holds them:
//! going back twice goes back two releases and never returns to one that was left, and right after
//! an advance the release just left is always what a rollback goes to.

use serde::{Deserialize, Serialize};

use super::reference::{Digest, Tag};

/// How many distinct releases a service remembers.
pub const LIMIT: usize = 5;

/// The bytes of a release, by all the names that are known of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// Digest of the manifest in the registry; of the index for a multi-platform image.
    pub digest: Option<Digest>,
    /// Digest of the index's entry for this host's platform; of an image that is no index, its own,
    /// where nobody but dkv has looked at it.
    pub platform_digest: Option<Digest>,
    /// The daemon's own name for the image.
    pub image_id: Option<Digest>,
}

impl Bytes {
    /// Bytes of which only the digest in the registry is known, if that is.
    #[must_use]
    pub fn of(digest: Option<Digest>) -> Self {
        Self { digest, ..Self::default() }
    }

    /// The bytes of an image that only the daemon has a name for.
    #[must_use]
    pub fn of_image(id: Digest) -> Self {
        Self { image_id: Some(id), ..Self::default() }
    }

    /// Whether a digest or an image ID tells which bytes these are.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.name().is_some()
    }

    /// Whether dkv has had the image or its manifest in its hands: only then does it record what
    /// the daemon calls it, or what an index has for a platform. What others wrote as a digest may be
    /// an image's ID, which no registry knows.
    #[must_use]
    pub fn are_seen(&self) -> bool {
        self.image_id.is_some() || self.platform_digest.is_some()
    }

    /// What names the bytes: the digest, else the image ID.
    #[must_use]
    pub fn name(&self) -> Option<&Digest> {
        self.digest.as_ref().or(self.image_id.as_ref())
    }

    /// Whether a registry may call them `digest`, for this platform or for all.
    #[must_use]
    pub fn has_digest(&self, digest: &Digest) -> bool {
        self.digest.as_ref() == Some(digest) || self.platform_digest.as_ref() == Some(digest)
    }

    /// Takes over what `newer` knows of the same bytes and this does not.
    fn learn(&mut self, newer: &Self) {
        self.digest = newer.digest.clone().or_else(|| self.digest.take());
        self.platform_digest =
            newer.platform_digest.clone().or_else(|| self.platform_digest.take());
        self.image_id = newer.image_id.clone().or_else(|| self.image_id.take());
    }
}

/// One release of a service: the bytes, the name they went by, and when and by whom they were
/// recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The tag that named the release when it was recorded.
    pub tag: Tag,
    /// Which bytes it had.
    pub bytes: Bytes,
    /// What the old migration wizard wrote as the digest: perhaps the daemon's image ID. Never used
    /// as a digest before the daemon or the registry has said that it is one.
    pub unverified_digest: Option<Digest>,
    /// When the release was recorded, as the manifest has it.
    pub deployed_at: Option<String>,
    /// Who recorded it.
    pub deployed_by: Option<String>,
    /// Whether a rollback left this release.
    pub rolled_back: bool,
    /// The entry's index in the manifest that was read; none for a release recorded since.
    pub origin: Option<usize>,
}

impl Release {
    /// A release with nothing known but its tag and bytes.
    #[must_use]
    pub fn new(tag: Tag, bytes: Bytes) -> Self {
        Self {
            tag,
            bytes,
            unverified_digest: None,
            deployed_at: None,
            deployed_by: None,
            rolled_back: false,
            origin: None,
        }
    }

    /// Whether both are the same release: the same bytes, or, where one does not say which bytes it
    /// had, the same fixed tag. A moving tag without a digest is never the same as anything.
    #[must_use]
    pub fn is_same(&self, other: &Self, moving: impl Fn(&Tag) -> bool) -> bool {
        if let (Some(mine), Some(theirs)) = (&self.bytes.digest, &other.bytes.digest) {
            return mine == theirs;
        }
        if let (Some(mine), Some(theirs)) = (&self.bytes.image_id, &other.bytes.image_id) {
            return mine == theirs;
        }
        let is_known = self.bytes.is_known() && other.bytes.is_known();
        !is_known && self.tag == other.tag && !moving(&self.tag)
    }

    /// Takes over what `newer` knows of the same release and this one does not.
    fn learn(&mut self, newer: &Self) {
        self.bytes.learn(&newer.bytes);
        if self.bytes.digest.is_some() {
            self.unverified_digest = None;
        }
    }

    /// Whether nothing tells any more which bytes this release had: a moving tag without a digest
    /// or an image ID.
    #[must_use]
    pub fn is_lost(&self, moving: impl Fn(&Tag) -> bool) -> bool {
        !self.bytes.is_known() && moving(&self.tag)
    }
}

/// What an advance did to the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advance {
    /// The release was current already; its tag may have changed, no entry was added.
    Unchanged {
        /// The tag it had before, if that was another one.
        relabelled_from: Option<Tag>,
    },
    /// The history held the release; its entry moved to the front.
    Returned {
        /// The releases that fell out of a history that was too long.
        evicted: Vec<Release>,
    },
    /// A new entry stands in front.
    Added {
        /// The releases that fell out of the history.
        evicted: Vec<Release>,
    },
}

/// The remembered releases of one service, newest first, and which of them is current.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    entries: Vec<Release>,
    current: usize,
}

impl History {
    /// A history from entries that are newest first; `current` is the index of the current one.
    ///
    /// Entries newer than the current one were left by a rollback, whatever the file says: without
    /// that, a later rollback could go forward. Returns `None` if `current` is out of range.
    #[must_use]
    pub fn from_entries(mut entries: Vec<Release>, current: usize) -> Option<Self> {
        if current >= entries.len() {
            return entries.is_empty().then(Self::default);
        }
        for newer in &mut entries[..current] {
            newer.rolled_back = true;
        }
        entries[current].rolled_back = false;
        Some(Self { entries, current })
    }

    /// The releases, newest first.
    #[must_use]
    pub fn entries(&self) -> &[Release] {
        &self.entries
    }

    /// The index of the current release among [`Self::entries`].
    #[must_use]
    pub fn current_index(&self) -> Option<usize> {
        (!self.entries.is_empty()).then_some(self.current)
    }

    /// The release that the manifest says should run.
    #[must_use]
    pub fn current(&self) -> Option<&Release> {
        self.entries.get(self.current)
    }

    /// Changes what is known of the current release without making it another one.
    pub fn current_mut(&mut self) -> Option<&mut Release> {
        self.entries.get_mut(self.current)
    }

    /// The index of the release that a rollback goes to: the nearest older one that no rollback has
    /// left and whose bytes can still be named.
    #[must_use]
    pub fn previous_index(&self, moving: impl Fn(&Tag) -> bool) -> Option<usize> {
        let older = self.entries.iter().enumerate().skip(self.current + 1);
        older
            .filter(|(_, entry)| !entry.rolled_back && !entry.is_lost(&moving))
            .map(|(index, _)| index)
            .next()
    }

    /// Makes `release` the current one.
    ///
    /// An unchanged release adds nothing; one that the history holds moves to the front; a sixth
    /// evicts the oldest that was rolled back, else the oldest, never the release just left.
    pub fn advance(&mut self, mut release: Release, moving: impl Fn(&Tag) -> bool) -> Advance {
        release.rolled_back = false;
        if let Some(current) = self.entries.get_mut(self.current)
            && current.is_same(&release, &moving)
        {
            current.learn(&release);
            let relabelled_from = (current.tag != release.tag)
                .then(|| std::mem::replace(&mut current.tag, release.tag));
            return Advance::Unchanged { relabelled_from };
        }
        // What was never in the history and names no bytes is not worth remembering.
        if self.current().is_some_and(|left| left.origin.is_none() && left.is_lost(&moving)) {
            self.entries.remove(self.current);
        }
        let held = self.entries.iter().position(|entry| entry.is_same(&release, &moving));
        // Where the release just left stands once the new one is in front of everything.
        let mut left = self.current + 1;
        if let Some(index) = held {
            let mut entry = self.entries.remove(index);
            entry.learn(&release);
            release = Release { bytes: entry.bytes, origin: entry.origin, ..release };
            if index < self.current {
                left -= 1;
            }
        }
        self.entries.insert(0, release);
        self.current = 0;
        let mut evicted = Vec::new();
        while self.entries.len() > LIMIT {
            let mut candidates = (1..self.entries.len()).rev().filter(|index| *index != left);
            let oldest = candidates.clone().next();
            let Some(index) = candidates.find(|index| self.entries[*index].rolled_back).or(oldest)
            else {
                break;
            };
            evicted.push(self.entries.remove(index));
            if index < left {
                left -= 1;
            }
        }
        if held.is_some() { Advance::Returned { evicted } } else { Advance::Added { evicted } }
    }

    /// Moves the cursor to the release that [`Self::previous_index`] names and marks the one it
    /// leaves.
    ///
    /// Returns the index of the target, or `None` if there is nowhere to go back to.
    pub fn rollback(&mut self, moving: impl Fn(&Tag) -> bool) -> Option<usize> {
        let target = self.previous_index(moving)?;
        self.entries[self.current].rolled_back = true;
        self.current = target;
        Some(target)
    }

    /// Moves the cursor to the release at `target`: to an older one, marking the one it leaves and
    /// all that it passes; to a newer one, unmarking the target.
    ///
    /// An index out of range changes nothing.
    pub fn move_to(&mut self, target: usize) {
        if target >= self.entries.len() {
            return;
        }
        for passed in self.current..target {
            self.entries[passed].rolled_back = true;
        }
        self.entries[target].rolled_back = false;
        self.current = target;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn moving(tag: &Tag) -> bool {
        tag.as_str() == "latest"
    }

    fn release(number: u8) -> Release {
        Release::new(format!("1.{number}").parse().unwrap(), Bytes::of(Some(Digest::of(&[number]))))
    }

    fn tags(history: &History) -> Vec<String> {
        history.entries().iter().map(|entry| entry.tag.to_string()).collect()
    }

    fn advanced(numbers: impl IntoIterator<Item = u8>) -> History {
        let mut history = History::default();
        for number in numbers {
            history.advance(release(number), moving);
        }
        history
    }

    #[test]
    fn the_same_digest_adds_nothing_but_may_change_the_tag() {
        let mut history = advanced([1, 2]);
        let mut relabelled = release(2);
        relabelled.tag = "2-lts".parse().unwrap();
        let outcome = history.advance(relabelled, moving);
        assert_eq!(outcome, Advance::Unchanged { relabelled_from: Some("1.2".parse().unwrap()) });
        assert_eq!(tags(&history), ["2-lts", "1.1"]);
        for _ in 0..5 {
            assert!(matches!(history.advance(release(2), moving), Advance::Unchanged { .. }));
        }
        assert_eq!(history.entries().len(), 2);
        assert_eq!(history.rollback(moving), Some(1));
    }

    #[test]
    fn repeated_rollbacks_go_further_back_and_never_forward() {
        let mut history = advanced([1, 2, 3]);
        assert_eq!(history.rollback(moving), Some(1));
        assert_eq!(history.rollback(moving), Some(2));
        assert_eq!(history.rollback(moving), None);
        assert_eq!(history.current().unwrap().tag.as_str(), "1.1");
    }

    #[test]
    fn after_a_rollback_and_an_advance_the_release_just_left_is_previous() {
        let mut history = advanced([1, 2, 3]);
        history.rollback(moving);
        history.advance(release(4), moving);
        assert_eq!(tags(&history), ["1.4", "1.3", "1.2", "1.1"]);
        assert_eq!(history.previous_index(moving), Some(2), "1.3 was rolled back, 1.2 was left");
        history.rollback(moving);
        assert_eq!(history.current().unwrap().tag.as_str(), "1.2");
        assert!(matches!(history.advance(release(4), moving), Advance::Returned { .. }));
        assert_eq!(tags(&history), ["1.4", "1.3", "1.2", "1.1"]);
        assert_eq!(history.previous_index(moving), Some(2));
    }

    #[test]
    fn eviction_prefers_the_oldest_rolled_back_and_spares_the_release_just_left() {
        let mut history = advanced([1, 2, 3, 4, 5]);
        history.rollback(moving);
        history.advance(release(6), moving);
        assert_eq!(tags(&history), ["1.6", "1.4", "1.3", "1.2", "1.1"], "1.5 was rolled back");
        history.move_to(4);
        let Advance::Added { evicted } = history.advance(release(7), moving) else {
            panic!("an entry was expected")
        };
        assert_eq!(evicted[0].tag.as_str(), "1.2", "the oldest of those that the rollback passed");
        assert_eq!(tags(&history), ["1.7", "1.6", "1.4", "1.3", "1.1"]);
        assert_eq!(history.previous_index(moving), Some(4), "1.1 was current");
    }

    #[test]
    fn going_to_a_newer_release_makes_the_one_left_the_previous() {
        let mut history = advanced([1, 2, 3]);
        history.move_to(2);
        history.move_to(0);
        assert_eq!(history.previous_index(moving), Some(2));
        assert!(history.entries()[1].rolled_back);
    }

    #[test]
    fn a_moving_tag_without_digest_is_lost_and_never_a_target() {
        let lost = Release::new("latest".parse().unwrap(), Bytes::default());
        let fixed = Release::new("1.62".parse().unwrap(), Bytes::default());
        let mut history = History::from_entries(vec![release(9), lost, fixed], 0).unwrap();
        assert_eq!(history.rollback(moving), Some(2));
    }

    #[test]
    fn a_longer_history_shrinks_and_entries_before_the_current_one_count_as_left() {
        let long = History::from_entries((0..8).rev().map(release).collect(), 2).unwrap();
        assert!(long.entries()[0].rolled_back && long.entries()[1].rolled_back);
        let mut history = long.clone();
        history.advance(release(9), moving);
        assert_eq!(history.entries().len(), LIMIT);
        assert_eq!(
            history.entries()[history.previous_index(moving).unwrap()].tag,
            long.current().unwrap().tag
        );
    }

    /// What an operator may do, as the model test draws it.
    #[derive(Debug, Clone)]
    enum Step {
        Advance(u8),
        Rollback,
        MoveTo(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0_u8..9).prop_map(Step::Advance),
            2 => Just(Step::Rollback),
            1 => (0_usize..LIMIT).prop_map(Step::MoveTo),
        ];
        proptest::collection::vec(step, 1..40)
    }

    /// The simplest thing that can tell right from wrong: release numbers in order, the set of
    /// those left, and the one that runs.
    #[derive(Default)]
    struct Model {
        order: Vec<u8>,
        left: std::collections::BTreeSet<u8>,
        runs: Option<u8>,
    }

    impl Model {
        fn position(&self, number: u8) -> Option<usize> {
            self.order.iter().position(|other| *other == number)
        }

        fn target(&self) -> Option<u8> {
            let at = self.position(self.runs?)?;
            self.order[at + 1..].iter().copied().find(|number| !self.left.contains(number))
        }

        fn advance(&mut self, number: u8) {
            if self.runs == Some(number) {
                return;
            }
            let just_left = self.runs.replace(number);
            self.order.retain(|other| *other != number);
            self.order.insert(0, number);
            self.left.remove(&number);
            if self.order.len() > LIMIT {
                let spared = |other: &&u8| Some(**other) != just_left && **other != number;
                let oldest_left = self
                    .order
                    .iter()
                    .rev()
                    .filter(spared)
                    .find(|other| self.left.contains(other))
                    .copied();
                let oldest = self.order.iter().rev().find(spared).copied();
                let gone = oldest_left.or(oldest).unwrap();
                self.order.retain(|other| *other != gone);
                self.left.remove(&gone);
            }
        }

        fn move_to(&mut self, number: u8) {
            let Some(from) = self.runs.and_then(|runs| self.position(runs)) else { return };
            let to = self.position(number).unwrap();
            self.left.extend(self.order[from.min(to)..to].iter().copied());
            self.left.remove(&number);
            self.runs = Some(number);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_sequence_agrees_with_the_model(steps in steps()) {
            let mut history = History::default();
            let mut model = Model::default();
            for step in steps {
                let before = model.runs;
                match step {
                    Step::Advance(number) => {
                        history.advance(release(number), moving);
                        model.advance(number);
                        if before.is_some() && before != Some(number) {
                            prop_assert_eq!(model.target(), before, "the release just left is the \
                                target");
                        }
                    }
                    Step::Rollback => {
                        let moved = history.rollback(moving);
                        let target = model.target();
                        prop_assert_eq!(moved.is_some(), target.is_some());
                        if let Some(number) = target {
                            model.left.extend(model.runs);
                            model.runs = Some(number);
                            prop_assert!(Some(number) != before);
                        }
                    }
                    Step::MoveTo(index) => {
                        if let Some(number) = model.order.get(index).copied() {
                            model.move_to(number);
                        }
                        history.move_to(index);
                    }
                }
                let expected: Vec<String> = model.order.iter().map(|number| format!("1.{number}")).collect();
                prop_assert_eq!(tags(&history), expected);
                prop_assert!(history.entries().len() <= LIMIT);
                prop_assert_eq!(history.current().map(|entry| entry.tag.to_string()), model.runs.map(|number| format!("1.{number}")));
                let target = history.previous_index(moving).map(|index| history.entries()[index].tag.to_string());
                prop_assert_eq!(target, model.target().map(|number| format!("1.{number}")));
                for (entry, number) in history.entries().iter().zip(&model.order) {
                    prop_assert_eq!(entry.rolled_back, model.left.contains(number));
                }
            }
        }
    }
}
