//! The bundle of the server's own trust domain: one CA certificate for each published key, each created once.

use std::sync::atomic::Ordering;

use super::OwnDomain;
use crate::authority::Authority;
use crate::trust::{TrustBundleSource, bundle_of};
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault};
use mayfly_credential::x509;
use mayfly_identity::anchor::TrustAnchor;
use mayfly_identity::bundle::Bundle;
use mayfly_identity::bundle_document::BundleDocument;
use mayfly_identity::sha256;
use mayfly_ledger::record::{Event, KeyPurpose, KeyState, Record};
use mayfly_ledger::state::{BundleState, ManagedKey};

/// The source of the bundle, as records name it.
const PLACE: &str = "our own CA";

impl OwnDomain {
    /// Notes records that may have ended a certificate, so that the next CRL is signed anew.
    pub(crate) fn follow(&self, record: &Record) {
        let ends = matches!(
            record.event,
            Some(
                Event::Revoked(_) | Event::LockLifted(_) | Event::LoggedOut(_) | Event::GenerationBegun(_) | Event::KeyChanged(_)
            )
        );
        if ends {
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The CA certificates of the domain, from its bundle in effect.
    pub(super) fn anchors(&self, state: Option<&BundleState>) -> Result<Vec<TrustAnchor>, Fault> {
        match state.filter(|s| !s.removed) {
            None => Ok(Vec::new()),
            Some(state) => Ok(bundle_of(&self.trust_domain, state)?.x509_authorities().to_vec()),
        }
    }
}

/// The certificate of a CA key in a bundle, found by the whole public key, since names prove nothing.
pub(crate) fn anchor_of<'a>(anchors: &'a [TrustAnchor], public: &[u8]) -> Option<&'a TrustAnchor> {
    let key = spki_sha256(public)?;
    anchors.iter().find(|anchor| *anchor.key() == key)
}

/// SHA-256 of the SubjectPublicKeyInfo of a P-256 point (RFC 5480, section 2).
fn spki_sha256(point: &[u8]) -> Option<[u8; 32]> {
    const BEFORE: [u8; 26] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
        0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    (point.len() == 65).then(|| sha256(&[&BEFORE[..], point].concat()))
}

fn published(key: &ManagedKey) -> bool {
    key.purpose == KeyPurpose::X509Ca && matches!(key.state, KeyState::Next | KeyState::Active | KeyState::Retired)
}

impl Authority {
    /// Adapts the bundle of the own trust domain to the keys of its CA. The certificate of a removed key leaves the bundle, and what the
    /// key signed is revoked.
    pub async fn update_own_bundle(&self) -> Result<(), Error> {
        let Some(own) = &self.own_domain else { return Ok(()) };
        let domain = own.trust_domain.as_str();
        let (keys, before) = self.ledger.settled(|s| (s.keys.clone(), s.bundles.get(domain).cloned())).await?;
        let known = own.anchors(before.as_ref())?;
        let mut anchors = Vec::new();
        let mut made = false;
        for (id, key) in keys.iter().filter(|(_, key)| published(key)) {
            match anchor_of(&known, &key.public) {
                Some(anchor) => anchors.push(anchor.clone()),
                None => {
                    let missing = || Fault::new(format!("key {id} of the CA is not loaded"));
                    let own_key = self.keyring.get(KeyPurpose::X509Ca, id).ok_or_else(missing)?;
                    let (serial, now) = (self.system.random16(), self.system.wall());
                    anchors.push(x509::certificate(&own_key, &own.trust_domain, serial, now)?);
                    made = true;
                }
            }
        }
        let there = before
            .as_ref()
            .is_some_and(|b| !b.removed && TrustBundleSource::from_text(&b.source) == Some(TrustBundleSource::Own));
        if there && !made && anchors.len() == known.len() {
            return Ok(());
        }
        let sequence = Some(before.and_then(|b| b.sequence).map_or(1, |seen| seen + 1));
        let document = BundleDocument {
            sequence,
            refresh_hint_s: Some(limits::OWN_BUNDLE_REFRESH_S),
            anchors: anchors.iter().collect(),
            jwt: vec![],
        };
        let bundle = Bundle::from_jwks(own.trust_domain.clone(), document.to_text().as_bytes());
        let bundle = bundle.map_err(|e| Fault::new(format!("our own bundle {e}")))?;
        self.found_bundle(&bundle, TrustBundleSource::Own, PLACE).await?;
        Ok(())
    }

    /// The durable bundle document of the own trust domain.
    pub async fn own_bundle(&self) -> Result<Option<String>, Error> {
        let Some(own) = &self.own_domain else { return Ok(None) };
        let domain = own.trust_domain.as_str();
        let found = self.ledger.settled(|s| s.bundles.get(domain).filter(|b| !b.removed).map(|b| b.document.clone())).await?;
        Ok(found.map(|document| String::from_utf8_lossy(&document).into_owned()))
    }
}
