//! Made, and told to nobody. Only a receipt of the ledger turns it into something that can be answered.

use std::borrow::Cow;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Kind, Token};
use crate::ledger::Receipt;
use crate::ledger::record::Record;
use crate::refusal::Fault;
use crate::seq::{ApprovalId, CredentialId, Millis, Seq, TaskId};

/// The credential itself, in the form that its kind has. It is wiped when dropped.
pub enum Answer {
    /// A token for an HTTP header.
    Bearer {
        /// The token.
        token: Token,
        /// The header's name, lower case.
        header: Cow<'static, str>,
        /// What stands before the token. May be empty.
        scheme: Cow<'static, str>,
        /// Where to send it.
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
        /// Roots to verify the server with, PEM. Empty: those of the system.
        server_ca_pem: String,
    },
    /// An X.509 certificate.
    Certificate {
        /// Certificate and chain without the root, DER, leaf first.
        chain: Vec<Vec<u8>>,
        /// The root, DER.
        root: Vec<u8>,
    },
    /// An SSH certificate.
    SshCertificate {
        /// As in OpenSSH's `-cert.pub` files.
        certificate: String,
        /// The authority's public key, as in `authorized_keys`.
        authority: String,
        /// Names that it may log in as.
        principals: Vec<String>,
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
    /// A static secret that does not go into a header.
    Secret(Zeroizing<Vec<u8>>),
}

/// Whether an answer is new.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Novelty {
    /// A new credential.
    New,
    /// A repeat: the same as the first time.
    Same,
    /// A repeat where the upstream cannot give the same again: the first was undone.
    Replaced,
}

/// What an answer says of a credential.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Its id.
    pub credential: CredentialId,
    /// All else: the same, and in the same place, for those that were made in series.
    pub about: Arc<About>,
}

/// What an answer says of a credential beside its id.
#[derive(Debug)]
pub struct About {
    /// Its task.
    pub task: TaskId,
    /// Its kind.
    pub kind: Kind,
    /// When it was decided.
    pub issued_at: Millis,
    /// Its end.
    pub expires_at: Millis,
    /// No renewal goes beyond this.
    pub renewable_until: Millis,
    /// Which bound set its end, by the persisted number of `policy::Bound`.
    pub bound: u32,
    /// The scopes.
    pub scopes: Vec<String>,
    /// The upstream.
    pub upstream: String,
    /// The approval that it used up.
    pub approval: Option<ApprovalId>,
    /// Its decision revision.
    pub revision: Seq,
    /// It cannot be revoked before its end.
    pub irrevocable: bool,
    /// Whether it is new.
    pub novelty: Novelty,
}

/// What became of a minted credential.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// It was handed out.
    Revealed,
    /// It was dropped, and nobody has it.
    Dropped {
        /// Its records were handed over before: they may be in the ledger all the same.
        proposed: bool,
    },
}

/// Tells whoever holds the lease what became of the credential, also when it is merely dropped.
pub(crate) struct Lapse {
    tell: Option<Box<dyn FnOnce(Outcome) + Send + Sync>>,
    proposed: bool,
}

impl Lapse {
    /// `tell` is called exactly once. It must be quick.
    pub(crate) fn new(tell: impl FnOnce(Outcome) + Send + Sync + 'static) -> Lapse {
        Lapse { tell: Some(Box::new(tell)), proposed: false }
    }

    /// Nothing is upstream.
    pub(crate) fn none() -> Lapse {
        Lapse { tell: None, proposed: false }
    }

    fn settle(mut self) {
        if let Some(tell) = self.tell.take() {
            tell(Outcome::Revealed);
        }
    }
}

impl Drop for Lapse {
    fn drop(&mut self) {
        if let Some(tell) = self.tell.take() {
            tell(Outcome::Dropped { proposed: self.proposed });
        }
    }
}

/// A credential that was made and is not in the ledger yet. Dropped, it never was: what stands upstream for it is undone.
pub struct Minted {
    records: Vec<Record>,
    summary: Summary,
    answer: Answer,
    lapse: Lapse,
}

impl Minted {
    pub(crate) fn new(records: Vec<Record>, summary: Summary, answer: Answer, lapse: Lapse) -> Minted {
        Minted { records, summary, answer, lapse }
    }

    /// Its id.
    pub fn id(&self) -> CredentialId {
        self.summary.credential
    }

    /// The records to commit, one group. They are handed over once; none for what was issued before, or made in series.
    pub fn records(&mut self) -> Vec<Record> {
        self.lapse.proposed = true;
        std::mem::take(&mut self.records)
    }

    /// Hands it over, given the receipt for its records: of the commit, or for what was issued before, of its record in the ledger. A
    /// fault where that is the receipt of another credential: nobody gets it.
    pub fn reveal(self, receipt: Receipt) -> Result<Issued, Fault> {
        if receipt.issued() != Some(self.summary.credential) {
            return Err(Fault::new(format!("the receipt at seq {} is not that of {}", receipt.seq(), self.summary.credential)));
        }
        self.lapse.settle();
        Ok(Issued { seq: receipt.seq(), summary: self.summary, answer: self.answer })
    }
}

/// A credential whose record is durable and valid: the only value that an answer can be made of.
pub struct Issued {
    seq: Seq,
    summary: Summary,
    answer: Answer,
}

impl Issued {
    /// Without a ledger, for tests of what comes after one.
    #[cfg(test)]
    pub(crate) fn for_test(seq: Seq, summary: Summary, answer: Answer) -> Issued {
        Issued { seq, summary, answer }
    }

    /// The seq of its record.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// What an answer says of it.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Itself.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Takes it apart: the seq of its record, what to say of it, and itself.
    pub fn into_parts(self) -> (Seq, Summary, Answer) {
        (self.seq, self.summary, self.answer)
    }
}
