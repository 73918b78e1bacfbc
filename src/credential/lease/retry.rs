//! Repeats of a request whose credential an upstream made.

use std::time::Duration;

use super::make::{failed, fitting, not_made};
use super::{LeaseDriver, LeaseLedger};
use crate::connector::{MintOrder, RepeatResponse};
use crate::kind::{CredentialKind, RemintInput, summary};
use crate::minted::OutcomeReporter;
use crate::{MintedCredential, Novelty};
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_ledger::record::{Event, KeyPurpose};
use mayfly_ledger::upstream::settings::KindSettings;
use mayfly_verify::seq::{CredentialId, LeaseId};

impl<D: LeaseLedger> LeaseDriver<D> {
    /// Obtains a record's credential from its upstream again. `None` where the upstream cannot return it, so that another credential must
    /// replace it. The result has no records to commit. The caller must check that the credential is live, before and after, since the
    /// upstream may take long.
    ///
    /// Refused: NOT_SERVED, UPSTREAM_FAILED, LIMIT_REACHED, and CREDENTIAL_NOT_ACTIVE where the lease is closed already.
    pub async fn again(&self, past: &RemintInput<'_>) -> Result<Option<MintedCredential>, Error> {
        let Some(Event::Issued(issued)) = &past.record.event else {
            return Err(Fault::new("no issuance to return again").into());
        };
        let kind =
            CredentialKind::from_number(issued.kind).ok_or_else(|| Fault::new("a record of an unknown credential kind"))?;
        let remote = self.maker(kind)?;
        let ids = (CredentialId::from_slice(&issued.credential), LeaseId::from_slice(&issued.lease));
        let (Some(credential), Some(lease)) = ids else { return Err(Fault::new("a record without credential or lease").into()) };
        // A kind that derives its passwords can return the credential for as long as the key exists.
        let key = match remote.derives() {
            true => match self.keyring.get(KeyPurpose::Password, &issued.key) {
                None => return Ok(None),
                key => key,
            },
            false => None,
        };
        let open = self.durable.settled(|s| s.leases.get(&lease).map(|open| (open.clone(), s.lease_terms.of(&lease)))).await?;
        let (open, terms) = open.ok_or_else(|| {
            Refusal::new(
                Reason::CredentialNotActive,
                format!("the object of {credential} at upstream {} was given up", issued.upstream),
            )
            .way_out("ask with a new request_id")
        })?;
        let _place = self.making.enter(&issued.upstream)?;
        let (audience, base_url) = (past.audience, past.base_url);
        let (handle, settings, passwords) = (&*open.handle, &KindSettings::default(), key.as_deref());
        let order =
            MintOrder { credential, lease, handle, issued, audience, base_url, settings, terms: &terms, passwords, keeper: None };
        let limit = Duration::from_millis(self.timing().make_ms);
        match tokio::time::timeout(limit, remote.again(&order)).await {
            Ok(Ok(RepeatResponse::Replace)) => Ok(None),
            Ok(Ok(RepeatResponse::Same(made))) => {
                let made = fitting(kind, made)?;
                let summary = summary(issued, credential, kind, past.record.revision(), Novelty::Same, made.irrevocable)?;
                let summary = summary.ending_upstream(open.ends_at);
                Ok(Some(MintedCredential::new(Vec::new(), summary, made.answer, OutcomeReporter::none())))
            }
            Ok(Err(e)) => Err(not_made(kind, &e)),
            Err(_) => Err(failed(kind, &format!("it took longer than {} ms", self.timing().make_ms))),
        }
    }
}
