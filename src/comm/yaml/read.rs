//! Decides: what a YAML text means, in memory that stays in proportion to its length.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput, Tag};

use super::scalar;
use crate::comm::{BodyError, Value};

/// How deep lists and mappings may be nested.
const DEPTH: usize = 64;
/// What anchors may make of a text: this many times its length, counted in values and letters…
const GROWTH: usize = 8;
/// …or this much, whichever is more, so that a short body may repeat itself.
const ALWAYS: usize = 64 * 1024;

/// What becomes of a tag that does not stand for plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tags {
    /// The text is refused.
    Refuse,
    /// The tag is kept as text beside the data; nothing is built.
    Keep,
}

/// The one document of a text.
///
/// # Errors
/// [`BodyError`]: not YAML, more than one document, nested too deep, growing by its anchors beyond
/// proportion, or with a tag that would build an object.
pub(crate) fn read(text: &str, tags: Tags) -> Result<Value, BodyError> {
    let budget = text.len().saturating_mul(GROWTH).max(ALWAYS);
    let mut reader = Reader { parser: Parser::new_from_str(text), tags, anchors: HashMap::new(), budget };
    reader.expect_start()?;
    let value = reader.document()?;
    reader.expect_end()?;
    Ok(value)
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    tags: Tags,
    anchors: HashMap<usize, (Value, usize)>,
    /// How many values and letters may still come.
    budget: usize,
}

/// A list or mapping that is not yet complete.
struct Open {
    tag: Option<Tag>,
    anchor: usize,
    /// A mapping's keys and values in turn.
    items: Vec<Value>,
    is_map: bool,
    /// What was left of the budget at its start.
    budget: usize,
}

