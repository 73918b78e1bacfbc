//! JSON and table forms of revocations, rules, locks and followers.

use serde::Serialize;

use super::{Hits, Target, Who, or_dash, some_seq, time, yes_no};
use crate::out::{Noun, Row};
use mayfly_proto::mayfly::v1 as pb;

/// The result of a revocation or its dry run.
#[derive(Serialize, Debug)]
pub struct Revoked {
    /// `None` for a dry run.
    pub seq: Option<u64>,
    pub dry_run: bool,
    pub issued_only: bool,
    pub hits: Hits,
    pub targets: Vec<TargetHits>,
    pub locks: Vec<Lock>,
    pub reach: Option<Reach>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub followers: Option<Applied>,
}

/// The hits of one target.
#[derive(Serialize, Debug)]
pub struct TargetHits {
    pub target: Option<Target>,
    pub hits: Hits,
}

/// The progress of a revocation: refused by mayfly, removed at upstreams, verified as removed.
#[derive(Serialize, Clone, Copy, Debug)]
pub struct Reach {
    pub refused: u64,
    pub upstream_pending: u64,
    pub upstream_undone: u64,
    pub verified: u64,
}

/// The followers that have applied a record.
#[derive(Serialize, Debug)]
pub struct Applied {
    pub applied: bool,
    pub behind_count: u64,
    /// The number of registered followers; `None`: the server does not say it.
    pub registered: Option<u64>,
    pub behind: Vec<Follower>,
}

impl Revoked {
    /// Converts the answer. `dry_run` and `issued_only` are those of the request, which the answer does not repeat.
    pub fn of(answer: pb::RevokeResponse, dry_run: bool, issued_only: bool) -> Revoked {
        let hits = |t: pb::TargetHits| TargetHits { target: Target::of(t.target.as_ref()), hits: t.hits.into() };
        Revoked {
            seq: some_seq(answer.seq),
            dry_run,
            issued_only,
            hits: answer.hits.into(),
            targets: answer.targets.into_iter().map(hits).collect(),
            locks: answer.locks.into_iter().map(Lock::from).collect(),
            reach: answer.reach.map(Reach::from),
            followers: None,
        }
    }
}

impl From<pb::Reach> for Reach {
    fn from(r: pb::Reach) -> Reach {
        Reach {
            refused: r.refused,
            upstream_pending: r.upstream_pending,
            upstream_undone: r.upstream_undone,
            verified: r.verified,
        }
    }
}

impl Noun for Revoked {
    fn name(&self) -> String {
        self.seq.unwrap_or_default().to_string()
    }
}

impl Noun for TargetHits {
    fn name(&self) -> String {
        self.target.as_ref().map(Target::text).unwrap_or_default()
    }
}

impl Row for TargetHits {
    const COLUMNS: &'static [&'static str] = &["TARGET", "CREDENTIALS", "TASKS", "CALLERS"];

    fn cells(&self) -> Vec<String> {
        [self.name()].into_iter().chain(self.hits.cells()).collect()
    }
}

/// A revocation rule in effect.
#[derive(Serialize, Debug)]
pub struct Rule {
    pub seq: u64,
    pub targets: Vec<Target>,
    pub author: Option<Who>,
    pub reason: String,
    pub at: Option<String>,
    pub kept_until: Option<String>,
    pub issued_only: bool,
    /// `None`: the hits were not counted.
    pub hits: Option<Hits>,
}

impl From<pb::Rule> for Rule {
    fn from(r: pb::Rule) -> Rule {
        Rule {
            seq: r.seq,
            targets: r.targets.iter().filter_map(|t| Target::of(Some(t))).collect(),
            author: Who::of(r.author),
            reason: r.reason,
            at: time(r.at),
            kept_until: time(r.kept_until),
            issued_only: r.issued_only,
            hits: r.hits.map(|hits| Some(hits).into()),
        }
    }
}

impl Noun for Rule {
    fn name(&self) -> String {
        self.seq.to_string()
    }
}

