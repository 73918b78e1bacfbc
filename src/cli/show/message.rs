//! The JSON of a message: its fields, read by the descriptor that the server's reflection serves as well.
//!
//! A key is the name of its field. [`SHAPES`] and [`rule`] name everything that differs: the order of the keys, other names, and values that
//! are derived. A field that is marked `debug_redact` is left out unless its rule says [`Rule::InClear`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use prost_reflect::prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, ReflectMessage as _, Value};

use super::{hex, load, ms, time, upstream};
use crate::out::tree::OrderedJson;
use crate::targets;
use mayfly_base::document::with_key;
use mayfly_proto::mayfly::v1 as pb;

/// The messages. Both the descriptors and the messages come from one build, so that every message has its descriptor.
static MESSAGES: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(mayfly_proto::FILE_DESCRIPTOR_SET).unwrap_or_default());

/// The fields that are marked `debug_redact`.
static REDACTED: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let marked = |f: &FieldDescriptor| f.options().get_field_by_name("debug_redact").is_some_and(|v| v.as_bool() == Some(true));
    let fields = MESSAGES.all_messages().flat_map(|m| m.fields().collect::<Vec<_>>());
    fields.filter(marked).map(|f| f.full_name().to_owned()).collect()
});

/// The package of the messages.
const PACKAGE: &str = "mayfly.v1.";

/// The keys of a message, in the order in which they are printed. `*` stands for all others, in the order of the fields; a message without
/// it shows these keys only. A message that is not listed shows all.
const SHAPES: &[(&str, &str)] = &[
    ("AddLockResponse", "seq hits *"),
    (
        "Approval",
        "approval_id state of caller subject upstream environment scopes kind access tool purpose arguments_json arguments_sha256 ttl_ms task_path \
         opens_task task approvers asked_at expires_at decided_by decided_at reason governs asked_because request_sha256 seq",
    ),
    (
        "ApprovalTask",
        "purpose owner upstreams tools any_tool kinds callers key_bound parent_task_id ttl_ms max_ttl_ms heartbeat_interval_ms deadline *",
    ),
    ("Binding", "binding version environment upstream callers callers_under tools any_tool scopes author at *"),
    ("BlastRadiusResponse", "hits made_elsewhere last_ends_at *"),
    (
        "BreakGlass",
        "task_id state rights environment people reasons upstreams live_credentials issued_credentials opened_at join_by deadline ended_at \
         unreviewed reviewer reviewed_at review",
    ),
    (
        "Counts",
        "credentials tasks held_tasks callers rules locks followers stale_followers followers_beyond leases leases_failing \
         secrets_to_rotate secret_rotations_failing connections upstreams trust_domains request_ids",
    ),
    (
        "Credential",
        "credential_id kind state caller subject act upstream scopes tool purpose arguments_sha256 authorization_details task_id task_path \
         environment binding key_binding issued_at expires_at ancestors svid subject_token signing_key status_list approval_id irrevocable \
         upstream_state *",
    ),
    ("DiffPolicyResponse", "decisions newly_refused newly_permitted undetermined reached *"),
    ("ExplainPolicyResponse", "outcome text *"),
    ("Finding", "subject permits *"),
    ("Follower", "follower identity connected applied_seq sent_seq last_seen *"),
    (
        "GetStatusResponse",
        "version issuing not_issuing_reason not_issuing_message started_at uptime_ms certificate_not_after identity environments \
         environments_not_served own_trust_domain ledger clock disk counts load *",
    ),
    (
        "Issued",
        "credential_id task_id kind upstream scopes issued_at expires_at bound bound_by renewable_until irrevocable upstream_ends_at \
         novelty approval_id *",
    ),
    ("Key", "key_id purpose state issuer environment algorithm created_at active_from verifies_until *"),
    ("Lease", "lease_id state upstream what credential_id *"),
    (
        "LedgerStatus",
        "engine generation durable_seq appended_seq writer commit header_sha256 snapshot_seq oldest_seq verified_seq oldest_commit kept_bytes \
         longest_fold_us longest_fold_cpu_us longest_fold_at *",
    ),
    ("LookupTokenResponse", "standing signing_key base_url derived_credentials *"),
    ("PersonLogin", "spiffe_id amr acr auth_time credential"),
    ("PolicySet", "environment mode version files author *"),
    ("Record", "seq at event author void_because group *"),
    ("RetireKeyResponse", "hits *"),
    ("RevokeResponse", "seq hits *"),
    ("SetBundleResponse", "hits added removed seq *"),
    ("RemoveTrustAnchorResponse", "hits seq connections *"),
    (
        "Task",
        "task_id state purpose environment owner opener upstreams tools any_tool kinds callers key_bound path depth opened_at deadline \
         max_deadline heartbeat_interval_ms heartbeat_due holds live_credentials issued_credentials open_children seq decision_revision \
         approval_id end",
    ),
    ("TrustAnchor", "sha256 subject not_after vouches_for"),
    (
        "Upstream",
        "upstream state environment version owner purpose system privilege blast_radius audience base_url kinds scopes sensitive_scopes \
         servers approvers min_ttl_ms default_ttl_ms max_ttl_ms expires_at key_bound algorithm author at seq live_credentials last_used_at *",
    ),
    ("ValidatePolicyResponse", "policies *"),
    ("WaitForRevocationResponse", "applied behind_count registered *"),
    ("WhoamiResponse", "identity environment operator operates roles serves *"),
];

