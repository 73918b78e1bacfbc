//! Explains from the ledger alone why something was or was not granted, and what became of it.
//!
//! The record of a grant tells what it was decided with; the rules in effect and later records tell what ended it. A caller who is not an
//! operator gets an explanation from memory only, so that workloads cannot make the server read history.

pub mod body;
mod finding_texts;
mod related;

use crate::authority::Authority;
use crate::exchange::lookup::{FoundIssuance, not_kept, path_to};
use mayfly_base::limits;
use mayfly_base::plural::counted;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_ledger::reader::history::HistoryRecord;
use mayfly_ledger::reader::history_query::QueryGap;
use mayfly_ledger::reader::search::HistoryFilter;
use mayfly_ledger::record::{Event, NameKind, Record, main_objects};
use mayfly_ledger::state::{SupportingGrant, request_key};
use mayfly_verify::seq::{ApprovalId, CredentialId, LeaseId, Seq, TaskId};
use related::ExplainScope;

/// The object to explain.
#[derive(Clone, Debug)]
pub enum ExplainTarget {
    /// A credential.
    Credential(CredentialId),
    /// A task.
    Task(TaskId),
    /// A record.
    Seq(Seq),
    /// A request of a caller.
    Request {
        /// The caller that sent it.
        caller: String,
        /// The request id.
        id: String,
    },
    /// An approval.
    Approval(ApprovalId),
    /// A lease.
    Lease(LeaseId),
}

/// One finding of the explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainFinding {
    /// The subject of the finding.
    pub subject: &'static str,
    /// The text of the finding.
    pub text: String,
    /// Whether the finding speaks for the grant.
    pub permits: bool,
    /// The record that supports the finding.
    pub seq: Seq,
}

/// An explanation.
#[derive(Clone, Debug, Default)]
pub struct GrantExplanation {
    /// The explanation in one sentence.
    pub summary: String,
    /// The findings, in the order in which a decision checks them.
    pub findings: Vec<ExplainFinding>,
    /// The records, oldest first.
    pub records: Vec<HistoryRecord>,
    /// The environment of the object, if it has one.
    pub environment: Option<String>,
    /// The workloads that may see the explanation.
    pub holders: Vec<String>,
    /// No record names the request that was asked for; the newest refusals of its caller are listed instead.
    pub request_unknown: bool,
}

fn none(what: &str) -> Error {
    Error::Refusal(Refusal::new(Reason::NotFound, format!("there is no {what} that you may see")))
}

/// The parts of history that were not read.
#[derive(Clone, Copy, Debug, Default)]
struct UnreadHistory {
    /// Records up to this sequence number were removed, and with them something that was searched for.
    removed: Option<Seq>,
    /// The part that was not searched, and why.
    unseen: Option<QueryGap>,
}

/// The refusal if nothing was found.
fn not_found(what: &str, kind: &str, removed: Option<Seq>) -> Error {
    removed.map_or_else(|| none(kind), |removed| not_kept(what, removed))
}

/// How far the search may go: only operators may have history read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SearchDepth {
    /// Memory only.
    Memory,
    /// Memory and history.
    History,
}

impl Authority {
    /// Explains an object. The service must check by environment and holders whether the caller may see the explanation.
    pub async fn explain(&self, of: &ExplainTarget, depth: SearchDepth) -> Result<GrantExplanation, Error> {
        match of {
            ExplainTarget::Credential(id) => self.explain_credential(*id, depth).await,
            ExplainTarget::Task(id) => self.explain_task(*id, depth).await,
            ExplainTarget::Request { caller, id } => self.explain_request(caller, id, depth).await,
            ExplainTarget::Seq(_) | ExplainTarget::Approval(_) | ExplainTarget::Lease(_) if depth == SearchDepth::Memory => {
                Err(none("such record"))
            }
            ExplainTarget::Seq(seq) => self.explain_seq(*seq).await,
            ExplainTarget::Approval(id) => {
                self.explain_records(
                    ExplainScope { approval: id.as_bytes().to_vec(), ..ExplainScope::default() },
                    &id.to_string(),
                )
                .await
            }
            ExplainTarget::Lease(id) => {
                self.explain_records(ExplainScope { lease: id.as_bytes().to_vec(), ..ExplainScope::default() }, &id.to_string())
                    .await
            }
        }
    }

