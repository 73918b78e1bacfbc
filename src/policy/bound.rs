//! What bounds a life, and which bound won.

use crate::seq::Millis;

/// What can end a credential's life. Persisted numbers, the same as `mayfly.v1.LifeBound`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Bound {
    /// It was asked for.
    Asked = 1,
    /// A policy.
    Policy = 2,
    /// The upstream's registration: its default or its longest.
    Upstream = 3,
    /// The registration's own end.
    UpstreamExpiry = 4,
    /// The task's deadline.
    Task = 5,
    /// The caller's SVID.
    Svid = 6,
    /// The credential that it rests on.
    ParentCredential = 7,
    /// The subject token.
    SubjectToken = 8,
    /// The approval.
    Approval = 9,
    /// Break-glass.
    BreakGlass = 10,
    /// The bound fixed when its line was first issued.
    Renewal = 11,
    /// The longest that this server issues.
    Server = 12,
}

/// The earliest of several ends, and whose it is. The first named wins a tie.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    end: Millis,
    by: Bound,
}

impl Life {
    /// Until then, by this.
    pub fn until(end: Millis, by: Bound) -> Life {
        Life { end, by }
    }

    /// Not longer than that.
    pub fn within(self, end: Millis, by: Bound) -> Life {
        if end < self.end { Life { end, by } } else { self }
    }

    /// When it ends: whole seconds, as `exp` is written, rounded down so that the claim never outlives the record.
    pub fn end(self) -> Millis {
        Millis::from_seconds(self.end.seconds())
    }

    /// What won.
    pub fn by(self) -> Bound {
        self.by
    }
}
