//! Tokens of ours as a relying service sees them: a compact JWS (RFC 7515) over the claims of RFC 9068 and our own, signed with ES256.

mod claims;
#[cfg(test)]
mod vectors;
mod verify;

pub use claims::{Act, AncestorClaim, Claims, Cnf, GroundClaim, Own, OwnerClaim, SubjectTokenClaim, SvidClaim, TaskClaim};
pub use verify::{BadJwks, Expect, Jwks, Possession, TokenDefect, authentic, fits, peek_kid, signed, signed_by, verify};

/// The collision-safe name of our own claims (RFC 7519, section 4.2).
pub const OWN_CLAIMS: &str = "https://mayfly.dev/claims";
/// The version of our own claims. It goes up when a verifier that does not know a new one must refuse: 2 has `rests_on`.
pub const OWN_VERSION: u32 = 2;
/// The version of a token whose claims every verifier knows.
pub const PLAIN_VERSION: u32 = 1;
/// `typ` of our tokens (RFC 9068, section 2.1).
pub const TYP: &str = "at+jwt";
/// What our tokens are signed with (RFC 7518, section 3.4).
pub const ES256: &str = "ES256";
