//! RevocationService: revocations, locks, rules, and followers of the feed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};

use super::super::peer::{self, Peer};
use super::super::status::status;
use super::super::wire;
use super::page::{self, PageRequest, within_bytes};
use super::request_checks::{self, refused};
use super::revocation_watch;
use super::token::idempotency_key_of;
use mayfly_authority::admission::operators::OperatorScope;
use mayfly_authority::authority::Authority;
use mayfly_authority::revocation::feed::{FeedFollower, RuleOrigin};
use mayfly_authority::revocation::revoke::{AffectedKind, LockRequest, RevocationHits, RevocationRequest, RevocationResult};
use mayfly_authority::tasks::Actor;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_identity::caller::Operator;
use mayfly_ledger::State;
use mayfly_ledger::commit::sha256;
use mayfly_ledger::record::Event;
use mayfly_ledger::revocation::{RevocationEntry, Target};
use mayfly_policy::{OperatorActionType, admin, exchange_request};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::mayfly::v1::revocation_service_server::RevocationService;
use mayfly_verify::seq::Seq;

/// The gRPC service.
pub struct RevocationApi(pub Arc<Authority>);

/// Identifies a lock among the locks of its record, permanently: a hash of the locked target.
pub(super) fn lock_index(target: &Target) -> u32 {
    let [a, b, c, d, ..] = sha256(target.to_string().as_bytes());
    u32::from_be_bytes([a, b, c, d])
}

fn targets(field: &'static str, all: &[pb::Target]) -> Result<Vec<Target>, Refusal> {
    if all.is_empty() || all.len() > limits::TARGETS {
        return Err(Refusal::field(field, format!("1 to {} of them, not {}", limits::TARGETS, all.len())));
    }
    all.iter().map(|t| wire::target_from_pb(field, t)).collect()
}

fn why(text: &str) -> Result<String, Refusal> {
    if text.trim().is_empty() {
        return Err(Refusal::field("reason", "is missing: give the reason, for the audit log"));
    }
    exchange_request::text("reason", text, limits::PURPOSE_BYTES)
}

impl RevocationApi {
    /// The environments that an operator may observe; an operator who may observe none is noted for the audit.
    fn scope(&self, request: &Request<impl Sized>, rpc: &'static str) -> Result<(Actor, OperatorScope<admin::Observe>), Status> {
        let operator = peer::operator(request)?;
        let actor = Actor::Operator(operator.clone());
        let scope = self.0.scope(&operator).map_err(refused(&self.0, &actor, rpc))?;
        Ok((actor, scope))
    }

    /// Whether a follower follows for an upstream of an environment that the operator may see. A follower that names no upstream follows
    /// for all.
    fn sees_follower(&self, scope: &OperatorScope<admin::Observe>, follower: &FeedFollower) -> bool {
        let compiled = self.0.catalog.now();
        let of = |name: &String| compiled.upstream(name).is_some_and(|r| scope.has(&r.upstream.environment));
        scope.everywhere() || follower.upstreams.is_empty() || follower.upstreams.iter().any(of)
    }

    /// The locks that the revocation at `seq` of these targets made. Only these targets are looked up, since there may be very many rules
    /// in effect.
    async fn locks_of(&self, seq: Seq, targets: &[Target]) -> Result<Vec<pb::Lock>, Error> {
        let mut locked: Vec<&Target> = targets.iter().filter(|t| t.sort().locks()).collect();
        if locked.is_empty() {
            return Ok(Vec::new());
        }
        locked.sort_unstable();
        locked.dedup();
        self.0.ledger.settled(|s| locked.retain(|t| s.rules.get(t).is_some_and(|e| e.lock == Some(seq)))).await?;
        let made = self.0.made([seq]).await;
        Ok(locked.iter().map(|t| lock_to_pb(seq, t, &made)).collect())
    }

