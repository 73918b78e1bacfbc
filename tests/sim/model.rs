//! The rules again, as naive as possible: every question is a loop over all records that were ever valid. Nothing is forgotten, nothing is
//! indexed, and only record types and ids are shared with the product.

use std::rc::Rc;

use mayfly::ledger::record::*;
use mayfly::seq::Seq;

pub const MINUTE: u64 = 60_000;
pub const DAY: u64 = 24 * 60 * MINUTE;

/// A record with its place and its verdict.
#[derive(Clone, Debug)]
pub struct Line {
    pub seq: Seq,
    pub time: u64,
    pub record: Rc<Record>,
    pub valid: bool,
    /// For valid issuances: the facts at the time of issuance that rules match on.
    pub grant: Option<Rc<Grant>>,
}

/// The naive verdict; `Either`: the result depends on whether something was forgotten yet, within its bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Says {
    Valid,
    Void,
    Either,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Over,
    Pending,
    Held,
    Active,
}

/// The facts of a grant that rules match on.
#[derive(Clone, Debug, Default)]
pub struct Grant {
    pub credentials: Vec<Vec<u8>>,
    pub tasks: Vec<Vec<u8>>,
    pub identities: Vec<(String, String)>,
    pub upstream: String,
    pub scopes: Vec<String>,
    pub binding: String,
    pub tool: String,
    pub environment: String,
    pub policy: u64,
    pub key: String,
    pub svid: Option<(String, SvidEvidence)>,
    pub token: Option<(String, String)>,
    /// The other grants that it is based on: the openings of its tasks, and its ancestors. A rule that covers one of them covers the grant.
    pub rests_on: Vec<Grant>,
}

#[derive(Clone, Default)]
pub struct Model {
    pub log: Vec<Line>,
    pub head: Seq,
    /// The head after each commit, and its time.
    pub commits: Vec<(Seq, u64)>,
}

pub fn domain(id: &str) -> String {
    id.strip_prefix("spiffe://").unwrap_or_default().split('/').next().unwrap_or_default().to_owned()
}

fn identity(i: &Principal) -> (String, String) {
    (i.issuer.clone(), i.sub.clone())
}

impl Grant {
    /// Whether a rule with this aim covers the grant, or one that it is based on.
    pub fn matches(&self, aim: &RecordedTarget) -> bool {
        self.matches_itself(aim) || self.rests_on.iter().any(|ground| ground.matches_itself(aim))
    }

    /// Whether a rule with this aim covers the grant itself.
    fn matches_itself(&self, aim: &RecordedTarget) -> bool {
        let workload = |f: &dyn Fn(&str) -> bool| self.identities.iter().any(|(_, s)| s.starts_with("spiffe://") && f(s));
        match aim {
            RecordedTarget::Everything(_) => true,
            RecordedTarget::Credential(id) => self.credentials.contains(id),
            RecordedTarget::Task(id) => self.tasks.contains(id),
            RecordedTarget::Caller(id) => workload(&|s| s == id),
            RecordedTarget::Prefix(id) => workload(&|s| s == id || s.starts_with(&format!("{id}/"))),
            RecordedTarget::TrustDomain(td) => {
                workload(&|s| domain(s) == *td) || self.svid.as_ref().is_some_and(|(domain, _)| domain == td)
            }
            RecordedTarget::Subject(i) => self.identities.contains(&identity(i)),
            RecordedTarget::TrustAnchor(a) => self.svid.as_ref().is_some_and(|(_, s)| s.anchor == *a),
            RecordedTarget::Svid(t) => self
                .svid
                .as_ref()
                .is_some_and(|(domain, s)| *domain == t.trust_domain && s.issuing_key == t.issuing_key && s.serial == t.serial),
            RecordedTarget::SubjectToken(i) => self.token.as_ref() == Some(&identity(i)),
            RecordedTarget::Upstream(u) => self.upstream == *u,
            RecordedTarget::UpstreamScope(i) => self.upstream == i.issuer && self.scopes.contains(&i.sub),
            RecordedTarget::Binding(b) => self.binding == *b,
            RecordedTarget::Tool(t) => self.tool == *t,
            RecordedTarget::Environment(e) => self.environment == *e,
            RecordedTarget::PolicyBelow(p) => self.environment == p.environment && self.policy < p.version,
            RecordedTarget::SigningKey(k) => self.key == *k,
        }
    }
}

pub fn aims(targets: &[TargetRecord]) -> Vec<RecordedTarget> {
    targets.iter().filter_map(|t| t.aim.clone()).collect()
}

