//! The names in a record: ids, callers, upstreams, tools, digests, each in its readable form. Searches find records by these names, and the
//! history index stores them.

mod large_records;
pub mod main_objects;

use super::*;
use mayfly_verify::seq::{ApprovalId, CredentialId, LeaseId, StoreId, TaskId};

/// The sort of a name. A filter on one sort does not match the same text of another sort.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NameKind {
    /// The event.
    Event,
    /// A task.
    Task,
    /// A workload, by its SPIFFE ID.
    Workload,
    /// An upstream.
    Upstream,
    /// A tool.
    Tool,
    /// An environment.
    Environment,
    /// The main object of the record, a subset of the names in it ([`main_objects`]).
    About,
    /// All others: credentials, approvals, leases, people, keys, bindings, policies, scopes, trust domains, digests, request ids, traces.
    Other,
}

/// Calls `see` with every name in a record; empty names are left out. A name may come more than once.
pub fn names(record: &Record, see: &mut dyn FnMut(NameKind, &str)) {
    let mut n = Namer { see };
    match record.author.as_ref().and_then(|a| a.who.as_ref()) {
        Some(Author::SpiffeId(id)) => n.who(id),
        Some(Author::Person(person)) => n.identity(person),
        Some(who) => n.other(&who.name()),
        None => {}
    }
    if let Some(request) = &record.request {
        n.who(&request.caller);
        n.other(&request.id);
    }
    n.hex(&record.trace);
    if let Some(event) = &record.event {
        n.name(NameKind::Event, event_name(event));
        n.event(event);
        main_objects::of(event, &mut |text| n.name(NameKind::About, text));
    }
}

/// The names that an issuance has in addition to its template's.
#[derive(Clone, Copy, Debug)]
pub struct IssuanceNames<'a> {
    /// The credential's id.
    pub credential: &'a [u8],
    /// The request id; empty for none.
    pub request_id: &'a str,
    /// The trace id; empty for none.
    pub trace: &'a [u8],
    /// The tool; empty for none.
    pub tool: &'a str,
    /// SHA-256 of the arguments; empty for none.
    pub arguments: &'a [u8],
    /// SHA-256 of the credential as handed out.
    pub token_digest: &'a [u8],
}

/// A name in its readable form, or a SHA-256 that is still to be written in lower-case hex: a name of [`NameKind::Other`].
#[derive(Clone, Copy, Debug)]
pub enum RecordName<'a> {
    /// The readable form.
    Text(NameKind, &'a str),
    /// A digest, not yet written in hex.
    Digest(&'a [u8; 32]),
}

/// Calls `see` with the names that are one issuance's own.
pub fn issuance_names(own: &IssuanceNames<'_>, see: &mut dyn FnMut(RecordName<'_>)) {
    for digest in [own.arguments, own.token_digest] {
        match digest.try_into() {
            Ok(digest) => see(RecordName::Digest(digest)),
            Err(_) => Namer { see: &mut |sort, name| see(RecordName::Text(sort, name)) }.hex(digest),
        }
    }
    let mut n = Namer { see: &mut |sort, name| see(RecordName::Text(sort, name)) };
    n.other(own.request_id);
    n.hex(own.trace);
    n.credential(own.credential);
    n.tool(own.tool);
}

struct Namer<'a> {
    see: &'a mut dyn FnMut(NameKind, &str),
}

macro_rules! ids {
    ($($name:ident: $id:ident as $sort:ident),*) => {$(
        fn $name(&mut self, bytes: &[u8]) {
            if let Some(id) = $id::from_slice(bytes) {
                self.name(NameKind::$sort, id.write(&mut [0; $id::TEXT]));
            }
        }
    )*};
}

