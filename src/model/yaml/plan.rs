//! From a list of edits to a tree of changes over the nodes of each document: contradictions, edits
//! through aliases and edits that change nothing end here.

use indexmap::IndexMap;

use super::document::{Document, Node, Shape, YamlError};
use super::edit::{Action, Edit, Item, Segment};
use super::value::Value;

/// What becomes of one node.
#[derive(Debug, PartialEq)]
pub enum Plan {
    /// It stays as it is.
    Same,
    /// It is written anew.
    Replace(Value),
    /// Entries of a mapping change.
    Mapping(MappingPlan),
    /// A list gets these items.
    Sequence(Vec<Slot>),
}

/// What becomes of a mapping that keeps at least one of its entries.
#[derive(Debug, Default, PartialEq)]
pub struct MappingPlan {
    /// What becomes of values, by entry number, ascending.
    pub changed: Vec<(usize, Plan)>,
    /// The numbers of the entries that go, ascending.
    pub removed: Vec<usize>,
    /// New entries, by the kept entry that they follow.
    pub added: Vec<(usize, String, Value)>,
}

/// One item of a list that is being rearranged.
#[derive(Debug, PartialEq)]
pub enum Slot {
    /// The item that was at this index.
    Keep(usize, Plan),
    /// A new one.
    New(Value),
}

/// The edits at and below one path.
#[derive(Default)]
struct Change<'e> {
    action: Option<&'e Action>,
    inside: IndexMap<&'e Segment, Change<'e>>,
}

impl<'e> Change<'e> {
    /// Sorts `edits` by path. Two edits of one node, or of a node and its inside, are refused.
    fn collect(
        edits: impl IntoIterator<Item = &'e Edit>,
        node: Node<'_>,
    ) -> Result<Self, YamlError> {
        let mut root = Self::default();
        for edit in edits {
            let mut change = &mut root;
            for segment in &edit.path {
                if change.action.is_some() {
                    return Err(contradiction(node, &edit.path));
                }
                change = change.inside.entry(segment).or_default();
            }
            if change.action.is_some() || !change.inside.is_empty() {
                return Err(contradiction(node, &edit.path));
            }
            change.action = Some(&edit.action);
        }
        Ok(root)
    }

    fn removes(&self) -> bool {
        matches!(self.action, Some(Action::Remove))
    }

    /// Whether it does nothing but give a mapping own entries, which whoever asks for them wants
    /// wherever the mapping is repeated.
    fn only_adds_own(&self) -> bool {
        let is_own = |one: &Self| one.after().is_some();
        self.action.is_none() && !self.inside.is_empty() && self.inside.values().all(is_own)
    }

    /// Behind which key an own entry of a mapping goes.
    fn after(&self) -> Option<&'e String> {
        match self.action {
            Some(Action::Set { after, .. }) => after.as_ref(),
            _ => None,
        }
    }

    /// What to write where nothing was; nothing when there is only something to remove.
    fn value(&self, near: Node<'_>) -> Result<Option<Value>, YamlError> {
        match self.action {
            Some(Action::Set { value, .. }) => Ok(Some(value.clone())),
            Some(Action::Remove) => Ok(None),
            Some(Action::Rearrange(items)) => {
                new_items(items, near).map(|items| Some(Value::Sequence(items)))
            }
            None => {
                let mut entries = Vec::new();
                for (segment, change) in &self.inside {
                    let Segment::Key(key) = segment else {
                        return Err(near.error("there is no list to edit here"));
                    };
                    if let Some(value) = change.value(near)? {
                        entries.push((key.clone(), value));
                    }
                }
                Ok(if entries.is_empty() { None } else { Some(Value::Mapping(entries)) })
            }
        }
    }
}

fn contradiction(node: Node<'_>, path: &[Segment]) -> YamlError {
    let steps: Vec<_> = path
        .iter()
        .map(|segment| match segment {
            Segment::Key(key) => key.clone(),
            Segment::Index(index) => index.to_string(),
        })
        .collect();
    node.error(format!("two edits contradict each other at `{}`", steps.join(".")))
}

/// The items of a list that did not exist before.
fn new_items(items: &[Item], near: Node<'_>) -> Result<Vec<Value>, YamlError> {
    let values = items.iter().map(|item| match item {
        Item::New(value) => Ok(value.clone()),
        Item::Keep(index, _) => Err(near.error(format!("there is no item {index} to keep"))),
    });
    values.collect()
}