pub fn lockable(aim: &RecordedTarget) -> bool {
    matches!(
        aim,
        RecordedTarget::Caller(_)
            | RecordedTarget::Prefix(_)
            | RecordedTarget::TrustDomain(_)
            | RecordedTarget::Subject(_)
            | RecordedTarget::Upstream(_)
            | RecordedTarget::UpstreamScope(_)
            | RecordedTarget::Tool(_)
            | RecordedTarget::Environment(_)
            | RecordedTarget::Everything(_)
    )
}

/// The targets that a valid record revokes.
pub fn revokes(event: &Event) -> Vec<RecordedTarget> {
    match event {
        Event::Revoked(e) if !e.lock_only => aims(&e.targets),
        Event::Released(e) => vec![RecordedTarget::Credential(e.credential.clone())],
        Event::TaskClosed(e) => vec![RecordedTarget::Task(e.task.clone())],
        Event::KeyChanged(e) if e.state == KeyState::Compromised as i32 => vec![RecordedTarget::SigningKey(e.key.clone())],
        Event::GenerationBegun(e) if e.generation > 1 => vec![RecordedTarget::Everything(true)],
        _ => vec![],
    }
}

impl Model {
    pub fn valid(&self) -> impl Iterator<Item = (&Line, &Event)> {
        self.log.iter().filter(|l| l.valid).filter_map(|l| l.record.event.as_ref().map(|e| (l, e)))
    }

    /// Valid records since the newest generation began.
    pub fn now_valid(&self) -> impl Iterator<Item = (&Line, &Event)> {
        let began = self.valid().filter(|(_, e)| matches!(e, Event::GenerationBegun(_))).last().map_or(Seq::ZERO, |(l, _)| l.seq);
        self.valid().filter(move |(l, _)| l.seq >= began)
    }

    pub fn task(&self, id: &[u8]) -> Option<(&Line, &TaskOpened)> {
        self.now_valid().find_map(|(l, e)| match e {
            Event::TaskOpened(t) if t.task == id => Some((l, &**t)),
            _ => None,
        })
    }

    pub fn tasks(&self) -> Vec<(&Line, &TaskOpened)> {
        self.now_valid().filter_map(|(l, e)| if let Event::TaskOpened(t) = e { Some((l, &**t)) } else { None }).collect()
    }

    pub fn credential(&self, id: &[u8]) -> Option<(&Line, &CredentialIssued)> {
        self.credentials().into_iter().find(|(_, i)| i.credential == id)
    }

    pub fn credentials(&self) -> Vec<(&Line, &CredentialIssued)> {
        self.now_valid().filter_map(|(l, e)| if let Event::Issued(i) = e { Some((l, &**i)) } else { None }).collect()
    }

    /// Root first.
    pub fn path(&self, id: &[u8]) -> Vec<Vec<u8>> {
        let mut path = vec![id.to_vec()];
        while let Some((_, t)) = self.task(&path[0]) {
            if t.parent.is_empty() {
                break;
            }
            path.insert(0, t.parent.clone());
        }
        path
    }

    pub fn deadline(&self, id: &[u8]) -> u64 {
        let mut deadline = self.task(id).map_or(0, |(_, t)| self.glass_of(t).map_or(t.deadline, |(end, _)| end));
        for (_, e) in self.now_valid() {
            if let Event::TaskExtended(x) = e
                && x.task == id
            {
                deadline = x.deadline;
            }
        }
        deadline
    }

    pub fn silent(&self, id: &[u8], now: u64) -> bool {
        let Some((opened, t)) = self.task(id) else { return true };
        if self.waited(t, now).is_some_and(|phase| phase != Phase::Active) {
            return false;
        }
        let late = |alive: u64, at: u64| t.heartbeat > 0 && at > alive + t.heartbeat;
        let mut alive = self.given_at(t).filter(|_| !t.approval.is_empty()).unwrap_or(opened.time);
        let from = alive;
        for (l, e) in self.now_valid().filter(|(l, _)| l.seq > opened.seq && l.time >= from) {
            let Event::TaskHeartbeats(h) = e else { continue };
            if h.tasks.iter().any(|x| x == id) && !late(alive, l.time) {
                alive = l.time;
            }
            if h.all && !late(alive, h.away_since.min(l.time)) {
                alive = l.time;
            }
        }
        late(alive, now)
    }

