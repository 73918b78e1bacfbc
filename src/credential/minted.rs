//! Minted credentials. A minted credential is handed out to nobody until a receipt of the ledger turns it into an [`IssuedCredential`].

use std::borrow::Cow;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::{CredentialKind, IssuedToken};
use mayfly_base::refusal::Fault;
use mayfly_ledger::Receipt;
use mayfly_ledger::record::Record;
use mayfly_verify::seq::{ApprovalId, CredentialId, Millis, Seq, TaskId};

/// The credential itself, in the form of its kind. Wiped on drop.
pub enum CredentialMaterial {
    /// A token for an HTTP header.
    Bearer {
        /// The token.
        token: IssuedToken,
        /// The header's name, lower case.
        header: Cow<'static, str>,
        /// The scheme before the token. May be empty.
        scheme: Cow<'static, str>,
        /// The URL of the upstream to send the token to.
        base_url: Arc<str>,
    },
    /// A login to a database.
    Database {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
        /// The database's name. May be empty.
        database: String,
        /// The user.
        user: String,
        /// The password.
        password: Zeroizing<String>,
        /// Roots for verifying the server, in PEM. Empty: the roots of the system.
        server_ca_pem: String,
        /// The server takes no TLS. Only on the host of mayfly itself.
        plaintext: bool,
    },
    /// An X.509 certificate.
    Certificate {
        /// Certificate and chain without the root, DER, leaf first.
        chain: Vec<Vec<u8>>,
        /// The root, DER.
        root: Vec<u8>,
        /// The URL of the CRL. Empty if there is none.
        crl_url: String,
    },
    /// An SSH certificate.
    SshCertificate {
        /// In the format of OpenSSH's `-cert.pub` files.
        certificate: String,
        /// The authority's public key, in the format of `authorized_keys`.
        authority: String,
        /// The names that the holder may log in as.
        principals: Vec<String>,
        /// The URL of the KRL.
        krl_url: String,
    },
    /// Temporary AWS keys.
    AwsKeys {
        /// AccessKeyId.
        access_key_id: String,
        /// SecretAccessKey.
        secret_access_key: Zeroizing<String>,
        /// SessionToken.
        session_token: Zeroizing<String>,
        /// The region. May be empty.
        region: String,
    },
    /// A static secret that is not used in a header.
    Secret(Zeroizing<Vec<u8>>),
}

/// Whether an answer contains a new credential.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Novelty {
    /// A new credential.
    New,
    /// A repeat: the same credential as the first time.
    Same,
    /// A repeat whose upstream cannot return the same credential: the first one was undone and replaced.
    Replaced,
}

/// The description of a credential in an answer.
#[derive(Clone, Debug)]
pub struct CredentialSummary {
    /// The credential's id.
    pub credential: CredentialId,
    /// The rest of the description. The credentials of one batch share it.
    pub about: Arc<CredentialDetails>,
}

/// The description of a credential except its id.
#[derive(Debug)]
pub struct CredentialDetails {
    /// The task.
    pub task: TaskId,
    /// The kind.
    pub kind: CredentialKind,
    /// The time of the decision.
    pub issued_at: Millis,
    /// The expiry.
    pub expires_at: Millis,
    /// The end that no renewal may exceed.
    pub renewable_until: Millis,
    /// The bound that set the expiry, by the persisted number of `policy::lifetime::LifetimeBound`.
    pub bound: u32,
    /// The scopes.
    pub scopes: Vec<String>,
    /// The authorization details that narrow the credential; empty for none.
    pub details: String,
    /// The upstream.
    pub upstream: String,
    /// The approval that the credential used up.
    pub approval: Option<ApprovalId>,
    /// The decision revision.
    pub revision: Seq,
    /// The credential cannot be revoked before its expiry.
    pub irrevocable: bool,
    /// When the credential ends by itself at the upstream; 0 if never, or if nothing exists there.
    pub upstream_ends_at: Millis,
    /// Whether the credential is new.
    pub novelty: Novelty,
}

