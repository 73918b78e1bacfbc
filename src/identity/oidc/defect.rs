//! Why a token of an OIDC issuer is refused: the closed list, one clause each.

use std::fmt;

macro_rules! defects {
    ($($(#[$doc:meta])* $name:ident => $code:literal, $clause:literal;)*) => {
        /// Why a token is refused: the closed list, one clause each.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum OidcDefect {
            $($(#[$doc])* $name,)*
        }

        impl OidcDefect {
            /// Every defect there is.
            pub const ALL: &'static [OidcDefect] = &[$(OidcDefect::$name,)*];

            /// A stable name of the defect, for machines.
            pub const fn code(self) -> &'static str {
                match self { $(OidcDefect::$name => $code,)* }
            }

            /// The clause that refuses it, with its place in the standard.
            pub const fn clause(self) -> &'static str {
                match self { $(OidcDefect::$name => $clause,)* }
            }
        }
    };
}

defects! {
    /// Above `limits::OIDC_TOKEN_BYTES`.
    TooLong => "too_long", "a token has at most 16384 bytes (limit OIDC_TOKEN_BYTES)";
    /// Not three parts of base64url with an object of JSON in the first two, no name twice.
    Malformed => "malformed", "a token is a JWS in compact form over JSON, no name twice in an object (RFC 7515, 5.2; RFC 7519, 7.2)";
    /// `none`, HMAC, or what the issuer's list has not.
    Algorithm => "algorithm", "alg is one that the configuration names for the issuer, never none or HMAC (RFC 8725, 3.1)";
    /// Another `typ`.
    Typ => "typ", "typ is absent, JWT or at+jwt (RFC 8725, 3.11; RFC 9068, 2.1)";
    /// No `kid`.
    MissingKid => "missing_kid", "kid names the key (RFC 7515, 4.1.4)";
    /// A header parameter that brings a key or a meaning.
    HeaderParameter => "header_parameter", "the header brings no key and no meaning of its own: none of jku, x5u, jwk, x5c, crit, b64, zip, enc (RFC 8725, 3.10)";
    /// `iss` is somebody else.
    Issuer => "issuer", "iss is the issuer, byte for byte (OIDC Core, 3.1.3.7)";
    /// No key of that name.
    UnknownKid => "unknown_kid", "kid names a key that the issuer publishes";
    /// An algorithm of another key type, curve, or than the key's own `alg`.
    OtherKeyType => "other_key_type", "alg is of the key's type, curve and alg (RFC 8725, 3.1)";
    /// The signature does not fit.
    BadSignature => "bad_signature", "the issuer's key made the signature (OIDC Core, 3.1.3.7)";
    /// No `aud`, a list where the issuer's section takes none, or no text.
    AudNotOneText => "aud_not_one_text", "aud is one text; a list is taken only where oidc_issuers.audiences says what may stand beside ours";
    /// For somebody else, or for somebody else too whom the issuer's section does not name.
    Audience => "audience", "aud is the one that is expected here, byte for byte, and in a list beside it only what oidc_issuers.audiences names (RFC 8725, 3.9)";
    /// No `exp`.
    MissingExp => "missing_exp", "exp is there (RFC 7519, 4.1.4)";
    /// No `iat`.
    MissingIat => "missing_iat", "iat is there (OIDC Core, 2; RFC 9068, 2.2)";
    /// A time that is no number of seconds.
    NotATime => "not_a_time", "exp, iat and nbf are seconds since 1970, to the year 9999 (RFC 7519, 2)";
    /// Its end has come.
    Expired => "expired", "exp has not come";
    /// Its `nbf` or `iat` has not come.
    NotYetValid => "not_yet_valid", "nbf and iat have come";
    /// Longer than the configuration allows for the issuer, or no life at all.
    LivesTooLong => "lives_too_long", "exp is after iat, by at most the issuer's max_life";
    /// No `sub`, or one that cannot stand in a record.
    Sub => "sub", "sub is text of 1 to 1024 bytes without control characters (limit OIDC_SUB_BYTES)";
    /// A SPIFFE ID, for which no OIDC issuer vouches.
    SpiffeSub => "spiffe_sub", "sub is no SPIFFE ID: for those only JWT-SVIDs vouch";
    /// A `jti` that cannot stand in a record.
    Jti => "jti", "jti, where there is one, is text of 1 to 256 bytes without control characters";
    /// It names itself.
    Assertion => "assertion", "the subject is somebody else than the issuer: a client's assertion is no token of a subject (RFC 7523, 3)";
    /// A claim of groups or scopes that cannot be read.
    BadValues => "bad_values", "a claim of groups or scopes is a text with spaces, or a list of at most 256 texts of 1 to 256 bytes (limit OIDC_GROUPS)";
}

impl fmt::Display for OidcDefect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.clause())
    }
}

impl std::error::Error for OidcDefect {}
