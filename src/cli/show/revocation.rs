//! JSON and table forms of revocations, rules, locks and followers.

use serde::Serialize;

use super::{AuthorView, HitsView, TargetView, or_dash, some_seq, time, yes_no};
use crate::out::{Printable, Row};
use mayfly_proto::mayfly::v1 as pb;

/// The result of a revocation or its dry run.
#[derive(Serialize, Debug)]
pub struct RevocationView {
    /// `None` for a dry run.
    pub seq: Option<u64>,
    pub dry_run: bool,
    pub issued_only: bool,
    pub hits: HitsView,
    pub targets: Vec<TargetHits>,
    pub locks: Vec<LockView>,
    pub reach: Option<RevocationReachView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub followers: Option<PropagationView>,
}

/// The hits of one target.
#[derive(Serialize, Debug)]
pub struct TargetHits {
    pub target: Option<TargetView>,
    pub hits: HitsView,
}

/// The progress of a revocation: refused by mayfly, removed at upstreams, verified as removed.
#[derive(Serialize, Clone, Copy, Debug)]
pub struct RevocationReachView {
    pub refused: u64,
    pub upstream_pending: u64,
    pub upstream_undone: u64,
    pub verified: u64,
}

/// The followers that have applied a record.
#[derive(Serialize, Debug)]
pub struct PropagationView {
    pub applied: bool,
    pub behind_count: u64,
    /// The number of registered followers; `None`: the server does not say it.
    pub registered: Option<u64>,
    pub behind: Vec<FollowerView>,
}

impl RevocationView {
    /// Converts the answer. `dry_run` and `issued_only` are those of the request, which the answer does not repeat.
    pub fn of(answer: pb::RevokeResponse, dry_run: bool, issued_only: bool) -> RevocationView {
        let hits = |t: pb::TargetHits| TargetHits { target: TargetView::of(t.target.as_ref()), hits: t.hits.into() };
        RevocationView {
            seq: some_seq(answer.seq),
            dry_run,
            issued_only,
            hits: answer.hits.into(),
            targets: answer.targets.into_iter().map(hits).collect(),
            locks: answer.locks.into_iter().map(LockView::from).collect(),
            reach: answer.reach.map(RevocationReachView::from),
            followers: None,
        }
    }
}

impl From<pb::Reach> for RevocationReachView {
    fn from(r: pb::Reach) -> RevocationReachView {
        RevocationReachView {
            refused: r.refused,
            upstream_pending: r.upstream_pending,
            upstream_undone: r.upstream_undone,
            verified: r.verified,
        }
    }
}

impl Printable for RevocationView {
    fn name(&self) -> String {
        self.seq.unwrap_or_default().to_string()
    }
}

impl Printable for TargetHits {
    fn name(&self) -> String {
        self.target.as_ref().map(TargetView::text).unwrap_or_default()
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
pub struct RuleView {
    pub seq: u64,
    pub targets: Vec<TargetView>,
    pub author: Option<AuthorView>,
    pub reason: String,
    pub at: Option<String>,
    pub kept_until: Option<String>,
    pub issued_only: bool,
    /// `None`: the hits were not counted.
    pub hits: Option<HitsView>,
}

impl From<pb::Rule> for RuleView {
    fn from(r: pb::Rule) -> RuleView {
        RuleView {
            seq: r.seq,
            targets: r.targets.iter().filter_map(|t| TargetView::of(Some(t))).collect(),
            author: AuthorView::of(r.author),
            reason: r.reason,
            at: time(r.at),
            kept_until: time(r.kept_until),
            issued_only: r.issued_only,
            hits: r.hits.map(|hits| Some(hits).into()),
        }
    }
}

impl Printable for RuleView {
    fn name(&self) -> String {
        self.seq.to_string()
    }
}

impl Row for RuleView {
    const COLUMNS: &'static [&'static str] = &["SEQ", "TARGETS", "HIT", "AT", "AUTHOR", "REASON"];
    const WIDE: &'static [&'static str] = &["KEPT UNTIL", "ISSUED ONLY"];

