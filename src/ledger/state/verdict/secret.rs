//! Verdicts on static secrets.

use super::super::ManagedSecret;
use super::{GroupEffects, State, Verdict, malformed};
use crate::record::Event;
use mayfly_base::refusal::{Reason, Refusal};

impl State {
    /// A version belongs to a registered upstream, and each step follows the one before. One record of a secret in a group: a second one
    /// would be judged by the state before the first.
    pub(super) fn may_change_secret<'a>(&self, event: &'a Event, pending: &mut GroupEffects<'a>) -> Verdict {
        let (upstream, environment) = match event {
            Event::SecretStored(e) => (e.upstream.as_str(), e.environment.as_str()),
            Event::SecretChanged(e) => (e.upstream.as_str(), e.environment.as_str()),
            _ => return Err(malformed("no secret")),
        };
        if pending.secrets.contains(&upstream) {
            return Err(malformed("a second change of the same secret"));
        }
        pending.secrets.push(upstream);
        let known = self.secrets.get(upstream);
        if known.is_some_and(|secret| *secret.environment != *environment) {
            return Err(malformed("a secret of another environment"));
        }
        match event {
            Event::SecretStored(e) => {
                let claims = self.upstreams.get(upstream).filter(|v| !v.retired).and_then(|v| v.claims.as_ref());
                match claims {
                    Some(claims) if *claims.environment == *environment => {}
                    _ => return Err(Refusal::new(Reason::NotFound, format!("there is no upstream {upstream}"))),
                }
                if <[u8; 16]>::try_from(&e.value[..]).is_err() || (e.ends_previous && !e.current) {
                    return Err(malformed("a value id that is not 16 bytes, or an end of the version that stays in use"));
                }
                match known {
                    Some(secret) => secret.may_store(e),
                    None => ManagedSecret::default().may_store(e),
                }
            }
            Event::SecretChanged(e) => match known {
                Some(secret) => secret.may_change(e),
                None => Err(Refusal::new(Reason::NotFound, format!("upstream {upstream} has no secret"))),
            },
            _ => Ok(()),
        }
    }
}
