//! A grant is not put together from its fields.
use mayfly::policy::grant::{Grant, GrantParts};

fn forge(parts: GrantParts) -> Grant {
    Grant { parts }
}

fn main() {}
