//! Credentials of one sort, made one after the other: what they have in common is encoded and hashed once.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use bytes::BytesMut;

use super::Token;
use super::jwt::{Beginning, Told, Unsigned};
use super::keyring::{Keyring, OwnKey};
use super::kind::{Kind, bearer, key_for, kind_of, not_served, summary};
use super::minted::{Lapse, Minted, Novelty, Summary};
use super::reference;
use super::status::Allocator;
use crate::ledger::commit::{Encoded, sha256};
use crate::ledger::mold::{Mold, Own};
use crate::ledger::record::{Event, Record};
use crate::limits;
use crate::policy::grant::{OwnGrant, SharedGrant};
use crate::refusal::{Fault, No, Refusal};
use crate::seq::{CredentialId, Millis};

/// How the tokens of a series are made.
enum Tokens {
    Signed(Box<Beginning>),
    Derived,
}

/// What credentials of one sort have in common, ready to make each of them.
pub struct Series {
    grants: Arc<SharedGrant>,
    /// Not kept for this: whoever keeps a series for later keeps no key that was taken away meanwhile.
    key: Weak<OwnKey>,
    tokens: Tokens,
    mold: Arc<Mold>,
    /// Of each but for its id.
    summary: Summary,
}

/// A round that makes some of a series.
pub struct Making {
    series: Arc<Series>,
    key: Arc<OwnKey>,
    /// Where their records are put.
    room: RefCell<BytesMut>,
}

impl Series {
    /// Of a kind that is made here.
    ///
    /// Refused: NOT_SERVED, NOT_READY where there is no active key, NO_LIFE_LEFT below a second.
    pub fn new(grants: Arc<SharedGrant>, keyring: &Keyring) -> Result<Series, No> {
        let parts = grants.parts();
        let kind = kind_of(parts.draft.kind)?;
        let key = key_for(kind, parts, keyring)?;
        let mut draft = parts.draft.clone();
        draft.key = key.id().to_owned();
        let (path, audience, issuer) = (&parts.path, &parts.audience, &parts.issuer);
        let tokens = match kind {
            Kind::Jwt => {
                let (revision, grounds) = (parts.revision, &parts.grounds);
                let told = Told { issued: &draft, revision, path, grounds, audience, issuer };
                Tokens::Signed(Box::new(Beginning::new(&key, &told)?))
            }
            Kind::Reference => Tokens::Derived,
            _ => return Err(not_served(kind, "are not made by this version")),
        };
        let nobody = CredentialId::from_bytes([0; 16]);
        let summary = summary(&draft, nobody, kind, parts.revision, Novelty::New, false)?;
        let record = Record::new(parts.author.clone(), Event::Issued(draft)).decided_at(parts.revision);
        let mold = Mold::new(record).ok_or_else(|| Fault::new("what grants have in common holds something of one's own"))?;
        Ok(Series { key: Arc::downgrade(&key), tokens, mold: Arc::new(mold), summary, grants })
    }

    /// What their records have in common.
    pub fn mold(&self) -> &Arc<Mold> {
        &self.mold
    }
}

impl Making {
    /// Of this series; `None` where its key is no longer ours. What is made shares it without a count that several threads would change.
    pub fn of(series: Arc<Series>) -> Option<Rc<Making>> {
        let key = series.key.upgrade()?;
        Some(Rc::new(Making { series, key, room: RefCell::default() }))
    }

    /// The next one, and the record to commit for it, which says nothing of a signature.
    pub fn next(
        self: &Rc<Making>,
        own: OwnGrant<'_>,
        id: CredentialId,
        status: &Allocator,
        now: Millis,
    ) -> Result<(Encoded, Unfinished), No> {
        let (own, series) = (own.into_own(), &*self.series);
        let place = status.place(series.summary.about.expires_at, now)?;
        let (token, digest) = match &series.tokens {
            Tokens::Signed(beginning) => {
                let unsigned = beginning.unsigned(id, own.tool, own.arguments.map_or(&[], |a| a));
                let digest = unsigned.digest().try_into().map_err(|_| Fault::new("a SHA-256 of another length"))?;
                (Text::Unsigned(unsigned), digest)
            }
            Tokens::Derived => {
                let token = reference::make(&self.key, id)?;
                let digest = sha256(token.as_bytes());
                (Text::Whole(Token::secret(token)), digest)
            }
        };
        let own = Own {
            credential: id,
            request: own.request,
            trace: own.trace,
            tool: own.tool,
            purpose: own.purpose,
            arguments: own.arguments,
            status: (place.list, place.index),
            token_digest: &digest,
        };
        let record = Encoded::cast(&series.mold, &own, &mut self.room.borrow_mut())
            .ok_or_else(|| Refusal::limit("record_bytes", limits::RECORD_BYTES as u64, std::time::Duration::ZERO))?;
        Ok((record, Unfinished { of: self.clone(), id, token }))
    }
}

/// One of a series that has its record, and nothing that anybody could use.
pub struct Unfinished {
    of: Rc<Making>,
    id: CredentialId,
    token: Text,
}

enum Text {
    Unsigned(Unsigned),
    Whole(Token),
}

impl Unfinished {
    /// Makes it: told to nobody yet. Its record may be on its way already: whatever becomes of this, nobody has it without a receipt.
    pub fn finish(self) -> Result<Minted, No> {
        let Making { series, key, .. } = &*self.of;
        let token = match self.token {
            Text::Unsigned(unsigned) => unsigned.sign(key)?,
            Text::Whole(token) => token,
        };
        let parts = series.grants.parts();
        let answer = bearer(token, &parts.draft, parts.base_url.clone());
        let summary = Summary { credential: self.id, ..series.summary.clone() };
        Ok(Minted::new(Vec::new(), summary, answer, Lapse::none()))
    }
}
