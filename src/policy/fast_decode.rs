//! A fast decoder for the most common form of `pb::ExchangeRequest`: it reads a [`ExchangeRequest`] directly from the message's bytes.
//!
//! The reader takes only messages that are well formed and encoded exactly as prost would encode them. For every other message it returns
//! `None`, and the caller uses prost and [`ExchangeRequest::take`]; those alone define what is accepted and which error is returned.
//! Because the encoding is prost's own, the request digest is the digest of the received bytes.

use std::sync::Arc;

use super::exchange_request::{Digest, ExchangeRequest, RequestedKeyBinding, TaskChoice, checked, duration, kind};
use mayfly_base::limits;
use mayfly_base::trace::CallTrace;
use mayfly_ledger::commit::sha256;
use mayfly_ledger::upstream::registry::Kind;
use mayfly_proto::protobuf::Fields;
use mayfly_verify::seq::TaskId;

// Tags of `ExchangeRequest` and of its submessages. The protos are frozen, so the tags cannot change.
const TASK_ID: u8 = 1;
const UPSTREAM: u8 = 3;
const SCOPES: u8 = 4;
const KIND: u8 = 5;
const TTL: u8 = 6;
const TOOL: u8 = 7;
const PURPOSE: u8 = 8;
const ARGUMENTS: u8 = 9;
const REQUEST_ID: u8 = 10;
const KEY_BINDING: u8 = 11;
const SECONDS: u8 = 1;
const NANOS: u8 = 2;
const SHA256: u8 = 2;
const CALLER_SVID: u8 = 1;
const JWK_THUMBPRINT: u8 = 2;

/// Reads consecutive exchanges of one caller. These mostly begin with the same bytes, so the parsed beginning is reused.
#[derive(Default)]
pub struct ExchangeDecoder {
    /// The bytes that `begins` was read from.
    bytes: Vec<u8>,
    begins: Option<DecodedFields>,
}

/// The decoded fields of an `ExchangeRequest` whose field numbers are at most [`TTL`], the fields that consecutive requests mostly share.
#[derive(Clone)]
struct DecodedFields {
    task: TaskId,
    upstream: Arc<str>,
    scopes: Arc<[String]>,
    kind: Option<Kind>,
    ttl_ms: Option<u64>,
}

impl ExchangeDecoder {
    /// Reads one `ExchangeRequest`; `None` where the slow path must decode it.
    pub fn read(&mut self, message: &[u8]) -> Option<ExchangeRequest> {
        if let Some(begins) = &self.begins
            && let Some(rest) = message.strip_prefix(&*self.bytes)
            && rest.first().is_none_or(|key| key >> 3 > TTL)
        {
            return own(message, Fields::of(rest), begins.clone());
        }
        let mut fields = Fields::of(message);
        let begins = begins(&mut fields)?;
        let length = message.len() - fields.rest().len();
        self.bytes.clear();
        self.bytes.extend_from_slice(message.get(..length)?);
        self.begins = Some(begins.clone());
        own(message, fields, begins)
    }
}

/// The upstream and the request id that an `ExchangeRequest` in an open task names, if they can be found without decoding the other fields.
/// The message may be one that [`read`] does not accept.
pub fn names(message: &[u8]) -> Option<(&str, &str)> {
    let mut fields = Fields::of(message);
    fields.delimited(TASK_ID)?;
    let upstream = fields.text(UPSTREAM)?;
    while !fields.delimited(SCOPES)?.is_empty() {}
    fields.number(KIND)?;
    for tag in [TTL, TOOL, PURPOSE, ARGUMENTS] {
        fields.delimited(tag)?;
    }
    let request_id = checked("request_id", fields.text(REQUEST_ID)?, limits::REQUEST_ID_BYTES).ok()?;
    (!request_id.is_empty()).then_some((upstream, request_id))
}

/// Reads one `ExchangeRequest`; `None` where the slow path must decode it.
pub fn read(message: &[u8]) -> Option<ExchangeRequest> {
    let mut fields = Fields::of(message);
    let begins = begins(&mut fields)?;
    own(message, fields, begins)
}

