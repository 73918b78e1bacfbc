//! Use reports of credentials: sent by the servers of their upstreams, folded per minute, and written in a low lane beside issuing. Policy
//! checks whether the reported use exceeds the task's intent, and can hold the task.
//!
//! A report is answered before it is written, since it is neither a grant nor a change. A stop may lose the last second of new uses, and
//! for continuing uses the rest of their minute.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use parking_lot::Mutex;

use crate::admission::rate_limits::RateLimitedAct;
use crate::authority::Authority;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_identity::caller::Caller;
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_ledger::record::{Author, CredentialIssued, Event, HoldRank, Record, TaskHeld, UsesReported};
use mayfly_ledger::state::{LiveCredential, State, Task};
use mayfly_ledger::upstream::registry::Kind;
use mayfly_ledger::{ProposalKind, View};
use mayfly_policy::decide::ReportedUse;
use mayfly_verify::seq::{CredentialId, Millis, Seq, TaskId};

const MINUTE: u64 = 60_000;

/// One use or several equal uses, validated.
#[derive(Clone, Debug)]
pub struct UseReport {
    /// The credential.
    pub credential: CredentialId,
    /// The tool; empty for none.
    pub tool: String,
    /// One of [`USE_OUTCOMES`](mayfly_ledger::record::USE_OUTCOMES).
    pub outcome: &'static str,
    /// The time of the use; of several, that of the last.
    pub at: Millis,
    /// The number of uses.
    pub count: u32,
}

/// The credential that was used.
#[derive(Debug)]
struct UsedCredential {
    caller: SpiffeId,
    upstream: String,
    scopes: Vec<String>,
    kind: Option<Kind>,
    binding: String,
    /// The tool that the credential serves for; empty for any tool that its task names.
    tool: String,
    task: TaskId,
    expires_at: Millis,
}

/// Uses reported by one server that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    minute: u64,
    credential: CredentialId,
    tool: Box<str>,
    outcome: &'static str,
}

#[derive(Clone)]
struct FoldedUses {
    of: Arc<UsedCredential>,
    /// The number of uses that are not written yet.
    count: u64,
    declared: bool,
    after_end: bool,
    /// Policy has not been evaluated since the newest use.
    fresh: bool,
    /// A record of this minute contains some of the uses.
    written: bool,
}

/// The unwritten uses of each task, and how many of them were refused.
type Unwritten = HashMap<TaskId, (u64, u64)>;

/// The uses reported by one server that are unwritten, or whose minute is not over.
type ServerUses = BTreeMap<Key, FoldedUses>;

/// One entry: the server, the use, and the counts.
type ReportedEntry = (Arc<str>, Key, FoldedUses);

/// The use reports of one replica, apart for each server, so that no server takes the room of others.
pub struct UseReports {
    each: Mutex<BTreeMap<Arc<str>, ServerUses>>,
    /// Ended credentials, as history has them.
    ended: Cache<CredentialId, Arc<UsedCredential>>,
    /// The head of the ledger at times of the last hour, from which the time of a revocation is known.
    heads: Mutex<VecDeque<(Millis, Seq)>>,
}

impl Default for UseReports {
    fn default() -> UseReports {
        UseReports { each: Mutex::default(), ended: Cache::new(limits::USES_REMEMBERED), heads: Mutex::default() }
    }
}

impl UseReports {
    /// Notes the head of the ledger. Called once a second.
    fn tick(&self, now: Millis, head: Seq) {
        let mut heads = self.heads.lock();
        if heads.back().is_none_or(|(_, last)| *last < head) {
            heads.push_back((now, head));
        }
        while heads.front().is_some_and(|(at, _)| now.since(*at) > limits::USE_REPORTED_MS) && heads.len() > 1 {
            heads.pop_front();
        }
    }

    /// A time at which the ledger had reached `seq`, at most a second late, except for records from before the start. `None`: not reached
    /// yet.
    fn reached(&self, seq: Seq) -> Option<Millis> {
        let heads = self.heads.lock();
        let first = heads.partition_point(|(_, head)| *head < seq);
        heads.get(first).map(|(at, _)| *at)
    }

