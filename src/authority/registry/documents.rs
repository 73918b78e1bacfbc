//! Changes of versioned documents: policy sets, registrations, and bindings.
//!
//! An operator proposes the next version of a document. A version that grants more waits for another operator
//! ([`crate::registry::changes`]); any other version takes effect at once and revokes what it refuses
//! ([`crate::revocation::revoke_excess`]). What differs between the kinds of documents is in the implementations of [`ManagedDocument`].

use std::sync::Arc;

use crate::authority::Authority;
use crate::registry::changes::{ApprovalRequest, ChangePermission};
use crate::revocation::revoke::RevocationHits;
use crate::revocation::revoke_excess::{CausedRevocation, ChangeEffect, ChangeOptions, ExcessSearch, NarrowingChange};
use mayfly_base::refusal::{Error, Fault};
use mayfly_identity::caller::Operator;
use mayfly_ledger::record::{Author, DocumentFields, DocumentTable, ProposedChangeRecord, VersionedDocument};
use mayfly_ledger::revocation::Target;
use mayfly_ledger::state::DocumentVersion;
use mayfly_verify::seq::Seq;

/// A kind of document that operators change.
pub(crate) trait ManagedDocument: VersionedDocument {
    /// The reason of the revocations of a narrower version.
    const NARROWED: &'static str;

    /// The target that covers everything that a version can take back.
    fn coarse(name: &str, version: u64) -> Target;

    /// The revocation that the version causes when it takes effect.
    async fn takes(&self, authority: &Authority) -> Result<CausedRevocation, Error>;

    /// The search for the credentials that a version in effect refuses. The version before is no longer known.
    async fn search(authority: &Authority, name: &str, version: &DocumentVersion) -> Result<ExcessSearch, Error>;
}

/// The result of a change of a document, or of a dry run.
#[derive(Clone, Debug)]
pub struct DocumentChangeResult {
    /// The version in effect; for a dry run, the version that would be.
    pub version: Arc<DocumentVersion>,
    /// The counts of the objects that the change revoked, or for a dry run would revoke.
    pub hits: RevocationHits,
    /// How many of the revoked credentials the new version would not have refused.
    pub beyond: u64,
    /// The parts of the change that need a second operator.
    pub why: Vec<String>,
}

impl DocumentChangeResult {
    /// The result where the version in effect is the requested one.
    pub(crate) fn unchanged(version: Arc<DocumentVersion>) -> DocumentChangeResult {
        DocumentChangeResult { version, hits: RevocationHits::default(), beyond: 0, why: Vec::new() }
    }
}

impl Authority {
    /// The durable version of a document that is in effect.
    pub(crate) async fn document(&self, table: DocumentTable, name: &str) -> Result<Option<Arc<DocumentVersion>>, Error> {
        self.ledger.settled(|s| s.documents(table).get(name).cloned()).await
    }

    /// The result of an earlier request with the same id, if there is one.
    pub(crate) async fn document_changed_before(
        &self,
        (table, name): (DocumentTable, &str),
        who: &Author,
        terms: &ChangeOptions,
    ) -> Result<Option<DocumentChangeResult>, Error> {
        let Some(before) = self.remembered(&who.name(), &terms.named).await? else { return Ok(None) };
        let hits = self.hit_before(&before, &terms.named).await?;
        let version = self.document(table, name).await?;
        Ok(version.map(|version| DocumentChangeResult { hits, ..DocumentChangeResult::unchanged(version) }))
    }

    /// The permission for a change, given whether parts of it need a second operator in any case.
    pub(crate) fn permission(
        &self,
        operator: &Operator,
        may: ChangePermission,
        needs_another: bool,
    ) -> Result<ChangePermission, Error> {
        match may {
            ChangePermission::Yes(who) if !needs_another => Ok(ChangePermission::Yes(who)),
            ChangePermission::Yes(who) | ChangePermission::With(who) => self.with_another(operator, who),
        }
    }

    /// Puts the next version of a document in effect, or asks another operator for it. A dry run only reports. One change at a time:
    /// [`Authority::changing`] is held.
    pub(crate) async fn change_document<D: ManagedDocument>(
        &self,
        next: D,
        permission: ChangePermission,
        asking: ApprovalRequest<'_>,
        terms: &ChangeOptions,
        reason: &str,
    ) -> Result<DocumentChangeResult, Error> {
        let who = permission.who();
        let DocumentFields { table, name, version, .. } = next.fields();
        let event = |looked: Seq| next.clone().looked_at(looked).into_event();
        let (takes, coarse) = (next.takes(self).await?, D::coarse(name, version));
        let change = NarrowingChange { who, event: &event, version, takes, coarse, reason };
        if let (ChangePermission::With(_), false) = (&permission, terms.dry_run) {
            // The operator confirms what the change will revoke when requesting it, as for a change that needs no approval.
            let asked = ProposedChangeRecord { to: Some(next.clone().into_change()) };
            return Err(self.ask_another(change, asked, asking, terms).await);
        }
        let ChangeEffect { hits, beyond } = self.put_in_force(change, terms).await?;
        let version = match terms.dry_run {
            // A dry run shows the version as if it took effect now.
            true => {
                let at = (Seq::ZERO, self.system.wall());
                Arc::new(DocumentVersion::of(&next.fields(), at, Some(Box::new(who.clone()))))
            }
            false => {
                let now = self.document(table, name).await?;
                now.ok_or_else(|| Fault::new(format!("{name} has no version in effect after a change")))?
            }
        };
        let mut why = asking.why;
        if let (ChangePermission::With(_), true) = (&permission, why.is_empty()) {
            why.push("what policy permits with an approval only".to_owned());
        }
        Ok(DocumentChangeResult { version, hits, beyond, why })
    }

    /// The version, the revocation and the coarse target of a version that was requested.
    pub(crate) async fn requested<D: ManagedDocument>(&self, next: &D) -> Result<(u64, CausedRevocation, Target), Error> {
        let DocumentFields { name, version, .. } = next.fields();
        Ok((version, next.takes(self).await?, D::coarse(name, version)))
    }

    /// Completes the narrowing of a document that a stop interrupted.
    pub(crate) async fn finish_document<D: ManagedDocument>(&self, table: DocumentTable, name: &str) -> Result<(), Error> {
        let _one = self.changing.lock().await;
        let Some(now) = self.document(table, name).await? else { return Ok(()) };
        let Some(since) = now.narrows else { return Ok(()) };
        let search = ExcessSearch { since, ..D::search(self, name, &now).await? };
        let who = Author::Mayfly("narrowing goes on".to_owned());
        self.finish_narrowing(search, now.version, &who, D::coarse(name, now.version), D::NARROWED).await?;
        Ok(())
    }
}
