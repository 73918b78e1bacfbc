//! The CRL of one CA key (RFC 5280, section 5): the unexpired certificates of that key that are revoked.

use rcgen::{CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint, CrlScope, KeyIdMethod};
use rcgen::{RevocationReason, RevokedCertParams, SerialNumber};

use super::{Ca, UpstreamCa, failed, moment};
use mayfly_base::limits;
use mayfly_base::refusal::Fault;
use mayfly_verify::seq::{CredentialId, Millis};

/// A revoked certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RevokedCertificate {
    /// The serial number.
    pub id: CredentialId,
    /// The time of revocation.
    pub since: Millis,
    /// The certificate's task is on hold, so that the certificate may be good again.
    pub held: bool,
}

/// A CA that signs CRLs.
pub trait CrlSigner {
    /// Signs the CRL.
    #[doc(hidden)]
    fn sign_crl(&self, params: &CertificateRevocationListParams) -> Result<Vec<u8>, Fault>;
}

impl CrlSigner for Ca<'_> {
    fn sign_crl(&self, params: &CertificateRevocationListParams) -> Result<Vec<u8>, Fault> {
        Ok(params.signed_by(self.issuer()).map_err(failed("signing a CRL"))?.der().to_vec())
    }
}

impl CrlSigner for UpstreamCa<'_> {
    fn sign_crl(&self, params: &CertificateRevocationListParams) -> Result<Vec<u8>, Fault> {
        Ok(params.signed_by(self.issuer()).map_err(failed("signing a CRL"))?.der().to_vec())
    }
}

/// Signs a CRL. `number` must be higher than in every earlier CRL of the key. `url` is the CRL's URL, byte for byte as in the certificates.
pub fn crl(ca: &impl CrlSigner, number: u128, url: &str, ended: &[RevokedCertificate], now: Millis) -> Result<Vec<u8>, Fault> {
    let entry = |e: &RevokedCertificate| {
        Ok(RevokedCertParams {
            serial_number: SerialNumber::from_slice(e.id.as_bytes()),
            revocation_time: moment(e.since.min(now))?,
            reason_code: e.held.then_some(RevocationReason::CertificateHold),
            invalidity_date: None,
        })
    };
    let params = CertificateRevocationListParams {
        this_update: moment(now)?,
        next_update: moment(now.plus(limits::CRL_NEXT_UPDATE_MS))?,
        crl_number: SerialNumber::from_slice(&number.to_be_bytes()),
        issuing_distribution_point: Some(CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint { uris: vec![url.to_owned()] },
            scope: Some(CrlScope::UserCertsOnly),
        }),
        revoked_certs: ended.iter().map(entry).collect::<Result<_, Fault>>()?,
        key_identifier_method: KeyIdMethod::Sha256,
    };
    ca.sign_crl(&params)
}
