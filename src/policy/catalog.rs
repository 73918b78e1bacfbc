//! Policy sets, registrations and bindings, compiled once per version. The ledger's state holds the texts; the catalog holds the compiled
//! forms.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::set::PolicySet;
use mayfly_base::limits;
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_ledger::record::{Event, Record};
use mayfly_ledger::state::{DocumentVersion, State};
use mayfly_ledger::upstream::binding::Binding;
use mayfly_ledger::upstream::registry::Upstream;

/// The compiled policy set in force in an environment, with its version.
#[derive(Clone)]
pub struct EnvironmentPolicy {
    /// Version of the policy set.
    pub version: u64,
    /// The policy set.
    pub set: Arc<PolicySet>,
    /// `iss` of the environment. Each environment has its own issuer path.
    pub issuer: Arc<str>,
    /// The shadow policy set of the environment, if one is active.
    pub beside: Option<ShadowPolicy>,
}

/// A shadow policy set: evaluated, but never decisive.
#[derive(Clone)]
pub struct ShadowPolicy {
    /// Version of the shadow set, counted separately from the versions of enforcing sets.
    pub version: u64,
    /// The policy set.
    pub set: Arc<PolicySet>,
}

/// A compiled upstream registration with its version.
#[derive(Clone)]
pub struct RegisteredUpstream {
    /// Version of the registration.
    pub version: u64,
    /// `false` if the registration is disabled or retired.
    pub active: bool,
    /// The registration's owner has left.
    pub owner_left: bool,
    /// The registration.
    pub upstream: Arc<Upstream>,
    /// `aud`: the upstream's audience, shared with every grant.
    pub audience: Arc<str>,
    /// The upstream's base URL, shared with every grant.
    pub base_url: Arc<str>,
}

/// A compiled binding with its version.
#[derive(Clone, Debug)]
pub struct BindingInForce {
    /// Version of the binding.
    pub version: u64,
    /// The binding.
    pub binding: Arc<Binding>,
}

/// The bindings of an upstream in force.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    all: Vec<BindingInForce>,
    /// Indexes into `all` of the bindings for a tool, by tool name. The empty name holds the bindings that name no tool.
    by_tool: HashMap<Box<str>, Vec<usize>>,
    /// Indexes into `all` of the bindings for any tool.
    any: Vec<usize>,
}

impl Bindings {
    fn add(&mut self, bound: BindingInForce) {
        let place = self.all.len();
        let binding = &bound.binding;
        match (binding.any_tool, binding.tools.is_empty()) {
            (true, _) => self.any.push(place),
            (false, true) => self.by_tool.entry("".into()).or_default().push(place),
            (false, false) => {
                for tool in &binding.tools {
                    self.by_tool.entry(tool.as_str().into()).or_default().push(place);
                }
            }
        }
        self.all.push(bound);
    }

    /// A binding by name.
    pub fn named(&self, name: &str) -> Option<&BindingInForce> {
        self.all.iter().find(|b| b.binding.name == name)
    }

    /// The binding that covers a request of a workload. Of several, the one with the first name in byte order.
    pub fn covering(&self, caller: &SpiffeId, tool: &str, scopes: &[String]) -> Option<&BindingInForce> {
        let places = self.by_tool.get(tool).into_iter().flatten().chain(&self.any);
        let covers = |b: &&BindingInForce| b.binding.covers(caller, tool, scopes.iter().map(String::as_str));
        places.filter_map(|place| self.all.get(*place)).filter(covers).min_by(|a, b| a.binding.name.cmp(&b.binding.name))
    }
}

/// An immutable snapshot of everything that is compiled.
#[derive(Default)]
pub struct CompiledCatalog {
    policies: BTreeMap<Box<str>, EnvironmentPolicy>,
    upstreams: BTreeMap<Box<str>, RegisteredUpstream>,
    bindings: BTreeMap<Box<str>, Bindings>,
    /// Texts that did not compile. Texts are validated before they are recorded, so each entry is an internal fault. A text that did not
    /// compile permits nothing.
    pub faults: Vec<String>,
}

impl CompiledCatalog {
    /// The policy set in force in an environment.
    pub fn policy(&self, environment: &str) -> Option<&EnvironmentPolicy> {
        self.policies.get(environment)
    }

    /// The registration of an upstream.
    pub fn upstream(&self, name: &str) -> Option<&RegisteredUpstream> {
        self.upstreams.get(name)
    }

    /// The bindings in force of an upstream.
    pub fn bindings(&self, upstream: &str) -> Option<&Bindings> {
        self.bindings.get(upstream)
    }

    /// A binding by name.
    pub fn binding(&self, name: &str) -> Option<&BindingInForce> {
        self.bindings.values().find_map(|of| of.named(name))
    }

    /// All registrations.
    pub fn upstreams(&self) -> impl Iterator<Item = &RegisteredUpstream> {
        self.upstreams.values()
    }

    /// All environments with a policy set.
    pub fn environments(&self) -> impl Iterator<Item = (&str, &EnvironmentPolicy)> {
        self.policies.iter().map(|(name, policy)| (&**name, policy))
    }
}

