//! Writes the claims of an access token from its record (standards.md, "JWT in and out": "Ours").

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::json::{Object, array, plain, string};
use super::{OWN_CLAIMS, OWN_VERSION, PLAIN_VERSION, TokenContent};
use mayfly_base::refusal::Fault;
use mayfly_ledger::record::{CredentialIssued, Principal};
use mayfly_ledger::state::{SupportingGrant, facts_of_record, trust_domain_of};
use mayfly_verify::seq::{CredentialId, Millis, TaskId};

fn inexpressible(what: &str) -> Fault {
    Fault::new(format!("a token cannot be minted for a grant with {what}"))
}

/// Writes all claims. Order and form are fixed, because a retry must give the same bytes.
pub(super) fn claims(out: &mut Vec<u8>, told: &TokenContent<'_>) -> Result<(), Fault> {
    let e = told.issued;
    let id = CredentialId::from_slice(&e.credential).ok_or_else(|| inexpressible("no credential id"))?;
    shared(out, told)?;
    own(out, &e.tool, &e.arguments, id);
    Ok(())
}

/// Writes the common claims, which come first. The object of mayfly's own claims is left open.
pub(super) fn shared(out: &mut Vec<u8>, told: &TokenContent<'_>) -> Result<(), Fault> {
    let e = told.issued;
    let domain = trust_domain_of(&e.caller);
    let subject = subject(e);
    let mut all = Object::begin(out);
    all.text("iss", told.issuer);
    all.text("sub", subject.map_or(&e.caller, |s| &s.sub));
    all.text("aud", told.audience);
    // Rounded down, so that a token never outlives its record.
    all.number("exp", Millis(e.expires_at).seconds());
    all.number("iat", Millis(e.issued_at).seconds());
    all.number("nbf", Millis(e.issued_at).seconds());
    all.text("client_id", &e.caller);
    scope(all.member("scope"), &e.scopes)?;
    if !e.details.is_empty() {
        all.member("authorization_details").extend_from_slice(details(&e.details)?);
    }
    if subject.is_some() {
        let own = Principal { issuer: domain.to_owned(), sub: e.caller.clone() };
        act(all.member("act"), &own, &e.actors);
    }
    confirm(&mut all, e);
    let member = all.member(OWN_CLAIMS);
    own_claims(member, told, subject, domain)
}

/// Writes the individual claims of one credential and closes all objects.
pub(super) fn own(out: &mut Vec<u8>, tool: &str, arguments: &[u8], id: CredentialId) {
    let mut own = Object::go_on(out);
    own.some("tool", tool);
    own.hex("arguments", arguments);
    own.end();
    let mut all = Object::go_on(out);
    all.ascii("jti", &id.text());
    all.end();
}

/// The subject, where it is not the caller.
fn subject(e: &CredentialIssued) -> Option<&Principal> {
    let own = |s: &&Principal| s.sub == e.caller && s.issuer == trust_domain_of(&e.caller);
    e.subject.as_ref().filter(|s| !own(s))
}

/// The scopes, separated by spaces (RFC 6749, section 3.3). A scope that contains a space would be read as two, and no revocation rule
/// would match it.
fn scope(out: &mut Vec<u8>, scopes: &[String]) -> Result<(), Fault> {
    let sayable = |s: &String| !s.is_empty() && s.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
    if !scopes.iter().all(sayable) {
        return Err(inexpressible("a scope that RFC 6749 has no form for"));
    }
    out.push(b'"');
    for (n, scope) in scopes.iter().enumerate() {
        if n > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(scope.as_bytes());
    }
    out.push(b'"');
    Ok(())
}

/// The authorization details as recorded. A text that is not a JSON array would break out of its claim.
fn details(text: &str) -> Result<&[u8], Fault> {
    match serde_json::from_str::<Vec<serde::de::IgnoredAny>>(text) {
        Ok(_) => Ok(text.as_bytes()),
        Err(_) => Err(inexpressible("authorization details that are no JSON array")),
    }
}

