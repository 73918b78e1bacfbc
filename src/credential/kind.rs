//! The table of credential kinds, and minting of the kinds that mayfly makes itself.

use std::sync::Arc;

use super::IssuedToken;
use super::certificates::{self, CertificateInput};
use super::connectors;
use super::jwt::{SigningInput, TokenContent};
use super::keyring::{ES256, Keyring, LoadedKey};
use super::minted::{CredentialDetails, CredentialMaterial, CredentialSummary, MintedCredential, Novelty, OutcomeReporter};
use super::reference;
use super::status_list::StatusListAllocator;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_ledger::commit::sha256;
use mayfly_ledger::record::{CredentialIssued, CredentialReleased, Event, KeyPurpose, Record, upstream_path};
use mayfly_ledger::revocation::Rules;
use mayfly_ledger::state::SupportingGrant;
use mayfly_ledger::upstream::settings::KindSettings;
use mayfly_policy::grant::{Grant, GrantParts, TaskPath};
use mayfly_verify::seq::{ApprovalId, CredentialId, Millis, Seq, TaskId};

/// A credential kind. The numbers are persisted and equal those of `CredentialKind` in the protos.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u32)]
pub enum CredentialKind {
    Jwt = 1,
    Reference = 2,
    X509 = 3,
    Ssh = 4,
    Postgres = 5,
    Oauth = 6,
    Aws = 7,
    Github = 8,
    Secret = 9,
    Mysql = 10,
    Redis = 11,
    Federation = 12,
}

/// Where credentials of a kind are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MintLocation {
    /// By mayfly, with a key of this purpose. Nothing exists at an upstream.
    Local(KeyPurpose),
    /// By an upstream, under a lease.
    Upstream,
}

/// A kind's entry in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KindEntry {
    /// The kind.
    pub kind: CredentialKind,
    /// The kind's name in registrations, policies and on the command line.
    pub name: &'static str,
    /// Where credentials of the kind are made.
    pub maker: MintLocation,
    /// How a credential is revoked for verifiers that do not follow revocation rules.
    pub revoked_by: &'static str,
    /// A registration may consent to credentials that cannot be revoked before their expiry.
    pub may_be_irrevocable: bool,
}

const fn entry(
    kind: CredentialKind,
    name: &'static str,
    maker: MintLocation,
    revoked_by: &'static str,
    may_be_irrevocable: bool,
) -> KindEntry {
    KindEntry { kind, name, maker, revoked_by, may_be_irrevocable }
}

/// All kinds, ordered by number.
pub const TABLE: [KindEntry; 12] = [
    entry(CredentialKind::Jwt, "jwt", MintLocation::Local(KeyPurpose::AccessToken), "status list", false),
    entry(CredentialKind::Reference, "reference", MintLocation::Local(KeyPurpose::Reference), "introspection", false),
    entry(
        CredentialKind::X509,
        "x509",
        MintLocation::Local(KeyPurpose::UpstreamCa),
        "CRL, or none where the registration consents",
        true,
    ),
    entry(CredentialKind::Ssh, "ssh", MintLocation::Local(KeyPurpose::SshCa), "KRL", false),
    entry(CredentialKind::Postgres, "postgres", MintLocation::Upstream, "dropping the role and ending its sessions", false),
    entry(
        CredentialKind::Oauth,
        "oauth",
        MintLocation::Upstream,
        "RFC 7009 at the authorization server, or none where the registration consents",
        true,
    ),
    entry(CredentialKind::Aws, "aws", MintLocation::Upstream, "a deny keyed to the session's tag", true),
    entry(CredentialKind::Github, "github", MintLocation::Upstream, "deleting the installation token", false),
    entry(CredentialKind::Secret, "secret", MintLocation::Upstream, "rotating the secret", true),
    entry(CredentialKind::Mysql, "mysql", MintLocation::Upstream, "dropping the user and ending its sessions", false),
    entry(CredentialKind::Redis, "redis", MintLocation::Upstream, "deleting the user and ending its sessions", false),
    entry(CredentialKind::Federation, "federation", MintLocation::Upstream, "its short life, or RFC 7009 at the vendor", true),
];