    fn take(
        &self,
        (server, key): (&Arc<str>, Key),
        of: &Arc<UsedCredential>,
        count: u64,
        (declared, after_end): (bool, bool),
    ) -> Result<(), Refusal> {
        let mut each = self.each.lock();
        let own = each.get(server);
        if !own.is_some_and(|own| own.contains_key(&key)) {
            let over = |name, bound: usize| Err(Refusal::limit(name, bound as u64, Duration::from_secs(1)));
            if own.is_some_and(|own| own.len() >= limits::USES_WAITING_PER_SERVER) {
                return over("uses_waiting_per_server", limits::USES_WAITING_PER_SERVER);
            }
            if each.values().map(BTreeMap::len).sum::<usize>() >= limits::USES_WAITING {
                return over("uses_waiting", limits::USES_WAITING);
            }
        }
        let plain = || FoldedUses { of: of.clone(), count: 0, declared: true, after_end: false, fresh: true, written: false };
        let folded = each.entry(server.clone()).or_default().entry(key).or_insert_with(plain);
        folded.count = folded.count.saturating_add(count);
        folded.declared &= declared;
        folded.after_end |= after_end;
        folded.fresh = true;
        Ok(())
    }

    /// The uses that policy has not evaluated yet, with the unwritten uses of each task.
    fn fresh(&self) -> (Vec<ReportedEntry>, Unwritten) {
        let (mut fresh, mut more) = (Vec::new(), HashMap::new());
        for (server, uses) in &mut *self.each.lock() {
            for (key, folded) in uses {
                let (uses, refused): &mut (u64, u64) = more.entry(folded.of.task).or_default();
                *uses = uses.saturating_add(folded.count);
                if key.outcome == "refused" {
                    *refused = refused.saturating_add(folded.count);
                }
                if std::mem::take(&mut folded.fresh) {
                    fresh.push((server.clone(), key.clone(), folded.clone()));
                }
            }
        }
        (fresh, more)
    }

    /// Takes out the uses to be written: those new in their minute, and the rest of a minute that is over. The number is bounded; each
    /// server has a share, and what some servers do not need goes to the others.
    fn due(&self, minute: u64) -> Vec<ReportedEntry> {
        let mut each = self.each.lock();
        let mut waiting: Vec<(usize, Arc<str>)> = Vec::new();
        for (server, uses) in &*each {
            let count = uses.iter().filter(|(key, folded)| folded.is_due(key, minute)).count();
            if count > 0 {
                waiting.push((count, server.clone()));
            }
        }
        // Servers with the fewest uses come first; what they leave of their share goes to the others.
        waiting.sort_unstable();
        let (mut due, mut servers) = (Vec::new(), waiting.len());
        for (_, server) in waiting {
            let part = (limits::USES_WRITTEN - due.len()).div_ceil(servers);
            servers -= 1;
            let uses = each.get_mut(&server).into_iter().flatten();
            for (key, folded) in uses.filter(|(key, folded)| folded.is_due(key, minute)).take(part) {
                due.push((server.clone(), key.clone(), folded.clone()));
                (folded.count, folded.written) = (0, true);
            }
        }
        each.retain(|_, uses| {
            uses.retain(|key, folded| folded.count > 0 || key.minute >= minute);
            !uses.is_empty()
        });
        due
    }

    /// Puts back uses that could not be written.
    fn put_back(&self, (server, key, folded): ReportedEntry) {
        let count = folded.count;
        let mut each = self.each.lock();
        let now = each.entry(server).or_default().entry(key).or_insert(FoldedUses { count: 0, fresh: false, ..folded });
        now.count = now.count.saturating_add(count);
        now.written = false;
    }
}

impl FoldedUses {
    fn is_due(&self, key: &Key, minute: u64) -> bool {
        self.count > 0 && (!self.written || key.minute < minute)
    }
}

