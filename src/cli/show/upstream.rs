//! Upstreams.

use serde::Serialize;

use super::{ms, or_dash, shown_word, time};
use crate::cli::out::{Noun, Row};
use crate::pb::mayfly::v1 as pb;

/// An upstream as `upstream show` and `upstream list` show it.
#[derive(Serialize, Debug)]
pub struct Upstream {
    pub upstream: String,
    pub state: String,
    pub environment: String,
    pub version: u64,
    pub owner: String,
    pub purpose: String,
    pub audience: String,
    pub base_url: String,
    pub kinds: Vec<String>,
    pub scopes: Vec<String>,
    pub sensitive_scopes: Vec<String>,
    pub servers: Vec<String>,
    pub max_ttl_ms: Option<i64>,
    pub expires_at: Option<String>,
    pub key_bound: bool,
    pub seq: u64,
}

impl From<pb::Upstream> for Upstream {
    fn from(u: pb::Upstream) -> Upstream {
        let sensitive = u.scopes.iter().filter(|s| s.sensitive).map(|s| s.scope.clone()).collect();
        Upstream {
            upstream: u.upstream,
            state: shown_word!(pb::RegistrationState, "REGISTRATION_STATE_", u.state),
            environment: u.environment,
            version: u.version,
            owner: u.owner,
            purpose: u.purpose,
            audience: u.audience,
            base_url: u.base_url,
            kinds: u.kinds.into_iter().map(super::credential::kind).collect(),
            scopes: u.scopes.into_iter().map(|s| s.scope).collect(),
            sensitive_scopes: sensitive,
            servers: u.servers,
            max_ttl_ms: ms(u.max_ttl),
            expires_at: time(u.expires_at),
            key_bound: u.key_bound,
            seq: u.seq,
        }
    }
}

impl Noun for Upstream {
    fn name(&self) -> String {
        self.upstream.clone()
    }
}

impl Row for Upstream {
    const COLUMNS: &'static [&'static str] = &["UPSTREAM", "STATE", "ENVIRONMENT", "KINDS", "SCOPES", "OWNER"];
    const WIDE: &'static [&'static str] = &["AUDIENCE", "EXPIRES", "VERSION", "SEQ"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.upstream.clone(),
            self.state.clone(),
            self.environment.clone(),
            self.kinds.join(","),
            self.scopes.join(","),
            self.owner.clone(),
            self.audience.clone(),
            or_dash(self.expires_at.as_deref()),
            self.version.to_string(),
            self.seq.to_string(),
        ]
    }
}
