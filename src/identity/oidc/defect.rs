//! Why a token of an OIDC issuer is refused: a closed list with one clause each.

use std::fmt;

macro_rules! defects {
    ($($(#[$doc:meta])* $name:ident => $code:literal, $clause:literal;)*) => {
        /// Why a token is refused: a closed list with one clause each.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum OidcDefect {
            $($(#[$doc])* $name,)*
        }

        impl OidcDefect {
            /// All defects.
            pub const ALL: &'static [OidcDefect] = &[$(OidcDefect::$name,)*];

            /// A stable, machine-readable name of the defect.
            pub const fn code(self) -> &'static str {
                match self { $(OidcDefect::$name => $code,)* }
            }

            /// The clause that refuses the token, with its place in the standard.
            pub const fn clause(self) -> &'static str {
                match self { $(OidcDefect::$name => $clause,)* }
            }
        }
    };
}

defects! {
    /// Larger than `limits::OIDC_TOKEN_BYTES`.
    TooLong => "too_long", "a token has at most 16384 bytes (limit OIDC_TOKEN_BYTES)";
    /// Not three parts of base64url with JSON objects in the first two, or a duplicate member name.
    Malformed => "malformed", "a token is a JWS in compact form over JSON, no name twice in an object (RFC 7515, 5.2; RFC 7519, 7.2)";
    /// `none`, HMAC, or an algorithm that is not in the issuer's list.
    Algorithm => "algorithm", "alg is one that the configuration names for the issuer, never none or HMAC (RFC 8725, 3.1)";
    /// An unsupported `typ`.
    Typ => "typ", "typ is absent, JWT or at+jwt (RFC 8725, 3.11; RFC 9068, 2.1)";
    /// No `kid`.
    MissingKid => "missing_kid", "kid names the key (RFC 7515, 4.1.4)";
    /// A header parameter that brings a key or changes the meaning of the token.
    HeaderParameter => "header_parameter", "the header brings no key and no meaning of its own: none of jku, x5u, jwk, x5c, crit, b64, zip, enc (RFC 8725, 3.10)";
    /// `iss` is not the issuer.
    Issuer => "issuer", "iss is the issuer, byte for byte (OIDC Core, 3.1.3.7)";
    /// The issuer has no key with this `kid`.
    UnknownKid => "unknown_kid", "kid names a key that the issuer publishes";
    /// The algorithm does not match the key's type, curve or `alg`.
    OtherKeyType => "other_key_type", "alg is of the key's type, curve and alg (RFC 8725, 3.1)";
    /// The signature is invalid.
    BadSignature => "bad_signature", "the issuer's key made the signature (OIDC Core, 3.1.3.7)";
    /// No `aud`, a list although the issuer's configuration accepts none, or not text.
    AudNotOneText => "aud_not_one_text", "aud is one text; a list is taken only where oidc_issuers.audiences says what may stand beside ours";
    /// The audience is not mayfly, or a further audience is not named in the issuer's configuration.
    Audience => "audience", "aud is the one that is expected here, byte for byte, and in a list beside it only what oidc_issuers.audiences names (RFC 8725, 3.9)";
    /// No `exp`.
    MissingExp => "missing_exp", "exp is there (RFC 7519, 4.1.4)";
    /// No `iat`.
    MissingIat => "missing_iat", "iat is there (OIDC Core, 2; RFC 9068, 2.2)";
    /// A time that is not a number of seconds.
    NotATime => "not_a_time", "exp, iat and nbf are seconds since 1970, to the year 9999 (RFC 7519, 2)";
    /// `exp` has passed.
    Expired => "expired", "exp has not come";
    /// `nbf` or `iat` is in the future.
    NotYetValid => "not_yet_valid", "nbf and iat have come";
    /// The lifetime is longer than the issuer's configuration allows, or not positive.
    LivesTooLong => "lives_too_long", "exp lies after iat, at most the max_life of the issuer's configuration (default 1h) later";
    /// No `sub`, or a `sub` that cannot be recorded.
    Sub => "sub", "sub is text of 1 to 1024 bytes without control characters (limit OIDC_SUB_BYTES)";
    /// `sub` is a SPIFFE ID. OIDC issuers cannot vouch for SPIFFE IDs.
    SpiffeSub => "spiffe_sub", "sub is no SPIFFE ID: for those only JWT-SVIDs vouch";
    /// A `jti` that cannot be recorded.
    Jti => "jti", "jti, where there is one, is text of 1 to 256 bytes without control characters";
    /// `sub` is the issuer itself.
    Assertion => "assertion", "the subject is somebody else than the issuer: a client's assertion is no token of a subject (RFC 7523, 3)";
    /// A groups or scopes claim that cannot be read.
    BadValues => "bad_values", "a claim of groups or scopes is a text with spaces, or a list of at most 256 texts of 1 to 256 bytes (limit OIDC_GROUPS)";
}

impl fmt::Display for OidcDefect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.clause())
    }
}

impl std::error::Error for OidcDefect {}
