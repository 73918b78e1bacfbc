//! Registrations on the wire.

use toml::{Table, Value};

use super::{millis, timestamp};
use mayfly_base::document::quantity::duration_text;
use mayfly_base::document::{Diagnostic, SourceFile};
use mayfly_base::limits;
use mayfly_base::refusal::Refusal;
use mayfly_credential::connectors::READERS;
use mayfly_ledger::state::DocumentVersion;
use mayfly_ledger::upstream::file;
use mayfly_ledger::upstream::findings::{FindingKind, UpstreamFinding};
use mayfly_ledger::upstream::registry::{Approver, Kind, ProofOfPossession, Upstream};
use mayfly_policy::exchange_request;
use mayfly_proto::mayfly::v1 as pb;

/// The state of a registration.
pub fn registration_state(version: &DocumentVersion) -> pb::RegistrationState {
    match (version.active, version.retired) {
        (_, true) => pb::RegistrationState::Retired,
        (true, false) => pb::RegistrationState::Active,
        (false, false) => pb::RegistrationState::Disabled,
    }
}

/// A registration and its version.
pub fn upstream_to_pb(upstream: &Upstream, version: &DocumentVersion) -> pb::Upstream {
    let (scopes, c) = (upstream.scopes.iter(), &upstream.classification);
    let seconds = |s: u64| Some(super::duration(s.saturating_mul(1000)));
    pb::Upstream {
        upstream: upstream.name.clone(),
        version: version.version,
        state: registration_state(version).into(),
        environment: upstream.environment.clone(),
        owner: upstream.owner.clone(),
        purpose: upstream.purpose.clone(),
        audience: upstream.audience.clone(),
        base_url: upstream.target.clone(),
        kinds: upstream.kinds.iter().map(|k| i32::from(k.tag())).collect(),
        scopes: scopes.map(|s| pb::UpstreamScope { scope: s.name.clone(), sensitive: s.sensitive }).collect(),
        servers: upstream.servers.iter().map(ToString::to_string).collect(),
        max_ttl: seconds(upstream.ttl.max),
        expires_at: Some(timestamp(upstream.expires)),
        key_bound: upstream.proof_of_possession == ProofOfPossession::X5t,
        seq: version.seq.as_u64(),
        classification: Some(pb::Classification {
            system: c.system.clone(),
            privilege: i32::from(c.privilege.tag()),
            blast_radius: i32::from(c.blast_radius.tag()),
        }),
        approvers: upstream.approvers.iter().map(approver_to_pb).collect(),
        min_ttl: seconds(upstream.ttl.min),
        default_ttl: seconds(upstream.ttl.default),
        algorithm: upstream.alg.as_str().to_owned(),
        settings: upstream.settings.iter().filter_map(|(kind, section)| settings_to_pb(kind, section)).collect(),
        author: version.by.as_ref().map(|by| super::identity_of_who(by)),
        at: super::timestamp_or_none(version.at),
        rotation: upstream.rotation.and_then(seconds),
        variable: variable_of(upstream),
        ..pb::Upstream::default()
    }
}

/// The environment variable that programs read the upstream's static secret from.
fn variable_of(upstream: &Upstream) -> String {
    mayfly_credential::secret::stored_settings(&upstream.settings).and_then(|s| s.variable).unwrap_or_default()
}

fn settings_to_pb(kind: &str, section: &serde_json::Value) -> Option<pb::KindSettings> {
    let kind = Kind::ALL.iter().find(|known| known.as_str() == kind)?;
    Some(pb::KindSettings { kind: i32::from(kind.tag()), json: section.to_string() })
}

fn approver_to_pb(approver: &Approver) -> pb::Approver {
    let who = match approver {
        Approver::SpiffeId(id) => pb::approver::Who::SpiffeId(id.to_string()),
        Approver::Person { issuer, subject } => {
            pb::approver::Who::Person(pb::Subject { issuer: issuer.clone(), sub: subject.clone() })
        }
    };
    pb::Approver { who: Some(who) }
}