impl Row for Rule {
    const COLUMNS: &'static [&'static str] = &["SEQ", "TARGETS", "HIT", "AT", "AUTHOR", "REASON"];
    const WIDE: &'static [&'static str] = &["KEPT UNTIL", "ISSUED ONLY"];

    fn cells(&self) -> Vec<String> {
        let targets: Vec<String> = self.targets.iter().map(Target::text).collect();
        vec![
            self.seq.to_string(),
            targets.join("; "),
            or_dash(self.hits.as_ref().map(|h| h.credentials.to_string()).as_deref()),
            or_dash(self.at.as_deref()),
            Who::text(self.author.as_ref()),
            self.reason.clone(),
            self.kept_until.clone().unwrap_or_else(|| "for ever".to_owned()),
            yes_no(self.issued_only),
        ]
    }
}

/// A lock.
#[derive(Serialize, Debug)]
pub struct Lock {
    pub seq: u64,
    pub index: u32,
    pub target: Option<Target>,
    pub author: Option<Who>,
    pub reason: String,
    pub since: Option<String>,
}

impl Lock {
    /// Why it locks: its reason, where the server says it, and in any case its number and its target.
    pub fn why(&self) -> String {
        let target = self.target.as_ref().map_or_else(|| "an unknown target".to_owned(), Target::text);
        let named = format!("lock {} on {target}", self.seq);
        if self.reason.is_empty() { named } else { format!("{} ({named})", self.reason) }
    }
}

impl From<pb::Lock> for Lock {
    fn from(l: pb::Lock) -> Lock {
        let (target, author) = (Target::of(l.target.as_ref()), Who::of(l.author));
        Lock { seq: l.seq, index: l.index, target, author, reason: l.reason, since: time(l.since) }
    }
}

impl Noun for Lock {
    fn name(&self) -> String {
        format!("{}:{}", self.seq, self.index)
    }
}

impl Row for Lock {
    const COLUMNS: &'static [&'static str] = &["SEQ", "INDEX", "TARGET", "SINCE", "AUTHOR", "REASON"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.seq.to_string(),
            self.index.to_string(),
            self.target.as_ref().map(Target::text).unwrap_or_default(),
            or_dash(self.since.as_deref()),
            Who::text(self.author.as_ref()),
            self.reason.clone(),
        ]
    }
}

/// The result of adding locks.
#[derive(Serialize, Debug)]
pub struct Locked {
    pub seq: u64,
    pub hits: Hits,
    pub locks: Vec<Lock>,
}

impl Noun for Locked {
    fn name(&self) -> String {
        self.seq.to_string()
    }
}

/// The result of lifting locks.
#[derive(Serialize, Debug)]
pub struct Lifted {
    pub seq: u64,
    pub lifted: Vec<Lock>,
    pub remaining: Vec<Lock>,
}

impl Noun for Lifted {
    fn name(&self) -> String {
        self.seq.to_string()
    }
}

/// A registered follower.
#[derive(Serialize, Debug)]
pub struct Follower {
    pub follower: String,
    pub identity: Option<Who>,
    pub connected: bool,
    pub applied_seq: u64,
    pub sent_seq: u64,
    pub last_seen: Option<String>,
    pub upstreams: Vec<String>,
}

impl From<pb::Follower> for Follower {
    fn from(f: pb::Follower) -> Follower {
        Follower {
            follower: f.follower,
            identity: Who::of(f.identity),
            connected: f.connected,
            applied_seq: f.applied_seq,
            sent_seq: f.sent_seq,
            last_seen: time(f.last_seen),
            upstreams: f.upstreams,
        }
    }
}

impl Noun for Follower {
    fn name(&self) -> String {
        self.follower.clone()
    }
}

impl Row for Follower {
    const COLUMNS: &'static [&'static str] = &["FOLLOWER", "IDENTITY", "CONNECTED", "APPLIED", "LAST SEEN"];
    const WIDE: &'static [&'static str] = &["SENT", "UPSTREAMS"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.follower.clone(),
            Who::text(self.identity.as_ref()),
            yes_no(self.connected),
            self.applied_seq.to_string(),
            or_dash(self.last_seen.as_deref()),
            self.sent_seq.to_string(),
            self.upstreams.join(","),
        ]
    }
}
