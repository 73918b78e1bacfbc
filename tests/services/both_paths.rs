//! The fast path and the plain path of the exchange: the same calls are made on two servers, one of which answers each exchange by itself,
//! and the answers and the records must be the same.
//!
//! The ids, the signatures and the indices in status lists are random, so ids are replaced by the order of their first appearance. Refusals
//! are recorded in the background, so sequence numbers are left out and refusals are compared by their counts. All else is compared as it
//! stands.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::ops::ControlFlow;

use bytes::{Buf, BufMut, Bytes};
use http_body_util::{BodyExt, Full};
use mayfly::exchange::ExchangePath;
use mayfly::ledger::reader::history::{HistoryRecord, LogEnd};
use mayfly::ledger::reader::history_query::CancelFlag;
use mayfly::ledger::record::{Event, TaskOutcome};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::serve::connection_table::ConnectionActivity;
use mayfly::serve::grpc::{ConnectionServices, workload_routes};
use mayfly::serve::shares::ShareLimits;
use mayfly::tasks::Actor;
use prost::Message;
use tonic::Status;
use tonic_types::StatusExt;

use super::World;
use super::kit::house::{house_by, runtime};
use super::locked::exchange;

const UNARY: &str = "/mayfly.v1.TokenService/Exchange";
const BATCH: &str = "/mayfly.v1.TokenService/BatchExchange";
const STREAM: &str = "/mayfly.v1.TokenService/StreamExchange";

/// One server, one connection, and what was seen of it.
struct Side {
    w: World,
    /// A runtime of one thread, so that calls that are made together begin in the order in which they were made.
    one: tokio::runtime::Runtime,
    calls: ConnectionServices,
    names: Names,
    log: String,
}

/// Whether the exchanges of a story have one order, or some of them are made at once.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    /// Each call begins when the one before was answered: the order of the records is compared as well.
    One,
    /// Exchanges that are made at once are decided on any view and committed in any order.
    Any,
}

/// The random values that were seen, in the order of their first appearance.
struct Names(Order, HashMap<String, usize>);

impl Names {
    fn of(&mut self, value: &str) -> String {
        let next = self.1.len();
        match self.0 {
            Order::One => format!("#{}", self.1.entry(value.to_owned()).or_insert(next)),
            Order::Any => "#".to_owned(),
        }
    }

    /// The text with every id, and every list of 16 bytes and more, replaced.
    fn canonical(&mut self, text: &str) -> String {
        let (mut out, mut rest) = (String::new(), text);
        while let Some(at) = rest.find(|c: char| c.is_ascii_alphanumeric() || c == '[') {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            let list = rest.strip_prefix('[').and_then(|list| Some(&list[..list.find(']')?]));
            if let Some(list) =
                list.filter(|l| l.split(", ").count() >= 16 && l.chars().all(|c| matches!(c, '0'..='9' | ',' | ' ')))
            {
                out.push_str(&self.of(list));
                rest = &rest[list.len() + 2..];
                continue;
            }
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len()).max(1);
            let word = &rest[..end];
            // An id, or the digest of a key or certificate that each server made for itself.
            let id = ["cred_", "task_", "apr_"].iter().any(|prefix| word.starts_with(prefix) && word.len() > prefix.len() + 20);
            let random = id || (word.len() == 64 && word.chars().all(|c| c.is_ascii_hexdigit()));
            // Sequence numbers and decision revisions: refusals are recorded in the background and shift them.
            let seq = word.len() >= 14 && word.chars().all(|c| c.is_ascii_digit());
            let word = if seq { "SEQ" } else { word };
            out.push_str(&if random { self.of(word) } else { word.to_owned() });
            rest = &rest[end..];
        }
        out + rest
    }
}

impl Side {
    fn new(path: ExchangePath, order: Order) -> Side {
        let w = World { house: house_by(path), runtime: runtime() };
        let services = workload_routes(w.authority(), &tonic_health::server::HealthReporter::new());
        let calls = services.on_connection(w.workload("/agent/demo"), ConnectionActivity::alone(ShareLimits::AUTHENTICATED));
        let one = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Side { w, one, calls, names: Names(order, HashMap::new()), log: String::new() }
    }