/// The current [`CompiledCatalog`] snapshot.
///
/// The snapshot may briefly lag behind the ledger's state. A decision records the versions that it was made with, and the fold voids the
/// record if other versions are in force, so a stale snapshot never issues anything.
pub struct Catalog {
    issuer: Box<str>,
    now: ArcSwap<CompiledCatalog>,
    /// Sets that are about to take effect, compiled in advance so that the thread which folds the ledger need not compile them.
    prepared: Mutex<VecDeque<Arc<PolicySet>>>,
}

/// `iss` of an environment, below the issuer base URL.
pub fn issuer_of(base: &str, environment: &str) -> String {
    format!("{}/{environment}", base.trim_end_matches('/'))
}

impl Catalog {
    /// An empty catalog for environments below an issuer base URL.
    pub fn new(issuer: &str) -> Catalog {
        Catalog { issuer: issuer.into(), now: ArcSwap::default(), prepared: Mutex::default() }
    }

    /// The current snapshot.
    pub fn now(&self) -> Arc<CompiledCatalog> {
        self.now.load_full()
    }

    /// Keeps a compiled set that is about to take effect.
    pub fn prepare(&self, set: Arc<PolicySet>) {
        let mut prepared = self.prepared.lock();
        prepared.retain(|known| known.digest() != set.digest());
        prepared.push_back(set);
        if prepared.len() > limits::POLICIES_PREPARED {
            prepared.pop_front();
        }
    }

    /// Whether a record changes what the catalog holds.
    pub fn concerns(record: &Record) -> bool {
        record.event.as_ref().is_some_and(|event| {
            event.document().is_some()
                || matches!(event, Event::OwnerLeft(_) | Event::ApprovalDecided(_) | Event::GenerationBegun(_))
        })
    }

    /// Compiles everything that changed in the state since the last call.
    pub fn sync(&self, state: &State) {
        let before = self.now();
        let mut after = CompiledCatalog::default();
        for (environment, version) in &state.policies {
            let beside = state.audit_policies.get(environment).filter(|v| v.active);
            let beside = beside.map(|v| self.set_of(v).map(|set| ShadowPolicy { version: v.version, set })).transpose();
            let beside = beside.unwrap_or_else(|what| {
                after.faults.push(format!("the shadow policy set of {environment}: {what}"));
                None
            });
            match self.set_of(version) {
                Ok(set) => {
                    let issuer = issuer_of(&self.issuer, environment).into();
                    after
                        .policies
                        .insert(environment.clone(), EnvironmentPolicy { version: version.version, set, issuer, beside });
                }
                Err(what) => after.faults.push(format!("policy set {} of {environment}: {what}", version.version)),
            }
        }
        for (name, version) in &state.upstreams {
            match registered_of(&before, name, version) {
                Ok(registered) => drop(after.upstreams.insert(name.clone(), registered)),
                Err(what) => after.faults.push(format!("registration {} of {name}: {what}", version.version)),
            }
        }
        for (name, version) in state.bindings.iter().filter(|(_, v)| v.active) {
            match Binding::from_text(&version.text) {
                Ok(binding) if binding.scopes.is_empty() => {}
                Ok(binding) => {
                    let of = after.bindings.entry(binding.upstream.as_str().into()).or_default();
                    of.add(BindingInForce { version: version.version, binding: Arc::new(binding) });
                }
                Err(what) => after.faults.push(format!("binding {} of {name}: {what}", version.version)),
            }
        }
        for fault in &after.faults {
            tracing::error!(%fault, "a policy set, registration or binding of the ledger could not be compiled");
        }
        self.now.store(Arc::new(after));
    }

    /// The compiled set with this digest, if there is one: several environments may share one text, and a set may have been prepared.
    pub fn known(&self, digest: &[u8; 32]) -> Option<Arc<PolicySet>> {
        let now = self.now();
        let beside = now.policies.values().filter_map(|p| p.beside.as_ref()).map(|b| &b.set);
        let mut in_force = now.policies.values().map(|p| &p.set).chain(beside);
        let found = in_force.find(|set| set.digest() == digest).cloned();
        found.or_else(|| self.prepared.lock().iter().find(|set| set.digest() == digest).cloned())
    }

    fn set_of(&self, version: &DocumentVersion) -> Result<Arc<PolicySet>, String> {
        if let Some(known) = self.known(&version.digest) {
            return Ok(known);
        }
        let set = PolicySet::from_text(&version.text).map_err(|c| c.first().map_or_else(String::new, ToString::to_string))?;
        Ok(Arc::new(set))
    }
}

fn registered_of(before: &CompiledCatalog, name: &str, version: &DocumentVersion) -> Result<RegisteredUpstream, String> {
    if let Some(known) = before.upstreams.get(name).filter(|r| r.version == version.version) {
        return Ok(RegisteredUpstream { active: version.active, owner_left: version.owner_left, ..known.clone() });
    }
    let upstream = Arc::new(Upstream::from_text(&version.text)?);
    let (audience, base_url) = (upstream.audience.as_str().into(), upstream.target.as_str().into());
    let DocumentVersion { active, owner_left, .. } = *version;
    Ok(RegisteredUpstream { version: version.version, active, owner_left, upstream, audience, base_url })
}