    async fn do_blast_radius(&self, operator: &Operator, ask: &pb::BlastRadiusRequest) -> Result<pb::BlastRadiusResponse, Error> {
        self.0.scope::<admin::Observe>(operator)?;
        let targets = targets("targets", &ask.targets)?;
        self.0.admit_to_targets::<admin::Observe>(operator, &targets).await?;
        let most = match ask.most {
            0 => limits::BLAST_NAMES_DEFAULT,
            n => usize::try_from(n).ok().filter(|n| *n <= limits::BLAST_NAMES).ok_or_else(|| {
                Refusal::field("most", format!("is {n}: 1 to {}, or 0 for {}", limits::BLAST_NAMES, limits::BLAST_NAMES_DEFAULT))
            })?,
        };
        self.0.known(&targets).await?;
        let radius = self.0.blast_radius(&targets).await?;
        let sorts = [
            (AffectedKind::Upstream, pb::BlastOf::Upstream),
            (AffectedKind::Caller, pb::BlastOf::Caller),
            (AffectedKind::Owner, pb::BlastOf::Owner),
            (AffectedKind::Task, pb::BlastOf::Task),
            (AffectedKind::Tool, pb::BlastOf::Tool),
            (AffectedKind::Environment, pb::BlastOf::Environment),
        ];
        let sorts = sorts.map(|(of, shown)| {
            let (count, most) = radius.most(of, most);
            let item = |(name, credentials): (&str, u64)| pb::BlastItem { name: name.to_owned(), credentials };
            pb::BlastSort { of: shown.into(), count, items: most.into_iter().map(item).collect() }
        });
        Ok(pb::BlastRadiusResponse {
            hits: Some(super::hits_to_pb(&radius.hits)),
            made_elsewhere: radius.hits.at_upstreams,
            sorts: sorts.into_iter().filter(|sort| sort.count > 0).collect(),
            last_ends_at: radius.ends.map(wire::timestamp),
        })
    }

    /// The credentials that a revocation would revoke, and the locks that it would set.
    async fn would_revoke(&self, operator: &Operator, ask: &pb::RevokeRequest) -> Result<pb::RevokeResponse, Error> {
        self.0.scope::<admin::Observe>(operator)?;
        let targets = targets("targets", &ask.targets)?;
        self.0.admit_to_targets::<admin::Observe>(operator, &targets).await?;
        self.0.known_or_forced(&targets, ask.force).await?;
        let (hits, each) = self.0.hits(&targets).await?;
        let locks = targets.iter().filter(|t| t.sort().locks() && !ask.issued_only);
        let locks = locks.map(|t| wire::lock_to_pb(Seq::ZERO, lock_index(t), t, None)).collect();
        let hits = Some(super::hits_to_pb(&hits));
        Ok(pb::RevokeResponse { hits, targets: hits_of_each(&targets, each), locks, ..Default::default() })
    }

    async fn do_revoke(&self, operator: &Operator, ask: &pb::RevokeRequest) -> Result<pb::RevokeResponse, Error> {
        if ask.dry_run {
            return self.would_revoke(operator, ask).await;
        }
        let targets = self.targets_for::<admin::Revoke>(operator, &ask.targets)?;
        let admitted = self.0.admit_to_targets::<admin::Revoke>(operator, &targets).await?;
        let lock = match ask.issued_only || !targets.iter().any(|t| t.sort().locks()) {
            true => None,
            false => Some(self.0.admit_to_targets::<admin::Lock>(operator, &targets).await.map_err(without_locks)?),
        };
        let revocation = RevocationRequest {
            targets: targets.clone(),
            issued_only: ask.issued_only,
            reason: why(&ask.reason)?,
            force: ask.force,
            confirm: request_checks::confirm(ask.confirmation.as_ref()),
            named: idempotency_key_of(&ask.request_id, ask)?,
        };
        let RevocationResult { seq, hits: found, each } = self.0.revoke(&admitted, lock.as_ref(), &revocation).await?;
        let locks = if ask.issued_only { Vec::new() } else { self.locks_of(seq, &targets).await? };
        let mut hits = super::hits_to_pb(&found);
        hits.overlapping = targets.len() > 1;
        // From this record on, mayfly refuses all of these credentials. Credentials at upstreams are deleted from now on.
        let reach = pb::Reach { refused: found.credentials, upstream_pending: found.at_upstreams, ..Default::default() };
        let targets = hits_of_each(&targets, each);
        Ok(pb::RevokeResponse { seq: seq.as_u64(), targets, hits: Some(hits), locks, reach: Some(reach) })
    }

