//! File names for the names of registrations, bindings and environments, which may contain characters that a file name should not have.

use std::fmt::Write as _;

/// The name as a file name: every byte but letters, digits, `_`, `-` and inner `.` as `%` and two hexadecimal digits.
pub fn encoded(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => out.push(char::from(byte)),
            b'.' if at > 0 => out.push('.'),
            other => {
                // Writing to a string cannot fail.
                let _ = write!(out, "%{other:02X}");
            }
        }
    }
    out
}

/// The name that [`encoded`] made this file name of. `None`: it made none such.
pub fn decoded(file: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(file.len()), file);
    while let Some(first) = rest.bytes().next() {
        let taken = match first {
            b'%' => {
                bytes.push(u8::from_str_radix(rest.get(1..3)?, 16).ok()?);
                3
            }
            _ => {
                bytes.push(first);
                1
            }
        };
        // Only ASCII is left as it is, so every boundary is one of characters.
        rest = rest.get(taken..)?;
    }
    let name = String::from_utf8(bytes).ok()?;
    (encoded(&name) == file).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_back_and_leads_nowhere() {
        for (name, file) in [
            ("warehouse", "warehouse"),
            ("a.b-c_d", "a.b-c_d"),
            ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
            ("a/b:c@d+e", "a%2Fb%3Ac%40d%2Be"),
            (".hidden", "%2Ehidden"),
            ("é", "%C3%A9"),
            ("100%", "100%25"),
        ] {
            assert_eq!(encoded(name), file);
            assert_eq!(decoded(file).as_deref(), Some(name));
        }
        for wrong in ["%", "%2", "%zz", "%2f", "a/b", "é", "%61", "a%"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
    }
}
