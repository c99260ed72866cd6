//! Recording changed services in a manifest: the edits that bring its text to what was intended,
//! and nothing else.

use super::{Custom, Manifest, REJECTED_LIMIT, Rejected, Service, Source};
use crate::model::history::{Bytes, Release};
use crate::model::reference::{Digest, ServiceName};
use crate::model::yaml::{Edit, Item, Segment, Value, YamlError};

impl Manifest {
    /// The manifest's text with `changed` services recorded and what `listing` says of what is
    /// tracked, in schema 1.1. Lines of other services keep every byte.
    ///
    /// # Errors
    ///
    /// An edit would have to go through an alias, an anchor or a merge key, at its position.
    pub fn with(&self, changed: &[Service], listing: &Listing) -> Result<String, YamlError> {
        let mut edits = Vec::new();
        self.listing_edits(listing, &mut edits);
        if self.is_legacy && (!changed.is_empty() || !edits.is_empty()) {
            edits.push(Edit::set(path(&["schema_version"]), text("1.1")));
        }
        for new in changed {
            let unknown = Service::new(new.name.clone(), None);
            let old = self.services.get(&new.name).unwrap_or(&unknown);
            if old == new && self.services.contains_key(&new.name) {
                continue;
            }
            self.service_edits(old, new, &mut edits);
            history_edits(
                old,
                new,
                self.document
                    .root()
                    .get("history")
                    .is_some_and(|all| all.get(new.name.as_str()).is_some()),
                &mut edits,
            );
            custom_edits(old.custom.as_ref(), new.custom.as_ref(), &new.name, &mut edits);
            rejected_edits(&old.rejected, &new.rejected, &new.name, &mut edits);
        }
        if edits.is_empty() {
            return Ok(self.source().to_owned());
        }
        self.document.apply(&edits)
    }

    fn listing_edits(&self, listing: &Listing, edits: &mut Vec<Edit>) {
        let root = self.document.root();
        for name in &listing.removed {
            for section in ["services", "history", "custom_overrides", "rejected"] {
                let has = root.get(section).and_then(|all| all.get(name.as_str())).is_some();
                edits.extend(has.then(|| Edit::remove(path(&[section, name.as_str()]))));
            }
        }
        if let Some(project) =
            listing.project.as_ref().filter(|_| self.compose.project != listing.project)
        {
            edits.push(Edit::set(path(&["compose", "project"]), text(project)));
        }
        match listing.untracked.as_deref() {
            Some(names) if names != self.untracked => edits.push(match names {
                [] => Edit::remove(path(&["untracked"])),
                names => Edit::set(
                    path(&["untracked"]),
                    Value::Sequence(names.iter().map(|name| text(name)).collect()),
                ),
            }),
            _ => {}
        }
    }

    fn service_edits(&self, old: &Service, new: &Service, edits: &mut Vec<Edit>) {
        let name = new.name.as_str();
        let section = self.document.root().get("services").and_then(|all| all.get(name));
        for ((key, before), (_, after)) in fields(old).into_iter().zip(fields(new)) {
            let is_written = section.is_some_and(|section| section.get(key).is_some());
            let before = before.filter(|_| match key {
                // A tag that was only implied is written out with the first record of the service.
                "current_tag" => is_written,
                // The old tool's spellings of a digest are replaced at the same time.
                "image_digest" => false,
                _ => true,
            });
            let at = path(&["services", name, key]);
            match after {
                after if after == before => {}
                Some(value) => edits.push(Edit::set(at, value)),
                None if is_written => edits.push(Edit::remove(at)),
                None => {}
            }
        }
    }
}

/// What is tracked and what is not, besides the services that are recorded.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Services that go, with all that is remembered of them.
    pub removed: Vec<ServiceName>,
    /// The Compose services that are left out; none if that stays as it is.
    pub untracked: Option<Vec<String>>,
    /// The name of the Compose project; none if that stays as it is.
    pub project: Option<String>,
}

impl Listing {
    /// Whether everything stays as it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.untracked.is_none() && self.project.is_none()
    }
}

