//! Starting: everything is opened, checked and bound before anybody is answered, or the start is refused and nothing was changed.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::sync::watch;

use super::export::Exporter;
use super::problem::{StartProblem, Why};
use super::sealer::StoreSealer;
use super::threads::{Bound, Served};
use super::webhook::Webhooks;
use super::{Addresses, Running, engine, given, import, threads};
use crate::authority::{Authority, Own, Parts};
use crate::credential::remote::Remotes;
use crate::document::Complaint;
use crate::identity::anchor::TrustAnchor;
use crate::identity::spiffe_id::{SpiffeId, TrustDomain};
use crate::keys;
use crate::ledger::{Lane, Ledger};
use crate::limits;
use crate::oidc::Issuers;
use crate::own_domain::OwnDomain;
use crate::policy::Verdicts;
use crate::policy::decide::Decider;
use crate::sealing::SealingKey;
use crate::serve::tls::{OwnCertificate, public_config};
use crate::serve::unix;
use crate::sources::bundles::BundleFiles;
use crate::sources::config::{Config, Seal};
use crate::sources::files::FileProblem;
use crate::sources::policy_files;
use crate::sources::svid_files::{OwnPair, SvidFiles};
use crate::system::System;
use crate::trust::Source;
use crate::upstream::lease::Elsewhere;

/// A certificate that is shown, and the files that it comes from.
pub(super) struct Shown {
    pub files: SvidFiles,
    pub current: OwnCertificate,
    /// Who it says we are, where it is an SVID.
    pub id: Option<SpiffeId>,
}

/// Starts a server in threads of its own. Blocks until it answers; may be called from anywhere.
pub fn start(config: &Config, system: &System) -> Result<Running, StartProblem> {
    start_with(config, system, given::elsewhere(config, Remotes::default()))
}

/// The same with kinds whose credentials are made at upstreams, and their times and places as [`elsewhere`](super::elsewhere) gives them.
pub fn start_with(config: &Config, system: &System, elsewhere: Elsewhere) -> Result<Running, StartProblem> {
    // Opening the ledger blocks, which a caller's own runtime may not allow.
    let started = std::thread::scope(|scope| match scope.spawn(|| start_here(config, system, elsewhere)).join() {
        Ok(outcome) => outcome,
        Err(_) => Err(Why::Panic),
    });
    started.map_err(|why| StartProblem::new(why, config))
}

fn start_here(config: &Config, system: &System, elsewhere: Elsewhere) -> Result<Running, Why> {
    let own = own_certificate(config)?;
    let public = public_certificate(config)?;
    let public_tls = match &public {
        Some(shown) => public_config(&shown.current, system),
        None => public_config(&own.current, system),
    };
    let public_tls = public_tls.map_err(|e| Why::Tls(e.to_string()))?;
    let authority = authority(config, system, elsewhere)?;
    let ledger = authority.ledger.clone();
    let running = take_in(config, &authority).and_then(|bundles| {
        // Last, so that nobody waits at a port for a start that is refused.
        let bound = bind(config)?;
        run(config, bound, Served { authority, own, public, public_tls: Arc::new(public_tls), bundles })
    });
    // Whoever is told why may mend it and start again in this process, which needs the store closed.
    running.inspect_err(|_| ledger.stop())
}

/// What a ledger that is open has to hold before anybody is served.
fn take_in(config: &Config, authority: &Authority) -> Result<BundleFiles, Why> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Why::System { what: "a runtime", error })?;
    runtime.block_on(async {
        take_in_policy(config, authority).await?;
        let bundles = take_in_bundles(config, authority).await?;
        // Before anybody can be about to ask for another one.
        authority.sweep_arguments(true).await.map_err(refused("the arguments of approvals"))?;
        // The first keys of each environment, and what fell due while nobody served.
        keys::tend(authority).await;
        Ok(bundles)
    })
}