impl Namer<'_> {
    ids!(task: TaskId as Task, credential: CredentialId as Other, approval: ApprovalId as Other, lease: LeaseId as Other, store: StoreId as Other);

    fn name(&mut self, sort: NameKind, text: &str) {
        if !text.is_empty() {
            (self.see)(sort, text);
        }
    }

    fn other(&mut self, text: &str) {
        self.name(NameKind::Other, text);
    }

    fn others(&mut self, texts: &[String]) {
        texts.iter().for_each(|text| self.other(text));
    }

    /// A workload by its SPIFFE ID; any other author by its name.
    fn who(&mut self, text: &str) {
        let sort = if text.starts_with("spiffe://") { NameKind::Workload } else { NameKind::Other };
        self.name(sort, text);
    }

    /// A workload by its SPIFFE ID; a person as `issuer#sub` and by the subject alone.
    fn identity(&mut self, identity: &Principal) {
        self.who(&identity.name());
        self.who(&identity.sub);
    }

    fn identities(&mut self, all: &[Principal]) {
        all.iter().for_each(|one| self.identity(one));
    }

    fn hex(&mut self, bytes: &[u8]) {
        let mut digits = [0; 64];
        match digits.get_mut(..bytes.len() * 2) {
            Some(digits) => self.other(data_encoding::HEXLOWER.encode_mut_str(bytes, digits)),
            None => self.other(&data_encoding::HEXLOWER.encode(bytes)),
        }
    }

    fn upstream(&mut self, text: &str) {
        self.name(NameKind::Upstream, text);
    }

    fn tool(&mut self, text: &str) {
        self.name(NameKind::Tool, text);
    }

    fn environment(&mut self, text: &str) {
        self.name(NameKind::Environment, text);
    }

    fn svid(&mut self, evidence: Option<&SvidEvidence>) {
        if let Some(e) = evidence {
            self.hex(&e.anchor);
            self.hex(&e.serial);
        }
    }

    fn targets(&mut self, targets: &[TargetRecord]) {
        for aim in targets.iter().filter_map(|t| t.aim.as_ref()) {
            match aim {
                RecordedTarget::Credential(id) => self.credential(id),
                RecordedTarget::Task(id) => self.task(id),
                RecordedTarget::Caller(id) | RecordedTarget::Prefix(id) => self.who(id),
                RecordedTarget::TrustDomain(name) | RecordedTarget::Binding(name) | RecordedTarget::SigningKey(name) => {
                    self.other(name)
                }
                RecordedTarget::TrustAnchor(hash) => self.hex(hash),
                RecordedTarget::Subject(who) => self.identity(who),
                RecordedTarget::SubjectToken(token) => self.other(&token.sub),
                RecordedTarget::Upstream(name) => self.upstream(name),
                RecordedTarget::UpstreamScope(of) => {
                    self.upstream(&of.issuer);
                    self.other(&of.sub);
                }
                RecordedTarget::Tool(name) => self.tool(name),
                RecordedTarget::Environment(name) => self.environment(name),
                RecordedTarget::PolicyBelow(of) => self.environment(&of.environment),
                RecordedTarget::Svid(of) => {
                    self.other(&of.trust_domain);
                    self.hex(&of.serial);
                }
                RecordedTarget::Everything(_) => {}
            }
        }
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::GenerationBegun(e) => self.store(&e.store),
            Event::TaskOpened(e) => self.opened(e),
            Event::TaskClosed(e) => self.task(&e.task),
            Event::TaskHeld(e) => self.task(&e.task),
            Event::TaskResumed(e) => self.task(&e.task),
            Event::TaskExtended(e) => {
                self.task(&e.task);
                self.approval(&e.approval);
                self.who(&e.caller);
            }
            Event::TaskHeartbeats(e) => e.tasks.iter().for_each(|t| self.task(t)),
            Event::Issued(e) => self.issued(e),
            Event::Released(e) => self.credential(&e.credential),
            Event::Authorized(e) => {
                self.credential(&e.credential);
                self.tool(&e.tool);
                self.hex(&e.arguments);
                e.decided.iter().for_each(|decided| self.issued(decided));
            }
            Event::UsesReported(e) => {
                self.credential(&e.credential);
                self.tool(&e.tool);
                self.task(&e.task);
                self.upstream(&e.upstream);
            }
            Event::Refused(e) => {
                self.who(&e.caller);
                self.other(&e.reason);
                self.other(&e.rule);
                self.upstream(&e.asked);
                self.name(NameKind::Task, &e.task);
                if let Some(wanted) = &e.wanted {
                    self.environment(&wanted.environment);
                    self.upstream(&wanted.upstream);
                    self.tool(&wanted.tool);
                    self.task(&wanted.task);
                    self.hex(&wanted.arguments);
                    self.other(&wanted.binding);
                    wanted.subject.iter().for_each(|one| self.identity(one));
                    self.identities(&wanted.actors);
                    wanted.subject_claims.iter().for_each(|claims| self.subject_claims(claims));
                }
            }
            Event::Revoked(e) => self.targets(&e.targets),
            Event::LockLifted(e) => self.targets(&e.targets),
            Event::ApprovalAsked(e) => self.asked(e),
            Event::ApprovalDecided(e) => {
                self.approval(&e.approval);
                self.credential(&e.login);
            }
            Event::UsedOnce(e) => self.hex(&e.digest),
            Event::LeaseOpened(e) => {
                self.lease(&e.lease);
                self.credential(&e.credential);
                self.task(&e.task);
                self.upstream(&e.upstream);
            }
            Event::LeaseClosed(e) => self.lease(&e.lease),
            Event::SecretStored(e) => {
                self.upstream(&e.upstream);
                self.environment(&e.environment);
            }
            Event::SecretChanged(e) => {
                self.upstream(&e.upstream);
                self.environment(&e.environment);
            }
            Event::BreakGlass(e) => self.break_glass(e),
            Event::LoggedIn(e) => self.logged_in(e),
            Event::LoggedOut(e) => self.credential(&e.credential),
            Event::FellDue(e) => self.due(e),
            Event::BackedUp(e) => self.other(&e.to),
            // The question of an audit read is not indexed: otherwise a search for an object would also find earlier searches for that
            // object.
            Event::SnapshotTaken(_) | Event::Maintained(_) | Event::HistoryRemoved(_) | Event::AuditRead(_) => {}
            other => self.registry(other),
        }
    }

    fn document(&mut self, table: Option<DocumentTable>, name: &str) {
        match table {
            Some(DocumentTable::Policies | DocumentTable::ShadowPolicies) => self.environment(name),
            Some(DocumentTable::Upstreams) => self.upstream(name),
            Some(DocumentTable::Bindings) | None => self.other(name),
        }
    }

    fn registry(&mut self, event: &Event) {
        if let Some(document) = event.document() {
            self.document(Some(document.table), document.name);
            self.hex(document.digest);
            return;
        }
        match event {
            Event::OwnerLeft(e) => self.who(&e.owner),
            Event::Narrowed(e) => self.document(DocumentTable::narrowed(e.what), &e.name),
            Event::PolicyDiffered(e) => {
                self.environment(&e.environment);
                self.who(&e.caller);
                self.upstream(&e.upstream);
                self.others(&e.policies);
            }
            Event::BundleSet(e) => {
                self.other(&e.trust_domain);
                self.hex(&e.digest);
                e.anchors.iter().for_each(|anchor| self.hex(anchor));
            }
            Event::KeyAdded(e) => {
                self.other(&e.key);
                self.environment(e.purpose().environment_of(&e.environment));
            }
            Event::KeyChanged(e) => self.other(&e.key),
            _ => {}
        }
    }

    fn logged_in(&mut self, e: &LoggedIn) {
        self.credential(&e.credential);
        e.person.iter().for_each(|one| self.identity(one));
        self.who(&e.caller);
        self.other(&e.key);
        self.svid(e.svid.as_ref());
        self.hex(&e.certificate);
        e.token.iter().for_each(|token| self.other(&token.id));
        self.environment(&e.environment);
        self.others(&e.policies);
        self.other(&e.provider);
        if let Some(job) = &e.job {
            self.other(&job.rule);
            self.other(&job.id);
            self.others(&job.claims);
        }
    }

    fn asked(&mut self, e: &ApprovalRequested) {
        self.approval(&e.approval);
        self.hex(&e.digest);
        self.who(&e.caller);
        self.task(&e.task);
        self.upstream(&e.upstream);
        self.environment(&e.environment);
        self.others(&e.scopes);
        self.tool(&e.tool);
        self.hex(&e.arguments);
        self.other(&e.binding);
        self.identities(&e.approvers);
        self.others(&e.policies);
        e.subject.iter().for_each(|one| self.identity(one));
        self.identities(&e.actors);
        if let Some(event) = e.change.as_ref().and_then(ProposedChangeRecord::event) {
            self.registry(&event);
        }
        e.terms.iter().for_each(|terms| self.task_asked(terms));
    }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
