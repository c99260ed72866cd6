//! Proof that a new text says what was intended, by reading it again.

use super::document::{Document, Shape, Style, YamlError};
use super::plan::{MappingPlan, Plan, Slot};
use super::quote::is_plain_text;
use super::value::Value;

/// Parses `text` and compares it with `old` as changed by `plans`, one for each document: what was
/// planned must be there, and everything else must have its value and its style.
pub fn verify(old: &Document, plans: &[Plan], text: &str) -> Result<(), YamlError> {
    let compared = match Document::parse_all(text.as_bytes()) {
        Ok(new) => Verification { old, new: &new }
            .documents(plans)
            .map_err(|near| (old.node(near), "it reads differently".to_owned())),
        Err(error) => Err((old.root(), error.to_string())),
    };
    compared.map_err(|(near, reason)| {
        near.error(format!(
            "refusing to write: the result would not hold what was intended ({reason}); edit it by \
            hand"
        ))
    })
}

/// Compares node by node; the error is the old node near which they differ.
struct Verification<'d> {
    old: &'d Document,
    new: &'d Document,
}

/// What is expected at one place of a collection.
enum Expected<'p> {
    Old(u32, &'p Plan),
    Key(&'p str),
    New(&'p Value),
}

impl Verification<'_> {
    fn documents(&self, plans: &[Plan]) -> Result<(), u32> {
        if self.old.roots().len() != self.new.roots().len() {
            return Err(self.old.root().id);
        }
        let mut all = self.old.roots().zip(self.new.roots()).zip(plans);
        all.try_for_each(|((old, new), plan)| self.planned(old.id, new.id, plan))
    }

    fn planned(&self, old: u32, new: u32, plan: &Plan) -> Result<(), u32> {
        match plan {
            Plan::Same => self.same(old, new),
            Plan::Replace(value) => self.value(old, new, value),
            Plan::Mapping(mapping) => {
                let expected = self.mapping(old, mapping);
                self.shape(old, new)?;
                self.keys(old, mapping)?;
                self.children(old, new, expected)
            }
            Plan::Sequence(slots) => {
                let items = self.old.children(old);
                let expected = slots.iter().map(|slot| match slot {
                    Slot::Keep(index, plan) => Expected::Old(items[*index], plan),
                    Slot::New(value) => Expected::New(value),
                });
                self.shape(old, new)?;
                self.children(old, new, expected.collect())
            }
        }
    }

    fn mapping<'p>(&self, old: u32, plan: &'p MappingPlan) -> Vec<Expected<'p>> {
        let mut expected = Vec::new();
        let (mut changed, mut added) =
            (plan.changed.iter().peekable(), plan.added.iter().peekable());
        for (entry, pair) in self.old.children(old).chunks_exact(2).enumerate() {
            if plan.removed.binary_search(&entry).is_err() {
                let plan = changed
                    .next_if(|(number, _)| *number == entry)
                    .map_or(&Plan::Same, |(_, plan)| plan);
                expected
                    .extend([Expected::Old(pair[0], &Plan::Same), Expected::Old(pair[1], plan)]);
            }
            while let Some((_, key, value)) = added.next_if(|(number, ..)| *number == entry) {
                expected.extend([Expected::Key(key), Expected::New(value)]);
            }
        }
        expected
    }

    /// A key on several lines that gets its first value: not every reader takes a colon behind such
    /// a key.
    fn keys(&self, old: u32, plan: &MappingPlan) -> Result<(), u32> {
        let children = self.old.children(old);
        let text = |id: u32| &self.old.source()[self.old.node(id).span()];
        let is_unreadable = plan.changed.iter().any(|(entry, _)| {
            let (key, value) = (children[entry * 2], children[entry * 2 + 1]);
            text(value).is_empty() && text(key).contains(['\n', '\r'])
        });
        if is_unreadable { Err(old) } else { Ok(()) }
    }

    fn children(&self, old: u32, new: u32, expected: Vec<Expected<'_>>) -> Result<(), u32> {
        let found = self.new.children(new);
        if found.len() != expected.len() {
            return Err(old);
        }
        for (expected, &new) in expected.into_iter().zip(found) {
            match expected {
                Expected::Old(id, plan) => self.planned(id, new, plan)?,
                Expected::Key(key) => self.text(old, new, key)?,
                Expected::New(value) => self.value(old, new, value)?,
            }
        }
        Ok(())
    }

    /// An untouched node: value, style, anchor, tag, and everything in it.
    fn same(&self, old: u32, new: u32) -> Result<(), u32> {
        self.shape(old, new)?;
        let (before, after) = (self.old.data(old), self.new.data(new));
        if before.shape == Shape::Alias
            && self.old.source()[self.old.node(old).span()]
                != self.new.source()[self.new.node(new).span()]
        {
            return Err(old);
        }
        if before.explicit != after.explicit
            || self.old.scalar_text(old) != self.new.scalar_text(new)
        {
            return Err(old);
        }
        let (children, found) = (self.old.children(old), self.new.children(new));
        if children.len() != found.len() {
            return Err(old);
        }
        children.iter().zip(found).try_for_each(|(&old, &new)| self.same(old, new))
    }

    /// The kind and style of a node, its anchor and its tag.
    fn shape(&self, old: u32, new: u32) -> Result<(), u32> {
        let same = self.old.data(old).shape == self.new.data(new).shape
            && properties(self.old, old) == properties(self.new, new);
        if same { Ok(()) } else { Err(old) }
    }

    fn text(&self, near: u32, new: u32, text: &str) -> Result<(), u32> {
        let plain = self.new.data(new).shape == Shape::Scalar(Style::Plain);
        let same =
            self.new.scalar_text(new) == Some(text) && (!plain || is_plain_text(text, false));
        if same { Ok(()) } else { Err(near) }
    }

    fn value(&self, near: u32, new: u32, value: &Value) -> Result<(), u32> {
        let shape = self.new.data(new).shape;
        let found = self.new.children(new);
        let same = match value {
            Value::Text(text) => return self.text(near, new, text),
            Value::Bool(value) => self.plain(new, if *value { "true" } else { "false" }),
            Value::Mapping(entries) => {
                for (pair, (key, value)) in found.chunks_exact(2).zip(entries) {
                    self.text(near, pair[0], key)?;
                    self.value(near, pair[1], value)?;
                }
                matches!(shape, Shape::Mapping { .. }) && found.len() == entries.len() * 2
            }
            Value::Sequence(items) => {
                found
                    .iter()
                    .zip(items)
                    .try_for_each(|(&new, value)| self.value(near, new, value))?;
                matches!(shape, Shape::Sequence { .. }) && found.len() == items.len()
            }
        };
        if same { Ok(()) } else { Err(near) }
    }

    fn plain(&self, new: u32, word: &str) -> bool {
        self.new.data(new).shape == Shape::Scalar(Style::Plain)
            && self.new.scalar_text(new) == Some(word)
    }
}

/// The anchor and the tag of a node, as they stand before it.
fn properties(document: &Document, id: u32) -> &str {
    let data = document.data(id);
    document.source()[data.outer as usize..data.start as usize].trim_end()
}
