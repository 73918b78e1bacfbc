//! Several exchanges of one caller that stand or fall together.

use super::again::Before;
use super::{TRIES, beaten, beaten_by_a_twin, made_here, worth_another_try};
use crate::authority::Authority;
use crate::credential::{Issued, Minted};
use crate::identity::caller::Caller;
use crate::ledger::Lane;
use crate::ledger::record::Record;
use crate::limits;
use crate::policy::grant::Grant;
use crate::policy::wanted::Wanted;
use crate::refusal::{Fault, No};

impl Authority {
    /// One group, one commit. A refusal says which of them it is about.
    pub async fn exchange_all(&self, caller: &Caller, wants: &[Wanted]) -> Result<Vec<Issued>, (usize, No)> {
        for again in 1.. {
            match self.try_all(caller, wants).await {
                Err((_, no)) if again < TRIES && worth_another_try(&no, false) => {
                    self.ledger.settled(|_| ()).await.map_err(|no| (0, no))?;
                }
                answer => return answer,
            }
        }
        Err((0, No::Fault(Fault::new("exchange: tries ran out"))))
    }

    async fn try_all(&self, caller: &Caller, wants: &[Wanted]) -> Result<Vec<Issued>, (usize, No)> {
        self.still_stands(caller).map_err(|no| (0, no))?;
        let mut view = self.ledger.view();
        let mut made = Vec::with_capacity(wants.len());
        for (n, want) in wants.iter().enumerate() {
            made.push(self.made_for(&view, caller, want).await.map_err(|no| (n, no))?);
        }
        let replaces = made.iter().any(|before| matches!(before, Before::Replace(_)));
        if replaces {
            view = self.ledger.view(); // the upstreams were asked, which takes its time
        }
        let (mut done, mut fresh, mut elsewhere) = (Vec::with_capacity(wants.len()), Vec::new(), Vec::new());
        for (n, (want, before)) in wants.iter().zip(made).enumerate() {
            let grant = match &before {
                Before::Same(_) => None,
                Before::Nothing => Some(self.decide(&view, caller, want).map_err(|no| (n, no))?),
                Before::Replace(instead) => Some(self.decide(&view, caller, instead).map_err(|no| (n, no))?),
            };
            match grant {
                None => {}
                Some(grant) if made_here(grant.kind()) => {
                    fresh.push((n, self.mint_here(grant, &view).map_err(|no| (n, no))?));
                }
                Some(grant) => {
                    self.makes(&grant).map_err(|no| (n, no))?;
                    elsewhere.push((n, grant));
                }
            }
            done.push(if let Before::Same(issued) = before { Some(issued) } else { None });
        }
        if !elsewhere.is_empty() {
            fresh.extend(Box::pin(self.mint_all_elsewhere(elsewhere)).await?);
        }
        if !fresh.is_empty() {
            let committed = self.commit_all(fresh, &mut done).await;
            committed.map_err(|no| (0, if replaces && beaten_by_a_twin(&no, true) { beaten() } else { no }))?;
        }
        Ok(done.into_iter().flatten().collect())
    }

    /// A few at a time, and only after all were decided: what is refused makes nothing upstream. One that fails drops the others, which
    /// are undone.
    async fn mint_all_elsewhere(&self, grants: Vec<(usize, Grant)>) -> Result<Vec<(usize, Minted)>, (usize, No)> {
        let mut minted = Vec::with_capacity(grants.len());
        let mut grants = grants.into_iter();
        loop {
            let some: Vec<_> = grants.by_ref().take(limits::LEASES_MAKING_PER_BATCH).collect();
            if some.is_empty() {
                return Ok(minted);
            }
            let each = some.into_iter().map(|(n, grant)| async move {
                self.leases.mint(grant, self.ledger.new_group()).await.map(|m| (n, m)).map_err(|no| (n, no))
            });
            for one in join_all(each).await {
                minted.push(one?);
            }
        }
    }

    async fn commit_all(&self, fresh: Vec<(usize, Minted)>, done: &mut [Option<Issued>]) -> Result<(), No> {
        let group = self.ledger.new_group();
        let mut records: Vec<Record> = Vec::with_capacity(fresh.len());
        let mut placed = Vec::with_capacity(fresh.len());
        for (n, mut minted) in fresh {
            records.extend(minted.records().into_iter().map(|r| Record { group, ..r }));
            placed.push((n, records.len() - 1, minted));
        }
        let receipt = self.ledger.receipt(self.ledger.propose(Lane::Grant, records)?).await?;
        for (n, at, minted) in placed {
            // One receipt covers the group; each credential is revealed with its own record's place in it.
            if let Some(place) = done.get_mut(n) {
                *place = Some(minted.reveal(receipt.of(at)));
            }
        }
        Ok(())
    }
}

/// Polls all of them in one task; the slowest ends it.
pub(crate) async fn join_all<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
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
