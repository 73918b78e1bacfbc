//! What was issued, found again: by id, by a token or what is left of it, by its digest.
//!
//! Memory has what is live. What has ended is looked for in history, by the index of its names, and where that does not find it newest first
//! and within `limits::HISTORY_BYTES`; where that bound ends the search, the answer says so and claims nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::OwnedSemaphorePermit;

use crate::authority::Authority;
use crate::credential::jwt::{Jwks, authentic, peek_kid, signed_by};
use crate::credential::keyring::jwk;
use crate::credential::reference::{PREFIX, Shown};
use crate::feed::Made;
use crate::ledger::commit::sha256;
use crate::ledger::history::{End, Past, Reached};
use crate::ledger::record::{Event, Issued, KeyPurpose, Record, Sort, TaskOpened};
use crate::ledger::search::Filter;
use crate::limits;
use crate::refusal::{Fault, No, Reason, Refusal};
use crate::seq::{CredentialId, Seq, TaskId};

/// An issuance, with the ids of its task's path as far as they are known, root first.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its record.
    pub record: Record,
    /// Its place in the order.
    pub seq: Seq,
    /// The task path.
    pub path: Vec<TaskId>,
}

impl Found {
    /// What was issued.
    pub fn issued(&self) -> Result<&Issued, Fault> {
        match &self.record.event {
            Some(Event::Issued(issued)) => Ok(issued),
            _ => Err(Fault::new("an issuance that is none")),
        }
    }
}

/// How a token stands to mayfly.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It is what was issued.
    Issued(Found),
    /// One of our keys signed it, and no record issued it.
    Forged {
        /// The key.
        key: String,
    },
    /// It names a credential and is not what was issued: altered, or cut.
    Altered(Found),
}

impl Authority {
    /// A place among the few questions that hold a core for long.
    pub(crate) fn one_question(&self) -> Result<OwnedSemaphorePermit, No> {
        let busy = || Refusal::limit("history_questions", limits::HISTORY_QUESTIONS as u64, std::time::Duration::from_secs(1));
        Ok(self.questions.clone().try_acquire_owned().map_err(|_| busy())?)
    }