impl UsedCredential {
    fn live(live: &LiveCredential<'_>, task: &Task) -> Option<UsedCredential> {
        Some(UsedCredential {
            caller: SpiffeId::parse(live.caller()).ok()?,
            upstream: live.upstream().to_owned(),
            scopes: live.scopes().into_iter().map(str::to_owned).collect(),
            kind: Kind::from_tag(live.kind()),
            binding: live.binding().to_owned(),
            tool: live.tool().to_owned(),
            task: task.terms.id,
            expires_at: live.expires_at(),
        })
    }

    fn issued(e: &CredentialIssued) -> Option<UsedCredential> {
        Some(UsedCredential {
            caller: SpiffeId::parse(&e.caller).ok()?,
            upstream: e.upstream.clone(),
            scopes: e.scopes.clone(),
            kind: u8::try_from(e.kind).ok().and_then(Kind::from_tag),
            binding: e.binding.clone(),
            tool: e.tool.clone(),
            task: TaskId::from_slice(&e.task)?,
            expires_at: Millis(e.expires_at),
        })
    }

    /// Whether the credential was issued for that tool, or its task names the tool. A use without a tool claims none.
    fn declares(&self, state: &State, tool: &str) -> bool {
        if tool.is_empty() || self.tool == tool {
            return true;
        }
        let Some(task) = state.tasks.get(&self.task).filter(|_| self.tool.is_empty()) else { return false };
        let allowance = &task.terms.allowance;
        allowance.any_tool || allowance.tools.iter().any(|t| t == tool)
    }
}

/// The refusal of a credential that does not exist or that the caller may not report on; both get the same answer.
fn unknown(id: &CredentialId) -> Refusal {
    Refusal::new(Reason::NotFound, format!("there is no credential {id} of an upstream whose server you are"))
}

impl Authority {
    /// Takes reported uses. Returns the refused ones by their index.
    pub async fn report_uses(&self, caller: &Caller, uses: &[UseReport]) -> Result<Vec<(usize, Error)>, Error> {
        self.still_stands(caller)?;
        let server: Arc<str> = caller.id().as_str().into();
        self.rates.load().take_n(RateLimitedAct::Use, &server, uses.len())?;
        let (mut problems, mut looked_up) = (Vec::new(), 0);
        for (place, used) in uses.iter().enumerate() {
            if let Err(no) = self.report(caller, &server, used, &mut looked_up).await {
                problems.push((place, no));
            }
        }
        Ok(problems)
    }

    async fn report(&self, caller: &Caller, server: &Arc<str>, used: &UseReport, looked_up: &mut usize) -> Result<(), Error> {
        let now = self.system.wall();
        let skew = self.ledger.allowed_skew_ms();
        if used.at > now.plus(skew) || now.since(used.at) > limits::USE_REPORTED_MS {
            let what = format!("is {}, expected within the last hour, and not after {now}", used.at);
            return Err(Error::Refusal(Refusal::field("at", what)));
        }
        let of = self.use_of(used.credential, (&**server, looked_up)).await?;
        if !self.serves(caller, &of.upstream) {
            return Err(Error::Refusal(unknown(&used.credential)));
        }
        let (declared, after_end) = self.ledger.peek(|state| {
            let end = self.ended_at(state, &used.credential, &of);
            (of.declares(state, &used.tool), end.is_some_and(|end| used.at > end.plus(skew)))
        });
        let key = Key {
            minute: used.at.0 / MINUTE,
            credential: used.credential,
            tool: used.tool.as_str().into(),
            outcome: used.outcome,
        };
        Ok(self.uses.take((server, key), &of, u64::from(used.count), (declared, after_end))?)
    }

    /// Whether a caller is a server of an upstream, in its environment.
    pub(crate) fn serves(&self, caller: &Caller, upstream: &str) -> bool {
        let compiled = self.catalog.now();
        let Some(registered) = compiled.upstream(upstream) else { return false };
        let environment = &registered.upstream.environment;
        let policy = compiled.policy(environment);
        registered.upstream.served_by(caller.id())
            && policy.is_some_and(|p| p.set.environment_of(caller.id()) == Some(environment.as_str()))
    }

