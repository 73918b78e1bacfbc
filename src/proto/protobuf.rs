//! Encodes and decodes single fields of protobuf messages, for messages that are mostly the same many times over.
//!
//! The encoding is that of prost: a field with its default value is omitted (proto3).

use bytes::BufMut;
use prost::encoding::{WireType, encode_varint, encoded_len_varint, key_len};

/// Writes a string, bytes, or a message that is not empty.
pub fn delimited(tag: u32, value: &[u8], out: &mut impl BufMut) {
    if !value.is_empty() {
        begin(tag, value.len(), out);
        out.put_slice(value);
    }
}

/// The length of what [`delimited`] writes, bytes.
pub fn delimited_len(tag: u32, value: &[u8]) -> usize {
    if value.is_empty() { 0 } else { message_len(tag, value.len()) }
}

/// Writes the tag and length that precede a message of `length` bytes.
pub fn begin(tag: u32, length: usize, out: &mut impl BufMut) {
    key(tag, WireType::LengthDelimited, out);
    varint(length as u64, out);
}

fn key(tag: u32, of: WireType, out: &mut impl BufMut) {
    varint(u64::from(tag << 3 | of as u32), out);
}

/// Writes a base-128 varint, low bits first. Nearly all have one or two bytes; prost writes byte by byte.
fn varint(value: u64, out: &mut impl BufMut) {
    match value {
        0..0x80 => out.put_u8(value as u8),
        0x80..0x4000 => out.put_slice(&[value as u8 | 0x80, (value >> 7) as u8]),
        _ => encode_varint(value, out),
    }
}

/// The length of a message of `length` bytes with its tag and length.
pub fn message_len(tag: u32, length: usize) -> usize {
    key_len(tag) + encoded_len_varint(length as u64) + length
}

/// Writes an unsigned integer.
pub fn number(tag: u32, value: u64, out: &mut impl BufMut) {
    if value != 0 {
        key(tag, WireType::Varint, out);
        varint(value, out);
    }
}

/// The length of what [`number`] writes, bytes.
pub fn number_len(tag: u32, value: u64) -> usize {
    if value == 0 { 0 } else { key_len(tag) + encoded_len_varint(value) }
}

/// A reader of a message's fields in the order in which prost writes them. Its methods return `None` if prost would have written something
/// else: a message read to its end is bit for bit what prost writes for the same values.
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Reads a message that has no tag and length in front.
    pub fn of(message: &'a [u8]) -> Fields<'a> {
        Fields(message)
    }

    /// The bytes that are not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Checks that no bytes are left.
    pub fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }

    /// Reads a string, bytes, or a message, with a tag below 16; empty if the field is omitted.
    pub fn delimited(&mut self, tag: u8) -> Option<&'a [u8]> {
        if !self.next_is(tag, WireType::LengthDelimited) {
            return Some(&[]);
        }
        let length = usize::try_from(self.varint()?).ok().filter(|length| *length > 0)?;
        let (value, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(value)
    }

    /// Reads a string with a tag below 16; empty if the field is omitted.
    pub fn text(&mut self, tag: u8) -> Option<&'a str> {
        str::from_utf8(self.delimited(tag)?).ok()
    }

    /// Reads an unsigned integer with a tag below 16; 0 if the field is omitted.
    pub fn number(&mut self, tag: u8) -> Option<u64> {
        if !self.next_is(tag, WireType::Varint) {
            return Some(0);
        }
        self.varint().filter(|value| *value != 0)
    }

    /// Consumes a key of one byte, if it comes next.
    fn next_is(&mut self, tag: u8, wire: WireType) -> bool {
        match self.0.split_first() {
            Some((key, rest)) if *key < 0x80 && u32::from(*key) == u32::from(tag) << 3 | wire as u32 => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// Reads a varint of minimal length and at most nine bytes; ten bytes encode negative numbers.
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return (*byte != 0 || shift == 0).then_some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_prost_writes_them() {
        let near = |power: u32| [(1u64 << power) - 1, 1 << power, (1 << power) + 1];
        for value in (0..63).flat_map(near).chain([u64::MAX]) {
            let (mut ours, mut expected) = (Vec::new(), Vec::new());
            varint(value, &mut ours);
            encode_varint(value, &mut expected);
            assert_eq!(ours, expected);
        }
    }

    #[test]
    fn a_number_is_read_in_the_one_form_that_prost_writes() {
        for value in (0..63).map(|bit| 1 << bit).flat_map(|n: u64| [n - 1, n, n + 1]).filter(|n| *n != 0) {
            let mut written = Vec::new();
            number(5, value, &mut written);
            let mut fields = Fields::of(&written);
            assert_eq!((fields.number(5), fields.end()), (Some(value), Some(())));
            assert_eq!(Fields::of(&written[..written.len() - 1]).number(5), None, "cut short");
            // The same number encoded with one byte more.
            *written.last_mut().unwrap() |= 0x80;
            written.push(0);
            assert_eq!(Fields::of(&written).number(5), None);
        }
        assert_eq!(Fields::of(&[5 << 3, 0]).number(5), None, "a default that was written out");
        assert_eq!(Fields::of(&[6 << 3, 1]).number(5), Some(0), "left out");
        let negative = [&[5 << 3][..], &[0xff; 9], &[1]].concat();
        assert_eq!(Fields::of(&negative).number(5), None);
    }

    #[test]
    fn a_text_is_read_in_the_one_form_that_prost_writes() {
        let mut written = Vec::new();
        delimited(3, "\u{e9}".as_bytes(), &mut written);
        let mut fields = Fields::of(&written);
        assert_eq!((fields.text(2), fields.text(3), fields.end()), (Some(""), Some("\u{e9}"), Some(())));
        assert_eq!(Fields::of(&written[..written.len() - 1]).text(3), None, "cut short");
        assert_eq!(Fields::of(&[3 << 3 | 2, 0]).text(3), None, "a default that was written out");
        assert_eq!(Fields::of(&[3 << 3 | 2, 0x81, 0, b'a']).text(3), None, "a length with a byte more than it has");
        assert_eq!(Fields::of(&[3 << 3 | 2, 1, 0xe9]).text(3), None, "no UTF-8");
        assert_eq!(Fields::of(&[0x82, 1, 1, b'a']).text(16), Some(""), "a key of two bytes is not read");
    }
}
