//! What making a credential costs, beside the raw signature in it.
//!
//! A whole `mint_local` needs a grant, which only policy makes: `mayfly bench` measures that end to end. Here are its parts.

use std::hint::black_box;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use criterion::{Criterion, criterion_group, criterion_main};
use mayfly::credential::jwt::{TokenContent, header, signing_input};
use mayfly::credential::reference;
use mayfly::credential::status_list::StatusListAllocator;
use mayfly::ledger::record::{CredentialIssued, Principal, SvidEvidence};
use mayfly::policy::grant::TaskPath;
use mayfly::seq::{CredentialId, Millis, Seq, TaskId};

/// The program's: what a stage allocates is part of what it takes.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn issued() -> CredentialIssued {
    CredentialIssued {
        credential: vec![1; 16],
        task: vec![2; 16],
        kind: 1,
        caller: "spiffe://prod.example/ns/agents/sa/planner".into(),
        upstream: "github".into(),
        scopes: vec!["issues:read".into(), "issues:write".into()],
        tool: "create_issue".into(),
        purpose: "triage the nightly failures".into(),
        arguments: vec![3; 32],
        binding: "planner-github".into(),
        environment: "prod".into(),
        issued_at: 1_700_000_000_000,
        expires_at: 1_700_000_300_000,
        svid: Some(SvidEvidence {
            anchor: vec![4; 32],
            issuing_key: vec![5; 32],
            serial: vec![6; 16],
            not_after: 1_700_003_600_000,
        }),
        policy_version: 12,
        ..CredentialIssued::default()
    }
}

fn minting(c: &mut Criterion) {
    let issued = issued();
    let owner = Principal { issuer: "prod.example".into(), sub: issued.caller.clone() };
    let path = TaskPath::New { tasks: vec![TaskId::from_bytes([2; 16])], owners: vec![owner] };
    let told = TokenContent {
        issued: &issued,
        revision: Seq::from_u64(123_456).unwrap(),
        path: &path,
        grounds: &[],
        audience: "https://api.github.example",
        issuer: "https://mayfly.example/prod",
    };
    let header = header("abcdefghijklmnop");
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let message = signing_input(&header, &told).unwrap();
    println!("signing input: {} bytes", message.len());
    let hashed = digest(&SHA256, message.as_bytes());

    c.bench_function("ES256 signature alone", |b| b.iter(|| pair.sign_digest(black_box(&hashed)).unwrap()));
    c.bench_function("jwt without its signature", |b| {
        b.iter(|| digest(&SHA256, signing_input(&header, black_box(&told)).unwrap().as_bytes()))
    });
    c.bench_function("jwt with its signature", |b| {
        b.iter(|| {
            let input = signing_input(&header, black_box(&told)).unwrap();
            let signature = pair.sign_digest(&digest(&SHA256, input.as_bytes())).unwrap();
            (input, signature)
        })
    });

    let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
    c.bench_function("reference", |b| {
        b.iter(|| {
            let id = CredentialId::from_bytes(black_box([8; 16]));
            reference::token(id, hmac::sign(&key, id.as_bytes()).as_ref().try_into().unwrap())
        })
    });

    let allocator = StatusListAllocator::new(Seq::from_u64(1).unwrap(), &[9; 32]);
    let mut now = 0;
    c.bench_function("place in a status list", |b| {
        b.iter(|| {
            // A new list every 1,000 s of places, as under load.
            now += 1;
            allocator.learn(Seq::from_u64(2 + now / 1_000_000).unwrap());
            allocator.place(Millis(now / 1_000), Millis(now / 1_000)).unwrap()
        })
    });
}

criterion_group!(benches, minting);
criterion_main!(benches);
