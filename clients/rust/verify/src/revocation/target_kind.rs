//! The sorts of revocation targets and their properties.

/// The sort of a target. The numbers are indexes into tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub enum TargetKind {
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

impl TargetKind {
    /// All sorts, ordered by number.
    pub const ALL: [TargetKind; SORTS] = [
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
        TargetKind::SubjectToken,
        TargetKind::Everything,
    ];

    /// Whether revoking a target of this sort also locks it, that is blocks new grants, by default.
    pub const fn locks(self) -> bool {
        matches!(
            self,
            TargetKind::Caller
                | TargetKind::Prefix
                | TargetKind::TrustDomain
                | TargetKind::Subject
                | TargetKind::Upstream
                | TargetKind::UpstreamScope
                | TargetKind::Tool
                | TargetKind::Environment
                | TargetKind::Everything
        )
    }

    /// Whether a revoked target of this sort blocks every new grant that depends on it, whatever the decision has seen.
    pub const fn is_evidence(self) -> bool {
        TargetKinds::OF_EVIDENCE.has(self)
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// The word before the colon in the text form.
    pub const fn word(self) -> &'static str {
        match self {
            TargetKind::Credential => "credential",
            TargetKind::Task => "task",
            TargetKind::Caller => "caller",
            TargetKind::Prefix => "prefix",
            TargetKind::TrustDomain => "trust-domain",
            TargetKind::TrustAnchor => "trust-anchor",
            TargetKind::Subject => "subject",
            TargetKind::Upstream => "upstream",
            TargetKind::UpstreamScope => "upstream-scope",
            TargetKind::Binding => "binding",
            TargetKind::Tool => "tool",
            TargetKind::Environment => "environment",
            TargetKind::PolicyBelow => "policy-below",
            TargetKind::SigningKey => "signing-key",
            TargetKind::Svid => "svid",
            TargetKind::SubjectToken => "subject-token",
            TargetKind::Everything => "everything",
        }
    }
}

/// A set of sorts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TargetKinds(u32);

impl TargetKinds {
    /// The empty set.
    pub const NONE: TargetKinds = TargetKinds(0);
    /// The set of all sorts.
    pub const ALL: TargetKinds = TargetKinds((1 << SORTS) - 1);
    /// The sorts that match identities.
    pub const OF_IDENTITIES: TargetKinds = TargetKinds::NONE
        .with(TargetKind::Caller)
        .with(TargetKind::Prefix)
        .with(TargetKind::TrustDomain)
        .with(TargetKind::Subject);
    /// The sorts that apply regardless of the revision.
    pub const OF_EVIDENCE: TargetKinds = TargetKinds::NONE
        .with(TargetKind::Credential)
        .with(TargetKind::Task)
        .with(TargetKind::Svid)
        .with(TargetKind::SubjectToken)
        .with(TargetKind::SigningKey);

    /// The set with one more sort.
    #[must_use]
    pub const fn with(self, sort: TargetKind) -> TargetKinds {
        TargetKinds(self.0 | sort.bit())
    }

    /// The set without one sort.
    #[must_use]
    pub const fn without(self, sort: TargetKind) -> TargetKinds {
        TargetKinds(self.0 & !sort.bit())
    }

    /// Whether the set contains a sort.
    pub const fn has(self, sort: TargetKind) -> bool {
        self.0 & sort.bit() != 0
    }

    /// Whether the sets overlap.
    pub const fn any_of(self, of: TargetKinds) -> bool {
        self.0 & of.0 != 0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<TargetKind> for TargetKinds {
    fn from_iter<I: IntoIterator<Item = TargetKind>>(sorts: I) -> TargetKinds {
        sorts.into_iter().fold(TargetKinds::NONE, TargetKinds::with)
    }
}
