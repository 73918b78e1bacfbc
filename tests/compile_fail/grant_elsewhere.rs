//! Only policy makes a grant.
use mayfly::policy::grant::{Grant, Parts};

fn forge(parts: Parts) -> Grant {
    Grant::new(parts)
}

fn also(parts: Parts) -> Grant {
    Grant { parts }
}

fn main() {}
