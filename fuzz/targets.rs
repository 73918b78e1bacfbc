//! The fuzz targets: each function takes any bytes and panics only if an invariant does not hold.
//!
//! `fuzz_targets/` runs them under libFuzzer, `tests/fuzzish.rs` with bounded mutations of known inputs on a stable compiler.

use bytes::Bytes;
use mayfly::credential::jwt::{self, Jwks, Possession, TokenRequirements};
use mayfly::credential::reference;
use mayfly::credential::ssh::SshPublicKey;
use mayfly::credential::x509::Csr;
use mayfly::document::SourceFile;
use mayfly::identity::bundle::{Bundle, Bundles};
use mayfly::identity::jwk::Algorithm;
use mayfly::identity::jwt_svid::{self, Audiences};
use mayfly::identity::oidc::{self, Issuer, IssuerKeys, IssuerUse};
use mayfly::identity::spiffe_id::{SpiffeId, TrustDomain};
use mayfly::identity::svid::{PeerChain, verify};
use mayfly::ledger::commit::{Commit, EncodedRecord, WriterHead, pack};
use mayfly::ledger::record::Record;
use mayfly::ledger::state::State;
use mayfly::limits;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::policy::exchange_request::{ExchangeRequest, digest_of_json};
use mayfly::policy::fast_decode::{self, ExchangeDecoder};
use mayfly::policy::policy_tests;
use mayfly::proof::check::check;
use mayfly::proof::key::NoteKey;
use mayfly::proof::note::{Checkpoint, SignedNote};
use mayfly::revocation::{FeedEvent, FeedSnapshot, Follower, Target};
use mayfly::seq::{Millis, Seq};
use mayfly::serve::wire::target_from_pb;
use mayfly::sources::config::Config;
use mayfly::store::memory::MemoryStore;
use mayfly::store::wal::{Medium, WalStore};
use mayfly::store::{Store, StoreError, StoreId};
use mayfly::trace::TraceContext;
use prost::Message;

/// The block of a log, bytes.
const BLOCK: usize = 4096;

/// A fuzzed function.
pub type Run = fn(&[u8]);

/// Every target by its name.
pub const ALL: &[(&str, Run)] = &[
    ("record", record),
    ("commit", commit),
    ("fold", fold),
    ("spiffe_id", spiffe_id),
    ("bundle", bundle),
    ("chain", chain),
    ("token", token),
    ("jwt_svid", jwt_svid),
    ("arguments", arguments),
    ("oidc", oidc),
    ("target", target),
    ("config", config),
    ("policy_tests", policy_tests),
    ("exchange", exchange),
    ("plain", plain),
    ("feed", feed),
    ("export", export),
    ("traceparent", traceparent),
    ("wal", wal),
    ("certified_key", certified_key),
];