fn begins(fields: &mut Fields<'_>) -> Option<DecodedFields> {
    let task = fields.text(TASK_ID)?.parse().ok()?;
    let upstream = name(fields.text(UPSTREAM)?)?;
    let mut scopes = Vec::with_capacity(1);
    loop {
        match fields.text(SCOPES)? {
            "" => break,
            // One scope too many: the slow path refuses the message.
            _ if scopes.len() == limits::SCOPES => return None,
            scope => scopes.push(name(scope)?),
        }
    }
    if scopes.is_empty() {
        return None;
    }
    scopes.sort_unstable();
    scopes.dedup();
    let kind = kind("kind", i32::try_from(fields.number(KIND)?).ok()?).ok()?;
    let ttl_ms = match fields.delimited(TTL)? {
        [] => None,
        ttl => {
            let mut ttl = Fields::of(ttl);
            let (seconds, nanos) = (ttl.number(SECONDS)?.try_into().ok()?, ttl.number(NANOS)?.try_into().ok()?);
            ttl.end()?;
            duration("ttl", Some(&prost_types::Duration { seconds, nanos })).ok()?
        }
    };
    let scopes = scopes.into_iter().map(str::to_owned).collect();
    Some(DecodedFields { task, upstream: upstream.into(), scopes, kind, ttl_ms })
}

/// Reads the fields after [`TTL`] and completes the request.
fn own(message: &[u8], mut fields: Fields<'_>, begins: DecodedFields) -> Option<ExchangeRequest> {
    let tool = checked("tool", fields.text(TOOL)?, limits::NAME_BYTES).ok()?;
    let purpose = checked("purpose", fields.text(PURPOSE)?, limits::PURPOSE_BYTES).ok()?;
    let arguments = match fields.delimited(ARGUMENTS)? {
        [] => None,
        arguments => Some(digest(Fields::of(arguments), SHA256)?),
    };
    let request_id = checked("request_id", fields.text(REQUEST_ID)?, limits::REQUEST_ID_BYTES).ok()?;
    let key = match fields.delimited(KEY_BINDING)? {
        [] => RequestedKeyBinding::Unasked,
        // `caller_svid` is an empty message. It is the only empty submessage that is encoded explicitly.
        [key, 0] if *key == CALLER_SVID << 3 | 2 => RequestedKeyBinding::CallerSvid,
        thumbprint => RequestedKeyBinding::Thumbprint(digest(Fields::of(thumbprint), JWK_THUMBPRINT)?),
    };
    fields.end()?;
    let DecodedFields { task, upstream, scopes, kind, ttl_ms } = begins;
    let named = !request_id.is_empty();
    Some(ExchangeRequest {
        details: None,
        task: TaskChoice::Named(task),
        upstream,
        scopes,
        kind,
        ttl_ms,
        tool: tool.into(),
        purpose: purpose.into(),
        arguments,
        request_id: named.then(|| request_id.into()),
        digest: if named { sha256(message) } else { [0; 32] },
        key,
        certified: None,
        binding: None,
        renews: None,
        replaces: None,
        behalf: None,
        asking: None,
        traced: CallTrace::default(),
    })
}

fn name(value: &str) -> Option<&str> {
    checked("", value, limits::NAME_BYTES).ok().filter(|name| !name.is_empty())
}

