//! The wire contract: what its comments promise, and what its messages must not show.

use std::collections::BTreeSet;
use std::fmt::Debug;

use mayfly::pb::{FILE_DESCRIPTOR_SET, mayfly::v1::*};
use mayfly::refusal::Reason;
use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

fn files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    set.file.into_iter().filter(|f| f.package() == "mayfly.v1").collect()
}

/// Each rpc as `Service.Method` with its comment.
fn rpcs() -> Vec<(String, String)> {
    let mut out = Vec::new();
    for file in files() {
        let info = file.source_code_info.as_ref().unwrap();
        for (s, service) in file.service.iter().enumerate() {
            for (m, method) in service.method.iter().enumerate() {
                // FileDescriptorProto.service is field 6, ServiceDescriptorProto.method is field 2.
                let path = [6, i32::try_from(s).unwrap(), 2, i32::try_from(m).unwrap()];
                let comment = info.location.iter().find(|l| l.path == path).map(|l| l.leading_comments().to_owned());
                out.push((format!("{}.{}", service.name(), method.name()), comment.unwrap_or_default()));
            }
        }
    }
    out
}

#[test]
fn every_rpc_says_who_may_call_it_what_it_costs_and_how_it_refuses() {
    assert!(rpcs().len() > 60);
    for (rpc, comment) in rpcs() {
        for line in ["\n Caller: ", "\n Cost: ", "\n Errors: "] {
            assert_eq!(comment.matches(line).count(), 1, "{rpc} needs exactly one line {line:?}:\n{comment}");
        }
    }
}

#[test]
fn every_error_that_an_rpc_names_is_a_reason() {
    let reasons: BTreeSet<&str> = Reason::ALL.iter().map(|r| r.as_str()).collect();
    let mut named = 0;
    for (rpc, comment) in rpcs() {
        let errors = comment.split_once("Errors: ").unwrap().1;
        for word in errors.split(|c: char| !(c.is_ascii_uppercase() || c == '_')).filter(|w| w.len() > 3) {
            assert!(reasons.contains(word), "{rpc} names {word}");
            named += 1;
        }
    }
    assert!(named > 100);
}

const SECRET: &str = "s3cr3t-s3cr3t";

fn hides(secrets: usize, message: impl Debug + Message) -> usize {
    let encoded = message.encode_to_vec();
    assert_eq!(encoded.windows(SECRET.len()).filter(|w| *w == SECRET.as_bytes()).count(), secrets, "the test must set them");
    for shown in [format!("{message:?}"), format!("{message:#?}")] {
        assert!(!shown.contains("s3cr3t"), "{shown}");
        // Bytes are shown as a list of numbers by some types.
        assert!(!shown.contains("115, 51, 99"), "{shown}");
        assert_eq!(shown.matches("<redacted>").count(), secrets, "{shown}");
    }
    secrets
}

#[test]
fn debug_shows_no_secret_of_any_message() {
    let token = || SECRET.to_owned();
    let value = || bytes::Bytes::from_static(SECRET.as_bytes());
    let shown = [
        hides(1, SubjectToken { token: token(), ..Default::default() }),
        hides(1, ParentCredential { token: token() }),
        hides(1, Arguments { arguments: Some(arguments::Arguments::Json(token())) }),
        hides(1, BearerToken { token: token(), ..Default::default() }),
        hides(1, DatabaseLogin { password: token(), ..Default::default() }),
        hides(2, AwsKeys { secret_access_key: token(), session_token: token(), ..Default::default() }),
        hides(1, StaticSecret { value: value() }),
        hides(1, IntrospectRequest { token: token() }),
        hides(1, AuthorizeRequest { token: token(), ..Default::default() }),
        hides(1, LookupTokenRequest { by: Some(lookup_token_request::By::Token(token())) }),
        hides(1, PutSecretRequest { secret: Some(put_secret_request::Secret::Value(value())), ..Default::default() }),
        hides(2, ConnectUpstreamResponse { connection_id: token(), state: token(), ..Default::default() }),
        hides(2, CompleteConnectionRequest { connection_id: token(), code: token() }),
        hides(1, Approval { arguments_json: token(), ..Default::default() }),
        hides(1, Situation { arguments_json: token(), ..Default::default() }),
    ];
    let marked: usize = proto_texts().iter().map(|t| t.matches("debug_redact = true").count()).sum();
    assert_eq!(shown.iter().sum::<usize>(), marked, "each field marked debug_redact stands above");
    // An answer and an ask hide what they hold.
    let answer = issued::Answer::BearerToken(BearerToken { token: token(), ..Default::default() });
    hides(1, ExchangeResponse { issued: Some(Issued { answer: Some(answer), ..Default::default() }) });
    let subject_token = Some(SubjectToken { token: token(), ..Default::default() });
    hides(
        2,
        ExchangeRequest { subject_token, parent_credential: Some(ParentCredential { token: token() }), ..Default::default() },
    );
}

#[test]
fn debug_shows_the_rest() {
    let bearer = BearerToken { token: SECRET.into(), base_url: "https://echo.example".into(), ..Default::default() };
    assert!(format!("{bearer:?}").contains("https://echo.example"));
}

fn proto_texts() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/proto/mayfly/v1");
    std::fs::read_dir(folder).unwrap().map(|f| std::fs::read_to_string(f.unwrap().path()).unwrap()).collect()
}

#[test]
fn a_field_named_like_a_secret_is_marked() {
    for line in proto_texts().iter().flat_map(|t| t.lines()) {
        let Some((field, _)) = line.trim().split_once(" = ") else { continue };
        let mut words = field.split(' ');
        let (Some("string" | "bytes"), Some(name)) = (words.next(), words.next()) else { continue };
        let public = ["page_token", "next_page_token", "public_jwk"];
        let secret = ["token", "password", "secret", "private", "arguments_json", "value"].iter().any(|s| name.contains(s));
        assert!(!secret || public.contains(&name) || line.contains("debug_redact = true"), "{line}");
    }
}

#[test]
fn reflection_takes_the_descriptor_set() {
    let builder = tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET);
    assert!(builder.build_v1().is_ok());
}
