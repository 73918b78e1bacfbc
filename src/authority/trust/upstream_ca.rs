//! The certificate authorities of upstreams that issue certificates (kinds `x509` and `ssh`): their keys by time, and what is published.
//!
//! A CA is published before it signs, and until the last certificate that it signed has ended, so that rotating it invalidates nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::keys::KeyTable;
use crate::authority::Authority;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_credential::certificates::{self, CaRotation, NeededCa, is_upstream_ca};
use mayfly_credential::keyring;
use mayfly_credential::{ssh, x509};
use mayfly_ledger::ProposalKind;
use mayfly_ledger::record::{Author, KeyPurpose, KeyState, upstream_path};
use mayfly_ledger::state::{ManagedKey, State};
use mayfly_ledger::upstream::registry::Upstream;
use mayfly_verify::seq::Seq;

/// The maximum number of planned steps of one CA (remove, activate, make) until no more are due.
const STEPS: usize = 4;

/// A CA as it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedCa {
    /// The id of its key.
    pub key: String,
    /// The purpose of its key.
    pub purpose: KeyPurpose,
    /// The state of its key.
    pub state: KeyState,
    /// The certificate in DER; empty for SSH.
    pub certificate: Vec<u8>,
    /// The public key as in `authorized_keys`; empty for X.509.
    pub ssh_public_key: String,
    /// The URL of its CRL; empty for SSH.
    pub crl_url: String,
}

/// The CAs of an upstream, and where they and their lists are served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishedCas {
    /// The CAs.
    pub authorities: Vec<PublishedCa>,
    /// The URL below which everything of the upstream is served.
    pub base_url: String,
    /// The sequence number of the durable head that this was read at.
    pub at: Seq,
}

impl PublishedCas {
    /// The certificates of the X.509 CAs, PEM.
    pub fn certificates_pem(&self) -> String {
        self.authorities.iter().filter(|ca| !ca.certificate.is_empty()).map(|ca| pem("CERTIFICATE", &ca.certificate)).collect()
    }

    /// The public keys of the SSH CAs, one a line.
    pub fn ssh_authorities(&self) -> String {
        let lines = self.authorities.iter().map(|ca| ca.ssh_public_key.as_str()).filter(|line| !line.is_empty());
        lines.map(|line| format!("{line}\n")).collect()
    }
}

/// A value in PEM (RFC 7468: lines of 64).
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(der);
    let lines = text.as_bytes().chunks(64).map(|line| format!("{}\n", String::from_utf8_lossy(line)));
    format!("-----BEGIN {label}-----\n{}-----END {label}-----\n", lines.collect::<String>())
}

fn published(key: &ManagedKey) -> bool {
    is_upstream_ca(key.purpose) && matches!(key.state, KeyState::Next | KeyState::Active | KeyState::Retired)
}

impl Authority {
    /// The CA of an upstream that a purpose names. Refused: NOT_FOUND where the upstream needs none.
    pub fn upstream_ca_path(&self, purpose: KeyPurpose, upstream: &Upstream) -> Result<String, Refusal> {
        let needed = certificates::needed(upstream).into_iter().find(|ca| ca.purpose == purpose);
        needed.map(|ca| ca.path).ok_or_else(|| {
            let kind = if purpose == KeyPurpose::SshCa { "ssh" } else { "x509" };
            Refusal::new(Reason::NotFound, format!("upstream {} issues no certificates of kind {kind}", upstream.name))
        })
    }

    /// Whether a registration that is not retired needs a CA of this purpose and path.
    pub(super) fn upstream_ca_is_needed(&self, purpose: KeyPurpose, path: &str) -> bool {
        let compiled = self.catalog.now();
        let retired = |name: &str| self.ledger.peek(|s| s.upstreams.get(name).is_none_or(|version| version.retired));
        let mut all = compiled.upstreams().filter(|r| !retired(&r.upstream.name));
        all.any(|r| certificates::needed(&r.upstream).iter().any(|ca| ca.purpose == purpose && ca.path == path))
    }

