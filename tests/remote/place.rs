//! A whole authority in this process, with the upstream and both kinds.

use std::collections::BTreeSet;
use std::time::Duration;

use mayfly::credential::{IssuedCredential, Novelty};
use mayfly::identity::caller::{Caller, Operator};
use mayfly::ledger::ProposalKind;
use mayfly::policy::admin;
use mayfly::policy::exchange_request::{ExchangeRequest, TaskChoice};
use mayfly::refusal::{Error, Refusal};
use mayfly::revocation::Target;
use mayfly::revoke::{RevocationConfirmation, RevocationRequest, RevocationResult};
use mayfly::seq::{CredentialId, TaskId};
use mayfly::upstream::registry::Kind;
use tokio::runtime::Runtime;

use super::kind::connectors;
use super::kit::house::{House, house_with, runtime, terms, wanted};
use super::server::with_both;
use super::upstream::{PATIENCE_MS, Upstream};

/// A house with both kinds, with undoing running.
pub struct Place {
    pub upstream: Upstream,
    pub house: House,
    pub runtime: Runtime,
    pub agent: Caller,
    pub task: TaskId,
}

impl Place {
    pub fn new() -> Place {
        let (upstream, address) = Upstream::start();
        Place::of(house_with(connectors(address, false)), upstream)
    }

    pub fn of(house: House, upstream: Upstream) -> Place {
        let (runtime, agent) = (runtime(), house.caller("/agent/demo"));
        let text = house.authority.ledger.peek(|s| s.upstreams["echo"].text.to_string());
        runtime.block_on(house.authority.ledger.commit(ProposalKind::Change, vec![with_both(&text)])).unwrap();
        let task = runtime.block_on(house.authority.open_task(&agent, &terms(), &None, false)).unwrap();
        runtime.spawn(house.authority.leases.clone().run());
        Place { upstream, house, runtime, agent, task }
    }

    pub fn want(&self, kind: Kind) -> ExchangeRequest {
        ExchangeRequest { kind: Some(kind), ..wanted(TaskChoice::Named(self.task)) }
    }

    pub fn exchange(&self, want: &ExchangeRequest) -> Result<IssuedCredential, Error> {
        self.runtime.block_on(self.house.authority.exchange(&self.agent, want))
    }

    pub fn issued(&self, want: &ExchangeRequest) -> (CredentialId, Novelty) {
        told(&self.exchange(want).unwrap_or_else(|no| panic!("{no}")))
    }

    pub fn leases(&self) -> usize {
        self.house.authority.ledger.peek(|s| s.leases.len())
    }

    /// The live credentials of either kind.
    pub fn live(&self) -> BTreeSet<CredentialId> {
        let now = self.house.now();
        self.house.authority.ledger.peek(|s| {
            let all = (0..s.credentials.places()).filter_map(|at| s.credentials.at(at));
            all.filter(|l| l.kind() > 2 && !l.released() && l.expires_at() > now)
                .filter(|l| s.rules.covers(&s.facts(l, s.tasks.at(l.task()).unwrap())).is_none())
                .map(|l| l.id())
                .collect()
        })
    }

    /// Advances the time of the house and lets undoing run.
    pub fn until_alive(&self, count: usize) {
        for _ in 0..PATIENCE_MS / 20 {
            if self.upstream.alive().len() == count && self.leases() == count {
                return;
            }
            self.house.clock.advance(20);
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{:?} alive and {} leases, not {count}", self.upstream.alive(), self.leases());
    }

    pub async fn revoke(&self, target: Target) -> Result<RevocationResult, Error> {
        let operator = self.house.authority.admit::<admin::Revoke>(&Operator::LocalUid(1000), None).unwrap();
        let ask = RevocationRequest {
            targets: vec![target],
            issued_only: true,
            force: true,
            reason: "a test".into(),
            confirm: RevocationConfirmation::All,
            named: None,
        };
        self.house.authority.revoke(&operator, None, &ask).await
    }
}

pub fn told(issued: &IssuedCredential) -> (CredentialId, Novelty) {
    (issued.summary().credential, issued.summary().about.novelty)
}

#[track_caller]
pub fn refusal<T>(answer: Result<T, Error>) -> Refusal {
    match answer {
        Ok(_) => panic!("it was not refused"),
        Err(Error::Refusal(no)) => no,
        Err(Error::Fault(fault)) => panic!("a fault: {fault}"),
    }
}
