//! JSON and table forms of signing keys.

use serde::Serialize;

use super::revocation::PropagationView;
use super::{HitsView, or_dash, shown_word, time};
use crate::out::{Printable, Row};
use mayfly_proto::mayfly::v1 as pb;

/// A key, as `key list` prints it.
#[derive(Serialize, Debug)]
pub struct KeyView {
    pub key_id: String,
    pub purpose: String,
    pub state: String,
    pub issuer: String,
    pub environment: String,
    pub algorithm: String,
    pub created_at: Option<String>,
    pub active_from: Option<String>,
    pub verifies_until: Option<String>,
    pub public_jwk: String,
    pub seq: u64,
}

impl From<pb::Key> for KeyView {
    fn from(k: pb::Key) -> KeyView {
        KeyView {
            key_id: k.key_id,
            purpose: shown_word!(pb::KeyPurpose, "KEY_PURPOSE_", k.purpose),
            state: shown_word!(pb::KeyState, "KEY_STATE_", k.state),
            issuer: k.issuer,
            environment: k.environment,
            algorithm: k.algorithm,
            created_at: time(k.created_at),
            active_from: time(k.active_from),
            verifies_until: time(k.verifies_until),
            public_jwk: k.public_jwk,
            seq: k.seq,
        }
    }
}

impl Printable for KeyView {
    fn name(&self) -> String {
        self.key_id.clone()
    }
}

impl Row for KeyView {
    const COLUMNS: &'static [&'static str] = &["KEY", "PURPOSE", "STATE", "ALGORITHM", "ENVIRONMENT", "SIGNS FROM"];
    const WIDE: &'static [&'static str] = &["VERIFIES UNTIL", "CREATED", "ISSUER", "SEQ"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.key_id.clone(),
            self.purpose.clone(),
            self.state.clone(),
            self.algorithm.clone(),
            or_dash(Some(&self.environment)),
            or_dash(self.active_from.as_deref()),
            or_dash(self.verifies_until.as_deref()),
            or_dash(self.created_at.as_deref()),
            or_dash(Some(&self.issuer)),
            self.seq.to_string(),
        ]
    }
}

/// The result of a rotation.
#[derive(Serialize, Debug)]
pub struct KeyRotationView {
    pub key: Option<KeyView>,
    pub previous: Option<KeyView>,
}

impl Printable for KeyRotationView {
    fn name(&self) -> String {
        self.key.as_ref().map(Printable::name).unwrap_or_default()
    }
}

/// A key that was retired or revoked as compromised.
#[derive(Serialize, Debug)]
pub struct KeyRemovalView {
    pub key_id: String,
    pub dry_run: bool,
    /// The sequence number of the revocation rule, for a compromised key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    pub hits: HitsView,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacement: Option<KeyView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub followers: Option<PropagationView>,
}

impl Printable for KeyRemovalView {
    fn name(&self) -> String {
        self.key_id.clone()
    }
}
