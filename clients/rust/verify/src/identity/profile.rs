//! The profile of an X509-SVID: checks of the certificates' content (X509-SVID, sections 2 to 4). No signature is verified here.

use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension, SubjectAlternativeName};
use x509_parser::oid_registry::OID_X509_EXT_BASIC_CONSTRAINTS;
use x509_parser::prelude::FromDer;

use super::spiffe_id::SpiffeId;
use super::svid::{PeerChain, SvidDefect};
use crate::limits;
use crate::seq::Millis;

/// The content of a chain whose certificates satisfy the profile. Nobody has vouched for it yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SvidProfile {
    /// The leaf's SPIFFE ID.
    pub id: SpiffeId,
    /// The leaf's serial number: big endian, 1 to 20 bytes, without the zero byte that DER puts before a high bit.
    pub serial: Vec<u8>,
    /// The beginning of the leaf's validity, inclusive.
    pub not_before: Millis,
    /// The end of the leaf's validity, inclusive.
    pub not_after: Millis,
}

/// Checks the size limits, then the leaf, then each further certificate of the chain.
pub fn check(chain: &PeerChain) -> Result<SvidProfile, SvidDefect> {
    let (leaf, intermediates) = chain.certificates().split_first().ok_or(SvidDefect::EmptyChain)?;
    if chain.certificates().len() > limits::CHAIN_CERTIFICATES {
        return Err(SvidDefect::ChainTooLong);
    }
    if chain.certificates().iter().any(|c| c.len() > limits::CERTIFICATE_BYTES) {
        return Err(SvidDefect::CertificateTooLarge);
    }
    let leaf = parse(leaf)?;
    let id = leaf_id(&leaf)?;
    check_leaf_usage(&leaf)?;
    let signers: Vec<_> = intermediates.iter().map(parse).collect::<Result<_, _>>()?;
    signers.iter().try_for_each(check_signer)?;
    check_subjects(&signers)?;
    let (not_before, not_after) = validity(&leaf);
    Ok(SvidProfile { id, serial: serial(&leaf)?, not_before, not_after })
}

/// Whether the leaf has a DNS name. Many gRPC clients refuse a server certificate without one.
pub fn has_dns_name(chain: &PeerChain) -> bool {
    !dns_names(chain).is_empty()
}

/// The leaf's DNS names.
pub fn dns_names(chain: &PeerChain) -> Vec<String> {
    let Some(leaf) = chain.certificates().first().and_then(|der| parse(der).ok()) else { return Vec::new() };
    let Some((names, _)) = san(&leaf).ok().flatten() else { return Vec::new() };
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    names.general_names.iter().filter_map(dns).collect()
}

pub(super) fn validity(cert: &X509Certificate<'_>) -> (Millis, Millis) {
    // Times before 1970 are set to 1970, which changes no result: such a notAfter has passed, and such a notBefore has too.
    let millis = |seconds: i64| Millis::from_seconds(u64::try_from(seconds).unwrap_or(0));
    (millis(cert.validity().not_before.timestamp()), millis(cert.validity().not_after.timestamp()))
}

pub(super) fn not_after(der: &CertificateDer<'_>) -> Option<Millis> {
    parse(der).ok().map(|cert| validity(&cert).1)
}

/// cA of basicConstraints; false where the extension is absent.
pub(super) fn is_ca(cert: &X509Certificate<'_>) -> Result<bool, SvidDefect> {
    // `cert.basic_constraints()` would treat an extension that it cannot parse as absent.
    match cert.get_extension_unique(&OID_X509_EXT_BASIC_CONSTRAINTS).map_err(malformed)? {
        None => Ok(false),
        Some(found) => match found.parsed_extension() {
            ParsedExtension::BasicConstraints(constraints) => Ok(constraints.ca),
            _ => Err(SvidDefect::Malformed),
        },
    }
}

/// Checks a signing certificate: a SPIFFE ID in it must have no path. URIs of other schemes are not checked.
pub(super) fn check_signer_id(cert: &X509Certificate<'_>) -> Result<(), SvidDefect> {
    let Some((names, _)) = san(cert)? else { return Ok(()) };
    for name in &names.general_names {
        if let GeneralName::URI(uri) = name
            && uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:"))
            && !SpiffeId::parse(uri).is_ok_and(|id| id.path().is_empty())
        {
            return Err(SvidDefect::SignerIdHasPath);
        }
    }
    Ok(())
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, SvidDefect> {
    match X509Certificate::from_der(der) {
        Ok(([], cert)) => Ok(cert),
        _ => Err(SvidDefect::Malformed),
    }
}

fn malformed<E>(_: E) -> SvidDefect {
    SvidDefect::Malformed
}

fn san<'a>(cert: &'a X509Certificate<'_>) -> Result<Option<(&'a SubjectAlternativeName<'a>, bool)>, SvidDefect> {
    Ok(cert.subject_alternative_name().map_err(malformed)?.map(|found| (found.value, found.critical)))
}

