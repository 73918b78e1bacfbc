//! The ways in which a credential can rest on another grant, and the required effect of a revocation of each target. The table is written
//! by hand: nothing here is read from an answer of the product.

use std::collections::BTreeSet;

use mayfly::ledger::record::{CredentialIssued, TaskOpened};
use mayfly::revocation::{Facts, TargetKind};

/// The relation of a credential to the grant that is revoked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Way {
    Itself,
    Renewed,
    Opener,
    OpenerAbove,
    OpenerOfTheRoot,
    OpenerAboveInline,
    Delegated,
    Shown,
    ShownBefore,
    ShownAtOpening,
    SubjectToken,
    TokenAtOpening,
    TokenOfTheShown,
    Login,
    LoginOfTheOpener,
    LoginOfTheShown,
    LoginOfTheShownAtOpening,
    Job,
    JobOfTheOpener,
    GlassOpener,
    GlassJoiner,
    Descendant,
    Approver,
}

/// The required effect of a revocation on a credential.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    Reached,
    NotReached,
    /// The grant has no such name, or the credential has the same name itself and another row covers it.
    NotAsked,
}

/// The names of a credential that a workload got for its own work, with a binding and a tool.
const CREDENTIAL: &[TargetKind] = &[
    TargetKind::Credential,
    TargetKind::Task,
    TargetKind::Caller,
    TargetKind::Prefix,
    TargetKind::TrustDomain,
    TargetKind::TrustAnchor,
    TargetKind::Subject,
    TargetKind::Upstream,
    TargetKind::UpstreamScope,
    TargetKind::Binding,
    TargetKind::Tool,
    TargetKind::Environment,
    TargetKind::PolicyBelow,
    TargetKind::SigningKey,
    TargetKind::Svid,
    TargetKind::Everything,
];

/// The names of the opening of a task by a workload.
const OPENING: &[TargetKind] = &[
    TargetKind::Task,
    TargetKind::Caller,
    TargetKind::Prefix,
    TargetKind::TrustDomain,
    TargetKind::TrustAnchor,
    TargetKind::Subject,
    TargetKind::Environment,
    TargetKind::PolicyBelow,
    TargetKind::Svid,
    TargetKind::Everything,
];

/// The names of a login, of a person or a CI job.
const LOGIN: &[TargetKind] = &[
    TargetKind::Credential,
    TargetKind::Caller,
    TargetKind::Prefix,
    TargetKind::TrustDomain,
    TargetKind::TrustAnchor,
    TargetKind::Subject,
    TargetKind::Environment,
    TargetKind::PolicyBelow,
    TargetKind::SigningKey,
    TargetKind::Svid,
    TargetKind::SubjectToken,
    TargetKind::Everything,
];

/// The names of a subject token of an OIDC issuer.
const TOKEN: &[TargetKind] = &[TargetKind::Subject, TargetKind::SubjectToken, TargetKind::Everything];

impl Way {
    pub const ALL: [Way; 23] = [
        Way::Itself,
        Way::Renewed,
        Way::Opener,
        Way::OpenerAbove,
        Way::OpenerOfTheRoot,
        Way::OpenerAboveInline,
        Way::Delegated,
        Way::Shown,
        Way::ShownBefore,
        Way::ShownAtOpening,
        Way::SubjectToken,
        Way::TokenAtOpening,
        Way::TokenOfTheShown,
        Way::Login,
        Way::LoginOfTheOpener,
        Way::LoginOfTheShown,
        Way::LoginOfTheShownAtOpening,
        Way::Job,
        Way::JobOfTheOpener,
        Way::GlassOpener,
        Way::GlassJoiner,
        Way::Descendant,
        Way::Approver,
    ];

