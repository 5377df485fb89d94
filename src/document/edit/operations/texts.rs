//! Texts as operations mean them: by positions that count as JavaScript does, or by what is written there.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value as Json;
use yrs::{
    Any, Out, Text, TransactionMut,
    types::{Attrs, text::YChange},
};

use super::super::json::any;

/// A text.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Text(yrs::TextRef),
    Xml(yrs::XmlTextRef),
}

/// The same for both kinds of texts.
macro_rules! either {
    ($target:expr, $text:ident => $do:expr) => {
        match $target {
            Target::Text($text) => $do,
            Target::Xml($text) => $do,
        }
    };
}

impl Target {
    /// The text as it is searched.
    pub(super) fn characters(&self, transaction: &TransactionMut<'_>) -> Characters {
        let diffs = either!(self, text => text.diff(transaction, YChange::identity));
        let text = diffs.into_iter().map(|diff| match diff.insert {
            Out::Any(Any::String(text)) => text,
            // What is embedded is as long as one character, which is made for this.
            _ => "\u{fffc}".into(),
        });
        Characters(text.collect::<Vec<Arc<str>>>().concat())
    }

    /// Puts text in, in the format of what is before it where none is said.
    pub(super) fn insert(
        &self,
        transaction: &mut TransactionMut<'_>,
        at: u32,
        new: &str,
        format: Option<&BTreeMap<String, Json>>,
    ) {
        match format {
            Some(format) => self.insert_with(transaction, at, new, attrs(format)),
            None => either!(self, text => text.insert(transaction, at, new)),
        }
    }

    /// Puts text in, in this format.
    pub(super) fn insert_with(
        &self,
        transaction: &mut TransactionMut<'_>,
        at: u32,
        new: &str,
        format: Attrs,
    ) {
        either!(self, text => text.insert_with_attributes(transaction, at, new, format));
    }

    /// Takes a part away.
    pub(super) fn remove(&self, transaction: &mut TransactionMut<'_>, at: u32, length: u32) {
        either!(self, text => text.remove_range(transaction, at, length));
    }

    /// Gives a part a format.
    pub(super) fn format(&self, transaction: &mut TransactionMut<'_>, at: u32, length: u32, format: Attrs) {
        either!(self, text => text.format(transaction, at, length, format));
    }

    /// The formats, each with where it ends.
    pub(super) fn formats(&self, transaction: &TransactionMut<'_>) -> Vec<(u32, Attrs)> {
        let mut end = 0;
        let diffs = either!(self, text => text.diff(transaction, YChange::identity));
        let formats = diffs.into_iter().map(|diff| {
            end += match &diff.insert {
                Out::Any(Any::String(text)) => units(text),
                _ => 1,
            };
            (end, diff.attributes.map(|attributes| *attributes).unwrap_or_default())
        });
        formats.collect()
    }
}

/// The format of the character at this place.
pub(super) fn format_at(formats: &[(u32, Attrs)], at: u32) -> Attrs {
    let number = formats.partition_point(|(end, _)| *end <= at);
    formats.get(number).map(|(_, format)| format.clone()).unwrap_or_default()
}

/// A text as it is searched, with positions as JavaScript counts them.
pub(super) struct Characters(pub(super) String);

impl Characters {
    /// How long it is.
    pub(super) fn length(&self) -> u32 {
        units(&self.0)
    }

    /// Whether a position is one.
    pub(super) fn check(&self, field: &str, position: u32) -> Result<(), String> {
        let length = self.length();
        if position > length {
            return Err(format!("{field}: {position} is beyond the end; the text has a length of {length}"));
        }
        let mut at = 0;
        let is_border = position == 0
            || self.0.chars().any(|character| {
                at += character.len_utf16() as u32;
                at == position
            });
        if is_border { Ok(()) } else { Err(format!("{field}: {position} is in the middle of a character")) }
    }

    /// Where another text is in it, and how long that is.
    pub(super) fn find(&self, find: &str) -> Vec<(u32, u32)> {
        let (mut from, mut at) = (0, 0);
        let length = units(find);
        let found = self.0.match_indices(find).map(|(start, _)| {
            at += units(&self.0[from..start]);
            from = start;
            (at, length)
        });
        found.collect()
    }
}

fn units(text: &str) -> u32 {
    text.encode_utf16().count() as u32
}

/// A format as the engine takes it.
pub(super) fn attrs(format: &BTreeMap<String, Json>) -> Attrs {
    format.iter().map(|(name, value)| (Arc::from(name.as_str()), any(value))).collect()
}
