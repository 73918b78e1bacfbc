//! What MySQL and MariaDB store of a password, computed here so that the password itself is in no statement.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use zeroize::Zeroizing;

/// The authentication string of `mysql_native_password`: a star and the hexadecimal SHA-1 of the password's SHA-1. The passwords are random
/// with 256 bits, so that a fast hash gives nothing away.
pub fn native(password: &str) -> Zeroizing<String> {
    let once = digest(&SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    let twice = digest(&SHA1_FOR_LEGACY_USE_ONLY, once.as_ref());
    Zeroizing::new(format!("*{}", data_encoding::HEXUPPER.encode(twice.as_ref())))
}

/// The authentication string of `caching_sha2_password`: `$A$005$`, 20 characters of salt, and SHA-crypt with 5,000 rounds. The salt has no
/// character that a statement would have to escape.
pub fn caching_sha2(password: &str, random: [u8; 16]) -> Zeroizing<String> {
    let salt: String = data_encoding::BASE32_NOPAD.encode(&random).chars().take(SALT).collect();
    let hash = sha256_crypt(password.as_bytes(), salt.as_bytes(), ROUNDS);
    Zeroizing::new(format!("$A$005${salt}{}", *hash))
}

const SALT: usize = 20;
const ROUNDS: usize = 5_000;

fn sha256(parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut hash = Zeroizing::new([0; 32]);
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// `bytes` repeated up to a length.
fn stretched(bytes: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(bytes.iter().copied().cycle().take(length).collect())
}

/// The hash of SHA-crypt (Drepper, "Unix crypt using SHA-256 and SHA-512"), without its prefix and salt. Unlike there, the salt may have more
/// than 16 characters: MySQL uses 20.
fn sha256_crypt(password: &[u8], salt: &[u8], rounds: usize) -> Zeroizing<String> {
    let b = sha256(&[password, salt, password]);
    let mut first = Zeroizing::new([password, salt, &stretched(&*b, password.len())].concat());
    let mut bits = password.len();
    while bits > 0 {
        first.extend_from_slice(if bits & 1 == 1 { &*b } else { password });
        bits >>= 1;
    }
    let mut a = sha256(&[&first]);
    let passwords = sha256(&vec![password; password.len()]);
    let p = stretched(&*passwords, password.len());
    let salts = sha256(&vec![salt; 16 + usize::from(a[0])]);
    let s = stretched(&*salts, salt.len());
    for round in 0..rounds {
        let (odd, third, seventh) = (round % 2 == 1, round % 3 != 0, round % 7 != 0);
        let mut parts: Vec<&[u8]> = vec![if odd { &p } else { &*a }];
        if third {
            parts.push(&s);
        }
        if seventh {
            parts.push(&p);
        }
        parts.push(if odd { &*a } else { &p });
        let next = sha256(&parts);
        a = next;
    }
    encoded(&a)
}

/// The order in which SHA-crypt encodes the bytes of the hash, and its alphabet.
const ORDER: [[usize; 3]; 10] = [
    [0, 10, 20],
    [21, 1, 11],
    [12, 22, 2],
    [3, 13, 23],
    [24, 4, 14],
    [15, 25, 5],
    [6, 16, 26],
    [27, 7, 17],
    [18, 28, 8],
    [9, 19, 29],
];
const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

fn encoded(hash: &[u8; 32]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(43));
    let mut push = |mut value: u32, characters: usize| {
        for _ in 0..characters {
            text.push(char::from(ALPHABET[(value & 63) as usize]));
            value >>= 6;
        }
    };
    for [high, middle, low] in ORDER {
        push(u32::from(hash[high]) << 16 | u32::from(hash[middle]) << 8 | u32::from(hash[low]), 4);
    }
    push(u32::from(hash[31]) << 8 | u32::from(hash[30]), 3);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_native_hash_is_that_of_the_server() {
        // SELECT PASSWORD('mypass') in the manual of MySQL 5.7.
        assert_eq!(native("mypass").as_str(), "*6C8989366EAF75BB670AD8EA7A7FC1176A95CEF4");
    }

    #[test]
    fn sha_crypt_is_that_of_libc_and_of_mysql() {
        // Made by crypt(3) of glibc with "$5$rounds=5000$…".
        for (password, salt, hash) in [
            ("hashcat", "abcdefghij012345", "PihID5DAlEVOWVVaVyJhmICMx1qjCLzhabO6ATgMQZD"),
            (&"x".repeat(43), "abcdefghij012345", "DW4rPdvBXg50xEPX1ZwrL2OAk/Vbi0bNVmpyBIZO6F1"),
            (&"y".repeat(70), "abc", "QxLROXtJX5FMEsCI9npzH53UvJo.Ba6eFPeHMi.lbI1"),
        ] {
            assert_eq!(sha256_crypt(password.as_bytes(), salt.as_bytes(), ROUNDS).as_str(), hash, "{password}");
        }
        // An account of a MySQL 8 server, the example of hashcat's mode 7401: salt of 20 bytes, then the hash, both in hexadecimal.
        let salt = data_encoding::HEXUPPER.decode(b"F9CC98CE08892924F50A213B6BC571A2C11778C5").unwrap();
        let hash = "625479393559393965414D45316477456B484F41316E64484742577A2E3162785353526B7554584647562F";
        let hash = data_encoding::HEXUPPER.decode(hash.as_bytes()).unwrap();
        assert_eq!(sha256_crypt(b"hashcat", &salt, ROUNDS).as_bytes(), hash);
    }

    #[test]
    fn an_authentication_string_has_70_characters_that_need_no_quotes() {
        let text = caching_sha2(&"p".repeat(43), [7; 16]);
        assert_eq!(text.len(), 7 + SALT + 43);
        assert!(
            text.starts_with("$A$005$") && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"$./".contains(&b)),
            "{}",
            *text
        );
    }
}