    /// The relation in words, for the page.
    pub const fn words(self) -> &'static str {
        match self {
            Way::Itself => "the credential itself",
            Way::Renewed => "the credential that it renews",
            Way::Opener => "the opening of its task by another workload",
            Way::OpenerAbove => "the opening of the task above its own",
            Way::OpenerOfTheRoot => "the opening of the root task, at the greatest depth",
            Way::OpenerAboveInline => "the opening of the task above one that was opened in the same call",
            Way::Delegated => "the delegation of its task by another workload",
            Way::Shown => "a credential that was shown for it",
            Way::ShownBefore => "a credential that was shown for the one that was shown for it",
            Way::ShownAtOpening => {
                "a credential that was shown when its task was opened, where another workload acts in the task"
            }
            Way::SubjectToken => "a subject token that was shown for it",
            Way::TokenAtOpening => {
                "a subject token that was shown when its task was opened, where another workload acts in the task, and that opening"
            }
            Way::TokenOfTheShown => "the subject token behind the credential that was shown for it",
            Way::Login => "the login of the person who has it",
            Way::LoginOfTheOpener => "the login of the person who opened its task",
            Way::LoginOfTheShown => "the login behind the credential that was shown for it",
            Way::LoginOfTheShownAtOpening => "the login behind the credential that was shown when its task was opened",
            Way::Job => "the login of the CI job that has it",
            Way::JobOfTheOpener => "the login of the CI job that opened its task",
            Way::GlassOpener => "the login of the person who opened break-glass, where the second person has it",
            Way::GlassJoiner => "the login of the second person of break-glass, where the first has it",
            Way::Descendant => "(no ground) a credential that came of it, in a task below its own",
            Way::Approver => "(no ground) the login of the person who approved it",
        }
    }

    /// The names of the grant that the credential rests on.
    const fn names(self) -> &'static [TargetKind] {
        match self {
            Way::Itself | Way::Renewed => CREDENTIAL,
            Way::Opener | Way::OpenerAbove | Way::OpenerOfTheRoot | Way::OpenerAboveInline | Way::Delegated => OPENING,
            Way::Shown | Way::ShownBefore | Way::ShownAtOpening => &TargetKind::ALL,
            Way::SubjectToken | Way::TokenOfTheShown => TOKEN,
            Way::TokenAtOpening => &[
                TargetKind::Task,
                TargetKind::Caller,
                TargetKind::Prefix,
                TargetKind::TrustDomain,
                TargetKind::TrustAnchor,
                TargetKind::Subject,
                TargetKind::Environment,
                TargetKind::PolicyBelow,
                TargetKind::Svid,
                TargetKind::SubjectToken,
                TargetKind::Everything,
            ],
            Way::Login
            | Way::LoginOfTheOpener
            | Way::LoginOfTheShown
            | Way::LoginOfTheShownAtOpening
            | Way::Job
            | Way::JobOfTheOpener
            | Way::GlassOpener
            | Way::GlassJoiner => LOGIN,
            // Only the names of the descendant itself: the rows above cover names that it shares with the credential.
            Way::Descendant => &[
                TargetKind::Credential,
                TargetKind::Task,
                TargetKind::Caller,
                TargetKind::Prefix,
                TargetKind::Upstream,
                TargetKind::UpstreamScope,
                TargetKind::Tool,
                TargetKind::SigningKey,
                TargetKind::Svid,
            ],
            // An approval is used once and is then a fact of the record. The approver's login is no ancestor.
            Way::Approver => &[
                TargetKind::Credential,
                TargetKind::Caller,
                TargetKind::Prefix,
                TargetKind::TrustDomain,
                TargetKind::TrustAnchor,
                TargetKind::Subject,
                TargetKind::SigningKey,
                TargetKind::Svid,
                TargetKind::SubjectToken,
            ],
        }
    }

    /// The required effect of a revocation by this name.
    pub fn expected(self, sort: TargetKind) -> Expected {
        match self {
            _ if !self.names().contains(&sort) => Expected::NotAsked,
            Way::Descendant | Way::Approver => Expected::NotReached,
            _ => Expected::Reached,
        }
    }

    /// Whether the credential of an unrelated workload stays good.
    pub fn is_beside(self, sort: TargetKind) -> bool {
        let of_people = matches!(
            self,
            Way::Login
                | Way::LoginOfTheOpener
                | Way::LoginOfTheShown
                | Way::LoginOfTheShownAtOpening
                | Way::Job
                | Way::JobOfTheOpener
                | Way::GlassOpener
                | Way::GlassJoiner
                | Way::Approver
        );
        match sort {
            TargetKind::Credential
            | TargetKind::Task
            | TargetKind::Caller
            | TargetKind::Prefix
            | TargetKind::Subject
            | TargetKind::Svid
            | TargetKind::SubjectToken => true,
            // The unrelated workload uses another upstream, and another tool without a binding.
            TargetKind::Upstream | TargetKind::UpstreamScope | TargetKind::Binding | TargetKind::Tool => self != Way::Descendant,
            // People and CI jobs belong to the server's own trust domain, which has its own CA.
            TargetKind::TrustDomain | TargetKind::TrustAnchor | TargetKind::SigningKey => of_people,
            TargetKind::Environment | TargetKind::PolicyBelow | TargetKind::Everything => false,
        }
    }

    pub fn is_break_glass(self) -> bool {
        matches!(self, Way::GlassOpener | Way::GlassJoiner)
    }
}