    pub fn closed(&self, id: &[u8]) -> bool {
        self.now_valid().any(|(_, e)| match e {
            Event::TaskClosed(c) => c.task == id,
            Event::Revoked(r) => !r.lock_only && aims(&r.targets).contains(&RecordedTarget::Task(id.to_vec())),
            Event::ApprovalDecided(d) => !d.given && self.task(id).is_some_and(|(_, t)| t.approval == d.approval),
            _ => false,
        })
    }

    /// Rank and seq of each hold on the task itself.
    pub fn holds(&self, id: &[u8]) -> Vec<(i32, Seq)> {
        let mut holds = Vec::new();
        for (l, e) in self.now_valid() {
            match e {
                Event::TaskHeld(h) if h.task == id => holds.push((h.rank, l.seq)),
                Event::TaskResumed(r) if r.task == id => {
                    holds.retain(|(rank, seq)| *rank > r.rank || seq.as_u64() > l.record.revision);
                }
                _ => {}
            }
        }
        holds
    }

    pub fn phase(&self, id: &[u8], now: u64) -> Phase {
        let path = self.path(id);
        if path.iter().any(|t| self.task(t).is_none() || self.closed(t) || now >= self.deadline(t) || self.silent(t, now)) {
            return Phase::Over;
        }
        let waited = |phase: Phase| path.iter().any(|t| self.task(t).is_some_and(|(_, t)| self.waited(t, now) == Some(phase)));
        if waited(Phase::Over) {
            return Phase::Over;
        }
        if waited(Phase::Pending) {
            return Phase::Pending;
        }
        if path.iter().any(|t| !self.holds(t).is_empty()) { Phase::Held } else { Phase::Active }
    }

    pub fn owners(&self, path: &[Vec<u8>]) -> Vec<(String, String)> {
        path.iter().filter_map(|t| self.task(t)).filter_map(|(_, t)| t.owner.as_ref().map(identity)).collect()
    }

    /// The facts of a credential according to its claims.
    pub fn grant(&self, i: &CredentialIssued) -> Grant {
        let mut grant = self.grant_itself(i);
        for (_, task) in grant.tasks.iter().filter_map(|id| self.task(id)) {
            grant.rests_on.push(self.opening_itself(task));
            grant.rests_on.extend(self.joining(task));
        }
        let openings: Vec<Vec<u8>> = grant.rests_on.iter().flat_map(|opening| opening.credentials.clone()).collect();
        let ancestors = grant.credentials.iter().filter(|id| **id != i.credential).chain(&openings);
        let ancestors: Vec<Grant> = ancestors.filter_map(|id| self.ancestor(id)).collect();
        grant.rests_on.extend(ancestors);
        grant
    }

    /// The facts of an ancestor without its own ancestors, which the descendant names, too.
    fn ancestor(&self, id: &[u8]) -> Option<Grant> {
        let issued = self.credential(id).map(|(_, i)| self.grant_itself(i));
        issued.or_else(|| self.login(id).map(|(_, login)| self.of_login(login)))
    }

    fn grant_itself(&self, i: &CredentialIssued) -> Grant {
        let path = self.path(&i.task);
        let mut identities = vec![(domain(&i.caller), i.caller.clone())];
        identities.extend(self.owners(&path));
        identities.extend(i.ancestors.iter().map(|a| (domain(&a.caller), a.caller.clone())));
        identities.extend(i.subject.iter().chain(&i.actors).map(identity));
        let mut credentials = vec![i.credential.clone()];
        credentials.extend(i.ancestors.iter().map(|a| a.credential.clone()));
        Grant {
            credentials,
            tasks: path,
            identities,
            upstream: i.upstream.clone(),
            scopes: i.scopes.clone(),
            binding: i.binding.clone(),
            tool: i.tool.clone(),
            environment: i.environment.clone(),
            policy: i.policy_version,
            key: i.key.clone(),
            svid: i.svid.clone().map(|s| (domain(&i.caller), s)),
            token: i.subject_token.as_ref().map(|t| (t.issuer.clone(), t.id.clone())),
            rests_on: Vec::new(),
        }
    }

    /// The facts of a task's opening, and of the credentials that it is based on.
    pub fn opening(&self, t: &TaskOpened) -> Grant {
        let opening = self.opening_itself(t);
        let rests_on = opening.credentials.iter().filter_map(|id| self.ancestor(id)).collect();
        Grant { rests_on, ..opening }
    }