    /// Goes back through history, collecting. Bounded, and only so many at once.
    pub(crate) async fn look_back<T: Send + 'static>(
        &self,
        mut collected: T,
        mut each: impl FnMut(&mut T, Past) -> ControlFlow<()> + Send + 'static,
    ) -> Result<(T, Reached), No> {
        let permit = self.one_question()?;
        let end = self.ledger.settled(|s| End { position: s.position, seq: s.head }).await?;
        let ledger = self.ledger.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let reached = ledger.look_back(end, |past| each(&mut collected, past))?;
            Ok::<_, Fault>((collected, reached))
        });
        Ok(looked.await.map_err(|e| Fault::new(format!("reading history: {e}")))??)
    }

    /// The issuance of a credential, from memory's place of it or from history.
    pub async fn issuance(&self, id: CredentialId) -> Result<Option<Found>, No> {
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
            return Ok(Some(Found { record, seq, path }));
        }
        if let Some(found) = self.issuance_in_index(id).await? {
            return Ok(Some(found));
        }
        self.issuance_where(move |e| e.credential == id.as_bytes(), &id.to_string()).await
    }

    /// The issuance of a credential and the tasks above it, each by its name. Where that does not find it, nothing is claimed.
    async fn issuance_in_index(&self, id: CredentialId) -> Result<Option<Found>, No> {
        let of = |name: String| Filter { names: vec![(None, name)], ..Filter::default() };
        let issued = |r: &Record| matches!(&r.event, Some(Event::Issued(e)) if e.credential == id.as_bytes());
        let all = self.search_far(&of(id.to_string()), limits::EXPLAIN_RECORDS).await?.records;
        let Some(one) = all.into_iter().map(|m| m.past).find(|past| issued(&past.record)) else { return Ok(None) };
        let mut found = Found { record: one.record, seq: one.seq, path: Vec::new() };
        let mut above = TaskId::from_slice(&found.issued()?.task);
        while let Some(task) = above.filter(|_| found.path.len() < limits::TASK_DEPTH) {
            let opened = Filter {
                names: vec![(Some(Sort::Task), task.to_string()), (Some(Sort::Event), "task opened".into())],
                ..Filter::default()
            };
            let opened = self.search_far(&opened, limits::EXPLAIN_RECORDS).await?.records.into_iter().find_map(|m| {
                match m.past.record.event {
                    Some(Event::TaskOpened(e)) if e.task == task.as_bytes() => Some(e),
                    _ => None,
                }
            });
            // As without an index: a path that is not known to its root is none.
            let Some(opened) = opened else { return Ok(None) };
            found.path.insert(0, task);
            above = TaskId::from_slice(&opened.parent);
        }
        Ok(Some(found))
    }

    /// Who made these rules and locks, when and why. What the feed does not have, as after a restart, is looked for in history and kept;
    /// what is not found there is left out.
    pub async fn made(&self, seqs: impl IntoIterator<Item = Seq>) -> BTreeMap<Seq, Made> {
        let (mut known, mut missing) = (BTreeMap::new(), BTreeSet::new());
        for seq in seqs {
            match self.feed.made(seq) {
                Some(made) => drop(known.insert(seq, made)),
                None => drop(missing.insert(seq)),
            }
        }
        let Some(oldest) = missing.first().copied() else { return known };
        let looked = self
            .look_back((Vec::new(), missing), move |(found, missing): &mut (Vec<(Seq, Made)>, BTreeSet<Seq>), past| {
                if missing.remove(&past.seq) {
                    found.push((past.seq, Made { record: Arc::new(past.record), at: past.at, hits: None }));
                }
                if missing.is_empty() || past.seq < oldest { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .await;
        // A list without causes is better than none.
        if let Ok(((found, _), _)) = looked {
            self.feed.recall(&found);
            known.extend(found);
        }
        known
    }

    /// The newest issuance in history that fits. Refused with COMPACTED where the search ended at its bound.
    async fn issuance_where(&self, fits: impl Fn(&Issued) -> bool + Send + 'static, what: &str) -> Result<Option<Found>, No> {
        let looking = Looking { found: None, missing: None };
        let (looked, reached) = self
            .look_back(looking, move |l, past| {
                match &past.record.event {
                    Some(Event::Issued(e)) if l.found.is_none() && fits(e) => {
                        l.missing = TaskId::from_slice(&e.task);
                        l.found = Some(Found { record: past.record, seq: past.seq, path: Vec::new() });
                    }
                    Some(Event::TaskOpened(e)) => l.task(e),
                    _ => {}
                }
                if l.found.is_some() && l.missing.is_none() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .await?;
        match (looked.found, reached) {
            (Some(found), _) => Ok(Some(found)),
            (None, reached) => match reached.short() {
                Some((_, why)) => Err(not_reached(what, &why)),
                None => Ok(None),
            },
        }
    }

    /// How a token stands to mayfly. `None`: it is nothing of mayfly's.
    pub async fn look_up(&self, token: &str) -> Result<Option<Standing>, No> {
        if token.is_empty() || token.len() > limits::TOKEN_BYTES {
            let what = format!("has {} bytes, expected 1 to {}", token.len(), limits::TOKEN_BYTES);
            return Err(No::Refusal(Refusal::field("token", what)));
        }
        match token.strip_prefix(PREFIX) {
            Some(rest) => self.look_up_reference(token, rest).await,
            None => self.look_up_jwt(token).await,
        }
    }

    async fn look_up_reference(&self, token: &str, rest: &str) -> Result<Option<Standing>, No> {
        // 16 bytes of id are the first 21 characters and a part of the next.
        let id = rest.get(..22).and_then(leading_bytes).and_then(|b| CredentialId::from_slice(b.get(..16)?));
        let Some(id) = id else { return Ok(None) };
        if let Some(found) = self.issuance(id).await? {
            let same = found.issued()?.token_digest == sha256(token.as_bytes());
            return Ok(Some(if same { Standing::Issued(found) } else { Standing::Altered(found) }));
        }
        let Some(shown) = Shown::parse(token) else { return Ok(None) };
        let keys = self.ledger.peek(|s| {
            let of = s.keys.iter().filter(|(_, k)| k.purpose == KeyPurpose::Reference);
            of.map(|(id, _)| id.to_string()).collect::<Vec<_>>()
        });
        let made = keys.into_iter().find(|id| self.keyring.get(KeyPurpose::Reference, id).is_some_and(|k| shown.made_by(&k)));
        Ok(made.map(|key| Standing::Forged { key }))
    }

    async fn look_up_jwt(&self, token: &str) -> Result<Option<Standing>, No> {
        let key = signed_by(token, &self.every_key()?);
        let found = match named_in(token) {
            Some(id) => self.issuance(id).await?,
            None => None,
        };
        let input = token.rsplit_once('.').map_or(token, |(input, _)| input);
        Ok(match (key, found) {
            (Some(_), Some(found)) if found.issued()?.token_digest == sha256(input.as_bytes()) => Some(Standing::Issued(found)),
            (Some(key), _) => {
                self.of_this_generation(token)?;
                Some(Standing::Forged { key })
            }
            (None, Some(found)) => Some(Standing::Altered(found)),
            (None, None) => None,
        })
    }

    /// The issuance of a token by its SHA-256, of a JWT without its last dot and signature. There is no index: history is searched.
    pub async fn look_up_digest(&self, digest: [u8; 32]) -> Result<Option<Found>, No> {
        self.issuance_where(move |e| e.token_digest == digest, "a token of that digest").await
    }

    /// What was issued before this generation may have been left behind by a recovery: it is revoked, and need not be forged.
    fn of_this_generation(&self, token: &str) -> Result<(), No> {
        let revision = authentic(token, &self.every_key()?).ok().map(|(claims, _)| claims.own.r);
        let begun = Seq::start_of(self.ledger.durable().generation());
        match revision {
            Some(revision) if revision < begun => {
                let what =
                    format!("the token says that it was decided at seq {revision}, before this generation of the ledger began");
                let no = Refusal::new(Reason::Compacted, what);
                Err(No::Refusal(no.way_out("whatever it is, it is refused: all that was issued before is revoked")))
            }
            _ => Ok(()),
        }
    }

    /// Every key that ever signed access tokens: also what a key signed that is gone is told apart from what it did not.
    fn every_key(&self) -> Result<Jwks, Fault> {
        let keys = self.ledger.peek(|s| {
            let of = s.keys.iter().filter(|(_, k)| k.purpose == KeyPurpose::AccessToken);
            of.filter_map(|(id, k)| String::from_utf8(jwk(id, k)?).ok()).collect::<Vec<_>>()
        });
        let set = format!("{{\"keys\":[{}]}}", keys.join(","));
        Jwks::parse(&set).map_err(|e| Fault::new(format!("our own keys: {e}")))
    }
}

/// A search for an issuance and then for the tasks above it.
struct Looking {
    found: Option<Found>,
    /// The task of the path that was not seen yet.
    missing: Option<TaskId>,
}

impl Looking {
    fn task(&mut self, opened: &TaskOpened) {
        let (Some(found), Some(missing)) = (&mut self.found, self.missing) else { return };
        if opened.task == missing.as_bytes() {
            found.path.insert(0, missing);
            self.missing = TaskId::from_slice(&opened.parent);
        }
    }
}

fn not_reached(what: &str, why: &str) -> No {
    No::Refusal(
        Refusal::new(Reason::Compacted, format!("{what} is not in memory, and {why}"))
            .way_out("an exported audit log may have it: mayfly audit search"),
    )
}

/// The credential that a JWT names, as long as that can be read: also of one whose signature was cut. Nothing of it is checked.
fn named_in(token: &str) -> Option<CredentialId> {
    let payload = token.split('.').nth(1)?;
    let bytes = leading_bytes(payload)?;
    let text = String::from_utf8_lossy(&bytes);
    let (_, rest) = text.split_once("\"jti\":\"")?;
    rest.get(..CredentialId::PREFIX.len() + 26)?.parse().ok()
}

/// The bytes of base64url up to its first bad character.
fn leading_bytes(text: &str) -> Option<Vec<u8>> {
    let good = text.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')).count();
    // A lone last character holds no whole byte, and what is left over of the last whole one need not be zero.
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

/// What `peek_kid` reads, for answers.
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