/// How the JSON of a field differs from its descriptor.
enum Rule {
    /// The JSON does not differ.
    Plain,
    /// The field is shown although it is marked `debug_redact`.
    InClear,
    /// The key is another one.
    Named(&'static str),
    /// The fields of the message stand among those around it, which replace fields of the same name; all are null if `true` and the
    /// message is absent.
    Inline(bool),
    /// An absent message is shown with its defaults.
    Whole,
    /// 0 is shown as null.
    NoZero,
    /// An absent value, and 0, is left out.
    IfThere,
    /// The value is derived.
    Made(fn(&Value) -> OrderedJson),
    /// Another key follows, with a value that is derived.
    Also(&'static str, fn(&Value) -> OrderedJson),
}

/// The fields for which something differs. The field `hits` of every other message is [`Rule::Whole`].
const RULES: &[(&str, Rule)] = &[
    ("Approval.arguments_json", Rule::InClear),
    ("Approval.task", Rule::IfThere),
    ("ApprovalTask.terms", Rule::Inline(false)),
    ("ApprovalTask.upstreams", Rule::Named("asked_for")),
    ("BreakGlass.task", Rule::Inline(false)),
    ("CompromiseKeyResponse.replacement", Rule::IfThere),
    ("CompromiseKeyResponse.seq", Rule::IfThere),
    ("Credential.ended_by_seq", Rule::NoZero),
    ("Credential.status", Rule::Named("status_list")),
    ("Finding.seq", Rule::NoZero),
    ("GetStatusResponse.clock", Rule::Whole),
    ("GetStatusResponse.counts", Rule::Whole),
    ("GetStatusResponse.issuing", Rule::Inline(false)),
    ("GetStatusResponse.ledger", Rule::Whole),
    ("Issuing.message", Rule::Named("not_issuing_message")),
    ("Issuing.reason", Rule::Named("not_issuing_reason")),
    ("KindSettings.json", Rule::Made(parsed)),
    ("LedgerStatus.exported_seq", Rule::NoZero),
    ("OffboardResponse.seq", Rule::NoZero),
    ("PersonLogin.credential_id", Rule::Named("credential")),
    ("PolicySet.audited", Rule::Inline(true)),
    ("PolicySet.files", Rule::Whole),
    ("Record.body", Rule::Made(parsed)),
    ("Record.group", Rule::NoZero),
    ("RemoveTrustAnchorResponse.seq", Rule::NoZero),
    ("RemoveTrustDomainResponse.seq", Rule::NoZero),
    ("RetireKeyResponse.key", Rule::IfThere),
    ("ReturnOwnerResponse.seq", Rule::NoZero),
    ("RevokeResponse.seq", Rule::NoZero),
    // Hits are counted only if the request asks for them.
    ("Rule.hits", Rule::Plain),
    ("SetBundleResponse.seq", Rule::NoZero),
    ("Task.terms", Rule::Inline(false)),
    ("TrustAnchor.vouches_for", Rule::Whole),
    ("Upstream.classification", Rule::Inline(false)),
    ("Upstream.scopes", Rule::Also("sensitive_scopes", sensitive)),
    ("Upstream.settings", Rule::IfThere),
    ("WaitForRevocationResponse.followers", Rule::Named("registered")),
    ("WatchCredentialsResponse.credential", Rule::IfThere),
    ("WhoamiResponse.operates", Rule::Made(operates)),
    ("WhoamiResponse.person", Rule::IfThere),
];

fn rule(field: &str) -> &'static Rule {
    let own = RULES.iter().find(|(name, _)| *name == field).map(|(_, rule)| rule);
    own.unwrap_or(if field.ends_with(".hits") { &Rule::Whole } else { &Rule::Plain })
}

/// The JSON of a message.
pub fn json<M: Message + Name>(message: &M) -> OrderedJson {
    let of = MESSAGES.get_message_by_name(&M::full_name());
    let read = of.map(|of| DynamicMessage::decode(of, message.encode_to_vec().as_slice()));
    read.and_then(Result::ok).map_or(OrderedJson::Null, |message| whole(&message))
}

fn typed<M: Message + Default>(message: &DynamicMessage) -> M {
    message.transcode_to().unwrap_or_default()
}

fn own_name(full_name: &str) -> &str {
    full_name.strip_prefix(PACKAGE).unwrap_or(full_name)
}

/// The JSON of a message: that of its type, or its fields.
fn whole(message: &DynamicMessage) -> OrderedJson {
    let of = message.descriptor();
    match own_name(of.full_name()) {
        "google.protobuf.Timestamp" => time(Some(typed(message))).into(),
        "google.protobuf.Duration" => ms(Some(typed(message))).into(),
        "Approver" => upstream::approver(typed(message)).into(),
        "BlastSort" => blast_sort(message),
        "FieldViolation" => {
            let pb::FieldViolation { field, description } = typed(message);
            with_key(&field, &description).into()
        }
        "KeyBinding" => key_binding(typed(message)),
        "LoadStatus" => load::json(&typed(message)),
        "PolicyFiles" => {
            let files: pb::PolicyFiles = typed(message);
            OrderedJson::List(files.policies.iter().chain(&files.roles).map(json).collect())
        }
        "Target" => targets::json(&typed(message)),
        "UpstreamScope" => typed::<pb::UpstreamScope>(message).scope.into(),
        // A message that is one of several, and none of them.
        _ if message.fields().next().is_none() && of.oneofs().any(|o| o.fields().len() == of.fields().len()) => OrderedJson::Null,
        _ => OrderedJson::Map(fields(message)),
    }
}

/// The keys of a message, each field by its rule.
fn fields(message: &DynamicMessage) -> Vec<(String, OrderedJson)> {
    let mut all = OrderedJson::Map(Vec::new());
    for field in message.descriptor().fields() {
        let there = message.has_field(&field);
        let rule = rule(own_name(field.full_name()));
        let one_of_several = field.containing_oneof().is_some_and(|o| !o.is_synthetic());
        let hidden = REDACTED.contains(field.full_name()) && !matches!(rule, Rule::InClear);
        if hidden || !there && (one_of_several || matches!(rule, Rule::IfThere)) {
            continue;
        }
        let (value, kind) = (message.get_field(&field), field.kind());
        let duration = kind.as_message().is_some_and(|m| m.full_name() == "google.protobuf.Duration");
        let key = if duration { format!("{}_ms", field.name()) } else { field.name().to_owned() };
        let present = || if there || !field.supports_presence() { of_value(&value, &kind) } else { OrderedJson::Null };
        match rule {
            Rule::Plain | Rule::InClear | Rule::IfThere => all.set(&key, present()),
            Rule::Named(other) => all.set(other, present()),
            Rule::Whole => all.set(&key, of_value(&value, &kind)),
            Rule::NoZero => all.set(&key, if there { present() } else { OrderedJson::Null }),
            Rule::Made(made) => all.set(&key, made(&value)),
            Rule::Also(other, made) => {
                all.set(&key, present());
                all.set(other, made(&value));
            }
            Rule::Inline(null) => {
                for (key, value) in value.as_message().map(fields).unwrap_or_default() {
                    all.set(&key, if *null && !there { OrderedJson::Null } else { value });
                }
            }
        }
    }
    in_order(own_name(message.descriptor().full_name()), all)
}

/// Puts the keys of a message in the order of its shape.
fn in_order(of: &str, all: OrderedJson) -> Vec<(String, OrderedJson)> {
    let OrderedJson::Map(mut all) = all else { return Vec::new() };
    let Some((_, shape)) = SHAPES.iter().find(|(name, _)| *name == of) else { return all };
    let place = |key: &str| shape.split_whitespace().position(|listed| listed == key);
    if !shape.ends_with('*') {
        all.retain(|(key, _)| place(key).is_some());
    }
    all.sort_by_key(|(key, _)| place(key).unwrap_or(usize::MAX));
    all
}

fn of_value(value: &Value, kind: &Kind) -> OrderedJson {
    match value {
        Value::Bool(value) => (*value).into(),
        Value::I32(n) => i64::from(*n).into(),
        Value::I64(n) => (*n).into(),
        Value::U32(n) => u64::from(*n).into(),
        Value::U64(n) => (*n).into(),
        Value::String(text) => text.clone().into(),
        Value::Bytes(bytes) => hex(bytes).into(),
        Value::EnumNumber(number) => word(kind, *number).into(),
        Value::Message(message) => whole(message),
        Value::List(list) => OrderedJson::List(list.iter().map(|value| of_value(value, kind)).collect()),
        // The contract has none: a test looks.
        Value::F32(_) | Value::F64(_) | Value::Map(_) => OrderedJson::Null,
    }
}

/// The word of an enum value: its name without the prefix, in lower case. The prefix is that of the value 0.
fn word(kind: &Kind, number: i32) -> String {
    let named = || {
        let of = kind.as_enum()?;
        let prefix = of.get_value(0)?.name().strip_suffix("UNSPECIFIED")?.to_owned();
        Some(of.get_value(number)?.name().strip_prefix(&*prefix)?.to_ascii_lowercase())
    };
    named().unwrap_or_else(|| format!("unknown_{number}"))
}

fn key_binding(binding: pb::KeyBinding) -> OrderedJson {
    match binding.key {
        Some(pb::key_binding::Key::CallerSvid(_)) => "svid".into(),
        Some(pb::key_binding::Key::JwkThumbprint(thumbprint)) => format!("jkt {}", hex(&thumbprint)).into(),
        None => OrderedJson::Null,
    }
}

/// The hits of one kind, each of which names the kind.
fn blast_sort(sort: &DynamicMessage) -> OrderedJson {
    let pb::BlastSort { of, count, items } = typed(sort);
    let kind = sort.descriptor().get_field_by_name("of").map(|field| field.kind());
    let of = || kind.as_ref().map(|kind| word(kind, of)).into();
    let item =
        |i: pb::BlastItem| OrderedJson::map([("of", of()), ("name", i.name.into()), ("credentials", i.credentials.into())]);
    let items = items.into_iter().map(item).collect();
    OrderedJson::map([("of", of()), ("count", count.into()), ("items", OrderedJson::List(items))])
}

fn messages<M: Message + Default>(list: &Value) -> impl Iterator<Item = M> {
    list.as_list().unwrap_or_default().iter().filter_map(Value::as_message).map(typed)
}

/// The scopes of an upstream that are sensitive.
fn sensitive(scopes: &Value) -> OrderedJson {
    OrderedJson::List(messages(scopes).filter(|s: &pb::UpstreamScope| s.sensitive).map(|s| s.scope.into()).collect())
}

/// The environments that a caller operates, each with the actions that policy permits there.
fn operates(value: &Value) -> OrderedJson {
    let all = messages(value).map(|o: pb::OperatedEnvironment| (o.environment, o.actions));
    OrderedJson::Map(all.collect::<BTreeMap<_, _>>().into_iter().map(|(name, actions)| (name, actions.into())).collect())
}

/// The JSON in a text; the text itself if it is none.
fn parsed(text: &Value) -> OrderedJson {
    let text = text.as_str().unwrap_or_default();
    let json: Result<serde_json::Value, _> = serde_json::from_str(text);
    json.ok().and_then(|json| OrderedJson::of(&json).ok()).unwrap_or_else(|| text.into())
}

#[cfg(test)]
mod tests {
    use prost_reflect::MessageDescriptor;

