//! Allocations of an issuance on a stream, per stage and over all threads; allocations of HTTP/2, TLS and scheduling are not included.
//!
//! `cargo bench --bench allocations` prints their number and bytes per credential.
#![allow(clippy::unwrap_used, reason = "a benchmark stops where it fails")]

use std::alloc::System;

use mayfly::exchange::{BegunExchange, DecisionCache};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::policy::exchange_request::ExchangeRequest;
use mayfly::policy::fast_decode::ExchangeDecoder;
use mayfly::serve::grpc::AnswerEncoder;
use prost::Message;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};

#[path = "../tests/kit/mod.rs"]
mod kit;
use kit::house::{house, runtime, terms};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Exchanges of a usual batch on a stream (`limits::STREAM_ROUND`).
const ROUND: usize = 32;
/// Batches that are counted, after as many that fill tables and caches.
const ROUNDS: usize = 200;

fn ask(task: &str, n: usize) -> Vec<u8> {
    let digest = mayfly::ledger::commit::sha256(&n.to_be_bytes());
    let ask = pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::TaskId(task.to_owned())),
        upstream: "echo".into(),
        scopes: vec!["echo:read".into()],
        tool: format!("tool_{n}"),
        purpose: format!("measure number {n}"),
        arguments: Some(pb::Arguments { arguments: Some(pb::arguments::Arguments::Sha256(digest.to_vec().into())) }),
        request_id: format!("{n:x}"),
        ..Default::default()
    };
    ask.encode_to_vec()
}

/// The allocations of each stage, over all batches.
#[derive(Default)]
struct Counted([(usize, usize); STAGES.len()]);

const STAGES: [&str; 4] = [
    "read: a request checked, and its digest",
    "decided, made, written down durably and folded",
    "answer: revealed and encoded",
    "what is left is freed (allocations for that)",
];

impl Counted {
    fn add(&mut self, stage: usize, of: Stats) {
        let (count, bytes) = &mut self.0[stage];
        *count += of.allocations + of.reallocations;
        *bytes += of.bytes_allocated;
    }
}

fn main() {
    let (house, runtime) = (house(), runtime());
    let authority = &house.authority;
    let caller = house.caller("/agent/a");
    let opened = runtime.block_on(authority.open_task(&caller, &terms(), &None, false)).unwrap().to_string();
    let (mut counted, mut reader, lately) = (Counted::default(), ExchangeDecoder::default(), DecisionCache::default());
    for round in 0..2 * ROUNDS {
        if round == ROUNDS {
            counted = Counted::default();
        }
        let sent: Vec<Vec<u8>> = (round * ROUND..(round + 1) * ROUND).map(|n| ask(&opened, n)).collect();
        let region = Region::new(ALLOCATOR);
        let wants: Vec<Box<ExchangeRequest>> = sent.iter().map(|message| Box::new(reader.read(message).unwrap())).collect();
        counted.add(0, region.change());
        let region = Region::new(ALLOCATOR);
        let (mut begun, mut answers) = runtime.block_on(async {
            let mut begun = authority.begin_all(&caller, wants.iter().map(|want| &**want), &lately);
            let answers = authority.answers(&mut begun).await;
            (begun, answers)
        });
        counted.add(1, region.change());
        let region = Region::new(ALLOCATOR);
        let message = runtime.block_on(async {
            let (mut patterns, mut message) = (AnswerEncoder::default(), Vec::new());
            for one in std::mem::take(&mut begun.begun) {
                let Ok(BegunExchange::UnderWay(one)) = one else { unreachable!("all are plain") };
                let issued = authority.finish_of(one, &mut answers).await.ok().unwrap();
                patterns.tell("a name", issued, &mut message);
            }
            message
        });
        counted.add(2, region.change());
        let region = Region::new(ALLOCATOR);
        drop((wants, begun, answers, message));
        counted.add(3, region.change());
    }
    let issued = (ROUNDS * ROUND) as f64;
    println!("{:<50} {:>11} {:>8}", "of one issuance, in rounds of 32", "allocations", "bytes");
    for (stage, (count, bytes)) in STAGES.iter().zip(counted.0) {
        println!("{stage:<50} {:>11.2} {:>8.0}", count as f64 / issued, bytes as f64 / issued);
    }
    let (count, bytes) = counted.0.iter().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    println!("{:<50} {:>11.2} {:>8.0}", "in all", count as f64 / issued, bytes as f64 / issued);
}