/// A finding about a registration, for auditors.
pub fn finding_to_pb(finding: &UpstreamFinding) -> pb::RegistrationFinding {
    let problem = match finding.problem {
        FindingKind::Expiring => pb::RegistrationProblem::Expiring,
        FindingKind::Overdue => pb::RegistrationProblem::Overdue,
        FindingKind::Ownerless => pb::RegistrationProblem::Ownerless,
        FindingKind::Unused => pb::RegistrationProblem::Unused,
        FindingKind::Broad => pb::RegistrationProblem::Broad,
        FindingKind::SignIn => pb::RegistrationProblem::SignIn,
    };
    pb::RegistrationFinding { problem: problem.into(), text: finding.text.clone(), at: finding.at.map(timestamp) }
}

/// The registration that a message gives, or everything that is wrong with it. The message is converted to the file format and parsed by
/// the same rules.
pub fn upstream_from_pb(upstream: &pb::Upstream) -> Result<Upstream, Refusal> {
    let source = SourceFile::new("upstream", upstream_document(upstream)?);
    file::parse(&source, &READERS).map_err(|complaints| Refusal::fields(complaints.iter().flat_map(violations).collect()))
}

/// A registration message as TOML, the form that `mayfly upstream add` reads. Absent fields are left out.
pub fn upstream_document(upstream: &pb::Upstream) -> Result<String, Refusal> {
    let mut root = Table::new();
    let texts = [
        ("name", &upstream.upstream),
        ("owner", &upstream.owner),
        ("purpose", &upstream.purpose),
        ("environment", &upstream.environment),
        ("audience", &upstream.audience),
        ("target", &upstream.base_url),
    ];
    for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        put(&mut root, key, text.clone());
    }
    put(&mut root, "approvers", upstream.approvers.iter().map(approver).collect::<Result<Vec<_>, _>>()?);
    let kinds = upstream.kinds.iter().map(|k| kind(*k)).collect::<Result<Vec<_>, _>>()?;
    let lists = [
        ("servers", upstream.servers.iter().cloned().map(Value::from).collect::<Vec<_>>()),
        ("kinds", kinds),
        ("scopes", upstream.scopes.iter().map(scope).collect()),
    ];
    for (key, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        put(&mut root, key, list);
    }
    if let Some(at) = &upstream.expires_at {
        let at = millis(at).filter(|at| at.0.is_multiple_of(1000));
        let at = at.ok_or_else(|| Refusal::field("upstream.expires_at", "is no moment since 1970 in whole seconds"))?;
        put(&mut root, "expires", at.to_string());
    }
    if let Some(c) = &upstream.classification {
        put(&mut root, "classification", classification(c)?);
    }
    let ttl = ttl(upstream)?;
    if !ttl.is_empty() {
        put(&mut root, "ttl", ttl);
    }
    if let Some(ms) = exchange_request::duration("upstream.rotation", upstream.rotation.as_ref())? {
        put(&mut root, "rotation", duration_text(ms));
    }
    let mut jwt = Table::new();
    if !upstream.algorithm.is_empty() && upstream.kinds.contains(&i32::from(Kind::Jwt.tag())) {
        put(&mut jwt, "alg", upstream.algorithm.clone());
    }
    if upstream.key_bound {
        put(&mut jwt, "proof_of_possession", "x5t");
    }
    if !jwt.is_empty() {
        put(&mut root, "jwt", jwt);
    }
    for settings in &upstream.settings {
        let Value::String(kind) = kind(settings.kind)? else { continue };
        put(&mut root, &kind, section(&settings.json)?);
    }
    toml::to_string(&root).map_err(|e| Refusal::field("upstream", e))
}

/// The section of a kind, from JSON.
fn section(json: &str) -> Result<Table, Refusal> {
    let wrong = |what: &dyn std::fmt::Display| Refusal::field("upstream.settings", format!("is no section: {what}"));
    if json.len() > limits::UPSTREAM_FILE_BYTES {
        return Err(wrong(&format!("it has {} bytes", json.len())));
    }
    let section: serde_json::Value = serde_json::from_str(json).map_err(|e| wrong(&e))?;
    match Value::try_from(section).map_err(|e| wrong(&e))? {
        Value::Table(section) => Ok(section),
        _ => Err(wrong(&"it must be a JSON object")),
    }
}

