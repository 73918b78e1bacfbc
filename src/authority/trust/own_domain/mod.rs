//! The trust domain whose CA is mayfly itself: its bundle, its CRLs, and the logins behind its SVIDs.
//!
//! The CA's keys are managed like other keys (`mayfly key …`), and the bundle follows them: a key is in the bundle before it signs and
//! until everything that it signed has expired. An SVID of this domain is valid only if the ledger knows its login; otherwise it proves
//! nothing, whoever signed it.

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
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_identity::caller::{Caller, Person};
use mayfly_identity::oidc::AttestationRule;
use mayfly_identity::spiffe_id::{SpiffeId, TrustDomain};
use mayfly_identity::svid::VerifiedSvid;
use mayfly_ledger::record::Author;
use mayfly_ledger::state::{Login, login_of_serial};
use mayfly_verify::seq::CredentialId;

/// The configuration of the trust domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnDomainSettings {
    /// The name of the trust domain.
    pub trust_domain: TrustDomain,
    /// The maximum lifetime of a person's SVID, milliseconds.
    pub login_ttl_ms: u64,
    /// ID tokens without a `nonce` are accepted, since the device flow has none.
    pub device_login: bool,
    /// The rules by which jobs are admitted.
    pub attest_rules: Vec<AttestationRule>,
}

/// The trust domain that this server is the CA of.
pub struct OwnDomain {
    /// The name, which does not change while the process runs.
    pub trust_domain: TrustDomain,
    settings: ArcSwap<OwnDomainSettings>,
    /// The address of the public listener, the base of `iss`, without a trailing slash.
    base: String,
    crls: Mutex<BTreeMap<Box<str>, crl::SignedCrl>>,
    /// Counts the events that may have ended a certificate.
    changes: AtomicU64,
    /// The number of CRLs signed by this process.
    signed: AtomicU64,
    /// Bounds the number of logins in progress.
    pub places: Semaphore,
}

impl OwnDomain {
    /// Creates the state. `issuer` is the base of `iss`: the public listener's own name.
    pub fn new(settings: OwnDomainSettings, issuer: &str) -> OwnDomain {
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

    /// The configuration.
    pub fn settings(&self) -> Arc<OwnDomainSettings> {
        self.settings.load_full()
    }

    /// Replaces the settings of the same trust domain after a reload of the configuration.
    pub fn set(&self, settings: OwnDomainSettings) {
        if settings.trust_domain == self.trust_domain {
            self.settings.store(Arc::new(settings));
        }
    }

    /// The audience of a job's token: the issuer and, on platforms that let a job choose the audience, the key.
    pub fn audience(&self, key: Option<&str>) -> String {
        match key {
            Some(thumbprint) => format!("{}#{thumbprint}", self.base),
            None => self.base.clone(),
        }
    }

    /// The URL of the CRL of a CA key.
    pub fn crl_url(&self, key: &str) -> String {
        format!("{}/spiffe/crl/{key}", self.base)
    }

    /// The URL of the bundle (SPIFFE-Trust-Domain-and-Bundle, section 5, profile https_web).
    pub fn bundle_url(&self) -> String {
        format!("{}/spiffe/bundle.json", self.base)
    }
}

/// The refusal if this server is the CA of no trust domain.
pub fn not_configured() -> Refusal {
    Refusal::new(Reason::NotServed, "this server has no trust domain of its own, so nobody can sign in")
        .by("own_domain.trust_domain")
        .way_out("the owner of the configuration can set own_domain.trust_domain")
}

/// The login behind an SVID.
enum SvidLogin {
    Person(Person),
    Attested(CredentialId),
}

impl SvidLogin {
    fn login(&self) -> CredentialId {
        match self {
            SvidLogin::Person(person) => person.login,
            SvidLogin::Attested(login) => *login,
        }
    }
}

impl Authority {
    /// The caller of an SVID: with the person, if it is a person's login, or as a job that logged in.
    pub fn caller_of(&self, svid: &VerifiedSvid) -> Caller {
        let caller = Caller::from(svid);
        match self.login_of(&caller) {
            Some(Ok(SvidLogin::Person(person))) => caller.with_person(person),
            Some(Ok(SvidLogin::Attested(login))) => caller.with_attested(login),
            _ => caller,
        }
    }

    /// Checks that the login of a caller is still valid, if its SVID is of the own trust domain. Called on every call.
    pub(crate) fn login_stands(&self, caller: &Caller) -> Result<(), Error> {
        match self.login_of(caller) {
            None => Ok(()),
            Some(Ok(behind)) if caller.ancestor() == Some(behind.login()) => Ok(()),
            Some(Ok(_)) => {
                Err(Error::Refusal(Refusal::new(Reason::SvidNoLongerValid, "the login of this connection is not known")))
            }
            Some(Err(no)) => Err(Error::Refusal(no.way_out("sign in again: mayfly login, or mayfly ci login"))),
        }
    }

    /// The login behind an SVID; `None` for an SVID of another trust domain. An SVID that the ledger does not know byte for byte has no
    /// login, so a stolen CA key cannot make one.
    fn login_of(&self, caller: &Caller) -> Option<Result<SvidLogin, Refusal>> {
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
                true if login.job.is_some() => Ok(SvidLogin::Attested(login.id)),
                true => Ok(SvidLogin::Person(person(login))),
                false => Err(unknown()),
            }
        }))
    }
}

impl Authority {
    /// Resolves a name from records: the SPIFFE ID, and the person's newest login. A login that was given back counts until it expires,
    /// since signing out does not withdraw the person's requests. `None` for a person whose logins have all expired, and for a name that is
    /// no caller's.
    pub(crate) fn who_is(&self, name: &str) -> Option<(SpiffeId, Option<Person>)> {
        let of = match Author::named(name) {
            Author::Person(of) => of,
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
