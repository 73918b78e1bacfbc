//! Generates keys.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RsaKeyPair};
use zeroize::Zeroizing;

use super::{ES256, HS256, KeyOperation, LoadedKey, RS256, Sealer, certificate_name, purpose_name, value_name};
use crate::x509::{CaCertificate, upstream_certificate};
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_base::system::System;
use mayfly_ledger::record::{KeyAdded, KeyPurpose, KeyState};
use mayfly_ledger::state::ManagedKey;
use mayfly_store::{Precondition, Store};
use mayfly_verify::seq::{Millis, Seq};

/// A generated key that is not stored yet.
pub struct NewKey {
    sealed: Vec<u8>,
    record: KeyAdded,
    /// The certificate of a key of purpose `UpstreamCa`.
    certificate: Option<CaCertificate>,
}

/// Generates a key for a purpose in an environment, with the initial state `state`.
///
/// Refused: NOT_SERVED for a purpose that no kind of this version uses.
pub fn generate(
    purpose: KeyPurpose,
    environment: &str,
    state: KeyState,
    sealer: &dyn Sealer,
    system: &System,
) -> Result<NewKey, Error> {
    generate_with(ES256, purpose, environment, state, sealer, system)
}

/// As [`generate`]. `algorithm`: that of a key that signs; [`RS256`] for [`KeyPurpose::Federation`] only.
pub fn generate_with(
    algorithm: &'static str,
    purpose: KeyPurpose,
    environment: &str,
    state: KeyState,
    sealer: &dyn Sealer,
    system: &System,
) -> Result<NewKey, Error> {
    let sort = KeyOperation::of(purpose)
        .ok_or_else(|| Refusal::new(Reason::NotServed, format!("this version makes no key for {}", purpose_name(purpose))))?;
    // 80 random bits: keys of one store do not collide by chance, and the id stays short in every token.
    let kid = data_encoding::BASE32_NOPAD.encode(&system.random16()[..10]).to_ascii_lowercase();
    let (plain, public, algorithm) = match sort {
        KeyOperation::Signs if algorithm == RS256 && purpose == KeyPurpose::Federation => {
            let failed = |_| Fault::new("an RSA key could not be made");
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
            let document: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
            (Zeroizing::new(document.as_ref().to_vec()), pair.public_key().as_ref().to_vec(), RS256)
        }
        KeyOperation::Signs if algorithm != ES256 => {
            return Err(Fault::new(format!("no key for {} signs with {algorithm}", purpose_name(purpose))).into());
        }
        KeyOperation::Signs => {
            let failed = |_| Fault::new("a P-256 key could not be made");
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed)?;
            let document = pair.to_pkcs8v1().map_err(failed)?;
            (Zeroizing::new(document.as_ref().to_vec()), pair.public_key().as_ref().to_vec(), ES256)
        }
        KeyOperation::Derives => (Zeroizing::new(Zeroizing::new(system.random32()).to_vec()), Vec::new(), HS256),
    };
    let sealed = sealer.seal(purpose_name(purpose), environment, &value_name(&kid), &plain)?;
    let certificate = match purpose {
        KeyPurpose::UpstreamCa => Some(certify(&kid, environment, &public, &plain, system)?),
        _ => None,
    };
    let record = KeyAdded {
        key: kid,
        purpose: purpose as i32,
        algorithm: algorithm.to_owned(),
        public,
        environment: environment.to_owned(),
        state: state as i32,
        publish_ahead: 0,
    };
    Ok(NewKey { sealed, record, certificate })
}

/// Makes the certificate of a new CA of an upstream.
fn certify(kid: &str, path: &str, public: &[u8], plain: &[u8], system: &System) -> Result<CaCertificate, Fault> {
    let managed = ManagedKey {
        purpose: KeyPurpose::UpstreamCa,
        algorithm: ES256.into(),
        public: public.into(),
        environment: path.into(),
        state: KeyState::Next,
        since: Millis(0),
        publish_ahead: 0,
        created_at: Millis(0),
        active_from: Millis(0),
        seq: Seq::ZERO,
    };
    let key = LoadedKey::parse(kid, &managed, plain)?;
    upstream_certificate(&key, path, system.random16(), system.wall())
}

impl NewKey {
    /// Sets how long the key is published before it signs, instead of the purpose's schedule.
    pub fn published_ahead(mut self, ms: u64) -> NewKey {
        self.record.publish_ahead = ms;
        self
    }

    /// The key's id.
    pub fn id(&self) -> &str {
        &self.record.key
    }

    /// Writes the sealed private part durably and then returns the record, so that the ledger never names a key that is not stored.
    pub fn keep(self, store: &dyn Store) -> Result<KeyAdded, Fault> {
        if let Some(certificate) = &self.certificate {
            let name = certificate_name(&self.record.key);
            let written = store.put(&name, certificate.der(), Precondition::Absent);
            written.map_err(|e| Fault::new(format!("writing {name}: {e}")))?;
        }
        let name = value_name(&self.record.key);
        store.put(&name, &self.sealed, Precondition::Absent).map_err(|e| Fault::new(format!("writing {name}: {e}")))?;
        Ok(self.record)
    }
}