    fn opening_itself(&self, t: &TaskOpened) -> Grant {
        let mut path = if t.parent.is_empty() { vec![] } else { self.path(&t.parent) };
        let mut identities = vec![(domain(&t.opener), t.opener.clone())];
        identities.extend(self.owners(&path));
        identities.extend(t.owner.iter().map(identity));
        identities.extend(t.actors.iter().map(identity));
        identities.extend(t.ancestors.iter().map(|a| (domain(&a.caller), a.caller.clone())));
        path.push(t.task.clone());
        let mut credentials: Vec<_> = t.ancestors.iter().map(|a| a.credential.clone()).collect();
        credentials.extend((!t.ancestor.is_empty()).then(|| t.ancestor.clone()));
        Grant {
            credentials,
            token: t.subject_token.as_ref().map(|t| (t.issuer.clone(), t.id.clone())),
            tasks: path,
            identities,
            environment: t.environment.clone(),
            policy: t.policy_version,
            svid: t.svid.clone().map(|s| (domain(&t.opener), s)),
            ..Grant::default()
        }
    }

    /// The first rule up to a place that revokes a grant decided at `r`. A rule on a key ignores `r`.
    pub fn covered(&self, grant: &Grant, r: u64, upto: Seq) -> Option<(Seq, RecordedTarget)> {
        self.valid().filter(|(l, _)| l.seq <= upto).find_map(|(l, e)| {
            let hits =
                |a: &RecordedTarget| grant.matches(a) && (matches!(a, RecordedTarget::SigningKey(_)) || r < l.seq.as_u64());
            revokes(e).into_iter().find(hits).map(|a| (l.seq, a))
        })
    }

    /// The seq of each lock in effect.
    pub fn locks(&self) -> Vec<(RecordedTarget, Seq)> {
        let mut locks: Vec<(RecordedTarget, Seq)> = Vec::new();
        for (l, e) in self.valid() {
            match e {
                Event::Revoked(r) if r.lock_only || !r.issued_only => {
                    for aim in aims(&r.targets).into_iter().filter(lockable) {
                        locks.retain(|(a, _)| *a != aim);
                        locks.push((aim, l.seq));
                    }
                }
                Event::LockLifted(x) => locks.retain(|(a, _)| !aims(&x.targets).contains(a)),
                _ => {}
            }
        }
        locks
    }

    /// Whether a new grant is refused: covered, locked, or based on revoked evidence.
    pub fn blocked(&self, grant: &Grant, r: u64, now: u64) -> Says {
        // The grants that it is based on are checked where they are presented: whether the task accepts grants, and whether the ancestors
        // are valid.
        let grant = &Grant { rests_on: Vec::new(), ..grant.clone() };
        if self.covered(grant, r, self.head).is_some() || self.locks().iter().any(|(a, _)| grant.matches(a)) {
            return Says::Void;
        }
        let mut says = Says::Valid;
        for (l, e) in self.valid() {
            for aim in revokes(e).iter().filter(|a| grant.matches(a)) {
                let kept = l.time + DAY + 60 * MINUTE + 70_000;
                match aim {
                    RecordedTarget::SigningKey(_) => return Says::Void,
                    // The rule is kept longer than the named thing can be presented.
                    RecordedTarget::Credential(_)
                    | RecordedTarget::Task(_)
                    | RecordedTarget::Svid(_)
                    | RecordedTarget::SubjectToken(_)
                        if now <= kept =>
                    {
                        return Says::Void;
                    }
                    RecordedTarget::Credential(_)
                    | RecordedTarget::Task(_)
                    | RecordedTarget::Svid(_)
                    | RecordedTarget::SubjectToken(_) => says = Says::Either,
                    _ => {}
                }
            }
        }
        says
    }

    /// Whether a task accepts grants.
    pub fn usable(&self, id: &[u8], now: u64) -> bool {
        let opened = |t: &Vec<u8>| self.task(t).map(|(l, t)| (l.record.revision, self.opening(t)));
        self.phase(id, now) == Phase::Active
            && self.path(id).iter().filter_map(opened).all(|(r, g)| self.covered(&g, r, self.head).is_none())
            && self.path(id).first().and_then(|root| self.task(root)).is_none_or(|(_, t)| self.joining_stands(t))
    }

    /// Whether a credential counts as evidence.
    pub fn alive(&self, id: &[u8], now: u64) -> bool {
        let Some((line, i)) = self.credential(id) else { return self.signed_in(id, now) };
        let released = self.now_valid().any(|(_, e)| matches!(e, Event::Released(x) if x.credential == id));
        !released
            && i.expires_at > now
            && self.covered(&self.grant(i), line.record.revision, self.head).is_none()
            && self.usable(&i.task, now)
    }
}
