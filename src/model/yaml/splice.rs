//! From planned changes to a new text: one pass over the nodes that change collects replacements of
//! byte ranges, one pass over the source applies them.
//!
//! What belongs to whom: a comment behind a node on its line is the node's; comment lines directly
//! above an entry or item, in its column, are its own, except above the first entry of a mapping,
//! where they may speak of the whole; comment lines indented deeper than an entry, directly behind
//! it, are its own too.

use std::ops::Range;

use super::document::{Document, NONE, Node, NodeData, Shape, Style, YamlError};
use super::parse::{line_end, line_start, trivia_end};
use super::plan::{MappingPlan, Plan, Slot};
use super::value::{Layout, Value};

/// The text of `document` with `plans` carried out, one for each document of it.
pub fn splice(document: &Document, plans: &[Plan]) -> Result<String, YamlError> {
    let mut splicer = Splicer {
        document,
        text: document.source(),
        layout: layout(document),
        splices: Vec::new(),
    };
    for (root, plan) in document.roots().zip(plans) {
        splicer.node(root, plan, Place { flow: false, column: None })?;
    }
    let end = document.source().len();
    let last_lines_change = splicer.splices.iter().any(|splice| {
        splice.range.end == end && (splice.text.is_empty() || splice.text.contains('\n'))
    });
    let mut text = splicer.render(0..end, 0);
    if last_lines_change && !text.ends_with('\n') {
        // Readers disagree about a block scalar at the very end without a line break.
        text.push_str(splicer.layout.newline);
    }
    Ok(text)
}

/// The habits of `document`, as its first nodes of each sort show them.
fn layout(document: &Document) -> Layout {
    let text = document.source();
    let mut layout = Layout::DEFAULT;
    if text.contains("\r\n") {
        layout.newline = "\r\n";
    }
    let (mut mapping, mut sequence, mut item, mut quote) = (false, false, false, false);
    for id in 0..document.len() {
        let data = document.data(id);
        match data.shape {
            Shape::Scalar(style @ (Style::Single | Style::Double)) if !quote => {
                layout.quote = style;
                quote = true;
            }
            Shape::Mapping { flow: false } => {
                for pair in document.children(id).chunks_exact(2) {
                    let value = document.data(pair[1]);
                    let step = || {
                        column(text, value.start as usize)
                            .checked_sub(column(text, data.start as usize))
                    };
                    match value.shape {
                        Shape::Mapping { flow: false } if !mapping => {
                            layout.mapping_step =
                                step().filter(|&step| step > 0).unwrap_or(layout.mapping_step);
                            mapping = true;
                        }
                        Shape::Sequence { flow: false } if !sequence => {
                            layout.sequence_step = step().unwrap_or(layout.sequence_step);
                            sequence = true;
                        }
                        _ => {}
                    }
                    if mapping && sequence {
                        break;
                    }
                }
            }
            Shape::Sequence { flow: false } if !item => {
                let first = document.children(id).first().map(|&item| document.data(item));
                if let Some(first) =
                    first.filter(|first| matches!(first.shape, Shape::Mapping { flow: false }))
                {
                    let gap = &text[first.indicator as usize + 1..first.outer as usize];
                    if gap.bytes().all(|byte| byte == b' ') {
                        layout.dash_step = gap.len() + 1;
                        item = true;
                    }
                }
            }
            _ => {}
        }
        if mapping && sequence && item && quote {
            break;
        }
    }
    layout
}

/// A range of the source and what stands there instead.
struct Splice {
    range: Range<usize>,
    text: String,
}

/// Where a node stands.
#[derive(Clone, Copy)]
struct Place {
    /// Inside brackets.
    flow: bool,
    /// The column of the keys of the block mapping whose value it is; `None` for the root and for
    /// items.
    column: Option<usize>,
}