/// Whoever connects from here on is answered as soon as the threads run.
fn run(config: &Config, bound: Bound, served: Served) -> Result<Running, Why> {
    let (stop, stopping) = watch::channel(false);
    let authority = served.authority.clone();
    let addresses = bound.addresses.clone();
    let shown = served.own.current.clone();
    let certificate_ends = move || TrustAnchor::from_der(shown.load().cert.first()?).map(|cert| cert.not_after());
    if let Ok(trust_domain) = TrustDomain::parse(&config.server.trust_domain) {
        // Set once, here.
        let _ = authority.own.set(Own { trust_domain, certificate_ends: Box::new(certificate_ends) });
    }
    let webhooks = Webhooks::start(&authority, &config.webhooks).map_err(|error| Why::System { what: "the webhooks", error })?;
    let (threads, counts) =
        threads::spawn(config, bound, served, stopping).map_err(|error| Why::System { what: "the threads", error })?;
    tracing::info!(
        workload = %addresses.workload, admin = %addresses.admin, public = %addresses.public,
        generation = authority.ledger.durable().generation(), seq = authority.ledger.durable().count(), "serving"
    );
    let export = config.audit_export.as_ref().map(|to| Exporter::start(&authority, to)).transpose();
    let export = export.map_err(|error| Why::System { what: "the export of the audit", error })?;
    Ok(Running { authority, addresses, counts, stop, threads, export, webhooks: Some(webhooks) })
}

fn refused(what: &str) -> impl Fn(crate::refusal::No) -> Why {
    let what = what.to_owned();
    move |no| Why::Refused { what: what.clone(), no: Box::new(no) }
}

/// The server's own SVID.
fn own_certificate(config: &Config) -> Result<Shown, Why> {
    let mut files = SvidFiles::new(&config.tls.certificate, &config.tls.key);
    let pair = files.load().map_err(|e| Why::Files(vec![e]))?;
    let id = own_id(&pair, &config.server.trust_domain, &config.tls.certificate).map_err(|e| Why::Files(vec![e]))?;
    if !pair.has_dns_name() {
        tracing::warn!("the server's certificate has no DNS name: many gRPC clients refuse it");
    }
    Ok(Shown { files, current: Arc::new(ArcSwap::new(pair.certified_key().clone())), id: Some(id) })
}

/// Who the certificate says we are, in our own trust domain.
fn own_id(pair: &OwnPair, trust_domain: &str, path: &std::path::Path) -> Result<SpiffeId, FileProblem> {
    let remedy = "name an X.509-SVID of the server's own trust domain under tls, or mend server.trust_domain";
    match pair.spiffe_id() {
        Ok(id) if id.trust_domain() == trust_domain => Ok(id),
        Ok(id) => Err(FileProblem::new(path, format!("is {id}, which is not of {trust_domain}"), remedy)),
        Err(defect) => Err(FileProblem::new(path, format!("is no X.509-SVID: {defect}"), remedy)),
    }
}

/// Clients know the server by its SPIFFE ID: under another one, read while it runs, it would lock all of them out.
pub(super) fn still_us(pair: &OwnPair, id: Option<&SpiffeId>, path: &std::path::Path) -> Result<(), FileProblem> {
    let remedy = "write the server's own certificate there, or restart it under its new name";
    match (pair.spiffe_id(), id) {
        (Ok(found), Some(id)) if found == *id => Ok(()),
        (Ok(found), Some(id)) => Err(FileProblem::new(path, format!("is {found}, and this server is {id}"), remedy)),
        (Err(defect), _) => Err(FileProblem::new(path, format!("is no X.509-SVID: {defect}"), remedy)),
        (Ok(_), None) => Ok(()),
    }
}

fn public_certificate(config: &Config) -> Result<Option<Shown>, Why> {
    let Some(pair) = &config.public_tls else { return Ok(None) };
    let mut files = SvidFiles::new(&pair.certificate, &pair.key);
    let pair = files.load().map_err(|e| Why::Files(vec![e]))?;
    Ok(Some(Shown { files, current: Arc::new(ArcSwap::new(pair.certified_key().clone())), id: None }))
}

/// The sealing key.
pub(super) fn sealing_key(config: &Config) -> Result<SealingKey, Why> {
    // Without a data directory there is none that the key could lie in.
    let data = engine::data_dir(config).unwrap_or(std::path::Path::new("/dev/null"));
    match &config.seal {
        Seal::KeyFile(path) => SealingKey::load(path, data).map_err(Why::KeyFile),
        Seal::Credential(name) => {
            let dir = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| Why::NoCredentials(name.clone()))?;
            SealingKey::load_credential(dir.as_ref(), name, data).map_err(Why::KeyFile)
        }
    }
}

