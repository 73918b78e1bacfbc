//! An upstream is registered or it does not exist (design, section 6).
//!
//! A registration is immutable; a change is a new version in the ledger, in the text form of [`Upstream::to_text`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::identity::spiffe_id::SpiffeId;
use crate::ledger::record::Identity;
use crate::seq::Millis;

/// A closed list with one text per value, the same in files, in policies and in records.
macro_rules! closed {
    ($(#[$doc:meta])* $name:ident { $($(#[$item:meta])* $value:ident = $tag:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum $name { $($(#[$item])* #[serde(rename = $text)] $value = $tag,)* }

        impl $name {
            /// Every value there is.
            pub const ALL: &'static [$name] = &[$($name::$value,)*];

            /// Its text in files, policies and claims.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$value => $text,)* }
            }

            /// Its number in records. Frozen.
            pub const fn tag(self) -> u8 {
                self as u8
            }

            /// The value with that number.
            pub fn from_tag(tag: u8) -> Option<$name> {
                $name::ALL.iter().copied().find(|v| v.tag() == tag)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

closed! {
    /// What is minted or fetched (design, section 7).
    Kind {
        /// A signed access token, RFC 9068.
        Jwt = 1 "jwt",
        /// A random token that is looked up by introspection.
        Reference = 2 "reference",
        /// A certificate for a key of the caller.
        X509 = 3 "x509",
        /// An SSH certificate for a key of the caller.
        Ssh = 4 "ssh",
        /// A role in a PostgreSQL database.
        Postgres = 5 "postgres",
        /// A token of another authorization server.
        Oauth = 6 "oauth",
        /// A session of an AWS role.
        Aws = 7 "aws",
        /// An installation token of a GitHub App.
        Github = 8 "github",
        /// A stored secret.
        Secret = 9 "secret",
    }
}

impl Kind {
    /// Whether this version can issue it. A registration that names another one is refused.
    pub const fn served(self) -> bool {
        matches!(self, Kind::Jwt | Kind::Reference)
    }
}

closed! {
    /// What a credential lets its holder do there, at the most.
    Privilege {
        /// Look at things.
        Read = 1 "read",
        /// Change things.
        Write = 2 "write",
        /// Change who may do what.
        Admin = 3 "admin",
    }
}

closed! {
    /// How far the harm of a stolen credential reaches.
    BlastRadius {
        /// A few records, one project.
        Low = 1 "low",
        /// A team or a service.
        Medium = 2 "medium",
        /// The organization or its customers.
        High = 3 "high",
    }
}

closed! {
    /// The signature of a `jwt`.
    Alg {
        /// ECDSA on P-256 with SHA-256.
        Es256 = 1 "ES256",
        /// RSA PKCS #1 v1.5 with SHA-256, for upstreams that accept nothing else. Not served by this version.
        Rs256 = 2 "RS256",
    }
}

closed! {
    /// What a `jwt` is bound to.
    ProofOfPossession {
        /// Nothing: whoever holds it can use it.
        None = 1 "none",
        /// The caller's certificate, as `cnf` `x5t#S256` (RFC 8705).
        X5t = 2 "x5t",
    }
}

/// What the target is and how much depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classification {
    /// The target system's name in the organization's inventory.
    pub system: String,
    /// What a credential lets its holder do.
    pub privilege: Privilege,
    /// How far harm reaches.
    pub blast_radius: BlastRadius,
}

/// A right at the upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// As it stands in the `scope` claim.
    pub name: String,
    /// Whether policy treats it apart (`context.sensitive`).
    pub sensitive: bool,
}

/// Bounds of a credential's life, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ttl {
    /// The shortest that is issued.
    pub min: u64,
    /// The life when nobody asks for another.
    pub default: u64,
    /// The longest.
    pub max: u64,
}

/// Who may approve.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Approver {
    /// Somebody with an SVID.
    SpiffeId(SpiffeId),
    /// A person: a subject is the pair of issuer and id.
    Person {
        /// The issuer's URL.
        issuer: String,
        /// `sub` at that issuer.
        subject: String,
    },
}

impl Approver {
    /// As records name them.
    pub fn identity(&self) -> Identity {
        match self {
            Approver::SpiffeId(id) => Identity::workload(id),
            Approver::Person { issuer, subject } => Identity { issuer: issuer.clone(), sub: subject.clone() },
        }
    }

    /// As `context.approvals.people` names them.
    pub fn name(&self) -> String {
        self.identity().name()
    }
}

