//! Exchanges of one caller that arrived together: they are decided on one view, proposed at once, and answered individually.

use super::issued::issued_to_pb;
use super::note;
use super::sent::Sent;
use super::token::task_of;
use mayfly_authority::authority::Authority;
use mayfly_authority::exchange::batch::join_all;
use mayfly_authority::exchange::{Answers, Begun, Lately, Round, UnderWay, told};
use mayfly_authority::metrics::exchanges::Outcome;
use mayfly_base::refusal::{Fault, No};
use mayfly_base::trace::{self, Traced};
use mayfly_credential::Issued;
use mayfly_identity::caller::Caller;
use mayfly_policy::wanted::Wanted;
use mayfly_proto::mayfly::v1 as pb;

/// The progress of one exchange.
pub(super) enum Part {
    /// The result.
    Over(Result<Issued, No>),
    /// Decided and proposed; only the ledger's answer is missing.
    UnderWay(UnderWay),
    /// The exchange needs work that takes longer, and is decided separately.
    Waits,
}

/// A decoded request, or the request id of a malformed one.
pub(super) type Asked = Result<Box<Wanted>, String>;

/// Begins all exchanges, in their order. A malformed request is refused at once.
pub(super) fn begin(
    authority: &Authority,
    (caller, lately): (&Caller, &Lately),
    asks: impl Iterator<Item = (Sent, Traced)>,
    count: usize,
) -> (Vec<Asked>, Vec<Part>, Round) {
    let (mut wants, mut parts) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for (ask, traced) in asks {
        match ask.want() {
            Ok(mut want) => {
                traced.since_its_begin("turn");
                want.traced = traced;
                wants.push(Ok(want));
                parts.push(Part::Waits);
            }
            Err(refused) => {
                let (request_id, no) = *refused;
                wants.push(Err(request_id));
                let no = No::Refusal(no);
                told::malformed(&traced, &no);
                parts.push(Part::Over(Err(no)));
            }
        }
    }
    let mut round = authority.begin_all(caller, wants.iter().flatten().map(|want| &**want), lately);
    let begun = parts.iter_mut().zip(&wants).filter_map(|(part, want)| Some((part, want.as_ref().ok()?)));
    for ((part, want), begun) in begun.zip(std::mem::take(&mut round.begun)) {
        *part = match begun {
            Ok(Begun::UnderWay(one)) => {
                want.traced.waits("durable");
                Part::UnderWay(one)
            }
            Ok(Begun::Waits) => Part::Waits,
            Err(no) => Part::Over(Err(no)),
        };
    }
    (wants, parts, round)
}

/// The result of the next exchange, in their order. `None`: the exchange has to be decided again separately.
pub(super) async fn end(
    (authority, lately): (&Authority, &Lately),
    part: Part,
    asked: &Asked,
    answers: &mut Answers,
) -> Option<Result<Issued, No>> {
    match part {
        Part::Over(end) => Some(end),
        Part::Waits => None,
        Part::UnderWay(one) => {
            // Nearly all exchanges are answered already; large values are kept out of the future.
            let end = if one.in_round() { one.reveal(answers.take_next()) } else { authority.finish_of(one, answers).await };
            if let Err(no) = &end {
                lately.refused(no);
            }
            if let Ok(want) = asked {
                want.traced.waited(|| end.as_ref().map(|one| ("mayfly.seq", one.seq().as_u64().into())).into_iter().collect());
            }
            Some(end).filter(|end| !end.as_ref().is_err_and(Authority::takes_another_look))
        }
    }
}

/// The answer to the caller. The refusal of a well-formed request is recorded.
pub(super) fn told(
    authority: &Authority,
    caller: &Caller,
    want: Option<&Wanted>,
    end: Result<Issued, No>,
) -> Result<pb::Issued, No> {
    noted(authority, caller, want, end).map(issued_to_pb)
}

/// Records the refusal of a well-formed request.
pub(super) fn noted(
    authority: &Authority,
    caller: &Caller,
    want: Option<&Wanted>,
    end: Result<Issued, No>,
) -> Result<Issued, No> {
    match want {
        Some(want) => authority.exchange_metrics.count(&want.upstream, &end),
        None => authority.exchange_metrics.count_stray(Outcome::Refused),
    }
    if let Some(want) = want {
        if let Err(no) = &end {
            refused(authority, caller, want, no);
        }
        told::ended(authority, want, &end);
    }
    end
}

/// Records that an exchange was refused, or logs why it failed.
pub(super) fn refused(authority: &Authority, caller: &Caller, want: &Wanted, no: &No) {
    want.traced.within(|| note(authority, caller, no, &want.upstream, &task_of(want)));
    failed(caller, want, no);
}

/// Logs a fault with the data that identifies the call, since the audit has no record of it.
fn failed(caller: &Caller, want: &Wanted, no: &No) {
    if let No::Fault(fault) = no {
        let request_id = want.request_id.as_deref().map(trace::plain);
        tracing::error!(
            %fault, caller = caller.id().as_str(), request_id, task_id = task_of(want), trace_id = want.traced.text(),
            "an exchange failed"
        );
    }
}

/// The results of all exchanges, in the order of the requests.
pub(super) async fn ends(authority: &Authority, caller: &Caller, asks: Vec<Sent>) -> Vec<Result<Issued, No>> {
    let (count, call) = (asks.len(), trace::current());
    let asks = asks.into_iter().map(|ask| (ask, call.one_of()));
    let lately = Lately::default();
    let (wants, parts, mut round) = begin(authority, (caller, &lately), asks, count);
    let mut answers = authority.answers(&mut round).await;
    let (mut ends, mut later) = (Vec::with_capacity(parts.len()), Vec::new());
    for (n, (want, part)) in wants.into_iter().zip(parts).enumerate() {
        match (end((authority, &lately), part, &want, &mut answers).await, want) {
            (Some(end), want) => ends.push(Some(noted(authority, caller, want.as_deref().ok(), end))),
            (None, Ok(want)) => {
                ends.push(None);
                later.push((n, want));
            }
            (None, Err(_)) => ends.push(Some(Err(Fault::new("a round with what nobody asked").into()))),
        }
    }
    drop(round); // no commit waits for what takes its time
    let each = later.into_iter().map(|(n, want)| async move {
        let end = want.traced.clone().scope(authority.exchange(caller, &want)).await;
        (n, noted(authority, caller, Some(&want), end))
    });
    for (n, answer) in join_all(each).await {
        if let Some(place) = ends.get_mut(n) {
            *place = Some(answer);
        }
    }
    ends.into_iter().flatten().collect()
}