impl CredentialKind {
    /// The kind's entry in the table.
    pub const fn entry(self) -> &'static KindEntry {
        // The table is ordered by number; a test checks it.
        &TABLE[self as usize - 1]
    }

    /// The persisted number.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The kind with a persisted number; `None` for a number that this version does not know.
    pub fn from_number(number: u32) -> Option<CredentialKind> {
        TABLE.iter().map(|l| l.kind).find(|k| k.number() == number)
    }

    /// The kind with a name.
    pub fn from_name(name: &str) -> Option<CredentialKind> {
        TABLE.iter().find(|l| l.name == name).map(|l| l.kind)
    }

    /// Whether mayfly makes the kind itself, so that nothing exists at an upstream.
    pub const fn made_locally(self) -> bool {
        matches!(self.entry().maker, MintLocation::Local(_))
    }

    /// The kind's name.
    pub const fn name(self) -> &'static str {
        self.entry().name
    }

    /// Whether this version issues the kind. The other kinds have reserved numbers and names, and are refused with `NOT_SERVED`.
    pub fn served(self) -> bool {
        self.made_locally() || connectors::has(self)
    }

    /// Whether credentials of the kind are certificates, which are for a key of the caller.
    pub const fn is_certificate(self) -> bool {
        matches!(self, CredentialKind::X509 | CredentialKind::Ssh)
    }
}

pub(super) fn kind_of(number: u32) -> Result<CredentialKind, Fault> {
    CredentialKind::from_number(number).ok_or_else(|| Fault::new(format!("a record names credential kind {number}")))
}

pub(super) fn not_served(kind: CredentialKind, what: &str) -> Error {
    Error::Refusal(Refusal::new(Reason::NotServed, format!("credentials of kind {} {what}", kind.name())))
}

/// Mints a credential of a kind that mayfly makes itself. `group`: the number that ties its records together, greater than 0 and different
/// from that of neighbouring groups. `certified`: the key of a certificate, as of [`certificates::certified_key`]; empty for other kinds.
///
/// Refused: NOT_SERVED, NOT_READY where there is no active key, NO_LIFE_LEFT below a second.
pub fn mint_local(
    grant: Grant,
    id: CredentialId,
    group: u32,
    keyring: &Keyring,
    status: &StatusListAllocator,
    certified: Vec<u8>,
    now: Millis,
) -> Result<MintedCredential, Error> {
    let mut parts = grant.into_parts();
    let kind = kind_of(parts.draft.kind)?;
    let key = key_for(kind, &parts, keyring)?;
    let draft = &mut parts.draft;
    draft.credential = id.as_bytes().to_vec();
    draft.key = key.id().to_owned();
    if kind.is_certificate() {
        draft.certified_key = certified;
    } else {
        let place = status.place(Millis(draft.expires_at), now)?;
        draft.status_list = place.list;
        draft.status_index = place.index;
    }
    let told = TokenContent {
        issued: &parts.draft,
        revision: parts.revision,
        path: &parts.path,
        grounds: &parts.grounds,
        audience: &parts.audience,
        issuer: &parts.issuer,
    };
    let (answer, digest) = make(kind, &key, id, &told, (&parts.settings, &parts.base_url))?;
    parts.draft.token_digest = digest;
    let irrevocable = certificates::is_irrevocable(kind, &parts.settings)?;
    let summary = summary(&parts.draft, id, kind, parts.revision, Novelty::New, irrevocable)?;
    Ok(MintedCredential::new(records(parts, group), summary, answer, OutcomeReporter::none()))
}

