//! Why something was or was not granted, and what became of it: from the ledger alone.
//!
//! The record of a grant says what it was decided with; the rules in force and later records say what ended it. Whoever is no operator
//! is told of what memory still has, so that nobody else can make the server read history.

pub mod body;
mod related;
mod words;

use std::ops::ControlFlow;

use crate::authority::Authority;
use crate::ledger::history::{Past, Reached};
use crate::ledger::record::{Event, Record, Refused};
use crate::ledger::search::Filter;
use crate::ledger::state::{Ground, request_key};
use crate::limits;
use crate::lookup::Found;
use crate::refusal::{No, Reason, Refusal};
use crate::seq::{ApprovalId, CredentialId, LeaseId, Seq, TaskId};
use related::About;

/// What is to be explained.
#[derive(Clone, Debug)]
pub enum Of {
    /// A credential.
    Credential(CredentialId),
    /// A task.
    Task(TaskId),
    /// A record.
    Seq(Seq),
    /// A request of a caller.
    Request {
        /// Who sent it.
        caller: String,
        /// Its id.
        id: String,
    },
    /// An approval.
    Approval(ApprovalId),
    /// A lease.
    Lease(LeaseId),
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub subject: &'static str,
    /// What came of it.
    pub text: String,
    /// It speaks for the grant.
    pub permits: bool,
    /// The record that it follows from.
    pub seq: Seq,
}

/// An explanation.
#[derive(Clone, Debug, Default)]
pub struct Explained {
    /// In one sentence.
    pub summary: String,
    /// In the order in which things were looked at.
    pub findings: Vec<Finding>,
    /// Oldest first.
    pub records: Vec<Past>,
    /// The environment that it belongs to, where it has one.
    pub environment: Option<String>,
    /// Workloads that may know of it.
    pub holders: Vec<String>,
}

fn none(what: &str) -> No {
    No::Refusal(Refusal::new(Reason::NotFound, format!("there is no {what} that you may see")))
}

/// Nothing was found as far as history reaches: where that is not its beginning, nothing is claimed.
fn not_found(what: &str, kind: &str, reached: Reached) -> No {
    let Some((_, why)) = reached.short() else { return none(kind) };
    let no = Refusal::new(Reason::Compacted, format!("{what} was not found: {why}"));
    No::Refusal(no.way_out("an exported audit log may have it: mayfly audit search"))
}

/// Who asks: an operator may have history read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// What memory has.
    Memory,
    /// History too.
    History,
}

impl Authority {
    /// Explains. Whether whoever asks may know is the caller's to ask, by environment and holders.
    pub async fn explain(&self, of: &Of, depth: Depth) -> Result<Explained, No> {
        match of {
            Of::Credential(id) => self.explain_credential(*id, depth).await,
            Of::Task(id) => self.explain_task(*id, depth).await,
            Of::Request { caller, id } => self.explain_request(caller, id, depth).await,
            Of::Seq(_) | Of::Approval(_) | Of::Lease(_) if depth == Depth::Memory => Err(none("such record")),
            Of::Seq(seq) => self.explain_seq(*seq).await,
            Of::Approval(id) => {
                self.explain_records(About { approval: id.as_bytes().to_vec(), ..About::default() }, &id.to_string()).await
            }
            Of::Lease(id) => {
                self.explain_records(About { lease: id.as_bytes().to_vec(), ..About::default() }, &id.to_string()).await
            }
        }
    }

    async fn explain_credential(&self, id: CredentialId, depth: Depth) -> Result<Explained, No> {
        let (known, login) = self
            .ledger
            .peek(|s| (s.credentials.get(&id).is_some(), s.logins.get(&id).map(|l| (l.seq, l.environment.to_string()))));
        if let (Some((seq, environment)), Depth::History) = (login, depth) {
            return Ok(Explained { environment: Some(environment), ..self.explain_seq(seq).await? });
        }
        if depth == Depth::Memory && !known {
            return Err(none("such credential"));
        }
        let found = self.issuance(id).await?.ok_or_else(|| none("such credential"))?;
        self.explain_found(found, depth).await
    }

    async fn explain_found(&self, found: Found, depth: Depth) -> Result<Explained, No> {
        let issued = found.issued()?.clone();
        let revision = found.record.revision();
        let about = About {
            path: found.path.clone(),
            lease: issued.lease.clone(),
            approval: issued.approval.clone(),
            credential: Some((issued.clone(), revision)),
            from: found.seq,
            grounds: self.ledger.peek(|s| {
                let facts = s.facts_of_record(&issued, revision, &found.path);
                facts.rests_on.iter().map(|ground| (Ground::of(ground), revision)).collect()
            }),
            ..About::default()
        };
        let (records, reached) = match depth {
            Depth::Memory => (Vec::new(), Reached::Enough),
            Depth::History => self.story(about).await?,
        };
        let now = self.system.wall();
        let (mut findings, summary) = self.ledger.settled(|s| words::of_credential(s, &issued, &found, &records, now)).await?;
        findings.extend(words::reach(reached));
        Ok(Explained {
            summary,
            findings,
            records,
            environment: Some(issued.environment.clone()),
            holders: vec![issued.caller.clone()],
        })
    }

