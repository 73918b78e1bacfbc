//! A text inside a JSON value, read without copies of the texts beside it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use zeroize::Zeroizing;

/// The path of keys to the text.
struct TextAt<'a>(&'a [&'a str]);

/// The text at a path of keys; `None` if a key is missing, or its value is null. The error holds nothing of the value.
pub fn text_at(json: &[u8], path: &[&str]) -> Result<Option<Zeroizing<String>>, &'static str> {
    let mut from = serde_json::Deserializer::from_slice(json);
    let found = TextAt(path).deserialize(&mut from).and_then(|found| from.end().map(|()| found));
    found.map_err(|_| "it is not JSON with one text at that place")
}

impl<'de> DeserializeSeed<'de> for TextAt<'_> {
    type Value = Option<Zeroizing<String>>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TextAt<'_> {
    type Value = Option<Zeroizing<String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "a text" } else { "an object" })
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        match self.0 {
            [] => Ok(Some(Zeroizing::new(text.to_owned()))),
            _ => Err(E::custom("a text in place of an object")),
        }
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Self::Value, E> {
        let text = Zeroizing::new(text);
        match self.0 {
            [] => Ok(Some(text)),
            _ => Err(E::custom("a text in place of an object")),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let [key, rest @ ..] = self.0 else { return Err(A::Error::custom("an object in place of a text")) };
        let mut found = None;
        while let Some(name) = map.next_key::<String>()? {
            match name == *key {
                true if found.is_some() => return Err(A::Error::custom("a key twice")),
                true => found = Some(map.next_value_seed(TextAt(rest))?),
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found.flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_is_read_and_everything_else_is_passed_over() {
        let json =
            br#"{"a": [1, {"x": null}], "data": {"data": {"t\u006fken": "a\u0062c", "other": 5}, "metadata": {"version": 3}}}"#;
        let read = |path: &[&str]| text_at(json, path).map(|t| t.map(|t| t.to_string()));
        assert_eq!(read(&["data", "data", "token"]), Ok(Some("abc".to_owned())));
        assert_eq!(read(&["data", "data", "none"]), Ok(None));
        assert_eq!(read(&["data", "none", "token"]), Ok(None));
        assert!(read(&["data", "data", "other"]).is_err(), "a number");
        assert!(read(&["data", "data"]).is_err() && read(&["a", "x"]).is_err());
        assert_eq!(text_at(br#"{"data":{"data":null}}"#, &["data", "data", "token"]), Ok(None), "a deleted version");
        for wrong in [&b"{\"a\":\"1\",\"a\":\"2\"}"[..], b"", b"[", b"{\"a\":\"1\"} x", b"\"text\"", b"\xff"] {
            assert!(text_at(wrong, &["a"]).is_err(), "{wrong:?}");
        }
        let deep = "[".repeat(100_000);
        assert!(text_at(deep.as_bytes(), &["a"]).is_err());
    }
}