    /// Makes a call whose body has these messages; returns the messages of the answer, and its status.
    fn call(&self, path: &str, messages: &[Vec<u8>]) -> (Vec<Bytes>, Status) {
        let mut body = Vec::new();
        for message in messages {
            body.put_u8(0);
            body.put_u32(u32::try_from(message.len()).unwrap());
            body.put_slice(message);
        }
        let request = http::Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let arrived = self.calls.arrived(&request);
        let collected = self.one.block_on(async {
            let response = self.calls.answer(request, arrived, &Default::default()).await;
            let status = Status::from_header_map(response.headers());
            let body = response.into_body().collect().await.unwrap();
            let status = status.or_else(|| Status::from_header_map(body.trailers()?)).unwrap();
            (body.to_bytes(), status)
        });
        let (mut bytes, status) = collected;
        let mut answers = Vec::new();
        while bytes.has_remaining() {
            assert_eq!(bytes.get_u8(), 0, "answers are not compressed");
            let length = bytes.get_u32() as usize;
            answers.push(bytes.split_to(length));
        }
        (answers, status)
    }

    fn note(&mut self, text: &str) {
        let text = self.names.canonical(text);
        writeln!(self.log, "{text}").unwrap();
    }

    /// Notes the status of a call, and what its messages are as `M`. The messages are encoded as prost encodes them.
    fn answered<M: Message + Default>(
        &mut self,
        what: &str,
        (answers, status): &(Vec<Bytes>, Status),
        show: impl Fn(&M) -> String,
    ) {
        let details = (status.get_details_error_info(), status.get_details_bad_request().map(|b| b.field_violations));
        self.note(&format!("{what}: {:?} {} {details:?}", status.code(), status.message()));
        let mut shown: Vec<String> = answers
            .iter()
            .map(|bytes| {
                let message = M::decode(bytes.clone()).unwrap();
                assert_eq!(message.encode_to_vec(), bytes[..], "{what}: the bytes are prost's");
                show(&message)
            })
            .collect();
        // The answers of a stream come in any order; each begins with its request id.
        shown.sort();
        shown.iter().for_each(|one| self.note(one));
    }

    fn unary(&mut self, what: &str, ask: &pb::ExchangeRequest) {
        let answer = self.call(UNARY, &[ask.encode_to_vec()]);
        self.answered(what, &answer, |m: &pb::ExchangeResponse| show(m.issued.as_ref().unwrap()));
    }

    fn batch(&mut self, what: &str, exchanges: Vec<pb::ExchangeRequest>, all_or_nothing: bool) {
        let answer = self.call(BATCH, &[pb::BatchExchangeRequest { exchanges, all_or_nothing }.encode_to_vec()]);
        self.answered(what, &answer, |m: &pb::BatchExchangeResponse| {
            let each = m.results.iter().map(|one| match one.result.as_ref().unwrap() {
                pb::exchange_result::Result::Issued(issued) => show(issued),
                pb::exchange_result::Result::Problem(problem) => format!("{problem:?}"),
            });
            each.collect::<Vec<_>>().join("\n")
        });
    }

    fn stream(&mut self, what: &str, asks: &[pb::ExchangeRequest]) {
        let message = |ask: &pb::ExchangeRequest| {
            let ask = Some(pb::stream_exchange_request::Ask::Exchange(ask.clone()));
            pb::StreamExchangeRequest { ask }.encode_to_vec()
        };
        let answer = self.call(STREAM, &asks.iter().map(message).collect::<Vec<_>>());
        self.answered(what, &answer, |m: &pb::StreamExchangeResponse| {
            let result = match m.result.as_ref().unwrap() {
                pb::stream_exchange_response::Result::Issued(issued) => show(issued),
                pb::stream_exchange_response::Result::Problem(problem) => format!("{problem:?}"),
            };
            format!("{}: {result}", m.request_id)
        });
    }

