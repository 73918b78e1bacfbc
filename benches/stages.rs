//! The stages of an issuance, one by one, with everything at hand in the caches: docs/performance.md sets them beside what a loaded server
//! spends on each.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark stops where it fails")]

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mayfly::credential::batch::{BatchSigner, SigningSession};
use mayfly::exchange::{BegunExchange, DecisionCache};
use mayfly::identity::caller::Caller;
use mayfly::ledger::commit::{EncodedRecord, WriterHead, pack};
use mayfly::ledger::state::id_for;
use mayfly::ledger::writer::template::IssuanceRequest;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::policy::decide::BatchDecision;
use mayfly::policy::exchange_request::ExchangeRequest;
use mayfly::policy::fast_decode::{self, ExchangeDecoder};
use mayfly::protobuf::Fields;
use mayfly::seq::Millis;
use mayfly::serve::grpc::AnswerEncoder;
use mayfly::store::Store;
use mayfly::store::redb::{RedbStore, StoreOptions};
use prost::Message;
use std::hint::black_box;

#[path = "../tests/kit/mod.rs"]
mod kit;
use kit::house::{House, fold_commit, house, runtime, terms};

/// The program's: what a stage allocates is part of what it takes.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Records of a usual commit (`limits::GATHER_RECORDS`).
const COMMIT: usize = 256;

fn ask(task: &str, n: usize) -> pb::ExchangeRequest {
    let digest = mayfly::ledger::commit::sha256(&n.to_be_bytes());
    pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::TaskId(task.to_owned())),
        upstream: "echo".into(),
        scopes: vec!["echo:read".into()],
        tool: format!("tool_{n}"),
        purpose: format!("measure number {n}"),
        arguments: Some(pb::Arguments { arguments: Some(pb::arguments::Arguments::Sha256(digest.to_vec().into())) }),
        request_id: format!("{n:x}"),
        ..Default::default()
    }
}

fn of_stream(ask: pb::ExchangeRequest) -> Vec<u8> {
    pb::StreamExchangeRequest { ask: Some(pb::stream_exchange_request::Ask::Exchange(ask)) }.encode_to_vec()
}

fn request<'a>(caller: &Caller, want: &'a ExchangeRequest) -> Option<IssuanceRequest<'a>> {
    want.request_id.as_ref().map(|id| IssuanceRequest::new(caller.id().as_str(), id, &want.digest))
}

fn stages(c: &mut Criterion) {
    let house = house();
    let authority = &house.authority;
    let caller = house.caller("/agent/a");
    let opened = runtime().block_on(authority.open_task(&caller, &terms(), &None, false)).unwrap();
    let asks: Vec<pb::ExchangeRequest> = (0..COMMIT).map(|n| ask(&opened.to_string(), n)).collect();
    let sent: Vec<Vec<u8>> = asks.iter().map(Message::encode_to_vec).collect();
    let wants: Vec<ExchangeRequest> = asks.iter().cloned().map(|ask| ExchangeRequest::from_pb(ask).unwrap()).collect();
    let (view, compiled) = (authority.ledger.view(), authority.catalog.now());
    let decider = &authority.decider;

    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let random = aws_lc_rs::rand::SystemRandom::new();
    c.bench_function("signature: ES256 over 900 bytes, raw", |b| b.iter(|| pair.sign(&random, black_box(&[7; 900])).unwrap()));

    let mut turn = (0..COMMIT).cycle();
    let mut next = move || turn.next().unwrap();
    c.bench_function("admission: a request decoded and checked", |b| {
        b.iter(|| ExchangeRequest::from_pb(pb::ExchangeRequest::decode(&sent[next()][..]).unwrap()).unwrap())
    });
    let streamed: Vec<Vec<u8>> = asks.iter().cloned().map(of_stream).collect();
    c.bench_function("admission: one of a stream, by prost", |b| {
        b.iter(|| {
            let mut message = Box::<pb::StreamExchangeRequest>::default();
            message.merge(&streamed[next()][..]).unwrap();
            let Some(pb::stream_exchange_request::Ask::Exchange(ask)) = &mut message.ask else { unreachable!() };
            ExchangeRequest::take(ask).unwrap()
        })
    });
    let mut reader = ExchangeDecoder::default();
    c.bench_function("admission: one of a stream", |b| {
        b.iter(|| {
            let mut message = Fields::of(&streamed[next()]);
            Box::new(reader.read(message.delimited(1).unwrap()).unwrap())
        })
    });
    c.bench_function("admission: one by itself", |b| b.iter(|| Box::new(fast_decode::read(&sent[next()]).unwrap())));
    c.bench_function("caller: still let in", |b| b.iter(|| authority.let_in(black_box(&caller), "issuing").unwrap()));
    c.bench_function("task and policy: decided by itself", |b| {
        b.iter(|| decider.exchange(&view, &compiled, &caller, &wants[next()], || [1; 16]).unwrap())
    });
    c.bench_function("task and policy: what a series has in common", |b| {
        b.iter(|| decider.shared(&view, &compiled, &caller, &wants[next()]).unwrap().unwrap())
    });
    let shared: BatchDecision<'_> = decider.shared(&view, &compiled, &caller, &wants[0]).unwrap().unwrap();
    c.bench_function("task and policy: one of a series", |b| {
        b.iter(|| {
            let want = &wants[next()];
            shared.grant(decider, &caller, want, request(&caller, want)).unwrap().unwrap()
        })
    });
    c.bench_function("claims and record: what a series has in common", |b| {
        b.iter(|| BatchSigner::new(shared.grants().clone(), &authority.keyring).ok().unwrap())
    });
    let series = SigningSession::of(BatchSigner::new(shared.grants().clone(), &authority.keyring).ok().unwrap().into()).unwrap();
    let mut id = 0u128;
    let mut next_one = |want: &ExchangeRequest| {
        id += 1;
        let request = request(&caller, want);
        let own = shared.grant(decider, &caller, want, request).unwrap().unwrap();
        let id = id_for(Some(&request.unwrap().key()), id.to_be_bytes());
        series.next(own, id, &authority.status, view.now()).ok().unwrap()
    };
    c.bench_function("claims, base64, record and hash: one of a series, granted", |b| b.iter(|| next_one(&wants[next()]).0));
    c.bench_function("the same, signed", |b| {
        b.iter(|| {
            let (record, one) = next_one(&wants[next()]);
            (record, one.finish().ok().unwrap())
        })
    });
    let records: Vec<EncodedRecord> = wants.iter().map(|want| next_one(want).0).collect();
    of_commit(c, &records, &house);
    answers(c, &house, &caller, &opened.to_string());
}

