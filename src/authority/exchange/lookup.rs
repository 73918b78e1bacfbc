//! Looks up issued credentials: by id, by a token or the rest of one, or by a token's digest.
//!
//! Live credentials are in memory. Ended credentials are searched in history by the index of names
//! ([`mayfly_ledger::reader::history_query`]). If the index does not cover all of history yet, the answer says so and makes no claim.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::OwnedSemaphorePermit;

use crate::admission::permit_within;
use crate::authority::Authority;
use crate::revocation::feed::RuleOrigin;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_base::system::Stopwatch;
use mayfly_credential::CredentialKind;
use mayfly_credential::jwt::{Jwks, authentic, peek_kid, signed_by};
use mayfly_credential::keyring::jwk;
use mayfly_credential::reference::{PREFIX, ReferenceToken};
use mayfly_credential::token::token_digest;
use mayfly_ledger::commit::sha256;
use mayfly_ledger::reader::history::HistoryRecord;
use mayfly_ledger::reader::history_query::{CancelFlag, HistoryQuery};
use mayfly_ledger::reader::log_reader::LogCursor;
use mayfly_ledger::reader::search::HistoryFilter;
use mayfly_ledger::record::{CredentialIssued, Event, KeyPurpose, KeyState, NameKind, Record, main_objects};
use mayfly_verify::seq::{CredentialId, Seq, TaskId};

/// An issuance, with the ids of its task path as far as they are known, root first.
#[derive(Clone, Debug)]
pub struct FoundIssuance {
    /// The record of the issuance.
    pub record: Record,
    /// The sequence number of the record.
    pub seq: Seq,
    /// The task path.
    pub path: Vec<TaskId>,
}

impl FoundIssuance {
    /// The issuance event of the record.
    pub fn issued(&self) -> Result<&CredentialIssued, Fault> {
        match &self.record.event {
            Some(Event::Issued(issued)) => Ok(issued),
            _ => Err(Fault::new("an issuance record without an issuance")),
        }
    }
}

/// The relation of a token to mayfly.
#[derive(Clone, Debug)]
pub enum TokenStatus {
    /// The token is exactly what was issued.
    Issued(FoundIssuance),
    /// A key of the server signed the token, but no record issued it.
    Forged {
        /// The key.
        key: String,
    },
    /// The token names a credential but differs from what was issued: it was altered or truncated.
    Altered(FoundIssuance),
}

impl Authority {
    /// Waits for one of the few permits for queries that hold a core. The wait is short, since each query ends within a second.
    pub(crate) async fn one_question(&self) -> Result<OwnedSemaphorePermit, Error> {
        permit_within(&self.questions, limits::HISTORY_QUESTION_WAIT_MS, ("history_questions", limits::HISTORY_QUESTIONS)).await
    }