/// The key for minting, or the refusal to mint.
pub(super) fn key_for(kind: CredentialKind, parts: &GrantParts, keyring: &Keyring) -> Result<Arc<LoadedKey>, Error> {
    let MintLocation::Local(purpose) = kind.entry().maker else { return Err(not_served(kind, "are made at their upstream")) };
    let environment = &parts.draft.environment;
    let none = |of: String| {
        let no = Refusal::new(Reason::NotReady, format!("{of} has no active key for {}", kind.name()));
        Error::Refusal(no.way_out("an operator runs: mayfly key list").retry(std::time::Duration::from_secs(1)))
    };
    let key = if kind.is_certificate() {
        let upstream = &parts.draft.upstream;
        let key = upstream_path(environment, upstream).and_then(|path| keyring.active(purpose, &path));
        let key = key.ok_or_else(|| none(format!("upstream {upstream}")))?;
        certificates::outlives(&key, &parts.draft)?;
        key
    } else {
        keyring.active(purpose, environment).ok_or_else(|| none(format!("environment {environment}")))?
    };
    if Millis(parts.draft.expires_at).seconds() <= Millis(parts.draft.issued_at).seconds() {
        return Err(Error::Refusal(Refusal::new(Reason::NoLifeLeft, "less than a second of lifetime is left")));
    }
    if kind == CredentialKind::Jwt && parts.algorithm != ES256 {
        return Err(not_served(kind, "are signed with ES256 only"));
    }
    Ok(key)
}

/// Makes the credential and the digest for its record.
fn make(
    kind: CredentialKind,
    key: &LoadedKey,
    id: CredentialId,
    told: &TokenContent<'_>,
    (settings, base_url): (&KindSettings, &str),
) -> Result<(CredentialMaterial, Vec<u8>), Error> {
    if kind.is_certificate() {
        let input = CertificateInput { kind, id, issued: told.issued, settings, issuer: told.issuer };
        return certificates::make(key, &input).map(|(answer, digest)| (answer, digest.to_vec()));
    }
    let (token, digest) = token(kind, key, id, told)?;
    Ok((bearer(token, told.issued, base_url.into()), digest))
}

/// Makes the token and the digest for its record.
fn token(
    kind: CredentialKind,
    key: &LoadedKey,
    id: CredentialId,
    told: &TokenContent<'_>,
) -> Result<(IssuedToken, Vec<u8>), Error> {
    match kind {
        CredentialKind::Jwt => {
            let unsigned = SigningInput::new(key, told)?;
            let digest = unsigned.digest().to_vec();
            Ok((unsigned.sign(key)?, digest))
        }
        CredentialKind::Reference => {
            let token = reference::make(key, id)?;
            let digest = sha256(token.as_bytes()).to_vec();
            Ok((IssuedToken::secret(token), digest))
        }
        _ => Err(not_served(kind, "are not made by this version")),
    }
}

pub(super) fn bearer(token: IssuedToken, issued: &CredentialIssued, base_url: Arc<str>) -> CredentialMaterial {
    // RFC 9449, section 7.1: a token bound to a DPoP key uses the `DPoP` scheme.
    let scheme = if issued.jkt.is_empty() { "Bearer" } else { "DPoP" };
    CredentialMaterial::Bearer { token, header: "authorization".into(), scheme: scheme.into(), base_url }
}

pub(crate) fn summary(
    issued: &CredentialIssued,
    credential: CredentialId,
    kind: CredentialKind,
    revision: Seq,
    novelty: Novelty,
    irrevocable: bool,
) -> Result<CredentialSummary, Fault> {
    let about = CredentialDetails {
        task: TaskId::from_slice(&issued.task).ok_or_else(|| Fault::new("an issuance without a task"))?,
        kind,
        issued_at: Millis(issued.issued_at),
        expires_at: Millis(issued.expires_at),
        renewable_until: Millis(issued.renewable_until),
        bound: issued.bound,
        scopes: issued.scopes.clone(),
        details: issued.details.clone(),
        upstream: issued.upstream.clone(),
        approval: ApprovalId::from_slice(&issued.approval),
        revision,
        irrevocable,
        upstream_ends_at: Millis(0),
        novelty,
    };
    Ok(CredentialSummary { credential, about: Arc::new(about) })
}

