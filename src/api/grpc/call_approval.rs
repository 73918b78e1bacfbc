//! Approvals of operators' calls on the admin listener: looks up the caller's approval before a call is served, and asks for an approval
//! after the call was refused for lack of one.
//!
//! The request is decoded here, so that an approval applies to exactly this request and approvers can read it field by field as the
//! contract describes its message. The services do not know of this step; a new service takes part as soon as policy requires an approval
//! for it.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body as HttpBody;
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};
use tonic::Status;
use tonic::body::Body;

use super::super::peer::Peer;
use super::super::status::status;
use mayfly_authority::admission::operator_calls::{OperatorCall, within};
use mayfly_authority::authority::Authority;
use mayfly_base::document::terminal_text::stripped;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Refusal};
use mayfly_identity::caller::Operator;
use mayfly_ledger::record::Author;
use mayfly_proto as pb;

const PACKAGE: &str = "mayfly.v1";

/// Fields that affect how a request is carried out and not what it asks for: the same approval is valid for any value of them.
const SENT: [&str; 3] = ["request_id", "confirmation", "dry_run"];

/// Whether a field carries a secret, by the message's full name.
fn is_secret(of: &str, field: &str) -> bool {
    pb::REDACTED_FIELDS.contains(&(of, field))
}

/// The messages of the contract by full name, and the request message of each rpc by path.
struct Contract {
    messages: BTreeMap<String, DescriptorProto>,
    requests: BTreeMap<String, String>,
}

static CONTRACT: LazyLock<Contract> = LazyLock::new(|| {
    let set = FileDescriptorSet::decode(pb::FILE_DESCRIPTOR_SET).unwrap_or_default();
    let mut contract = Contract { messages: BTreeMap::new(), requests: BTreeMap::new() };
    for file in set.file {
        let package = file.package().to_owned();
        for service in &file.service {
            // An rpc with a stream of requests has no single request to approve.
            for method in service.method.iter().filter(|m| package == PACKAGE && !m.client_streaming()) {
                let path = format!("/{package}.{}/{}", service.name(), method.name());
                contract.requests.insert(path, method.input_type().to_owned());
            }
        }
        file.message_type.into_iter().for_each(|message| contract.add(&format!(".{package}"), message));
    }
    contract
});

impl Contract {
    fn add(&mut self, within: &str, message: DescriptorProto) {
        let name = format!("{within}.{}", message.name());
        message.nested_type.iter().for_each(|nested| self.add(&name, nested.clone()));
        self.messages.insert(name, message);
    }
}

/// One field of an encoded message.
struct Field<'a> {
    tag: u32,
    wire: WireType,
    /// The field's bytes, with its key.
    whole: &'a [u8],
    /// The value of a number field, or the content of a length-delimited field.
    number: u64,
    bytes: &'a [u8],
}

/// The fields of a message in the order in which they were encoded; `None` if the bytes are no message.
fn fields(mut rest: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut all = Vec::new();
    while rest.has_remaining() {
        let before = rest;
        let (tag, wire) = decode_key(&mut rest).ok()?;
        let (mut number, mut bytes) = (0, &[][..]);
        match wire {
            WireType::Varint => number = decode_varint(&mut rest).ok()?,
            WireType::SixtyFourBit => number = rest.try_get_u64_le().ok()?,
            WireType::ThirtyTwoBit => number = u64::from(rest.try_get_u32_le().ok()?),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
                bytes = rest.get(..length)?;
                rest.advance(length);
            }
            WireType::StartGroup | WireType::EndGroup => return None,
        }
        let whole = before.get(..before.len() - rest.len())?;
        all.push(Field { tag, wire, whole, number, bytes });
    }
    Some(all)
}

/// The parts of a request that an approval covers: its bytes without the `SENT` fields, its text for approvers, and whether it is a dry
/// run. The bytes are recorded as a digest and the text is shown, so a keyed digest of a secret stands for it in the bytes, and nothing of it
/// in the text.
fn read(of: &str, request: &[u8], keyed: impl Fn(&[u8]) -> Vec<u8>) -> Option<(Vec<u8>, String, bool)> {
    let message = CONTRACT.messages.get(of)?;
    let named = |field: &Field<'_>| {
        let known = message.field.iter().find(|f| u32::try_from(f.number()) == Ok(field.tag));
        known.map_or("", |f| f.name())
    };
    let (mut kept, mut shown, mut dry_run) = (Vec::new(), Vec::new(), false);
    for field in fields(request)? {
        let name = named(&field);
        dry_run |= name == "dry_run" && field.number != 0;
        if is_secret(of, name) {
            encode_key(field.tag, WireType::LengthDelimited, &mut kept);
            encode_key(field.tag, WireType::LengthDelimited, &mut shown);
            let digest = keyed(field.bytes);
            encode_varint(digest.len() as u64, &mut kept);
            kept.extend_from_slice(&digest);
            encode_varint(0, &mut shown);
        } else if !SENT.contains(&name) {
            kept.extend_from_slice(field.whole);
            shown.extend_from_slice(field.whole);
        }
    }
    let mut text = String::new();
    write(&mut text, of, &shown, 0);
    let text = stripped(&text);
    let short = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= limits::CALL_TEXT_BYTES).last().unwrap_or(0);
    let whole = text.len() <= limits::CALL_TEXT_BYTES;
    let text = if whole { text } else { format!("{} … (of {} bytes)", &text.get(..short).unwrap_or_default(), text.len()) };
    Some((kept, text, dry_run))
}

