//! Arguments of a tool call: strict parsing, and the digest of their canonical JSON (RFC 8785).
//!
//! Two different calls must never have the same digest, or an approval of one would be valid for the other. RFC 8785 treats every number as
//! an IEEE double, so a number that a double cannot hold exactly is refused in its original text, before rounding. Duplicate names in an
//! object, lone surrogates and anything else that is not JSON are refused as well. All languages share the same cases:
//! `tests/vectors/arguments/cases.json`.

use serde_json::Value;

use crate::identity::{json, sha256};

/// The largest integer up to which a double holds every integer (RFC 7493, section 2.2).
const LARGEST_INTEGER: f64 = 9_007_199_254_740_991.0;
/// RFC 8785 writes numbers from here on with an exponent. A whole number below it looks like an integer to a reader.
const EXPONENT_FROM: f64 = 1e21;

/// Why arguments have no digest.
#[derive(Debug, thiserror::Error)]
pub enum ArgumentsDefect {
    /// The text is not JSON, or JSON that two readers could read differently.
    #[error("{0}")]
    NotJson(serde_json::Error),
    /// A number that another reader could read as a different one.
    #[error(
        "has a number (at byte {0}) that a double does not hold, so others would read another one: right would be an integer up to 2^53 - 1, \
         fewer digits, or a string"
    )]
    Number(usize),
}

/// Parses arguments.
pub fn parse(text: &str) -> Result<Value, ArgumentsDefect> {
    let value = json::parse(text.as_bytes()).map_err(ArgumentsDefect::NotJson)?;
    // The error gives the position and not the number, because errors may be stored and must not contain arguments.
    match numbers(text).find(|(_, number)| !exact(number)) {
        Some((at, _)) => Err(ArgumentsDefect::Number(at)),
        None => Ok(value),
    }
}

/// SHA-256 of parsed arguments in canonical form.
pub fn digest(arguments: &Value) -> Result<[u8; 32], ArgumentsDefect> {
    serde_json_canonicalizer::to_vec(arguments).map(|text| sha256(&text)).map_err(ArgumentsDefect::NotJson)
}

/// The same for a text.
pub fn digest_of_json(text: &str) -> Result<[u8; 32], ArgumentsDefect> {
    digest(&parse(text)?)
}

/// The numbers in a JSON text, with their positions.
fn numbers(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(&byte) = bytes.get(at) {
            let from = at;
            at += 1;
            match byte {
                b'"' => {
                    while let Some(&inside) = bytes.get(at) {
                        // An escaped quote does not end the string.
                        at += if inside == b'\\' { 2 } else { 1 };
                        if inside == b'"' {
                            break;
                        }
                    }
                }
                b'-' | b'0'..=b'9' => {
                    while bytes.get(at).is_some_and(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) {
                        at += 1;
                    }
                    return text.get(from..at).map(|number| (from, number));
                }
                _ => {}
            }
        }
        None
    })
}

/// Whether a double distinguishes this number from all others: the number has the same digits that the double itself is written with.
fn exact(number: &str) -> bool {
    let Ok(double) = number.parse::<f64>() else { return false };
    let (size, integer) = (double.abs(), !number.contains(['.', 'e', 'E']));
    if !double.is_finite() || (size > LARGEST_INTEGER && (integer || size < EXPONENT_FROM)) {
        return false;
    }
    decimal(number).is_some_and(|written| Some(written) == decimal(&format!("{size:e}")))
}

/// The digits of a number without leading and trailing zeros, and its power of ten. Equal for equal absolute values.
fn decimal(number: &str) -> Option<(String, i64)> {
    let (mantissa, exponent) =
        number.trim_start_matches('-').split_once(['e', 'E']).unwrap_or((number.trim_start_matches('-'), "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0');
    let short = digits.trim_end_matches('0');
    if short.is_empty() {
        return Some((String::new(), 0));
    }
    let zeros = i64::try_from(digits.len() - short.len()).ok()?;
    let power = exponent.parse::<i64>().ok()?.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(zeros)?;
    Some((short.to_owned(), power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Cases {
        accepted: Vec<Accepted>,
        refused: Vec<String>,
    }

    #[derive(serde::Deserialize)]
    struct Accepted {
        json: Vec<String>,
        canonical: String,
    }

    /// The cases that all languages share.
    #[test]
    fn two_calls_never_have_one_digest() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/vectors/arguments/cases.json");
        // The file is not part of the published package.
        let Ok(text) = std::fs::read_to_string(file) else { return };
        let cases: Cases = serde_json::from_str(&text).unwrap();
        let mut digests = std::collections::HashSet::new();
        for Accepted { json, canonical } in &cases.accepted {
            for written in json {
                assert_eq!(digest_of_json(written).unwrap(), sha256(canonical.as_bytes()), "{written}");
            }
            assert!(digests.insert(sha256(canonical.as_bytes())), "{canonical}");
        }
        for wrong in &cases.refused {
            assert!(digest_of_json(wrong).is_err(), "{wrong}");
        }
        assert!(cases.accepted.len() > 10 && cases.refused.len() > 30);
    }
}
