//! What Cedar is asked: who, what, about which upstream, with which intent. Plain values that the story gathers from its view.
//!
//! The sets (scopes, chains, tools …) may come in any order; the same set in another order is the same question.

use crate::identity::spiffe_id::SpiffeId;
use crate::seq::Millis;
use crate::upstream::registry::{Kind, Upstream};

use super::action::{Action, Admin, Work};

/// The task that something hangs on, or that is about to be opened.
#[derive(Clone, Copy, Default, Debug)]
pub struct TaskFacts<'a> {
    /// Its id; `None` while it is being opened.
    pub id: Option<&'a str>,
    /// What it is for.
    pub purpose: &'a str,
    /// Who owns it: a SPIFFE ID, or a person as `issuer#sub`.
    pub owner: &'a str,
    /// Its environment.
    pub environment: &'a str,
    /// 0 for a root task, one more for each parent.
    pub depth: i64,
    /// Its life from opening to deadline, seconds.
    pub ttl_seconds: i64,
    /// Whether it ends when its heartbeat is missed.
    pub heartbeat: bool,
    /// The upstreams that it names.
    pub upstreams: &'a [&'a str],
    /// The tools that it names.
    pub tools: &'a [&'a str],
    /// The callers that may act in it.
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

/// A job that a rule lets in.
#[derive(Clone, Copy, Debug)]
pub struct AttestedFacts<'a> {
    /// The issuer of its token.
    pub issuer: &'a str,
    /// The rule.
    pub rule: &'a str,
    /// The platform's id of what it is a job of.
    pub id: &'a str,
    /// `name=value` of its token's claims.
    pub claims: &'a [&'a str],
}

/// On whose behalf, where that is not the caller.
#[derive(Clone, Copy, Debug)]
pub struct SubjectFacts<'a> {
    /// The subject's issuer.
    pub issuer: &'a str,
    /// `sub` at that issuer.
    pub id: &'a str,
    /// The groups that it is in, as its token says.
    pub groups: &'a [&'a str],
}

/// Numbers that move with every grant. A set that reads one is not cached.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Credentials issued in the task so far.
    pub issued_in_task: i64,
    /// Live credentials of the task.
    pub live_in_task: i64,
    /// Live credentials of the caller.
    pub live_of_caller: i64,
    /// Uses reported for the task.
    pub uses_in_task: i64,
    /// Those of them that were refused.
    pub refused_uses_in_task: i64,
    /// Actions authorized in the task.
    pub authorized_in_task: i64,
}

/// Approvals of this very request. A set that reads one is not cached.
#[derive(Clone, Copy, Default, Debug)]
pub struct ApprovalFacts<'a> {
    /// How many people approved.
    pub count: i64,
    /// Who: `issuer#sub`, or a SPIFFE ID.
    pub people: &'a [&'a str],
}

/// What somebody wants, and what for.
#[derive(Clone, Copy, Default, Debug)]
pub struct Intent<'a> {
    /// What for: of this request, or its task's.
    pub purpose: &'a str,
    /// The tool that is about to be called.
    pub tool: Option<&'a str>,
    /// SHA-256 of the tool's arguments in RFC 8785 form, base64url ([`digest_text`]).
    pub arguments_digest: Option<&'a str>,
    /// What kind of credential; `None` where a task names no kind.
    pub kind: Option<Kind>,
    /// The scopes that are asked for.
    pub scopes: &'a [&'a str],
    /// The binding that covers it.
    pub binding: Option<&'a str>,
}

/// A digest as policies read it.
pub fn digest_text<'a>(digest: &[u8; 32], room: &'a mut [u8; 43]) -> &'a str {
    base64_simd::URL_SAFE_NO_PAD.encode_as_str(digest, base64_simd::Out::from_slice(room))
}

/// The intent of exchanging, and of opening, extending or delegating a task.
#[derive(Clone, Copy, Default, Debug)]
pub struct Ask<'a> {
    /// The environment that the request is about.
    pub environment: &'a str,
    /// What is wanted.
    pub intent: Intent<'a>,
    /// Life that is asked for, seconds: of the credential, or of the task.
    pub ttl_seconds: i64,
    /// Whether this renews an earlier credential.
    pub renewal: bool,
    /// Whether the task is a break-glass task.
    pub break_glass: bool,
    /// For whom a child task is opened.
    pub delegate: Option<&'a str>,
    /// SPIFFE IDs of those who act for each other, the caller not among them.
    pub act_chain: &'a [&'a str],
    /// On whose behalf.
    pub subject: Option<SubjectFacts<'a>>,
    /// The task.
    pub task: TaskFacts<'a>,
    /// The person behind the caller.
    pub person: Option<PersonFacts<'a>>,
    /// Numbers.
    pub counts: Counts,
    /// Approvals.
    pub approvals: ApprovalFacts<'a>,
    /// The decision's moment.
    pub now: Millis,
}