/// Deepest nesting that is rendered for approvers. No request of the contract nests as deep.
const DEEPEST: usize = 8;

/// Renders a message for approvers: its fields by name.
fn write(text: &mut String, of: &str, bytes: &[u8], depth: usize) {
    let (Some(message), Some(all)) = (CONTRACT.messages.get(of).filter(|_| depth < DEEPEST), fields(bytes)) else {
        return text.push_str(&data_encoding::HEXLOWER.encode(bytes));
    };
    for (n, field) in all.iter().enumerate() {
        if n > 0 {
            text.push_str(", ");
        }
        let Some(known) = message.field.iter().find(|f| u32::try_from(f.number()) == Ok(field.tag)) else {
            text.push_str(&format!("field {}", field.tag));
            continue;
        };
        text.push_str(known.name());
        text.push_str(": ");
        match (known.r#type(), field.wire) {
            _ if is_secret(of, known.name()) => text.push_str("(not shown)"),
            (Type::Message, WireType::LengthDelimited) => {
                text.push('{');
                write(text, known.type_name(), field.bytes, depth + 1);
                text.push('}');
            }
            (Type::String, WireType::LengthDelimited) => text.push_str(&format!("{:?}", String::from_utf8_lossy(field.bytes))),
            (_, WireType::LengthDelimited) => text.push_str(&data_encoding::HEXLOWER.encode(field.bytes)),
            (Type::Bool, _) => text.push_str(if field.number == 0 { "false" } else { "true" }),
            _ => text.push_str(&field.number.to_string()),
        }
    }
}

/// The `Service.Method` of a path.
fn name_of(path: &str) -> Option<String> {
    let (service, method) = path.strip_prefix('/')?.strip_prefix(PACKAGE)?.strip_prefix('.')?.split_once('/')?;
    Some(format!("{service}.{method}"))
}

/// Serves a call of an operator: uses the approval that the request names, and asks for an approval if the call needs one.
pub(super) async fn serve_with_approval<B, F, A>(
    authority: &Arc<Authority>,
    peer: &Peer,
    call: Request<B>,
    serve: F,
) -> Response<Body>
where
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + Unpin,
    F: FnOnce(Request<Body>) -> A,
    A: Future<Output = Response<Body>>,
{
    let path = call.uri().path().to_owned();
    let operator = match peer {
        Peer::Admin(caller) => Operator::Svid(caller.clone()),
        Peer::Local(uid) => Operator::LocalUid(*uid),
        Peer::Workload(_) => return serve(call.map(Body::new)).await,
    };
    let (Some(of), Some(rpc)) = (CONTRACT.requests.get(&path), name_of(&path)) else {
        return serve(call.map(Body::new)).await;
    };
    let (parts, body) = call.into_parts();
    let Ok(body) = Limited::new(body, limits::REQUEST_BYTES + FRAME).collect().await else {
        let most = limits::REQUEST_BYTES;
        let no = Refusal::limit("request_bytes", most as u64, std::time::Duration::ZERO);
        return status(Error::Refusal(no)).into_http();
    };
    let body = body.to_bytes();
    // A body that is not one request in one uncompressed frame is left to the codec, which refuses it.
    let request = body.get(FRAME..).filter(|_| body.first() == Some(&0));
    let Some(read) = request.and_then(|request| read(of, request, |secret| authority.sealer.digest(secret))) else {
        return serve(Request::from_parts(parts, Body::new(Full::new(body)))).await;
    };
    let author = match &operator {
        Operator::Svid(caller) => Author::of(caller).name(),
        Operator::LocalUid(uid) => Author::LocalUid(*uid).name(),
    };
    let (bytes, text, dry_run) = read;
    let mut asked = OperatorCall::new(&rpc, &author, (&bytes, text, dry_run));
    if let Operator::Svid(caller) = &operator {
        asked = match authority.with_approval(caller, asked).await {
            Ok(asked) => asked,
            Err(no) => return refused(no),
        };
    }
    let asked = Arc::new(asked);
    let served = serve(Request::from_parts(parts, Body::new(Full::new(body))));
    let answer = within(Some(asked.clone()), served).await;
    match &operator {
        Operator::Svid(caller) if asked.is_asked_for() && wants_approval(&answer) => {
            refused(authority.ask_for_call(caller, &asked).await)
        }
        _ => answer,
    }
}