impl CredentialSummary {
    /// With the time at which the credential ends by itself at the upstream. The description must not be shared yet.
    pub(crate) fn ending_upstream(mut self, at: Millis) -> CredentialSummary {
        if let Some(about) = Arc::get_mut(&mut self.about) {
            about.upstream_ends_at = at;
        }
        self
    }
}

/// The end of a minted credential.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MintOutcome {
    /// The credential was handed out.
    Revealed,
    /// The credential was dropped, and nobody has it.
    Dropped {
        /// The records were taken for committing before, so they may still reach the ledger.
        proposed: bool,
    },
}

/// Reports the end of a minted credential to its lease, also when the credential is dropped.
pub(crate) struct OutcomeReporter {
    tell: Option<Box<dyn FnOnce(MintOutcome) + Send + Sync>>,
    proposed: bool,
}

impl OutcomeReporter {
    /// `tell` is called exactly once and must not block.
    pub(crate) fn new(tell: impl FnOnce(MintOutcome) + Send + Sync + 'static) -> OutcomeReporter {
        OutcomeReporter { tell: Some(Box::new(tell)), proposed: false }
    }

    /// For a credential without a lease.
    pub(crate) fn none() -> OutcomeReporter {
        OutcomeReporter { tell: None, proposed: false }
    }

    fn settle(mut self) {
        if let Some(tell) = self.tell.take() {
            tell(MintOutcome::Revealed);
        }
    }
}

impl Drop for OutcomeReporter {
    fn drop(&mut self) {
        if let Some(tell) = self.tell.take() {
            tell(MintOutcome::Dropped { proposed: self.proposed });
        }
    }
}

/// A credential that is made but not committed. Dropping it discards the credential and undoes what was made upstream.
pub struct MintedCredential {
    records: Vec<Record>,
    summary: CredentialSummary,
    answer: CredentialMaterial,
    lapse: OutcomeReporter,
}

impl MintedCredential {
    pub(crate) fn new(
        records: Vec<Record>,
        summary: CredentialSummary,
        answer: CredentialMaterial,
        lapse: OutcomeReporter,
    ) -> MintedCredential {
        MintedCredential { records, summary, answer, lapse }
    }

    /// The credential's id.
    pub fn id(&self) -> CredentialId {
        self.summary.credential
    }

    /// Takes the records to commit as one group. Only the first call returns them. Empty for a credential that was issued before or made in
    /// a batch.
    pub fn records(&mut self) -> Vec<Record> {
        self.lapse.proposed = true;
        std::mem::take(&mut self.records)
    }

    /// Turns the credential into an answer, given the receipt of its record: from the commit, or of the earlier record of a repeat. A fault
    /// where the receipt is for another credential.
    pub fn reveal(self, receipt: Receipt) -> Result<IssuedCredential, Fault> {
        if receipt.issued() != Some(self.summary.credential) {
            return Err(Fault::new(format!(
                "the receipt at seq {} does not belong to credential {}",
                receipt.seq(),
                self.summary.credential
            )));
        }
        self.lapse.settle();
        Ok(IssuedCredential { seq: receipt.seq(), summary: self.summary, answer: self.answer })
    }
}

/// A credential whose record is durable and valid: the only value that an answer can be made of.
pub struct IssuedCredential {
    seq: Seq,
    summary: CredentialSummary,
    answer: CredentialMaterial,
}

impl IssuedCredential {
    /// Constructs an issued credential without a ledger, for tests of later steps.
    #[cfg(any(test, debug_assertions, feature = "testing"))]
    pub fn for_test(seq: Seq, summary: CredentialSummary, answer: CredentialMaterial) -> IssuedCredential {
        IssuedCredential { seq, summary, answer }
    }

    /// The sequence number of the issuance record.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// The description for the answer.
    pub fn summary(&self) -> &CredentialSummary {
        &self.summary
    }

    /// The credential itself.
    pub fn answer(&self) -> &CredentialMaterial {
        &self.answer
    }

    /// The sequence number of the record, the description, and the credential itself.
    pub fn into_parts(self) -> (Seq, CredentialSummary, CredentialMaterial) {
        (self.seq, self.summary, self.answer)
    }
}