    async fn use_of(&self, id: CredentialId, (server, looked_up): (&str, &mut usize)) -> Result<Arc<UsedCredential>, Error> {
        let live = self.ledger.peek(|s| {
            let live = s.credentials.get(&id)?;
            UsedCredential::live(&live, s.tasks.at(live.task())?)
        });
        if let Some(of) = live {
            return Ok(Arc::new(of));
        }
        if let Some(of) = self.uses.ended.get(&id) {
            return Ok(of);
        }
        if *looked_up == limits::USES_LOOKED_UP {
            let most = limits::USES_LOOKED_UP as u64;
            return Err(Error::Refusal(Refusal::limit("uses_looked_up", most, Duration::from_secs(1))));
        }
        self.rates.load().take(RateLimitedAct::LookUp, server)?;
        *looked_up += 1;
        let found = self.issuance(id).await?.ok_or_else(|| unknown(&id))?;
        let of = Arc::new(UsedCredential::issued(found.issued()?).ok_or_else(|| unknown(&id))?);
        self.uses.ended.insert(id, of.clone());
        Ok(of)
    }

    /// The latest time at which a credential had ended; `None`: it has not ended, or the time is unknown.
    fn ended_at(&self, state: &State, id: &CredentialId, of: &UsedCredential) -> Option<Millis> {
        let task = state.tasks.get(&of.task);
        let closed = task.into_iter().flat_map(|t| state.tasks.upwards(t)).filter_map(|t| t.closed.as_ref().map(|c| c.at));
        let revoked = state.credentials.get(id).and_then(|live| {
            let hit = state.rules.covers(&state.facts(&live, state.tasks.at(live.task())?))?;
            self.uses.reached(hit.seq)
        });
        closed.chain(revoked).chain([of.expires_at]).min()
    }

    /// Evaluates policy for new uses, holds tasks that exceed their intent, and writes the uses that are due. Called once a second.
    pub async fn follow_uses(&self) {
        let now = self.system.wall();
        self.uses.tick(now, self.ledger.durable());
        let (fresh, more) = self.uses.fresh();
        let view = self.ledger.view();
        for (server, key, folded) in &fresh {
            if let Some(why) = self.exceeds(&view, (&**server, key), folded, more.get(&folded.of.task).copied()) {
                self.hold_for(&folded.of, why).await;
            }
            // Each evaluation takes some ten microseconds; other tasks run in between.
            tokio::task::yield_now().await;
        }
        self.write_uses(now).await;
    }

    fn exceeds(&self, view: &View, (server, key): (&str, &Key), folded: &FoldedUses, more: Option<(u64, u64)>) -> Option<String> {
        let FoldedUses { of, declared, after_end, .. } = folded;
        let (declared, after_end) = (*declared, *after_end);
        let activity = ReportedUse {
            caller: &of.caller,
            upstream: &of.upstream,
            scopes: &of.scopes,
            kind: of.kind,
            binding: &of.binding,
            task: of.task,
            tool: &key.tool,
            outcome: key.outcome,
            declared,
            after_end,
            server,
            more: more.unwrap_or_default(),
        };
        let why = self.decider.exceeds(view, &self.catalog.now(), &activity)?;
        let tool = if key.tool.is_empty() { "no tool".to_owned() } else { format!("tool {}", key.tool) };
        let undeclared = if declared { "" } else { ", undeclared" };
        let late = if after_end { ", after its end" } else { "" };
        let what = format!("{} of {} with {tool}{undeclared}{late}: {why}", key.outcome, of.upstream);
        Some(format!("activity exceeds intent: {what}"))
    }

