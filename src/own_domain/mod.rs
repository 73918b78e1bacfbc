//! The trust domain that mayfly itself is the CA of: its bundle, its CRLs, and who its SVIDs belong to.
//!
//! The CA's keys are keys like the others (`mayfly key …`). The bundle follows them: a key is in it before it signs and until all that it
//! signed has ended. An SVID of this domain is good where the ledger knows its login, and else proves nothing, whoever signed it.

mod bundle;
mod crl;
mod names;

use std::sync::Arc;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

pub(crate) use bundle::anchor_of;
pub use names::{attested_id, person_id};

use crate::authority::Authority;
use crate::identity::caller::{Caller, Person};
use crate::identity::oidc::AttestRule;
use crate::identity::spiffe_id::{SpiffeId, TrustDomain};
use crate::identity::svid::VerifiedSvid;
use crate::ledger::record::Who;
use crate::ledger::state::{Login, login_of_serial};
use crate::limits;
use crate::refusal::{No, Reason, Refusal};
use crate::seq::CredentialId;

/// What the configuration says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its name.
    pub trust_domain: TrustDomain,
    /// How long the SVID of somebody who signed in lives at the most, milliseconds.
    pub login_ttl_ms: u64,
    /// ID tokens without a `nonce` are taken: the device flow has none.
    pub device_login: bool,
    /// Which jobs are let in.
    pub attest_rules: Vec<AttestRule>,
}

/// The trust domain that this server is the CA of.
pub struct OwnDomain {
    /// Its name, for as long as the process lives.
    pub trust_domain: TrustDomain,
    settings: ArcSwap<Settings>,
    /// Where the public listener is known: base of `iss`, without a slash at its end.
    base: String,
    crls: Mutex<BTreeMap<Box<str>, crl::Held>>,
    /// Counts what may have ended a certificate.
    changes: AtomicU64,
    /// CRLs signed by this process.
    signed: AtomicU64,
    /// Logins that are looked at.
    pub places: Semaphore,
}

impl OwnDomain {
    /// `issuer` is the base of `iss`: the public listener's own name.
    pub fn new(settings: Settings, issuer: &str) -> OwnDomain {
        OwnDomain {
            trust_domain: settings.trust_domain.clone(),
            settings: ArcSwap::from_pointee(settings),
            base: issuer.trim_end_matches('/').to_owned(),
            crls: Mutex::default(),
            changes: AtomicU64::new(0),
            signed: AtomicU64::new(0),
            places: Semaphore::new(limits::LOGINS_AT_ONCE),
        }
    }

    /// What the configuration says of it.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Other settings from here on, of the same trust domain: the configuration was read again.
    pub fn set(&self, settings: Settings) {
        if settings.trust_domain == self.trust_domain {
            self.settings.store(Arc::new(settings));
        }
    }

    /// What a job's token is for: our issuer, and, where the platform lets a job say that, the key.
    pub fn audience(&self, key: Option<&str>) -> String {
        match key {
            Some(thumbprint) => format!("{}#{thumbprint}", self.base),
            None => self.base.clone(),
        }
    }

    /// Where the CRL of a CA key lies.
    pub fn crl_url(&self, key: &str) -> String {
        format!("{}/spiffe/crl/{key}", self.base)
    }

    /// Where its bundle lies (SPIFFE-Trust-Domain-and-Bundle, section 5, profile https_web).
    pub fn bundle_url(&self) -> String {
        format!("{}/spiffe/bundle.json", self.base)
    }
}

/// This server is the CA of no trust domain.
pub fn not_configured() -> Refusal {
    Refusal::new(Reason::NotServed, "this server has no trust domain of its own, so nobody signs in to it")
        .by("own_domain.trust_domain")
        .way_out("whoever owns the configuration sets own_domain.trust_domain")
}

/// Whose login an SVID is.
enum Behind {
    Person(Person),
    Attested(CredentialId),
}

impl Behind {
    fn login(&self) -> CredentialId {
        match self {
            Behind::Person(person) => person.login,
            Behind::Attested(login) => *login,
        }
    }
}

impl Authority {
    /// The caller that an SVID is: with the person behind it, where it is somebody's login, or as a job that signed in.
    pub fn caller_of(&self, svid: &VerifiedSvid) -> Caller {
        let caller = Caller::from(svid);
        match self.login_of(&caller) {
            Some(Ok(Behind::Person(person))) => caller.with_person(person),
            Some(Ok(Behind::Attested(login))) => caller.with_attested(login),
            _ => caller,
        }
    }

    /// Whether the login of a caller stands, where its SVID is of our own domain: on every call.
    pub(crate) fn login_stands(&self, caller: &Caller) -> Result<(), No> {
        match self.login_of(caller) {
            None => Ok(()),
            Some(Ok(behind)) if caller.ancestor() == Some(behind.login()) => Ok(()),
            Some(Ok(_)) => Err(No::Refusal(Refusal::new(Reason::SvidNoLongerValid, "the login of this connection is not known"))),
            Some(Err(no)) => Err(No::Refusal(no.way_out("sign in again: mayfly login, or mayfly ci login"))),
        }
    }

    /// Whose login an SVID is; `None` for one of another trust domain. What the ledger does not know byte for byte is nobody's:
    /// whoever has the CA's key still makes no login.
    fn login_of(&self, caller: &Caller) -> Option<Result<Behind, Refusal>> {
        let own = self.own_domain.as_ref()?;
        let evidence = caller.evidence();
        if evidence.trust_domain != own.trust_domain {
            return None;
        }
        let unknown = || Refusal::new(Reason::SvidNoLongerValid, "no login is known that has this SVID");
        let Some(id) = login_of_serial(&evidence.serial) else { return Some(Err(unknown())) };
        let now = self.system.wall();
        Some(self.ledger.peek(|state| {
            let login = state.login_alive(&id, now)?;
            match login.certificate == evidence.leaf_sha256 && *login.caller == *caller.id().as_str() {
                true if login.job.is_some() => Ok(Behind::Attested(login.id)),
                true => Ok(Behind::Person(person(login))),
                false => Err(unknown()),
            }
        }))
    }
}

impl Authority {
    /// Somebody by the name that records have: the SPIFFE ID, and the person's newest login. One that was given back counts until its end:
    /// whoever signs out takes back nothing that they asked for. `None` for a person none of whose logins still would be good, and for a name
    /// that is no caller's.
    pub(crate) fn who_is(&self, name: &str) -> Option<(SpiffeId, Option<Person>)> {
        let of = match Who::named(name) {
            Who::Person(of) => of,
            _ => return SpiffeId::parse(name).ok().map(|id| (id, None)),
        };
        let now = self.system.wall();
        self.ledger.peek(|state| {
            let good = |l: &&Arc<Login>| l.expires_at > now && state.rules.covers(&l.facts()).is_none();
            let newest = state.logins_of(&of).filter(good).max_by_key(|l| l.seq)?;
            Some((SpiffeId::parse(&newest.caller).ok()?, Some(person(newest))))
        })
    }
}

fn person(login: &Login) -> Person {
    Person {
        login: login.id,
        issuer: login.person.issuer.as_str().into(),
        subject: login.person.sub.as_str().into(),
        amr: login.amr.clone(),
        acr: login.acr.clone(),
        auth_time: login.auth_time,
    }
}
