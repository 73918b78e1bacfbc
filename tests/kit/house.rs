//! A whole authority in memory, with the policy and upstreams of the dev samples, for tests of the authority.

use std::sync::Arc;

use arc_swap::ArcSwap;
use mayfly::authority::{Authority, AuthorityLimits, AuthorityParts};
use mayfly::credential::keyring::{Sealer, generate};
use mayfly::document::SourceFile;
use mayfly::exchange::ExchangePath;
use mayfly::identity::bundle::{Bundle, Bundles};
use mayfly::identity::caller::Caller;
use mayfly::identity::jwk::Algorithm;
use mayfly::identity::oidc::{GroupScopes, Issuer, IssuerKeys, IssuerUse};
use mayfly::identity::svid;
use mayfly::ledger::commit::EncodedRecord;
use mayfly::ledger::record::{Author, Event, KeyPurpose, KeyState, PolicySetUpdated as PolicyRecord, Record, UpstreamUpdated};
use mayfly::ledger::{Ledger, LedgerSettings, Opener, ProposalKind, Quotas, State};
use mayfly::limits;
use mayfly::oidc_issuers::Issuers;
use mayfly::policy::decide::Decider;
use mayfly::policy::exchange_request::{ExchangeRequest, RequestedKeyBinding, TaskChoice, TaskRequest, digest_of};
use mayfly::policy::{PolicySet, VerdictCache};
use mayfly::refusal::Fault;
use mayfly::seq::Millis;
use mayfly::store::Store;
use mayfly::store::memory::MemoryStore;
use mayfly::system::{Clock, ManualClock, System};
use mayfly::upstream::lease::ConnectorSettings;
use zeroize::Zeroizing;

use super::pki;
use super::signer::Signer;

/// The trust domain of the samples.
pub const DOMAIN: &str = "dev.mayfly.internal";

/// A sealer that does nothing: sealing has its own tests.
pub struct Open;

impl Sealer for Open {
    fn seal(&self, _: &str, _: &str, _: &str, plain: &[u8]) -> Result<Vec<u8>, Fault> {
        Ok(plain.to_vec())
    }

    fn open(&self, _: &str, _: &str, _: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
        Ok(Zeroizing::new(sealed.to_vec()))
    }
}

/// An authority, its clock, and the root that vouches for its callers.
pub struct House {
    pub authority: Arc<Authority>,
    pub clock: Arc<ManualClock>,
    pub root: pki::Authority,
    /// The key of both OIDC issuers, `k1`, and of the trust domain's JWT authority, `jwt1`.
    pub signer: Signer,
}

/// An OIDC issuer that vouches for subjects in dev, and whose tokens contain no rights.
pub const IDP: &str = "https://idp.test";
/// An OIDC issuer whose tokens contain scopes and groups, and of which one group may read issues.
pub const RIGHTS: &str = "https://rights.test";

