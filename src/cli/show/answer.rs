//! The result of a command: the answer of the server, with values that only the command knows.

use std::fmt::Display;

use prost_reflect::prost::Name;
use serde::Serialize;

use super::message;
use crate::out::Printable;
use crate::out::tree::OrderedJson;

/// The result of a command: keys in the order in which they were added. A key that is added again keeps its place.
#[derive(Serialize, Clone, Debug)]
#[serde(transparent)]
pub struct Answer {
    #[serde(skip)]
    name: String,
    json: OrderedJson,
}

impl Answer {
    /// An answer that `-o name` prints as this.
    pub fn named(name: impl Display) -> Answer {
        Answer { name: name.to_string(), json: OrderedJson::Map(Vec::new()) }
    }

    /// Adds a key.
    pub fn with(mut self, key: &str, value: impl Into<OrderedJson>) -> Answer {
        self.json.set(key, value.into());
        self
    }

    /// Adds a key if there is a value.
    pub fn with_some(self, key: &str, value: Option<impl Into<OrderedJson>>) -> Answer {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// Adds all keys of a message.
    pub fn and(self, message: &impl Name) -> Answer {
        let OrderedJson::Map(all) = message::json(message) else { return self };
        all.into_iter().fold(self, |answer, (key, value)| answer.with(&key, value))
    }

    /// Adds some keys of a message, in the given order.
    pub fn pick(self, message: &impl Name, keys: &str) -> Answer {
        let json = message::json(message);
        keys.split_whitespace().fold(self, |answer, key| answer.with(key, json.at(key).first().copied().cloned()))
    }

    /// The JSON.
    pub fn json(&self) -> &OrderedJson {
        &self.json
    }
}

impl Printable for Answer {
    fn name(&self) -> String {
        self.name.clone()
    }
}
