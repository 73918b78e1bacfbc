//! CRLs of the server's own trust domain: one for each key of the CA, made from the state of the fold.
//!
//! A CRL is signed anew for the first request after a certificate ended, and when a tenth of its life is over. Its number is made of the
//! ledger's head and, in the lower bits, a count of the CRLs that this process signed: a start writes a record, so no later CRL has a lower
//! number.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::bundle::anchor_of;
use crate::authority::Authority;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault};
use mayfly_credential::x509::{Ca, RevokedCertificate, crl};
use mayfly_ledger::record::KeyPurpose;
use mayfly_verify::seq::{CredentialId, Millis};

/// The last signed CRL of a key.
#[derive(Clone)]
pub(super) struct SignedCrl {
    der: Arc<[u8]>,
    number: u128,
    /// The value of the change counter when it was signed.
    changes: u64,
    signed_at: Millis,
    /// When each certificate was found to have ended, so that the revocation date stays the same.
    ended: BTreeMap<CredentialId, Millis>,
}

impl Authority {
    /// The CRL of a CA key; `None` if the key's certificates are not valid in this domain.
    pub async fn own_crl(&self, key: &str) -> Result<Option<Arc<[u8]>>, Error> {
        let Some(own) = &self.own_domain else { return Ok(None) };
        let Some(signs) = self.keyring.get(KeyPurpose::X509Ca, key) else { return Ok(None) };
        let now = self.system.wall();
        let (changes, before) = (own.changes(), own.crls.lock().get(key).cloned());
        if let Some(held) = &before
            && held.changes == changes
            && now < held.signed_at.plus(limits::CRL_RENEWED_MS)
            && now >= held.signed_at
        {
            return Ok(Some(held.der.clone()));
        }
        let domain = own.trust_domain.as_str();
        let known = before.map(|held| held.ended).unwrap_or_default();
        let (bundle, ended, head) = self
            .ledger
            .settled(|state| {
                let mine = state.logins.values().filter(|l| *l.key == *key && l.expires_at > now);
                let over = mine.filter_map(|l| match l.ended_at {
                    Some(at) => Some((l.id, at)),
                    None if state.rules.covers(&l.facts()).is_some() => Some((l.id, known.get(&l.id).copied().unwrap_or(now))),
                    None => None,
                });
                (state.bundles.get(domain).cloned(), over.collect::<BTreeMap<_, _>>(), state.head)
            })
            .await?;
        let anchors = own.anchors(bundle.as_ref())?;
        let public = signs.public().ok_or_else(|| Fault::new("a CA without a public key"))?;
        let Some(anchor) = anchor_of(&anchors, public) else { return Ok(None) };
        let entries: Vec<RevokedCertificate> =
            ended.iter().map(|(id, since)| RevokedCertificate { id: *id, since: *since, held: false }).collect();
        // The number is given and the CRL stored under one lock, so that a CRL with a later number is never followed by an earlier one.
        let mut crls = own.crls.lock();
        if let Some(newer) = crls.get(key).filter(|held| held.number >> 40 > u128::from(head.as_u64())) {
            return Ok(Some(newer.der.clone()));
        }
        let number = (u128::from(head.as_u64()) << 40) | u128::from(own.signed.fetch_add(1, Ordering::AcqRel));
        let der: Arc<[u8]> = crl(&Ca::new(&signs, anchor)?, number, &own.crl_url(key), &entries, now)?.into();
        crls.insert(key.into(), SignedCrl { der: der.clone(), number, changes, signed_at: now, ended });
        crls.retain(|id, _| self.keyring.get(KeyPurpose::X509Ca, id).is_some());
        Ok(Some(der))
    }
}