    /// Runs one query on history on a thread that may block. If the returned future is dropped, the query stops and its permit is released.
    pub async fn question<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&HistoryQuery) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = self.one_question().await?;
        let ends = self.ledger.settled(|s| (s.removed.oldest(), LogCursor { position: s.position + 1, seq: s.head })).await?;
        let (ledger, (stop, _waiting)) = (self.ledger.clone(), CancelFlag::waiting());
        let asked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            ask(&HistoryQuery::new(&ledger, ends, stop))
        });
        asked.await.map_err(|e| Fault::new(format!("reading history: {e}")))?
    }

    /// The issuance of a credential, found by its position in memory or in history. Refused with NOT_FOUND, and a sequence number, if it is
    /// not among the kept records and some records were removed.
    pub async fn issuance(&self, id: CredentialId) -> Result<Option<FoundIssuance>, Error> {
        match self.issuance_or_removed(id).await? {
            (None, Some(removed)) => Err(not_kept(&format!("credential {id}"), removed)),
            (found, _) => Ok(found),
        }
    }

    /// Like `issuance`, but for a search in history also returns the sequence number up to which records were removed.
    async fn issuance_or_removed(&self, id: CredentialId) -> Result<(Option<FoundIssuance>, Option<Seq>), Error> {
        let known = self
            .ledger
            .settled(|s| {
                let live = s.credentials.get(&id)?;
                Some((live.at(), live.seq(), s.tasks.at(live.task()).map(|t| t.terms.path.clone()).unwrap_or_default()))
            })
            .await?;
        if let Some((at, seq, path)) = known {
            let of = |r: &Record| matches!(&r.event, Some(Event::Issued(e)) if e.credential == id.as_bytes());
            let record = self.ledger.records_at(at)?.into_iter().find(of);
            let record = record.ok_or_else(|| Fault::new(format!("commit {at} does not hold the issuance of {id}")))?;
            return Ok((Some(FoundIssuance { record, seq, path }), None));
        }
        let named = HistoryFilter::named(None, id.to_string());
        self.issuance_where(named, id.to_string(), move |e| e.credential == id.as_bytes()).await
    }

    /// The issuance in history that has a name and satisfies a condition.
    async fn issuance_where(
        &self,
        named: HistoryFilter,
        what: String,
        fits: impl Fn(&CredentialIssued) -> bool + Send + 'static,
    ) -> Result<(Option<FoundIssuance>, Option<Seq>), Error> {
        self.question(move |look| {
            let issued = |past: &HistoryRecord| matches!(&past.record.event, Some(Event::Issued(e)) if fits(e));
            let Some(past) = look.first(&[named], issued)? else {
                look.saw_all(&what)?;
                return Ok((None, look.removed()));
            };
            let mut found = FoundIssuance { record: past.record, seq: past.seq, path: Vec::new() };
            found.path = path_to(look, TaskId::from_slice(&found.issued()?.task))?;
            Ok((Some(found), None))
        })
        .await
    }

    /// The origins of rules and locks: author, time and reason. Origins that the feed does not have, as after a restart, are searched in
    /// history and kept; those not found quickly are left out.
    pub async fn made(&self, seqs: impl IntoIterator<Item = Seq>) -> BTreeMap<Seq, RuleOrigin> {
        let (mut known, mut missing) = (BTreeMap::new(), BTreeSet::new());
        for seq in seqs {
            match self.feed.made(seq) {
                Some(made) => drop(known.insert(seq, made)),
                None => drop(missing.insert(seq)),
            }
        }
        if missing.is_empty() {
            return known;
        }
        let watch = Stopwatch::start();
        let looked = self.question(move |look| {
            let mut found = Vec::new();
            // The newest first, since a list begins with them.
            for seq in missing.into_iter().rev() {
                if watch.us() > limits::CAUSES_LOOK_MS * 1000 {
                    break;
                }
                if let Some(past) = look.at(seq)? {
                    found.push((past.seq, RuleOrigin { record: Arc::new(past.record), at: past.at, hits: None }));
                }
            }
            Ok(found)
        });
        // A list without origins is better than none.
        if let Ok(found) = looked.await {
            self.feed.recall(&found);
            known.extend(found);
        }
        known
    }

    /// The relation of a token to mayfly. `None`: the token has none.
    pub async fn look_up(&self, token: &str) -> Result<Option<TokenStatus>, Error> {
        if token.is_empty() || token.len() > limits::TOKEN_BYTES {
            let what = format!("has {} bytes, expected 1 to {}", token.len(), limits::TOKEN_BYTES);
            return Err(Error::Refusal(Refusal::field("token", what)));
        }
        match token.strip_prefix(PREFIX) {
            Some(rest) => self.look_up_reference(token, rest).await,
            None => self.look_up_jwt(token).await,
        }
    }

    async fn look_up_reference(&self, token: &str, rest: &str) -> Result<Option<TokenStatus>, Error> {
        // The 16 bytes of the id are the first 21 characters and part of the next.
        let id = rest.get(..22).and_then(leading_bytes).and_then(|b| CredentialId::from_slice(b.get(..16)?));
        let Some(id) = id else { return Ok(None) };
        if let Some(found) = self.issuance(id).await? {
            let same = found.issued()?.token_digest == sha256(token.as_bytes());
            return Ok(Some(if same { TokenStatus::Issued(found) } else { TokenStatus::Altered(found) }));
        }
        let Some(shown) = ReferenceToken::parse(token) else { return Ok(None) };
        let keys = self.ledger.peek(|s| {
            let of = s.keys.iter().filter(|(_, k)| k.purpose == KeyPurpose::Reference);
            of.map(|(id, _)| id.to_string()).collect::<Vec<_>>()
        });
        let made = keys.into_iter().find(|id| self.keyring.get(KeyPurpose::Reference, id).is_some_and(|k| shown.made_by(&k)));
        let Some(key) = made else { return Ok(None) };
        if self.in_use_before_this_generation(&key) {
            let what = format!("the token was made with key {key}, which was in use before this generation of the ledger began");
            return Err(possibly_lost(what));
        }
        Ok(Some(TokenStatus::Forged { key }))
    }

    /// Whether a key may have made tokens whose records were lost in a recovery. A key that is active since this generation began was not
    /// used before; of a retired key this is not known.
    fn in_use_before_this_generation(&self, key: &str) -> bool {
        let begun = Seq::start_of(self.ledger.durable().generation());
        let since = self.ledger.peek(|s| s.keys.get(key).filter(|k| k.state == KeyState::Active).map(|k| k.seq));
        begun.generation() > 1 && since.is_none_or(|seq| seq < begun)
    }

    async fn look_up_jwt(&self, token: &str) -> Result<Option<TokenStatus>, Error> {
        let key = signed_by(token, &self.every_key()?);
        let named = named_in(token);
        let (found, removed) = match named {
            Some(id) => self.issuance_or_removed(id).await?,
            None => (None, None),
        };
        let input = token.rsplit_once('.').map_or(token, |(input, _)| input);
        Ok(match (key, found) {
            (Some(_), Some(found)) if found.issued()?.token_digest == sha256(input.as_bytes()) => {
                Some(TokenStatus::Issued(found))
            }
            (Some(key), _) => {
                self.has_to_have_a_record(token, removed)?;
                Some(TokenStatus::Forged { key })
            }
            // An assertion: its issuer and its key are of its upstream. A token of mayfly's own comes here only without its signature.
            (None, Some(found))
                if found.issued()?.kind == CredentialKind::Federation.number()
                    && found.issued()?.token_digest == sha256(input.as_bytes()) =>
            {
                Some(TokenStatus::Issued(found))
            }
            (None, Some(found)) => Some(TokenStatus::Altered(found)),
            (None, None) => match (named, removed) {
                (Some(id), Some(removed)) => return Err(not_kept(&format!("credential {id}"), removed)),
                // Perhaps a token that an upstream made.
                _ => self.look_up_digest(token_digest(token)).await.ok().flatten().map(TokenStatus::Issued),
            },
        })
    }

    /// The issuance of a token by its SHA-256; of a JWT, without its last dot and signature.
    pub async fn look_up_digest(&self, digest: [u8; 32]) -> Result<Option<FoundIssuance>, Error> {
        let named = HistoryFilter::named(None, data_encoding::HEXLOWER.encode(&digest));
        let what = "a token of that digest".to_owned();
        match self.issuance_where(named, what.clone(), move |e| e.token_digest == digest).await? {
            (None, Some(removed)) => Err(not_kept(&what, removed)),
            (found, _) => Ok(found),
        }
    }

    /// Refuses to call a token forged if a token signed by the server's key may legitimately have no record: one issued before this
    /// generation may have been lost in a recovery, and records up to `removed` are not kept.
    fn has_to_have_a_record(&self, token: &str, removed: Option<Seq>) -> Result<(), Error> {
        let revision = authentic(token, &self.every_key()?).ok().map(|(claims, _)| claims.own.r);
        let begun = Seq::start_of(self.ledger.durable().generation());
        match (revision, removed) {
            (Some(revision), _) if revision < begun => {
                let what =
                    format!("the token says that it was decided at seq {revision}, before this generation of the ledger began");
                Err(possibly_lost(what))
            }
            (Some(revision), Some(removed)) if revision <= removed => {
                Err(not_kept(&format!("what the token says was decided at seq {revision}"), removed))
            }
            _ => Ok(()),
        }
    }

    /// Every key that ever signed access tokens, so that signatures of removed keys can be verified too.
    fn every_key(&self) -> Result<Jwks, Fault> {
        let keys = self.ledger.peek(|s| {
            let of = s.keys.iter().filter(|(_, k)| k.purpose == KeyPurpose::AccessToken);
            of.filter_map(|(id, k)| String::from_utf8(jwk(id, k)?).ok()).collect::<Vec<_>>()
        });
        let set = format!("{{\"keys\":[{}]}}", keys.join(","));
        Jwks::parse(&set).map_err(|e| Fault::new(format!("our own keys: {e}")))
    }
}