/// Asking about a credential that somebody holds.
#[derive(Clone, Copy, Default, Debug)]
pub struct Look<'a> {
    /// The credential's environment.
    pub environment: &'a str,
    /// The person behind the caller.
    pub person: Option<PersonFacts<'a>>,
    /// The decision's moment.
    pub now: Millis,
}

/// Letting through what somebody else asked for.
#[derive(Clone, Copy, Default, Debug)]
pub struct Decide<'a> {
    /// The environment that the request is about.
    pub environment: &'a str,
    /// Who asked: a SPIFFE ID.
    pub caller: &'a str,
    /// What is wanted.
    pub intent: Intent<'a>,
    /// The person who decides.
    pub person: Option<PersonFacts<'a>>,
    /// The decision's moment.
    pub now: Millis,
}

/// A use of a credential, as a server of its upstream tells it.
#[derive(Clone, Copy, Default, Debug)]
pub struct Used<'a> {
    /// The credential's environment.
    pub environment: &'a str,
    /// The tool that used it, and what the credential is.
    pub intent: Intent<'a>,
    /// Its task.
    pub task: TaskFacts<'a>,
    /// Numbers, this use among them.
    pub counts: Counts,
    /// `accepted`, `refused` or `failed`.
    pub outcome: &'a str,
    /// The tool is one that the credential, or else its task, names.
    pub declared: bool,
    /// The credential had ended before.
    pub after_end: bool,
    /// The server's SPIFFE ID.
    pub server: &'a str,
    /// The moment.
    pub now: Millis,
}