/// What `edits` make of each document of the text.
pub fn plan(document: &Document, edits: &[Edit]) -> Result<Vec<Plan>, YamlError> {
    let plans = document.roots().enumerate().map(|(number, root)| {
        let edits = edits.iter().filter(|edit| edit.document == number);
        Planner { document }.node(root, &Change::collect(edits, root)?)
    });
    plans.collect()
}

struct Planner<'d> {
    document: &'d Document,
}

impl<'d> Planner<'d> {
    fn node(&self, node: Node<'d>, change: &Change<'_>) -> Result<Plan, YamlError> {
        if change.action.is_none() && change.inside.is_empty() {
            return Ok(Plan::Same);
        }
        if !change.only_adds_own() || self.document.data(node.id).shape == Shape::Alias {
            self.refuse_indirect(node)?;
        }
        match change.action {
            Some(Action::Set { value, .. }) if is_already(node, value) => Ok(Plan::Same),
            Some(Action::Set { value, .. }) => self.replace(node, value.clone()),
            Some(Action::Remove) => Err(node.error("the whole document cannot be removed")),
            Some(Action::Rearrange(items)) => self.rearrange(node, items),
            None => self.inside(node, change),
        }
    }

    fn replace(&self, node: Node<'d>, value: Value) -> Result<Plan, YamlError> {
        self.refuse_shared_inside(node)?;
        Ok(Plan::Replace(value))
    }

    fn inside(&self, node: Node<'d>, change: &Change<'_>) -> Result<Plan, YamlError> {
        match self.document.data(node.id).shape {
            Shape::Null => Ok(change.value(node)?.map_or(Plan::Same, Plan::Replace)),
            Shape::Mapping { .. } => self.mapping(node, change),
            Shape::Sequence { .. } => self.sequence(node, change),
            Shape::Scalar(_) | Shape::Alias => {
                Err(node.error("text stands where a mapping or a list was to be edited"))
            }
        }
    }

    fn mapping(&self, node: Node<'d>, change: &Change<'_>) -> Result<Plan, YamlError> {
        let children = self.document.children(node.id);
        let mut plan = MappingPlan::default();
        let mut fresh: Vec<(Option<&String>, &String, Value)> = Vec::new();
        for (segment, inside) in &change.inside {
            let Segment::Key(key) = segment else {
                return Err(node.error("expected a list, found a mapping"));
            };
            if let Some(entry) = self.document.own_entry(node.id, key) {
                let (name, value) = (
                    self.document.node(children[entry * 2]),
                    self.document.node(children[entry * 2 + 1]),
                );
                if self.document.data(name.id).explicit || name.is_alias() {
                    return Err(
                        name.error("an entry whose key is written with `?` or `*` is not edited")
                    );
                }
                if inside.removes() {
                    self.refuse_shared_inside(name)?;
                    self.refuse_shared_inside(value)?;
                    plan.removed.push(entry);
                } else {
                    match self.node(value, inside)? {
                        Plan::Same => {}
                        changed => plan.changed.push((entry, changed)),
                    }
                }
            } else {
                let value = inside.value(node)?;
                let after = inside.after();
                let is_said = value.is_some() || inside.removes();
                if is_said && after.is_none() && node.get(key).is_some() {
                    return Err(node.error(format!(
                        "`{key}` comes from a merge key (`<<`) here: edit it where it is written"
                    )));
                }
                let Some(value) = value else { continue };
                fresh.push((after, key, value));
            }
        }
        plan.changed.sort_by_key(|(entry, _)| *entry);
        plan.removed.sort_unstable();
        let count = children.len() / 2;
        let Some(last) = (0..count).rev().find(|entry| plan.removed.binary_search(entry).is_err())
        else {
            if plan.removed.is_empty() && fresh.is_empty() {
                return Ok(Plan::Same);
            }
            return Ok(Plan::Replace(Value::Mapping(
                fresh.into_iter().map(|(_, key, value)| (key.clone(), value)).collect(),
            )));
        };
        for (after, key, value) in fresh {
            let earlier = plan.added.iter().position(|(_, name, _)| Some(name) == after);
            let follows = after.and_then(|after| self.document.own_entry(node.id, after));
            match (earlier, follows.filter(|entry| plan.removed.binary_search(entry).is_err())) {
                (Some(at), _) => plan.added.insert(at + 1, (plan.added[at].0, key.clone(), value)),
                (None, entry) => plan.added.push((entry.unwrap_or(last), key.clone(), value)),
            }
        }
        plan.added.sort_by_key(|(entry, ..)| *entry);
        Ok(if plan == MappingPlan::default() { Plan::Same } else { Plan::Mapping(plan) })
    }

