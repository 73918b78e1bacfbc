//! Fixtures for tests of credentials: an in-memory log, a store of named values, a sealer, and grants.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::keyring::{Keyring, RotationPlan, Sealer, due, generate};
use mayfly_base::refusal::Fault;
use mayfly_base::system::System;
use mayfly_ledger::commit::{Commit, EncodedRecord, WriterHead, pack};
use mayfly_ledger::record::*;
use mayfly_ledger::state::{State, Verdict};
use mayfly_policy::grant::{Grant, GrantParts, TaskPath};
use mayfly_store::{Position, Precondition, Store, StoreError, StoredCommit};
use mayfly_verify::seq::{Millis, Seq, TaskId};

pub const AGENT: &str = "spiffe://a.example/agent";
pub const TASK: [u8; 16] = [2; 16];

/// An in-memory log and its state. Only `commits` survive a crash.
pub struct TestLog {
    pub state: State,
    pub commits: Vec<Bytes>,
    pub time: Millis,
}

impl TestLog {
    /// A log with a policy, an upstream, a binding and an open task.
    pub fn new(time: Millis) -> TestLog {
        let mut log = TestLog { state: State::default(), commits: Vec::new(), time };
        let begin = GenerationBegun { generation: 1, cause: "created".into(), store: vec![1; 16], ..Default::default() };
        for event in std::iter::once(Event::GenerationBegun(begin)).chain(world(time)) {
            let record = Record::new(Author::Mayfly("created".into()), event).decided_at(log.state.head);
            log.put(vec![record])[0].clone().unwrap();
        }
        log
    }

    /// Commits records, valid or void.
    pub fn put(&mut self, records: Vec<Record>) -> Vec<Verdict> {
        let encoded: Vec<EncodedRecord> = records.into_iter().map(|r| EncodedRecord::new(r).unwrap()).collect();
        let chain = self.state.writers.get(&1).copied().unwrap_or(WriterHead::START);
        let time = self.time.max(self.state.time);
        let (bytes, _) = pack(1, chain, time, encoded.iter());
        self.commits.push(bytes.into());
        self.fold(self.commits.len())
    }

    fn fold(&mut self, at: usize) -> Vec<Verdict> {
        let commit = Commit::from_bytes(&self.commits[at - 1]).unwrap();
        self.state.fold(at as Position, &commit).unwrap().verdicts
    }

    /// The log after a restart on these commits.
    pub fn replayed(commits: Vec<Bytes>, time: Millis) -> TestLog {
        let mut log = TestLog { state: State::default(), commits, time };
        for at in 1..=log.commits.len() {
            log.fold(at);
        }
        log
    }
}

/// The records that the test grants depend on: a policy, an upstream, a binding, an open task.
pub fn world(time: Millis) -> [Event; 4] {
    let task = TaskOpened {
        task: TASK.to_vec(),
        owner: Some(owner()),
        opener: AGENT.into(),
        environment: "dev".into(),
        opened_at: time.0,
        deadline: time.0 + 3_000_000,
        max_deadline: time.0 + 3_000_000,
        policy_version: 1,
        ..Default::default()
    };
    [
        Event::PolicySet(PolicySetUpdated { environment: "dev".into(), version: 1, ..Default::default() }),
        Event::UpstreamSet(UpstreamUpdated { name: "echo".into(), version: 1, ..Default::default() }),
        Event::BindingSet(BindingUpdated { name: "b".into(), version: 1, ..Default::default() }),
        Event::TaskOpened(task.into()),
    ]
}

pub fn owner() -> Principal {
    Principal { issuer: "https://idp.example".into(), sub: "grace".into() }
}

/// A store with named values only.
#[derive(Default)]
pub struct NamedValueStore(pub Mutex<BTreeMap<String, Vec<u8>>>);

fn none<T>() -> Result<T, StoreError> {
    Err(StoreError::Failed("only named values".into()))
}

impl Store for NamedValueStore {
    fn id(&self) -> mayfly_store::StoreId {
        mayfly_store::StoreId::from_bytes([0; 16])
    }

    fn engine(&self) -> &'static str {
        "named"
    }
    fn append(&self, _: Position, _: &[u8]) -> Result<(), StoreError> {
        none()
    }
    fn head(&self) -> Result<Position, StoreError> {
        none()
    }
    fn oldest(&self) -> Result<Position, StoreError> {
        none()
    }
    fn read(&self, _: Position, _: usize) -> Result<Vec<StoredCommit>, StoreError> {
        none()
    }
    fn follow(&self, _: Position, _: Duration) -> Result<Position, StoreError> {
        none()
    }
    fn remove_some(&self, _: Position) -> Result<Position, StoreError> {
        none()
    }
    fn put(&self, name: &str, value: &[u8], expect: Precondition<'_>) -> Result<(), StoreError> {
        let mut all = self.0.lock();
        if expect == Precondition::Absent && all.contains_key(name) {
            return Err(StoreError::Conflict { name: name.into() });
        }
        all.insert(name.into(), value.to_vec());
        Ok(())
    }
    fn named(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.lock().get(name).cloned())
    }
    fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        Ok(self.0.lock().keys().filter(|k| k.starts_with(prefix)).cloned().collect())
    }
    fn delete(&self, name: &str, _: Precondition<'_>) -> Result<(), StoreError> {
        self.0.lock().remove(name);
        Ok(())
    }
}

/// A sealer that prepends purpose, environment and name, and inverts the bits.
pub struct TestSealer;

