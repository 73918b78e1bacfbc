//! Registrations of upstreams. An upstream that is not registered does not exist: nothing is issued for it.
//!
//! A registration is immutable; a change is a new version in the ledger, in the text form of [`Upstream::to_text`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::settings::KindSettings;
use crate::record::Principal;
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_verify::seq::Millis;

/// A closed list of values. Each value has one text, the same in files, policies and records.
macro_rules! closed {
    ($(#[$doc:meta])* $name:ident { $($(#[$item:meta])* $value:ident = $tag:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum $name { $($(#[$item])* #[serde(rename = $text)] $value = $tag,)* }

        impl $name {
            /// All values.
            pub const ALL: &'static [$name] = &[$($name::$value,)*];

            /// The value's text in files, policies and claims.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$value => $text,)* }
            }

            /// The value's number in records. Frozen.
            pub const fn tag(self) -> u8 {
                self as u8
            }

            /// The value with this number.
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
    /// A kind of credential.
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
        /// A user of a MySQL or MariaDB server.
        Mysql = 10 "mysql",
        /// An ACL user of a Redis server.
        Redis = 11 "redis",
        /// An assertion for another authorization server, or the token that it gives for one.
        Federation = 12 "federation",
    }
}

impl Kind {
    /// Whether mayfly makes credentials of the kind without a section of the registration. Other kinds have one, and a reader of it.
    pub const fn served(self) -> bool {
        matches!(self, Kind::Jwt | Kind::Reference)
    }

    /// Whether credentials of the kind are tokens, which mayfly can bind to a key of the caller. The holder of any other kind proves its own
    /// key, or a password.
    pub const fn is_token(self) -> bool {
        matches!(self, Kind::Jwt | Kind::Reference)
    }

    /// Whether credentials of the kind are certificates, which are for a key of the caller.
    pub const fn is_certificate(self) -> bool {
        matches!(self, Kind::X509 | Kind::Ssh)
    }
}

closed! {
    /// The highest privilege that a credential gives at the target.
    Privilege {
        /// Read data.
        Read = 1 "read",
        /// Change data.
        Write = 2 "write",
        /// Change permissions.
        Admin = 3 "admin",
    }
}

closed! {
    /// How far the damage of a stolen credential reaches.
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
    /// The signature algorithm of a `jwt`.
    Alg {
        /// ECDSA on P-256 with SHA-256.
        Es256 = 1 "ES256",
        /// RSA PKCS #1 v1.5 with SHA-256, for upstreams that accept nothing else. Not served by this version.
        Rs256 = 2 "RS256",
    }
}

closed! {
    /// The key binding of a `jwt`.
    ProofOfPossession {
        /// No binding: a bearer token.
        None = 1 "none",
        /// The caller's certificate, as `cnf` `x5t#S256` (RFC 8705).
        X5t = 2 "x5t",
    }
}

/// A description of the target and of the possible damage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classification {
    /// The target system's name in the organization's inventory.
    pub system: String,
    /// The highest privilege that a credential gives.
    pub privilege: Privilege,
    /// How far damage reaches.
    pub blast_radius: BlastRadius,
}

/// A right at the upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisteredScope {
    /// The scope's name, as in the `scope` claim.
    pub name: String,
    /// Whether policy treats the scope as sensitive (`context.sensitive`).
    pub sensitive: bool,
}

/// Bounds of a credential's lifetime, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ttl {
    /// The shortest lifetime that is issued.
    pub min: u64,
    /// The lifetime of a request that names none.
    pub default: u64,
    /// The longest lifetime that is issued.
    pub max: u64,
}

/// An approver named by a registration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Approver {
    /// A workload or person with an SVID.
    SpiffeId(SpiffeId),
    /// A person, identified by issuer and subject.
    Person {
        /// The issuer's URL.
        issuer: String,
        /// `sub` at that issuer.
        subject: String,
    },
}

impl Approver {
    /// The approver in the form of records.
    pub fn identity(&self) -> Principal {
        match self {
            Approver::SpiffeId(id) => Principal::workload(id),
            Approver::Person { issuer, subject } => Principal { issuer: issuer.clone(), sub: subject.clone() },
        }
    }

    /// The approver in the form of `context.approvals.people`.
    pub fn name(&self) -> String {
        self.identity().name()
    }
}

/// The registration of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// The unique name.
    pub name: String,
    /// The responsible team or person.
    pub owner: String,
    /// The business purpose.
    pub purpose: String,
    /// The environment. An upstream belongs to exactly one.
    pub environment: String,
    /// The classification of the target.
    pub classification: Classification,
    /// `aud` of the upstream's credentials, unique: an https URL, or another text without spaces.
    pub audience: String,
    /// Base URL of the physical target in normal form ([`super::target::target_url`]), unique.
    pub target: String,
    /// The servers that accept the upstream's credentials. They may introspect the credentials, report their use, and exchange them on
    /// behalf of their holders.
    pub servers: Vec<SpiffeId>,
    /// The people who may approve, where policy demands an approval.
    pub approvers: Vec<Approver>,
    /// The credential kinds that can be issued.
    pub kinds: Vec<Kind>,
    /// The scopes that can be requested.
    pub scopes: Vec<RegisteredScope>,
    /// Bounds of a credential's lifetime.
    pub ttl: Ttl,
    /// The end of the registration. No credential outlives it.
    pub expires: Millis,
    /// The signature algorithm of a `jwt`.
    pub alg: Alg,
    /// The key binding of a `jwt`.
    pub proof_of_possession: ProofOfPossession,
    /// How often a stored secret is rotated, in seconds; for kind `secret` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<u64>,
    /// The sections of the kinds that the upstream itself makes.
    #[serde(default, skip_serializing_if = "no_settings")]
    pub settings: Arc<KindSettings>,
}