    async fn do_lock(&self, operator: &Operator, ask: &pb::AddLockRequest) -> Result<pb::AddLockResponse, Error> {
        let targets = self.targets_for::<admin::Lock>(operator, &ask.targets)?;
        let admitted = self.0.admit_to_targets::<admin::Lock>(operator, &targets).await?;
        let reason = why(&ask.reason)?;
        let named = idempotency_key_of(&ask.request_id, ask)?;
        let locking = LockRequest { targets: targets.clone(), force: ask.force, reason, named };
        let done = self.0.lock(&admitted, &locking).await?;
        let locks = self.locks_of(done.seq, &targets).await?;
        Ok(pb::AddLockResponse { seq: done.seq.as_u64(), locks, hits: Some(super::hits_to_pb(&done.hits)) })
    }

    /// The targets of a request. Somebody who is permitted the action nowhere does not learn what is wrong with them.
    fn targets_for<A: OperatorActionType>(&self, operator: &Operator, sent: &[pb::Target]) -> Result<Vec<Target>, Error> {
        targets("targets", sent).or_else(|no| self.0.scope::<A>(operator).and(Err(no.into())))
    }

    async fn do_lift(&self, operator: &Operator, ask: &pb::LiftLockRequest) -> Result<pb::LiftLockResponse, Error> {
        let seq = wire::seq("seq", ask.seq)?;
        let named = idempotency_key_of(&ask.request_id, ask)?;
        let all = self
            .0
            .ledger
            .settled(|s| s.rules.entries().into_iter().filter(|(_, e)| e.lock == Some(seq)).map(|(t, _)| t).collect::<Vec<_>>())
            .await?;
        let (lifted, remaining): (Vec<Target>, Vec<Target>) =
            all.iter().cloned().partition(|t| ask.index.is_none_or(|index| index == lock_index(t)));
        let admitted = match lifted.is_empty() {
            true => None,
            false => Some(self.0.admit_to_targets::<admin::Lock>(operator, &lifted).await?),
        };
        let who = match &admitted {
            Some(admitted) => admitted.who(),
            None => self.0.scope::<admin::Lock>(operator)?.who(),
        };
        if let Some(before) = self.0.remembered(&who.name(), &named).await? {
            let made = self.0.made([seq]).await;
            let remaining = all.iter().map(|t| lock_to_pb(seq, t, &made)).collect();
            return Ok(pb::LiftLockResponse { seq: before.seq.as_u64(), lifted: Vec::new(), remaining });
        }
        let Some(admitted) = admitted else {
            return Err(self.no_such_lock(operator, seq, ask.index).await);
        };
        let reason = why(&ask.reason)?;
        let done = self.0.lift(&admitted, &lifted, &reason, &named).await?;
        let made = self.0.made([seq]).await;
        Ok(pb::LiftLockResponse {
            seq: done.as_u64(),
            lifted: lifted.iter().map(|t| lock_to_pb(seq, t, &made)).collect(),
            remaining: remaining.iter().map(|t| lock_to_pb(seq, t, &made)).collect(),
        })
    }

