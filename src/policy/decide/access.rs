//! The access that a credential would give at its upstream, as policy sees it.

use super::{Decider, denied};
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_ledger::upstream::access::{AccessError, AccessQuery, GrantedAccess, of_any, of_credential};
use mayfly_ledger::upstream::registry::{Kind, Upstream};

impl Decider {
    /// The access of one credential; `None` for tokens of mayfly itself. What cannot be described is refused, since a policy that looks for an
    /// access would not find it. `None` also for a kind that this server does not make: policy decides first, so that those who may not have
    /// the kind do not learn that, and nothing is issued afterwards, whatever policy says.
    pub fn access_of(&self, query: &AccessQuery<'_>) -> Result<Option<Box<GrantedAccess>>, Error> {
        match of_credential(&*self.access, query) {
            Ok(access) => Ok(access.map(Box::new)),
            Err(AccessError::NotServed) => Ok(None),
            Err(no) => Err(refused(query.upstream, &no)),
        }
    }

    /// The access that the credentials of a task can give together at one of its upstreams. `kinds`: those that the task names, by their
    /// persisted numbers; none for all of the upstream.
    pub fn access_in_task(&self, upstream: &Upstream, kinds: &[u32], scopes: &[String]) -> Result<Option<GrantedAccess>, Error> {
        let allowed = |kind: &Kind| kinds.is_empty() || kinds.contains(&u32::from(kind.tag()));
        let kinds: Vec<Kind> = upstream.kinds.iter().copied().filter(allowed).collect();
        of_any(&*self.access, upstream, &kinds, scopes).map_err(|no| refused(upstream, &no))
    }
}

fn refused(upstream: &Upstream, no: &AccessError) -> Error {
    match no {
        AccessError::NotServed => denied(Reason::NotServed, no.to_string()),
        AccessError::Details { field, what } => Error::Refusal(Refusal::fields(vec![(field.clone(), what.clone())])),
        AccessError::NotGranted(why) => Error::Refusal(
            Refusal::new(Reason::OutsideUpstream, format!("upstream {} does not grant it: {why}", upstream.name))
                .by("the registration of the upstream"),
        ),
    }
}
