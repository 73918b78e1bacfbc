//! mayfly's access tokens as a relying service sees them: a compact JWS (RFC 7515) over the claims of RFC 9068 and mayfly's own claims,
//! signed with ES256.

mod claims;
#[cfg(test)]
mod vectors;
mod verify;

pub use claims::{
    Act, AncestorClaim, Claims, Cnf, GroundClaim, MayflyClaims, OwnerClaim, SubjectTokenClaim, SvidClaim, TaskClaim,
};
pub use verify::{
    BadJwks, Jwks, Possession, TokenDefect, TokenRequirements, authentic, check_claims, peek_kid, signed_by, verify,
    verify_signature,
};

/// The collision-resistant name of mayfly's own claims (RFC 7519, section 4.2).
pub const OWN_CLAIMS: &str = "https://mayfly.dev/claims";
/// The newest version of mayfly's own claims. It increases when a verifier that does not know a new claim must refuse the token. Version 2
/// adds `rests_on`.
pub const OWN_VERSION: u32 = 2;
/// The version of a token without claims that an older verifier must refuse.
pub const PLAIN_VERSION: u32 = 1;
/// `typ` of mayfly's tokens (RFC 9068, section 2.1).
pub const TYP: &str = "at+jwt";
/// The signature algorithm of mayfly's tokens (RFC 7518, section 3.4).
pub const ES256: &str = "ES256";