    /// The published CAs of an upstream, from the durable state. Refused: NOT_READY where there is none yet.
    pub async fn published_cas(&self, environment: &str, upstream: &str) -> Result<PublishedCas, Error> {
        let path = upstream_path(environment, upstream).unwrap_or_default();
        let read = |s: &State| {
            let mine = s.keys.iter().filter(|(_, key)| published(key) && *key.environment == *path);
            (mine.map(|(id, key)| (id.clone(), key.clone())).collect::<Vec<_>>(), s.head)
        };
        let (keys, at) = self.ledger.settled(read).await?;
        let issuer = self.decider.issuer_of(environment);
        let mut authorities = Vec::new();
        for (id, key) in keys {
            // A key that the record names and that could not be loaded is logged where it is loaded.
            let Some(loaded) = self.keyring.get(key.purpose, &id) else { continue };
            let is_ssh = key.purpose == KeyPurpose::SshCa;
            authorities.push(PublishedCa {
                crl_url: if is_ssh { String::new() } else { x509::crl_url(&issuer, upstream, &id) },
                certificate: loaded.certificate().map(|c| c.der().to_vec()).unwrap_or_default(),
                ssh_public_key: if is_ssh { ssh::authority_line(&loaded)? } else { String::new() },
                key: id.into(),
                purpose: key.purpose,
                state: key.state,
            });
        }
        if authorities.is_empty() {
            let no = Refusal::new(Reason::NotReady, format!("upstream {upstream} has no certificate authority yet"));
            return Err(Error::Refusal(no.retry(std::time::Duration::from_secs(1))));
        }
        Ok(PublishedCas { authorities, base_url: x509::lists_url(&issuer, upstream), at })
    }

    /// Makes the first CAs of upstreams in an environment, and keeps to their schedules afterwards.
    pub(crate) async fn tend_upstream_cas(&self, environment: &str) -> Result<(), Error> {
        let compiled = self.catalog.now();
        let here = compiled.upstreams().filter(|r| r.upstream.environment == environment);
        let all: Vec<(String, Vec<NeededCa>)> = here
            .map(|r| (r.upstream.name.clone(), certificates::needed(&r.upstream)))
            .filter(|(_, cas)| !cas.is_empty())
            .collect();
        drop(compiled);
        let mut wanted: BTreeMap<(KeyPurpose, String), Option<CaRotation>> = BTreeMap::new();
        let read = |s: &State| {
            let mine = |k: &&ManagedKey| published(k) && k.purpose.environment_of(&k.environment) == environment;
            let known: Vec<_> = s.keys.values().filter(mine).map(|k| (k.purpose, k.environment.to_string())).collect();
            let retired = |name: &&String| s.upstreams.get(name.as_str()).is_none_or(|version| version.retired);
            let retired: BTreeSet<String> = all.iter().map(|(name, _)| name).filter(retired).cloned().collect();
            (known, retired)
        };
        let (known, retired) = self.ledger.peek(read);
        wanted.extend(known.into_iter().map(|key| (key, None)));
        for (_, cas) in all.into_iter().filter(|(name, _)| !retired.contains(name)) {
            wanted.extend(cas.into_iter().map(|ca| ((ca.purpose, ca.path), Some(ca.rotation))));
        }
        for ((purpose, path), rotation) in wanted {
            for _ in 0..STEPS {
                let of = |k: &ManagedKey| k.purpose == purpose && *k.environment == *path;
                let keys: KeyTable =
                    self.ledger.peek(|s| s.keys.iter().filter(|(_, k)| of(k)).map(|(id, k)| (id.clone(), k.clone())).collect());
                let plan = keyring::authorities_due(&keys, purpose, &path, rotation, self.system.wall());
                if plan.is_empty() {
                    break;
                }
                let records = self.carry_out(plan, purpose, &path, &Author::Mayfly("key schedule".into())).await?;
                self.ledger.commit(ProposalKind::Change, records).await?;
            }
            self.warn_of_end(purpose, &path);
        }
        Ok(())
    }

    /// Logs that a CA which operators rotate is about to end.
    fn warn_of_end(&self, purpose: KeyPurpose, path: &str) {
        let Some(ends) = self.keyring.active(purpose, path).and_then(|key| key.certificate().map(|c| c.ends_at())) else {
            return;
        };
        if ends <= self.system.wall().plus(limits::UPSTREAM_CA_WARNED_MS) {
            tracing::warn!(upstream = path, %ends, "the CA of an upstream ends soon, and nothing can be issued after that");
        }
    }
}
