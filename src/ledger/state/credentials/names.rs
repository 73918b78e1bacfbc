//! The names of credentials, each in memory once however many share it.

use serde::{Deserialize, Serialize};

use super::super::intern::Interner;
use super::Live;
use crate::ledger::record::{Ancestor, Identity, SvidEvidence, TokenEvidence};

/// What only derived credentials have.
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Lineage {
    /// Credentials that it rests on.
    pub ancestors: Vec<Ancestor>,
    /// On whose behalf.
    pub subject: Option<Identity>,
    /// Through whom.
    pub actors: Vec<Identity>,
    /// The token that says so.
    pub subject_token: Option<TokenEvidence>,
}

impl From<&Lineage> for Lineage {
    fn from(l: &Lineage) -> Lineage {
        l.clone()
    }
}

/// The SVID under a credential, to be shared by all that it was shown for.
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Evidence(pub Option<SvidEvidence>);

impl From<&Evidence> for Evidence {
    fn from(e: &Evidence) -> Evidence {
        e.clone()
    }
}

/// A set of scopes, sorted.
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct ScopeSet(pub Vec<Box<str>>);

impl From<&ScopeSet> for ScopeSet {
    fn from(s: &ScopeSet) -> ScopeSet {
        s.clone()
    }
}

type Names = Interner<Box<str>>;

#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct NameTables {
    pub callers: Names,
    pub upstreams: Names,
    pub scopes: Interner<ScopeSet>,
    pub tools: Names,
    pub environments: Names,
    pub bindings: Names,
    pub keys: Names,
    pub evidence: Interner<Evidence>,
    pub lineage: Interner<Lineage>,
}

impl NameTables {
    /// A credential no longer needs its names.
    pub fn release(&mut self, live: &Live) {
        self.callers.release(live.caller);
        self.upstreams.release(live.upstream);
        self.scopes.release(live.scopes);
        self.tools.release(live.tool);
        self.environments.release(live.environment);
        self.bindings.release(live.binding);
        self.keys.release(live.key);
        self.evidence.release(live.evidence);
        self.lineage.release(live.lineage);
    }
}
