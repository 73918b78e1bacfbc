//! The defects of a SPIFFE ID, a closed list.

/// Why a text is not a SPIFFE ID or trust domain. The first defect from left to right is reported.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum IdDefect {
    /// The text is empty.
    #[error("a SPIFFE ID is not empty")]
    Empty,
    /// Longer than `limits::SPIFFE_ID_BYTES`.
    #[error("a SPIFFE ID has at most 2048 bytes")]
    TooLong,
    /// Does not begin with `spiffe://`, in lower case.
    #[error("a SPIFFE ID begins with spiffe:// in lower case")]
    WrongScheme,
    /// No trust domain.
    #[error("a trust domain has at least one character")]
    MissingTrustDomain,
    /// Longer than `limits::TRUST_DOMAIN_BYTES`.
    #[error("a trust domain has at most 255 bytes")]
    TrustDomainTooLong,
    /// `user@` before the trust domain.
    #[error("a SPIFFE ID has no user information")]
    Userinfo,
    /// `:8443` after the trust domain.
    #[error("a SPIFFE ID has no port")]
    Port,
    /// `[::1]` as trust domain.
    #[error("a trust domain is a name, not an IPv6 address")]
    Ipv6,
    /// `?` anywhere.
    #[error("a SPIFFE ID has no query")]
    Query,
    /// `#` anywhere.
    #[error("a SPIFFE ID has no fragment")]
    Fragment,
    /// Upper case in the trust domain.
    #[error("a trust domain is in lower case")]
    UppercaseTrustDomain,
    /// A character that is not allowed in a trust domain, including percent-encoding.
    #[error("a trust domain has only a-z, 0-9, '.', '-' and '_'")]
    BadTrustDomainChar,
    /// A character that is not allowed in a path, including percent-encoding.
    #[error("a path segment has only a-z, A-Z, 0-9, '.', '-' and '_'")]
    BadPathChar,
    /// `//` in the path.
    #[error("no path segment is empty")]
    EmptySegment,
    /// `.` or `..` as a segment.
    #[error("no path segment is '.' or '..'")]
    DotSegment,
    /// `/` at the end.
    #[error("no slash at the end")]
    TrailingSlash,
}

impl IdDefect {
    /// A stable, machine-readable name of the defect.
    pub const fn code(self) -> &'static str {
        match self {
            IdDefect::Empty => "empty",
            IdDefect::TooLong => "too_long",
            IdDefect::WrongScheme => "wrong_scheme",
            IdDefect::MissingTrustDomain => "missing_trust_domain",
            IdDefect::TrustDomainTooLong => "trust_domain_too_long",
            IdDefect::Userinfo => "userinfo",
            IdDefect::Port => "port",
            IdDefect::Ipv6 => "ipv6",
            IdDefect::Query => "query",
            IdDefect::Fragment => "fragment",
            IdDefect::UppercaseTrustDomain => "uppercase_trust_domain",
            IdDefect::BadTrustDomainChar => "bad_trust_domain_char",
            IdDefect::BadPathChar => "bad_path_char",
            IdDefect::EmptySegment => "empty_segment",
            IdDefect::DotSegment => "dot_segment",
            IdDefect::TrailingSlash => "trailing_slash",
        }
    }
}
