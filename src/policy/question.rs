//! The question that Cedar is asked: caller, action, upstream and intent. Plain values, collected by the caller of this module from its
//! view.
//!
//! Sets (scopes, chains, tools …) may be in any order; the same set in another order is the same question.

use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_ledger::upstream::access::GrantedAccess;
use mayfly_ledger::upstream::registry::{Kind, Upstream};
use mayfly_verify::seq::Millis;

use super::action::{Action, OperatorAction, WorkloadAction};

/// The task that a request belongs to, or that is about to be opened.
#[derive(Clone, Copy, Default, Debug)]
pub struct TaskFacts<'a> {
    /// The task's id; `None` while the task is being opened.
    pub id: Option<&'a str>,
    /// The task's purpose.
    pub purpose: &'a str,
    /// The task's owner: a SPIFFE ID, or a person as `issuer#sub`.
    pub owner: &'a str,
    /// The task's environment.
    pub environment: &'a str,
    /// Depth below the root task, which has 0.
    pub depth: i64,
    /// Lifetime from opening to deadline, in seconds.
    pub ttl_seconds: i64,
    /// Whether the task ends when a heartbeat is missed.
    pub heartbeat: bool,
    /// The upstreams that the task names.
    pub upstreams: &'a [&'a str],
    /// The tools that the task names.
    pub tools: &'a [&'a str],
    /// The callers that may act in the task.
    pub callers: &'a [&'a str],
}

/// A person who signed in.
#[derive(Clone, Copy, Debug)]
pub struct PersonFacts<'a> {
    /// The issuer's URL.
    pub issuer: &'a str,
    /// `sub` at that issuer.
    pub id: &'a str,
    /// Authentication methods (RFC 8176).
    pub amr: &'a [&'a str],
    /// Authentication context class, where the issuer gives one.
    pub acr: Option<&'a str>,
    /// When the person signed in.
    pub auth_time: Millis,
}

/// A job that an attestation rule admits.
#[derive(Clone, Copy, Debug)]
pub struct AttestedFacts<'a> {
    /// The issuer of the job's token.
    pub issuer: &'a str,
    /// The attestation rule.
    pub rule: &'a str,
    /// The platform's id of the workload that the job belongs to.
    pub id: &'a str,
    /// Claims of the job's token, as `name=value`.
    pub claims: &'a [&'a str],
}

/// The subject of a request, where it is not the caller.
#[derive(Clone, Copy, Debug)]
pub struct SubjectFacts<'a> {
    /// The subject's issuer.
    pub issuer: &'a str,
    /// `sub` at that issuer.
    pub id: &'a str,
    /// The subject's groups according to its token.
    pub groups: &'a [&'a str],
}

/// Counters. They change with every grant, so verdicts of a set that reads one are not cached.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct UsageCounts {
    /// Credentials issued in the task so far.
    pub issued_in_task: i64,
    /// Live credentials of the task.
    pub live_in_task: i64,
    /// Live credentials of the caller.
    pub live_of_caller: i64,
    /// Uses reported for the task.
    pub uses_in_task: i64,
    /// Refused uses among the uses reported for the task.
    pub refused_uses_in_task: i64,
    /// Actions authorized in the task.
    pub authorized_in_task: i64,
}

/// Approvals of this request. Verdicts of a set that reads them are not cached.
#[derive(Clone, Copy, Default, Debug)]
pub struct ApprovalFacts<'a> {
    /// The number of people who approved.
    pub count: i64,
    /// The people who approved: `issuer#sub`, or a SPIFFE ID.
    pub people: &'a [&'a str],
}