impl Sealer for TestSealer {
    fn seal(&self, purpose: &str, environment: &str, name: &str, plain: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut out = format!("{purpose}|{environment}|{name}|").into_bytes();
        out.extend(plain.iter().map(|b| !b));
        Ok(out)
    }
    fn open(&self, purpose: &str, environment: &str, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let front = format!("{purpose}|{environment}|{name}|");
        let plain = sealed.strip_prefix(front.as_bytes()).ok_or_else(|| Fault::new("sealed for something else"))?;
        Ok(Zeroizing::new(plain.iter().map(|b| !b).collect()))
    }
}

/// Carries out a plan.
pub fn carry_out(log: &mut TestLog, store: &NamedValueStore, purpose: KeyPurpose, plan: RotationPlan) {
    let made = plan.make.map(|state| {
        generate(purpose, "dev", state, &TestSealer, &System::real()).map_err(|e| e.to_string()).unwrap().keep(store).unwrap()
    });
    for verdict in log.put(plan.records(made, &Author::Mayfly("rotation".into()), 7)) {
        verdict.unwrap();
    }
}

/// A keyring with an active key for tokens and one for references.
pub fn keyring(log: &mut TestLog) -> (Keyring, NamedValueStore) {
    let store = NamedValueStore::default();
    for purpose in [KeyPurpose::AccessToken, KeyPurpose::Reference] {
        let plan = due(&log.state.keys, purpose, "dev", log.time);
        carry_out(log, &store, purpose, plan);
    }
    let ring = Keyring::default();
    ring.sync(&log.state.keys, &store, &TestSealer).unwrap();
    (ring, store)
}

/// The smallest grant of a kind.
pub fn plain(kind: u32, now: Millis, revision: Seq) -> GrantParts {
    let draft = CredentialIssued {
        task: TASK.to_vec(),
        kind,
        caller: AGENT.into(),
        upstream: "echo".into(),
        scopes: vec!["read".into()],
        environment: "dev".into(),
        issued_at: now.0,
        expires_at: now.0 + 300_000,
        renewable_until: now.0 + 600_000,
        policy_version: 1,
        upstream_version: 1,
        ..Default::default()
    };
    GrantParts {
        draft: draft.into(),
        revision,
        request: Some(RequestRecord { caller: AGENT.into(), id: "req-1".into(), digest: vec![7; 32] }),
        opens: None,
        path: TaskPath::New { tasks: vec![TaskId::from_bytes(TASK)], owners: vec![owner()] },
        grounds: Vec::new(),
        audience: "https://echo.example".into(),
        base_url: "https://echo.example/api".into(),
        settings: Default::default(),
        algorithm: "ES256",
        issuer: "https://mayfly.example/dev".into(),
        author: Author::SpiffeId(AGENT.into()),
    }
}

/// A grant with every field that a token can express.
pub fn full(now: Millis, revision: Seq) -> GrantParts {
    let mut parts = plain(1, now, revision);
    let e = &mut parts.draft;
    e.subject = Some(Principal { issuer: "https://idp.example".into(), sub: "ada \"the\" countess".into() });
    e.actors = vec![
        Principal { issuer: "a.example".into(), sub: AGENT.into() },
        Principal { issuer: "b.example".into(), sub: "spiffe://b.example/front".into() },
    ];
    e.scopes = vec!["issues:write".into(), "read".into()];
    e.details = r#"[{"type":"repo","actions":["read"]}]"#.into();
    e.tool = "create_issue".into();
    e.arguments = vec![0xab; 32];
    e.binding = "b".into();
    e.binding_version = 1;
    e.svid =
        Some(SvidEvidence { anchor: vec![3; 32], issuing_key: vec![4; 32], serial: vec![0, 5, 6], not_after: now.0 + 900_000 });
    e.subject_token = Some(TokenEvidence { issuer: "https://idp.example".into(), id: "t-1".into(), expires_at: now.0 + 900_000 });
    e.ancestors = vec![Ancestor { credential: vec![6; 16], caller: "spiffe://c.example/ci/job".into() }];
    e.x5t = vec![0xcd; 32];
    parts
}

pub fn grant(parts: GrantParts) -> Grant {
    Grant::for_test(parts)
}

/// Registrations of tests.
#[cfg(test)]
pub mod registration {
    use crate::connectors::READERS;
    use mayfly_base::document::SourceFile;
    use mayfly_ledger::upstream::file;
    use mayfly_ledger::upstream::registry::Upstream;

    /// Reads a registration; the error has all complaints.
    pub fn parse(text: &str) -> Result<Upstream, String> {
        file::parse(&SourceFile::new("u.toml", text), &READERS)
            .map_err(|wrong| wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    /// Checks that each defect is told: a text of a whole registration, the defect in its place, and a part of the complaint.
    pub fn each_is_told(whole: &str, defects: &[(&str, &str, &str)]) {
        for (from, to, said) in defects {
            assert!(whole.contains(from), "{from}");
            let no = parse(&whole.replacen(from, to, 1)).unwrap_err();
            assert!(no.contains(said), "{said} is not in: {no}");
        }
    }

    /// Checks that a registration comes back from the ledger's text, and from the JSON of its section, which is what the wire carries.
    pub fn comes_back(upstream: &Upstream, text: &str, section: &str) {
        assert_eq!(Upstream::from_text(&upstream.to_text()).unwrap(), *upstream);
        let kept = upstream.settings.of(section).unwrap();
        let mut table: toml::Table = toml::from_str(text).unwrap();
        table.insert(section.to_owned(), toml::Value::try_from(kept).unwrap());
        assert_eq!(parse(&toml::to_string(&table).unwrap()).unwrap(), *upstream);
    }
}