    use super::*;
    use crate::out::{Printable as _, Row};
    use crate::show::Shown;

    #[test]
    fn a_word_that_is_not_known_is_shown_by_its_number() {
        let state = |state| json(&pb::Task { state, ..Default::default() }).text_at("state");
        assert_eq!((&*state(1), &*state(0), &*state(99)), ("pending_approval", "unspecified", "unknown_99"));
    }

    #[test]
    fn what_is_redacted_in_logs_is_not_shown_either() {
        let token = pb::BearerToken { token: "s3cr3t".to_owned(), ..Default::default() };
        let issued = pb::Issued { answer: Some(pb::issued::Answer::BearerToken(token)), ..Default::default() };
        let shown = serde_json::to_string(&json(&issued)).unwrap();
        assert!(shown.contains("bearer_token") && !shown.contains("s3cr3t"), "{shown}");
        assert_eq!(json(&pb::Approval { arguments_json: "{}".to_owned(), ..Default::default() }).text_at("arguments_json"), "{}");
    }

    /// Every field has a value that is not its default; of several, the first. Each message's own fields come before those of others.
    fn filled(of: &MessageDescriptor) -> DynamicMessage {
        let mut message = DynamicMessage::new(of.clone());
        for field in of.fields().filter(|f| f.containing_oneof().is_none_or(|o| o.fields().next().as_ref() == Some(f))) {
            let value = match field.kind() {
                Kind::Bool => Value::Bool(true),
                Kind::Int32 => Value::I32(1),
                Kind::Int64 => Value::I64(1_795_161_600),
                Kind::Uint32 => Value::U32(1),
                Kind::Uint64 => Value::U64(1),
                Kind::Bytes => Value::Bytes(vec![1].into()),
                Kind::Enum(_) => Value::EnumNumber(1),
                Kind::Message(inner) => Value::Message(filled(&inner)),
                _ => Value::String(field.name().to_owned()),
            };
            message.set_field(&field, if field.is_list() { Value::List(vec![value]) } else { value });
        }
        message
    }