/// Exchanges of a usual round on a stream (`limits::STREAM_ROUND`).
const ROUND: usize = 32;

/// What is durable is revealed, and encoded with what the round has in common.
fn answers(c: &mut Criterion, house: &House, caller: &Caller, task: &str) {
    let (runtime, authority, lately) = (runtime(), &house.authority, DecisionCache::default());
    let mut group = c.benchmark_group("a round of 32");
    group.throughput(Throughput::Elements(ROUND as u64)).sample_size(20);
    let mut asked = COMMIT;
    group.bench_function("answer: reveal and encode", |b| {
        b.iter_batched(
            || {
                let wants: Vec<ExchangeRequest> =
                    (asked..asked + ROUND).map(|n| ExchangeRequest::from_pb(ask(task, n)).unwrap()).collect();
                asked += ROUND;
                runtime.block_on(async {
                    let mut round = authority.begin_all(caller, wants.iter(), &lately);
                    let answers = authority.answers(&mut round).await;
                    (round, answers)
                })
            },
            |(mut round, mut answers)| {
                runtime.block_on(async {
                    let (mut patterns, mut message) = (AnswerEncoder::default(), Vec::with_capacity(ROUND * 1_400));
                    for begun in std::mem::take(&mut round.begun) {
                        let Ok(BegunExchange::UnderWay(one)) = begun else { unreachable!() };
                        let issued = authority.finish_of(one, &mut answers).await.ok().unwrap();
                        patterns.tell("a name", issued, &mut message);
                    }
                    message
                })
            },
            BatchSize::PerIteration,
        )
    });
}

fn of_commit(c: &mut Criterion, records: &[EncodedRecord], house: &House) {
    let mut group = c.benchmark_group("a commit of 256");
    group.throughput(Throughput::Elements(COMMIT as u64)).sample_size(20);
    group.bench_function("pack: tree, templates, bytes", |b| {
        b.iter(|| pack(1, WriterHead::START, Millis(1), black_box(records).iter()))
    });
    let state = house.authority.ledger.peek(Clone::clone);
    let now = house.authority.ledger.view().now();
    group.bench_function("fold: verdict and effect", |b| {
        b.iter_batched(
            || state.clone(),
            |mut state| {
                fold_commit(&mut state, records, now);
                state
            },
            BatchSize::LargeInput,
        )
    });
    let dir = tempfile::tempdir().unwrap();
    let store = RedbStore::open(&dir.path().join("data"), &StoreOptions::new([1; 16])).unwrap();
    let (bytes, _) = pack(1, WriterHead::START, Millis(1), records.iter());
    let mut position = store.head().unwrap();
    group.bench_function(format!("append: {} KB, durable, redb", bytes.len() / 1024), |b| {
        b.iter(|| {
            position += 1;
            store.append(position, &bytes).unwrap();
        })
    });
}

criterion_group!(benches, stages);
criterion_main!(benches);