    /// The refusal for a lock that is not in force. A newer lock of the same target takes the place of an older one; it is named if this
    /// operator may see it.
    async fn no_such_lock(&self, operator: &Operator, seq: Seq, index: Option<u32>) -> Error {
        let made = self.0.made([seq]).await;
        let targets: Vec<Target> = match made.get(&seq).and_then(|origin| origin.record.event.as_ref()) {
            Some(Event::Revoked(revoked)) => revoked.targets.iter().filter_map(|t| Target::from_record(t).ok()).collect(),
            _ => Vec::new(),
        };
        let locked: Vec<Target> = targets.into_iter().filter(|t| index.is_none_or(|index| index == lock_index(t))).collect();
        let newer = |s: &State| locked.iter().filter_map(|t| Some((s.rules.get(t)?.lock?, t.clone()))).collect::<Vec<_>>();
        let newer: Vec<(Seq, Target)> = match (self.0.ledger.settled(newer).await, self.0.scope::<admin::Observe>(operator)) {
            (Ok(newer), Ok(scope)) => newer.into_iter().filter(|(_, t)| self.0.sees_target(&scope, t)).collect(),
            _ => Vec::new(),
        };
        let none = format!("there is no such lock of seq {seq}");
        if newer.is_empty() {
            return Error::Refusal(Refusal::new(Reason::NotFound, none).way_out("mayfly lock list shows the existing locks"));
        }
        let by: Vec<String> = newer.iter().map(|(seq, t)| format!("{t} is locked by the newer lock {seq}")).collect();
        let names: Vec<String> = newer.iter().map(|(seq, t)| format!("{seq}:{}", lock_index(t))).collect();
        let no = Refusal::new(Reason::NotFound, format!("{none} any more: {}", by.join(", ")));
        Error::Refusal(no.way_out(format!("mayfly lock lift {} --reason TEXT", names.join(" "))))
    }