impl<'a> Reader<'a> {
    fn event(&mut self) -> Result<Event<'a>, BodyError> {
        match self.parser.next_event() {
            Some(Ok((event, _))) => Ok(event),
            Some(Err(error)) => Err(BodyError::Syntax { format: "YAML", why: error.to_string() }),
            None => Ok(Event::StreamEnd),
        }
    }

    /// Passes the start of the stream and of the first document.
    fn expect_start(&mut self) -> Result<(), BodyError> {
        loop {
            match self.event()? {
                Event::StreamStart => {}
                Event::DocumentStart(_) => return Ok(()),
                _ => return Err(BodyError::syntax("YAML", "there is no document")),
            }
        }
    }

    fn expect_end(&mut self) -> Result<(), BodyError> {
        loop {
            match self.event()? {
                Event::DocumentEnd => {}
                Event::StreamEnd => return Ok(()),
                _ => return Err(BodyError::syntax("YAML", "there is more than one document")),
            }
        }
    }

    fn document(&mut self) -> Result<Value, BodyError> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            let event = self.event()?;
            let done = match event {
                Event::Scalar(text, style, anchor, tag) => self.scalar(&text, style, anchor, tag)?,
                Event::Alias(anchor) => self.alias(anchor)?,
                Event::SequenceStart(anchor, tag) => {
                    self.begin(&mut open, anchor, tag, false)?;
                    continue;
                }
                Event::MappingStart(anchor, tag) => {
                    self.begin(&mut open, anchor, tag, true)?;
                    continue;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    let closed = open.pop().ok_or_else(|| BodyError::syntax("YAML", "an end without a start"))?;
                    self.close(closed)?
                }
                _ => return Err(BodyError::syntax("YAML", "the document ends early")),
            };
            match open.last_mut() {
                Some(parent) => parent.items.push(done),
                None => return Ok(done),
            }
        }
    }

    fn begin(
        &mut self,
        open: &mut Vec<Open>,
        anchor: usize,
        tag: Option<Cow<'a, Tag>>,
        is_map: bool,
    ) -> Result<(), BodyError> {
        if open.len() >= DEPTH {
            return Err(BodyError::TooDeep { limit: DEPTH });
        }
        let budget = self.budget;
        self.spend(1)?;
        open.push(Open { tag: tag.map(Cow::into_owned), anchor, items: Vec::new(), is_map, budget });
        Ok(())
    }

    fn close(&mut self, open: Open) -> Result<Value, BodyError> {
        let value = if open.is_map { mapping(open.items)? } else { Value::Seq(open.items) };
        let value = self.tagged(open.tag.as_ref(), value)?;
        self.remember(open.anchor, &value, open.budget - self.budget)?;
        Ok(value)
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<Cow<'a, Tag>>,
    ) -> Result<Value, BodyError> {
        let cost = 1 + text.len();
        self.spend(cost)?;
        let value = match tag.as_deref() {
            None if style == ScalarStyle::Plain => scalar::resolve(text)?,
            None => Value::Str(text.to_owned()),
            Some(tag) => match scalar::with_tag(text, plain_name(tag))? {
                Some(value) => value,
                None => self.tagged(Some(tag), Value::Str(text.to_owned()))?,
            },
        };
        self.remember(anchor, &value, cost)?;
        Ok(value)
    }

    /// Keeps what an anchor names. It costs as much again, as it is a second copy.
    fn remember(&mut self, anchor: usize, value: &Value, cost: usize) -> Result<(), BodyError> {
        if anchor > 0 {
            self.spend(cost)?;
            self.anchors.insert(anchor, (value.clone(), cost));
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize) -> Result<Value, BodyError> {
        let cost = self
            .anchors
            .get(&anchor)
            .map(|(_, cost)| *cost)
            .ok_or_else(|| BodyError::syntax("YAML", "an alias names what contains it, or nothing"))?;
        self.spend(cost)?;
        Ok(self.anchors[&anchor].0.clone())
    }

    fn spend(&mut self, cost: usize) -> Result<(), BodyError> {
        self.budget = self.budget.checked_sub(cost).ok_or(BodyError::Bomb)?;
        Ok(())
    }

    /// A list, mapping or text with its tag: plain data, or what the rule for tags says.
    fn tagged(&self, tag: Option<&Tag>, value: Value) -> Result<Value, BodyError> {
        let Some(tag) = tag else { return Ok(value) };
        let (name, wrong) = (plain_name(tag), |why: &str| Err(BodyError::syntax("YAML", why)));
        match (name, value) {
            (Some("seq" | "omap" | "pairs" | "python/tuple" | "python/list"), value @ Value::Seq(_))
            | (Some("map" | "python/dict"), value @ Value::Map(_)) => Ok(value),
            (Some("set"), Value::Map(pairs)) => Ok(Value::Seq(pairs.into_iter().map(|(key, _)| key).collect())),
            (Some("seq" | "map" | "set" | "omap" | "pairs" | "python/tuple"), _) => {
                wrong("a tag does not fit its value")
            }
            (_, value) if self.tags == Tags::Keep => Ok(Value::Tagged(text_of(tag), Box::new(value))),
            _ => Err(BodyError::Tag { tag: text_of(tag) }),
        }
    }
}

/// The name of a tag in YAML's own namespace.
fn plain_name(tag: &Tag) -> Option<&str> {
    if tag.handle == "!" && tag.suffix.is_empty() {
        return Some("str");
    }
    match tag.handle.as_str() {
        "tag:yaml.org,2002:" => Some(&tag.suffix),
        "" => tag.suffix.strip_prefix("tag:yaml.org,2002:"),
        _ => None,
    }
}

/// A tag as it is usually written.
fn text_of(tag: &Tag) -> String {
    match plain_name(tag) {
        Some(name) => format!("!!{name}"),
        None => format!("{}{}", tag.handle, tag.suffix),
    }
}

fn mapping(items: Vec<Value>) -> Result<Value, BodyError> {
    let mut pairs: Vec<(Value, Value)> = Vec::with_capacity(items.len() / 2);
    let mut items = items.into_iter();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        pairs.push((key, value));
    }
    let mut seen = HashSet::with_capacity(pairs.len());
    if let Some(twice) = pairs.iter().filter_map(|(key, _)| key.as_str()).find(|key| !seen.insert(*key)) {
        let twice: String = twice.chars().take(64).collect();
        return Err(BodyError::Syntax { format: "YAML", why: format!("the key {twice:?} stands twice") });
    }
    Ok(Value::Map(pairs))
}