    fn cells(&self) -> Vec<String> {
        let targets: Vec<String> = self.targets.iter().map(TargetView::text).collect();
        vec![
            self.seq.to_string(),
            targets.join("; "),
            or_dash(self.hits.as_ref().map(|h| h.credentials.to_string()).as_deref()),
            or_dash(self.at.as_deref()),
            AuthorView::text(self.author.as_ref()),
            self.reason.clone(),
            self.kept_until.clone().unwrap_or_else(|| "for ever".to_owned()),
            yes_no(self.issued_only),
        ]
    }
}

/// A lock.
#[derive(Serialize, Debug)]
pub struct LockView {
    pub seq: u64,
    pub index: u32,
    pub target: Option<TargetView>,
    pub author: Option<AuthorView>,
    pub reason: String,
    pub since: Option<String>,
}

impl LockView {
    /// Why it locks: its reason, where the server says it, and in any case its number and its target.
    pub fn why(&self) -> String {
        let target = self.target.as_ref().map_or_else(|| "an unknown target".to_owned(), TargetView::text);
        let named = format!("lock {} on {target}", self.seq);
        if self.reason.is_empty() { named } else { format!("{} ({named})", self.reason) }
    }
}

impl From<pb::Lock> for LockView {
    fn from(l: pb::Lock) -> LockView {
        let (target, author) = (TargetView::of(l.target.as_ref()), AuthorView::of(l.author));
        LockView { seq: l.seq, index: l.index, target, author, reason: l.reason, since: time(l.since) }
    }
}

impl Printable for LockView {
    fn name(&self) -> String {
        format!("{}:{}", self.seq, self.index)
    }
}

impl Row for LockView {
    const COLUMNS: &'static [&'static str] = &["SEQ", "INDEX", "TARGET", "SINCE", "AUTHOR", "REASON"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.seq.to_string(),
            self.index.to_string(),
            self.target.as_ref().map(TargetView::text).unwrap_or_default(),
            or_dash(self.since.as_deref()),
            AuthorView::text(self.author.as_ref()),
            self.reason.clone(),
        ]
    }
}

/// The result of adding locks.
#[derive(Serialize, Debug)]
pub struct AddedLocksView {
    pub seq: u64,
    pub hits: HitsView,
    pub locks: Vec<LockView>,
}

impl Printable for AddedLocksView {
    fn name(&self) -> String {
        self.seq.to_string()
    }
}

/// The result of lifting locks.
#[derive(Serialize, Debug)]
pub struct LiftedLocksView {
    pub seq: u64,
    pub lifted: Vec<LockView>,
    pub remaining: Vec<LockView>,
}

impl Printable for LiftedLocksView {
    fn name(&self) -> String {
        self.seq.to_string()
    }
}

/// A registered follower.
#[derive(Serialize, Debug)]
pub struct FollowerView {
    pub follower: String,
    pub identity: Option<AuthorView>,
    pub connected: bool,
    pub applied_seq: u64,
    pub sent_seq: u64,
    pub last_seen: Option<String>,
    pub upstreams: Vec<String>,
}

impl From<pb::Follower> for FollowerView {
    fn from(f: pb::Follower) -> FollowerView {
        FollowerView {
            follower: f.follower,
            identity: AuthorView::of(f.identity),
            connected: f.connected,
            applied_seq: f.applied_seq,
            sent_seq: f.sent_seq,
            last_seen: time(f.last_seen),
            upstreams: f.upstreams,
        }
    }
}

impl Printable for FollowerView {
    fn name(&self) -> String {
        self.follower.clone()
    }
}

impl Row for FollowerView {
    const COLUMNS: &'static [&'static str] = &["FOLLOWER", "IDENTITY", "CONNECTED", "APPLIED", "LAST SEEN"];
    const WIDE: &'static [&'static str] = &["SENT", "UPSTREAMS"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.follower.clone(),
            AuthorView::text(self.identity.as_ref()),
            yes_no(self.connected),
            self.applied_seq.to_string(),
            or_dash(self.last_seen.as_deref()),
            self.sent_seq.to_string(),
            self.upstreams.join(","),
        ]
    }
}