    fn sequence(&self, node: Node<'d>, change: &Change<'_>) -> Result<Plan, YamlError> {
        let items = self.document.children(node.id);
        let mut plans: Vec<Option<Plan>> = items.iter().map(|_| Some(Plan::Same)).collect();
        for (segment, inside) in &change.inside {
            let Segment::Index(index) = segment else {
                return Err(node.error("expected a mapping, found a list"));
            };
            match plans.get_mut(*index) {
                Some(plan) if inside.removes() => {
                    self.refuse_shared_inside(self.document.node(items[*index]))?;
                    *plan = None;
                }
                Some(plan) => *plan = Some(self.node(self.document.node(items[*index]), inside)?),
                None if inside.removes() => {}
                None => return Err(node.error(format!("there is no item {index} in this list"))),
            }
        }
        let kept = plans.into_iter().enumerate();
        self.slots(
            node,
            kept.filter_map(|(index, plan)| plan.map(|plan| Slot::Keep(index, plan))).collect(),
        )
    }

    fn rearrange(&self, node: Node<'d>, items: &[Item]) -> Result<Plan, YamlError> {
        let old = match self.document.data(node.id).shape {
            Shape::Sequence { .. } => self.document.children(node.id),
            Shape::Null => return Ok(Plan::Replace(Value::Sequence(new_items(items, node)?))),
            _ => return node.sequence().map(|_| Plan::Same),
        };
        let mut kept = vec![false; old.len()];
        let mut slots = Vec::with_capacity(items.len());
        for item in items {
            slots.push(match item {
                Item::New(value) => Slot::New(value.clone()),
                Item::Keep(index, edits) => {
                    if kept.get(*index) != Some(&false) {
                        return Err(node.error(format!(
                            "there is no item {index} to keep, or it is kept twice"
                        )));
                    }
                    kept[*index] = true;
                    let item = self.document.node(old[*index]);
                    Slot::Keep(*index, self.node(item, &Change::collect(edits, item)?)?)
                }
            });
        }
        self.slots(node, slots)
    }

    fn slots(&self, node: Node<'d>, slots: Vec<Slot>) -> Result<Plan, YamlError> {
        let in_place = slots.len() == self.document.children(node.id).len()
            && slots
                .iter()
                .enumerate()
                .all(|(index, slot)| matches!(slot, Slot::Keep(old, _) if *old == index));
        if in_place && slots.iter().all(|slot| matches!(slot, Slot::Keep(_, Plan::Same))) {
            return Ok(Plan::Same);
        }
        if !in_place {
            self.refuse_shared_inside(node)?;
        }
        Ok(if slots.is_empty() {
            Plan::Replace(Value::Sequence(Vec::new()))
        } else {
            Plan::Sequence(slots)
        })
    }

    /// Refuses to change through an alias, or what other places of the document repeat with one.
    fn refuse_indirect(&self, node: Node<'d>) -> Result<(), YamlError> {
        let data = self.document.data(node.id);
        if data.shape == Shape::Alias {
            return Err(node.error("this is an alias: edit what it names instead"));
        }
        if data.shared {
            return Err(
                node.error("this is repeated elsewhere by an alias of its anchor: edit it by hand")
            );
        }
        Ok(())
    }

    /// Refuses to drop or move what an alias elsewhere names.
    fn refuse_shared_inside(&self, node: Node<'d>) -> Result<(), YamlError> {
        let data = self.document.data(node.id);
        let first = self.document.shared.partition_point(|&anchor| anchor < data.outer);
        match self.document.shared.get(first) {
            Some(&anchor) if anchor < data.end => {
                let position = self.document.position(anchor as usize);
                Err(YamlError::new(
                    position,
                    "an alias elsewhere names this anchor: edit it by hand",
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Whether `node` already reads as `value`; text counts whatever its quotes.
fn is_already(node: Node<'_>, value: &Value) -> bool {
    match value {
        Value::Text(text) => node.as_text() == Some(text),
        Value::Bool(value) => node.boolean().is_ok_and(|old| old == *value),
        Value::Mapping(entries) => {
            let old = node.entries();
            node.mapping().is_ok()
                && old.len() == entries.len()
                && old.zip(entries).all(|((name, old), (key, value))| {
                    name.as_text() == Some(key) && is_already(old, value)
                })
        }
        Value::Sequence(items) => {
            let old = node.items();
            node.sequence().is_ok()
                && old.len() == items.len()
                && old.zip(items).all(|(old, value)| is_already(old, value))
        }
    }
}
