//! The sorts of targets, and what is true of each.

/// The sort of a target, to index tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
#[repr(usize)]
pub enum Sort {
    Credential,
    Task,
    Caller,
    Prefix,
    TrustDomain,
    TrustAnchor,
    Subject,
    Upstream,
    UpstreamScope,
    Binding,
    Tool,
    Environment,
    PolicyBelow,
    SigningKey,
    Svid,
    SubjectToken,
    Everything,
}

/// How many sorts there are.
pub const SORTS: usize = 17;

impl Sort {
    /// Every sort, in the order of its number.
    pub const ALL: [Sort; SORTS] = [
        Sort::Credential,
        Sort::Task,
        Sort::Caller,
        Sort::Prefix,
        Sort::TrustDomain,
        Sort::TrustAnchor,
        Sort::Subject,
        Sort::Upstream,
        Sort::UpstreamScope,
        Sort::Binding,
        Sort::Tool,
        Sort::Environment,
        Sort::PolicyBelow,
        Sort::SigningKey,
        Sort::Svid,
        Sort::SubjectToken,
        Sort::Everything,
    ];

    /// Revoking it blocks new grants too, unless asked not to.
    pub const fn locks(self) -> bool {
        matches!(
            self,
            Sort::Caller
                | Sort::Prefix
                | Sort::TrustDomain
                | Sort::Subject
                | Sort::Upstream
                | Sort::UpstreamScope
                | Sort::Tool
                | Sort::Environment
                | Sort::Everything
        )
    }

    /// Once revoked it is evidence for nothing, whatever a decision saw.
    pub const fn is_evidence(self) -> bool {
        matches!(self, Sort::Credential | Sort::Task | Sort::Svid | Sort::SubjectToken | Sort::SigningKey)
    }

    /// The word that stands before the colon in its written form.
    pub const fn word(self) -> &'static str {
        match self {
            Sort::Credential => "credential",
            Sort::Task => "task",
            Sort::Caller => "caller",
            Sort::Prefix => "prefix",
            Sort::TrustDomain => "trust-domain",
            Sort::TrustAnchor => "trust-anchor",
            Sort::Subject => "subject",
            Sort::Upstream => "upstream",
            Sort::UpstreamScope => "upstream-scope",
            Sort::Binding => "binding",
            Sort::Tool => "tool",
            Sort::Environment => "environment",
            Sort::PolicyBelow => "policy-below",
            Sort::SigningKey => "signing-key",
            Sort::Svid => "svid",
            Sort::SubjectToken => "subject-token",
            Sort::Everything => "everything",
        }
    }
}