    async fn hold_for(&self, of: &UsedCredential, mut reason: String) {
        reason.truncate(reason.floor_char_boundary(limits::PURPOSE_BYTES));
        let held = |s: &State| {
            let task = s.tasks.get(&of.task)?;
            Some(task.closed.is_some() || task.holds.iter().any(|h| h.rank == HoldRank::Policy))
        };
        if self.ledger.peek(held) != Some(false) {
            return;
        }
        let owner = self.ledger.peek(|s| s.tasks.get(&of.task).and_then(|t| t.terms.owners.last().map(|o| o.name())));
        tracing::warn!(task_id = %of.task, owner = owner.unwrap_or_default(), reason, "the task is held");
        let event = TaskHeld { task: of.task.as_bytes().to_vec(), rank: HoldRank::Policy as i32, reason };
        let record = Record::new(Author::Mayfly("activity exceeds intent".to_owned()), Event::TaskHeld(event));
        // A hold takes away, so it uses the lane of revocations.
        match self.ledger.commit(ProposalKind::Revoke, vec![record]).await {
            Err(Error::Refusal(no)) if no.reason == Reason::TaskNotActive => {}
            Err(no) => tracing::error!(task_id = %of.task, %no, "a task that exceeds its intent could not be held"),
            Ok(_) => {}
        }
    }

    async fn write_uses(&self, now: Millis) {
        if self.ledger.stopped().is_some() {
            // The remaining disk space is reserved for revocations; the reported uses wait.
            return;
        }
        let mut proposed = Vec::new();
        for (server, key, folded) in self.uses.due(now.0 / MINUTE) {
            let reported = UsesReported {
                credential: key.credential.as_bytes().to_vec(),
                tool: key.tool.to_string(),
                outcome: key.outcome.to_owned(),
                minute: key.minute * MINUTE,
                count: folded.count,
                task: folded.of.task.as_bytes().to_vec(),
                undeclared: !folded.declared,
                after_end: folded.after_end,
                upstream: folded.of.upstream.clone(),
            };
            let record = Record::new(Author::SpiffeId(server.to_string()), Event::UsesReported(reported));
            match self.ledger.propose(ProposalKind::Note, vec![record]) {
                Ok(its) => proposed.push((its, (server, key, folded))),
                Err(_) => self.uses.put_back((server, key, folded)),
            }
        }
        for (its, reported) in proposed {
            if self.ledger.receipt(its).await.is_err() {
                self.uses.put_back(reported);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of() -> Arc<UsedCredential> {
        Arc::new(UsedCredential {
            caller: SpiffeId::parse("spiffe://a.example/agent").unwrap(),
            upstream: "echo".into(),
            scopes: Vec::new(),
            kind: None,
            binding: String::new(),
            tool: String::new(),
            task: TaskId::from_slice(&[1; 16]).unwrap(),
            expires_at: Millis(u64::MAX),
        })
    }

    fn key(tool: usize) -> Key {
        let credential = CredentialId::from_slice(&[1; 16]).unwrap();
        Key { minute: 0, credential, tool: format!("tool-{tool}").into(), outcome: "accepted" }
    }

    fn server(name: &str) -> Arc<str> {
        name.into()
    }

    #[test]
    fn a_server_that_makes_up_tools_fills_its_own_place_and_nobody_elses() {
        let (uses, of) = (UseReports::default(), of());
        let (greedy, other) = (server("a-greedy"), server("b-other"));
        let take = |server: &Arc<str>, tool| uses.take((server, key(tool)), &of, 1, (true, false));
        let refused = (0..).find_map(|tool| take(&greedy, tool).err()).unwrap();
        assert_eq!(refused.rule.as_deref(), Some("uses_waiting_per_server"));
        assert!(take(&greedy, 0).is_ok(), "what is folded needs no place");
        for tool in 0..100 {
            take(&other, tool).unwrap();
        }
        // All uses of the other server are written at once, before those that the first server still has.
        let due = uses.due(0);
        assert_eq!(due.len(), limits::USES_WRITTEN);
        assert_eq!(due.iter().filter(|(server, ..)| *server == other).count(), 100);
        for reported in due {
            uses.put_back(reported);
        }
        let all: usize = std::iter::from_fn(|| Some(uses.due(1).len()).filter(|n| *n > 0)).sum();
        assert_eq!(all, limits::USES_WAITING_PER_SERVER + 100);
        assert!(uses.each.lock().is_empty());
    }
}