fn put(table: &mut Table, key: &str, value: impl Into<Value>) {
    table.insert(key.to_owned(), value.into());
}

fn approver(approver: &pb::Approver) -> Result<Value, Refusal> {
    match &approver.who {
        Some(pb::approver::Who::SpiffeId(id)) => Ok(Value::from(id.clone())),
        Some(pb::approver::Who::Person(p)) => {
            let mut person = Table::new();
            put(&mut person, "issuer", p.issuer.clone());
            put(&mut person, "subject", p.sub.clone());
            Ok(Value::from(person))
        }
        None => Err(Refusal::field("upstream.approvers", "has an empty entry: give spiffe_id or person")),
    }
}

fn kind(number: i32) -> Result<Value, Refusal> {
    let known = u8::try_from(number).ok().and_then(Kind::from_tag);
    let known = known.ok_or_else(|| Refusal::field("upstream.kinds", format!("{number} is no kind of this version")))?;
    Ok(Value::from(known.as_str()))
}

fn scope(scope: &pb::UpstreamScope) -> Value {
    if !scope.sensitive {
        return Value::from(scope.scope.clone());
    }
    let mut section = Table::new();
    put(&mut section, "name", scope.scope.clone());
    put(&mut section, "sensitive", true);
    Value::from(section)
}

fn classification(c: &pb::Classification) -> Result<Table, Refusal> {
    let mut section = Table::new();
    if !c.system.is_empty() {
        put(&mut section, "system", c.system.clone());
    }
    let privilege = match pb::Privilege::try_from(c.privilege) {
        Ok(pb::Privilege::Unspecified) => None,
        Ok(pb::Privilege::Read) => Some("read"),
        Ok(pb::Privilege::Write) => Some("write"),
        Ok(pb::Privilege::Admin) => Some("admin"),
        Err(_) => return Err(Refusal::field("upstream.classification.privilege", format!("{} is none", c.privilege))),
    };
    let radius = match pb::BlastRadius::try_from(c.blast_radius) {
        Ok(pb::BlastRadius::Unspecified) => None,
        Ok(pb::BlastRadius::Low) => Some("low"),
        Ok(pb::BlastRadius::Medium) => Some("medium"),
        Ok(pb::BlastRadius::High) => Some("high"),
        Err(_) => return Err(Refusal::field("upstream.classification.blast_radius", format!("{} is none", c.blast_radius))),
    };
    privilege.into_iter().for_each(|p| put(&mut section, "privilege", p));
    radius.into_iter().for_each(|r| put(&mut section, "blast_radius", r));
    Ok(section)
}

fn ttl(upstream: &pb::Upstream) -> Result<Table, Refusal> {
    let mut section = Table::new();
    let bounds = [
        ("min", "upstream.min_ttl", &upstream.min_ttl),
        ("default", "upstream.default_ttl", &upstream.default_ttl),
        ("max", "upstream.max_ttl", &upstream.max_ttl),
    ];
    for (key, field, bound) in bounds {
        let Some(ms) = exchange_request::duration(field, bound.as_ref())? else { continue };
        put(&mut section, key, duration_text(ms));
    }
    Ok(section)
}

/// The defects, by field of the message.
fn violations(complaint: &Diagnostic) -> Vec<(String, String)> {
    let lacks = complaint.keys.len() > 1 || complaint.what.starts_with("lacks ");
    let what = if lacks { "is missing".to_owned() } else { format!("{}; {}", complaint.what, complaint.remedy) };
    let keys = complaint.keys.iter().map(|key| (field_of(key), what.clone())).collect::<Vec<_>>();
    if keys.is_empty() { vec![("upstream".to_owned(), complaint.what.clone())] } else { keys }
}

