//! A million live credentials in the fold: what each takes in memory, and how long whoever waits for the writer is held up while they come,
//! are written to a snapshot, are read back, and end. Then the same for what goes on for a quarter of an hour, with what is remembered of it.
//! docs/performance.md quotes it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark stops where it fails")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use mayfly::credential::batch::{BatchSigner, SigningSession};
use mayfly::identity::caller::Caller;
use mayfly::ledger::State;
use mayfly::ledger::commit::EncodedRecord;
use mayfly::ledger::record::{
    Allowance, AllowedUpstream, Author, Event, Principal, Record, RequestRecord, TaskClosed, TaskOpened, TaskOutcome,
};
use mayfly::ledger::recovery::snapshot;
use mayfly::ledger::state::id_for;
use mayfly::ledger::writer::template::{IssuanceFields, IssuanceRequest, RecordTemplate};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::policy::exchange_request::{ExchangeRequest, TaskRequest};
use mayfly::seq::{CredentialId, Millis, TaskId};
use mayfly::system::thread_cpu_ns;

#[path = "../tests/kit/mod.rs"]
mod kit;
use kit::house::{House, fold_commit, house, runtime, terms};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// As many to a task as `mayfly bench` has.
const OF_A_TASK: u64 = 100;
/// Records of a full commit.
const COMMIT: u64 = 256;

fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0
}

/// A task's template: what its issuances share.
fn template(house: &House, caller: &Caller, task: TaskId) -> Arc<RecordTemplate> {
    Arc::new(RecordTemplate::new(shared(house, caller, task)).unwrap())
}

/// What the issuances of a task share, as a record.
fn shared(house: &House, caller: &Caller, task: TaskId) -> Record {
    let authority = &house.authority;
    let ask = pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::TaskId(task.to_string())),
        upstream: "echo".into(),
        scopes: vec!["echo:read".into()],
        tool: "tool".into(),
        ..Default::default()
    };
    let want = ExchangeRequest::from_pb(ask).unwrap();
    let (view, compiled) = (authority.ledger.view(), authority.catalog.now());
    let shared = authority.decider.shared(&view, &compiled, caller, &want).unwrap().unwrap();
    let own = shared.grant(&authority.decider, caller, &want, None).unwrap().unwrap();
    let series = SigningSession::of(BatchSigner::new(shared.grants().clone(), &authority.keyring).ok().unwrap().into()).unwrap();
    let (record, _) = series.next(own, CredentialId::from_bytes([0; 16]), &authority.status, view.now()).ok().unwrap();
    let mut record = Arc::unwrap_or_clone(record.whole().unwrap());
    let Some(Event::Issued(e)) = &mut record.event else { panic!("an issuance") };
    e.credential.clear();
    e.token_digest.clear();
    e.tool.clear();
    e.purpose.clear();
    (e.status_list, e.status_index) = (0, 0);
    (record.request, record.group) = (None, 0);
    record
}

fn issuance(template: &Arc<RecordTemplate>, n: u64) -> EncodedRecord {
    issuance_of("spiffe://a.example/agent/a", template, n)
}

fn issuance_of(caller: &str, template: &Arc<RecordTemplate>, n: u64) -> EncodedRecord {
    let mut id = [0; 16];
    id.copy_from_slice(&mayfly::ledger::commit::sha256(&n.to_be_bytes())[..16]);
    let name = format!("{n:x}");
    let request = IssuanceRequest::new(caller, &name, &[1; 32]);
    let own = IssuanceFields {
        credential: id_for(Some(&request.key()), id),
        request: Some(request),
        trace: &[],
        tool: &format!("tool_{n}"),
        purpose: "measure",
        arguments: None,
        status: (1, n as u32),
        token_digest: &[2; 32],
    };
    EncodedRecord::from_template(template, &own, &mut bytes::BytesMut::new()).unwrap()
}

/// The longest of many steps, and all together.
#[derive(Default)]
struct Steps {
    longest: Duration,
    whole: Duration,
}

impl Steps {
    fn step<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let out = work();
        let took = began.elapsed();
        (self.longest, self.whole) = (self.longest.max(took), self.whole + took);
        out
    }

    fn print(&self, what: &str, each: u64) {
        let longest = self.longest.as_secs_f64() * 1e3;
        println!("{what:34} {:8.2} µs each, longest commit {longest:.2} ms", self.whole.as_secs_f64() * 1e6 / each as f64);
    }
}

