//! The table of credential kinds, and minting of the kinds that mayfly makes itself.

use std::sync::Arc;

use super::Token;
use super::jwt::{Told, Unsigned};
use super::keyring::{ES256, Keyring, OwnKey};
use super::minted::{About, Answer, Lapse, Minted, Novelty, Summary};
use super::reference;
use super::status::Allocator;
use mayfly_base::refusal::{Fault, No, Reason, Refusal};
use mayfly_ledger::commit::sha256;
use mayfly_ledger::record::{Event, Issued, KeyPurpose, Record, Released};
use mayfly_ledger::revocation::Rules;
use mayfly_ledger::state::Ground;
use mayfly_policy::grant::{Grant, Parts, TaskPath};
use mayfly_verify::seq::{ApprovalId, CredentialId, Millis, Seq, TaskId};

/// A credential kind. The numbers are persisted and equal those of `CredentialKind` in the protos.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u32)]
pub enum Kind {
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
}

/// Where credentials of a kind are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Maker {
    /// By mayfly, with a key of this purpose. Nothing exists at an upstream.
    Here(KeyPurpose),
    /// By an upstream, under a lease.
    Elsewhere,
}

/// A kind's line in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line {
    /// The kind.
    pub kind: Kind,
    /// The kind's name in registrations, policies and on the command line.
    pub name: &'static str,
    /// Where credentials of the kind are made.
    pub maker: Maker,
    /// How a credential is revoked for verifiers that do not follow revocation rules.
    pub revoked_by: &'static str,
    /// A registration may consent to credentials that cannot be revoked before their expiry.
    pub may_be_irrevocable: bool,
}

const fn line(kind: Kind, name: &'static str, maker: Maker, revoked_by: &'static str, may_be_irrevocable: bool) -> Line {
    Line { kind, name, maker, revoked_by, may_be_irrevocable }
}

/// All kinds, ordered by number.
pub const TABLE: [Line; 11] = [
    line(Kind::Jwt, "jwt", Maker::Here(KeyPurpose::AccessToken), "status list", false),
    line(Kind::Reference, "reference", Maker::Here(KeyPurpose::Reference), "introspection", false),
    line(Kind::X509, "x509", Maker::Here(KeyPurpose::X509Ca), "CRL, or none where the registration consents", true),
    line(Kind::Ssh, "ssh", Maker::Here(KeyPurpose::SshCa), "KRL", false),
    line(Kind::Postgres, "postgres", Maker::Elsewhere, "dropping the role and ending its sessions", false),
    line(Kind::Oauth, "oauth", Maker::Elsewhere, "RFC 7009 at the authorization server", false),
    line(Kind::Aws, "aws", Maker::Elsewhere, "a deny keyed to the session's tag", true),
    line(Kind::Github, "github", Maker::Elsewhere, "deleting the installation token", false),
    line(Kind::Secret, "secret", Maker::Elsewhere, "rotating the secret", false),
    line(Kind::Mysql, "mysql", Maker::Elsewhere, "dropping the user and ending its sessions", false),
    line(Kind::Redis, "redis", Maker::Elsewhere, "deleting the user and ending its sessions", false),
];

impl Kind {
    /// The kind's line.
    pub const fn line(self) -> &'static Line {
        // The table is ordered by number; a test checks it.
        &TABLE[self as usize - 1]
    }

    /// The persisted number.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The kind with a persisted number; `None` for a number that this version does not know.
    pub fn from_number(number: u32) -> Option<Kind> {
        TABLE.iter().map(|l| l.kind).find(|k| k.number() == number)
    }

    /// The kind with a name.
    pub fn from_name(name: &str) -> Option<Kind> {
        TABLE.iter().find(|l| l.name == name).map(|l| l.kind)
    }

    /// Whether mayfly makes the kind itself, so that nothing exists at an upstream.
    pub const fn made_here(self) -> bool {
        matches!(self.line().maker, Maker::Here(_))
    }

    /// The kind's name.
    pub const fn name(self) -> &'static str {
        self.line().name
    }

    /// Whether this version issues the kind. The other kinds have reserved numbers and names, and are refused with `NOT_SERVED`.
    pub const fn served(self) -> bool {
        matches!(self, Kind::Jwt | Kind::Reference)
    }
}

pub(super) fn kind_of(number: u32) -> Result<Kind, Fault> {
    Kind::from_number(number).ok_or_else(|| Fault::new(format!("a record names credential kind {number}")))
}

