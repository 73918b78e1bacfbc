//! Testing an upstream: whether mayfly can make a credential there, use it, and undo it again.

use crate::authority::Authority;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_credential::CredentialKind;
use mayfly_credential::lease::{Trial, TrialStep};
use mayfly_identity::caller::Operator;
use mayfly_ledger::upstream::registry::Upstream;
use mayfly_policy::admin;

impl Authority {
    /// Makes a credential with the least scope at an upstream, uses it and undoes it. Nobody gets the credential, and no issuance is
    /// recorded; its lease is.
    ///
    /// Refused: NOT_FOUND, UPSTREAM_NOT_ACTIVE, NOT_SERVED where the upstream makes no credentials, NOT_READY, LIMIT_REACHED.
    pub async fn test_upstream(&self, operator: &Operator, name: &str) -> Result<Vec<TrialStep>, Error> {
        let found = self.standing_of(name).await?;
        let environment = found.as_ref().map(|(upstream, _)| upstream.environment.clone());
        // An operator who may manage no upstreams must not learn which upstreams exist.
        let admitted = self.admit_to_found::<admin::ManageUpstreams>(operator, environment.as_deref())?;
        let (Some(admitted), Some((upstream, version))) = (admitted, found) else {
            return Err(Error::Refusal(Refusal::new(Reason::NotFound, format!("there is no upstream {name}"))));
        };
        if version.retired {
            return Err(Error::Refusal(Refusal::new(Reason::UpstreamNotActive, format!("upstream {name} was retired for good"))));
        }
        if !version.active {
            let no = Refusal::new(Reason::UpstreamNotActive, format!("upstream {name} is not active"));
            return Err(Error::Refusal(no.way_out(format!("mayfly upstream enable {name} --reason TEXT"))));
        }
        let made_there = upstream.kinds.iter().filter_map(|kind| CredentialKind::from_number(u32::from(kind.tag())));
        let kind = made_there.filter(|kind| !kind.made_locally()).min().ok_or_else(|| {
            let what = format!("upstream {name} makes no credentials itself, so there is nothing to test: mayfly signs them");
            Refusal::new(Reason::NotServed, what)
        })?;
        let trial =
            Trial { upstream: &upstream, version: version.version, kind, scopes: least_scope(&upstream), author: admitted.who() };
        self.leases.try_out(trial).await
    }
}

/// The first scope that is not sensitive, or else the first.
fn least_scope(upstream: &Upstream) -> Vec<String> {
    let plain = upstream.scopes.iter().find(|scope| !scope.sensitive).or(upstream.scopes.first());
    plain.map(|scope| scope.name.clone()).into_iter().collect()
}