fn grow(state: &mut State, templates: &[Arc<RecordTemplate>], many: u64, now: Millis) {
    let mut steps = Steps::default();
    for from in (0..many).step_by(COMMIT as usize) {
        let records: Vec<EncodedRecord> =
            (from..many.min(from + COMMIT)).map(|n| issuance(&templates[(n / OF_A_TASK) as usize], n)).collect();
        steps.step(|| fold_commit(state, &records, now));
    }
    steps.print("fold: verdict and effect", many);
}

/// What steps took of a core, nanoseconds.
#[derive(Default)]
struct Cpu {
    all: Vec<u64>,
    /// The longest, and in which second.
    longest: (u64, u64),
}

impl Cpu {
    fn step(&mut self, second: u64, work: impl FnOnce()) {
        let before = thread_cpu_ns();
        work();
        let took = thread_cpu_ns() - before;
        self.all.push(took);
        self.longest = self.longest.max((took, second));
    }

    fn print(mut self, what: &str) {
        self.all.sort_unstable();
        let at = |part: f64| self.all.get((self.all.len() as f64 * part) as usize).map_or(0.0, |ns| *ns as f64 / 1e6);
        println!(
            "  {what:34} median {:6.3} ms, 1 of 100 above {:6.3}, of 10,000 {:6.3}; the longest {:6.2}, in second {}",
            at(0.5),
            at(0.99),
            at(0.9999),
            self.longest.0 as f64 / 1e6,
            self.longest.1
        );
    }
}

/// The name of the task with that number.
fn task_id(n: u64) -> Vec<u8> {
    mayfly::ledger::commit::sha256(&[&b"task"[..], &n.to_be_bytes()].concat())[..16].to_vec()
}

/// A task comes, by a request with an id, and the one that came `ago` before it goes: both are remembered for ten minutes, and each leaves a rule
/// for as long as what it issued may live.
fn task_turns(caller: &Caller, n: u64, ago: u64, state: &State, now: Millis) -> Vec<EncodedRecord> {
    let who = caller.id().as_str().to_owned();
    let allowance = Allowance {
        upstreams: vec![AllowedUpstream { name: "echo".into(), scopes: vec!["echo:read".into()] }],
        ..Default::default()
    };
    let opened = TaskOpened {
        task: task_id(n),
        owner: Some(Principal { issuer: String::new(), sub: who.clone() }),
        opener: who.clone(),
        environment: "dev".into(),
        purpose: "measure".into(),
        allowance: Some(allowance),
        opened_at: now.0,
        deadline: now.0 + 3_600_000,
        max_deadline: now.0 + 3_600_000,
        policy_version: 1,
        ..Default::default()
    };
    let request = RequestRecord { caller: String::new(), id: format!("task_{n}"), digest: vec![1; 32] };
    let record = |event| Record::new(Author::SpiffeId(who.clone()), event).decided_at(state.head);
    let mut records = vec![record(Event::TaskOpened(opened.into())).for_request(Some(request))];
    if let Some(before) = n.checked_sub(ago) {
        let outcome = TaskOutcome::Completed as i32;
        let closed = TaskClosed { task: task_id(before), outcome, reason: String::new(), keep_until: now.0 + 120_000 };
        records.push(record(Event::TaskClosed(closed)));
    }
    records.into_iter().map(|record| EncodedRecord::new(record).unwrap()).collect()
}