pub(super) fn not_served(kind: Kind, what: &str) -> No {
    No::Refusal(Refusal::new(Reason::NotServed, format!("credentials of kind {} {what}", kind.name())))
}

/// Mints a credential of a kind that mayfly makes itself. `group`: the number that ties its records together, greater than 0 and different
/// from that of neighbouring groups.
///
/// Refused: NOT_SERVED, NOT_READY where there is no active key, NO_LIFE_LEFT below a second.
pub fn mint_local(
    grant: Grant,
    id: CredentialId,
    group: u32,
    keyring: &Keyring,
    status: &Allocator,
    now: Millis,
) -> Result<Minted, No> {
    let mut parts = grant.into_parts();
    let kind = kind_of(parts.draft.kind)?;
    let key = key_for(kind, &parts, keyring)?;
    let place = status.place(Millis(parts.draft.expires_at), now)?;
    let draft = &mut parts.draft;
    draft.credential = id.as_bytes().to_vec();
    draft.key = key.id().to_owned();
    draft.status_list = place.list;
    draft.status_index = place.index;
    let told = Told {
        issued: &parts.draft,
        revision: parts.revision,
        path: &parts.path,
        grounds: &parts.grounds,
        audience: &parts.audience,
        issuer: &parts.issuer,
    };
    let (token, digest) = make(kind, &key, id, &told)?;
    parts.draft.token_digest = digest;
    let answer = bearer(token, &parts.draft, parts.base_url.clone());
    let summary = summary(&parts.draft, id, kind, parts.revision, Novelty::New, false)?;
    Ok(Minted::new(records(parts, group), summary, answer, Lapse::none()))
}

/// The key for minting, or the refusal to mint.
pub(super) fn key_for(kind: Kind, parts: &Parts, keyring: &Keyring) -> Result<Arc<OwnKey>, No> {
    let Maker::Here(purpose) = kind.line().maker else { return Err(not_served(kind, "are made at their upstream")) };
    let environment = &parts.draft.environment;
    let key = keyring.active(purpose, environment).ok_or_else(|| match purpose {
        KeyPurpose::AccessToken | KeyPurpose::Reference => No::Refusal(
            Refusal::new(Reason::NotReady, format!("environment {environment} has no active key for {}", kind.name()))
                .way_out("an operator runs: mayfly key list"),
        ),
        _ => not_served(kind, "are not made by this version"),
    })?;
    if Millis(parts.draft.expires_at).seconds() <= Millis(parts.draft.issued_at).seconds() {
        return Err(No::Refusal(Refusal::new(Reason::NoLifeLeft, "less than a second of life is left")));
    }
    if kind == Kind::Jwt && parts.algorithm != ES256 {
        return Err(not_served(kind, "are signed with ES256 only"));
    }
    Ok(key)
}

/// Makes the token and the digest for its record.
fn make(kind: Kind, key: &OwnKey, id: CredentialId, told: &Told<'_>) -> Result<(Token, Vec<u8>), No> {
    match kind {
        Kind::Jwt => {
            let unsigned = Unsigned::new(key, told)?;
            let digest = unsigned.digest().to_vec();
            Ok((unsigned.sign(key)?, digest))
        }
        Kind::Reference => {
            let token = reference::make(key, id)?;
            let digest = sha256(token.as_bytes()).to_vec();
            Ok((Token::secret(token), digest))
        }
        _ => Err(not_served(kind, "are not made by this version")),
    }
}

pub(super) fn bearer(token: Token, issued: &Issued, base_url: Arc<str>) -> Answer {
    // RFC 9449, section 7.1: a token bound to a DPoP key uses the `DPoP` scheme.
    let scheme = if issued.jkt.is_empty() { "Bearer" } else { "DPoP" };
    Answer::Bearer { token, header: "authorization".into(), scheme: scheme.into(), base_url }
}

pub(crate) fn summary(
    issued: &Issued,
    credential: CredentialId,
    kind: Kind,
    revision: Seq,
    novelty: Novelty,
    irrevocable: bool,
) -> Result<Summary, Fault> {
    let about = About {
        task: TaskId::from_slice(&issued.task).ok_or_else(|| Fault::new("an issuance without a task"))?,
        kind,
        issued_at: Millis(issued.issued_at),
        expires_at: Millis(issued.expires_at),
        renewable_until: Millis(issued.renewable_until),
        bound: issued.bound,
        scopes: issued.scopes.clone(),
        upstream: issued.upstream.clone(),
        approval: ApprovalId::from_slice(&issued.approval),
        revision,
        irrevocable,
        novelty,
    };
    Ok(Summary { credential, about: Arc::new(about) })
}