    async fn explain_task(&self, id: TaskId, depth: Depth) -> Result<Explained, No> {
        let known = self.ledger.settled(|s| {
            let task = s.tasks.get(&id)?;
            // Also those that nobody used yet, or never will.
            let of = |a: &&crate::ledger::state::Approval| a.asked.terms.is_some() && a.asked.task == id.as_bytes();
            let asked = s.approvals.values().filter(of).map(|a| a.asked.approval.clone());
            let opened_with = task.approved.iter().map(|a| a.id.as_bytes().to_vec());
            Some(((task.terms.path.clone(), task.terms.seq), asked.chain(opened_with).collect::<Vec<_>>()))
        });
        let (path, used) = known.await?.unzip();
        let (path, from) = match (path, depth) {
            (Some(known), _) => known,
            (None, Depth::Memory) => return Err(none("such task")),
            // The look back ends where it was opened.
            (None, Depth::History) => (vec![id], Seq::LAST),
        };
        let used = used.unwrap_or_default();
        let grounds = self.ledger.peek(|s| {
            let openings = s.tasks.get(&id).map_or_else(Vec::new, |task| s.openings(task));
            let each =
                openings.iter().flat_map(|o| std::iter::once(o).chain(&o.rests_on).map(move |of| (Ground::of(of), o.revision)));
            each.collect()
        });
        let about = About { path, from, used, refusals_of: id.to_string(), grounds, ..About::default() };
        let (records, reached) = match depth {
            Depth::Memory => (Vec::new(), Reached::Enough),
            Depth::History => self.story(about).await?,
        };
        let now = self.system.wall();
        let told = self.ledger.settled(|s| words::of_task(s, id, &records, now)).await?;
        let mut explained = told.ok_or_else(|| not_found(&id.to_string(), "such task", reached))?;
        explained.findings.extend(words::reach(reached));
        explained.records = records;
        Ok(explained)
    }

    async fn explain_request(&self, caller: &str, id: &str, depth: Depth) -> Result<Explained, No> {
        let key = request_key(caller, id);
        let made = self.ledger.peek(|s| (s.credentials.asked(&key).map(|made| made.id()), s.requests.get(&key).cloned()));
        match made {
            (Some(credential), _) => return self.explain_credential(credential, depth).await,
            (None, Some(known)) if known.task != [0; 16] => {
                return self.explain_task(TaskId::from_bytes(known.task), depth).await;
            }
            (None, Some(known)) if depth == Depth::History => return self.explain_seq(known.seq).await,
            _ if depth == Depth::Memory => return Err(none("such request")),
            _ => {}
        }
        let (caller, id) = (caller.to_owned(), id.to_owned());
        let search = Search { caller: caller.clone(), id: id.clone(), found: None, refused: Vec::new() };
        let (search, reached) = self.look_back(search, Search::look).await?;
        if let Some(past) = search.found {
            return self.explain_past(past).await;
        }
        let mut explained = words::of_refusals(&caller, &id, search.refused);
        explained.findings.extend(words::reach(reached));
        if explained.records.is_empty() { Err(not_found("the request", "such request", reached)) } else { Ok(explained) }
    }

    async fn explain_seq(&self, seq: Seq) -> Result<Explained, No> {
        let mut found = self.search_far(&Filter { seq: Some(seq), ..Filter::default() }, 1).await?;
        let what = format!("record {seq}");
        let reached = found.how_far();
        match (found.records.pop(), reached.short()) {
            (Some(one), _) => self.explain_past(one.past).await,
            (None, Some((at, _))) if seq <= at => Err(not_found(&what, &what, reached)),
            (None, _) => Err(none(&what)),
        }
    }

    async fn explain_past(&self, past: Past) -> Result<Explained, No> {
        match &past.record.event {
            Some(Event::Issued(e)) => {
                let path = self.ledger.peek(|s| {
                    let task = TaskId::from_slice(&e.task).and_then(|id| s.tasks.get(&id));
                    task.map(|t| t.terms.path.clone())
                });
                let path = path.unwrap_or_else(|| TaskId::from_slice(&e.task).into_iter().collect());
                self.explain_found(Found { record: past.record, seq: past.seq, path }, Depth::History).await
            }
            Some(Event::TaskOpened(e)) => match TaskId::from_slice(&e.task) {
                Some(id) => self.explain_task(id, Depth::History).await,
                None => Err(none("such task")),
            },
            _ => Ok(words::of_record(past)),
        }
    }

    async fn explain_records(&self, about: About, what: &str) -> Result<Explained, No> {
        let (records, reached) = self.story(about).await?;
        if records.is_empty() {
            return Err(not_found(what, what, reached));
        }
        let mut explained = Explained { summary: format!("{} records name {what}", records.len()), ..Explained::default() };
        explained.findings = records.iter().map(words::of_one).collect();
        explained.findings.extend(words::reach(reached));
        explained.records = records;
        Ok(explained)
    }
}

/// A search for a request that memory no longer has, and for the newest refusals of its caller.
struct Search {
    caller: String,
    id: String,
    found: Option<Past>,
    refused: Vec<Past>,
}

impl Search {
    fn look(&mut self, past: Past) -> ControlFlow<()> {
        let named = |r: &Record| {
            r.requester() == Some(self.caller.as_str()) && r.request.as_ref().is_some_and(|request| request.id == self.id)
        };
        if named(&past.record) {
            self.found = Some(past);
            return ControlFlow::Break(());
        }
        let mine = |e: &Refused| e.caller == self.caller;
        if matches!(&past.record.event, Some(Event::Refused(e)) if mine(e)) && self.refused.len() < limits::EXPLAIN_RECORDS {
            self.refused.push(past);
        }
        ControlFlow::Continue(())
    }
}
