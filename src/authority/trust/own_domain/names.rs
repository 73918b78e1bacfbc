//! The SPIFFE IDs of people and jobs.

use mayfly_base::refusal::Fault;
use mayfly_identity::sha256;
use mayfly_identity::spiffe_id::{SpiffeId, TrustDomain};

/// The prefix of a last segment that is a digest, for a `sub` that cannot be a path segment.
const HASHED: &str = "sha256.";
/// The longest `sub` that is used as a path segment unchanged, bytes: a UUID, an employee number, a name.
const AS_IT_IS: usize = 64;

/// The SPIFFE ID of a person: `spiffe://DOMAIN/people/PROVIDER/SUB`. A `sub` that is not a valid path segment, or that looks like a digest
/// segment, is replaced by its SHA-256, so that no two people have the same id.
pub fn person_id(domain: &TrustDomain, provider: &str, sub: &str) -> Result<SpiffeId, Fault> {
    let id = format!("spiffe://{domain}/people/{provider}/{}", segment(sub));
    id.parse().map_err(|e| Fault::new(format!("a person's SPIFFE ID {id}: {e}")))
}

/// The SPIFFE ID of a job: `spiffe://DOMAIN/ci/PROVIDER/ID/RULE`. ID is the platform's own, like that of a repository.
pub fn attested_id(domain: &TrustDomain, provider: &str, id: &str, rule: &str) -> Result<SpiffeId, Fault> {
    let id = format!("spiffe://{domain}/ci/{provider}/{}/{rule}", segment(id));
    id.parse().map_err(|e| Fault::new(format!("a job's SPIFFE ID {id}: {e}")))
}

/// The path segment of a text, different for each text.
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