fn leaf_id(leaf: &X509Certificate<'_>) -> Result<SpiffeId, SvidDefect> {
    const URI_TAG: u32 = 6; // GeneralName, uniformResourceIdentifier [6] (RFC 5280, section 4.2.1.6)
    let (names, critical) = san(leaf)?.ok_or(SvidDefect::NoUriSan)?;
    let mut uris = names.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(Some(*uri)),
        // Counted too, so that an additional name that is not text does not go unnoticed.
        GeneralName::Invalid(tag, _) if tag.0 == URI_TAG => Some(None),
        _ => None,
    });
    let first = uris.next().ok_or(SvidDefect::NoUriSan)?;
    if uris.next().is_some() {
        return Err(SvidDefect::MoreThanOneUriSan);
    }
    let id = SpiffeId::parse(first.ok_or(SvidDefect::UriNotText)?).map_err(SvidDefect::Id)?;
    if id.path().is_empty() {
        return Err(SvidDefect::IdWithoutPath);
    }
    if id.segments().count() > limits::SPIFFE_ID_SEGMENTS {
        return Err(SvidDefect::TooManySegments);
    }
    if !critical && leaf.subject().iter_rdn().next().is_none() {
        return Err(SvidDefect::SanNotCritical);
    }
    Ok(id)
}

fn check_leaf_usage(leaf: &X509Certificate<'_>) -> Result<(), SvidDefect> {
    if is_ca(leaf)? {
        return Err(SvidDefect::LeafIsCa);
    }
    let usage = leaf.key_usage().map_err(malformed)?.ok_or(SvidDefect::KeyUsageAbsent)?;
    if !usage.critical {
        return Err(SvidDefect::KeyUsageNotCritical);
    }
    if !usage.value.digital_signature() {
        return Err(SvidDefect::LeafNoDigitalSignature);
    }
    if usage.value.key_cert_sign() {
        return Err(SvidDefect::LeafKeyCertSign);
    }
    if usage.value.crl_sign() {
        return Err(SvidDefect::LeafCrlSign);
    }
    match leaf.extended_key_usage().map_err(malformed)? {
        Some(purposes) if !(purposes.value.server_auth && purposes.value.client_auth) => Err(SvidDefect::ExtendedKeyUsage),
        _ => Ok(()),
    }
}

/// Bounds the number of CAs with the same Subject. Path building tries such CAs in every order, which takes thousands of steps for seven of
/// them, before the peer is authenticated.
fn check_subjects(signers: &[X509Certificate<'_>]) -> Result<(), SvidDefect> {
    let alike =
        |one: &X509Certificate<'_>| signers.iter().filter(|other| other.subject().as_raw() == one.subject().as_raw()).count();
    if signers.iter().any(|one| alike(one) > limits::CHAIN_SAME_SUBJECT) { Err(SvidDefect::SameSubject) } else { Ok(()) }
}

fn check_signer(cert: &X509Certificate<'_>) -> Result<(), SvidDefect> {
    if !is_ca(cert)? {
        return Err(SvidDefect::IntermediateNotCa);
    }
    let usage = cert.key_usage().map_err(malformed)?.ok_or(SvidDefect::KeyUsageAbsent)?;
    if !usage.critical {
        return Err(SvidDefect::KeyUsageNotCritical);
    }
    if !usage.value.key_cert_sign() {
        return Err(SvidDefect::IntermediateNoKeyCertSign);
    }
    check_signer_id(cert)
}

fn serial(leaf: &X509Certificate<'_>) -> Result<Vec<u8>, SvidDefect> {
    let magnitude = match leaf.raw_serial() {
        [0, rest @ ..] => rest,
        [first, ..] if first & 0x80 != 0 => return Err(SvidDefect::Serial),
        whole => whole,
    };
    if magnitude.is_empty() || magnitude.len() > limits::SERIAL_BYTES { Err(SvidDefect::Serial) } else { Ok(magnitude.to_vec()) }
}