/// The refusal to call a token forged that may have been issued and lost with the records of an earlier generation.
fn possibly_lost(what: String) -> Error {
    let no = Refusal::new(Reason::Compacted, what);
    Error::Refusal(no.way_out("nothing has to be done: every token issued before this generation is revoked and is refused"))
}

/// The path to a task, root first, as far as its records are kept.
pub(crate) fn path_to(look: &HistoryQuery, task: Option<TaskId>) -> Result<Vec<TaskId>, Error> {
    let (mut path, mut above) = (Vec::new(), task);
    while let Some(task) = above.filter(|_| path.len() < limits::TASK_DEPTH) {
        path.insert(0, task);
        let opens = |past: &HistoryRecord| matches!(&past.record.event, Some(Event::TaskOpened(e)) if e.task == task.as_bytes());
        let opened = look.first(&[HistoryFilter::named(Some(NameKind::About), main_objects::id(task))], opens)?;
        above = match opened.and_then(|past| past.record.event) {
            Some(Event::TaskOpened(e)) => TaskId::from_slice(&e.parent),
            _ => None,
        };
    }
    Ok(path)
}

/// The refusal for an object that no kept record names.
pub(crate) fn not_kept(what: &str, removed: Seq) -> Error {
    let why = format!("{what} is in no record that is kept; records up to seq {removed} were removed (audit.keep)");
    Error::Refusal(Refusal::new(Reason::NotFound, why).way_out("an exported audit log may have it"))
}

