//! A certificate for `mayfly upstream test`: for a key that nobody keeps, verified with the CA that the upstream's servers trust.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey};
use rcgen::PublicKeyData;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::CredentialKind;
use super::certificates::{self, CertificateInput};
use super::keyring::LoadedKey;
use super::minted::CredentialMaterial;
use super::ssh::{self, certificate};
use mayfly_base::refusal::{Error, Fault};
use mayfly_ledger::record::CredentialIssued;
use mayfly_ledger::upstream::registry::Upstream;
use mayfly_verify::seq::{CredentialId, Millis};

/// A certificate that was made for a test.
pub struct TrialCertificate {
    kind: CredentialKind,
    id: CredentialId,
    answer: CredentialMaterial,
}

/// The public part of a key pair whose private part is dropped.
struct Point(Vec<u8>);

impl PublicKeyData for Point {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

fn throwaway_key(kind: CredentialKind) -> Result<Vec<u8>, Fault> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING);
    let pair = pair.map_err(|_| Fault::new("a P-256 key could not be made"))?;
    let point = pair.public_key().as_ref().to_vec();
    Ok(match kind {
        CredentialKind::Ssh => ssh::authority_blob(&point),
        _ => Point(point).subject_public_key_info(),
    })
}

impl TrialCertificate {
    /// Makes the certificate. `issuer`: the issuer of the environment. `until`: its end.
    pub fn make(
        ca: &LoadedKey,
        (upstream, kind, scopes): (&Upstream, CredentialKind, &[String]),
        id: CredentialId,
        issuer: &str,
        (now, until): (Millis, Millis),
    ) -> Result<TrialCertificate, Error> {
        let issued = CredentialIssued {
            credential: id.as_bytes().to_vec(),
            kind: kind.number(),
            upstream: upstream.name.clone(),
            environment: upstream.environment.clone(),
            scopes: scopes.to_vec(),
            issued_at: now.0,
            expires_at: until.0,
            key: ca.id().to_owned(),
            certified_key: throwaway_key(kind)?,
            ..CredentialIssued::default()
        };
        let input = CertificateInput { kind, id, issued: &issued, settings: &upstream.settings, issuer };
        certificates::make(ca, &input).map(|(answer, _)| TrialCertificate { kind, id, answer })
    }

    /// Whether nothing revokes the certificate.
    pub fn is_irrevocable(&self) -> bool {
        matches!(&self.answer, CredentialMaterial::Certificate { crl_url, .. } if crl_url.is_empty())
    }

    /// Verifies the certificate with the public part of its CA, as a server would. Returns what was verified, in words.
    pub fn verify(&self, ca: &LoadedKey, now: Millis) -> Result<String, String> {
        match &self.answer {
            CredentialMaterial::Certificate { chain, root, .. } => {
                let Some(leaf) = chain.first() else { return Err("there is no certificate".to_owned()) };
                let (_, leaf) = X509Certificate::from_der(leaf).map_err(|e| e.to_string())?;
                let (_, root) = X509Certificate::from_der(root).map_err(|e| e.to_string())?;
                leaf.verify_signature(Some(root.public_key())).map_err(|_| "its CA did not sign it".to_owned())?;
                let validity = leaf.validity();
                let now = i64::try_from(now.seconds()).unwrap_or(i64::MAX);
                let valid = (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now);
                if leaf.issuer() != root.subject() || !valid {
                    return Err("it is not of its CA, or not valid now".to_owned());
                }
                Ok(format!("its CA signed it for {}", leaf.subject()))
            }
            CredentialMaterial::SshCertificate { certificate: line, principals, .. } => {
                let point = ca.public().unwrap_or_default();
                certificate::signed_by(line, point).map_err(str::to_owned)?;
                Ok(format!("its CA signed it for {}", principals.join(", ")))
            }
            _ => Err("it is no certificate".to_owned()),
        }
    }

    /// Whether a list of the CA, as it is served, has the certificate: a CRL in DER, or a KRL.
    pub fn is_listed(&self, list: &[u8], ca: &LoadedKey) -> Result<(), String> {
        let listed = match self.kind {
            CredentialKind::Ssh => ssh::krl::lists(list, self.id, ca.public().unwrap_or_default()),
            _ => {
                let (_, crl) = CertificateRevocationList::from_der(list).map_err(|e| format!("the CRL: {e}"))?;
                let key = ca.public().unwrap_or_default();
                let verified = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key)
                    .verify(crl.tbs_cert_list.as_ref(), &crl.signature_value.data);
                verified.map_err(|_| "the CRL is not signed by the CA".to_owned())?;
                let serial = |raw: &[u8]| raw.iter().skip_while(|b| **b == 0).copied().collect::<Vec<u8>>();
                crl.iter_revoked_certificates().any(|one| serial(one.raw_serial()) == serial(self.id.as_bytes()))
            }
        };
        if listed { Ok(()) } else { Err("the list does not have it".to_owned()) }
    }
}
