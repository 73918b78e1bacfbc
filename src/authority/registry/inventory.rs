//! The use and the problems of registered upstreams, for lists, the status and the log.

use std::collections::BTreeMap;

use crate::authority::Authority;
use mayfly_base::refusal::Error;
use mayfly_credential::sign_in::ConnectionState;
use mayfly_ledger::state::{DocumentVersion, State};
use mayfly_ledger::upstream::findings::{FindingKind, RegistrationFacts, UpstreamFinding, findings};
use mayfly_ledger::upstream::registry::Upstream;
use mayfly_verify::seq::Millis;

/// The use of upstreams, and the owners who left.
#[derive(Default)]
pub struct Inventory {
    uses: BTreeMap<String, (u64, Option<Millis>)>,
    left: BTreeMap<Box<str>, Millis>,
    /// The upstreams that somebody has to sign in to, since when; 0: nobody ever did.
    sign_in: BTreeMap<String, Millis>,
}

impl Inventory {
    fn of(state: &State) -> Inventory {
        let uses = state.credentials.by_upstream().into_iter().map(|(name, used)| (name.to_owned(), used));
        Inventory { uses: uses.collect(), left: state.owners_left.clone(), sign_in: BTreeMap::new() }
    }

    /// The number of live credentials of an upstream and, if there are none, when the last one ended.
    pub fn used(&self, upstream: &str) -> (u64, Option<Millis>) {
        let (live, last) = self.uses.get(upstream).copied().unwrap_or_default();
        (live, last.filter(|_| live == 0))
    }

    /// All findings about a registration.
    pub fn findings(&self, upstream: &Upstream, version: &DocumentVersion, now: Millis) -> Vec<UpstreamFinding> {
        if version.retired {
            return Vec::new();
        }
        let (live, last_used) = self.used(&upstream.name);
        let owner_left = version.owner_left.then(|| self.left.get(upstream.owner.as_str()).copied()).flatten();
        findings(
            upstream,
            &RegistrationFacts {
                since: version.at,
                owner_left,
                live,
                last_used,
                sign_in: self.sign_in.get(&upstream.name).copied(),
            },
            now,
        )
    }
}

impl Authority {
    /// Collects the use of the registry from the durable state.
    pub async fn inventory(&self) -> Result<Inventory, Error> {
        self.look_at_connections().await;
        let inventory = self.ledger.settled(Inventory::of).await?;
        Ok(self.with_connections(inventory))
    }

    /// Adds the upstreams that somebody has to sign in to, as of the last look.
    fn with_connections(&self, inventory: Inventory) -> Inventory {
        let compiled = self.catalog.now();
        let waits = |upstream: &Upstream| {
            let connection = self.connection_of(upstream)?;
            match connection.state {
                ConnectionState::None => Some((upstream.name.clone(), Millis(0))),
                ConnectionState::SignInAgain => Some((upstream.name.clone(), connection.trouble_since)),
                ConnectionState::Connected | ConnectionState::Ending => None,
            }
        };
        let sign_in = compiled.upstreams().filter_map(|registered| waits(&registered.upstream)).collect();
        Inventory { sign_in, ..inventory }
    }

    /// The findings that stop an upstream from issuing, now or within 14 days, each with the name of its upstream.
    pub fn stopping_soon(&self) -> Vec<(String, UpstreamFinding)> {
        let (compiled, now) = (self.catalog.now(), self.system.wall());
        let (inventory, versions) = self.ledger.peek(|s| (Inventory::of(s), s.upstreams.clone()));
        let inventory = self.with_connections(inventory);
        let mut found = Vec::new();
        for (name, version) in versions.iter().filter(|(_, v)| v.active) {
            let Some(registered) = compiled.upstream(name) else { continue };
            let stops = |f: &UpstreamFinding| match f.problem {
                FindingKind::Expiring | FindingKind::Overdue | FindingKind::Ownerless | FindingKind::SignIn => true,
                FindingKind::Unused | FindingKind::Broad => false,
            };
            let of = inventory.findings(&registered.upstream, version, now).into_iter().filter(stops);
            found.extend(of.map(|finding| (name.to_string(), finding)));
        }
        found
    }
}
