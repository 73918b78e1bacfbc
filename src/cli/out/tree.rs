//! Values whose names keep their order; the source of block YAML and of lists of fields.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::super::error::CliError;
use super::escape;

/// A JSON value that keeps the order of its names.
#[derive(Clone, PartialEq, Debug)]
pub enum OrderedJson {
    /// null
    Null,
    /// true or false
    Bool(bool),
    /// A number, as it was written.
    Number(String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<OrderedJson>),
    /// Names and values.
    Map(Vec<(String, OrderedJson)>),
}

impl<'de> Deserialize<'de> for OrderedJson {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<OrderedJson, D::Error> {
        struct Builds;
        impl<'de> Visitor<'de> for Builds {
            type Value = OrderedJson;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }
            fn visit_unit<E>(self) -> Result<OrderedJson, E> {
                Ok(OrderedJson::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<OrderedJson, E> {
                Ok(OrderedJson::Bool(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<OrderedJson, E> {
                Ok(OrderedJson::Number(value.to_string()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<OrderedJson, E> {
                Ok(OrderedJson::Number(value.to_string()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<OrderedJson, E> {
                Ok(OrderedJson::Number(format!("{value:?}")))
            }
            fn visit_str<E>(self, value: &str) -> Result<OrderedJson, E> {
                Ok(OrderedJson::Text(value.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<OrderedJson, A::Error> {
                let mut list = Vec::new();
                while let Some(value) = from.next_element()? {
                    list.push(value);
                }
                Ok(OrderedJson::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<OrderedJson, A::Error> {
                let mut map = Vec::new();
                while let Some(entry) = from.next_entry()? {
                    map.push(entry);
                }
                Ok(OrderedJson::Map(map))
            }
        }
        from.deserialize_any(Builds)
    }
}

impl Serialize for OrderedJson {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            OrderedJson::Null => to.serialize_unit(),
            OrderedJson::Bool(value) => to.serialize_bool(*value),
            OrderedJson::Number(text) => match (text.parse(), text.parse(), text.parse()) {
                (Ok(number), ..) => to.serialize_u64(number),
                (_, Ok(number), _) => to.serialize_i64(number),
                (.., Ok(number)) => to.serialize_f64(number),
                _ => to.serialize_str(text),
            },
            OrderedJson::Text(text) => to.serialize_str(text),
            OrderedJson::List(list) => to.collect_seq(list),
            OrderedJson::Map(map) => to.collect_map(map.iter().map(|(name, value)| (name, value))),
        }
    }
}

impl<T: Into<OrderedJson>> From<Option<T>> for OrderedJson {
    fn from(value: Option<T>) -> OrderedJson {
        value.map_or(OrderedJson::Null, Into::into)
    }
}

impl<T: Into<OrderedJson>> From<Vec<T>> for OrderedJson {
    fn from(list: Vec<T>) -> OrderedJson {
        OrderedJson::List(list.into_iter().map(Into::into).collect())
    }
}

impl From<&str> for OrderedJson {
    fn from(text: &str) -> OrderedJson {
        OrderedJson::Text(text.to_owned())
    }
}

macro_rules! from {
    ($($type:ty: $value:ident => $json:expr),* $(,)?) => {
        $(impl From<$type> for OrderedJson {
            fn from($value: $type) -> OrderedJson {
                $json
            }
        })*
    };
}

from! {
    bool: value => OrderedJson::Bool(value),
    u64: number => OrderedJson::Number(number.to_string()),
    i64: number => OrderedJson::Number(number.to_string()),
    f64: number => OrderedJson::Number(format!("{number:?}")),
    String: text => OrderedJson::Text(text),
}

impl OrderedJson {
    /// Any value that serializes.
    pub fn of(value: &impl Serialize) -> Result<OrderedJson, CliError> {
        let text = serde_json::to_string(value).map_err(CliError::ours)?;
        serde_json::from_str(&text).map_err(CliError::ours)
    }

    /// Names and values.
    pub fn map<const N: usize>(entries: [(&str, OrderedJson); N]) -> OrderedJson {
        OrderedJson::Map(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// The elements of a list.
    pub fn elements(&self) -> &[OrderedJson] {
        if let OrderedJson::List(list) = self { list } else { &[] }
    }

    /// Sets the value of a name. A name that is there keeps its place.
    pub fn set(&mut self, name: &str, value: OrderedJson) {
        let OrderedJson::Map(map) = self else { return };
        match map.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => map.push((name.to_owned(), value)),
        }
    }

    /// The values below dotted names, of every element of the lists on the way.
    pub fn at<'a>(&'a self, path: &str) -> Vec<&'a OrderedJson> {
        let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
        match self {
            OrderedJson::List(list) => list.iter().flat_map(|value| value.at(path)).collect(),
            OrderedJson::Map(map) => {
                let found = map.iter().find(|(known, _)| known == name).map(|(_, value)| value);
                found.map(|value| rest.map_or_else(|| vec![value], |rest| value.at(rest))).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    /// The text for people: the elements of a list are joined by commas; a map is JSON on one line.
    pub fn text(&self) -> String {
        match self {
            OrderedJson::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
            OrderedJson::List(list) => list.iter().map(OrderedJson::text).collect::<Vec<_>>().join(","),
            OrderedJson::Map(_) => serde_json::to_string(self).unwrap_or_default(),
            flat => flat.plain(),
        }
    }

    /// The texts of what is below dotted names, joined by commas, equal neighbours as one.
    pub fn text_at(&self, path: &str) -> String {
        let mut texts: Vec<String> = self.at(path).into_iter().map(OrderedJson::text).collect();
        texts.dedup();
        texts.join(",")
    }

    /// Block YAML 1.2, which a YAML 1.1 reader understands in the same way. A text is quoted if a reader could take it for another type.
    pub fn yaml(&self) -> String {
        let mut out = String::new();
        self.write_yaml(&mut out, 0);
        out
    }

    fn write_yaml(&self, out: &mut String, depth: usize) {
        match self {
            OrderedJson::List(list) if !list.is_empty() => {
                for value in list {
                    indent(out, depth);
                    out.push('-');
                    value.write_after_dash(out, depth);
                }
            }
            OrderedJson::Map(map) if !map.is_empty() => {
                for (name, value) in map {
                    indent(out, depth);
                    write_field(out, name, value, depth);
                }
            }
            flat => {
                out.push_str(&flat.scalar());
                out.push('\n');
            }
        }
    }

    /// Writes a map's first field on the line of its dash.
    fn write_after_dash(&self, out: &mut String, depth: usize) {
        match self {
            OrderedJson::Map(map) if !map.is_empty() => {
                for (at, (name, value)) in map.iter().enumerate() {
                    match at {
                        0 => out.push(' '),
                        _ => indent(out, depth + 1),
                    }
                    write_field(out, name, value, depth + 1);
                }
            }
            OrderedJson::List(list) if !list.is_empty() => {
                out.push('\n');
                self.write_yaml(out, depth + 1);
            }
            flat => {
                out.push(' ');
                flat.write_yaml(out, depth);
            }
        }
    }

    fn scalar(&self) -> String {
        match self {
            OrderedJson::Null => "null".to_owned(),
            OrderedJson::Bool(value) => value.to_string(),
            OrderedJson::Number(text) => text.clone(),
            OrderedJson::Text(text) => yaml_text(text),
            OrderedJson::List(_) => "[]".to_owned(),
            OrderedJson::Map(_) => "{}".to_owned(),
        }
    }

    /// Flattens to dotted names and their values, one per line. Null and empty values are omitted unless `all`.
    pub fn fields(&self, all: bool) -> Vec<(String, String)> {
        let mut out = Vec::new();
        self.walk(String::new(), all, &mut out);
        out
    }

    fn walk(&self, name: String, all: bool, out: &mut Vec<(String, String)>) {
        match self {
            OrderedJson::Map(map) => {
                for (part, value) in map {
                    let name = if name.is_empty() { part.clone() } else { format!("{name}.{part}") };
                    value.walk(name, all, out);
                }
            }
            OrderedJson::List(list) if list.iter().any(|v| matches!(v, OrderedJson::Map(_) | OrderedJson::List(_))) => {
                for (at, value) in list.iter().enumerate() {
                    value.walk(format!("{name}[{at}]"), all, out);
                }
            }
            OrderedJson::List(list) => {
                if all || !list.is_empty() {
                    out.push((name, list.iter().map(OrderedJson::plain).collect::<Vec<_>>().join(", ")));
                }
            }
            OrderedJson::Null if !all => {}
            OrderedJson::Text(text) if text.is_empty() && !all => {}
            flat => out.push((name, flat.plain())),
        }
    }

    fn plain(&self) -> String {
        match self {
            OrderedJson::Text(text) => text.clone(),
            OrderedJson::Null => String::new(),
            other => other.scalar(),
        }
    }
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

fn write_field(out: &mut String, name: &str, value: &OrderedJson, depth: usize) {
    out.push_str(&yaml_text(name));
    out.push(':');
    match value {
        OrderedJson::Map(map) if !map.is_empty() => {
            out.push('\n');
            value.write_yaml(out, depth + 1);
        }
        OrderedJson::List(list) if !list.is_empty() => {
            out.push('\n');
            value.write_yaml(out, depth + 1);
        }
        flat => {
            out.push(' ');
            flat.write_yaml(out, depth);
        }
    }
}

/// A text as a YAML scalar: plain if no reader can take it for another type, else double-quoted, of which JSON's form is a subset.
fn yaml_text(text: &str) -> String {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let rest = |b: u8| b.is_ascii_alphanumeric() || b"_-./@".contains(&b);
    // The words for bool and null of YAML 1.1, which many readers still accept; `.inf` and numbers fail the first test.
    const TAKEN: &[&str] = &["true", "false", "yes", "no", "on", "off", "y", "n", "null"];
    let plain = first && text.bytes().all(rest) && !TAKEN.contains(&text.to_ascii_lowercase().as_str());
    if plain || is_url(text) {
        return text.to_owned();
    }
    let quoted = serde_json::to_string(text).unwrap_or_default();
    escape::json(&quoted).into_owned()
}

/// `spiffe://…` and `https://…` stay plain: a colon ends a key only before a space.
fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("spiffe://").or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|r| !r.is_empty() && r.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./".contains(&b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(json: &str) -> OrderedJson {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn block_yaml_in_the_order_of_the_names() {
        let value = tree(
            r#"{"z":"task_a","a":{"spiffe_id":"spiffe://example.org/ci","seq":7,"none":null},"list":["x","2"],"rows":[{"a":1,"b":[]},{"a":[[1]]}],"empty":{}}"#,
        );
        let expected = "z: task_a\na:\n  spiffe_id: spiffe://example.org/ci\n  seq: 7\n  none: null\nlist:\n  - x\n  - \"2\"\nrows:\n  - a: 1\n    b: []\n  - a:\n      -\n        - 1\nempty: {}\n";
        assert_eq!(value.yaml(), expected);
    }

    #[test]
    fn a_text_that_could_be_taken_for_something_else_is_quoted() {
        for text in [
            "no",
            "Null",
            "1e3",
            "0x1",
            "~",
            "",
            "- a",
            "a: b",
            "a #b",
            "2026-11-20T08:00:00Z",
            "a\nb",
            "é",
            "!x",
            "*x",
            "&x",
            "1:20",
        ] {
            assert!(yaml_text(text).starts_with('"'), "{text:?}");
        }
        assert_eq!(yaml_text("\u{7f}\u{202e}"), r#""\u007f\u202e""#);
        assert_eq!(yaml_text("repo.read"), "repo.read");
    }

    #[test]
    fn fields_are_flat_and_leave_out_what_is_empty() {
        let value = tree(r#"{"a":"x","b":"","hits":{"n":0},"scopes":["r","w"],"holds":[{"seq":1}],"none":null}"#);
        let pairs = |all| value.fields(all).into_iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" ");
        assert_eq!(pairs(false), "a=x hits.n=0 scopes=r, w holds[0].seq=1");
        assert_eq!(pairs(true), "a=x b= hits.n=0 scopes=r, w holds[0].seq=1 none=");
    }
}
