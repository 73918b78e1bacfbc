//! SPIFFE IDs and trust domains (SPIFFE-ID, sections 2.1 to 2.4). A text that is not canonical is refused and never normalized, so each
//! workload has exactly one text.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use super::id_defect::IdDefect;
use crate::limits;

const SCHEME: &str = "spiffe://";

/// The trust domain of a SPIFFE ID, which is the issuer of a workload's identity. Empty for a text that is not a SPIFFE ID.
pub fn trust_domain_of(id: &str) -> &str {
    let rest = id.strip_prefix(SCHEME).unwrap_or_default();
    rest.split('/').next().unwrap_or_default()
}

/// A trust domain's name: `[a-z0-9._-]`, 1 to 255 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Parses the bare name.
    pub fn parse(name: &str) -> Result<TrustDomain, IdDefect> {
        check_trust_domain(name)?;
        Ok(TrustDomain(name.into()))
    }

    /// Parses the bare name or any SPIFFE ID in the domain, for input by people.
    pub fn from_name_or_id(text: &str) -> Result<TrustDomain, IdDefect> {
        // A text with ":/" was meant as an id, so the error should be about that id.
        if text.contains(":/") { Ok(SpiffeId::parse(text)?.trust_domain_owned()) } else { TrustDomain::parse(text) }
    }

    /// The name without a scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TrustDomain {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A SPIFFE ID: `spiffe://` + trust domain + path, at most 2048 bytes. The path is empty or `/` and segments of `[a-zA-Z0-9._-]`.
#[derive(Clone)]
pub struct SpiffeId {
    text: Arc<str>,
    /// Offset of the path in the text.
    path_at: u16,
}

impl SpiffeId {
    /// Checks the whole standard and reports the first defect. The number of segments is bounded where an SVID is verified, not here.
    pub fn parse(text: &str) -> Result<SpiffeId, IdDefect> {
        if text.is_empty() {
            return Err(IdDefect::Empty);
        }
        if text.len() > limits::SPIFFE_ID_BYTES {
            return Err(IdDefect::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(IdDefect::WrongScheme)?;
        let (domain, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        check_trust_domain(domain)?;
        check_path(path)?;
        let path_at = u16::try_from(SCHEME.len() + domain.len()).map_err(|_| IdDefect::TooLong)?;
        Ok(SpiffeId { text: text.into(), path_at })
    }

    /// Builds an id from a trust domain and path segments. Each segment is checked alone, so that no segment can contain a second one.
    pub fn from_segments(domain: &TrustDomain, segments: &[&str]) -> Result<SpiffeId, IdDefect> {
        let mut text = format!("{SCHEME}{domain}");
        for segment in segments {
            check_segment(segment)?;
            text.push('/');
            text.push_str(segment);
        }
        SpiffeId::parse(&text)
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain's name without a scheme.
    pub fn trust_domain(&self) -> &str {
        self.text.get(SCHEME.len()..usize::from(self.path_at)).unwrap_or_default()
    }

    /// The trust domain as an owned value.
    pub fn trust_domain_owned(&self) -> TrustDomain {
        TrustDomain(self.trust_domain().into())
    }

    /// The path with its leading slash; empty for the id of the trust domain itself.
    pub fn path(&self) -> &str {
        self.text.get(usize::from(self.path_at)..).unwrap_or_default()
    }

    /// The path's segments.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.path().split('/').skip(1)
    }

    /// Each prefix of whole segments, shortest first: `spiffe://td`, `spiffe://td/a`, … up to the whole id. Allocates nothing.
    pub fn prefixes(&self) -> Prefixes<'_> {
        Prefixes { text: &self.text, next: Some(usize::from(self.path_at)) }
    }
}

/// See [`SpiffeId::prefixes`].
#[derive(Clone, Debug)]
pub struct Prefixes<'a> {
    text: &'a str,
    next: Option<usize>,
}

impl<'a> Iterator for Prefixes<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let end = self.next?;
        let prefix = self.text.get(..end)?;
        self.next = match self.text.get(end + 1..) {
            None => None,
            Some(rest) => Some(rest.find('/').map_or(self.text.len(), |at| end + 1 + at)),
        };
        Some(prefix)
    }
}

/// A prefix that covers all ids at or below one id, by whole segments: `/ci` covers `/ci` and `/ci/x`, but not `/cid`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffePrefix(SpiffeId);

impl SpiffePrefix {
    /// Parses the id at the top. `spiffe://td` covers the whole trust domain.
    pub fn parse(text: &str) -> Result<SpiffePrefix, IdDefect> {
        SpiffeId::parse(text).map(SpiffePrefix)
    }

    /// The id at the top. It equals one of the [`SpiffeId::prefixes`] of each id that it covers.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The trust domain of the prefix.
    pub fn trust_domain(&self) -> &str {
        self.0.trust_domain()
    }

    /// Whether the prefix covers the id.
    pub fn covers(&self, id: &SpiffeId) -> bool {
        id.as_str().strip_prefix(self.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl From<SpiffeId> for SpiffePrefix {
    fn from(id: SpiffeId) -> SpiffePrefix {
        SpiffePrefix(id)
    }
}

fn check_trust_domain(name: &str) -> Result<(), IdDefect> {
    if name.is_empty() {
        return Err(IdDefect::MissingTrustDomain);
    }
    if name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_')) {
        return if name.len() > limits::TRUST_DOMAIN_BYTES { Err(IdDefect::TrustDomainTooLong) } else { Ok(()) };
    }
    // Reports the defect by what the text was probably meant as, so that the reader knows what to remove.
    Err(match name {
        _ if name.contains('?') => IdDefect::Query,
        _ if name.contains('#') => IdDefect::Fragment,
        _ if name.contains('@') => IdDefect::Userinfo,
        _ if name.starts_with('[') => IdDefect::Ipv6,
        _ if name.contains(':') => IdDefect::Port,
        _ if name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_')) => {
            IdDefect::UppercaseTrustDomain
        }
        _ => IdDefect::BadTrustDomainChar,
    })
}

fn check_path(path: &str) -> Result<(), IdDefect> {
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_none() {
            return Err(IdDefect::TrailingSlash);
        }
        check_segment(segment)?;
    }
    Ok(())
}

fn check_segment(segment: &str) -> Result<(), IdDefect> {
    match segment {
        "" => Err(IdDefect::EmptySegment),
        "." | ".." => Err(IdDefect::DotSegment),
        _ if segment.bytes().all(|b| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_')) => Ok(()),
        _ if segment.contains('?') => Err(IdDefect::Query),
        _ if segment.contains('#') => Err(IdDefect::Fragment),
        _ => Err(IdDefect::BadPathChar),
    }
}

impl PartialEq for SpiffeId {
    fn eq(&self, other: &SpiffeId) -> bool {
        self.text == other.text
    }
}
impl Eq for SpiffeId {}
impl PartialOrd for SpiffeId {
    fn partial_cmp(&self, other: &SpiffeId) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for SpiffeId {
    fn cmp(&self, other: &SpiffeId) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}
impl std::hash::Hash for SpiffeId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}
impl Borrow<str> for SpiffeId {
    fn borrow(&self) -> &str {
        &self.text
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl FromStr for $name {
            type Err = IdDefect;
            fn from_str(text: &str) -> Result<$name, IdDefect> {
                $name::parse(text)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<$name, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(from)?;
                $name::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    )*};
}
as_text!(TrustDomain, SpiffeId, SpiffePrefix);