fn field_of(key: &str) -> String {
    let section = key.split(['.', '[']).next().unwrap_or(key);
    if READERS.iter().any(|reader| reader.kind.as_str() == section) {
        return format!("upstream.settings.{key}");
    }
    let (base, rest) = key.split_at(key.find('[').unwrap_or(key.len()));
    let base = match base {
        "name" => "upstream",
        "target" => "base_url",
        "expires" => "expires_at",
        "ttl.min" | "ttl" => "min_ttl",
        "ttl.default" => "default_ttl",
        "ttl.max" => "max_ttl",
        "jwt.alg" => "algorithm",
        "jwt.proof_of_possession" | "jwt" => "key_bound",
        same => same,
    };
    format!("upstream.{base}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_verify::seq::{Millis, Seq};

    fn registered() -> Upstream {
        let text = include_str!("../../cli/samples/upstreams/repos.toml");
        file::parse(&SourceFile::new("repos.toml", text), &READERS).unwrap()
    }

    fn version(upstream: &Upstream) -> DocumentVersion {
        DocumentVersion {
            version: 3,
            digest: upstream.digest(),
            text: upstream.to_text().into(),
            active: true,
            retired: false,
            seq: Seq::ZERO,
            at: Millis(5),
            by: None,
            claims: None,
            owner_left: false,
            due_told: false,
            narrows: None,
        }
    }

    #[test]
    fn a_registration_comes_back_as_it_went() {
        let mut upstream = registered();
        upstream.approvers.push(Approver::Person { issuer: "https://idp.example".into(), subject: "ada \"l\"".into() });
        upstream.proof_of_possession = ProofOfPossession::X5t;
        let sent = upstream_to_pb(&upstream, &version(&upstream));
        assert_eq!(upstream_from_pb(&sent).unwrap(), upstream);
        let only_reference = Upstream { kinds: vec![Kind::Reference], proof_of_possession: ProofOfPossession::None, ..upstream };
        let sent = upstream_to_pb(&only_reference, &version(&only_reference));
        assert_eq!(upstream_from_pb(&sent).unwrap(), only_reference);
    }

    #[test]
    fn all_that_is_missing_is_named_at_once_by_its_field() {
        let sent = pb::Upstream { upstream: "x".into(), ..pb::Upstream::default() };
        let no = upstream_from_pb(&sent).unwrap_err();
        let fields: Vec<&str> = no.wrong().map(|(f, _)| f).collect();
        for field in ["owner", "purpose", "environment", "audience", "base_url", "servers", "kinds", "scopes", "expires_at"] {
            assert!(fields.contains(&format!("upstream.{field}").as_str()), "{field}: {fields:?}");
        }
        assert!(fields.contains(&"upstream.classification") && fields.contains(&"upstream.min_ttl"), "{fields:?}");
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        let upstream = registered();
        let good = upstream_to_pb(&upstream, &version(&upstream));
        let with = |change: fn(&mut pb::Upstream)| {
            let mut sent = good.clone();
            change(&mut sent);
            upstream_from_pb(&sent).unwrap_err()
        };
        let field = |no: Refusal| no.wrong().map(|(f, _)| f.to_owned()).collect::<Vec<_>>();
        assert_eq!(field(with(|u| u.base_url = "https://x?y".into())), ["upstream.base_url"]);
        assert_eq!(field(with(|u| u.scopes[1].scope = "a b".into())), ["upstream.scopes[1]"]);
        assert_eq!(field(with(|u| u.servers.push("spiffe://".into()))), ["upstream.servers[1]"]);
        assert_eq!(field(with(|u| u.max_ttl = Some(super::super::duration(1)))), ["upstream.max_ttl"]);
        assert_eq!(field(with(|u| u.kinds.push(99))), ["upstream.kinds"]);
        assert_eq!(field(with(|u| u.classification.as_mut().unwrap().privilege = 77)), ["upstream.classification.privilege"]);
        assert_eq!(field(with(|u| u.owner = "a\nb".into())), ["upstream.owner"]);
    }
}