    /// The task of the newest issuance.
    fn newest_task(&self) -> String {
        let mut found = None;
        self.each_record(|past| {
            if let Some(Event::Issued(e)) = &past.record.event {
                found.get_or_insert_with(|| mayfly::seq::TaskId::from_slice(&e.task).unwrap().to_string());
            }
        });
        found.unwrap()
    }

    fn each_record(&self, mut see: impl FnMut(HistoryRecord)) {
        let ledger = &self.w.authority().ledger;
        let end = ledger.peek(|s| LogEnd { position: s.position, seq: s.head });
        let note = |past| {
            see(past);
            ControlFlow::Continue(())
        };
        ledger.look_back(end, usize::MAX, &CancelFlag::default(), note).unwrap();
    }

    /// All records, from the first. How records are put into groups and commits is the business of each path, and indices in status lists
    /// are random.
    fn records(&mut self) -> String {
        let (mut all, mut refused) = (Vec::new(), BTreeMap::<String, u64>::new());
        self.each_record(|past| {
            let mut record = past.record;
            record.group = 0;
            if let Some(Event::KeyAdded(e)) = &mut record.event {
                e.key.clear();
            }
            if let Some(Event::Issued(e)) = &mut record.event {
                e.key.clear();
                assert!(e.status_list > 0 || e.status_index > 0 || e.kind != 1, "a JWT has a place in a status list");
                e.status_index = 0;
            }
            match &record.event {
                Some(Event::Refused(e)) => {
                    *refused.entry(format!("{} {} {} {}", e.caller, e.reason, e.rule, e.asked)).or_default() += e.count
                }
                _ => all.push(format!("{:?} {record:?}", past.at)),
            }
        });
        all.reverse();
        let mut names = Names(self.names.0, HashMap::new());
        let mut all: Vec<String> = all.iter().map(|one| names.canonical(one) + "\n").collect();
        if names.0 == Order::Any {
            all.sort();
        }
        all.concat() + &format!("{refused:#?}")
    }
}

/// The answer, with the claims of its token instead of the token.
fn show(issued: &pb::Issued) -> String {
    let mut issued = issued.clone();
    let mut claims = String::new();
    if let Some(pb::issued::Answer::BearerToken(bearer)) = &mut issued.answer {
        let token = std::mem::take(&mut bearer.token);
        let parts: Vec<&str> = token.split('.').collect();
        claims = match parts[..] {
            [header, payload, signature] => {
                assert_eq!(signature.len(), 86, "ES256");
                let read = |part: &str| -> serde_json::Value {
                    serde_json::from_slice(&data_encoding::BASE64URL_NOPAD.decode(part.as_bytes()).unwrap()).unwrap()
                };
                let (mut header, mut payload) = (read(header), read(payload));
                header["kid"].take();
                payload["status"]["status_list"]["idx"].take();
                format!("{header} {payload}")
            }
            _ => format!("a reference of {} bytes", token.len()),
        };
    }
    format!("{issued:?} {} {claims}", issued.credential_id)
}

