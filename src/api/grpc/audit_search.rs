//! SearchRecords: a page of records that fit, newest first.

use prost::Message as _;

use super::super::wire;
use super::audit::record_to_pb;
use super::audit_prove::filter_text;
use super::page::{PageRequest, foreign_token, same_request};
use super::request_checks;
use mayfly_authority::authority::Authority;
use mayfly_authority::tasks::Actor;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Refusal};
use mayfly_ledger::reader::search::{HistoryFilter, Match, SearchCursor};
use mayfly_ledger::record::{AuditReadKind, EVENT_NAMES, NameKind};
use mayfly_policy::{admin, exchange_request};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_verify::seq::{Seq, TaskId};

/// A checked filter, and the environment that it keeps to.
pub fn filter(asked: Option<&pb::RecordFilter>) -> Result<(HistoryFilter, Option<String>), Refusal> {
    let Some(f) = asked else { return Ok((HistoryFilter::default(), None)) };
    let moment = |field, at: &Option<prost_types::Timestamp>| match at {
        None => Ok(None),
        Some(at) => wire::millis(at).map(Some).ok_or_else(|| Refusal::field(field, "is no moment since 1970")),
    };
    let (since, until) = (moment("filter.since", &f.since)?, moment("filter.until", &f.until)?);
    if since.is_some_and(|since| until.is_some_and(|until| since >= until)) {
        return Err(Refusal::field("filter.until", "is not after filter.since: nothing is between them"));
    }
    let mut names = Vec::new();
    if !f.event.is_empty() {
        if !EVENT_NAMES.contains(&f.event.as_str()) {
            let known = EVENT_NAMES.join(", ");
            return Err(Refusal::field("filter.event", format!("is no event of this version; known: {known}")));
        }
        names.push((Some(NameKind::Event), f.event.clone()));
    }
    if !f.task_id.is_empty() {
        let id: TaskId = exchange_request::id("filter.task_id", &f.task_id)?;
        names.push((Some(NameKind::Task), id.to_string()));
    }
    let texts = [
        ("filter.names", None, &f.names),
        ("filter.workload", Some(NameKind::Workload), &f.workload),
        ("filter.upstream", Some(NameKind::Upstream), &f.upstream),
        ("filter.tool", Some(NameKind::Tool), &f.tool),
        ("filter.environment", Some(NameKind::Environment), &f.environment),
    ];
    for (field, sort, value) in texts {
        names.extend(request_checks::filter(field, value)?.map(|text| (sort, text.to_owned())));
    }
    let seq = match f.seq {
        0 => None,
        seq => Some(wire::seq("filter.seq", seq)?),
    };
    Ok((HistoryFilter { since, until, seq, names }, Some(f.environment.clone()).filter(|e| !e.is_empty())))
}

/// Searches for one page of records.
pub async fn search(a: &Authority, actor: &Actor, ask: &pb::SearchRecordsRequest) -> Result<pb::SearchRecordsResponse, Error> {
    let (filter, environment) = filter(ask.filter.as_ref())?;
    let scope = a.scope_of::<admin::ReadAudit>(request_checks::operator(actor)?, environment.as_deref())?;
    let size = PageRequest::from(ask.page_size, "")?.size();
    let of = same_request(ask);
    let from = match ask.page_token.as_str() {
        "" => None,
        token => Some(turn(&of, token).ok_or_else(foreign_token)?),
    };
    let mut found = a.search(filter, from, size).await?;
    if let Some(scope) = scope {
        found.records.retain(|one| scope.has_all(&a.environments_of_record(&one.past.record)));
    }
    let whole = found.records.len();
    let mut next = found.next;
    let (mut records, mut bytes) = (Vec::new(), 0);
    for one in std::mem::take(&mut found.records) {
        let (position, record) = (one.past.position, match_to_pb(&one));
        bytes += record.encoded_len();
        if bytes > limits::SEARCH_PAGE_BYTES && !records.is_empty() {
            // The next page reads this commit again: the records of the commit that this page has already come after this record.
            let last_of = found.ends.iter().find(|(at, _)| *at == position).map(|(_, seq)| *seq);
            let before: Option<Seq> = records.last().and_then(|r: &pb::Record| Seq::from_u64(r.seq));
            if let (Some(seq), Some(before)) = (last_of, before) {
                next = Some(SearchCursor { position, seq, before });
                found.reached = before;
            }
            break;
        }
        records.push(record);
    }
    let removed = found.removed.filter(|_| records.len() == whole);
    let who = a.scope::<admin::ReadAudit>(request_checks::operator(actor)?)?.who();
    a.audit_read(&who, AuditReadKind::Search, &filter_text(ask.filter.as_ref()), records.len() as u64).await;
    Ok(pb::SearchRecordsResponse {
        records,
        next_page_token: next.map_or_else(String::new, |turn| token(&of, turn)),
        searched_to: found.reached.as_u64(),
        removed_up_to: removed.map_or(0, Seq::as_u64),
    })
}

/// The protobuf form of a match.
pub fn match_to_pb(one: &Match) -> pb::Record {
    pb::Record { group: one.group.as_u64(), ..record_to_pb(&one.past) }
}

fn token(of: &str, turn: SearchCursor) -> String {
    let text = format!("{of}:{}:{}:{}", turn.position, turn.seq, turn.before);
    data_encoding::BASE64URL_NOPAD.encode(text.as_bytes())
}

/// Parses a page token of the same request. A forged token gives wrong results only to the caller that sends it.
fn turn(of: &str, token: &str) -> Option<SearchCursor> {
    let text = String::from_utf8(data_encoding::BASE64URL_NOPAD.decode(token.as_bytes()).ok()?).ok()?;
    let mut parts = text.strip_prefix(of)?.strip_prefix(':')?.split(':');
    let turn = SearchCursor {
        position: parts.next()?.parse().ok()?,
        seq: parts.next()?.parse().ok()?,
        before: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(turn)
}