/// What an operator is about to do.
#[derive(Clone, Copy, Default, Debug)]
pub struct Act<'a> {
    /// The environment that it concerns, where it concerns one.
    pub environment: Option<&'a str>,
    /// The sort of thing, like `task` or `everything`.
    pub target_kind: Option<&'a str>,
    /// Its name.
    pub target: Option<&'a str>,
    /// Who asked, where somebody else's change is let through.
    pub caller: Option<&'a str>,
    /// Whether the operator acts in a break-glass task.
    pub break_glass: bool,
    /// The person behind the operator's SVID.
    pub person: Option<PersonFacts<'a>>,
    /// The job that signs in.
    pub job: Option<AttestedFacts<'a>>,
    /// Approvals.
    pub approvals: ApprovalFacts<'a>,
    /// The decision's moment.
    pub now: Millis,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum About<'a> {
    Ask(&'a Upstream, &'a Ask<'a>),
    Look(&'a Upstream, &'a Look<'a>),
    Decide(&'a Upstream, &'a Decide<'a>),
    Used(&'a Upstream, &'a Used<'a>),
    Act(&'a Act<'a>),
}

/// One question to Cedar. Each action goes with its own sort of resource and context; other pairs cannot be made.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub(super) caller: &'a SpiffeId,
    pub(super) action: Action,
    pub(super) about: About<'a>,
}

impl<'a> Question<'a> {
    /// May this caller do this work with this upstream?
    pub fn work(caller: &'a SpiffeId, work: Work, upstream: &'a Upstream, ask: &'a Ask<'a>) -> Question<'a> {
        Question { caller, action: Action::Work(work), about: About::Ask(upstream, ask) }
    }

    /// May this caller ask about a credential of this upstream?
    pub fn introspect(caller: &'a SpiffeId, upstream: &'a Upstream, look: &'a Look<'a>) -> Question<'a> {
        Question { caller, action: Action::Introspect, about: About::Look(upstream, look) }
    }

    /// May this approver let that through?
    pub fn approve(approver: &'a SpiffeId, upstream: &'a Upstream, decide: &'a Decide<'a>) -> Question<'a> {
        Question { caller: approver, action: Action::Approve, about: About::Decide(upstream, decide) }
    }

    /// Is this use of its credential what this caller was to do?
    pub fn used(caller: &'a SpiffeId, upstream: &'a Upstream, used: &'a Used<'a>) -> Question<'a> {
        Question { caller, action: Action::Use, about: About::Used(upstream, used) }
    }

    /// May this operator do that?
    pub fn admin(caller: &'a SpiffeId, admin: Admin, act: &'a Act<'a>) -> Question<'a> {
        Question { caller, action: Action::Admin(admin), about: About::Act(act) }
    }

    /// May this person, or this job, sign in? The caller is the SPIFFE ID that comes of it.
    pub fn sign_in(caller: &'a SpiffeId, act: &'a Act<'a>) -> Question<'a> {
        Question { caller, action: Action::SignIn, about: About::Act(act) }
    }

    /// The action that is asked about.
    pub fn action(&self) -> Action {
        self.action
    }

    pub(super) fn ask(&self) -> Option<&'a Ask<'a>> {
        match self.about {
            About::Ask(_, ask) => Some(ask),
            About::Look(..) | About::Decide(..) | About::Used(..) | About::Act(_) => None,
        }
    }

    pub(super) fn used_as(&self) -> Option<&'a Used<'a>> {
        match self.about {
            About::Used(_, used) => Some(used),
            About::Ask(..) | About::Look(..) | About::Decide(..) | About::Act(_) => None,
        }
    }

    pub(super) fn task(&self) -> Option<&'a TaskFacts<'a>> {
        self.ask().map(|ask| &ask.task).or_else(|| self.used_as().map(|used| &used.task))
    }

    pub(super) fn counts(&self) -> Option<&'a Counts> {
        self.ask().map(|ask| &ask.counts).or_else(|| self.used_as().map(|used| &used.counts))
    }

    pub(super) fn asked_by(&self) -> Option<&'a str> {
        match self.about {
            About::Decide(_, decide) => Some(decide.caller),
            About::Act(act) => act.caller,
            About::Ask(..) | About::Look(..) | About::Used(..) => None,
        }
    }

    pub(super) fn intent(&self) -> Option<&'a Intent<'a>> {
        match self.about {
            About::Ask(_, ask) => Some(&ask.intent),
            About::Decide(_, decide) => Some(&decide.intent),
            About::Used(_, used) => Some(&used.intent),
            About::Look(..) | About::Act(_) => None,
        }
    }

    pub(super) fn act(&self) -> Option<&'a Act<'a>> {
        match self.about {
            About::Act(act) => Some(act),
            About::Ask(..) | About::Look(..) | About::Decide(..) | About::Used(..) => None,
        }
    }

    pub(super) fn upstream(&self) -> Option<&'a Upstream> {
        match self.about {
            About::Ask(upstream, _) | About::Look(upstream, _) | About::Decide(upstream, _) | About::Used(upstream, _) => {
                Some(upstream)
            }
            About::Act(_) => None,
        }
    }

    pub(super) fn environment(&self) -> Option<&'a str> {
        match self.about {
            About::Ask(_, ask) => Some(ask.environment),
            About::Look(_, look) => Some(look.environment),
            About::Decide(_, decide) => Some(decide.environment),
            About::Used(_, used) => Some(used.environment),
            About::Act(act) => act.environment,
        }
    }

    pub(super) fn person(&self) -> Option<PersonFacts<'a>> {
        match self.about {
            About::Ask(_, ask) => ask.person,
            About::Look(_, look) => look.person,
            About::Decide(_, decide) => decide.person,
            About::Used(..) => None,
            About::Act(act) => act.person,
        }
    }

    pub(super) fn attested(&self) -> Option<AttestedFacts<'a>> {
        match self.about {
            About::Act(act) => act.job,
            _ => None,
        }
    }

    pub(super) fn approvals(&self) -> Option<ApprovalFacts<'a>> {
        match self.about {
            About::Ask(_, ask) => Some(ask.approvals),
            About::Look(..) | About::Decide(..) | About::Used(..) => None,
            About::Act(act) => Some(act.approvals),
        }
    }

    pub(super) fn now(&self) -> Millis {
        match self.about {
            About::Ask(_, ask) => ask.now,
            About::Look(_, look) => look.now,
            About::Decide(_, decide) => decide.now,
            About::Used(_, used) => used.now,
            About::Act(act) => act.now,
        }
    }
}