/// The ledger, and everything that follows it.
fn authority(config: &Config, system: &System, elsewhere: Elsewhere) -> Result<Arc<Authority>, Why> {
    let key = sealing_key(config)?;
    if engine::data_dir(config).is_none() {
        tracing::warn!("engine memory: nothing survives a restart, and what was revoked or locked is forgotten with the rest");
    }
    let (store, opener) = engine::open(config, system).map_err(|e| Why::Ledger(engine::not_opened(config, e)))?;
    // Before the first append: afterwards a missing check value means that somebody deleted it.
    key.check(&*store, system).map_err(|error| Why::Seal { error, key: config.seal.clone() })?;
    let sealer = Arc::new(StoreSealer::new(key, store.id(), system.clone()));
    drop(store);
    let ledger = Ledger::open(opener, system.clone(), given::settings(config)).map_err(Why::Ledger)?;
    // From here on everything goes by the clock that the ledger believes.
    let system = ledger.system();
    let decider = Decider {
        audits: Arc::default(),
        verdicts: Arc::new(Verdicts::new(config.limits.verdict_cache_bytes)),
        issuer: config.server.issuer.clone(),
        longest_ms: config.limits.credential_ttl_ms,
        longest_task_ms: config.limits.task_ttl_ms,
    };
    let mut admin_uids = config.admin_uids.clone();
    admin_uids.push(rustix::process::geteuid().as_raw());
    let parts = Parts {
        decider,
        bundles: Arc::default(),
        oidc: Arc::new(Issuers::new(config.oidc_issuers.iter().map(|i| i.issuer.clone()), system.clone())),
        own_domain: config.own_domain.clone().map(|own| OwnDomain::new(own, &config.server.issuer)),
        sealer,
        system,
        admin_uids,
        single_operator: config.single_operator,
        feed_max_age_ms: config.feed_max_age_ms,
        bounds: given::bounds(config),
        elsewhere,
    };
    let opened = ledger.clone();
    Authority::new(ledger, parts).inspect_err(|_| opened.stop()).map_err(Why::Keys)
}

/// A first start takes in what the files say; a later one compares, and the ledger counts.
async fn take_in_policy(config: &Config, authority: &Authority) -> Result<(), Why> {
    let environments = &config.server.environments;
    let loaded = policy_files::load(&config.policy);
    let missing = authority.ledger.peek(|state| import::missing(state, environments));
    if missing.is_empty() {
        match loaded {
            Ok(loaded) => authority
                .ledger
                .peek(|state| import::differences(state, &loaded, environments))
                .into_iter()
                .for_each(|what| tracing::warn!("{what}; the ledger counts, files are taken in at the first start only")),
            Err(wrong) => wrong.iter().for_each(|c| tracing::warn!("{c}; the ledger counts, so this changes nothing")),
        }
        return Ok(());
    }
    let loaded = loaded.map_err(Why::Policy)?;
    belong_somewhere(config, &loaded)?;
    let groups = authority.ledger.peek(|state| import::groups(state, &loaded, &missing));
    for records in groups {
        authority.ledger.commit(Lane::Change, records).await.map_err(refused("the policies and registrations"))?;
    }
    tracing::info!(environments = missing.join(","), upstreams = loaded.upstreams.len(), "policies and registrations taken in");
    Ok(())
}

/// A registration in an environment that is not served would be there and never work.
fn belong_somewhere(config: &Config, loaded: &policy_files::Loaded) -> Result<(), Why> {
    let environments = &config.server.environments;
    let strays = loaded.upstreams.iter().filter(|u| !environments.contains(&u.environment)).map(|u| {
        let what = format!("upstream {} is in environment {}, which server.environments has not", u.name, u.environment);
        Complaint::about(config.policy.upstreams.display().to_string(), what, format!("known: {}", environments.join(", ")))
    });
    let strays: Vec<Complaint> = strays.collect();
    if strays.is_empty() { Ok(()) } else { Err(Why::Policy(strays)) }
}

