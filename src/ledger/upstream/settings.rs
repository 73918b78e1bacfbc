//! The sections of a registration that belong to credential kinds, like `[postgres]`.
//!
//! The ledger keeps each section as JSON and does not know its meaning. The connector of a kind reads the section of a registration file
//! into that JSON, and later the JSON into its own type. The readers are a table of `mayfly_credential`, which this crate cannot name; who
//! parses a registration passes them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::registry::{Kind, RegisteredScope, Ttl};
use mayfly_base::document::Section;

/// The parts of a registration that the reader of a section may depend on. `None`: that part is wrong, which is reported elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct SettingsContext<'a> {
    /// The name.
    pub name: Option<&'a str>,
    /// The environment.
    pub environment: Option<&'a str>,
    /// The target, in normal form.
    pub target: Option<&'a str>,
    /// The scopes.
    pub scopes: Option<&'a [RegisteredScope]>,
    /// The audience.
    pub audience: Option<&'a str>,
    /// The bounds of a credential's lifetime.
    pub ttl: Option<Ttl>,
    /// The interval of rotations in seconds; the inner `None`: there is none.
    pub rotation: Option<Option<u64>>,
}

/// Reads the section of a kind into JSON, and reports what is wrong with it. Lists in the JSON must grant: an entry less means a right less.
/// The same section, or the section that [`KindSettings::section`]
/// writes of the result, gives the same JSON.
pub type ReadSettings = fn(&Section<'_>, &SettingsContext<'_>) -> Option<Value>;

/// A kind whose credentials an upstream makes, as far as registrations know it.
#[derive(Clone, Copy, Debug)]
pub struct SettingsReader {
    /// The kind. Its section has the same name.
    pub kind: Kind,
    /// Reads the section.
    pub read: ReadSettings,
}

/// The sections of a registration, by the name of their kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KindSettings(BTreeMap<String, Value>);

impl KindSettings {
    /// Whether there is no section.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The section of a kind, in the kind's own shape. The error names the section.
    pub fn read<'a, S: Deserialize<'a>>(&'a self, kind: &str) -> Result<S, String> {
        let section = self.of(kind).ok_or_else(|| format!("the registration has no section [{kind}]"))?;
        S::deserialize(section).map_err(|e| format!("the section [{kind}] of the registration: {e}"))
    }

    /// The section of a kind.
    pub fn of(&self, kind: &str) -> Option<&Value> {
        self.0.get(kind)
    }

    /// The sections, by the name of their kind.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(kind, section)| (kind.as_str(), section))
    }

    /// Adds the section of a kind, in canonical form.
    pub fn insert(&mut self, kind: Kind, section: Value) {
        self.0.insert(kind.as_str().to_owned(), sorted(section));
    }

    /// Whether these sections grant everything that `other` grants. A credential that was made under `other` is then within these sections.
    ///
    /// Lists of a section grant, so a longer list grants more; any other value is contained in an equal one only. An entry of a list is
    /// contained in an entry with the same keys whose own lists contain the entry's.
    pub fn contain(&self, other: &KindSettings) -> bool {
        other.0.keys().all(|kind| self.section_contains(kind, other))
    }

    /// As [`KindSettings::contain`], of one section.
    pub fn section_contains(&self, kind: &str, other: &KindSettings) -> bool {
        match (self.0.get(kind), other.0.get(kind)) {
            (Some(mine), Some(part)) => contains(mine, part),
            (None, Some(_)) => false,
            (_, None) => true,
        }
    }
}

fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, value)| whole.get(key).is_some_and(|mine| contains(mine, value)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            part.iter().all(|entry| whole.iter().any(|mine| entry_contains(mine, entry)))
        }
        _ => whole == part,
    }
}

fn entry_contains(whole: &Value, part: &Value) -> bool {
    // A key that is missing in an entry could stand for every value.
    let same_keys =
        |a: &Map<String, Value>, b: &Map<String, Value>| a.len() == b.len() && a.keys().all(|key| b.contains_key(key));
    contains(whole, part) && whole.as_object().zip(part.as_object()).is_none_or(|(a, b)| same_keys(a, b))
}

/// The value with the keys of each object in order, so that equal sections have equal texts in every build: the order of a
/// [`serde_json::Map`] depends on a feature that another crate may enable.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<String, Value> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(ordered.into_iter().collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(sorted).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(section: Value) -> KindSettings {
        let mut all = KindSettings::default();
        all.insert(Kind::Postgres, section);
        all
    }

    #[test]
    fn the_text_does_not_depend_on_the_order_of_keys() {
        let one = settings(serde_json::from_str(r#"{"b":1,"a":{"d":[{"y":1,"x":2}],"c":2}}"#).unwrap());
        assert_eq!(serde_json::to_string(&one).unwrap(), r#"{"postgres":{"a":{"c":2,"d":[{"x":2,"y":1}]},"b":1}}"#);
    }

    #[test]
    fn more_grants_contain_fewer_and_another_value_contains_nothing() {
        let read = json!({"scope": "read", "privileges": ["SELECT"]});
        let write = json!({"scope": "write", "privileges": ["INSERT"]});
        let of = |grants: &[&Value], limit: u32| settings(json!({"grants": grants, "limit": limit}));
        let (both, one) = (of(&[&read, &write], 4), of(&[&read], 4));
        assert!(both.contain(&one) && !one.contain(&both) && both.contain(&both));
        assert!(!both.contain(&of(&[&read], 5)), "another limit");
        let wider = json!({"scope": "read", "privileges": ["SELECT", "UPDATE"]});
        assert!(of(&[&wider], 4).contain(&one) && !one.contain(&of(&[&wider], 4)), "a list within an entry");
        let other = json!({"scope": "write", "privileges": ["SELECT"]});
        assert!(!of(&[&wider], 4).contain(&of(&[&other], 4)), "another scope");
        let any = json!({"scope": "read"});
        assert!(!of(&[&any], 4).contain(&one) && !of(&[&wider], 4).contain(&of(&[&any], 4)), "an entry with other keys");
        assert!(one.contain(&KindSettings::default()) && !KindSettings::default().contain(&one));
    }
}
