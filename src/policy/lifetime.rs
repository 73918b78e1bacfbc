//! The bounds of a lifetime, and which bound took effect.

use mayfly_verify::seq::Millis;

/// A bound on a credential's lifetime. Persisted numbers, the same as `mayfly.v1.LifeBound`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum LifetimeBound {
    /// The requested lifetime.
    Asked = 1,
    /// A policy.
    Policy = 2,
    /// The upstream's registration: its default or its maximum TTL.
    Upstream = 3,
    /// The expiry of the upstream's registration.
    UpstreamExpiry = 4,
    /// The task's deadline.
    Task = 5,
    /// The expiry of the caller's SVID.
    Svid = 6,
    /// The expiry of the parent credential.
    ParentCredential = 7,
    /// The expiry of the subject token.
    SubjectToken = 8,
    /// The expiry of the approval.
    Approval = 9,
    /// The end of the break-glass task.
    BreakGlass = 10,
    /// The latest expiry of any renewal, fixed when the first credential of the renewal chain was issued.
    Renewal = 11,
    /// The longest lifetime that this server issues.
    Server = 12,
}

/// The earliest of several ends, with the bound that set it. On a tie the bound that was applied first is kept.
#[derive(Clone, Copy, Debug)]
pub struct BoundedExpiry {
    end: Millis,
    by: LifetimeBound,
}

impl BoundedExpiry {
    /// A lifetime that ends at `end`, set by the bound `by`.
    pub fn until(end: Millis, by: LifetimeBound) -> BoundedExpiry {
        BoundedExpiry { end, by }
    }

    /// Applies a further bound: shortens the lifetime to `end` if that is earlier.
    pub fn within(self, end: Millis, by: LifetimeBound) -> BoundedExpiry {
        if end < self.end { BoundedExpiry { end, by } } else { self }
    }

    /// The end, rounded down to whole seconds as `exp` is written, so that the claim never outlives the record.
    pub fn end(self) -> Millis {
        Millis::from_seconds(self.end.seconds())
    }

    /// The bound that set the end.
    pub fn by(self) -> LifetimeBound {
        self.by
    }
}