/// The bundles of the configuration. One whose trust domain the ledger does not know is taken in now. For one that it knows the ledger's
/// is in force already, and what changed in its file goes the way of every change.
async fn take_in_bundles(config: &Config, authority: &Authority) -> Result<BundleFiles, Why> {
    let named = config.bundles.iter().filter_map(|b| Some((TrustDomain::parse(&b.trust_domain).ok()?, b.file.clone())));
    let mut files = BundleFiles::new(named);
    let known =
        authority.ledger.peek(|state| state.bundles.iter().map(|(d, b)| (d.clone(), b.clone())).collect::<BTreeMap<_, _>>());
    for (domain, bundle) in &known {
        let from_file = !bundle.removed && Source::from_text(&bundle.source) == Some(Source::File);
        if from_file && !config.bundles.iter().any(|b| *b.trust_domain == **domain) {
            // Who takes a trust domain out of the configuration means that nobody of it comes in any more.
            tracing::warn!("{domain} is no longer configured: what it vouched for is revoked");
            let Ok(domain) = TrustDomain::parse(domain) else { continue };
            authority.no_longer_named(&domain).await.map_err(refused(&format!("the removal of {domain}")))?;
        }
    }
    let ours = config.own_domain.as_ref().map(|own| own.trust_domain.as_str());
    for (domain, bundle) in known.iter().filter(|(domain, _)| Some(&***domain) != ours) {
        if !bundle.removed && Source::from_text(&bundle.source) == Some(Source::Own) {
            tracing::warn!("{domain} is no longer our own trust domain: whoever signed in is out");
            let Ok(domain) = TrustDomain::parse(domain) else { continue };
            authority.no_longer_named(&domain).await.map_err(refused(&format!("the removal of {domain}")))?;
        }
    }
    let held = match files.read() {
        Ok(held) => held,
        Err(wrong) if config.bundles.iter().all(|b| known.contains_key(b.trust_domain.as_str())) => {
            wrong.iter().for_each(|problem| tracing::error!("{problem}; the bundle in force stays"));
            return Ok(files);
        }
        Err(wrong) => return Err(Why::Files(wrong)),
    };
    for (bundle, path) in held.iter().filter(|(b, _)| !known.contains_key(b.trust_domain().as_str())) {
        let found = authority.found_bundle(bundle, Source::File, &path.display().to_string()).await;
        found.map_err(refused(&format!("the bundle of {}", bundle.trust_domain())))?;
    }
    Ok(files)
}

fn bind(config: &Config) -> Result<Bound, Why> {
    let listen = &config.listen;
    let tcp = |key: &'static str, address: SocketAddr| {
        let bound = TcpListener::bind(address).and_then(|l| l.set_nonblocking(true).map(|()| l));
        // Said once more, with room for everybody who comes back after a restart.
        let bound = bound.and_then(|l| rustix::net::listen(&l, limits::BACKLOG).map(|()| l).map_err(Into::into));
        bound.map_err(|error| Why::Port { key, address, error })
    };
    let local = |key: &'static str, l: &TcpListener, address| l.local_addr().map_err(|error| Why::Port { key, address, error });
    let workload = tcp("listen.workload", listen.workload)?;
    let admin = tcp("listen.admin", listen.admin)?;
    let public = tcp("listen.public", listen.public)?;
    let shared = config.admin_uids.iter().any(|uid| *uid != rustix::process::geteuid().as_raw());
    let socket = listen.admin_socket.as_deref().map(|path| unix::bind(path, shared)).transpose().map_err(Why::Socket)?;
    let metrics = listen.metrics.map(|address| tcp("listen.metrics", address).map(|l| (l, address))).transpose()?;
    let addresses = Addresses {
        workload: local("listen.workload", &workload, listen.workload)?,
        admin: local("listen.admin", &admin, listen.admin)?,
        admin_socket: listen.admin_socket.clone(),
        public: local("listen.public", &public, listen.public)?,
        metrics: metrics.as_ref().map(|(l, address)| local("listen.metrics", l, *address)).transpose()?,
        pid: std::process::id(),
    };
    Ok(Bound { workload, admin, public, socket, metrics: metrics.map(|(l, _)| l), addresses })
}

/// For the threads: the public listener's TLS.
pub(super) type PublicTls = Arc<ServerConfig>;
