//! A minimal DER writer for extensions that no library would write.

/// One TLV, for contents below 64 KiB.
pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        n @ 0..=0x7f => out.push(n as u8),
        n @ 0x80..=0xff => out.extend([0x81, n as u8]),
        n => out.extend([0x82, (n >> 8) as u8, n as u8]),
    }
    out.extend(content);
    out
}

/// A SEQUENCE of the given items.
pub fn sequence(items: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &items.concat())
}

/// A KeyUsage with these bits of its first byte: digitalSignature 0x80, keyCertSign 0x04, cRLSign 0x02.
pub fn key_usage(bits: u8) -> Vec<u8> {
    if bits == 0 { tlv(0x03, &[0]) } else { tlv(0x03, &[bits.trailing_zeros() as u8, bits]) }
}

/// uniformResourceIdentifier [6].
pub fn uri(bytes: &[u8]) -> Vec<u8> {
    tlv(0x86, bytes)
}

/// dNSName [2].
pub fn dns(name: &str) -> Vec<u8> {
    tlv(0x82, name.as_bytes())
}