/// The only field of a submessage, as a digest.
fn digest(mut fields: Fields<'_>, tag: u8) -> Option<Digest> {
    let digest = fields.delimited(tag)?.try_into().ok();
    fields.end()?;
    digest
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use mayfly_proto::mayfly::v1 as pb;
    use mayfly_proto::mayfly::v1::arguments::Arguments as Args;
    use mayfly_proto::mayfly::v1::exchange_request::Task;
    use mayfly_proto::mayfly::v1::key_binding::Key;

    fn well_formed() -> impl Strategy<Value = pb::ExchangeRequest> {
        let texts = ("[ -~\u{e9}]{1,40}", "[ -~]{0,40}", "[ -~\u{20ac}]{0,170}", "[ -~]{0,128}");
        let scopes = vec("[a-c:]{1,3}", 1..=8);
        let ttl = option::of((0..4_000_000_000i64, 0..1_000_000_000i32));
        (any::<[u8; 16]>(), texts, scopes, 0..4i32, ttl, any::<Option<[u8; 32]>>(), any::<Option<Option<[u8; 32]>>>()).prop_map(
            |(task, (upstream, tool, purpose, request_id), scopes, kind, ttl, arguments, key)| pb::ExchangeRequest {
                task: Some(Task::TaskId(TaskId::from_bytes(task).to_string())),
                upstream,
                scopes,
                kind,
                ttl: ttl.map(|(seconds, nanos)| prost_types::Duration { seconds: seconds + 1, nanos }),
                tool,
                purpose,
                arguments: arguments.map(|a| pb::Arguments { arguments: Some(Args::Sha256(a.to_vec().into())) }),
                request_id,
                key_binding: key.map(|key| pb::KeyBinding {
                    key: Some(key.map_or(Key::CallerSvid(pb::CallerSvid {}), |key| Key::JwkThumbprint(key.to_vec().into()))),
                }),
                ..pb::ExchangeRequest::default()
            },
        )
    }

    /// A message as a peer may send it; each field is well formed more often than not.
    fn any_ask() -> impl Strategy<Value = pb::ExchangeRequest> {
        let text = || prop_oneof![4 => "[ -~]{0,20}", 1 => ".{0,30}", 1 => "a{120,140}", 1 => "[a\u{e9}]{100,520}"];
        let bytes = || prop_oneof![4 => vec(any::<u8>(), 32), 1 => vec(any::<u8>(), 0..40)].prop_map(bytes::Bytes::from);
        let task = prop_oneof![
            6 => any::<[u8; 16]>().prop_map(|id| Some(Task::TaskId(TaskId::from_bytes(id).to_string()))),
            1 => "(task_)?[a-z]{0,27}".prop_map(|id| Some(Task::TaskId(id))),
            1 => Just(Some(Task::OpenTask(pb::TaskTerms::default()))),
            1 => Just(None),
        ];
        let ttl = option::of(prop_oneof![(1..4000i64, 0..1i32), any::<(i64, i32)>(), Just((0, 0))]);
        let arguments = option::of(option::of(prop_oneof![
            4 => bytes().prop_map(Args::Sha256),
            1 => "[{}\"a:1\\[\\]]{0,5}".prop_map(Args::Json),
        ]));
        let key =
            option::of(option::of(prop_oneof![Just(Key::CallerSvid(pb::CallerSvid {})), bytes().prop_map(Key::JwkThumbprint),]));
        let kind = prop_oneof![4 => Just(0), 2 => 0..12i32, 1 => any::<i32>()];
        let later = prop_oneof![9 => Just(String::new()), 1 => text()];
        let texts = (text(), text(), text(), text(), later);
        (task, texts, vec(text(), 0..10), kind, ttl, arguments, key).prop_map(
            |(task, (upstream, tool, purpose, request_id, binding), scopes, kind, ttl, arguments, key)| pb::ExchangeRequest {
                task,
                upstream,
                scopes,
                kind,
                ttl: ttl.map(|(seconds, nanos)| prost_types::Duration { seconds, nanos }),
                tool,
                purpose,
                arguments: arguments.map(|arguments| pb::Arguments { arguments }),
                request_id,
                key_binding: key.map(|key| pb::KeyBinding { key }),
                binding,
                ..pb::ExchangeRequest::default()
            },
        )
    }

    /// Asserts that a message which is read gives the same result as prost and [`ExchangeRequest::take`].
    fn agrees(message: &[u8]) -> Option<ExchangeRequest> {
        let found = names(message);
        if let (Some(names), Ok(ask)) = (found, pb::ExchangeRequest::decode(message)) {
            // Of a repeated singular field prost takes the last value. The fast decoder must not read such a message.
            assert!(names == (&*ask.upstream, &*ask.request_id) || read(message).is_none());
        }
        let want = read(message)?;
        assert_eq!(found.map(|(_, id)| id), want.request_id.as_deref());
        assert_eq!(Ok(&want), ExchangeRequest::from_pb(pb::ExchangeRequest::decode(message).unwrap()).as_ref());
        Some(want)
    }

    /// The encoded fields of a message, each with its key.
    fn fields_of(mut message: &[u8]) -> Vec<Vec<u8>> {
        let mut fields = Vec::new();
        while !message.is_empty() {
            let mut rest = message;
            let (tag, wire) = prost::encoding::decode_key(&mut rest).unwrap();
            prost::encoding::skip_field(wire, tag, &mut rest, Default::default()).unwrap();
            let (field, rest) = message.split_at(message.len() - rest.len());
            fields.push(field.to_vec());
            message = rest;
        }
        fields
    }

    proptest! {
        #[test]
        fn what_is_well_formed_is_read_at_once(ask in well_formed()) {
            prop_assert!(agrees(&ask.encode_to_vec()).is_some());
        }

        #[test]
        fn what_is_refused_is_left_to_others(ask in any_ask()) {
            let read = agrees(&ask.encode_to_vec());
            prop_assert!(read.is_none() || ExchangeRequest::from_pb(ask).is_ok());
        }

        #[test]
        fn neighbours_are_read_as_each_by_itself(asks in vec((well_formed(), any::<bool>(), any_ask()), 1..6)) {
            let mut reader = ExchangeDecoder::default();
            let mut before = pb::ExchangeRequest::default();
            for (own, alike, odd) in asks {
                let alike = pb::ExchangeRequest {
                    task: before.task.clone(),
                    upstream: before.upstream.clone(),
                    scopes: before.scopes.iter().chain(&own.scopes).take(before.scopes.len() + usize::from(alike)).cloned().collect(),
                    kind: before.kind,
                    ttl: before.ttl,
                    ..own.clone()
                };
                for ask in [&alike, &own, &odd, &pb::ExchangeRequest { tool: "t".into(), ..own.clone() }] {
                    let message = ask.encode_to_vec();
                    prop_assert_eq!(reader.read(&message), agrees(&message));
                }
                before = own;
            }
        }

        #[test]
        fn fields_in_another_order_or_form_are_left_to_others(
            ask in well_formed(),
            order in vec(any::<prop::sample::Index>(), 0..14),
            longer: Option<prop::sample::Index>,
        ) {
            let message = ask.encode_to_vec();
            let mut fields = fields_of(&message);
            agrees(&order.iter().flat_map(|n| n.get(&fields).clone()).collect::<Vec<_>>());
            if let Some(longer) = longer {
                // Lengthens the field's key, length or value by one redundant varint byte.
                let field = longer.get(&fields).clone();
                let n = longer.index(fields.len());
                for at in 0..field.len().min(3) {
                    let mut field = field.clone();
                    field[at] |= 0x80;
                    field.insert(at + 1, 0);
                    fields[n] = field;
                    agrees(&fields.concat());
                }
            }
        }

        #[test]
        fn changed_bytes_are_read_alike_or_left_to_others(
            ask in any_ask(),
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            end: prop::sample::Index,
            cut: bool,
        ) {
            let mut message = ask.encode_to_vec();
            if !message.is_empty() {
                for (at, to) in changes {
                    let at = at.index(message.len());
                    message[at] = to;
                }
                message.truncate(if cut { end.index(message.len()) } else { message.len() });
            }
            agrees(&message);
        }

        #[test]
        fn any_bytes_are_read_alike_or_left_to_others(message in vec(any::<u8>(), 0..80)) {
            agrees(&message);
        }
    }

    #[test]
    fn neighbours_share_what_is_alike() {
        let ask = |tool: &str| {
            let task = Some(Task::TaskId(TaskId::from_bytes([3; 16]).to_string()));
            let (upstream, scopes, tool) = ("echo".into(), vec!["b".into(), "a".into()], tool.into());
            pb::ExchangeRequest { task, upstream, scopes, tool, ..pb::ExchangeRequest::default() }.encode_to_vec()
        };
        let mut reader = ExchangeDecoder::default();
        let (one, other) = (reader.read(&ask("one")).unwrap(), reader.read(&ask("other")).unwrap());
        assert!(Arc::ptr_eq(&one.upstream, &other.upstream) && Arc::ptr_eq(&one.scopes, &other.scopes));
        assert_eq!((&*one.tool, &*other.tool, &*other.scopes), ("one", "other", &["a".to_owned(), "b".to_owned()][..]));
    }
}