    async fn explain_credential(&self, id: CredentialId, depth: SearchDepth) -> Result<GrantExplanation, Error> {
        let (known, login) = self
            .ledger
            .peek(|s| (s.credentials.get(&id).is_some(), s.logins.get(&id).map(|l| (l.seq, l.environment.to_string()))));
        if let (Some((seq, environment)), SearchDepth::History) = (login, depth) {
            return Ok(GrantExplanation { environment: Some(environment), ..self.explain_seq(seq).await? });
        }
        if depth == SearchDepth::Memory && !known {
            return Err(none("such credential"));
        }
        match self.issuance(id).await {
            Ok(Some(found)) => self.explain_found(found, depth).await,
            Ok(None) => Box::pin(self.explain_login(id)).await?.ok_or_else(|| none("such credential")),
            Err(Error::Refusal(no)) if no.reason == Reason::NotFound => {
                Box::pin(self.explain_login(id)).await?.ok_or(Error::Refusal(no))
            }
            Err(no) => Err(no),
        }
    }

    /// Explains a login that is no longer in memory. The credential of a login was not issued for an upstream.
    async fn explain_login(&self, id: CredentialId) -> Result<Option<GrantExplanation>, Error> {
        let logs_in =
            move |past: &HistoryRecord| matches!(&past.record.event, Some(Event::LoggedIn(e)) if e.credential == id.as_bytes());
        let found = self.question(move |look| look.first(&[HistoryFilter::named(None, id.to_string())], logs_in)).await?;
        let environment = |past: &HistoryRecord| match &past.record.event {
            Some(Event::LoggedIn(e)) => Some(e.environment.clone()),
            _ => None,
        };
        Ok(found.map(|past| GrantExplanation { environment: environment(&past), ..finding_texts::of_record(past) }))
    }

    async fn explain_found(&self, found: FoundIssuance, depth: SearchDepth) -> Result<GrantExplanation, Error> {
        let issued = found.issued()?.clone();
        let revision = found.record.revision();
        let about = ExplainScope {
            path: found.path.clone(),
            lease: issued.lease.clone(),
            approval: issued.approval.clone(),
            credential: Some((issued.clone(), revision)),
            from: found.seq,
            grounds: self.ledger.peek(|s| {
                let facts = s.facts_of_record(&issued, revision, &found.path);
                facts.rests_on.iter().map(|ground| (SupportingGrant::of(ground), revision)).collect()
            }),
            ..ExplainScope::default()
        };
        let (records, seen) = match depth {
            SearchDepth::Memory => (Vec::new(), UnreadHistory::default()),
            SearchDepth::History => self.story(about, format!("record {}", found.seq)).await?,
        };
        let now = self.system.wall();
        let (mut findings, summary) =
            self.ledger.settled(|s| finding_texts::of_credential(s, &issued, &found, &records, now)).await?;
        findings.extend(finding_texts::reach(seen));
        Ok(GrantExplanation {
            summary,
            findings,
            records,
            environment: Some(issued.environment.clone()),
            holders: vec![issued.caller.clone()],
            request_unknown: false,
        })
    }

    async fn explain_task(&self, id: TaskId, depth: SearchDepth) -> Result<GrantExplanation, Error> {
        let known = self.ledger.settled(|s| {
            let task = s.tasks.get(&id)?;
            // Includes approvals that are unused, or never will be used.
            let of = |a: &&mayfly_ledger::state::Approval| a.asked.terms.is_some() && a.asked.task == id.as_bytes();
            let asked = s.approvals.values().filter(of).map(|a| a.asked.approval.clone());
            let opened_with = task.approved.iter().map(|a| a.id.as_bytes().to_vec());
            Some(((task.terms.path.clone(), task.terms.seq), asked.chain(opened_with).collect::<Vec<_>>()))
        });
        let (path, used) = known.await?.unzip();
        let (path, from) = match (path, depth) {
            (Some(known), _) => known,
            (None, SearchDepth::Memory) => return Err(none("such task")),
            (None, SearchDepth::History) => (vec![id], Seq::ZERO),
        };
        let used = used.unwrap_or_default();
        let grounds = self.ledger.peek(|s| {
            let openings = s.tasks.get(&id).map_or_else(Vec::new, |task| s.openings(task));
            let each = openings
                .iter()
                .flat_map(|o| std::iter::once(o).chain(&o.rests_on).map(move |of| (SupportingGrant::of(of), o.revision)));
            each.collect()
        });
        let about = ExplainScope { path, from, used, refusals_of: id.to_string(), grounds, ..ExplainScope::default() };
        let (records, seen) = match depth {
            SearchDepth::Memory => (Vec::new(), UnreadHistory::default()),
            SearchDepth::History => self.story(about, id.to_string()).await?,
        };
        let now = self.system.wall();
        let told = self.ledger.settled(|s| finding_texts::of_task(s, id, &records, now)).await?;
        let mut explained = told.ok_or_else(|| not_found(&id.to_string(), "such task", seen.removed))?;
        explained.findings.extend(finding_texts::reach(seen));
        explained.records = records;
        Ok(explained)
    }

