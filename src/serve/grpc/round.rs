//! Exchanges of one caller that came together: decided on one view, proposed at once, each answered by itself.

use std::collections::VecDeque;

use super::issued::issued_to_pb;
use super::note;
use super::token::task_of;
use crate::authority::Authority;
use crate::credential::Issued;
use crate::exchange::batch::join_all;
use crate::exchange::{Begun, Round, UnderWay};
use crate::identity::caller::Caller;
use crate::pb::mayfly::v1 as pb;
use crate::policy::wanted::Wanted;
use crate::refusal::{Fault, No};

/// What became of one of them so far.
pub(super) enum Part {
    /// Its end.
    Over(Result<Issued, No>),
    /// Nothing is left but the ledger.
    UnderWay(UnderWay),
    /// It rests on something that takes its time.
    Waits,
}

/// Begins all. A request that is not well formed has its refusal at once.
pub(super) fn begin(
    authority: &Authority,
    caller: &Caller,
    asks: Vec<pb::ExchangeRequest>,
) -> (Vec<(Option<Wanted>, Part)>, Round) {
    let wants: Vec<Result<Wanted, No>> = asks.into_iter().map(|ask| Wanted::from_pb(ask).map_err(No::Refusal)).collect();
    let good: Vec<&Wanted> = wants.iter().flatten().collect();
    let mut round = authority.begin_all(caller, good.into_iter());
    let mut begun: VecDeque<_> = std::mem::take(&mut round.begun).into();
    let parts = wants.into_iter().map(|want| match want {
        Err(no) => (None, Part::Over(Err(no))),
        Ok(want) => {
            let part = match begun.pop_front() {
                Some(Ok(Begun::UnderWay(one))) => Part::UnderWay(one),
                Some(Ok(Begun::Waits)) => Part::Waits,
                Some(Err(no)) => Part::Over(Err(no)),
                None => Part::Over(Err(Fault::new("a round that lost one of its exchanges").into())),
            };
            (Some(want), part)
        }
    });
    (parts.collect(), round)
}

/// The end of one. `None`: it takes another look.
pub(super) async fn end(authority: &Authority, part: Part) -> Option<Result<Issued, No>> {
    match part {
        Part::Over(end) => Some(end),
        Part::Waits => None,
        Part::UnderWay(one) => {
            Some(authority.finish(one).await).filter(|end| !end.as_ref().is_err_and(Authority::takes_another_look))
        }
    }
}

/// What a caller is told; a refusal of what was well formed is noted.
pub(super) fn told(
    authority: &Authority,
    caller: &Caller,
    want: Option<&Wanted>,
    end: Result<Issued, No>,
) -> Result<pb::Issued, No> {
    let told = end.map(issued_to_pb);
    if let (Err(no), Some(want)) = (&told, want) {
        note(authority, caller, no, &want.upstream, &task_of(want));
    }
    told
}

/// The answers of all, in the order in which they were asked.
pub(super) async fn answers(
    authority: &Authority,
    caller: &Caller,
    asks: Vec<pb::ExchangeRequest>,
) -> Vec<Result<pb::Issued, No>> {
    let (parts, round) = begin(authority, caller, asks);
    let (mut ends, mut later) = (Vec::with_capacity(parts.len()), Vec::new());
    for (n, (want, part)) in parts.into_iter().enumerate() {
        let end = end(authority, part).await;
        match (end, want) {
            (Some(end), want) => ends.push(Some(told(authority, caller, want.as_ref(), end))),
            (None, Some(want)) => {
                ends.push(None);
                later.push((n, want));
            }
            (None, None) => ends.push(Some(Err(Fault::new("a round with what nobody asked").into()))),
        }
    }
    drop(round); // no commit waits for what takes its time
    let each = later.into_iter().map(|(n, want)| async move {
        let end = authority.exchange(caller, &want).await;
        (n, told(authority, caller, Some(&want), end))
    });
    for (n, answer) in join_all(each).await {
        if let Some(place) = ends.get_mut(n) {
            *place = Some(answer);
        }
    }
    ends.into_iter().flatten().collect()
}
#[cfg(test)]
mod sizes {
    #[test]
    fn sizes() {
        macro_rules! p { ($($t:ty),*) => { $( println!("{} {}", std::mem::size_of::<$t>(), stringify!($t)); )* } }
        p!(crate::pb::mayfly::v1::ExchangeRequest, crate::policy::wanted::Wanted, crate::policy::grant::Grant, crate::ledger::record::Issued, crate::ledger::record::Record, crate::credential::Minted, crate::exchange::UnderWay, crate::pb::mayfly::v1::Issued, crate::pb::mayfly::v1::StreamExchangeResponse, crate::refusal::No, super::Part, crate::ledger::Receipt, crate::ledger::commit::Encoded, Result<crate::credential::Issued, crate::refusal::No>, crate::revocation::Facts<'static>);
    }
}
