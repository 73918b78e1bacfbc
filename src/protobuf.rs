//! Fields of protobuf messages, written one by one: for messages of which most is the same many times over, and encoded once.
//!
//! As prost writes them: what has its default value is left out (proto3).

use bytes::BufMut;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

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
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

/// A message of so many bytes with what stands before it.
pub fn message_len(tag: u32, length: usize) -> usize {
    key_len(tag) + encoded_len_varint(length as u64) + length
}

/// An unsigned integer.
pub fn number(tag: u32, value: u64, out: &mut impl BufMut) {
    if value != 0 {
        encode_key(tag, WireType::Varint, out);
        encode_varint(value, out);
    }
}

/// What [`number`] writes, bytes.
pub fn number_len(tag: u32, value: u64) -> usize {
    if value == 0 { 0 } else { key_len(tag) + encoded_len_varint(value) }
}