/// The records of a grant: the task that it opens or the release of the credential that it replaces, then the issuance. The request is on
/// the issuance record, which is the last one and by which a repeat is found.
pub(crate) fn records(parts: GrantParts, group: u32) -> Vec<Record> {
    let GrantParts { draft, revision, request, opens, author, .. } = parts;
    let released = (!draft.replaces.is_empty()).then(|| {
        let keep_until = Rules::keep_until(Millis(draft.issued_at)).0;
        Record::new(author.clone(), Event::Released(CredentialReleased { credential: draft.replaces.clone(), keep_until }))
    });
    let opened = opens.map(|task| Record::new(author.clone(), Event::TaskOpened(task)).decided_at(revision));
    let issued = Record::new(author, Event::Issued(draft)).decided_at(revision).for_request(request);
    match (opened, released) {
        (None, None) => vec![issued],
        before => [before.0, before.1, Some(issued)].into_iter().flatten().map(|r| Record { group, ..r }).collect(),
    }
}

/// The inputs for making a credential again, besides the keys.
pub struct RemintInput<'a> {
    /// The issuance record, with its decision revision.
    pub record: &'a Record,
    /// The task path.
    pub path: &'a TaskPath,
    /// The other grants that the credential depends on.
    pub grounds: &'a [SupportingGrant],
    /// `aud`.
    pub audience: &'a str,
    /// The upstream's base URL.
    pub base_url: &'a str,
    /// `iss`.
    pub issuer: &'a str,
    /// The sections of the registration.
    pub settings: &'a KindSettings,
}

/// Makes a credential again from its record: the same id and claims, by the same key. It has no records to commit; the receipt to reveal it
/// is that of its record. The caller must check first whether the credential was revoked meanwhile.
///
/// Refused: NOT_SERVED, KEY_STATE where its key was removed, DECIDED_ON_OLD_STATE where audience or issuer have changed.
pub fn remake_local(past: &RemintInput<'_>, keyring: &Keyring) -> Result<MintedCredential, Error> {
    let Some(Event::Issued(issued)) = &past.record.event else { return Err(Fault::new("no issuance to recreate").into()) };
    let kind = kind_of(issued.kind)?;
    let MintLocation::Local(purpose) = kind.entry().maker else { return Err(not_served(kind, "are made at their upstream")) };
    let id = CredentialId::from_slice(&issued.credential).ok_or_else(|| Fault::new("an issuance without a credential id"))?;
    let key = keyring.get(purpose, &issued.key).ok_or_else(|| {
        Error::Refusal(Refusal::new(
            Reason::KeyState,
            format!("key {} no longer exists, and only that key can recreate {id}", issued.key),
        ))
    })?;
    let RemintInput { path, grounds, audience, issuer, settings, base_url, .. } = *past;
    let told = TokenContent { issued, revision: past.record.revision(), path, grounds, audience, issuer };
    let (answer, digest) = make(kind, &key, id, &told, (settings, base_url))?;
    if digest != issued.token_digest {
        // Only values outside the record can differ: the registration, or the issuer's name.
        let no = Refusal::new(
            Reason::DecidedOnOldState,
            format!("{id} cannot be recreated: its audience, its issuer or its upstream's registration has changed since"),
        );
        return Err(Error::Refusal(no.way_out("ask with a new request_id")));
    }
    let irrevocable = certificates::is_irrevocable(kind, settings)?;
    let summary = summary(issued, id, kind, told.revision, Novelty::Same, irrevocable)?;
    Ok(MintedCredential::new(Vec::new(), summary, answer, OutcomeReporter::none()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_proto::mayfly::v1 as pb;

    #[test]
    fn the_table_is_in_the_order_of_the_numbers_and_names_what_the_protos_name() {
        for (n, entry) in TABLE.iter().enumerate() {
            assert_eq!(entry.kind.number() as usize, n + 1);
            assert_eq!(entry.kind.entry(), entry);
            assert_eq!(CredentialKind::from_number(entry.kind.number()), Some(entry.kind));
            assert_eq!(CredentialKind::from_name(entry.name), Some(entry.kind));
            let wire = pb::CredentialKind::try_from(entry.kind.number() as i32).unwrap();
            assert_eq!(wire.as_str_name(), format!("CREDENTIAL_KIND_{}", entry.name.to_uppercase()));
        }
        assert!(pb::CredentialKind::try_from(TABLE.len() as i32 + 1).is_err(), "the protos have no kind beyond the table");
        assert_eq!((CredentialKind::from_number(0), CredentialKind::from_number(13)), (None, None));
    }
}
