//! Jobs and pods: attesting with a token of the platform that runs them. `logins` makes what comes of it.

use crate::authority::Authority;
use crate::credential::x509::Csr;
use crate::identity::oidc::{Issuer, attest};
use crate::ledger::record::{Attestation, Who};
use crate::logins::{Entry, Manner, SignedIn, Token};
use crate::own_domain::{attested_id, not_configured};
use crate::refusal::{No, Reason, Refusal};
use crate::seq::Millis;

impl Authority {
    /// Lets a job in: a certificate for this key, for the job of this token, by the first rule that is for it or by the one that is named.
    ///
    /// Refused: NOT_SERVED without a trust domain of our own, NOT_YOURS where no rule is for it, EVIDENCE_REVOKED for a token that was used,
    /// DENIED_BY_POLICY, LOCKED, LIMIT_REACHED, NOT_READY before the CA has a key.
    pub async fn attest(&self, issuer: &Issuer, token: &Token, rule: Option<&str>, key: &Csr) -> Result<SignedIn, No> {
        let own = self.own_domain.as_ref().ok_or_else(not_configured)?;
        let settings = own.settings();
        let let_in = attest::attested(issuer, &settings.attest_rules, rule, &token.claims);
        let found = let_in.map_err(|why| {
            // What rules there are is told to the audit, not to everybody who has an account there; counted together, for they are many.
            let what = format!("no rule lets this job of {} in", issuer.name);
            let no = |rule: String| Refusal::new(Reason::NotYours, what.clone()).by(rule);
            self.refused(&issuer.issuer, &no(format!("attestation: {why}")), &format!("attest {}", token.sub), "");
            no("attestation".into())
                .way_out("whoever owns the configuration has [[attestation]]; the audit says what did not fit")
        })?;
        let domain = &own.trust_domain;
        let spiffe_id = attested_id(domain, &token.provider, &found.id, &found.rule.name)?;
        let job = Attestation { rule: found.rule.name.clone(), id: found.id.clone(), claims: found.claims.clone() };
        let entry = |_| {
            let manner = Manner { amr: Vec::new(), acr: String::new(), auth_time: Millis(0), flow: "attested" };
            let (author, ttl_ms) = (Who::SpiffeId(spiffe_id.to_string()), found.rule.ttl_ms);
            Ok(Entry { own, token, author, manner, job: Some(job.clone()), ttl_ms })
        };
        self.log_in(key, &spiffe_id, entry).await
    }
}
