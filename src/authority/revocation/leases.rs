//! Operators' view of leases, and the actions on them.

use crate::admission::Admitted;
use crate::authority::Authority;
use crate::tasks::IdempotencyKey;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_credential::lease::{ListedLease, abandoned};
use mayfly_identity::caller::Operator;
use mayfly_ledger::ProposalKind;
use mayfly_policy::admin;
use mayfly_verify::seq::LeaseId;

impl Authority {
    /// One open lease, for an operator who may observe its environment.
    pub async fn show_lease(&self, operator: &Operator, id: LeaseId) -> Result<ListedLease, Error> {
        let found = self.leases.one(id).await?;
        let sees = self.scope::<admin::Observe>(operator)?;
        let compiled = self.catalog.now();
        let seen = found.filter(|l| match compiled.upstream(&l.lease.upstream) {
            Some(registered) => sees.has(&registered.upstream.environment),
            None => sees.everywhere(),
        });
        seen.ok_or_else(|| none(id).into())
    }

    /// Retries removing a lease's object at once, ahead of the schedule. Returns the state of the lease before that.
    pub async fn retry_lease(&self, operator: &Operator, id: LeaseId) -> Result<ListedLease, Error> {
        let (listed, _) = self.lease_of(operator, id).await?;
        self.leases.retry(id);
        Ok(listed)
    }

    /// Abandons a lease: from then on the operator has to clean up the object at the upstream. Refused while a credential of the lease is
    /// live. `None` for a repeat.
    pub async fn abandon_lease(
        &self,
        operator: &Operator,
        id: LeaseId,
        why: &str,
        named: &IdempotencyKey,
    ) -> Result<Option<ListedLease>, Error> {
        let scope = self.scope::<admin::ManageUpstreams>(operator)?;
        if self.remembered(&scope.who().name(), named).await?.is_some() {
            return Ok(None);
        }
        let (listed, admitted) = self.lease_of(operator, id).await?;
        if listed.cause().is_none() {
            let no = Refusal::field(
                "lease_id",
                format!(
                    "lease {id} belongs to a credential that is live or being made; only a lease that is to be undone can be given up"
                ),
            );
            return Err(Error::Refusal(
                no.way_out(format!("mayfly revoke --credential {} --reason TEXT", listed.lease.credential)),
            ));
        }
        self.change(admitted.who(), ProposalKind::Change, abandoned(id, why), named).await?;
        self.leases.forget_secret(id, &listed.lease).await;
        Ok(Some(listed))
    }

    /// An open lease, for an operator who may manage its upstream.
    async fn lease_of(&self, operator: &Operator, id: LeaseId) -> Result<(ListedLease, Admitted<admin::ManageUpstreams>), Error> {
        let found = self.leases.one(id).await?;
        let compiled = self.catalog.now();
        let registered = found.as_ref().and_then(|l| compiled.upstream(&l.lease.upstream));
        let environment = registered.map(|r| r.upstream.environment.as_str());
        // An operator without permission is refused before the answer tells whether the lease exists.
        let admitted = match (&found, environment) {
            // The environment of a removed upstream is unknown, so every environment must permit the action.
            (Some(_), None) => Some(self.admit(operator, None)?),
            (_, environment) => self.admit_to_found(operator, environment)?,
        };
        found.zip(admitted).ok_or_else(|| none(id).into())
    }
}

fn none(id: LeaseId) -> Refusal {
    let no = Refusal::new(Reason::NotFound, format!("there is no open lease {id}"));
    no.way_out(
        "a lease that is closed is in the audit, under its credential and its upstream: mayfly audit search --upstream NAME",
    )
}