/// The declared intent: purpose, tool, arguments, kind and scopes.
#[derive(Clone, Copy, Default, Debug)]
pub struct DeclaredIntent<'a> {
    /// The purpose: the request's own, else the task's.
    pub purpose: &'a str,
    /// The tool that is about to be called.
    pub tool: Option<&'a str>,
    /// SHA-256 of the tool's arguments in RFC 8785 form, base64url ([`digest_text`]).
    pub arguments_digest: Option<&'a str>,
    /// The credential kind; `None` where a task names no kind.
    pub kind: Option<Kind>,
    /// The requested scopes.
    pub scopes: &'a [&'a str],
    /// The binding that covers the request.
    pub binding: Option<&'a str>,
    /// The access that the credential gives at its upstream ([`mayfly_ledger::upstream::access`]). `None` for kinds that mayfly makes itself.
    pub access: Option<&'a GrantedAccess>,
}

/// A digest in the form that policies read, base64url.
pub fn digest_text<'a>(digest: &[u8; 32], room: &'a mut [u8; 43]) -> &'a str {
    base64_simd::URL_SAFE_NO_PAD.encode_as_str(digest, base64_simd::Out::from_slice(room))
}

/// The context of exchanging, and of opening, extending or delegating a task.
#[derive(Clone, Copy, Default, Debug)]
pub struct WorkloadContext<'a> {
    /// The environment of the request.
    pub environment: &'a str,
    /// The declared intent: purpose, tool, arguments, kind and scopes.
    pub intent: DeclaredIntent<'a>,
    /// The requested lifetime of the credential or the task, in seconds.
    pub ttl_seconds: i64,
    /// Whether the request renews an earlier credential.
    pub renewal: bool,
    /// Whether the task is a break-glass task.
    pub break_glass: bool,
    /// The caller for which a child task is opened.
    pub delegate: Option<&'a str>,
    /// SPIFFE IDs of the actor chain, without the caller.
    pub act_chain: &'a [&'a str],
    /// The subject, where the caller acts on behalf of one.
    pub subject: Option<SubjectFacts<'a>>,
    /// The task.
    pub task: TaskFacts<'a>,
    /// The person behind the caller.
    pub person: Option<PersonFacts<'a>>,
    /// Counters.
    pub counts: UsageCounts,
    /// Approvals.
    pub approvals: ApprovalFacts<'a>,
    /// The time of the decision.
    pub now: Millis,
}

/// The context of introspecting a credential.
#[derive(Clone, Copy, Default, Debug)]
pub struct IntrospectionContext<'a> {
    /// The credential's environment.
    pub environment: &'a str,
    /// The person behind the caller.
    pub person: Option<PersonFacts<'a>>,
    /// The time of the decision.
    pub now: Millis,
}

/// The context of approving an exchange that somebody else asked for.
#[derive(Clone, Copy, Default, Debug)]
pub struct ApprovalContext<'a> {
    /// The environment of the request.
    pub environment: &'a str,
    /// The SPIFFE ID of the caller that made the request.
    pub caller: &'a str,
    /// The declared intent: purpose, tool, arguments, kind and scopes.
    pub intent: DeclaredIntent<'a>,
    /// The person who decides.
    pub person: Option<PersonFacts<'a>>,
    /// The time of the decision.
    pub now: Millis,
}

/// The context of a credential's use, as reported by a server of its upstream.
#[derive(Clone, Copy, Default, Debug)]
pub struct UseContext<'a> {
    /// The credential's environment.
    pub environment: &'a str,
    /// The tool that used the credential, and the credential's properties.
    pub intent: DeclaredIntent<'a>,
    /// The credential's task.
    pub task: TaskFacts<'a>,
    /// Counters, including this use.
    pub counts: UsageCounts,
    /// `accepted`, `refused` or `failed`.
    pub outcome: &'a str,
    /// The tool is named by the credential or, where the credential names none, by its task.
    pub declared: bool,
    /// The use came after the credential's end.
    pub after_end: bool,
    /// The SPIFFE ID of the reporting server.
    pub server: &'a str,
    /// The time of the decision.
    pub now: Millis,
}