    async fn explain_request(&self, caller: &str, id: &str, depth: SearchDepth) -> Result<GrantExplanation, Error> {
        let key = request_key(caller, id);
        let made = self.ledger.peek(|s| (s.credentials.asked(&key).map(|made| made.id()), s.requests.get(&key).cloned()));
        match made {
            (Some(credential), _) => return self.explain_credential(credential, depth).await,
            (None, Some(known)) if known.task != [0; 16] => {
                return self.explain_task(TaskId::from_bytes(known.task), depth).await;
            }
            (None, Some(known)) if depth == SearchDepth::History => return self.explain_seq(known.seq).await,
            _ if depth == SearchDepth::Memory => return Err(none("such request")),
            _ => {}
        }
        let (caller, id) = (caller.to_owned(), id.to_owned());
        let (found, refused, seen) = {
            let (caller, id) = (caller.clone(), id.clone());
            self.question(move |look| {
                let names = vec![(None, id.clone()), (None, caller.clone())];
                let named = |r: &Record| {
                    r.requester() == Some(caller.as_str()) && r.request.as_ref().is_some_and(|request| request.id == id)
                };
                let found =
                    look.newest(&[HistoryFilter { names, ..HistoryFilter::default() }], 1, |past| named(&past.record))?.pop();
                if found.is_some() {
                    return Ok((found, Vec::new(), UnreadHistory::default()));
                }
                let mine = |past: &HistoryRecord| matches!(&past.record.event, Some(Event::Refused(e)) if e.caller == caller);
                let of = [HistoryFilter::named(Some(NameKind::About), main_objects::refused(&caller))];
                let refused = look.newest(&of, limits::EXPLAIN_RECORDS, mine)?;
                if refused.is_empty() {
                    look.saw_all(&format!("request {id:?} of {caller}"))?;
                }
                Ok((None, refused, UnreadHistory { removed: look.removed(), unseen: look.unseen() }))
            })
            .await?
        };
        if let Some(past) = found {
            return self.explain_past(past).await;
        }
        let mut explained = finding_texts::of_refusals(&caller, &id, refused);
        explained.findings.extend(finding_texts::reach(seen));
        if explained.records.is_empty() { Err(not_found("the request", "such request", seen.removed)) } else { Ok(explained) }
    }

    async fn explain_seq(&self, seq: Seq) -> Result<GrantExplanation, Error> {
        let what = format!("record {seq}");
        let none = none(&what);
        let past = self.question(move |look| match look.at(seq)? {
            Some(past) => Ok(past),
            None => {
                look.saw_all(&what)?;
                Err(look.removed().filter(|removed| seq <= *removed).map_or(none, |removed| not_kept(&what, removed)))
            }
        });
        self.explain_past(past.await?).await
    }

    async fn explain_past(&self, past: HistoryRecord) -> Result<GrantExplanation, Error> {
        match &past.record.event {
            Some(Event::Issued(e)) => {
                let task = TaskId::from_slice(&e.task);
                let known = self.ledger.peek(|s| Some(s.tasks.get(&task?)?.terms.path.clone()));
                let path = match known {
                    Some(path) => path,
                    None => self.question(move |look| path_to(look, task)).await?,
                };
                self.explain_found(FoundIssuance { record: past.record, seq: past.seq, path }, SearchDepth::History).await
            }
            Some(Event::TaskOpened(e)) => match TaskId::from_slice(&e.task) {
                Some(id) => self.explain_task(id, SearchDepth::History).await,
                None => Err(none("such task")),
            },
            _ => Ok(finding_texts::of_record(past)),
        }
    }

    async fn explain_records(&self, about: ExplainScope, what: &str) -> Result<GrantExplanation, Error> {
        let (records, seen) = self.story(about, what.to_owned()).await?;
        if records.is_empty() {
            return Err(not_found(what, what, seen.removed));
        }
        let mut explained = GrantExplanation {
            summary: format!("{} with {what}", counted(records.len(), "record")),
            ..GrantExplanation::default()
        };
        explained.findings = records.iter().map(finding_texts::of_one).collect();
        explained.findings.extend(finding_texts::reach(seen));
        explained.records = records;
        Ok(explained)
    }
}