/// A key that a certificate is asked for: a CSR, or an SSH public key. What is accepted is a key in its one form.
pub fn certified_key(data: &[u8]) {
    if let Ok(csr) = Csr::check(data) {
        assert!(csr.spki().len() <= data.len() && !csr.spki().is_empty());
    }
    if let Ok(key) = SshPublicKey::from_blob(data.to_vec()) {
        assert_eq!(key.blob(), data);
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(key) = SshPublicKey::parse(text)
    {
        assert_eq!(SshPublicKey::from_blob(key.blob().to_vec()).as_ref(), Ok(&key));
    }
}

/// Bytes that decode as a record are encoded again bit for bit.
pub fn record(data: &[u8]) {
    if let Ok(record) = Record::from_bytes(data) {
        let again = Record::from_bytes(&record.encode_to_vec()).expect("what was written reads back");
        assert_eq!(again, record);
        let _ = (record.author_text(), record.revision());
    }
}

/// Bytes that decode as a commit are what a writer would write of its records.
pub fn commit(data: &[u8]) {
    let Ok(commit) = Commit::from_bytes(&Bytes::copy_from_slice(data)) else { return };
    let header = &commit.header;
    let encoded: Vec<EncodedRecord> = commit.records.iter().cloned().filter_map(EncodedRecord::new).collect();
    if let Ok(hash) = header.previous.as_slice().try_into() {
        let after = WriterHead { number: header.number.wrapping_sub(1), hash, time: Millis(0) };
        if header.number > 0 && header.format == 1 {
            let (_, head) = pack(header.writer, after, Millis(header.time), encoded.iter());
            assert_eq!(head.hash, commit.hash, "another writer would have written it otherwise");
        }
    }
}

/// A folded commit leaves a state that can continue: no record from a store makes the server panic.
pub fn fold(data: &[u8]) {
    let mut state = State::default();
    let mut rest = data;
    for position in 1..=4 {
        let Some((length, more)) = rest.split_first_chunk::<2>() else { break };
        let length = usize::from(u16::from_be_bytes(*length)).min(more.len());
        let (one, after) = more.split_at(length);
        rest = after;
        let Ok(record) = Record::from_bytes(one) else { continue };
        let Some(encoded) = EncodedRecord::new(record) else { continue };
        let chain = state.writers.get(&1).copied().unwrap_or(WriterHead::START);
        let (bytes, _) = pack(1, chain, Millis(1_700_000_000_000), std::iter::once(&encoded));
        let commit = Commit::from_bytes(&Bytes::from(bytes)).expect("what was packed reads back");
        let mut twin = state.clone();
        let (first, second) =
            (state.fold(position, &commit).map(|f| f.verdicts), twin.fold(position, &commit).map(|f| f.verdicts));
        assert_eq!(first.is_ok(), second.is_ok(), "the same log gives the same state");
    }
}

/// An accepted SPIFFE ID is canonical, and its prefixes cover it by whole segments.
pub fn spiffe_id(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(id) = SpiffeId::parse(text) {
        assert_eq!(id.to_string(), text);
        assert!(text.len() <= limits::SPIFFE_ID_BYTES);
        assert!(TrustDomain::parse(id.trust_domain()).is_ok());
    }
}

/// Bundles in any form.
pub fn bundle(data: &[u8]) {
    let domain = || TrustDomain::parse("example.org").expect("a trust domain");
    if let Ok(bundle) = Bundle::parse(domain(), data) {
        assert!(bundle.x509_authorities().len() + bundle.jwt_authorities().len() <= limits::BUNDLE_AUTHORITIES);
    }
    let _ = Bundle::from_pem(domain(), data);
    let _ = Bundle::from_jwks(domain(), data);
}

/// A peer's certificate chain: no chain is verified by an empty set of bundles.
pub fn chain(data: &[u8]) {
    if let Ok(chain) = PeerChain::from_pem(data) {
        assert!(verify(&chain, &Bundles::default(), Millis(1_700_000_000_000), limits::SVID_MAX_TTL_MS).is_err());
    }
    let der = PeerChain::new(vec![data.to_vec().into()]);
    assert!(verify(&der, &Bundles::default(), Millis(1_700_000_000_000), limits::SVID_MAX_TTL_MS).is_err());
}

/// Tokens and key sets: no token is accepted that no key signed.
pub fn token(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let _ = Jwks::parse(text);
    let _ = jwt::peek_kid(text);
    let _ = reference::ReferenceToken::parse(text).map(|shown| shown.id());
    let expect = TokenRequirements {
        issuer: "https://mayfly.example/dev",
        audience: "https://echo.example",
        now: Millis(1_700_000_000_000),
        max_ttl_ms: limits::CREDENTIAL_TTL_MS,
        skew_ms: limits::CLOCK_SKEW_MS,
        possession: Possession::None,
    };
    assert!(jwt::verify(text, &Jwks::default(), &expect, |_| false).is_err());
}

/// JWT-SVIDs under a bundle that comes before them, each after its length: an accepted token is within its limits, and is accepted again.
pub fn jwt_svid(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let (document, token) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
    let domain = TrustDomain::parse("example.org").expect("a trust domain");
    let Ok(bundle) = Bundle::from_jwt_bundle(domain, document) else { return };
    assert!(bundle.x509_authorities().is_empty());
    let Ok(token) = str::from_utf8(token) else { return };
    let bundles = Bundles::new([std::sync::Arc::new(bundle)]).expect("one bundle");
    let now = Millis(1_700_000_000_000);
    let audiences = Audiences::Any(&["https://mayfly.example"]);
    let expect =
        jwt_svid::JwtSvidRequirements { audiences, now, leeway_ms: limits::CLOCK_SKEW_MS, max_ttl_ms: limits::SVID_MAX_TTL_MS };
    let Ok(svid) = jwt_svid::verify(token, &bundles, &expect) else { return };
    assert_eq!(svid.id().trust_domain(), "example.org");
    assert!(svid.expires_at() > now && svid.expires_at().since(now) <= limits::SVID_MAX_TTL_MS);
    assert!(svid.audiences().iter().any(|one| one == "https://mayfly.example"));
    assert_eq!(jwt_svid::verify(token, &bundles, &expect), Ok(svid));
}

/// A token of an OIDC issuer is accepted only if it is for this server, of that issuer, and in its validity period, and it never names a
/// SPIFFE ID.
pub fn oidc(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let (document, token) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
    let Ok(keys) = IssuerKeys::parse(document) else { return };
    let Ok(token) = str::from_utf8(token) else { return };
    let _ = oidc::peek_issuer(token);
    let issuer = Issuer {
        name: "idp".into(),
        issuer: "https://idp.example".into(),
        environments: vec!["dev".into()],
        audience: None,
        audiences: None,
        algorithms: vec![Algorithm::Es256],
        uses: vec![IssuerUse::Subject],
        max_life_ms: limits::OIDC_TOKEN_LIFE_DEFAULT_MS,
        scopes_claim: None,
        groups_claim: None,
        rights: Vec::new(),
        jobs: None,
    };
    let now = Millis(1_700_000_000_000);
    let expect = oidc::OidcTokenRequirements { audiences: &["https://mayfly.example"], now, leeway_ms: limits::CLOCK_SKEW_MS };
    let Ok(token) = oidc::verify(token, &issuer, &keys, &expect) else { return };
    assert_eq!((token.issuer(), token.audience()), ("https://idp.example", "https://mayfly.example"));
    assert!(token.expires_at() > now && token.expires_at().since(token.issued_at()) <= issuer.max_life_ms);
    assert!(!token.sub().is_empty() && !token.sub().to_ascii_lowercase().starts_with("spiffe:"));
    assert!(!token.token_id().is_empty() && token.token_id().len() <= limits::NAME_BYTES);
    let _ = token.values("groups");
}

/// The digest of arguments does not depend on their spelling, and refused arguments are too large, too deep or not JSON.
pub fn arguments(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(digest) = digest_of_json(text) else { return };
    let value: serde_json::Value = serde_json::from_str(text).expect("accepted arguments are JSON");
    let pretty = serde_json::to_string_pretty(&value).expect("JSON is written");
    if pretty.len() <= limits::ARGUMENTS_BYTES {
        assert_eq!(digest_of_json(&pretty), Ok(digest), "{text}");
    }
}

/// An export is checked without its keys: a correct export is found correct again, and names a checkpoint that can be parsed.
pub fn export(data: &[u8]) {
    if let Ok(right) = check(data, &[]) {
        assert_eq!(check(data, &[]).as_ref(), Ok(&right));
        assert_eq!(Checkpoint::parse(&right.checkpoint.text()).as_ref(), Ok(&right.checkpoint));
    }
    let Ok(text) = str::from_utf8(data) else { return };
    let keys = NoteKey::read(text).unwrap_or_default();
    if let Ok(note) = SignedNote::parse(text) {
        let _ = (note.signer(&keys).is_ok(), Checkpoint::parse(&note.text).is_ok());
    }
}

/// The text of a target parses as the same target, and so does its record.
pub fn target(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(target) = Target::parse(text) {
        assert_eq!(Target::parse(&target.to_string()).as_ref(), Ok(&target), "{text}");
        assert_eq!(Target::from_record(&target.to_record()).as_ref(), Ok(&target), "{text}");
    }
}

/// A configuration is accepted, or refused with line numbers that exist in it.
pub fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let source = SourceFile::new("mayfly.toml", text);
    if let Err(complaints) = Config::parse(&source, std::path::Path::new("/etc/mayfly"), &[]) {
        assert!(!complaints.is_empty());
        assert!(complaints.iter().all(|c| c.line <= text.lines().count() + 1), "{complaints:?}");
    }
}