/// What a service's own section says, in the order in which it is written.
fn fields(service: &Service) -> [(&'static str, Option<Value>); 12] {
    let names = &service.compose_services;
    let current = service.current();
    [
        ("image", service.image.as_ref().map(|image| text(image.as_written()))),
        ("track", service.track.as_ref().map(|track| text(track.as_str()))),
        ("platform", service.platform.as_ref().map(|platform| text(&platform.to_string()))),
        ("source", (service.source == Source::Local).then(|| text("local"))),
        ("held", service.held.then_some(Value::Bool(true))),
        (
            "compose_services",
            (!names.is_empty())
                .then(|| Value::Sequence(names.iter().map(|name| text(name)).collect())),
        ),
        ("env_tag", service.env_tag.as_deref().map(text)),
        ("env_image", service.env_image.as_deref().map(text)),
        ("current_tag", current.map(|release| text(release.tag.as_str()))),
        (
            "image_digest",
            current.map(|release| text(release.bytes.digest.as_ref().map_or("", Digest::as_str))),
        ),
        ("deployed_at", service.deployed_at.as_deref().map(text)),
        ("deployed_by", service.deployed_by.as_deref().map(text)),
    ]
}

fn history_edits(old: &Service, new: &Service, is_listed: bool, edits: &mut Vec<Edit>) {
    let at = path(&["history", new.name.as_str()]);
    let entries = new.history.entries();
    if !is_listed || !entries.iter().any(|entry| entry.origin.is_some()) {
        let values = entries
            .iter()
            .enumerate()
            .map(|(index, entry)| entry_value(entry, new.status(index).word()));
        edits.push(Edit::set(at, Value::Sequence(values.collect())));
        return;
    }
    let items = entries.iter().enumerate().map(|(index, entry)| match entry.origin {
        Some(origin) => {
            Item::Keep(origin, kept_entry_edits(old, entry, origin, new.status(index).word()))
        }
        None => Item::New(entry_value(entry, new.status(index).word())),
    });
    edits.push(Edit::rearrange(at, items.collect()));
}

/// What a kept entry says now that it did not say before.
fn kept_entry_edits(old: &Service, entry: &Release, origin: usize, status: &str) -> Vec<Edit> {
    let before = old.history.entries().iter().find(|before| before.origin == Some(origin));
    let before = before.map(|before| entry_fields(before, ""));
    let changed = entry_fields(entry, status).into_iter().enumerate().filter_map(|(at, field)| {
        let (key, new) = field;
        let old = match key {
            // What a legacy entry only inherited from its service is written out here for good,
            // and so are who had deployed the current release and what it was called by hand.
            "tag" | "digest" | "deployed_by" | "status" => None,
            _ => before.and_then(|fields| fields[at].1),
        };
        Some(Edit::set(path(&[key]), text(new.filter(|_| new != old)?)))
    });
    changed.collect()
}

fn custom_edits(
    old: Option<&Custom>,
    new: Option<&Custom>,
    name: &ServiceName,
    edits: &mut Vec<Edit>,
) {
    let at = path(&["custom_overrides", name.as_str()]);
    match (old, new) {
        (before, Some(custom)) if before != Some(custom) => {
            let mut fields = vec![("tag".to_owned(), text(custom.tag.as_str()))];
            let digest = custom.digest.as_ref().map(Digest::to_string);
            push_text(&mut fields, "digest", digest.as_deref());
            push_text(&mut fields, "reason", custom.reason.as_deref());
            push_text(&mut fields, "applied_at", custom.applied_at.as_deref());
            push_text(&mut fields, "applied_by", custom.applied_by.as_deref());
            edits.push(Edit::set(at, Value::Mapping(fields)));
        }
        (Some(_), None) => edits.push(Edit::remove(at)),
        _ => {}
    }
}

fn rejected_edits(old: &[Rejected], new: &[Rejected], name: &ServiceName, edits: &mut Vec<Edit>) {
    if old == new {
        return;
    }
    let at = path(&["rejected", name.as_str()]);
    if new.is_empty() {
        edits.push(Edit::remove(at));
        return;
    }
    let values = new.iter().take(REJECTED_LIMIT).map(|rejected| {
        let mut fields = vec![("digest".to_owned(), text(rejected.digest.as_str()))];
        push_text(
            &mut fields,
            "tag",
            rejected.tag.as_ref().map(crate::model::reference::Tag::as_str),
        );
        push_text(&mut fields, "reason", rejected.reason.as_deref());
        push_text(&mut fields, "at", rejected.at.as_deref());
        Value::Mapping(fields)
    });
    edits.push(Edit::set(at, Value::Sequence(values.collect())));
}

/// A history entry as it is written for the first time.
fn entry_value(entry: &Release, status: &str) -> Value {
    let fields = entry_fields(entry, status).into_iter();
    Value::Mapping(fields.filter_map(|(key, value)| Some((key.to_owned(), text(value?)))).collect())
}

/// What an entry says, in the order in which it is written.
fn entry_fields<'a>(entry: &'a Release, status: &'a str) -> [(&'static str, Option<&'a str>); 7] {
    let Bytes { digest, platform_digest, image_id } = &entry.bytes;
    [
        ("tag", Some(entry.tag.as_str())),
        ("digest", digest.as_ref().map(Digest::as_str)),
        ("platform_digest", platform_digest.as_ref().map(Digest::as_str)),
        ("image_id", image_id.as_ref().map(Digest::as_str)),
        ("deployed_at", entry.deployed_at.as_deref()),
        ("deployed_by", entry.deployed_by.as_deref()),
        ("status", Some(status)),
    ]
}

fn push_text(fields: &mut Vec<(String, Value)>, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        fields.push((key.to_owned(), text(value)));
    }
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn path(keys: &[&str]) -> Vec<Segment> {
    keys.iter().map(|key| Segment::from(*key)).collect()
}
