//! The sorts of targets, and what is true of each.

/// The sort of a target, to index tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
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
        Sorts::OF_EVIDENCE.has(self)
    }

    const fn bit(self) -> u32 {
        1 << self as u32
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

/// Some of the sorts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sorts(u32);

impl Sorts {
    /// None of them.
    pub const NONE: Sorts = Sorts(0);
    /// Every one.
    pub const ALL: Sorts = Sorts((1 << SORTS) - 1);
    /// Those that an identity answers.
    pub const OF_IDENTITIES: Sorts =
        Sorts::NONE.with(Sort::Caller).with(Sort::Prefix).with(Sort::TrustDomain).with(Sort::Subject);
    /// Those that bite whatever the revision.
    pub const OF_EVIDENCE: Sorts =
        Sorts::NONE.with(Sort::Credential).with(Sort::Task).with(Sort::Svid).with(Sort::SubjectToken).with(Sort::SigningKey);

    /// These and one more.
    #[must_use]
    pub const fn with(self, sort: Sort) -> Sorts {
        Sorts(self.0 | sort.bit())
    }

    /// These but for one.
    #[must_use]
    pub const fn without(self, sort: Sort) -> Sorts {
        Sorts(self.0 & !sort.bit())
    }

    /// Whether it is one of them.
    pub const fn has(self, sort: Sort) -> bool {
        self.0 & sort.bit() != 0
    }

    /// Whether any of those is one of them.
    pub const fn any_of(self, of: Sorts) -> bool {
        self.0 & of.0 != 0
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Sort> for Sorts {
    fn from_iter<I: IntoIterator<Item = Sort>>(sorts: I) -> Sorts {
        sorts.into_iter().fold(Sorts::NONE, Sorts::with)
    }
}
