//! All-or-nothing batches: several exchanges of one caller that are issued or refused as one.

use std::time::Duration;

use super::repeat::RepeatOutcome;
use super::{beaten, lost_to_concurrent_repeat, made_locally};
use crate::authority::Authority;
use crate::people::approvals::{needs_approval, waits_for};
use crate::redecide::{DecisionAttempts, is_void};
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_credential::{IssuedCredential, MintedCredential};
use mayfly_identity::caller::Caller;
use mayfly_ledger::ProposalKind;
use mayfly_ledger::record::Record;
use mayfly_policy::exchange_request::ExchangeRequest;
use mayfly_policy::grant::Grant;
use mayfly_verify::seq::Millis;

/// An issued credential of the batch: its index in the batch, the index of its issuance among the records, and the credential.
type BatchedMint = (usize, usize, MintedCredential);

impl Authority {
    /// Issues all credentials of a batch in one group of records and one commit, or none. A refusal names the index of the exchange that
    /// caused it.
    pub async fn exchange_all(
        &self,
        caller: &Caller,
        wants: &[ExchangeRequest],
    ) -> Result<Vec<IssuedCredential>, (usize, Error)> {
        let mut attempts = DecisionAttempts::default();
        loop {
            match self.try_all(caller, wants).await {
                Err((n, no)) => self.redecide(&mut attempts, no, is_void).await.map_err(|no| (n, no))?,
                issued => return issued,
            }
        }
    }

    async fn try_all(&self, caller: &Caller, wants: &[ExchangeRequest]) -> Result<Vec<IssuedCredential>, (usize, Error)> {
        self.still_stands(caller).map_err(|no| (0, no))?;
        let mut view = self.ledger.view();
        let (mut done, mut instead) = (Vec::with_capacity(wants.len()), Vec::new());
        for (n, want) in wants.iter().enumerate() {
            done.push(match self.made_for(&view, caller, want).await.map_err(|no| (n, no))? {
                RepeatOutcome::Same(issued) => Some(issued),
                RepeatOutcome::Nothing => None,
                RepeatOutcome::Replace(replacing) => {
                    instead.push((n, replacing));
                    None
                }
            });
        }
        let replaces = !instead.is_empty();
        if replaces {
            view = self.ledger.view(); // the upstreams were asked, which takes time
        }
        let mut known = Vec::new();
        for (n, want) in wants.iter().enumerate().filter(|(n, _)| done.get(*n).is_some_and(Option::is_none)) {
            let want = instead.iter().find(|(at, _)| *at == n).map_or(want, |(_, replacing)| replacing);
            if let Some(on_behalf) = self.on_behalf(caller, want).await.map_err(|no| (n, no))? {
                known.push((n, on_behalf));
            }
        }
        if !known.is_empty() {
            view = self.ledger.view(); // issuers may have been asked, which takes time
        }
        let compiled = self.catalog.now();
        let (mut fresh, mut upstream) = (Vec::new(), Vec::new());
        for (n, want) in wants.iter().enumerate().filter(|(n, _)| done.get(*n).is_some_and(Option::is_none)) {
            let want = instead.iter().find(|(at, _)| *at == n).map_or(want, |(_, replacing)| replacing);
            let want = known.iter().find(|(at, _)| *at == n).map_or(want, |(_, on_behalf)| on_behalf);
            view.read(|state| self.room(state, caller, want)).map_err(|no| (n, no))?;
            let grant = match self.decide(&view, &compiled, caller, want) {
                Err(no) if needs_approval(&no) => {
                    let id = self.ask_approval(&view, caller, want).await.map_err(|no| (n, no))?;
                    return Err((n, waits_for(no, id)));
                }
                grant => grant.map_err(|no| (n, no))?,
            };
            if made_locally(grant.kind()) {
                fresh.push((n, 0, self.mint_here(grant, &view, want).map_err(|no| (n, no))?));
            } else {
                self.makes(&grant).map_err(|no| (n, no))?;
                upstream.push((n, grant));
            }
        }
        if !upstream.is_empty() {
            fresh.extend(Box::pin(self.mint_all_upstream(upstream, view.now())).await?);
        }
        if !fresh.is_empty() {
            let committed = self.commit_all(fresh, &mut done).await;
            committed.map_err(|no| (0, if replaces && lost_to_concurrent_repeat(&no) { beaten() } else { no }))?;
        }
        Ok(done.into_iter().flatten().collect())
    }

    /// Creates the credentials that upstreams make, a few at a time, after all exchanges were decided, so that a refused batch creates
    /// nothing. If one fails, the others are dropped, which removes them at the upstreams.
    async fn mint_all_upstream(&self, grants: Vec<(usize, Grant)>, decided: Millis) -> Result<Vec<BatchedMint>, (usize, Error)> {
        let mut minted = Vec::with_capacity(grants.len());
        let mut grants = grants.into_iter();
        loop {
            let some: Vec<_> = grants.by_ref().take(self.leases.places().making_per_batch).collect();
            let Some((next, _)) = some.first() else { return Ok(minted) };
            if self.system.wall().since(decided) > self.leases.timing().make_ms {
                // The rest would take as long again, and the fold would find the decisions too old.
                let no = Refusal::new(Reason::UpstreamFailed, "the upstreams are too slow for a batch of this size");
                return Err((*next, Error::Refusal(no.way_out("ask for fewer at once").retry(Duration::from_secs(1)))));
            }
            let each = some.into_iter().map(|(n, grant)| async move {
                self.leases.mint(grant, self.ledger.new_group()).await.map(|minted| (n, 0, minted)).map_err(|no| (n, no))
            });
            for one in join_all(each).await {
                minted.push(one?);
            }
        }
    }

    async fn commit_all(&self, mut fresh: Vec<BatchedMint>, done: &mut [Option<IssuedCredential>]) -> Result<(), Error> {
        let group = self.ledger.new_group();
        let mut records: Vec<Record> = Vec::with_capacity(fresh.len());
        for (_, at, minted) in &mut fresh {
            records.extend(minted.records().into_iter().map(|r| Record { group, ..r }));
            // The issuance is the last of this exchange's records.
            *at = records.len() - 1;
        }
        let receipt = self.ledger.receipt(self.ledger.propose(ProposalKind::Grant, records)?).await?;
        for (n, at, minted) in fresh {
            // One receipt covers the group; each credential is revealed with the sequence number of its own record.
            if let Some(place) = done.get_mut(n) {
                *place = Some(minted.reveal(receipt.of(at))?);
            }
        }
        Ok(())
    }
}

/// Polls all futures in one task, until the last of them is done.
pub async fn join_all<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = all.map(|f| (Box::pin(f), None)).collect();
    std::future::poll_fn(move |cx| {
        let mut ready = true;
        for (future, done) in &mut pending {
            if done.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(out) => *done = Some(out),
                    std::task::Poll::Pending => ready = false,
                }
            }
        }
        if ready {
            std::task::Poll::Ready(pending.iter_mut().filter_map(|(_, done)| done.take()).collect())
        } else {
            std::task::Poll::Pending
        }
    })
    .await
}