/// Where the items of a block list stand.
struct ItemLines<'d> {
    /// The first byte of the first item's own comments, or its dash.
    start: usize,
    /// The column of the dashes.
    column: usize,
    /// Whether something else stands before the first dash on its line.
    shares_line: bool,
    dashes: Vec<usize>,
    /// The lines above each item that are not another's.
    leads: Vec<&'d str>,
    /// The end of the last line of each item.
    tails: Vec<usize>,
}

struct Splicer<'d> {
    document: &'d Document,
    text: &'d str,
    layout: Layout,
    /// In the order of the source; those at one offset in the order in which they are written.
    splices: Vec<Splice>,
}

impl<'d> Splicer<'d> {
    fn data(&self, node: Node<'_>) -> &'d NodeData {
        self.document.data(node.id)
    }

    fn put(&mut self, range: Range<usize>, text: impl Into<String>) {
        self.splices.push(Splice { range, text: text.into() });
    }

    /// The text of `range` with the splices from number `first` on, which are used up.
    fn render(&mut self, range: Range<usize>, first: usize) -> String {
        let mut splices = self.splices.split_off(first);
        splices.sort_by_key(|splice| splice.range.start);
        let mut out = String::with_capacity(
            range.len() + splices.iter().map(|splice| splice.text.len()).sum::<usize>(),
        );
        let mut at = range.start;
        for splice in splices {
            // Ranges that overlap would show in the verification; slicing must not fail before it.
            out.push_str(self.text.get(at..splice.range.start).unwrap_or_default());
            out.push_str(&splice.text);
            at = at.max(splice.range.end);
        }
        out.push_str(self.text.get(at..range.end).unwrap_or_default());
        out
    }

    fn node(&mut self, node: Node<'d>, plan: &Plan, place: Place) -> Result<(), YamlError> {
        match plan {
            Plan::Same => Ok(()),
            Plan::Replace(value) => self.replace(node, value, place),
            Plan::Mapping(plan) => match self.data(node).shape {
                Shape::Mapping { flow: true } => self.flow_mapping(node, plan),
                _ => self.block_mapping(node, plan),
            },
            Plan::Sequence(slots) => match self.data(node).shape {
                Shape::Sequence { flow: true } => self.flow_sequence(node, slots),
                _ => self.block_sequence(node, slots),
            },
        }
    }

    // Whole nodes.

    fn replace(&mut self, node: Node<'d>, value: &Value, place: Place) -> Result<(), YamlError> {
        let data = *self.data(node);
        let tagged = data.outer != data.start;
        let in_lines =
            matches!(data.shape, Shape::Mapping { flow: false } | Shape::Sequence { flow: false });
        let becomes_lines = !place.flow && self.layout.is_block(value, Some(node));
        if tagged && (in_lines || becomes_lines) {
            return Err(node.error("a list or mapping with an anchor or tag is not replaced"));
        }
        match place.column {
            Some(column) if in_lines || becomes_lines => {
                self.replace_lines(node, value, column, in_lines, becomes_lines);
                Ok(())
            }
            None if becomes_lines || in_lines => {
                self.replace_root(node, value);
                Ok(())
            }
            _ => {
                self.replace_inline(node, value, place.flow);
                Ok(())
            }
        }
    }

    /// A scalar, flow collection or nothing becomes something on one line.
    fn replace_inline(&mut self, node: Node<'d>, value: &Value, flow: bool) {
        let data = *self.data(node);
        let mut text = String::new();
        if data.start == data.end {
            // Behind `key`, `key:`, `-` or a tag; an empty document has nothing to stand behind.
            let lone_key = data.indicator == NONE && flow;
            text.push_str(if lone_key { ": " } else { " " });
        }
        self.layout.inline(&mut text, value, Some(node), flow);
        if matches!(data.shape, Shape::Scalar(Style::Literal | Style::Folded)) {
            let header = &self.text[data.start as usize..line_end(self.text, data.start as usize)];
            if let Some(comment) = header.find(" #") {
                text.push_str(&header[comment..]);
            }
        }
        let end = self.content_end(&data);
        self.put(data.start as usize..end, text);
    }

    /// A value is replaced, and it stood, or will stand, on lines below its key.
    fn replace_lines(
        &mut self,
        node: Node<'d>,
        value: &Value,
        column: usize,
        in_lines: bool,
        becomes_lines: bool,
    ) {
        let data = *self.data(node);
        let colon = data.indicator as usize;
        let mut below = String::new();
        if becomes_lines {
            let step = match (value, data.shape) {
                (Value::Sequence(_), _) => self.layout.sequence_step,
                _ => self.layout.mapping_step,
            };
            self.layout.line(&mut below, column + step);
            self.layout.block(&mut below, value, Some(node), column + step);
        } else {
            let mut text = " ".to_owned();
            self.layout.inline(&mut text, value, Some(node), false);
            self.put(colon + 1..colon + 1, text);
        }
        if in_lines {
            self.put(line_end(self.text, colon)..self.tail(data.end as usize, column), below);
        } else {
            let end = self.content_end(&data);
            self.put(colon + 1..end, "");
            let line = self.last_line_end(data.end as usize).max(end);
            self.put(line..line, below);
        }
    }

    /// The root is replaced, and it has, or will have, lines.
    fn replace_root(&mut self, node: Node<'d>, value: &Value) {
        let data = *self.data(node);
        let (start, end) = (data.start as usize, self.content_end(&data));
        let mut text = String::new();
        let empty = start == end;
        let begins_line = start == self.line_start(start);
        let at = if empty && !begins_line { line_end(self.text, start) } else { start };
        if at > start || (empty && !begins_line) {
            text.push_str(self.layout.newline);
        }
        if self.layout.is_block(value, Some(node)) {
            self.layout.block(&mut text, value, Some(node), 0);
        } else {
            self.layout.inline(&mut text, value, Some(node), false);
        }
        if empty && line_end(self.text, at) == self.text.len() {
            text.push_str(self.layout.newline);
        }
        self.put(at..end.max(at), text);
    }

    // Mappings.

    fn block_mapping(&mut self, node: Node<'d>, plan: &MappingPlan) -> Result<(), YamlError> {
        let children = self.document.children(node.id);
        let first = self.document.data(children[0]).outer as usize;
        let column = column(self.text, first);
        let place = Place { flow: false, column: Some(column) };
        for (entry, plan) in &plan.changed {
            self.node(self.document.node(children[entry * 2 + 1]), plan, place)?;
        }
        self.remove_entries(node, &plan.removed, column)?;
        for (entry, key, value) in &plan.added {
            let end = self.tail(self.document.data(children[entry * 2 + 1]).end as usize, column);
            let mut text = String::new();
            self.layout.line(&mut text, column);
            self.layout.entry(&mut text, key, value, Some(node), column, false);
            self.put(end..end, text);
        }
        Ok(())
    }

    fn remove_entries(
        &mut self,
        node: Node<'d>,
        removed: &[usize],
        column: usize,
    ) -> Result<(), YamlError> {
        let children = self.document.children(node.id);
        let spans = children.chunks_exact(2).map(|pair| {
            let (key, value) = (self.document.data(pair[0]), self.document.data(pair[1]));
            key.outer as usize..value.end as usize
        });
        let spans: Vec<Range<usize>> = spans.collect();
        // The first entry may share its line with a dash, or begin the file: the entries that go
        // from the first on make room for the one that stays.
        let gone =
            removed.iter().enumerate().take_while(|(number, entry)| number == *entry).count();
        let first_line = self.line_start(spans[0].start);
        let shares_line = !self.text[first_line..spans[0].start].trim().is_empty();
        let begins_file = self.line_break_before(first_line) == first_line;
        let mut rest = removed;
        if gone > 0 && (shares_line || begins_file) {
            let tail = self.tail(spans[gone - 1].end, column);
            if shares_line && self.text[tail..spans[gone].start].contains('#') {
                return Err(self
                    .document
                    .node(children[0])
                    .error("the comment below this entry leaves no room to remove it"));
            }
            self.put(
                spans[0].start..if shares_line { spans[gone].start } else { self.next_line(tail) },
                "",
            );
            rest = &removed[gone..];
        }
        for &entry in rest {
            let floor = if entry == 0 {
                spans[0].start
            } else {
                self.next_line(self.tail(spans[entry - 1].end, column))
            };
            let from = self.line_break_before(self.lead(spans[entry].start, column, floor));
            self.put(from..self.tail(spans[entry].end, column), "");
        }
        Ok(())
    }

    fn flow_mapping(&mut self, node: Node<'d>, plan: &MappingPlan) -> Result<(), YamlError> {
        let children = self.document.children(node.id);
        let place = Place { flow: true, column: None };
        if plan.removed.is_empty() && plan.added.is_empty() {
            for (entry, plan) in &plan.changed {
                self.node(self.document.node(children[entry * 2 + 1]), plan, place)?;
            }
            return Ok(());
        }
        if let Some(&key) =
            children.iter().step_by(2).find(|&&key| self.document.data(key).explicit)
        {
            return Err(self
                .document
                .node(key)
                .error("a mapping with a key written with `?` is not edited"));
        }
        let members: Vec<_> = children
            .chunks_exact(2)
            .map(|pair| {
                self.document.data(pair[0]).outer as usize..self.document.data(pair[1]).end as usize
            })
            .collect();
        let mut slots = Vec::with_capacity(members.len() + plan.added.len());
        let (mut changed, mut added) =
            (plan.changed.iter().peekable(), plan.added.iter().peekable());
        for (entry, pair) in children.chunks_exact(2).enumerate() {
            if plan.removed.binary_search(&entry).is_err() {
                let first = self.splices.len();
                if let Some((_, plan)) = changed.next_if(|(number, _)| *number == entry) {
                    self.node(self.document.node(pair[1]), plan, place)?;
                }
                slots.push((Some(entry), self.render(members[entry].clone(), first)));
            }
            while let Some((_, key, value)) = added.next_if(|(number, ..)| *number == entry) {
                let mut text = String::new();
                self.layout.entry(&mut text, key, value, Some(node), 0, true);
                slots.push((None, text));
            }
        }
        self.flow_members(node, &members, slots)
    }

    // Lists.

    fn flow_sequence(&mut self, node: Node<'d>, slots: &[Slot]) -> Result<(), YamlError> {
        let items = self.document.children(node.id);
        let place = Place { flow: true, column: None };
        if self.change_in_place(items, slots, place)? {
            return Ok(());
        }
        let members = items.iter().map(|&id| self.document.data(id));
        let members: Vec<_> = members.map(|data| data.outer as usize..data.end as usize).collect();
        let mut texts = Vec::with_capacity(slots.len());
        for slot in slots {
            texts.push(match slot {
                Slot::Keep(index, plan) => {
                    let first = self.splices.len();
                    self.node(self.document.node(items[*index]), plan, place)?;
                    (Some(*index), self.render(members[*index].clone(), first))
                }
                Slot::New(value) => {
                    let model = items
                        .iter()
                        .map(|&id| self.document.node(id))
                        .find(|&item| value.is_like(item));
                    let mut text = String::new();
                    self.layout.inline(&mut text, value, model, true);
                    (None, text)
                }
            });
        }
        self.flow_members(node, &members, texts)
    }

    /// Writes the inside of a flow collection anew from its members' texts. Each old member brings
    /// the comments before it and behind its comma.
    fn flow_members(
        &mut self,
        node: Node<'d>,
        members: &[Range<usize>],
        slots: Vec<(Option<usize>, String)>,
    ) -> Result<(), YamlError> {
        let data = *self.data(node);
        let (open, close) = (data.start as usize + 1, data.end as usize - 1);
        if !matches!(self.text.as_bytes()[open - 1], b'[' | b'{') {
            return Err(node.error("a pair inside a list is not edited"));
        }
        let mut around = Vec::with_capacity(members.len());
        let (mut at, mut trailing_comma) = (open, false);
        for member in members {
            let before = at..member.start;
            let comma = trivia_end(self.text, member.end);
            trailing_comma = self.text[comma..].starts_with(',');
            let behind = if trailing_comma { comma + 1 } else { member.end };
            at = self.same_line_comment(behind, close);
            let inner = if trailing_comma { member.end..comma } else { member.end..member.end };
            around.push((before, inner, behind..at));
        }
        let closing = &self.text[at..close];
        let first =
            around.first().map_or("", |(before, ..)| whitespace(&self.text[before.clone()]));
        let separator = match around.get(1) {
            Some((before, ..)) => whitespace(&self.text[before.clone()]),
            None if first.contains('\n') => first,
            None => " ",
        };
        let mut text = String::new();
        let mut needs_break = false;
        let count = slots.len();
        for (number, (old, body)) in slots.into_iter().enumerate() {
            let (before, inner, behind) = match old {
                Some(index) => around[index].clone(),
                None => (0..0, 0..0, 0..0),
            };
            let mut lead = &self.text[before];
            if !lead.contains('#') {
                lead = if number == 0 { first } else { separator };
            }
            if needs_break && !lead.trim_start_matches([' ', '\t']).starts_with(['\n', '\r']) {
                self.layout.line(&mut text, column(self.text, members[0].start));
            }
            text.push_str(lead);
            text.push_str(&body);
            text.push_str(&self.text[inner]);
            if number + 1 < count || trailing_comma {
                // Not every reader takes `key:,` for a key without a value.
                text.push_str(if text.ends_with(':') { " ," } else { "," });
            }
            text.push_str(&self.text[behind.clone()]);
            needs_break = self.text[behind].contains('#');
        }
        if needs_break && !closing.trim_start_matches([' ', '\t']).starts_with(['\n', '\r']) {
            self.layout.line(&mut text, column(self.text, members[0].start));
        }
        if !members.is_empty() || closing.contains('#') {
            text.push_str(closing);
        }
        self.put(open..close, text);
        Ok(())
    }

    fn block_sequence(&mut self, node: Node<'d>, slots: &[Slot]) -> Result<(), YamlError> {
        let items = self.document.children(node.id);
        let place = Place { flow: false, column: None };
        if self.change_in_place(items, slots, place)? {
            return Ok(());
        }
        let lines = self.item_lines(node);
        let blank = lines.leads.get(1).map_or("", |lead| blank_lines(lead).0);
        // Comments that a blank line sets apart from an item that goes stay where they are.
        let mut orphans: Vec<_> = lines.leads.iter().map(|lead| detached(lead)).collect();
        for slot in slots {
            if let Slot::Keep(index, _) = slot {
                orphans[*index] = "";
            }
        }
        let mut released = 0;
        let mut text = String::new();
        for (number, slot) in slots.iter().enumerate() {
            let mut above = String::new();
            let body = match slot {
                Slot::Keep(index, plan) => {
                    while released < *index {
                        above.push_str(std::mem::take(&mut orphans[released]));
                        released += 1;
                    }
                    above.push_str(if number > 0 && *index == 0 { blank } else { "" });
                    above.push_str(lines.leads[*index]);
                    self.block_item(items[*index], plan, &lines, *index)?
                }
                Slot::New(value) => {
                    above.push_str(if number > 0 { blank } else { "" });
                    self.new_item(items, value, lines.column)
                }
            };
            let above = if number == 0 { blank_lines(&above).1 } else { &above };
            if number > 0 {
                text.push_str(self.layout.newline);
            } else if lines.shares_line && !above.is_empty() {
                return Err(node.error("the comments in this list leave no room to rearrange it"));
            }
            text.push_str(above);
            if number > 0 || !lines.shares_line {
                text.extend(std::iter::repeat_n(' ', lines.column));
            }
            text.push_str(&body);
        }
        for orphan in orphans.into_iter().filter(|orphan| !orphan.is_empty()) {
            text.push_str(self.layout.newline);
            text.push_str(orphan.trim_end_matches(['\n', '\r']));
        }
        self.put(lines.start..lines.tails[items.len() - 1], text);
        Ok(())
    }

    fn item_lines(&self, node: Node<'d>) -> ItemLines<'d> {
        let items = self.document.children(node.id);
        let dashes: Vec<_> =
            items.iter().map(|&id| self.document.data(id).indicator as usize).collect();
        let column = column(self.text, dashes[0]);
        let tails: Vec<_> = items
            .iter()
            .map(|&id| self.tail(self.document.data(id).end as usize, column))
            .collect();
        let first_line = self.line_start(dashes[0]);
        let shares_line = !self.text[first_line..dashes[0]].trim().is_empty();
        let start = if shares_line {
            dashes[0]
        } else {
            let above = self.data(node).indicator;
            let floor = if above == NONE { first_line } else { self.next_line(above as usize) };
            self.lead(dashes[0], column, floor)
        };
        let mut leads = vec![if shares_line { "" } else { &self.text[start..first_line] }];
        leads.extend((1..items.len()).map(|index| {
            &self.text[self.next_line(tails[index - 1])..self.line_start(dashes[index])]
        }));
        ItemLines { start, column, shares_line, dashes, leads, tails }
    }

    /// Changes items where they are, if all of them stay and none needs new lines; says whether it
    /// did.
    fn change_in_place(
        &mut self,
        items: &[u32],
        slots: &[Slot],
        place: Place,
    ) -> Result<bool, YamlError> {
        let in_place = slots.iter().enumerate().all(|(number, slot)| match slot {
            Slot::Keep(index, plan) => {
                *index == number && (place.flow || !self.needs_new_lines(items[*index], plan))
            }
            Slot::New(_) => false,
        });
        if !in_place || slots.len() != items.len() {
            return Ok(false);
        }
        for (slot, &item) in slots.iter().zip(items) {
            if let Slot::Keep(_, plan) = slot {
                self.node(self.document.node(item), plan, place)?;
            }
        }
        Ok(true)
    }

    /// Whether an item is replaced by, or was, a block collection: its lines are written anew.
    fn needs_new_lines(&self, item: u32, plan: &Plan) -> bool {
        let block = matches!(
            self.document.data(item).shape,
            Shape::Mapping { flow: false } | Shape::Sequence { flow: false }
        );
        matches!(plan, Plan::Replace(value) if block || self.layout.is_block(value, Some(self.document.node(item))))
    }

    /// The text of a kept item from its dash on.
    fn block_item(
        &mut self,
        item: u32,
        plan: &Plan,
        lines: &ItemLines<'d>,
        index: usize,
    ) -> Result<String, YamlError> {
        match plan {
            Plan::Replace(value) if self.needs_new_lines(item, plan) => {
                let mut text = self.new_item(&[item], value, lines.column);
                let data = self.document.data(item);
                if !matches!(
                    data.shape,
                    Shape::Mapping { flow: false } | Shape::Sequence { flow: false }
                ) {
                    let end = self.content_end(data);
                    text.insert_str(line_end(&text, 0), &self.text[end..line_end(self.text, end)]);
                }
                Ok(text)
            }
            _ => {
                let first = self.splices.len();
                self.node(self.document.node(item), plan, Place { flow: false, column: None })?;
                Ok(self.render(lines.dashes[index]..lines.tails[index], first))
            }
        }
    }

    fn new_item(&self, siblings: &[u32], value: &Value, column: usize) -> String {
        let mut siblings = siblings.iter().map(|&id| self.document.node(id));
        let like = siblings.clone().find(|&item| value.is_like(item));
        let model = like.or_else(|| siblings.find(|item| item.style().is_some()));
        let mut text = String::new();
        self.layout.item(&mut text, value, model, column);
        text
    }

    // Geometry.

    /// Where the line of `offset` begins.
    fn line_start(&self, offset: usize) -> usize {
        line_start(self.text, offset)
    }

    /// Where the line break stands that ends before `line_start`; `line_start` when there is none.
    fn line_break_before(&self, line_start: usize) -> usize {
        let before = &self.text[..line_start];
        let line = before
            .strip_suffix('\n')
            .map_or(before, |rest| rest.strip_suffix('\r').unwrap_or(rest));
        if line.len() == before.len() {
            before.strip_suffix('\r').map_or(line_start, str::len)
        } else {
            line.len()
        }
    }

    /// The first byte of the line after the one whose end is `line_end`.
    fn next_line(&self, offset: usize) -> usize {
        let end = line_end(self.text, offset);
        let rest = &self.text[end..];
        end + if rest.starts_with("\r\n") { 2 } else { usize::from(!rest.is_empty()) }
    }

    /// The end of the last line of a node that ends at `end`: a block scalar that keeps its blank
    /// lines ends behind a line break.
    fn last_line_end(&self, end: usize) -> usize {
        let before = &self.text[..end];
        let content = before
            .strip_suffix('\n')
            .map_or(before, |rest| rest.strip_suffix('\r').unwrap_or(rest));
        if content.len() < end { content.len() } else { line_end(self.text, end) }
    }

    /// Where the content of a node ends, without the line break that a block scalar may keep.
    fn content_end(&self, data: &NodeData) -> usize {
        let end = data.end as usize;
        if data.start == data.end { end } else { end.min(self.last_line_end(end)) }
    }

    /// The end of the last line that belongs to an entry or item at `column` whose content ends at
    /// `end`: comment lines indented deeper than `column` are its own.
    fn tail(&self, end: usize, column: usize) -> usize {
        let mut tail = self.last_line_end(end);
        loop {
            let next = self.next_line(tail);
            let line = &self.text[next..line_end(self.text, next)];
            let indent = line.len() - line.trim_start_matches(' ').len();
            if next == tail || indent <= column || !line[indent..].starts_with('#') {
                return tail;
            }
            tail = next + line.len();
        }
    }

    /// Where the comment lines begin that stand directly above `start`, in its `column`, not above
    /// `floor`.
    fn lead(&self, start: usize, column: usize, floor: usize) -> usize {
        let mut lead = self.line_start(start);
        while lead > floor {
            let above = self.line_start(self.line_break_before(lead));
            let line = &self.text[above..lead];
            let indent = line.len() - line.trim_start_matches(' ').len();
            if above < floor || indent != column || !line[indent..].starts_with('#') {
                break;
            }
            lead = above;
        }
        lead
    }

    /// The end of a comment on the line of `from`, or `from`.
    fn same_line_comment(&self, from: usize, limit: usize) -> usize {
        let rest = &self.text[from..limit];
        let space = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        if rest[space..].starts_with('#') { line_end(self.text, from + space) } else { from }
    }
}

/// The column of `offset`, from 0, in characters.
fn column(text: &str, offset: usize) -> usize {
    text[line_start(text, offset)..offset].chars().count()
}

/// The whitespace that `text` ends with, or " " where a comment is in it.
fn whitespace(text: &str) -> &str {
    match text.rfind('#') {
        None => text,
        Some(comment) => &text[line_end(text, comment)..],
    }
}

/// Splits off the blank lines that `lines` begins with.
fn blank_lines(lines: &str) -> (&str, &str) {
    let content = lines.len() - lines.trim_start().len();
    let blank = lines[..content].rfind('\n').map_or(0, |at| at + 1);
    lines.split_at(blank)
}

/// The comments above an item that a blank line sets apart from it, with that line.
fn detached(lead: &str) -> &str {
    let mut end = 0;
    let mut at = 0;
    for line in lead.split_inclusive('\n') {
        at += line.len();
        if line.trim().is_empty() {
            end = at;
        }
    }
    if lead[..end].contains('#') { &lead[..end] } else { "" }
}
