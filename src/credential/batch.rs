//! Mints the credentials of one batch: the common part of their tokens and records is encoded and hashed once.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use bytes::BytesMut;

use super::IssuedToken;
use super::jwt::{SigningInput, TokenContent, TokenPrefix};
use super::keyring::{Keyring, LoadedKey};
use super::kind::{CredentialKind, bearer, key_for, kind_of, not_served, summary};
use super::minted::{CredentialSummary, MintedCredential, Novelty, OutcomeReporter};
use super::reference;
use super::status_list::StatusListAllocator;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Refusal};
use mayfly_ledger::commit::{EncodedRecord, sha256};
use mayfly_ledger::record::{Event, Record};
use mayfly_ledger::writer::template::{IssuanceFields, RecordTemplate};
use mayfly_policy::grant::{IndividualGrant, SharedGrant};
use mayfly_verify::seq::{CredentialId, Millis};

/// How the tokens of a batch are made.
enum TokenTemplate {
    Signed(Box<TokenPrefix>),
    Derived,
}

/// The common part of several credentials, prepared so that each credential adds only its individual part.
pub struct BatchSigner {
    grants: Arc<SharedGrant>,
    /// A weak reference, so that a signer kept for later batches does not keep a key that was removed meanwhile.
    key: Weak<LoadedKey>,
    tokens: TokenTemplate,
    template: Arc<RecordTemplate>,
    /// The common summary; each credential adds its id.
    summary: CredentialSummary,
}

/// The signing of one batch by a [`BatchSigner`].
pub struct SigningSession {
    series: Arc<BatchSigner>,
    key: Arc<LoadedKey>,
    /// The buffer in which records are encoded.
    room: RefCell<BytesMut>,
}

impl BatchSigner {
    /// Prepares the common part for a kind that mayfly signs or derives itself.
    ///
    /// Refused: NOT_SERVED, NOT_READY where there is no active key, NO_LIFE_LEFT below a second.
    pub fn new(grants: Arc<SharedGrant>, keyring: &Keyring) -> Result<BatchSigner, Error> {
        let parts = grants.parts();
        let kind = kind_of(parts.draft.kind)?;
        let key = key_for(kind, parts, keyring)?;
        let mut draft = parts.draft.clone();
        draft.key = key.id().to_owned();
        let (path, audience, issuer) = (&parts.path, &parts.audience, &parts.issuer);
        let tokens = match kind {
            CredentialKind::Jwt => {
                let (revision, grounds) = (parts.revision, &parts.grounds);
                let told = TokenContent { issued: &draft, revision, path, grounds, audience, issuer };
                TokenTemplate::Signed(Box::new(TokenPrefix::new(&key, &told)?))
            }
            CredentialKind::Reference => TokenTemplate::Derived,
            _ => return Err(not_served(kind, "are not made by this version")),
        };
        let nobody = CredentialId::from_bytes([0; 16]);
        let summary = summary(&draft, nobody, kind, parts.revision, Novelty::New, false)?;
        let record = Record::new(parts.author.clone(), Event::Issued(draft)).decided_at(parts.revision);
        let template = RecordTemplate::new(record)
            .ok_or_else(|| Fault::new("the common part of a batch contains a field of a single issuance"))?;
        Ok(BatchSigner { key: Arc::downgrade(&key), tokens, template: Arc::new(template), summary, grants })
    }

    /// The common part of the records.
    pub fn template(&self) -> &Arc<RecordTemplate> {
        &self.template
    }
}

impl SigningSession {
    /// Starts the signing of a batch; `None` where the key was removed. The credentials share the session by an `Rc`, whose count no other
    /// thread changes.
    pub fn of(series: Arc<BatchSigner>) -> Option<Rc<SigningSession>> {
        let key = series.key.upgrade()?;
        Some(Rc::new(SigningSession { series, key, room: RefCell::default() }))
    }

    /// Prepares the next credential and the record to commit for it. The record does not contain a signature.
    pub fn next(
        self: &Rc<SigningSession>,
        own: IndividualGrant<'_>,
        id: CredentialId,
        status: &StatusListAllocator,
        now: Millis,
    ) -> Result<(EncodedRecord, UnsignedCredential), Error> {
        let (own, series) = (own.into_own(), &*self.series);
        let place = status.place(series.summary.about.expires_at, now)?;
        let (token, digest) = match &series.tokens {
            TokenTemplate::Signed(beginning) => {
                let unsigned = beginning.unsigned(id, own.tool, own.arguments.map_or(&[], |a| a));
                let digest = unsigned.digest().try_into().map_err(|_| Fault::new("a SHA-256 of another length"))?;
                (PendingToken::Unsigned(unsigned), digest)
            }
            TokenTemplate::Derived => {
                let token = reference::make(&self.key, id)?;
                let digest = sha256(token.as_bytes());
                (PendingToken::Whole(IssuedToken::secret(token)), digest)
            }
        };
        let own = IssuanceFields {
            credential: id,
            request: own.request,
            trace: own.trace,
            tool: own.tool,
            purpose: own.purpose,
            arguments: own.arguments,
            status: (place.list, place.index),
            token_digest: &digest,
        };
        let record = EncodedRecord::from_template(&series.template, &own, &mut self.room.borrow_mut())
            .ok_or_else(|| Refusal::limit("record_bytes", limits::RECORD_BYTES as u64, std::time::Duration::ZERO))?;
        Ok((record, UnsignedCredential { of: self.clone(), id, token }))
    }
}

/// A credential whose record is complete but whose token is not signed yet. Nobody can use it.
pub struct UnsignedCredential {
    of: Rc<SigningSession>,
    id: CredentialId,
    token: PendingToken,
}

enum PendingToken {
    Unsigned(SigningInput),
    Whole(IssuedToken),
}

impl UnsignedCredential {
    /// Signs the token. The record may be on its way to the ledger already; without a receipt nobody gets the token.
    pub fn finish(self) -> Result<MintedCredential, Error> {
        let SigningSession { series, key, .. } = &*self.of;
        let token = match self.token {
            PendingToken::Unsigned(unsigned) => unsigned.sign(key)?,
            PendingToken::Whole(token) => token,
        };
        let parts = series.grants.parts();
        let answer = bearer(token, &parts.draft, parts.base_url.clone());
        let summary = CredentialSummary { credential: self.id, ..series.summary.clone() };
        Ok(MintedCredential::new(Vec::new(), summary, answer, OutcomeReporter::none()))
    }
}
