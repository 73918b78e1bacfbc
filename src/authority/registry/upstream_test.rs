//! Testing an upstream: whether mayfly can make a credential there, use it, and undo it again.

use crate::authority::Authority;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_credential::CredentialKind;
use mayfly_credential::certificate_trial::TrialCertificate;
use mayfly_credential::lease::{Trial, TrialStep};
use mayfly_identity::caller::Operator;
use mayfly_ledger::record::KeyPurpose;
use mayfly_ledger::upstream::registry::{Kind, Upstream};
use mayfly_policy::admin;
use mayfly_verify::seq::{CredentialId, Millis};

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
        let made_there = upstream.kinds.iter().any(|kind| !kind.served() && !kind.is_certificate());
        if let (false, Some(kind)) = (made_there, upstream.kinds.iter().find(|kind| kind.is_certificate())) {
            return self.try_certificate(&upstream, *kind, least_scope(&upstream)).await;
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

impl Authority {
    /// Makes a certificate for a key that nobody keeps, verifies it with the CA, revokes it, and looks for it in the list that the public
    /// listener serves. No issuance is recorded: nobody gets the certificate, and it is listed until it ends.
    async fn try_certificate(&self, upstream: &Upstream, kind: Kind, scopes: Vec<String>) -> Result<Vec<TrialStep>, Error> {
        let purpose = if kind == Kind::Ssh { KeyPurpose::SshCa } else { KeyPurpose::UpstreamCa };
        let kind = CredentialKind::from_number(kind.tag().into()).ok_or_else(|| Fault::new("an unknown kind of certificates"))?;
        let path = self.upstream_ca_path(purpose, upstream)?;
        let ca = self.keyring.active(purpose, &path).ok_or_else(|| {
            let no = Refusal::new(Reason::NotReady, format!("upstream {} has no certificate authority yet", upstream.name));
            no.retry(std::time::Duration::from_secs(1))
        })?;
        let issuer = self.decider.issuer_of(&upstream.environment);
        let id = CredentialId::from_bytes(self.system.random16());
        let (began, now) = (self.system.steady(), self.system.wall());
        let until = Millis::from_seconds(now.plus(TRIAL_MS).seconds());
        let mut steps = Vec::new();
        let mut note = |name: String, problem: Option<String>| {
            let took_ms = self.system.steady().saturating_sub(began);
            steps.push(TrialStep { name, problem, took_ms });
        };
        let made = TrialCertificate::make(&ca, (upstream, kind, &scopes), id, &issuer, (now, until));
        let name = format!("sign a certificate with scope {}", scopes.join(" "));
        let made = match made {
            Ok(made) => made,
            Err(Error::Refusal(no)) => {
                note(name, Some(no.to_string()));
                return Ok(steps);
            }
            Err(fault) => return Err(fault),
        };
        note(name, None);
        match made.verify(&ca, now) {
            Ok(said) => note(format!("verify it: {said}"), None),
            Err(no) => note("verify it".to_owned(), Some(no)),
        }
        if made.is_irrevocable() {
            note(format!("leave it to end by itself, at {until}: the registration says that nothing revokes it"), None);
            return Ok(steps);
        }
        if !self.certificate_lists.end_trial(ca.id(), id, now, until) {
            return Err(Error::Refusal(Refusal::limit("certificate_trials", limits::CERTIFICATE_TRIALS as u64, TRIAL)));
        }
        note("revoke it".to_owned(), None);
        self.tend_certificate_lists().await?;
        let list = match kind {
            CredentialKind::Ssh => self.upstream_krl(&upstream.environment, &upstream.name).await?,
            _ => self.upstream_crl(&upstream.environment, &upstream.name, ca.id()).await?,
        };
        let listed = list.ok_or_else(|| "there is no list".to_owned()).and_then(|list| made.is_listed(&list, &ca));
        let what = if kind == CredentialKind::Ssh { "KRL" } else { "CRL" };
        note(format!("see it in the {what} that is served"), listed.err());
        Ok(steps)
    }
}

/// The life of the certificate of a test, milliseconds.
const TRIAL_MS: u64 = 60_000;
/// As [`TRIAL_MS`].
const TRIAL: std::time::Duration = std::time::Duration::from_millis(TRIAL_MS);

/// The first scope that is not sensitive, or else the first.
fn least_scope(upstream: &Upstream) -> Vec<String> {
    let plain = upstream.scopes.iter().find(|scope| !scope.sensitive).or(upstream.scopes.first());
    plain.map(|scope| scope.name.clone()).into_iter().collect()
}
