//! Documents that operators change version by version: policy sets, registrations, and bindings.
//!
//! Each kind has a record of its own. This file holds what the records have in common, so that the fold and the authority have one way of
//! putting a version in effect.

use super::{BindingUpdated, Event, NarrowedKind, PolicySetUpdated, ProposedChange, UpstreamUpdated};
use mayfly_base::limits;
use mayfly_verify::seq::Seq;

/// The tables of documents. In each table, a name has one version in effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DocumentTable {
    /// The policy sets in effect, by environment.
    Policies,
    /// The shadow policy sets, by environment.
    ShadowPolicies,
    /// Registrations, by upstream.
    Upstreams,
    /// Bindings, by name.
    Bindings,
}

impl DocumentTable {
    /// The tables whose versions may be narrower than the ones before, with their numbers in records.
    pub const NARROWABLE: [(NarrowedKind, DocumentTable); 3] = [
        (NarrowedKind::Policy, DocumentTable::Policies),
        (NarrowedKind::Upstream, DocumentTable::Upstreams),
        (NarrowedKind::Binding, DocumentTable::Bindings),
    ];

    /// The table of a kind of object that was narrowed.
    pub fn narrowed(kind: i32) -> Option<DocumentTable> {
        DocumentTable::NARROWABLE.into_iter().find(|(known, _)| *known as i32 == kind).map(|(_, table)| table)
    }

    /// How many names the table may have, with the name of the limit. The configuration bounds the environments.
    pub fn limit(self) -> Option<(&'static str, usize)> {
        match self {
            DocumentTable::Policies | DocumentTable::ShadowPolicies => None,
            DocumentTable::Upstreams => Some(("upstreams", limits::UPSTREAMS)),
            DocumentTable::Bindings => Some(("bindings", limits::BINDINGS)),
        }
    }
}

/// The fields that all records of documents contain.
#[derive(Clone, Copy, Debug)]
pub struct DocumentFields<'a> {
    /// The table of the document.
    pub table: DocumentTable,
    /// The name of the document; for a policy set, its environment.
    pub name: &'a str,
    /// The version: 1 for the first, then one more for each.
    pub version: u64,
    /// SHA-256 of the text.
    pub digest: &'a [u8],
    /// The canonical form.
    pub text: &'a str,
    /// Grants may be made with the version.
    pub active: bool,
    /// The name is retired for good.
    pub retired: bool,
    /// See [`PolicySetUpdated::looked`].
    pub looked: u64,
}

/// A record that puts a version of a document in effect.
pub trait VersionedDocument: Clone + Send + Sync {
    /// The fields that all documents have.
    fn fields(&self) -> DocumentFields<'_>;

    /// The same version, with the sequence number up to which credentials were searched for what the version refuses.
    #[must_use]
    fn looked_at(self, seq: Seq) -> Self;

    /// The event that puts the version in effect.
    fn into_event(self) -> Event;

    /// The change that another operator is asked to approve.
    fn into_change(self) -> ProposedChange;
}

impl VersionedDocument for PolicySetUpdated {
    fn fields(&self) -> DocumentFields<'_> {
        let PolicySetUpdated { environment, version, digest, text, audit_only, looked } = self;
        DocumentFields {
            table: if *audit_only { DocumentTable::ShadowPolicies } else { DocumentTable::Policies },
            name: environment,
            version: *version,
            digest,
            text,
            // An empty text removes the shadow policy set.
            active: !text.is_empty() || !audit_only,
            retired: false,
            looked: *looked,
        }
    }

    fn looked_at(self, seq: Seq) -> PolicySetUpdated {
        PolicySetUpdated { looked: seq.as_u64(), ..self }
    }

    fn into_event(self) -> Event {
        Event::PolicySet(self)
    }

    fn into_change(self) -> ProposedChange {
        ProposedChange::Policy(self)
    }
}

impl VersionedDocument for UpstreamUpdated {
    fn fields(&self) -> DocumentFields<'_> {
        let UpstreamUpdated { name, version, digest, text, disabled, retired, looked } = self;
        DocumentFields {
            table: DocumentTable::Upstreams,
            name,
            version: *version,
            digest,
            text,
            active: !disabled && !retired,
            retired: *retired,
            looked: *looked,
        }
    }

    fn looked_at(self, seq: Seq) -> UpstreamUpdated {
        UpstreamUpdated { looked: seq.as_u64(), ..self }
    }

    fn into_event(self) -> Event {
        Event::UpstreamSet(self)
    }

    fn into_change(self) -> ProposedChange {
        ProposedChange::Upstream(self)
    }
}

impl VersionedDocument for BindingUpdated {
    fn fields(&self) -> DocumentFields<'_> {
        let BindingUpdated { name, version, digest, text, pending, looked } = self;
        DocumentFields {
            table: DocumentTable::Bindings,
            name,
            version: *version,
            digest,
            text,
            active: !pending,
            retired: false,
            looked: *looked,
        }
    }

    fn looked_at(self, seq: Seq) -> BindingUpdated {
        BindingUpdated { looked: seq.as_u64(), ..self }
    }

    fn into_event(self) -> Event {
        Event::BindingSet(self)
    }

    fn into_change(self) -> ProposedChange {
        ProposedChange::Binding(self)
    }
}

impl Event {
    /// The document that the event puts in effect.
    pub fn document(&self) -> Option<DocumentFields<'_>> {
        match self {
            Event::PolicySet(set) => Some(set.fields()),
            Event::UpstreamSet(set) => Some(set.fields()),
            Event::BindingSet(set) => Some(set.fields()),
            _ => None,
        }
    }

    /// The document that the event puts in effect or requests. Where a change was approved, only its request holds the document.
    pub fn document_in_history(&self) -> Option<DocumentFields<'_>> {
        match self {
            Event::ApprovalAsked(asked) => asked.change.as_ref()?.to.as_ref()?.document(),
            event => event.document(),
        }
    }
}

impl ProposedChange {
    /// The document that the change puts in effect; `None` for a bundle.
    pub fn document(&self) -> Option<DocumentFields<'_>> {
        match self {
            ProposedChange::Policy(set) => Some(set.fields()),
            ProposedChange::Upstream(set) => Some(set.fields()),
            ProposedChange::Binding(set) => Some(set.fields()),
            ProposedChange::Bundle(_) => None,
        }
    }
}