/// A registration without sections has the same text as before there were any.
fn no_settings(settings: &Arc<KindSettings>) -> bool {
    settings.is_empty()
}

/// Version number of the text form.
const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded<U> {
    version: u8,
    upstream: U,
}

impl Upstream {
    /// The canonical text for a record: JSON, with fields in the order of the struct.
    pub fn to_text(&self) -> String {
        // The struct has strings, numbers and lists only, so serializing cannot fail.
        serde_json::to_string(&Recorded { version: VERSION, upstream: self }).unwrap_or_default()
    }

    /// Parses the canonical text. The error says what is wrong.
    pub fn from_text(text: &str) -> Result<Upstream, String> {
        let recorded: Recorded<Upstream> = serde_json::from_str(text).map_err(|e| e.to_string())?;
        match recorded.version {
            VERSION => Ok(recorded.upstream),
            other => Err(format!("registration format {other}, this version reads {VERSION}")),
        }
    }

    /// SHA-256 of the canonical text.
    pub fn digest(&self) -> [u8; 32] {
        mayfly_base::document::sha256(self.to_text().as_bytes())
    }

    /// The registered scope of this name.
    pub fn scope(&self, name: &str) -> Option<&RegisteredScope> {
        self.scopes.iter().find(|s| s.name == name)
    }

    /// Whether no existing credential would be right under the new registration: another audience, target, signature algorithm or key
    /// binding, or a kind's section that no longer says all that it said.
    pub fn other_credentials(&self, new: &Upstream) -> bool {
        !new.settings.contain(&self.settings)
            || self.audience != new.audience
            || self.target != new.target
            || self.alg != new.alg
            || (new.proof_of_possession != ProofOfPossession::None && self.proof_of_possession != new.proof_of_possession)
    }

    /// Whether credentials of this kind are issued for the upstream.
    pub fn issues(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    /// Whether this caller is a server of the upstream.
    pub fn served_by(&self, caller: &SpiffeId) -> bool {
        self.servers.contains(caller)
    }
}

/// A clash between two registrations that cannot both exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationConflict {
    /// The upstream of the later registration.
    pub name: String,
    /// The upstream of the earlier registration.
    pub with: String,
    /// The field: `name`, `audience` or `target`.
    pub what: &'static str,
    /// The common value.
    pub value: String,
}

impl fmt::Display for RegistrationConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "upstream {} has the same {} as upstream {}: {}", self.name, self.what, self.with, self.value)
    }
}

/// All registrations. Name, audience and target are unique across kinds and environments: if one target had two registrations, the stricter
/// one would protect nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registry {
    upstreams: BTreeMap<String, Arc<Upstream>>,
}

impl Registry {
    /// Builds the registry. The error lists every clash.
    pub fn new(upstreams: impl IntoIterator<Item = Upstream>) -> Result<Registry, Vec<RegistrationConflict>> {
        let (mut registry, mut clashes) = (Registry::default(), Vec::new());
        let (mut audiences, mut targets) = (BTreeMap::new(), BTreeMap::new());
        for upstream in upstreams {
            let seen = [
                ("name", upstream.name.clone(), registry.get(&upstream.name).map(|u| u.name.clone())),
                ("audience", upstream.audience.clone(), audiences.insert(upstream.audience.clone(), upstream.name.clone())),
                ("target", upstream.target.clone(), targets.insert(upstream.target.clone(), upstream.name.clone())),
            ];
            let clash = |(what, value, with): (&'static str, String, Option<String>)| {
                Some(RegistrationConflict { name: upstream.name.clone(), with: with?, what, value })
            };
            clashes.extend(seen.into_iter().filter_map(clash));
            registry.upstreams.insert(upstream.name.clone(), Arc::new(upstream));
        }
        if clashes.is_empty() { Ok(registry) } else { Err(clashes) }
    }

    /// The clash of a registration, new or replacing the one of the same name, with the other registrations.
    pub fn clash(&self, new: &Upstream) -> Option<RegistrationConflict> {
        let others = || self.upstreams.values().filter(|u| u.name != new.name);
        let clash = |with: &Arc<Upstream>, what, value: &str| RegistrationConflict {
            name: new.name.clone(),
            with: with.name.clone(),
            what,
            value: value.to_owned(),
        };
        let audience = others().find(|u| u.audience == new.audience).map(|u| clash(u, "audience", &new.audience));
        audience.or_else(|| others().find(|u| u.target == new.target).map(|u| clash(u, "target", &new.target)))
    }

    /// The registration of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.upstreams.get(name)
    }

    /// All registrations, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.values()
    }

    /// The number of registrations.
    pub fn len(&self) -> usize {
        self.upstreams.len()
    }

    /// Whether there is no registration.
    pub fn is_empty(&self) -> bool {
        self.upstreams.is_empty()
    }
}