/// Both issuers, with their key already known.
fn issuers(signer: &Signer, system: &System) -> Issuers {
    let plain = Issuer {
        name: "idp".into(),
        issuer: IDP.into(),
        environments: vec!["dev".into()],
        audience: None,
        audiences: None,
        algorithms: vec![Algorithm::Es256],
        uses: vec![IssuerUse::Subject],
        max_life_ms: limits::OIDC_TOKEN_LIFE_DEFAULT_MS,
        scopes_claim: None,
        groups_claim: Some("groups".into()),
        rights: Vec::new(),
        jobs: None,
    };
    let readers =
        GroupScopes { group: "readers".into(), upstream: "repos".into(), scopes: vec!["issues:read".into(), "repo:read".into()] };
    let writers = GroupScopes { group: "writers".into(), upstream: "repos".into(), scopes: vec!["issues:write".into()] };
    let bounded = Issuer {
        name: "rights".into(),
        issuer: RIGHTS.into(),
        scopes_claim: Some("scope".into()),
        rights: vec![readers, writers],
        ..plain.clone()
    };
    let issuers = Issuers::new([plain, bounded], system.clone());
    let mut jwk = signer.jwk();
    jwk["kid"] = "k1".into();
    let keys = IssuerKeys::parse(serde_json::json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
    for known in issuers.all() {
        known.begin(system);
        known.end(Some(keys.clone()), system);
    }
    issuers
}

/// The bundle of the house's trust domain: its root, and a JWT authority.
fn bundle(root: &pki::Authority, signer: &Signer) -> Bundles {
    let mut jwk = signer.jwk();
    (jwk["use"], jwk["kid"]) = ("jwt-svid".into(), "jwt1".into());
    let der = data_encoding::BASE64.encode(&root.certificate);
    let document = serde_json::json!({ "keys": [{ "use": "x509-svid", "kty": "EC", "x5c": [der] }, jwk] });
    let bundle = Bundle::from_jwks(pki::trust_domain(DOMAIN), document.to_string().as_bytes()).unwrap();
    Bundles::new([Arc::new(bundle)]).unwrap()
}

fn sample(path: &str) -> String {
    let path = format!("{}/src/cli/samples/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

pub fn source(file: &str) -> SourceFile {
    SourceFile { file: file.into(), text: sample(file) }
}

/// A house with the samples in effect. Must be called outside of a runtime.
pub fn house() -> House {
    house_with(ConnectorSettings::default())
}

fn in_memory() -> Opener {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(mayfly::store::StoreId::from_bytes([5; 16])));
    Box::new(move || Ok(store.clone()))
}

/// A house with credential kinds that are made at upstreams.
pub fn house_with(connectors: ConnectorSettings) -> House {
    house_on(in_memory(), connectors)
}

/// A house with other limits.
pub fn bounded_house(bounds: AuthorityLimits, ceilings: Quotas) -> House {
    build(
        in_memory(),
        ConnectorSettings::default(),
        bounds,
        LedgerSettings { ceilings, ..LedgerSettings::default() },
        (false, None),
    )
}

/// A house that serves these environments, whatever policy sets there are.
pub fn house_serving(environments: &[&str]) -> House {
    let serves = environments.iter().map(|name| (*name).to_owned()).collect();
    build(in_memory(), ConnectorSettings::default(), AuthorityLimits::default(), LedgerSettings::default(), (false, Some(serves)))
}

/// A house on another store.
pub fn house_on(opener: Opener, connectors: ConnectorSettings) -> House {
    build(opener, connectors, AuthorityLimits::default(), LedgerSettings::default(), (false, None))
}

/// A house with a single operator, who needs no second one over the local socket.
pub fn house_of_one() -> House {
    build(in_memory(), ConnectorSettings::default(), AuthorityLimits::default(), LedgerSettings::default(), (true, None))
}

/// A house whose history index is in a directory, with blocks of this many bytes: even a short history then has many blocks.
pub fn house_with_index(dir: &std::path::Path, index_block: usize) -> House {
    let settings = LedgerSettings { history: Some(dir.to_owned()), index_block, ..LedgerSettings::default() };
    build(in_memory(), ConnectorSettings::default(), AuthorityLimits::default(), settings, (false, None))
}

/// A house whose exchanges are answered by this code.
pub fn house_by(path: ExchangePath) -> House {
    let (connectors, bounds) = (ConnectorSettings::default(), AuthorityLimits::default());
    build_by(path, in_memory(), connectors, bounds, LedgerSettings::default(), (false, None))
}

fn build(
    opener: Opener,
    connectors: ConnectorSettings,
    bounds: AuthorityLimits,
    settings: LedgerSettings,
    of: (bool, Option<Vec<String>>),
) -> House {
    build_by(ExchangePath::default(), opener, connectors, bounds, settings, of)
}

fn build_by(
    exchange_path: ExchangePath,
    opener: Opener,
    connectors: ConnectorSettings,
    bounds: AuthorityLimits,
    settings: LedgerSettings,
    (single_operator, serves): (bool, Option<Vec<String>>),
) -> House {
    let clock = ManualClock::at(pki::NOW);
    let system = System::with_clock(clock.clone());
    let ledger = Ledger::open(opener, system.clone(), settings).unwrap();
    let root = pki::Authority::root(DOMAIN);
    let signer = Signer::new("ES256");
    let parts = AuthorityParts {
        decider: Decider {
            audits: Arc::default(),
            verdicts: Arc::new(VerdictCache::new(1 << 20)),
            issuer: "https://mayfly.test".into(),
            serves,
            access: Arc::new(connectors.remotes.clone()),
            longest_ms: limits::CREDENTIAL_TTL_MS.into(),
            longest_task_ms: limits::TASK_TTL_MS.into(),
        },
        bundles: Arc::new(ArcSwap::from_pointee(bundle(&root, &signer))),
        sealer: Arc::new(Open),
        system: system.clone(),
        admin_uids: vec![1000],
        single_operator,
        oidc: Arc::new(issuers(&signer, &system)),
        own_domain: None,
        feed_max_age_ms: limits::FEED_MAX_AGE_MS,
        bounds,
        connectors,
        traced: Default::default(),
        exchange_path,
    };
    let authority = Authority::new(ledger, parts).unwrap();
    import(&authority, &system);
    House { authority, clock, root, signer }
}

fn import(authority: &Authority, system: &System) {
    let set = PolicySet::compile(vec![source("policy.cedar")], source("roles.toml")).unwrap();
    let policy = PolicyRecord {
        environment: "dev".into(),
        version: 1,
        digest: set.digest().to_vec(),
        text: set.to_text().to_owned(),
        ..PolicyRecord::default()
    };
    let mut records = vec![Record::new(Author::Mayfly("imported".into()), Event::PolicySet(policy))];
    for name in ["echo", "repos", "tickets"] {
        let upstream = mayfly::upstream::file::parse(&source(&format!("upstreams/{name}.toml")), &[]).unwrap();
        let set = UpstreamUpdated {
            name: upstream.name.clone(),
            version: 1,
            digest: upstream.digest().to_vec(),
            text: upstream.to_text(),
            ..UpstreamUpdated::default()
        };
        records.push(Record::new(Author::Mayfly("imported".into()), Event::UpstreamSet(set)));
    }
    for purpose in [KeyPurpose::AccessToken, KeyPurpose::Reference] {
        let key = generate(purpose, "dev", KeyState::Active, &Open, system).unwrap();
        let added = key.keep(&*authority.ledger.store()).unwrap();
        records.push(Record::new(Author::Mayfly("imported".into()), Event::KeyAdded(added)));
    }
    runtime().block_on(authority.ledger.commit(ProposalKind::Change, records)).unwrap();
}

/// A runtime for one test.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Folds a commit of records, each of which must be valid.
pub fn fold_commit(state: &mut State, records: &[EncodedRecord], now: Millis) {
    state.begin_commit(state.position + 1, now);
    for record in records {
        state.verdict(std::slice::from_ref(record), now).unwrap();
        state.take_seq(record);
        state.apply(record);
    }
    state.end_commit();
}

impl House {
    /// A workload with a fresh SVID.
    pub fn caller(&self, path: &str) -> Caller {
        let svid = self.root.svid(&format!("spiffe://{DOMAIN}{path}"));
        let chain = svid.chain.clone();
        let verified = svid::verify(&chain, &self.authority.bundles.load(), self.clock.wall(), limits::SVID_MAX_TTL_MS).unwrap();
        Caller::from(&verified)
    }

    /// The time of the house's clock.
    pub fn now(&self) -> Millis {
        self.clock.wall()
    }
}

/// Terms of a task for the echo upstream, with any tool.
pub fn terms() -> TaskRequest {
    TaskRequest {
        purpose: "a test".into(),
        upstreams: vec![("echo".into(), vec!["echo:read".into()])],
        tools: Vec::new(),
        any_tool: true,
        kinds: Vec::new(),
        callers: Vec::new(),
        key_bound: false,
        ttl_ms: Some(600_000),
        max_ttl_ms: Some(3_600_000),
        heartbeat_ms: 0,
        parent: None,
    }
}

/// An exchange for the echo upstream.
pub fn wanted(task: TaskChoice) -> ExchangeRequest {
    ExchangeRequest {
        task,
        upstream: "echo".into(),
        scopes: ["echo:read".into()].into(),
        kind: None,
        ttl_ms: Some(60_000),
        tool: "say".into(),
        purpose: "a test".into(),
        arguments: None,
        request_id: None,
        digest: [0; 32],
        key: RequestedKeyBinding::Unasked,
        certified: None,
        binding: None,
        details: None,
        renews: None,
        replaces: None,
        behalf: None,
        asking: None,
        traced: Default::default(),
    }
}

/// The exchange with a request id. The digest covers the upstream, the scopes and the TTL.
pub fn named(mut want: ExchangeRequest, id: &str) -> ExchangeRequest {
    want.request_id = Some(id.into());
    want.digest = digest_of(&format!("{} {:?} {:?}", want.upstream, want.scopes, want.ttl_ms));
    want
}