/// The id of the credential that a JWT names, if it can be decoded, even if its signature was cut off. Nothing is verified.
fn named_in(token: &str) -> Option<CredentialId> {
    let payload = token.split('.').nth(1)?;
    let bytes = leading_bytes(payload)?;
    let text = String::from_utf8_lossy(&bytes);
    let (_, rest) = text.split_once("\"jti\":\"")?;
    rest.get(..CredentialId::PREFIX.len() + 26)?.parse().ok()
}

/// Decodes base64url up to the first invalid character.
fn leading_bytes(text: &str) -> Option<Vec<u8>> {
    let good = text.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')).count();
    // A single last character contains no whole byte, and unused bits of the last character need not be zero.
    let (whole, rest) = text.get(..good)?.split_at_checked(good / 4 * 4)?;
    let mut bytes = URL_SAFE_NO_PAD.decode(whole).ok()?;
    let mut tail = rest.to_owned();
    if !tail.is_empty() {
        tail.push_str(&"A".repeat(4 - rest.len()));
        let more = URL_SAFE_NO_PAD.decode(tail).ok()?;
        bytes.extend(more.into_iter().take(rest.len() * 6 / 8));
    }
    Some(bytes)
}

/// The key id of a token, for answers.
pub fn key_named(token: &str) -> String {
    peek_kid(token).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_read_from_what_is_left_of_a_token() {
        let id = CredentialId::from_bytes([7; 16]);
        let claims = format!("{{\"iss\":\"https://a\",\"jti\":\"{id}\",\"more\":\"and more\"}}");
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(&claims));
        let enough = token.find('.').unwrap() + 1 + (claims.find("\",\"more").unwrap() * 8).div_ceil(6);
        for end in [token.len(), token.len() - 3, enough + 1, enough] {
            assert_eq!(named_in(&token[..end]), Some(id), "{end}");
        }
        assert_eq!(named_in(&token[..enough - 1]), None);
        for other in ["", ".", "a.b.c", "e30.e30.e30", "mfr_x"] {
            assert_eq!(named_in(other), None);
        }
    }

    #[test]
    fn base64_is_read_up_to_where_it_ends() {
        assert_eq!(leading_bytes("YWJj").as_deref(), Some(&b"abc"[..]));
        assert_eq!(leading_bytes("YWJjZ").as_deref(), Some(&b"abc"[..]));
        assert_eq!(leading_bytes("YWJjZGV").as_deref(), Some(&b"abcde"[..]));
        assert_eq!(leading_bytes("YWJj*YWJj").as_deref(), Some(&b"abc"[..]));
        assert_eq!(leading_bytes("").as_deref(), Some(&b""[..]));
    }
}
