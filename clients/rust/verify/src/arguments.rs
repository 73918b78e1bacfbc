//! Arguments of a tool call: read strictly, and their digest in the one written form of JSON (RFC 8785).
//!
//! Two calls must never have one digest, or what was approved for the one serves for the other. RFC 8785 takes every number for an IEEE double,
//! so a number that a double does not hold is refused: as it stands there, and not after it was rounded. So are a name that stands twice in one
//! object, half of a surrogate pair, and whatever else is no JSON. The same cases in every language: `tests/vectors/arguments/cases.json`.

use serde_json::Value;

use crate::identity::{json, sha256};

/// The largest integer of which a double holds each one up to it (RFC 7493, section 2.2).
const LARGEST_INTEGER: f64 = 9_007_199_254_740_991.0;
/// From there on RFC 8785 writes a number with an exponent. Below it a whole one is an integer to who reads it.
const EXPONENT_FROM: f64 = 1e21;

/// Why arguments have no digest.
#[derive(Debug, thiserror::Error)]
pub enum ArgumentsDefect {
    /// The text is no JSON, or one that two readers could take for two.
    #[error("{0}")]
    NotJson(serde_json::Error),
    /// A number that is another one to a reader.
    #[error(
        "has a number (at byte {0}) that a double does not hold, so others would read another one: right would be an integer up to 2^53 - 1, \
         fewer digits, or a string"
    )]
    Number(usize),
}

/// Reads arguments.
pub fn parse(text: &str) -> Result<Value, ArgumentsDefect> {
    let value = json::parse(text.as_bytes()).map_err(ArgumentsDefect::NotJson)?;
    // Where it stands, and not the number itself: no argument is in an error, which may be kept.
    match numbers(text).find(|(_, number)| !exact(number)) {
        Some((at, _)) => Err(ArgumentsDefect::Number(at)),
        None => Ok(value),
    }
}

/// SHA-256 of what was read, in its canonical form.
pub fn digest(arguments: &Value) -> Result<[u8; 32], ArgumentsDefect> {
    serde_json_canonicalizer::to_vec(arguments).map(|text| sha256(&text)).map_err(ArgumentsDefect::NotJson)
}

/// The same of a text.
pub fn digest_of_json(text: &str) -> Result<[u8; 32], ArgumentsDefect> {
    digest(&parse(text)?)
}

/// The numbers in a text that is JSON, and where each begins.
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
                        // What is escaped ends no string.
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

/// Whether a double tells this number from all others: it is written with the digits that the double itself is written with.
fn exact(number: &str) -> bool {
    let Ok(double) = number.parse::<f64>() else { return false };
    let (size, integer) = (double.abs(), !number.contains(['.', 'e', 'E']));
    if !double.is_finite() || (size > LARGEST_INTEGER && (integer || size < EXPONENT_FROM)) {
        return false;
    }
    decimal(number).is_some_and(|written| Some(written) == decimal(&format!("{size:e}")))
}

/// A number's digits without zeros at either end, and its power of ten: equal for equal sizes.
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

    /// The cases that every language reads.
    #[test]
    fn two_calls_never_have_one_digest() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/vectors/arguments/cases.json");
        // It is not in the package.
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