/// A table of policy tests is accepted, or refused with line numbers that exist in it.
pub fn policy_tests(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match policy_tests::parse(&SourceFile::new("tests.toml", text), Millis(1_800_000_000_000)) {
        Ok(tests) => assert!(tests.iter().all(|t| t.line > 0 && t.line <= text.lines().count() + 1)),
        Err(complaints) => {
            assert!(!complaints.is_empty());
            assert!(complaints.iter().all(|c| c.line <= text.lines().count() + 1), "{complaints:?}");
        }
    }
}

/// An exchange as a peer may send it.
pub fn exchange(data: &[u8]) {
    let Ok(ask) = pb::ExchangeRequest::decode(data) else { return };
    if let Ok(want) = ExchangeRequest::from_pb(ask.clone()) {
        assert!(want.scopes.len() <= limits::SCOPES && want.purpose.len() <= limits::PURPOSE_BYTES);
    }
}

/// The fast decoder of exchanges gives the same result as prost, for a single exchange and for one after another.
pub fn plain(data: &[u8]) {
    let mut reader = ExchangeDecoder::default();
    for message in [data, data.split_first().map_or(data, |(_, rest)| rest), data] {
        let read = fast_decode::read(message);
        assert_eq!(reader.read(message), read);
        if let Some(want) = read {
            let ask = pb::ExchangeRequest::decode(message).expect("what was read is a message");
            assert_eq!(ExchangeRequest::from_pb(ask), Ok(want));
        }
    }
}