    fn ours(name: &str) -> MessageDescriptor {
        MESSAGES.get_message_by_name(&format!("{PACKAGE}{name}")).unwrap_or_else(|| panic!("there is no message {name}"))
    }

    #[test]
    fn shapes_and_rules_name_what_there_is() {
        for (message, shape) in SHAPES {
            let json = whole(&filled(&ours(message)));
            for key in shape.split_whitespace().filter(|key| *key != "*") {
                assert!(!json.at(key).is_empty(), "{message} has no key {key}");
            }
        }
        for (field, _) in RULES {
            let (message, name) = field.split_once('.').unwrap();
            assert!(ours(message).get_field_by_name(name).is_some(), "{field}");
        }
        let fields =
            MESSAGES.all_messages().filter(|m| m.full_name().starts_with(PACKAGE)).flat_map(|m| m.fields().collect::<Vec<_>>());
        assert!(fields.into_iter().all(|f| !f.is_map() && !matches!(f.kind(), Kind::Float | Kind::Double)));
    }

    #[test]
    fn every_column_of_a_message_has_a_value() {
        fn look<M: Message + Name + Default>()
        where
            Shown<M>: Row,
        {
            let row: Shown<M> = Shown(typed(&filled(&MESSAGES.get_message_by_name(&M::full_name()).unwrap())));
            let columns = [Shown::<M>::COLUMNS, Shown::<M>::WIDE].concat();
            let cells = row.cells();
            assert_eq!(cells.len(), columns.len());
            let empty: Vec<_> = columns.iter().zip(&cells).filter(|(_, cell)| *cell == "-").collect();
            assert!(empty.is_empty() && !row.name().is_empty(), "{}: {empty:?}", M::NAME);
        }
        look::<pb::Approval>();
        look::<pb::Binding>();
        look::<pb::BreakGlass>();
        look::<pb::Credential>();
        look::<pb::DecisionDiff>();
        look::<pb::Finding>();
        look::<pb::Follower>();
        look::<pb::Key>();
        look::<pb::Lease>();
        look::<pb::Lock>();
        look::<pb::Record>();
        look::<pb::Rule>();
        look::<pb::TargetHits>();
        look::<pb::TrustDomain>();
        look::<pb::Upstream>();
        look::<pb::Webhook>();
        // The one element of its path is the task itself, which has no parent.
        let task = typed::<pb::Task>(&filled(&ours("Task")));
        let cells = Shown(pb::Task { path: vec!["parent".to_owned(), "own".to_owned()], ..task }).cells();
        assert!(!cells.contains(&"-".to_owned()), "{cells:?}");
    }
}
