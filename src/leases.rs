//! What stands at upstreams, as operators see it and what they can do about it.

use crate::admission::Admitted;
use crate::authority::Authority;
use crate::identity::caller::Operator;
use crate::ledger::Lane;
use crate::policy::admin;
use crate::refusal::{No, Reason, Refusal};
use crate::seq::LeaseId;
use crate::tasks::Named;
use crate::upstream::lease::{Listed, Standing, abandoned};

impl Authority {
    /// Tries a lease again at once, rather than when it is due, and answers how it stands before that.
    pub async fn retry_lease(&self, operator: &Operator, id: LeaseId) -> Result<Listed, No> {
        let (listed, _) = self.lease_of(operator, id).await?;
        self.leases.retry(id);
        Ok(listed)
    }

    /// Gives up undoing a lease: what stands upstream is the operator's to clean from then on. Refused while somebody has a credential
    /// of it. `None` for a repeat.
    pub async fn abandon_lease(&self, operator: &Operator, id: LeaseId, why: &str, named: &Named) -> Result<Option<Listed>, No> {
        let scope = self.scope::<admin::ManageUpstreams>(operator)?;
        if self.remembered(&scope.who().name(), named).await?.is_some() {
            return Ok(None);
        }
        let (listed, admitted) = self.lease_of(operator, id).await?;
        if !matches!(listed.standing, Standing::ToUndo(_)) {
            let no = Refusal::field(
                "lease_id",
                format!("{id} is a live credential's or being made: only what is to be undone can be given up"),
            );
            return Err(No::Refusal(no.way_out(format!("mayfly revoke --credential {}", listed.lease.credential))));
        }
        self.change(admitted.who(), Lane::Change, abandoned(id, why), named).await?;
        Ok(Some(listed))
    }

    /// An open lease, for an operator who may manage its upstream.
    async fn lease_of(&self, operator: &Operator, id: LeaseId) -> Result<(Listed, Admitted<admin::ManageUpstreams>), No> {
        let found = self.leases.one(id).await?;
        let compiled = self.catalog.now();
        let registered = found.as_ref().and_then(|l| compiled.upstream(&l.lease.upstream));
        let environment = registered.map(|r| r.upstream.environment.as_str());
        let none = || Refusal::new(Reason::NotFound, format!("there is no open lease {id}"));
        // Whoever may not is refused before it is said whether there is one.
        let admitted = match (&found, environment) {
            // Nobody knows the environment of an upstream that is gone.
            (Some(_), None) => Some(self.admit(operator, None)?),
            (_, environment) => self.admit_to_found(operator, environment)?,
        };
        found.zip(admitted).ok_or_else(|| none().into())
    }
}