/// Messages of a feed: a follower never goes back, and a message that does not continue its state leaves it without a complete view.
pub fn feed(data: &[u8]) {
    let mut follower = Follower::new();
    let begun = FeedSnapshot { seq: Seq::start_of(1), ..FeedSnapshot::default() };
    follower.begin(&begun).expect("a first snapshot");
    let mut rest = data;
    while let Some((length, more)) = rest.split_first() {
        let (one, after) = more.split_at(usize::from(*length).min(more.len()));
        rest = after;
        let Ok(message) = pb::WatchRevocationsResponse::decode(one) else { continue };
        let (Some(seq), Some(previous)) = (Seq::from_u64(message.seq), Seq::from_u64(message.previous_seq)) else { continue };
        let Some(pb::watch_revocations_response::Event::Rule(rule)) = &message.event else { continue };
        let targets: Result<Vec<Target>, _> = rule.targets.iter().map(|t| target_from_pb("targets", t)).collect();
        let Ok(targets) = targets else { continue };
        let (before, whole) = (follower.applied(), follower.is_whole());
        let applied = follower.apply(previous, &FeedEvent::Rule { seq, targets, drop_after: None, locks: rule.locks });
        assert_eq!(applied.is_ok(), whole && previous <= before && seq > before, "{message:?}");
        assert_eq!(follower.applied(), if applied.is_ok() { seq } else { before });
        assert_eq!(follower.is_whole(), whole && previous <= before, "a gap shows until the next snapshot");
    }
}

/// A parsed `traceparent` is contained in the input, and is formatted as it was parsed.
pub fn traceparent(data: &[u8]) {
    let Some(context) = TraceContext::parse(data) else { return };
    assert!(context.trace != [0; 16] && context.span != [0; 8]);
    let written = context.header();
    assert_eq!(&written.as_bytes()[2..53], &data[2..53], "the ids, as they stand there");
    assert_eq!(TraceContext::parse(written.as_bytes()), Some(context));
}

/// A log file in memory.
#[derive(Clone)]
pub struct LogFile(pub std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl LogFile {
    fn bytes_at(&self, offset: u64, len: usize, act: impl FnOnce(&mut [u8])) -> std::io::Result<()> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut bytes = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let found = bytes.get_mut(from..from.saturating_add(len));
        found.map(act).ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    }
}

impl Medium for LogFile {
    fn bytes(&self) -> std::io::Result<u64> {
        Ok(self.0.lock().unwrap_or_else(|e| e.into_inner()).len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.bytes_at(offset, out.len(), |found| out.copy_from_slice(found))
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.bytes_at(offset, data.len(), |found| found.copy_from_slice(data))
    }
    fn flush(&self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A log in the given files, before an empty engine.
pub fn log_in(files: &[LogFile]) -> Result<WalStore<MemoryStore>, StoreError> {
    let media = files.iter().map(|file| Box::new(file.clone()) as Box<dyn Medium>).collect();
    WalStore::new(MemoryStore::new(StoreId::from_bytes([7; 16])), media)
}

/// Three files of a log: the log is refused as damaged, or its commits follow each other from the first position, and it accepts more.
pub fn wal(data: &[u8]) {
    let mut blocks = data.to_vec();
    blocks.resize(data.len().next_multiple_of(3 * BLOCK).max(3 * BLOCK), 0);
    let files: Vec<LogFile> =
        blocks.chunks(blocks.len() / 3).map(|file| LogFile(std::sync::Arc::new(file.to_vec().into()))).collect();
    match log_in(&files) {
        Err(error) => assert!(matches!(error, StoreError::Damaged { .. }), "{error}"),
        Ok(store) => {
            let head = store.head().expect("a head");
            let found = store.read(1, usize::MAX).expect("what is there");
            assert!(found.iter().map(|e| e.at).eq(1..=head));
            store.append(head + 1, b"more").expect("it goes on");
            assert_eq!(store.read(head + 1, 1).expect("one more")[0].bytes, &b"more"[..]);
        }
    }
}