/// A registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Its name, unique.
    pub name: String,
    /// Who answers for it: a team or a person.
    pub owner: String,
    /// The business purpose.
    pub purpose: String,
    /// The one environment that it belongs to.
    pub environment: String,
    /// What the target is.
    pub classification: Classification,
    /// `aud` of its credentials, unique: an https URL, or another text without spaces.
    pub audience: String,
    /// The physical target's base URL in normal form ([`super::target::target_url`]), unique.
    pub target: String,
    /// Who accepts its credentials: may introspect them, report their use, and exchange them on behalf of their holder.
    pub servers: Vec<SpiffeId>,
    /// Who approves, where policy wants an approval.
    pub approvers: Vec<Approver>,
    /// What can be issued for it.
    pub kinds: Vec<Kind>,
    /// The rights that can be asked for.
    pub scopes: Vec<Scope>,
    /// Bounds of a credential's life.
    pub ttl: Ttl,
    /// When the registration ends: no credential outlives it.
    pub expires: Millis,
    /// How a `jwt` is signed.
    pub alg: Alg,
    /// What a `jwt` is bound to.
    pub proof_of_possession: ProofOfPossession,
    /// How often a stored secret is replaced, seconds; for kind `secret` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<u64>,
}

/// Number of the text form.
const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded<U> {
    version: u8,
    upstream: U,
}

impl Upstream {
    /// The canonical text, as it stands in a record: JSON, fields in the order of the struct.
    pub fn to_text(&self) -> String {
        // Strings, numbers and lists only: there is nothing in it that JSON cannot carry.
        serde_json::to_string(&Recorded { version: VERSION, upstream: self }).unwrap_or_default()
    }

    /// The same registration from its text. The error says what is wrong.
    pub fn from_text(text: &str) -> Result<Upstream, String> {
        let recorded: Recorded<Upstream> = serde_json::from_str(text).map_err(|e| e.to_string())?;
        match recorded.version {
            VERSION => Ok(recorded.upstream),
            other => Err(format!("registration format {other}, this version reads {VERSION}")),
        }
    }

    /// SHA-256 of the canonical text.
    pub fn digest(&self) -> [u8; 32] {
        crate::document::sha256(self.to_text().as_bytes())
    }

    /// The scope of that name, where it is registered.
    pub fn scope(&self, name: &str) -> Option<&Scope> {
        self.scopes.iter().find(|s| s.name == name)
    }

    /// Whether under another registration all credentials would be others: for somebody else, elsewhere, signed or bound in another way.
    pub fn other_credentials(&self, new: &Upstream) -> bool {
        self.audience != new.audience
            || self.target != new.target
            || self.alg != new.alg
            || (new.proof_of_possession != ProofOfPossession::None && self.proof_of_possession != new.proof_of_possession)
    }

    /// Whether credentials of that kind are issued for it.
    pub fn issues(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    /// Whether this caller accepts its credentials.
    pub fn served_by(&self, caller: &SpiffeId) -> bool {
        self.servers.contains(caller)
    }
}

/// Two registrations that cannot both stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// The one that came later.
    pub name: String,
    /// The one that was there.
    pub with: String,
    /// `name`, `audience` or `target`.
    pub what: &'static str,
    /// The value that both have.
    pub value: String,
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "upstream {} has the same {} as upstream {}: {}", self.name, self.what, self.with, self.value)
    }
}

/// All registrations. Name, audience and target are unique across kinds and environments: with two registrations of one target, the
/// narrower one would protect nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registry {
    upstreams: BTreeMap<String, Arc<Upstream>>,
}

impl Registry {
    /// All of them, or every clash among them.
    pub fn new(upstreams: impl IntoIterator<Item = Upstream>) -> Result<Registry, Vec<Clash>> {
        let (mut registry, mut clashes) = (Registry::default(), Vec::new());
        let (mut audiences, mut targets) = (BTreeMap::new(), BTreeMap::new());
        for upstream in upstreams {
            let seen = [
                ("name", upstream.name.clone(), registry.get(&upstream.name).map(|u| u.name.clone())),
                ("audience", upstream.audience.clone(), audiences.insert(upstream.audience.clone(), upstream.name.clone())),
                ("target", upstream.target.clone(), targets.insert(upstream.target.clone(), upstream.name.clone())),
            ];
            let clash = |(what, value, with): (&'static str, String, Option<String>)| {
                Some(Clash { name: upstream.name.clone(), with: with?, what, value })
            };
            clashes.extend(seen.into_iter().filter_map(clash));
            registry.upstreams.insert(upstream.name.clone(), Arc::new(upstream));
        }
        if clashes.is_empty() { Ok(registry) } else { Err(clashes) }
    }

    /// Whether a registration, new or in place of the one of its name, could stand beside the others.
    pub fn clash(&self, new: &Upstream) -> Option<Clash> {
        let others = || self.upstreams.values().filter(|u| u.name != new.name);
        let clash = |with: &Arc<Upstream>, what, value: &str| Clash {
            name: new.name.clone(),
            with: with.name.clone(),
            what,
            value: value.to_owned(),
        };
        let audience = others().find(|u| u.audience == new.audience).map(|u| clash(u, "audience", &new.audience));
        audience.or_else(|| others().find(|u| u.target == new.target).map(|u| clash(u, "target", &new.target)))
    }

    /// The registration of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.upstreams.get(name)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.values()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.upstreams.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.upstreams.is_empty()
    }
}
