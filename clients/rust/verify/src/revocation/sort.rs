//! The sorts of revocation targets and their properties.

/// The sort of a target. The numbers are indexes into tables.
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

/// The number of sorts.
pub const SORTS: usize = 17;

impl Sort {
    /// All sorts, ordered by number.
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

    /// Whether revoking a target of this sort also locks it, that is blocks new grants, by default.
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

    /// Whether a revoked target of this sort blocks every new grant that depends on it, whatever the decision has seen.
    pub const fn is_evidence(self) -> bool {
        Sorts::OF_EVIDENCE.has(self)
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// The word before the colon in the text form.
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

/// A set of sorts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sorts(u32);

impl Sorts {
    /// The empty set.
    pub const NONE: Sorts = Sorts(0);
    /// The set of all sorts.
    pub const ALL: Sorts = Sorts((1 << SORTS) - 1);
    /// The sorts that match identities.
    pub const OF_IDENTITIES: Sorts =
        Sorts::NONE.with(Sort::Caller).with(Sort::Prefix).with(Sort::TrustDomain).with(Sort::Subject);
    /// The sorts that apply regardless of the revision.
    pub const OF_EVIDENCE: Sorts =
        Sorts::NONE.with(Sort::Credential).with(Sort::Task).with(Sort::Svid).with(Sort::SubjectToken).with(Sort::SigningKey);

    /// The set with one more sort.
    #[must_use]
    pub const fn with(self, sort: Sort) -> Sorts {
        Sorts(self.0 | sort.bit())
    }

    /// The set without one sort.
    #[must_use]
    pub const fn without(self, sort: Sort) -> Sorts {
        Sorts(self.0 & !sort.bit())
    }

    /// Whether the set contains a sort.
    pub const fn has(self, sort: Sort) -> bool {
        self.0 & sort.bit() != 0
    }

    /// Whether the sets overlap.
    pub const fn any_of(self, of: Sorts) -> bool {
        self.0 & of.0 != 0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Sort> for Sorts {
    fn from_iter<I: IntoIterator<Item = Sort>>(sorts: I) -> Sorts {
        sorts.into_iter().fold(Sorts::NONE, Sorts::with)
    }
}