/// Runs a story on both paths and compares what was answered and recorded.
fn same(order: Order, story: impl Fn(&mut Side)) {
    let mut sides = [ExchangePath::Fast, ExchangePath::Plain].map(|path| {
        let mut side = Side::new(path, order);
        story(&mut side);
        side.w.pass(1);
        side
    });
    equal(&sides[0].log, &sides[1].log);
    // Refusals are recorded in the background.
    let mut records = sides.each_mut().map(Side::records);
    for _ in 0..250 {
        if records[0] == records[1] {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
        records = sides.each_mut().map(Side::records);
    }
    equal(&records[0], &records[1]);
}

fn equal(fast: &str, plain: &str) {
    assert!(fast.lines().count() > 1);
    for (n, (a, b)) in fast.lines().zip(plain.lines()).enumerate() {
        assert_eq!(a, b, "line {n}");
    }
    assert_eq!(fast.lines().count(), plain.lines().count());
}

fn in_task(task: &str, request_id: &str) -> pb::ExchangeRequest {
    let task = Some(pb::exchange_request::Task::TaskId(task.to_owned()));
    pb::ExchangeRequest { task, tool: format!("tool-{}", request_id.len()), ..exchange(request_id) }
}

/// Requests of one task in each form: plain, with a key binding and a digest of arguments, as a reference, malformed, refused, repeated.
fn every_form(task: &str, of: &str) -> Vec<pb::ExchangeRequest> {
    let named = |name: &str| in_task(task, &format!("{of}-{name}"));
    vec![
        named("one"),
        named("two"),
        pb::ExchangeRequest { kind: 2, ..named("reference") },
        pb::ExchangeRequest { ttl: Some(prost_types::Duration { seconds: 7, nanos: 0 }), ..named("short") },
        pb::ExchangeRequest {
            arguments: Some(pb::Arguments { arguments: Some(pb::arguments::Arguments::Json("{\"a\":1}".into())) }),
            ..named("json")
        },
        pb::ExchangeRequest { upstream: "nowhere".into(), ..named("nowhere") },
        pb::ExchangeRequest { upstream: String::new(), ..named("malformed") },
        pb::ExchangeRequest { scopes: vec!["echo:admin".into()], ..named("sensitive") },
        pb::ExchangeRequest { scopes: vec!["echo:write".into()], ..named("beyond-its-task") },
        pb::ExchangeRequest { tool: "t".repeat(300), ..named("long") },
        named("three"),
        named("one"),
        pb::ExchangeRequest { purpose: "another request with a used id".into(), ..named("two") },
        exchange(&format!("{of}-inline")),
    ]
}

#[test]
fn single_exchanges_are_answered_and_recorded_alike() {
    same(Order::One, |side| {
        side.unary("inline", &exchange("first"));
        let task = side.newest_task();
        for ask in every_form(&task, "unary") {
            side.unary(&ask.request_id.clone(), &ask);
        }
        side.unary("without a request id", &in_task(&task, ""));
        side.w.pass(20_000);
        for ask in every_form(&task, "unary") {
            side.unary("again", &ask);
        }
    });
}

#[test]
fn batches_are_answered_and_recorded_alike() {
    same(Order::Any, |side| {
        side.unary("inline", &exchange("first"));
        let task = side.newest_task();
        side.batch("each", every_form(&task, "each"), false);
        side.batch("each again", every_form(&task, "each"), false);
        side.batch("all refused", every_form(&task, "all"), true);
        side.batch("all", vec![in_task(&task, "a"), in_task(&task, "bb"), exchange("ccc")], true);
        side.batch("all again", vec![in_task(&task, "a"), in_task(&task, "bb"), exchange("ccc")], true);
        side.batch("none", Vec::new(), false);
        side.batch("too many", vec![in_task(&task, ""); mayfly::limits::BATCH + 1], false);
        side.batch("many", (0..mayfly::limits::BATCH).map(|n| in_task(&task, &format!("many-{n}"))).collect(), false);
    });
}

#[test]
fn streams_are_answered_and_recorded_alike() {
    same(Order::Any, |side| {
        side.unary("inline", &exchange("first"));
        let task = side.newest_task();
        for ask in every_form(&task, "stream") {
            side.stream(&ask.request_id.clone(), &[ask]);
        }
        let asks: Vec<_> = (0..70).map(|n| in_task(&task, &format!("of-one-stream-{n}"))).collect();
        side.stream("many", &asks);
        side.stream("many again", &asks);
        side.stream("nothing", &[]);
        side.stream("without a request id", &[in_task(&task, "")]);
    });
}

#[test]
fn what_was_revoked_is_refused_alike() {
    same(Order::Any, |side| {
        side.unary("inline", &exchange("first"));
        let task = side.newest_task();
        side.batch("before", vec![in_task(&task, "a"), in_task(&task, "bb")], false);
        let actor = Actor::Workload(side.w.house.caller("/agent/demo"));
        side.w.run(side.w.authority().close_task(&actor, task.parse().unwrap(), TaskOutcome::Completed, "done")).unwrap();
        side.unary("after", &in_task(&task, "later"));
        side.unary("again", &in_task(&task, "a"));
        side.batch("after", vec![in_task(&task, "a"), in_task(&task, "ddd"), exchange("new")], false);
        side.stream("after", &[in_task(&task, "eeee")]);
    });
}