/// The actors, the caller outermost (RFC 8693, section 4.1).
fn act(out: &mut Vec<u8>, caller: &Principal, actors: &[Principal]) {
    let rest = actors.strip_prefix(std::slice::from_ref(caller)).unwrap_or(actors);
    for (n, actor) in std::iter::once(caller).chain(rest).enumerate() {
        if n > 0 {
            out.extend_from_slice(br#","act":"#);
        }
        out.extend_from_slice(br#"{"sub":"#);
        string(out, &actor.sub);
        out.extend_from_slice(br#","iss":"#);
        string(out, &actor.issuer);
    }
    out.resize(out.len() + 1 + rest.len(), b'}');
}

/// `cnf`: `x5t#S256` (RFC 8705, section 3.1) or `jkt` (RFC 9449, section 6.1).
fn confirm(all: &mut Object<'_>, e: &CredentialIssued) {
    if e.x5t.is_empty() && e.jkt.is_empty() {
        return;
    }
    let mut cnf = Object::begin(all.member("cnf"));
    for (name, hash) in [("x5t#S256", &e.x5t), ("jkt", &e.jkt)] {
        if !hash.is_empty() {
            cnf.ascii(name, URL_SAFE_NO_PAD.encode(hash).as_bytes());
        }
    }
    cnf.end();
}

fn own_claims(out: &mut Vec<u8>, told: &TokenContent<'_>, subject: Option<&Principal>, domain: &str) -> Result<(), Fault> {
    let e = told.issued;
    if told.path.tasks().last().is_none_or(|task| task.as_bytes()[..] != e.task[..]) {
        return Err(inexpressible("a task path that does not end in its task"));
    }
    let grounds = beyond_own(told);
    let mut own = Object::begin(out);
    // A verifier that does not know `rests_on` would keep accepting a token after one of its grounds was revoked. The higher version makes
    // such a verifier refuse the token.
    own.number("v", if grounds.is_empty() { PLAIN_VERSION } else { OWN_VERSION }.into());
    own.number("r", told.revision.as_u64());
    own.text("environment", &e.environment);
    own.number("policy_version", e.policy_version);
    own.text("upstream", &e.upstream);
    own.some("binding", &e.binding);
    own.text("trust_domain", domain);
    array(own.member("tasks"), told.path.tasks().iter().zip(told.path.owners()), task);
    if let Some(subject) = subject {
        own.text("sub_iss", &subject.issuer);
    }
    if let Some(token) = &e.subject_token {
        let mut member = Object::begin(own.member("subject_token"));
        member.text("iss", &token.issuer);
        member.text("id", &token.id);
        member.end();
    }
    if !e.ancestors.is_empty() {
        let ids: Option<Vec<_>> =
            e.ancestors.iter().map(|a| Some((CredentialId::from_slice(&a.credential)?, a.caller.as_str()))).collect();
        let ids = ids.ok_or_else(|| inexpressible("an ancestor that is no credential id"))?;
        array(own.member("ancestors"), ids, |out, (id, caller)| {
            let mut member = Object::begin(out);
            member.ascii("id", &id.text());
            member.text("caller", caller);
            member.end();
        });
    }
    if let Some(svid) = &e.svid {
        let mut member = Object::begin(own.member("svid"));
        member.hex("trust_anchor", &svid.anchor);
        member.hex("issuing_key", &svid.issuing_key);
        member.hex("serial", &svid.serial);
        member.end();
    }
    if !grounds.is_empty() {
        array(own.member("rests_on"), &grounds, ground);
    }
    Ok(())
}

/// The facts that the token's grounds add to its own claims; usually none.
fn beyond_own(told: &TokenContent<'_>) -> Vec<SupportingGrant> {
    if told.grounds.is_empty() {
        return Vec::new();
    }
    let mut facts = facts_of_record(told.issued, told.revision, told.path.tasks());
    facts.identities.extend(told.path.owners().iter().map(|o| (o.issuer.as_str(), o.sub.as_str())));
    SupportingGrant::beyond_own(&facts, told.grounds)
}

fn ground(out: &mut Vec<u8>, ground: &SupportingGrant) {
    let mut all = Object::begin(out);
    if !ground.credentials.is_empty() {
        array(all.member("credentials"), &ground.credentials, |out, id| string(out, &id.to_string()));
    }
    if !ground.tasks.is_empty() {
        array(all.member("tasks"), &ground.tasks, |out, id| string(out, &id.to_string()));
    }
    if !ground.parties.is_empty() {
        array(all.member("parties"), &ground.parties, |out, party| {
            let mut member = Object::begin(out);
            member.text("iss", &party.issuer);
            member.text("sub", &party.sub);
            member.end();
        });
    }
    all.some("upstream", &ground.upstream);
    all.some("scope", &ground.scopes.join(" "));
    all.some("binding", &ground.binding);
    all.some("tool", &ground.tool);
    if !ground.environment.is_empty() {
        all.text("environment", &ground.environment);
        all.number("policy_version", ground.policy);
    }
    all.some("kid", &ground.key);
    if let Some(svid) = &ground.svid {
        all.text("trust_domain", &svid.trust_domain);
        let mut member = Object::begin(all.member("svid"));
        member.hex("trust_anchor", &svid.anchor);
        member.hex("issuing_key", &svid.issuing_key);
        member.hex("serial", &svid.serial);
        member.end();
    }
    if let Some((issuer, id)) = &ground.subject_token {
        let mut member = Object::begin(all.member("subject_token"));
        member.text("iss", issuer);
        member.text("id", id);
        member.end();
    }
    all.end();
}

fn task(out: &mut Vec<u8>, (id, owner): (&TaskId, &Principal)) {
    out.extend_from_slice(br#"{"id":""#);
    plain(out, id);
    out.extend_from_slice(br#"","owner":{"iss":"#);
    string(out, &owner.issuer);
    out.extend_from_slice(br#","sub":"#);
    string(out, &owner.sub);
    out.extend_from_slice(b"}}");
}