fn asked(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// A second's issuances go on for as long as is asked, at half of what a server does; each lives for one of four times, and its request is
/// remembered for ten minutes. Now and then a snapshot is begun. What commits take of a core, soon after one was begun and else.
fn go_on(house: &House, seconds: u64) {
    let each_second = asked("MAYFLY_BENCH_EACH_SECOND", 28_000);
    const SNAPSHOT_EVERY: u64 = 4_500_000;
    /// What has different lifetimes ends mixed.
    const TTLS_MS: [u64; 4] = [20_000, 45_000, 75_000, 100_000];
    /// Commits until a snapshot was written.
    const WRITING: u64 = 1_000;
    /// Commits that are looked at by themselves after it was begun.
    const SOON: u64 = 200;
    /// Commits until a task is closed.
    const TASK_COMMITS: u64 = 100;
    let terms = TaskRequest { ttl_ms: Some(seconds * 1_000 + 100_000), ..terms() };
    let open = async |caller: &Caller| house.authority.open_task(caller, &terms, &None, false).await.unwrap();
    // One caller's request ids are bounded.
    let of_all = [("/agent/a", 0), ("/agent/b", 1), ("/agent/c", 2), ("/agent/d", 3)].map(|(path, n)| {
        let caller = house.caller(path);
        let task = runtime().block_on(open(&caller));
        (caller.id().as_str().to_owned(), shared(house, &caller, task), TTLS_MS[n])
    });
    let mut state = house.authority.ledger.peek(Clone::clone);
    let (begin, mut n, mut commits, mut last) = (house.authority.ledger.view().now(), 0, 0, 0);
    let (clerk, mut tasks) = (house.caller("/agent/e"), 0);
    let (mut copies, mut soon, mut later) = (Cpu::default(), Cpu::default(), Cpu::default());
    let (mut copy, mut begun) = (None, 0);
    for second in 0..seconds {
        let now = begin.plus(second * 1_000);
        let templates = of_all.each_ref().map(|(caller, record, ttl)| {
            let mut record = record.clone().decided_at(state.head);
            let Some(Event::Issued(e)) = &mut record.event else { panic!("an issuance") };
            e.issued_at = now.0;
            (e.expires_at, e.renewable_until) = (now.0 + ttl, now.0 + ttl);
            (caller, Arc::new(RecordTemplate::new(record).unwrap()))
        });
        let (from, until) = (n, n + each_second);
        while n < until {
            let now = now.plus((n - from) * 1_000 / each_second);
            let mut records: Vec<EncodedRecord> = (n..until.min(n + COMMIT))
                .map(|n| {
                    let (caller, template) = &templates[(n / 32 % 4) as usize];
                    issuance_of(caller, template, n)
                })
                .collect();
            n += records.len() as u64;
            let until = n / OF_A_TASK;
            while tasks < until {
                records.extend(task_turns(&clerk, tasks, TASK_COMMITS * COMMIT / OF_A_TASK, &state, now));
                tasks += 1;
            }
            let of = if copy.is_some() && commits < begun + SOON { &mut soon } else { &mut later };
            of.step(second, || fold_commit(&mut state, &records, now));
            commits += 1;
            if n - last >= SNAPSHOT_EVERY {
                (last, begun) = (n, commits);
                copies.step(second, || copy = Some(state.frozen()));
            }
            if copy.is_some() && commits >= begun + WRITING {
                let done = copy.take();
                std::thread::spawn(move || drop(done));
            }
        }
    }
    println!(
        "{n} within {seconds} s, {} live and {} remembered beside them; of a core:",
        state.credentials.len(),
        state.credentials.ended()
    );
    copies.print("the copy for a snapshot");
    soon.print("each of the 200 commits after it");
    later.print("each other commit");
}

fn main() {
    if let Some(seconds) = std::env::var("MAYFLY_BENCH_GO_ON").ok().and_then(|n| n.parse().ok()) {
        return go_on(&house(), seconds);
    }
    let many = asked("MAYFLY_BENCH_LIVE", 1_000_000);
    let house = house();
    let caller = house.caller("/agent/a");
    let before_tasks = resident();
    let open = async || house.authority.open_task(&caller, &terms(), &None, false).await.unwrap();
    let tasks: Vec<TaskId> = runtime().block_on(async {
        let mut all = Vec::new();
        for _ in 0..many.div_ceil(OF_A_TASK) {
            all.push(open().await);
        }
        all
    });
    println!("{:34} {:8.0} bytes each, with their records", "tasks", (resident() - before_tasks) / tasks.len() as f64);
    let templates: Vec<Arc<RecordTemplate>> = tasks.iter().map(|task| template(&house, &caller, *task)).collect();
    let mut state = house.authority.ledger.peek(Clone::clone);
    let now = house.authority.ledger.view().now();
    let before = resident();
    grow(&mut state, &templates, many, now);
    println!("{:34} {:8.1} bytes each", "credentials", (resident() - before) / many as f64);

    let mut frozen = Steps::default();
    let copy = frozen.step(|| state.frozen());
    frozen.print("copy for a snapshot", 1);
    let dir = tempfile::tempdir().unwrap();
    let mut written = Steps::default();
    let digest = written.step(|| snapshot::write(dir.path(), &copy).unwrap());
    let path = snapshot::path(dir.path(), copy.head);
    println!("{:34} {:8.1} bytes each", "snapshot", std::fs::metadata(&path).unwrap().len() as f64 / many as f64);
    written.print("snapshot written", many);
    drop(copy);
    let mut read = Steps::default();
    let (back, of_it) = read.step(|| snapshot::read(&path).unwrap());
    read.print("snapshot read", many);
    assert_eq!((of_it, back.credentials.len()), (digest, state.credentials.len()));
    drop(back);

    let (mut ended, mut commits) = (Steps::default(), 0);
    let later = now.plus(25 * 3_600_000);
    while !state.credentials.is_empty() {
        ended.step(|| fold_commit(&mut state, &[], later));
        commits += 1;
    }
    ended.print("forgotten", many);
    println!("{:34} {:8.1} bytes each, after {commits} commits", "what is left of them", (resident() - before) / many as f64);
}
