//! Only policy makes a grant.
use mayfly::policy::grant::{Grant, GrantParts};

fn forge(parts: GrantParts) -> Grant {
    Grant::new(parts)
}

fn main() {}