    /// Refuses a list that is empty because its target does not exist. An operator of some environments gets the same refusal for an
    /// environment that does not exist and for one that the operator may not see, and empty lists for other targets.
    async fn exists(&self, scope: &OperatorScope<admin::Observe>, target: Option<&Target>) -> Result<(), Error> {
        match target {
            Some(target) if scope.everywhere() => self.0.known(std::slice::from_ref(target)).await,
            Some(Target::Environment(name)) if !scope.has(name) => {
                Err(request_checks::not_found(format!("there is no environment {name} that you may see")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The rules in effect by sequence number, newest first, each with its targets.
    async fn rules(&self, scope: &OperatorScope<admin::Observe>) -> Result<Vec<(Seq, Vec<(Target, RevocationEntry)>)>, Error> {
        let entries = self.0.ledger.settled(|s| s.rules.entries()).await?;
        let mut by_seq: BTreeMap<Seq, Vec<(Target, RevocationEntry)>> = Default::default();
        let in_force = entries.into_iter().filter(|(_, e)| e.revoked > Seq::ZERO);
        for (target, entry) in in_force.filter(|(target, _)| self.0.sees_target(scope, target)) {
            by_seq.entry(entry.revoked).or_default().push((target, entry));
        }
        Ok(by_seq.into_iter().rev().collect())
    }

    async fn rules_to_pb(&self, rules: &[(Seq, Vec<(Target, RevocationEntry)>)]) -> Vec<pb::Rule> {
        let made = self.0.made(rules.iter().map(|(seq, _)| *seq)).await;
        rules.iter().map(|(seq, targets)| rule_to_pb(*seq, targets, &made)).collect()
    }
}

/// The calling operator. The required permission depends on the request.
fn operator(request: &Request<impl Sized>) -> Result<(Actor, Operator), Status> {
    let operator = peer::operator(request)?;
    Ok((Actor::Operator(operator.clone()), operator))
}

/// Tells an operator who may revoke but not lock how to revoke without a lock.
fn without_locks(no: Error) -> Error {
    match no {
        Error::Refusal(mut no) => {
            no.message = format!("{no}; a revocation of these targets also locks them, and nothing was revoked");
            let way_out = "revoke what was issued and lock nothing: mayfly revoke … --issued-only --reason TEXT";
            Error::Refusal(no.way_out(way_out))
        }
        fault => fault,
    }
}

fn hits_of_each(targets: &[Target], all: Vec<RevocationHits>) -> Vec<pb::TargetHits> {
    let pairs = targets.iter().zip(all);
    pairs.map(|(t, h)| pb::TargetHits { target: Some(wire::target_to_pb(t)), hits: Some(super::hits_to_pb(&h)) }).collect()
}

fn cause_of(seq: Seq, made: &BTreeMap<Seq, RuleOrigin>) -> Option<wire::RuleCause> {
    made.get(&seq).and_then(|m| wire::RuleCause::of(&m.record, m.at))
}

fn lock_to_pb(seq: Seq, target: &Target, made: &BTreeMap<Seq, RuleOrigin>) -> pb::Lock {
    wire::lock_to_pb(seq, lock_index(target), target, cause_of(seq, made).as_ref())
}

fn rule_to_pb(seq: Seq, targets: &[(Target, RevocationEntry)], made: &BTreeMap<Seq, RuleOrigin>) -> pb::Rule {
    let until = targets.iter().map(|(_, e)| e.until).max().unwrap_or_default();
    let issued_only = targets.iter().all(|(_, e)| e.lock.is_none());
    let targets: Vec<Target> = targets.iter().map(|(t, _)| t.clone()).collect();
    let hits = made.get(&seq).and_then(|m| m.hits.as_ref()).map(super::hits_to_pb);
    pb::Rule { hits, ..wire::rule_to_pb(seq, &targets, until, issued_only, cause_of(seq, made).as_ref()) }
}

pub(super) fn follower_to_pb(f: &FeedFollower) -> pb::Follower {
    pb::Follower {
        follower: f.name.clone(),
        identity: Some(wire::identity_of_who(&f.who)),
        upstreams: f.upstreams.clone(),
        applied_seq: f.applied.as_u64(),
        connected: f.connected,
        last_seen: Some(wire::timestamp(f.last_seen)),
        sent_seq: f.sent.as_u64(),
    }
}

#[tonic::async_trait]
impl RevocationService for RevocationApi {
    async fn revoke(&self, request: Request<pb::RevokeRequest>) -> Result<Response<pb::RevokeResponse>, Status> {
        let (actor, operator) = operator(&request)?;
        let done = self.do_revoke(&operator, request.get_ref()).await;
        done.map(Response::new).map_err(refused(&self.0, &actor, "revoke"))
    }

    async fn blast_radius(&self, request: Request<pb::BlastRadiusRequest>) -> Result<Response<pb::BlastRadiusResponse>, Status> {
        let (actor, operator) = operator(&request)?;
        let answer = self.do_blast_radius(&operator, request.get_ref()).await;
        answer.map(Response::new).map_err(refused(&self.0, &actor, "blast_radius"))
    }

    async fn get_revocation(
        &self,
        request: Request<pb::GetRevocationRequest>,
    ) -> Result<Response<pb::GetRevocationResponse>, Status> {
        let (actor, scope) = self.scope(&request, "get_revocation")?;
        let found = async {
            let seq = wire::seq("seq", request.get_ref().seq)?;
            let rules = self.rules(&scope).await?;
            let rule: Vec<_> = rules.into_iter().filter(|(s, _)| *s == seq).collect();
            let no =
                || Error::Refusal(Refusal::new(Reason::NotFound, format!("no rule of seq {seq} is in force that you may see")));
            let targets: Vec<Target> = rule.iter().flat_map(|(_, targets)| targets).map(|(target, _)| target.clone()).collect();
            let shown = self.rules_to_pb(&rule).await.pop().ok_or_else(no)?;
            Ok::<_, Error>((seq, shown, self.0.reach(seq, &targets).await?))
        };
        let (seq, rule, reach) = found.await.map_err(refused(&self.0, &actor, "get_revocation"))?;
        let followers = self.0.followers.list(self.0.system.wall());
        let applied = followers.iter().filter(|f| f.applied >= seq).count() as u64;
        Ok(Response::new(pb::GetRevocationResponse {
            rule: Some(rule),
            reach: reach.map(|r| pb::Reach {
                refused: r.refused,
                upstream_pending: r.pending,
                upstream_undone: r.undone,
                verified: r.verified,
            }),
            followers_applied: applied,
            followers_behind: followers.len() as u64 - applied,
        }))
    }

    async fn list_rules(&self, request: Request<pb::ListRulesRequest>) -> Result<Response<pb::ListRulesResponse>, Status> {
        let (actor, scope) = self.scope(&request, "list_rules")?;
        let scope = &scope;
        let listed = within_bytes(request.get_ref(), |ask: pb::ListRulesRequest| async move {
            let page = PageRequest::from(ask.page_size, &ask.page_token)?;
            let only = ask.target.as_ref().map(|t| wire::target_from_pb("target", t)).transpose()?;
            let rules = self.rules(scope).await?;
            let fits = |(_, targets): &(Seq, Vec<(Target, RevocationEntry)>)| {
                only.as_ref().is_none_or(|o| targets.iter().any(|(t, _)| t == o))
            };
            let (found, next_page_token) = page.newest(rules.into_iter().map(|r| (r.0, r)), fits);
            if found.is_empty() {
                self.exists(scope, only.as_ref()).await?;
            }
            let rules = self.rules_to_pb(&found).await;
            Ok::<_, Error>(pb::ListRulesResponse { rules, next_page_token })
        });
        listed.await.map(Response::new).map_err(refused(&self.0, &actor, "list_rules"))
    }

    async fn add_lock(&self, request: Request<pb::AddLockRequest>) -> Result<Response<pb::AddLockResponse>, Status> {
        let (actor, operator) = operator(&request)?;
        let added = self.do_lock(&operator, request.get_ref()).await;
        added.map(Response::new).map_err(refused(&self.0, &actor, "add_lock"))
    }

    async fn list_locks(&self, request: Request<pb::ListLocksRequest>) -> Result<Response<pb::ListLocksResponse>, Status> {
        let (actor, scope) = self.scope(&request, "list_locks")?;
        let scope = &scope;
        let listed = within_bytes(request.get_ref(), |ask: pb::ListLocksRequest| async move {
            let page = PageRequest::from(ask.page_size, &ask.page_token)?;
            let only = ask.target.as_ref().map(|t| wire::target_from_pb("target", t)).transpose()?;
            let entries = self.0.ledger.settled(|s| s.rules.entries()).await?;
            let locks = entries.into_iter().filter_map(|(t, e)| Some((e.lock?, t)));
            let locks = locks.filter(|(_, t)| self.0.sees_target(scope, t));
            let (found, next_page_token) =
                page.newest(locks.map(|(seq, t)| (seq, (seq, t))), |(_, t)| only.as_ref().is_none_or(|o| o == t));
            if found.is_empty() {
                self.exists(scope, only.as_ref()).await?;
            }
            let made = self.0.made(found.iter().map(|(seq, _)| *seq)).await;
            let locks = found.iter().map(|(seq, t)| lock_to_pb(*seq, t, &made)).collect();
            Ok::<_, Error>(pb::ListLocksResponse { locks, next_page_token })
        });
        listed.await.map(Response::new).map_err(refused(&self.0, &actor, "list_locks"))
    }

    async fn lift_lock(&self, request: Request<pb::LiftLockRequest>) -> Result<Response<pb::LiftLockResponse>, Status> {
        let (actor, operator) = operator(&request)?;
        let done = self.do_lift(&operator, request.get_ref()).await;
        done.map(Response::new).map_err(refused(&self.0, &actor, "lift_lock"))
    }

    type WatchRevocationsStream = revocation_watch::Events;

    async fn watch_revocations(
        &self,
        request: Request<pb::WatchRevocationsRequest>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        let follows = revocation_watch::FeedCaller::of(&self.0, &request, "watch_revocations")?;
        let events = revocation_watch::start(self.0.clone(), follows, request.into_inner()).await.map_err(status)?;
        Ok(Response::new(events))
    }

    async fn acknowledge_revocations(
        &self,
        request: Request<pb::AcknowledgeRevocationsRequest>,
    ) -> Result<Response<pb::AcknowledgeRevocationsResponse>, Status> {
        let who = revocation_watch::FeedCaller::of(&self.0, &request, "acknowledge_revocations")?.who();
        let ask = request.get_ref();
        let applied = wire::seq("applied_seq", ask.applied_seq).map_err(|no| status(Error::Refusal(no)))?;
        let head = self.0.ledger.durable();
        if applied > head {
            self.0.followers.seen_beyond(&who, &ask.follower, applied, head);
        }
        self.0.followers.acknowledge(&who, &ask.follower, applied, self.0.system.wall()).map_err(status)?;
        Ok(Response::new(pb::AcknowledgeRevocationsResponse { head: head.as_u64() }))
    }

    async fn wait_for_revocation(
        &self,
        request: Request<pb::WaitForRevocationRequest>,
    ) -> Result<Response<pb::WaitForRevocationResponse>, Status> {
        let mut scope = None;
        if matches!(request.extensions().get::<Peer>(), Some(Peer::Workload(_))) {
            request_checks::caller(&self.0, &request, "wait_for_revocation")?;
        } else {
            scope = Some(self.scope(&request, "wait_for_revocation")?.1);
        }
        let ask = request.get_ref();
        let waited = async {
            let seq = wire::seq("seq", ask.seq)?;
            let head = self.0.ledger.durable();
            if seq > head {
                return Err(Error::Refusal(Refusal::field("seq", format!("is beyond the head {head}"))));
            }
            let timeout = exchange_request::duration("timeout", ask.timeout.as_ref())?.unwrap_or(0).min(limits::WAIT_MS);
            Ok(self.0.followers.wait(seq, Duration::from_millis(timeout), || self.0.system.wall()).await)
        };
        let (behind, known) = waited.await.map_err(status)?;
        // Workloads get no information about other followers.
        let seen = behind.iter().filter(|f| scope.as_ref().is_some_and(|scope| self.sees_follower(scope, f)));
        Ok(Response::new(pb::WaitForRevocationResponse {
            applied: behind.is_empty() && known,
            behind_count: behind.len() as u64,
            followers: Some(self.0.followers.registered(self.0.system.wall())),
            behind: page::fit(seen.take(limits::PAGE).map(follower_to_pb)),
        }))
    }

    async fn list_followers(
        &self,
        request: Request<pb::ListFollowersRequest>,
    ) -> Result<Response<pb::ListFollowersResponse>, Status> {
        let (_, scope) = self.scope(&request, "list_followers")?;
        let scope = &scope;
        let listed = within_bytes(request.get_ref(), |ask: pb::ListFollowersRequest| async move {
            let page = PageRequest::from(ask.page_size, &ask.page_token)?;
            let all = self.0.followers.list(self.0.system.wall());
            // Numbered from the end, so that the numbers of existing followers stay when another one joins.
            let numbered = all.iter().enumerate().filter_map(|(n, f)| Some((Seq::from_u64(n as u64 + 1)?, f)));
            let (found, next_page_token) = page.newest(numbered, |f| self.sees_follower(scope, f));
            Ok::<_, Error>(pb::ListFollowersResponse {
                followers: found.into_iter().map(follower_to_pb).collect(),
                next_page_token,
            })
        });
        listed.await.map(Response::new).map_err(status)
    }
}
