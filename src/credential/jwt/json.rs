//! Writes JSON straight into a buffer, exactly as serde_json would.

use std::fmt::Display;
use std::io::Write as _;

/// The escape of each byte in a JSON string: 0 for none, `u` for `\u00..`, else the letter after the backslash (RFC 8259, section 7).
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 0x20 {
        table[i] = b'u';
        i += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0a] = b'n';
    table[0x0c] = b'f';
    table[0x0d] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// Writes a string with its quotes.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|b| ESCAPES[usize::from(*b)] != 0) {
        let (plain, from) = rest.split_at(at);
        out.extend_from_slice(plain);
        let byte = from[0];
        match ESCAPES[usize::from(byte)] {
            b'u' => {
                let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&digits);
            }
            letter => out.extend_from_slice(&[b'\\', letter]),
        }
        rest = &from[1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Writes a number, or a text that needs no escaping in JSON.
pub(crate) fn plain(out: &mut Vec<u8>, value: impl Display) {
    // Writing into a Vec does not fail.
    let _ = write!(out, "{value}");
}

/// Writes the members of an object, one after the other.
pub(crate) struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    pub(crate) fn begin(out: &'a mut Vec<u8>) -> Object<'a> {
        out.push(b'{');
        Object { out, empty: true }
    }

    /// Continues an object that already has members.
    pub(crate) fn go_on(out: &'a mut Vec<u8>) -> Object<'a> {
        Object { out, empty: false }
    }

    /// Writes a member's name. Names are constants that need no escaping.
    pub(crate) fn member(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    pub(crate) fn text(&mut self, name: &str, value: &str) {
        string(self.member(name), value);
    }

    /// A string member, left out where the string is empty.
    pub(crate) fn some(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.text(name, value);
        }
    }

    pub(crate) fn number(&mut self, name: &str, value: u64) {
        plain(self.member(name), value);
    }

    /// A string member whose bytes need no escaping in JSON.
    pub(crate) fn ascii(&mut self, name: &str, value: &[u8]) {
        let out = self.member(name);
        out.push(b'"');
        out.extend_from_slice(value);
        out.push(b'"');
    }

    /// Bytes in lower-case hexadecimal, as revocation targets write them. Left out where there are none.
    pub(crate) fn hex(&mut self, name: &str, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let out = self.member(name);
        let start = out.len() + 1;
        out.push(b'"');
        out.resize(start + bytes.len() * 2, 0);
        if let Some(room) = out.get_mut(start..) {
            data_encoding::HEXLOWER.encode_mut(bytes, room);
        }
        out.push(b'"');
    }

    pub(crate) fn end(self) {
        self.out.push(b'}');
    }
}

/// An array whose items are written by `write`.
pub(crate) fn array<T>(out: &mut Vec<u8>, items: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (n, item) in items.into_iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn strings_are_as_serde_json_writes_them(text in ".*", raw in proptest::collection::vec(any::<char>(), 0..64)) {
            for text in [text, raw.into_iter().collect()] {
                let mut out = Vec::new();
                super::string(&mut out, &text);
                prop_assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&text).unwrap());
            }
        }
    }

    #[test]
    fn every_ascii_character_is_as_serde_json_writes_it() {
        let all: String = (0..=127u8).map(char::from).collect();
        let mut out = Vec::new();
        super::string(&mut out, &all);
        assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&all).unwrap());
    }
}
