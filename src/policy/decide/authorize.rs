//! Decides an action without issuing anything (`Authorize`): for a caller about to act, and for a server that received a credential.

use super::credential_draft::{active, binding_of, scopes_of};
use super::redecide::{CredentialSnapshot, IntendedUse, question};
use super::task_context::within_task;
use super::{Decider, break_glass, denied};
use crate::catalog::CompiledCatalog;
use crate::exchange_request::ExchangeRequest;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_identity::caller::Caller;
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_ledger::View;
use mayfly_ledger::record::CredentialIssued;
use mayfly_ledger::upstream::access::AccessQuery;
use mayfly_ledger::upstream::registry::Kind;

fn not_for(held: &CredentialSnapshot, what: impl std::fmt::Display) -> Error {
    denied(Reason::OutsideTask, format!("credential {} does not serve for {what}", held.id))
}

impl Decider {
    /// Decides like an exchange and returns the record that would be issued. The task must be open already.
    pub fn authorize(
        &self,
        view: &View,
        compiled: &CompiledCatalog,
        caller: &Caller,
        want: &ExchangeRequest,
    ) -> Result<Box<CredentialIssued>, Error> {
        Ok(self.exchange(view, compiled, caller, want, || [0; 16])?.into_parts().draft)
    }

    /// The same for a presented credential: the action must be within what the credential was issued for, and the credential must still be
    /// permitted now.
    ///
    /// The approval that the credential used up counts. No further approval is asked for, because the server that presents the credential
    /// is not the caller that would ask.
    pub fn authorize_held(
        &self,
        view: &View,
        compiled: &CompiledCatalog,
        held: &CredentialSnapshot,
        want: &ExchangeRequest,
    ) -> Result<Box<CredentialIssued>, Error> {
        let now = view.now();
        if want.details.is_some() {
            let what = "is not for a presented credential, which has its own; leave it out";
            return Err(Error::Refusal(Refusal::field("authorization_details", what)));
        }
        let registered = self.registered(compiled, &held.upstream)?;
        let upstream = &registered.upstream;
        let caller = SpiffeId::parse(&held.caller).map_err(|_| Fault::new("a credential without a caller"))?;
        let policy = compiled
            .policy(&upstream.environment)
            .filter(|policy| policy.set.environment_of(&caller) == Some(&upstream.environment))
            .ok_or_else(|| denied(Reason::EnvironmentWall, format!("{caller} does not belong to {}", upstream.environment)))?;
        self.served(&upstream.environment)?;
        active(registered, now)?;
        let scopes = scopes_of(upstream, &want.scopes)?;
        if let Some(scope) = scopes.iter().find(|scope| !held.scopes.iter().any(|own| **own == **scope)) {
            return Err(not_for(held, format_args!("scope {scope}")));
        }
        if !held.tool.is_empty() && *held.tool != *want.tool {
            return Err(not_for(held, format_args!("tool {:?}: it is for {}", want.tool, held.tool)));
        }
        if held.arguments().is_some_and(|own| want.arguments.as_ref() != Some(own)) {
            return Err(not_for(held, "these arguments"));
        }
        let kind = Kind::from_tag(held.kind).ok_or_else(|| Fault::new("a credential of an unknown kind"))?;
        within_task(held.place(), want, &scopes, kind)?;
        break_glass::check_rights(policy, held.place(), upstream, &scopes)?;
        let binding = binding_of(compiled, &caller, want, &scopes)?;
        let purpose = if want.purpose.is_empty() { held.place().purpose() } else { &want.purpose };
        let access = self.access_of(&AccessQuery { upstream, kind, scopes: &scopes, details: held.details() })?;
        let doing = IntendedUse {
            scopes: scopes.iter().map(String::as_str).collect(),
            tool: &want.tool,
            purpose,
            arguments: want.arguments.as_ref(),
            binding: binding.map(|b| &*b.binding.name),
            access: access.as_deref(),
        };
        let policies = question(&caller, upstream, held, &doing, now, |question| self.ask_once(policy, question))?;
        Ok(Box::new(CredentialIssued {
            task: held.place().id.as_bytes().to_vec(),
            kind: kind.tag().into(),
            caller: held.caller.to_string(),
            upstream: upstream.name.clone(),
            scopes,
            details: held.details().to_owned(),
            environment: upstream.environment.clone(),
            issued_at: now.0,
            expires_at: held.expires_at.min(upstream.expires).0,
            renewable_until: held.expires_at.min(upstream.expires).0,
            policy_version: policy.version,
            upstream_version: registered.version,
            policies,
            binding: binding.map_or_else(String::new, |b| b.binding.name.clone()),
            binding_version: binding.map_or(0, |b| b.version),
            tool: want.tool.to_string(),
            purpose: purpose.to_owned(),
            arguments: want.arguments.map_or_else(Vec::new, |d| d.to_vec()),
            break_glass: held.place().break_glass.is_some(),
            access: access.map_or_else(Vec::new, |access| access.words()),
            ..CredentialIssued::default()
        }))
    }
}

/// Checks the fields that an action needs. For an exchange, other code checks them.
pub fn plain(want: &ExchangeRequest) -> Result<(), Refusal> {
    match want.scopes.is_empty() {
        true => Err(Refusal::field("scopes", "is missing: say which scopes the action needs")),
        false => Ok(()),
    }
}