/// Length of the prefix of a gRPC message: a compression flag and four bytes of length.
const FRAME: usize = 5;

fn refused(no: Error) -> Response<Body> {
    let no: Status = status(no);
    no.into_http()
}

/// Whether an answer says that the call needs an approval first. Other answers may fail for another reason after the approval was asked
/// for.
fn wants_approval(answer: &Response<Body>) -> bool {
    let code = (mayfly_base::refusal::Reason::ApprovalNeeded.code() as i32).to_string();
    answer.headers().get("grpc-status").is_some_and(|status| status.as_bytes() == code.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_authority::admission::operator_calls::ApprovalMode;
    use mayfly_proto::mayfly::v1 as wire;

    fn keyed(secret: &[u8]) -> Vec<u8> {
        vec![secret.len() as u8]
    }

    #[test]
    fn a_secret_is_neither_in_the_bytes_nor_in_the_text_and_another_one_is_another_request() {
        let ask = |value: &'static [u8]| wire::PutSecretRequest {
            upstream: "sentry".into(),
            secret: Some(wire::put_secret_request::Secret::Value(value.into())),
            ..Default::default()
        };
        let of = ".mayfly.v1.PutSecretRequest";
        let (bytes, text, _) = read(of, &ask(b"marker-1").encode_to_vec(), keyed).unwrap();
        assert!(!bytes.windows(6).any(|w| w == b"marker"), "{bytes:?}");
        assert_eq!(text, "upstream: \"sentry\", value: (not shown)");
        assert_ne!(read(of, &ask(b"marker-22").encode_to_vec(), keyed).unwrap().0, bytes);
        let of = ".mayfly.v1.LookupTokenRequest";
        let ask = wire::LookupTokenRequest { by: Some(wire::lookup_token_request::By::Token("marker".into())) };
        assert_eq!(read(of, &ask.encode_to_vec(), keyed).unwrap().1, "token: (not shown)");
    }

    #[test]
    fn a_request_is_read_for_people_and_how_it_is_sent_is_no_part_of_it() {
        let ask = wire::RetireKeyRequest { key_id: "k1".into(), reason: "old\u{202e}".into(), ..Default::default() };
        let of = ".mayfly.v1.RetireKeyRequest";
        let (bytes, text, dry_run) = read(of, &ask.encode_to_vec(), keyed).unwrap();
        assert!(text.contains("key_id: \"k1\"") && text.contains("reason: ") && !text.contains('\u{202e}'), "{text}");
        assert!(!dry_run);
        let again = wire::RetireKeyRequest {
            dry_run: true,
            confirmation: Some(wire::Confirmation { credentials: 3, all: false }),
            request_id: "r1".into(),
            ..ask.clone()
        };
        let (same, _, dry_run) = read(of, &again.encode_to_vec(), keyed).unwrap();
        assert!(dry_run && same == bytes);
        let other = wire::RetireKeyRequest { key_id: "k2".into(), ..ask };
        assert_ne!(read(of, &other.encode_to_vec(), keyed).unwrap().0, bytes);
        assert!(read(of, &[0xff, 0xff], keyed).is_none());
    }

    #[test]
    fn long_requests_are_shown_in_part() {
        let ask = wire::RetireKeyRequest { reason: "ä".repeat(limits::CALL_TEXT_BYTES), ..Default::default() };
        let (_, text, _) = read(".mayfly.v1.RetireKeyRequest", &ask.encode_to_vec(), keyed).unwrap();
        assert!(text.len() < limits::CALL_TEXT_BYTES + 64 && text.contains("bytes)"));
    }

    /// A stale name in the list would make the rpc that replaced it wait for an approval during an incident.
    #[test]
    fn every_call_that_is_named_is_one_of_the_contract() {
        for rpc in ApprovalMode::named() {
            let path = format!("/{PACKAGE}.{}", rpc.replace('.', "/"));
            assert!(CONTRACT.requests.contains_key(&path), "{rpc}");
            assert_eq!(name_of(&path).as_deref(), Some(rpc));
        }
    }
}
