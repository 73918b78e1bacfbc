//! What a decision of policy costs: asked of Cedar, and remembered.
#![allow(clippy::unwrap_used, reason = "a benchmark stops where it fails")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use mayfly::document::SourceFile;
use mayfly::identity::spiffe_id::SpiffeId;
use mayfly::policy::question::{DeclaredIntent, TaskFacts};
use mayfly::policy::{PolicySet, PolicyVerdict, Question, VerdictCache, WorkloadAction, WorkloadContext};
use mayfly::upstream::registry::{Kind, Upstream};
use mayfly_bench::sample;

/// The program's: what a stage allocates is part of what it takes.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn ask<'a>(purpose: &'a str, digest: &'a str) -> WorkloadContext<'a> {
    WorkloadContext {
        environment: sample::ENVIRONMENT,
        intent: DeclaredIntent {
            purpose,
            tool: Some("list_invoices"),
            arguments_digest: Some(digest),
            kind: Some(Kind::Jwt),
            scopes: &["read", "list"],
            binding: None,
        },
        ttl_seconds: 300,
        task: TaskFacts {
            id: Some("task_a"),
            purpose,
            owner: "spiffe://bench.mayfly.internal/agent/billing/1",
            ..TaskFacts::default()
        },
        ..WorkloadContext::default()
    }
}

/// The sample, and one policy more that reads what each request has for itself.
fn fifty_and(more: &str) -> PolicySet {
    let (mut policies, roles) = sample::fifty();
    policies.push(SourceFile::new("more.cedar", more));
    PolicySet::compile(policies, roles).unwrap()
}

fn decisions(c: &mut Criterion) {
    let (caller, upstream): (SpiffeId, Upstream) = (sample::agent("billing", 1).unwrap(), sample::upstream("billing").unwrap());
    let set = fifty_and("");
    let mut group = c.benchmark_group("policy");
    let fixed = ask("invoices of march", "digest");
    let question = Question::work(&caller, WorkloadAction::Exchange, &upstream, &fixed);
    assert!(set.verdict(&question).permits());
    group.bench_function("uncached, 50 policies", |b| b.iter(|| black_box(set.verdict(black_box(&question)))));
    group.bench_function("uncached, request checked against the schema, all attributes", |b| {
        b.iter(|| black_box(set.verdict_of_everything(black_box(&question))));
    });
    let verdicts = VerdictCache::new(mayfly::limits::VERDICT_CACHE_BYTES);
    let mut number = 0u64;
    group.bench_function("cached, each request with its own purpose and digest", |b| {
        b.iter(|| {
            number += 1;
            let (purpose, digest) = (number.to_string(), number.to_string());
            let own = ask(&purpose, &digest);
            black_box(verdicts.verdict(&set, &Question::work(&caller, WorkloadAction::Exchange, &upstream, &own)))
        });
    });
    // A filter on the command line may have left the cached one out.
    let counts = verdicts.counts();
    assert!(counts.misses == 0 || counts.hit_rate() > 0.99, "{counts:?}");
    let counting =
        fifty_and("forbid (principal, action == Action::\"Exchange\", resource) when { context.counts.issued_in_task > 100 };");
    group.bench_function("51 policies, one reads a count: never cached", |b| {
        b.iter(|| black_box(verdicts.verdict(&counting, black_box(&question))));
    });
    let (mut policies, roles) = sample::some(199);
    policies.push(SourceFile::new("more.cedar", COUNTING));
    let two_hundred = PolicySet::compile(policies, roles).unwrap();
    let mut number = 0u64;
    let mut each = |set: &PolicySet, ask_set: fn(&PolicySet, &Question<'_>) -> PolicyVerdict| {
        number += 1;
        let (purpose, digest) = (number.to_string(), number.to_string());
        let own = ask(&purpose, &digest);
        black_box(ask_set(set, &Question::work(&caller, WorkloadAction::Exchange, &upstream, &own)))
    };
    group.bench_function("200 policies, one reads a digest and a count: every policy", |b| {
        b.iter(|| each(&two_hundred, PolicySet::verdict_unsliced));
    });
    group.bench_function("200 policies, one reads a digest and a count: sliced", |b| {
        b.iter(|| each(&two_hundred, PolicySet::verdict));
    });
    group.finish();
}

/// Reads what each request has for itself, and what moves with each grant.
const COUNTING: &str = "@id(\"counting\")\nforbid (principal, action in Action::\"Work\", resource) when \
     { context has arguments_digest && context.arguments_digest == \"\" && context.counts.issued_in_task > 1000000 };";

fn compiling(c: &mut Criterion) {
    let (policies, roles) = sample::fifty();
    c.bench_function("policy/compile 50 policies", |b| {
        b.iter(|| PolicySet::compile(black_box(policies.clone()), black_box(roles.clone())).unwrap());
    });
}

criterion_group!(benches, decisions, compiling);
criterion_main!(benches);