/// The sorts of targets that name each fact that rules can match. A new fact does not compile without its line.
fn sorts_of(facts: &Facts<'_>) -> Vec<TargetKind> {
    let Facts {
        revision: _,
        credentials: _,
        tasks: _,
        identities: _,
        upstream: _,
        scopes: _,
        binding: _,
        tool: _,
        environment: _,
        policy: _,
        key: _,
        svid: _,
        subject_token: _,
        // Covered by the ways of the table.
        rests_on: _,
    } = facts;
    [
        &[TargetKind::Credential][..],
        &[TargetKind::Task],
        &[TargetKind::Caller, TargetKind::Prefix, TargetKind::TrustDomain, TargetKind::Subject],
        &[TargetKind::Upstream],
        &[TargetKind::UpstreamScope],
        &[TargetKind::Binding],
        &[TargetKind::Tool],
        &[TargetKind::Environment],
        &[TargetKind::PolicyBelow],
        &[TargetKind::SigningKey],
        &[TargetKind::TrustAnchor, TargetKind::TrustDomain, TargetKind::Svid],
        &[TargetKind::SubjectToken],
        // `everything` matches whatever the facts are.
        &[TargetKind::Everything],
    ]
    .concat()
}

/// The ways in which the record of a credential can name another grant. A new field does not compile without its line.
fn ways_of_a_credential(issued: &CredentialIssued) -> Vec<Way> {
    let CredentialIssued {
        credential: _,
        // The openings of the task and of the tasks above it: `ways_of_a_task`.
        task: _,
        kind: _,
        caller: _,
        subject: _,
        actors: _,
        upstream: _,
        scopes: _,
        details: _,
        tool: _,
        purpose: _,
        arguments: _,
        binding: _,
        environment: _,
        issued_at: _,
        expires_at: _,
        renewable_until: _,
        bound: _,
        svid: _,
        subject_token: _,
        ancestors: _,
        key: _,
        x5t: _,
        jkt: _,
        status_list: _,
        status_index: _,
        policy_version: _,
        // A narrower registration or binding revokes the credentials that it would refuse, by id (`tests/server/registry.rs`).
        upstream_version: _,
        binding_version: _,
        approval: _,
        lease: _,
        token_digest: _,
        policies: _,
        renews: _,
        shown: _,
        replaces: _,
        break_glass: _,
        subject_claims: _,
        // A description of what the registration's scopes grant.
        access: _,
        // The key of a certificate is no target: whoever has it is reached by the credential.
        certified_key: _,
    } = issued;
    let itself = [Way::Itself];
    let subject_token = [Way::SubjectToken, Way::TokenOfTheShown];
    let ancestors = [Way::Renewed, Way::Shown, Way::ShownBefore, Way::Login, Way::LoginOfTheShown, Way::Job, Way::Descendant];
    let approval = [Way::Approver];
    [&itself[..], &subject_token, &ancestors, &approval].concat()
}

/// The ways in which the records of a task and of the tasks above it can name another grant.
fn ways_of_a_task(opened: &TaskOpened) -> Vec<Way> {
    let TaskOpened {
        task: _,
        parent: _,
        owner: _,
        opener: _,
        callers: _,
        environment: _,
        purpose: _,
        allowance: _,
        opened_at: _,
        deadline: _,
        max_deadline: _,
        heartbeat: _,
        policy_version: _,
        svid: _,
        approval: _,
        ancestor: _,
        break_glass: _,
        subject_token: _,
        actors: _,
        subject_claims: _,
        ancestors: _,
    } = opened;
    let opener = [Way::Opener, Way::Delegated];
    let parent = [Way::OpenerAbove, Way::OpenerOfTheRoot, Way::OpenerAboveInline];
    let ancestor = [Way::LoginOfTheOpener, Way::JobOfTheOpener];
    let break_glass = [Way::GlassOpener, Way::GlassJoiner];
    let subject_token = [Way::TokenAtOpening];
    let ancestors = [Way::ShownAtOpening, Way::LoginOfTheShownAtOpening];
    [&opener[..], &parent, &ancestor, &break_glass, &subject_token, &ancestors].concat()
}

#[test]
fn the_table_has_each_sort_of_target_and_each_way_to_rest_on_something() {
    let sorts: BTreeSet<TargetKind> = sorts_of(&Facts::default()).into_iter().collect();
    assert_eq!(sorts, TargetKind::ALL.into_iter().collect());
    let ways = [ways_of_a_credential(&CredentialIssued::default()), ways_of_a_task(&TaskOpened::default())].concat();
    assert_eq!(ways.len(), Way::ALL.len(), "each way once");
    assert_eq!(ways.into_iter().collect::<BTreeSet<Way>>(), Way::ALL.into_iter().collect());
    for sort in TargetKind::ALL {
        let reached = |way: &Way| way.expected(sort) == Expected::Reached;
        assert!(Way::ALL.iter().filter(|way| reached(way)).count() > 1, "{sort:?} reaches more than what it names");
    }
}
