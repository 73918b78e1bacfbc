//! Fields of protobuf messages, written one by one: for messages of which most is the same many times over, and encoded once.
//!
//! As prost writes them: what has its default value is left out (proto3).

use bytes::BufMut;
use prost::encoding::{WireType, encode_varint, encoded_len_varint, key_len};

/// A string, bytes, or a message that is not empty.
pub fn delimited(tag: u32, value: &[u8], out: &mut impl BufMut) {
    if !value.is_empty() {
        begin(tag, value.len(), out);
        out.put_slice(value);
    }
}

/// What [`delimited`] writes, bytes.
pub fn delimited_len(tag: u32, value: &[u8]) -> usize {
    if value.is_empty() { 0 } else { message_len(tag, value.len()) }
}

/// What stands before a message of so many bytes.
pub fn begin(tag: u32, length: usize, out: &mut impl BufMut) {
    key(tag, WireType::LengthDelimited, out);
    varint(length as u64, out);
}

fn key(tag: u32, of: WireType, out: &mut impl BufMut) {
    varint(u64::from(tag << 3 | of as u32), out);
}

/// A number in base 128, the lowest first: nearly all are of one byte or two, which prost's loop writes one by one.
fn varint(value: u64, out: &mut impl BufMut) {
    match value {
        0..0x80 => out.put_u8(value as u8),
        0x80..0x4000 => out.put_slice(&[value as u8 | 0x80, (value >> 7) as u8]),
        _ => encode_varint(value, out),
    }
}

/// A message of so many bytes with what stands before it.
pub fn message_len(tag: u32, length: usize) -> usize {
    key_len(tag) + encoded_len_varint(length as u64) + length
}

/// An unsigned integer.
pub fn number(tag: u32, value: u64, out: &mut impl BufMut) {
    if value != 0 {
        key(tag, WireType::Varint, out);
        varint(value, out);
    }
}

/// What [`number`] writes, bytes.
pub fn number_len(tag: u32, value: u64) -> usize {
    if value == 0 { 0 } else { key_len(tag) + encoded_len_varint(value) }
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
}