/// The context of an operator's action, or of a sign-in.
#[derive(Clone, Copy, Default, Debug)]
pub struct OperatorContext<'a> {
    /// The environment that the action concerns; `None` where it concerns no single one.
    pub environment: Option<&'a str>,
    /// The kind of target, such as `task` or `everything`.
    pub target_kind: Option<&'a str>,
    /// The target's name.
    pub target: Option<&'a str>,
    /// The operator who asked for a change, where that change is being approved.
    pub caller: Option<&'a str>,
    /// Whether the operator acts in a break-glass task.
    pub break_glass: bool,
    /// The person behind the operator's SVID.
    pub person: Option<PersonFacts<'a>>,
    /// The job that signs in.
    pub job: Option<AttestedFacts<'a>>,
    /// Approvals.
    pub approvals: ApprovalFacts<'a>,
    /// The time of the decision.
    pub now: Millis,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum QuestionContext<'a> {
    Ask(&'a Upstream, &'a WorkloadContext<'a>),
    Look(&'a Upstream, &'a IntrospectionContext<'a>),
    Decide(&'a Upstream, &'a ApprovalContext<'a>),
    Used(&'a Upstream, &'a UseContext<'a>),
    Act(&'a OperatorContext<'a>),
}

/// One question to Cedar. Each action has its own type of resource and context; the constructors allow no other combination.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub(super) caller: &'a SpiffeId,
    pub(super) action: Action,
    pub(super) about: QuestionContext<'a>,
}

impl<'a> Question<'a> {
    /// May this caller do this work with this upstream?
    pub fn work(
        caller: &'a SpiffeId,
        work: WorkloadAction,
        upstream: &'a Upstream,
        ask: &'a WorkloadContext<'a>,
    ) -> Question<'a> {
        Question { caller, action: Action::Work(work), about: QuestionContext::Ask(upstream, ask) }
    }

    /// May this caller introspect a credential of this upstream?
    pub fn introspect(caller: &'a SpiffeId, upstream: &'a Upstream, look: &'a IntrospectionContext<'a>) -> Question<'a> {
        Question { caller, action: Action::Introspect, about: QuestionContext::Look(upstream, look) }
    }

    /// May this approver approve that request?
    pub fn approve(approver: &'a SpiffeId, upstream: &'a Upstream, decide: &'a ApprovalContext<'a>) -> Question<'a> {
        Question { caller: approver, action: Action::Approve, about: QuestionContext::Decide(upstream, decide) }
    }

    /// Is this use of a credential permitted to the caller that the credential was issued to?
    pub fn used(caller: &'a SpiffeId, upstream: &'a Upstream, used: &'a UseContext<'a>) -> Question<'a> {
        Question { caller, action: Action::Use, about: QuestionContext::Used(upstream, used) }
    }

    /// May this operator do this action?
    pub fn admin(caller: &'a SpiffeId, admin: OperatorAction, act: &'a OperatorContext<'a>) -> Question<'a> {
        Question { caller, action: Action::Admin(admin), about: QuestionContext::Act(act) }
    }

    /// May this person or job sign in? The caller is the SPIFFE ID that signing in would give.
    pub fn sign_in(caller: &'a SpiffeId, act: &'a OperatorContext<'a>) -> Question<'a> {
        Question { caller, action: Action::SignIn, about: QuestionContext::Act(act) }
    }

    /// The action of the question.
    pub fn action(&self) -> Action {
        self.action
    }

    pub(super) fn ask(&self) -> Option<&'a WorkloadContext<'a>> {
        match self.about {
            QuestionContext::Ask(_, ask) => Some(ask),
            QuestionContext::Look(..) | QuestionContext::Decide(..) | QuestionContext::Used(..) | QuestionContext::Act(_) => None,
        }
    }

    pub(super) fn used_as(&self) -> Option<&'a UseContext<'a>> {
        match self.about {
            QuestionContext::Used(_, used) => Some(used),
            QuestionContext::Ask(..) | QuestionContext::Look(..) | QuestionContext::Decide(..) | QuestionContext::Act(_) => None,
        }
    }

    pub(super) fn task(&self) -> Option<&'a TaskFacts<'a>> {
        self.ask().map(|ask| &ask.task).or_else(|| self.used_as().map(|used| &used.task))
    }

    pub(super) fn counts(&self) -> Option<&'a UsageCounts> {
        self.ask().map(|ask| &ask.counts).or_else(|| self.used_as().map(|used| &used.counts))
    }

    pub(super) fn asked_by(&self) -> Option<&'a str> {
        match self.about {
            QuestionContext::Decide(_, decide) => Some(decide.caller),
            QuestionContext::Act(act) => act.caller,
            QuestionContext::Ask(..) | QuestionContext::Look(..) | QuestionContext::Used(..) => None,
        }
    }

    pub(super) fn intent(&self) -> Option<&'a DeclaredIntent<'a>> {
        match self.about {
            QuestionContext::Ask(_, ask) => Some(&ask.intent),
            QuestionContext::Decide(_, decide) => Some(&decide.intent),
            QuestionContext::Used(_, used) => Some(&used.intent),
            QuestionContext::Look(..) | QuestionContext::Act(_) => None,
        }
    }

    /// The access at the upstream. A report of a use has none: it is about what happened.
    pub(super) fn access(&self) -> Option<&'a GrantedAccess> {
        match self.about {
            QuestionContext::Ask(_, ask) => ask.intent.access,
            QuestionContext::Decide(_, decide) => decide.intent.access,
            QuestionContext::Used(..) | QuestionContext::Look(..) | QuestionContext::Act(_) => None,
        }
    }

    pub(super) fn act(&self) -> Option<&'a OperatorContext<'a>> {
        match self.about {
            QuestionContext::Act(act) => Some(act),
            QuestionContext::Ask(..) | QuestionContext::Look(..) | QuestionContext::Decide(..) | QuestionContext::Used(..) => {
                None
            }
        }
    }

    pub(super) fn upstream(&self) -> Option<&'a Upstream> {
        match self.about {
            QuestionContext::Ask(upstream, _)
            | QuestionContext::Look(upstream, _)
            | QuestionContext::Decide(upstream, _)
            | QuestionContext::Used(upstream, _) => Some(upstream),
            QuestionContext::Act(_) => None,
        }
    }

    pub(super) fn environment(&self) -> Option<&'a str> {
        match self.about {
            QuestionContext::Ask(_, ask) => Some(ask.environment),
            QuestionContext::Look(_, look) => Some(look.environment),
            QuestionContext::Decide(_, decide) => Some(decide.environment),
            QuestionContext::Used(_, used) => Some(used.environment),
            QuestionContext::Act(act) => act.environment,
        }
    }

    pub(super) fn person(&self) -> Option<PersonFacts<'a>> {
        match self.about {
            QuestionContext::Ask(_, ask) => ask.person,
            QuestionContext::Look(_, look) => look.person,
            QuestionContext::Decide(_, decide) => decide.person,
            QuestionContext::Used(..) => None,
            QuestionContext::Act(act) => act.person,
        }
    }

    pub(super) fn attested(&self) -> Option<AttestedFacts<'a>> {
        match self.about {
            QuestionContext::Act(act) => act.job,
            _ => None,
        }
    }

    pub(super) fn approvals(&self) -> Option<ApprovalFacts<'a>> {
        match self.about {
            QuestionContext::Ask(_, ask) => Some(ask.approvals),
            QuestionContext::Look(..) | QuestionContext::Decide(..) | QuestionContext::Used(..) => None,
            QuestionContext::Act(act) => Some(act.approvals),
        }
    }

    pub(super) fn now(&self) -> Millis {
        match self.about {
            QuestionContext::Ask(_, ask) => ask.now,
            QuestionContext::Look(_, look) => look.now,
            QuestionContext::Decide(_, decide) => decide.now,
            QuestionContext::Used(_, used) => used.now,
            QuestionContext::Act(act) => act.now,
        }
    }
}
