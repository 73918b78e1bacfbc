//! A batch of exchanges of one caller: the exchanges are decided on one view, proposed at once, and answered individually.

use super::{ReceivedRequest, note, task_of};
use mayfly_authority::authority::Authority;
use mayfly_authority::exchange::all_or_nothing::join_all;
use mayfly_authority::exchange::{BatchReceipts, BegunExchange, DecisionCache, ExchangeBatch, PendingExchange, trace_attributes};
use mayfly_authority::metrics::exchanges::ExchangeOutcome;
use mayfly_base::refusal::{Error, Fault};
use mayfly_base::trace::{self, CallTrace};
use mayfly_credential::IssuedCredential;
use mayfly_identity::caller::Caller;
use mayfly_policy::exchange_request::ExchangeRequest;

/// The progress of one exchange.
pub(super) enum ExchangeProgress {
    /// The result.
    Over(Result<IssuedCredential, Error>),
    /// Decided and proposed; only the ledger's answer is missing.
    UnderWay(PendingExchange),
    /// The exchange needs work that takes longer, and is decided separately.
    Waits,
}

/// A decoded request, or the request id of a malformed one.
pub(super) type DecodedRequest = Result<Box<ExchangeRequest>, String>;

/// Begins all exchanges, in their order. A malformed request is refused at once.
pub(super) fn begin(
    authority: &Authority,
    (caller, cache): (&Caller, &DecisionCache),
    asks: impl Iterator<Item = (impl ReceivedRequest, CallTrace)>,
    count: usize,
) -> (Vec<DecodedRequest>, Vec<ExchangeProgress>, ExchangeBatch) {
    let (mut wants, mut parts) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for (ask, traced) in asks {
        match ask.check() {
            Ok(mut want) => {
                traced.since_its_begin("turn");
                want.traced = traced;
                wants.push(Ok(want));
                parts.push(ExchangeProgress::Waits);
            }
            Err(refused) => {
                let (request_id, no) = *refused;
                wants.push(Err(request_id));
                let no = Error::Refusal(no);
                trace_attributes::malformed(&traced, &no);
                parts.push(ExchangeProgress::Over(Err(no)));
            }
        }
    }
    let mut batch = authority.begin_all(caller, wants.iter().flatten().map(|want| &**want), cache);
    let begun = parts.iter_mut().zip(&wants).filter_map(|(part, want)| Some((part, want.as_ref().ok()?)));
    for ((part, want), begun) in begun.zip(std::mem::take(&mut batch.begun)) {
        *part = match begun {
            Ok(BegunExchange::UnderWay(one)) => {
                want.traced.waits("durable");
                ExchangeProgress::UnderWay(one)
            }
            Ok(BegunExchange::Waits) => ExchangeProgress::Waits,
            Err(no) => ExchangeProgress::Over(Err(no)),
        };
    }
    (wants, parts, batch)
}

/// The result of the next exchange, in their order. `None`: the exchange has to be decided again separately.
pub(super) async fn end(
    (authority, cache): (&Authority, &DecisionCache),
    part: ExchangeProgress,
    asked: &DecodedRequest,
    answers: &mut BatchReceipts,
) -> Option<Result<IssuedCredential, Error>> {
    match part {
        ExchangeProgress::Over(end) => Some(end),
        ExchangeProgress::Waits => None,
        ExchangeProgress::UnderWay(one) => {
            // Nearly all exchanges are answered already; large values are kept out of the future.
            let end = if one.in_batch() { one.reveal(answers.take_next()) } else { authority.finish_of(one, answers).await };
            if let Err(no) = &end {
                cache.refused(no);
            }
            if let Ok(want) = asked {
                want.traced.waited(|| end.as_ref().map(|one| ("mayfly.seq", one.seq().as_u64().into())).into_iter().collect());
            }
            Some(end).filter(|end| !end.as_ref().is_err_and(Authority::takes_another_look))
        }
    }
}

/// Records the refusal of a well-formed request.
pub(super) fn record_outcome(
    authority: &Authority,
    caller: &Caller,
    want: Option<&ExchangeRequest>,
    end: Result<IssuedCredential, Error>,
) -> Result<IssuedCredential, Error> {
    match want {
        Some(want) => authority.exchange_metrics.count(&want.upstream, &end),
        None => authority.exchange_metrics.count_stray(ExchangeOutcome::Refused),
    }
    if let Some(want) = want {
        if let Err(no) = &end {
            refused(authority, caller, want, no);
        }
        trace_attributes::ended(authority, want, &end);
    }
    end
}

/// Records that an exchange was refused, or logs why it failed.
pub(in super::super) fn refused(authority: &Authority, caller: &Caller, want: &ExchangeRequest, no: &Error) {
    want.traced.within(|| note(authority, caller, no, &want.upstream, &task_of(want)));
    failed(caller, want, no);
}

/// Logs a fault with the data that identifies the call, since the audit has no record of it.
fn failed(caller: &Caller, want: &ExchangeRequest, no: &Error) {
    if let Error::Fault(fault) = no {
        let request_id = want.request_id.as_deref().map(trace::plain);
        tracing::error!(
            %fault, caller = caller.id().as_str(), request_id, task_id = task_of(want), trace_id = want.traced.text(),
            "an exchange failed"
        );
    }
}

/// The results of all exchanges, in the order of the requests.
pub(in super::super) async fn exchange_each(
    authority: &Authority,
    caller: &Caller,
    asks: Vec<impl ReceivedRequest>,
) -> Vec<Result<IssuedCredential, Error>> {
    let (count, call) = (asks.len(), trace::current());
    let asks = asks.into_iter().map(|ask| (ask, call.one_of()));
    let cache = DecisionCache::default();
    let (wants, parts, mut batch) = begin(authority, (caller, &cache), asks, count);
    let mut answers = authority.answers(&mut batch).await;
    let (mut ends, mut later) = (Vec::with_capacity(parts.len()), Vec::new());
    for (n, (want, part)) in wants.into_iter().zip(parts).enumerate() {
        match (end((authority, &cache), part, &want, &mut answers).await, want) {
            (Some(end), want) => ends.push(Some(record_outcome(authority, caller, want.as_deref().ok(), end))),
            (None, Ok(want)) => {
                ends.push(None);
                later.push((n, want));
            }
            (None, Err(_)) => ends.push(Some(Err(Fault::new("a batch has an answer to no request").into()))),
        }
    }
    drop(batch); // no commit waits for what takes its time
    let each = later.into_iter().map(|(n, want)| async move {
        let end = want.traced.clone().scope(authority.exchange(caller, &want)).await;
        (n, record_outcome(authority, caller, Some(&want), end))
    });
    for (n, answer) in join_all(each).await {
        if let Some(place) = ends.get_mut(n) {
            *place = Some(answer);
        }
    }
    ends.into_iter().flatten().collect()
}
