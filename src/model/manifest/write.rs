//! Recording changed services in a manifest: the edits that bring its text to what was intended,
//! and nothing else.

use super::{Custom, Manifest, REJECTED_LIMIT, Rejected, Service, Source};
use crate::model::history::Release;
use crate::model::reference::{Digest, ServiceName};
use crate::model::yaml::{Edit, Item, Segment, Value, YamlError};

impl Manifest {
    /// The manifest's text with `changed` services recorded, in schema 1.1. Lines of other services
    /// keep every byte.
    ///
    /// # Errors
    ///
    /// An edit would have to go through an alias, an anchor or a merge key, at its position.
    pub fn with_services(&self, changed: &[Service]) -> Result<String, YamlError> {
        let mut edits = Vec::new();
        if self.is_legacy && !changed.is_empty() {
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

    fn service_edits(&self, old: &Service, new: &Service, edits: &mut Vec<Edit>) {
        let at = |key: &str| path(&["services", new.name.as_str(), key]);
        let has = |key: &str| {
            let service =
                self.document.root().get("services").and_then(|all| all.get(new.name.as_str()));
            service.is_some_and(|service| service.get(key).is_some())
        };
        let mut put = |key: &str, old: Option<Value>, new: Option<Value>| {
            if old == new {
                return;
            }
            match new {
                Some(value) => edits.push(Edit::set(at(key), value)),
                None if has(key) => edits.push(Edit::remove(at(key))),
                None => {}
            }
        };
        let image =
            |service: &Service| service.image.as_ref().map(|image| text(image.as_written()));
        put("image", image(old), image(new));
        let track = |service: &Service| service.track.as_ref().map(|track| text(track.as_str()));
        put("track", track(old), track(new));
        let source = |service: &Service| (service.source == Source::Local).then(|| text("local"));
        put("source", source(old), source(new));
        let held = |service: &Service| service.held.then_some(Value::Bool(true));
        put("held", held(old), held(new));
        let compose = |service: &Service| {
            let names: Vec<Value> =
                service.compose_services.iter().map(|name| text(name)).collect();
            (!names.is_empty()).then_some(Value::Sequence(names))
        };
        put("compose_services", compose(old), compose(new));
        put("env_tag", old.env_tag.as_deref().map(text), new.env_tag.as_deref().map(text));
        put("env_image", old.env_image.as_deref().map(text), new.env_image.as_deref().map(text));
        let tag = |service: &Service| service.current().map(|release| text(release.tag.as_str()));
        // A tag that was only implied is written out with the first record of the service.
        let written_tag = if has("current_tag") { tag(old) } else { None };
        put("current_tag", written_tag, tag(new));
        let digest = |service: &Service| {
            service
                .current()
                .map(|release| text(release.bytes.digest.as_ref().map_or("", Digest::as_str)))
        };
        // The old tool's spellings of a digest are replaced as soon as the service is written.
        put("image_digest", None, digest(new));
        put(
            "deployed_at",
            old.deployed_at.as_deref().map(text),
            new.deployed_at.as_deref().map(text),
        );
        put(
            "deployed_by",
            old.deployed_by.as_deref().map(text),
            new.deployed_by.as_deref().map(text),
        );
    }
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
    let mut edits = Vec::new();
    let mut put = |key: &str, old: Option<&str>, new: Option<&str>| {
        if let Some(new) = new
            && old != Some(new)
        {
            edits.push(Edit::set(path(&[key]), text(new)));
        }
    };
    put("tag", before.map(|before| before.tag.as_str()), Some(entry.tag.as_str()));
    let digest =
        |release: &Release| release.bytes.digest.as_ref().map(Digest::as_str).map(str::to_owned);
    // What a legacy entry only inherited from its service is written out here for good.
    put("digest", None, digest(entry).as_deref());
    put(
        "platform_digest",
        before.and_then(|b| b.bytes.platform_digest.as_ref()).map(Digest::as_str),
        entry.bytes.platform_digest.as_ref().map(Digest::as_str),
    );
    put(
        "image_id",
        before.and_then(|b| b.bytes.image_id.as_ref()).map(Digest::as_str),
        entry.bytes.image_id.as_ref().map(Digest::as_str),
    );
    put("deployed_at", before.and_then(|b| b.deployed_at.as_deref()), entry.deployed_at.as_deref());
    // The old tool said of the current release only in `services` who had deployed it.
    put("deployed_by", None, entry.deployed_by.as_deref());
    put("status", None, Some(status));
    edits
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
    let mut fields = vec![("tag".to_owned(), text(entry.tag.as_str()))];
    push_text(&mut fields, "digest", entry.bytes.digest.as_ref().map(Digest::as_str));
    push_text(
        &mut fields,
        "platform_digest",
        entry.bytes.platform_digest.as_ref().map(Digest::as_str),
    );
    push_text(&mut fields, "image_id", entry.bytes.image_id.as_ref().map(Digest::as_str));
    push_text(&mut fields, "deployed_at", entry.deployed_at.as_deref());
    push_text(&mut fields, "deployed_by", entry.deployed_by.as_deref());
    push_text(&mut fields, "status", Some(status));
    Value::Mapping(fields)
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