/// The records of a grant: the task that it opens or the release of the credential that it replaces, then the issuance. The request is on
/// the issuance record, which is the last one and by which a repeat is found.
pub(crate) fn records(parts: Parts, group: u32) -> Vec<Record> {
    let Parts { draft, revision, request, opens, author, .. } = parts;
    let released = (!draft.replaces.is_empty()).then(|| {
        let keep_until = Rules::keep_until(Millis(draft.issued_at)).0;
        Record::new(author.clone(), Event::Released(Released { credential: draft.replaces.clone(), keep_until }))
    });
    let opened = opens.map(|task| Record::new(author.clone(), Event::TaskOpened(task)).decided_at(revision));
    let issued = Record::new(author, Event::Issued(draft)).decided_at(revision).for_request(request);
    match (opened, released) {
        (None, None) => vec![issued],
        before => [before.0, before.1, Some(issued)].into_iter().flatten().map(|r| Record { group, ..r }).collect(),
    }
}

/// The inputs for making a credential again, besides the keys.
pub struct Past<'a> {
    /// The issuance record, with its decision revision.
    pub record: &'a Record,
    /// The task path.
    pub path: &'a TaskPath,
    /// The other grants that the credential depends on.
    pub grounds: &'a [Ground],
    /// `aud`.
    pub audience: &'a str,
    /// The upstream's base URL.
    pub base_url: &'a str,
    /// `iss`.
    pub issuer: &'a str,
}

/// Makes a credential again from its record: the same id and claims, by the same key. It has no records to commit; the receipt to reveal it
/// is that of its record. The caller must check first whether the credential was revoked meanwhile.
///
/// Refused: NOT_SERVED, KEY_STATE where its key was removed, DECIDED_ON_OLD_STATE where audience or issuer have changed.
pub fn remake_local(past: &Past<'_>, keyring: &Keyring) -> Result<Minted, No> {
    let Some(Event::Issued(issued)) = &past.record.event else { return Err(Fault::new("no issuance to make again").into()) };
    let kind = kind_of(issued.kind)?;
    let Maker::Here(purpose) = kind.line().maker else { return Err(not_served(kind, "are made at their upstream")) };
    let id = CredentialId::from_slice(&issued.credential).ok_or_else(|| Fault::new("an issuance without a credential id"))?;
    let key = keyring.get(purpose, &issued.key).ok_or_else(|| {
        No::Refusal(Refusal::new(Reason::KeyState, format!("key {} is gone, and only it can make {id} again", issued.key)))
    })?;
    let Past { path, grounds, audience, issuer, .. } = *past;
    let told = Told { issued, revision: past.record.revision(), path, grounds, audience, issuer };
    let (token, digest) = make(kind, &key, id, &told)?;
    if digest != issued.token_digest {
        // Only values outside the record can differ: the registration's audience or the issuer's name.
        let no = Refusal::new(Reason::DecidedOnOldState, format!("{id} cannot be made again: audience or issuer changed since"));
        return Err(No::Refusal(no.way_out("ask with a new request_id")));
    }
    let answer = bearer(token, issued, past.base_url.into());
    let summary = summary(issued, id, kind, told.revision, Novelty::Same, false)?;
    Ok(Minted::new(Vec::new(), summary, answer, Lapse::none()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_proto::mayfly::v1::CredentialKind;

    #[test]
    fn the_table_is_in_the_order_of_the_numbers_and_names_what_the_protos_name() {
        for (n, line) in TABLE.iter().enumerate() {
            assert_eq!(line.kind.number() as usize, n + 1);
            assert_eq!(line.kind.line(), line);
            assert_eq!(Kind::from_number(line.kind.number()), Some(line.kind));
            assert_eq!(Kind::from_name(line.name), Some(line.kind));
            let wire = CredentialKind::try_from(line.kind.number() as i32).unwrap();
            assert_eq!(wire.as_str_name(), format!("CREDENTIAL_KIND_{}", line.name.to_uppercase()));
        }
        assert!(CredentialKind::try_from(TABLE.len() as i32 + 1).is_err(), "the protos have no kind beyond the table");
        assert_eq!((Kind::from_number(0), Kind::from_number(12)), (None, None));
    }
}
