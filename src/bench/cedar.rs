//! Measures the cost of Cedar alone beside the load: the same policies, and requests like those of the load.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

use super::raw_cost::median_of_rounds;
use super::world::{BenchServer, TEAM};
use super::{BenchError, sample};
use mayfly_base::document::SourceFile;
use mayfly_cli::dev::{DevWorld, TRUST_DOMAIN};
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_ledger::upstream::registry::Kind;
use mayfly_policy::question::{DeclaredIntent, TaskFacts};
use mayfly_policy::{PolicySet, Question, WorkloadAction, WorkloadContext};

/// A measurement that runs until it is stopped.
pub struct Cedar {
    thread: JoinHandle<f64>,
}

impl Cedar {
    /// Starts the measurement with the policies of the world in `dir`.
    pub fn start(dir: &Path, stop: Arc<AtomicBool>) -> Result<Cedar, BenchError> {
        let read = |name: &str| std::fs::read_to_string(dir.join("policy").join(name)).map(|text| SourceFile::new(name, text));
        let set = PolicySet::compile(vec![read("policy.cedar")?], read("roles.toml")?);
        let set = set.map_err(|wrong| wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
        let caller = SpiffeId::parse(&DevWorld::id(&BenchServer::agent(0)))?;
        let mut upstream = sample::upstream(TEAM)?;
        upstream.environment = "dev".to_owned();
        let owner = format!("spiffe://{TRUST_DOMAIN}/agent/{TEAM}/0");
        let mut number = 0u64;
        let mut ask = move || {
            number += 1;
            let (purpose, digest) = (format!("measure number {number}"), format!("{number:043}"));
            let task =
                TaskFacts { id: Some("task"), purpose: &purpose, owner: &owner, environment: "dev", ..TaskFacts::default() };
            let ask = WorkloadContext {
                environment: "dev",
                intent: DeclaredIntent {
                    purpose: &purpose,
                    tool: Some("tool"),
                    arguments_digest: Some(&digest),
                    kind: Some(Kind::Jwt),
                    scopes: &["read"],
                    binding: None,
                },
                ttl_seconds: 300,
                task,
                ..WorkloadContext::default()
            };
            set.verdict(&Question::work(&caller, WorkloadAction::Exchange, &upstream, &ask)).permits()
        };
        if !ask() {
            return Err("the policies do not permit what the load asks for".into());
        }
        let round = move || {
            std::hint::black_box(ask());
        };
        Ok(Cedar { thread: std::thread::spawn(move || median_of_rounds(round, 20, || stop.load(Relaxed))) })
    }

    /// Stops the measurement. Returns the CPU time of one decision, µs.
    pub fn end(self) -> Result<f64, BenchError> {
        self.thread.join().map_err(|_| "asking Cedar ended by a panic".into())
    }
}
