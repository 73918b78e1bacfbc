//! The SPIFFE IDs of people and jobs.

use crate::identity::sha256;
use crate::identity::spiffe_id::{SpiffeId, TrustDomain};
use crate::refusal::Fault;

/// What the last segment of somebody begins with whose `sub` cannot stand in a path.
const HASHED: &str = "sha256.";
/// The longest `sub` that stands in a path as it is, bytes: a UUID, an employee number, a name.
const AS_IT_IS: usize = 64;

/// The SPIFFE ID of a person: `spiffe://DOMAIN/people/PROVIDER/SUB`. A `sub` that is no path segment stands there by its SHA-256, and so does one
/// that looks like that: no two people have one id.
pub fn person_id(domain: &TrustDomain, provider: &str, sub: &str) -> Result<SpiffeId, Fault> {
    let id = format!("spiffe://{domain}/people/{provider}/{}", segment(sub));
    id.parse().map_err(|e| Fault::new(format!("a person's SPIFFE ID {id}: {e}")))
}

/// The SPIFFE ID of a job: `spiffe://DOMAIN/ci/PROVIDER/ID/RULE`, the id being the platform's own, like a repository's.
pub fn attested_id(domain: &TrustDomain, provider: &str, id: &str, rule: &str) -> Result<SpiffeId, Fault> {
    let id = format!("spiffe://{domain}/ci/{provider}/{}/{rule}", segment(id));
    id.parse().map_err(|e| Fault::new(format!("a job's SPIFFE ID {id}: {e}")))
}

/// One segment for each text.
fn segment(sub: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let canonical = !sub.is_empty()
        && sub.len() <= AS_IT_IS
        && sub.bytes().all(plain)
        && !matches!(sub, "." | "..")
        && !sub.to_ascii_lowercase().starts_with(HASHED);
    match canonical {
        true => sub.to_owned(),
        false => format!("{HASHED}{}", data_encoding::HEXLOWER.encode(&sha256(sub.as_bytes()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sub_stands_as_it_is_or_by_its_hash_and_no_two_people_have_one_id() {
        let domain = TrustDomain::parse("people.example").unwrap();
        let id = |sub: &str| person_id(&domain, "corp", sub).unwrap().to_string();
        assert_eq!(id("ada"), "spiffe://people.example/people/corp/ada");
        let hashed = id("ada@example.org");
        assert!(hashed.starts_with("spiffe://people.example/people/corp/sha256."), "{hashed}");
        let looks_hashed = hashed.rsplit('/').next().unwrap();
        let subs =
            ["ada", "Ada", "ada@example.org", looks_hashed, "SHA256.ada", ".", "..", "a/b", "a%2fb", "\u{e4}da", &"x".repeat(65)];
        let ids: std::collections::BTreeSet<String> = subs.iter().map(|sub| id(sub)).collect();
        assert_eq!(ids.len(), subs.len());
        assert_ne!(person_id(&domain, "other", "ada").unwrap().to_string(), id("ada"));
        assert_eq!(
            attested_id(&domain, "github", "1296269", "deploy").unwrap().to_string(),
            "spiffe://people.example/ci/github/1296269/deploy"
        );
        assert!(
            attested_id(&domain, "github", "1/deploy", "x")
                .unwrap()
                .to_string()
                .starts_with("spiffe://people.example/ci/github/sha256.")
        );
    }
}
