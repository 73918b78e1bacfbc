//! Introspection: whether a token is valid now, for a server of the token's upstream and for operators.

use crate::authority::Authority;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Refusal};
use mayfly_credential::jwt::{Jwks, authentic};
use mayfly_credential::keyring;
use mayfly_credential::reference::ReferenceToken;
use mayfly_identity::caller::{Caller, Operator};
use mayfly_ledger::State;
use mayfly_ledger::record::KeyPurpose;
use mayfly_ledger::state::LiveCredential;
use mayfly_policy::person::CallerPerson;
use mayfly_policy::{IntrospectionContext, Question, admin};
use mayfly_verify::seq::CredentialId;

/// The caller that introspects a token.
pub enum IntrospectionCaller {
    /// A workload, which is told of credentials for upstreams that it serves only.
    Workload(Caller),
    /// An operator.
    Operator(Operator),
}

impl Authority {
    /// The id of the credential that a token is, if mayfly issued it and it was not altered. Says nothing about its validity.
    pub fn identify(&self, token: &str) -> Result<Option<CredentialId>, Error> {
        if token.len() > limits::TOKEN_BYTES {
            return Err(Error::Refusal(Refusal::field(
                "token",
                format!("{} bytes, at most {}", token.len(), limits::TOKEN_BYTES),
            )));
        }
        if let Some(shown) = ReferenceToken::parse(token) {
            let key = self.ledger.peek(|s| s.credentials.get(&shown.id()).map(|l| l.key().to_owned()));
            let key = key.and_then(|id| self.keyring.get(KeyPurpose::Reference, &id));
            return Ok(key.filter(|k| shown.made_by(k)).map(|_| shown.id()));
        }
        // The credential's environment is in its claims, but only the key that signed it is trusted to tell it.
        let keys = self.ledger.peek(|s| s.keys.clone());
        for environment in self.catalog.now().environments().map(|(name, _)| name) {
            let Ok(jwks) = Jwks::parse(&keyring::jwks(&keys, environment)) else { continue };
            if let Ok((claims, _)) = authentic(token, &jwks) {
                return Ok(Some(claims.jti));
            }
        }
        Ok(None)
    }

    /// The credential of a token, converted by `show`, if it is valid now and the asker may know it. `None` gives no reason.
    pub async fn introspect<T>(
        &self,
        asker: &IntrospectionCaller,
        token: &str,
        show: impl FnOnce(&State, &LiveCredential<'_>) -> T,
    ) -> Result<Option<(T, mayfly_verify::seq::Seq)>, Error> {
        if let IntrospectionCaller::Workload(caller) = asker {
            self.still_stands(caller)?;
        }
        let Some(id) = self.identify(token)? else { return Ok(None) };
        let upstream = self.ledger.peek(|s| s.credentials.get(&id).map(|l| l.upstream().to_owned()));
        let Some(upstream) = upstream else { return Ok(None) };
        if !self.may_know(asker, &upstream)? {
            return Ok(None);
        }
        let now = self.system.wall();
        let found = self
            .ledger
            .settled(|state| {
                let live = state.credentials.get(&id)?;
                state.evidence_alive(&id, now).ok()?;
                Some((show(state, &live), state.head))
            })
            .await?;
        Ok(found)
    }

    fn may_know(&self, asker: &IntrospectionCaller, upstream: &str) -> Result<bool, Error> {
        let compiled = self.catalog.now();
        let Some(registered) = compiled.upstream(upstream) else { return Ok(false) };
        let upstream = &registered.upstream;
        match asker {
            IntrospectionCaller::Operator(operator) => {
                self.admit::<admin::Observe>(operator, Some(&upstream.environment)).map(|_| true)
            }
            IntrospectionCaller::Workload(caller) => {
                let Some(policy) = compiled.policy(&upstream.environment) else { return Ok(false) };
                if !upstream.served_by(caller.id()) || policy.set.environment_of(caller.id()) != Some(&upstream.environment) {
                    return Ok(false);
                }
                let behind = CallerPerson::of(caller);
                let look =
                    IntrospectionContext { environment: &upstream.environment, person: behind.facts(), now: self.system.wall() };
                let question = Question::introspect(caller.id(), upstream, &look);
                Ok(self.decider.verdicts.verdict(&policy.set, &question).permits())
            }
        }
    }
}
