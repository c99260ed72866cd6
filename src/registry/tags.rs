//! The list of a repository's tags, page after page, and what is left of it where a page fails.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use indexmap::IndexSet;
use reqwest::{Method, header};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::client::Client;
use super::error;
use super::link;
use super::session::Query;
use crate::model::reference::{Repository, Tag};

/// Tags asked for per page; ECR refuses more.
const TAGS_PER_PAGE: usize = 1000;

/// The most bytes of one page. Some registries ignore the page size and send all at once.
const PAGE_LIMIT: usize = 4 * 1024 * 1024;

/// The most pages.
const PAGES: usize = 1000;

/// What the tags of one repository may take, in bytes: to read them as versions takes more, for a
/// moment.
const LIST_ROOM: usize = 3 * 1024 * 1024;

/// What all lists may take that are kept until the end of a run, in bytes.
const ROOM: usize = 6 * 1024 * 1024;

/// What a tag takes beside its text: its places in a list and on the heap.
const PER_TAG: usize = 64;

/// What is left for tags, in bytes.
pub(super) struct Room(AtomicUsize);

impl Room {
    /// The room of a run.
    pub(super) fn of_run() -> Self {
        Self(AtomicUsize::new(ROOM))
    }

    /// Takes what `tag` needs, if that is left.
    fn take(&self, tag: &Tag) -> bool {
        let needed = PER_TAG + tag.as_str().len();
        let order = Ordering::Relaxed;
        self.0.fetch_update(order, order, |left| left.checked_sub(needed)).is_ok()
    }
}

/// The tags of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TagList {
    /// In the registry's order, each once.
    pub tags: Vec<Tag>,
    /// Why there may be more: a clause, or a registry's failure.
    pub ends_early: Option<String>,
}

impl TagList {
    /// The remark that the list may lack some, if it may.
    #[must_use]
    pub fn remark(&self) -> Option<String> {
        let why = self.ends_early.as_ref()?;
        Some(format!("the registry's list of tags is incomplete: {why}"))
    }
}

impl Client {
    /// The tags of the repository: those of at most 1,000 pages, some 35,000, and with those of
    /// others some 75,000 in one run. Where a page after the first cannot be had, the list ends
    /// early and says why.
    ///
    /// # Errors
    /// [`super::Error::NotFound`] if there is no such repository; others as they are named.
    pub async fn tags(&self, repository: &Repository) -> error::Result<TagList> {
        let path = format!("/v2/{}/tags/list", repository.path());
        let mut query = Query {
            repository,
            method: Method::GET,
            target: format!("{path}?n={TAGS_PER_PAGE}"),
            accept: "application/json",
            limit: PAGE_LIMIT,
            subject: format!("tags of {repository}"),
            scheme: None,
        };
        let host = self.host(repository);
        let mut list = Collected::new();
        let mut seen = HashSet::new();
        // The registry itself says which page comes next, but for the one that nobody speaks of.
        let mut is_promised = true;
        for page in 1..=PAGES {
            if !seen.insert(query.target.clone()) {
                return Ok(list.ending_early(CIRCLES));
            }
            let answer = match self.ask(&query).await.and_then(|answer| query.good(answer)) {
                Ok(answer) => answer,
                Err(error) if page == 1 => return Err(error),
                Err(error) if !is_promised => {
                    tracing::debug!("no page {page} of tags: {error}");
                    break;
                }
                Err(error) => return Ok(list.ending_early(error)),
            };
            // Reading is part of what a list costs.
            let wait = host.patience.wait();
            let taken = list.take(&answer.body, &self.inner.room);
            drop(wait);
            let count = match taken {
                Some(count) => count,
                None if page == 1 => return Err(query.malformed("it is no list of tags")),
                None if !is_promised => break,
                None => return Ok(list.ending_early(query.malformed("it is no list of tags"))),
            };
            if list.is_full {
                return Ok(list.ending_early("dkv reads no more of so many"));
            }
            let link = link::next(answer.headers(header::LINK));
            let next = match link {
                Some(_) if list.is_repeating(count) => return Ok(list.ending_early(CIRCLES)),
                Some(target) => link::query(&answer.url, target),
                // Some registries keep to the page size, and say nothing about what is left.
                None if count == TAGS_PER_PAGE
                    && (page == 1 || !is_promised)
                    && !list.is_repeating(count) =>
                {
                    Ok(list.after_last())
                }
                None => break,
            };
            is_promised = link.is_some();
            match next {
                Ok(next) => query.target = format!("{path}?{next}"),
                Err(why) => return Ok(list.ending_early(why)),
            }
            query.subject = format!("page {} of the tags of {repository}", page + 1);
        }
        if seen.len() == PAGES {
            return Ok(list.ending_early(format!("it has {PAGES} pages or more")));
        }
        Ok(list.complete())
    }
}

const CIRCLES: &str = "its pages go in circles";

/// How many pages in a row may bring nothing.
const EMPTY_PAGES: usize = 3;

/// What has come so far.
struct Collected {
    tags: IndexSet<Tag>,
    /// How many there were before the last page.
    before: usize,
    /// How many pages without any tag came last.
    empty: usize,
    /// Whether there was no room for all of them.
    is_full: bool,
    left: Room,
}

impl Collected {
    fn new() -> Self {
        let left = Room(AtomicUsize::new(LIST_ROOM));
        Self { tags: IndexSet::new(), before: 0, empty: 0, is_full: false, left }
    }

    /// Takes the tags of one page; how many it has, or `None` if it is no list of tags.
    fn take(&mut self, body: &[u8], room: &Room) -> Option<usize> {
        self.before = self.tags.len();
        let mut count = 0;
        let (tags, is_full) = (&mut self.tags, &mut self.is_full);
        let page = Page { tags, count: &mut count, rooms: [&self.left, room], is_full };
        let mut json = serde_json::Deserializer::from_slice(body);
        page.deserialize(&mut json).and_then(|()| json.end()).ok()?;
        self.empty = if count == 0 { self.empty + 1 } else { 0 };
        Some(count)
    }

    /// Whether the last page, of `count` tags, brought nothing that was not known.
    fn is_repeating(&self, count: usize) -> bool {
        self.tags.len() == self.before && (count > 0 || self.empty >= EMPTY_PAGES)
    }

    /// The query for what comes after the last tag.
    fn after_last(&self) -> String {
        let last = self.tags.last().map(Tag::as_str).unwrap_or_default();
        format!("n={TAGS_PER_PAGE}&last={last}")
    }

    fn complete(self) -> TagList {
        TagList { tags: self.tags.into_iter().collect(), ends_early: None }
    }

    fn ending_early(self, why: impl ToString) -> TagList {
        TagList { ends_early: Some(why.to_string()), ..self.complete() }
    }
}

/// One page, whose tags go where they are collected as they are read.
struct Page<'a> {
    tags: &'a mut IndexSet<Tag>,
    /// How many there are, well-formed or not.
    count: &'a mut usize,
    rooms: [&'a Room; 2],
    /// Whether there was none.
    is_full: &'a mut bool,
}

impl<'de> DeserializeSeed<'de> for Page<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Page<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with tags")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match key.as_ref() {
                "tags" => map.next_value_seed(Names(&mut self))?,
                _ => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        Ok(())
    }
}

/// The tags of a page; `null` means none.
struct Names<'p, 'a>(&'p mut Page<'a>);

impl<'de> DeserializeSeed<'de> for Names<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Names<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of tags")
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(text) = seq.next_element::<Cow<'de, str>>()? {
            *self.0.count += 1;
            match text.parse() {
                Ok(tag) if self.0.tags.contains(&tag) => {}
                Ok(tag) if self.0.rooms.iter().all(|room| room.take(&tag)) => {
                    self.0.tags.insert(tag);
                }
                Ok(_) => *self.0.is_full = true,
                Err(error) => tracing::debug!("skipping a tag: {error}"),
            }
        }
        Ok(())
    }
}
