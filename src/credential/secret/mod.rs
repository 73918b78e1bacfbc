//! Kind `secret`: a static secret of a vendor, stored sealed and handed out by a grant.
//!
//! - [`settings`]: the section `[secret]` of a registration. `template.toml`: a registration to start from.
//! - [`source`]: secrets that are kept elsewhere, and read there at each grant.
//!
//! Nothing is made at the vendor. A lease says which version was handed out, and is open until that version cannot be used by its holder any
//! more, as far as the registration asks for that: a revocation marks the version to be rotated, and the lease closes once it is over.
//! Versions, their rotation and their values are kept by the server ([`crate::access::vault`]).
//!
//! A lease may outlive its credential, and the cause for which it is undone changes then: a revoked credential expires in the meantime.
//! Undoing therefore marks the version durably at the first attempt and depends on the mark from then on. If the credential had ended long
//! before the first attempt, since the server was down, nobody can tell whether it was revoked before; the version is marked, too. For a secret
//! that is read at its source, the mark is in the note of the lease, and the lease closes once the source has another secret.

mod access;
mod settings;
mod source;

use std::sync::{Arc, OnceLock};

use zeroize::Zeroizing;

use self::settings::{SecretRelease, SecretSettings, SecretTerms};
use self::source::note::SourceNote;
use self::source::{SourceError, SourceReader, SourceTerms};
use crate::access::UpstreamAccess;
use crate::access::vault::{OpenedSecret, SecretStanding, SecretVault};
use crate::assertion::AssertionIssuers;
use crate::connector::{
    ConnectorFuture, MakeError, MintOrder, RepeatResponse, UndoError, UndoOrder, UpstreamConnector, UpstreamCredential,
    UpstreamHandle,
};
use crate::connectors::ConnectorEntry;
use crate::keyring::AssertionKeys;
use crate::lease::UndoCause;
use crate::{CredentialKind, CredentialMaterial, IssuedToken};
use mayfly_base::limits;
use mayfly_ledger::upstream::access::{AccessError, AccessQuery, GrantedAccess};
use mayfly_ledger::upstream::registry::Kind;
use mayfly_ledger::upstream::settings::{KindSettings, SettingsReader};
use mayfly_verify::seq::Millis;

/// The line of the kind in the table of connectors.
pub const ENTRY: ConnectorEntry = ConnectorEntry {
    settings: SettingsReader { kind: Kind::Secret, read: settings::read },
    build: |access| Arc::new(SecretConnector { access, issuers: OnceLock::new() }),
    template: include_str!("template.toml"),
};

/// The parts of a registration that matter for storing and rotating its secret.
pub struct StoredSecretSettings {
    /// The secret is sent in a header, so it must be visible ASCII.
    pub in_header: bool,
    /// How long a version that was rotated away stays valid, milliseconds.
    pub overlap_ms: u64,
    /// The environment variable that programs read the secret from.
    pub variable: Option<String>,
    /// Where the secret is read from, in words, if mayfly does not keep it.
    pub source: Option<String>,
}

/// Reads these parts; `None` for a registration without the section.
pub fn stored_settings(settings: &KindSettings) -> Option<StoredSecretSettings> {
    let read: SecretSettings = settings.read(CredentialKind::Secret.name()).ok()?;
    Some(StoredSecretSettings {
        in_header: read.header.is_some(),
        overlap_ms: mayfly_base::document::quantity::duration_ms(&read.overlap).unwrap_or(limits::SECRET_OVERLAP_MS),
        variable: read.variable,
        source: read.source.map(|source| source.told()),
    })
}

/// Whether a secret can be the value of a header: visible ASCII, with single spaces inside at the most (RFC 9110, section 5.5).
pub fn fits_a_header(secret: &[u8]) -> bool {
    let inside = |b: &u8| b.is_ascii_graphic() || *b == b' ';
    secret.iter().all(inside) && !secret.starts_with(b" ") && !secret.ends_with(b" ")
}

/// The connector.
struct SecretConnector {
    access: UpstreamAccess,
    issuers: OnceLock<AssertionIssuers>,
}

fn refused(why: impl std::fmt::Display) -> MakeError {
    MakeError::Refused(why.to_string())
}

fn terms_of(terms: &str) -> Result<SecretTerms, String> {
    serde_json::from_str(terms).map_err(|e| format!("its terms: {e}"))
}

fn note_of(bytes: &[u8]) -> Result<SourceNote, String> {
    SourceNote::parse(bytes).ok_or_else(|| "the note of the lease is of another version of mayfly".to_owned())
}

impl SecretConnector {
    fn vault(&self) -> Result<Arc<dyn SecretVault>, String> {
        self.access.vault().get()
    }

    fn settings(order: &MintOrder<'_>) -> Result<SecretSettings, MakeError> {
        order.settings.read(CredentialKind::Secret.name()).map_err(refused)
    }

    /// Opens the version of the terms for the target of the order; `None` if the version is over.
    async fn opened(&self, order: &MintOrder<'_>, terms: &SecretTerms) -> Result<Option<OpenedSecret>, MakeError> {
        let upstream = order.issued.upstream.as_str();
        let opened = self.vault().map_err(refused)?.open(upstream, terms.version).await.map_err(refused)?;
        match opened {
            Some(opened) if opened.target != order.base_url => Err(MakeError::NotReleased(format!(
                "the secret of upstream {upstream} was stored for {}, and the registration names {} now: an operator stores it again \
                 (mayfly secret put {upstream})",
                opened.target, order.base_url
            ))),
            opened => Ok(opened),
        }
    }

    /// The answer with a secret: for its header, or by itself.
    fn answer(order: &MintOrder<'_>, terms: &SecretTerms, value: Zeroizing<Vec<u8>>) -> Result<UpstreamCredential, MakeError> {
        let answer = match &terms.header {
            None => CredentialMaterial::Secret(value),
            Some(header) => {
                let text = std::str::from_utf8(&value).ok().filter(|_| fits_a_header(&value));
                let text = text.ok_or_else(|| {
                    let (which, remedy) = match &terms.source {
                        None => (format!("version {}", terms.version), format!("mayfly secret put {}", order.issued.upstream)),
                        Some(terms) => (terms.source.told(), "replace it there".to_owned()),
                    };
                    MakeError::NotReleased(format!(
                        "the secret of upstream {} ({which}) cannot be the value of a header: it has other characters than visible ASCII; to \
                         mend it: {remedy}",
                        order.issued.upstream
                    ))
                })?;
                CredentialMaterial::Bearer {
                    token: IssuedToken::secret(Zeroizing::new(text.to_owned())),
                    header: header.clone().into(),
                    scheme: terms.scheme.clone().unwrap_or_default().into(),
                    base_url: order.base_url.into(),
                }
            }
        };
        Ok(UpstreamCredential { answer, irrevocable: true, ends_at: None })
    }

    async fn release(&self, order: &MintOrder<'_>) -> Result<UpstreamCredential, MakeError> {
        let terms = terms_of(order.terms).map_err(refused)?;
        if let Some(source) = &terms.source {
            let value = self.reader().read(&order.issued.upstream, source).await?;
            if terms.asks_for_replacement() {
                let note = SourceNote::of(&value, self.access.system().random16());
                let keeper = order.keeper.ok_or_else(|| refused("there is no place for the note of the lease"))?;
                keeper.keep(note.to_bytes()).await.map_err(refused)?;
            }
            return Self::answer(order, &terms, value);
        }
        match self.opened(order, &terms).await? {
            Some(opened) => Self::answer(order, &terms, opened.value),
            // The version ended since the lease was named; the next request gets the version that replaced it.
            None => Err(refused(format!("version {} has ended just now", terms.version))),
        }
    }

    fn reader(&self) -> SourceReader<'_> {
        SourceReader { access: &self.access, issuers: self.issuers.get() }
    }

    /// Why the end of a credential asks for another secret; `None` if it does not.
    fn why_replaced(&self, order: &UndoOrder<'_>, terms: &SecretTerms) -> Option<String> {
        let (expired, now) = (Millis(terms.expires_at), self.access.system().wall());
        Some(match order.cause {
            None | Some(UndoCause::LeftBehind) => return None,
            Some(_) if terms.break_glass => format!("credential {} handed it out in break-glass", order.lease.credential),
            Some(UndoCause::Revoked(seq)) => format!("credential {} was revoked at seq {seq}", order.lease.credential),
            Some(UndoCause::Ended) if now.since(expired) > limits::SECRET_LATE_MS => format!(
                "credential {} ended while the server was down, and it may have been revoked before",
                order.lease.credential
            ),
            Some(UndoCause::Ended | UndoCause::TaskOver) => return None,
        })
    }

    /// Marks the version to be rotated, if its end asks for that.
    async fn mark(&self, order: &UndoOrder<'_>, terms: &SecretTerms) -> Result<(), String> {
        match self.why_replaced(order, terms) {
            Some(why) => self.vault()?.request_rotation(&order.lease.upstream, terms.version, &why).await,
            None => Ok(()),
        }
    }

    /// Marks the note of a lease, if its end asks for that.
    async fn mark_note(&self, order: &UndoOrder<'_>, terms: &SecretTerms) -> Result<(), String> {
        let Some(mut note) = order.secret.map(note_of).transpose()? else { return Ok(()) };
        if note.to_be_replaced || self.why_replaced(order, terms).is_none() {
            return Ok(());
        }
        note.to_be_replaced = true;
        let keeper = order.keeper.ok_or("there is no place for the note of the lease")?;
        keeper.keep(note.to_bytes()).await.map_err(|e| e.to_string())
    }

    /// Why a lease whose secret was read at a source cannot close yet.
    async fn stands_at_source(
        &self,
        order: &UndoOrder<'_>,
        (terms, source): (&SecretTerms, &SourceTerms),
    ) -> Result<Option<String>, String> {
        // Without a note, nothing was handed out.
        let Some(note) = order.secret.map(note_of).transpose()? else { return Ok(None) };
        if !note.to_be_replaced && self.why_replaced(order, terms).is_none() {
            return Ok(None);
        }
        let upstream = &*order.lease.upstream;
        match self.reader().read(upstream, source).await {
            Ok(value) if note.is_of(&value) => Ok(Some(format!(
                "the secret that was handed out is still there ({}): make a new key at the vendor, put it there in place of this one, and revoke \
                 this one at the vendor",
                source.source.told()
            ))),
            Ok(_) | Err(SourceError::Missing(_)) => Ok(None),
            Err(no) => Err(format!("whether the secret was replaced is not known: {no}")),
        }
    }

    /// Why the lease cannot close yet.
    async fn stands(&self, order: &UndoOrder<'_>, terms: &SecretTerms) -> Result<Option<String>, String> {
        if order.cause.is_none() || !terms.asks_for_replacement() {
            return Ok(None);
        }
        if let Some(source) = &terms.source {
            return self.stands_at_source(order, (terms, source)).await;
        }
        let (upstream, version) = (&*order.lease.upstream, terms.version);
        Ok(match self.vault()?.standing(upstream, version).await? {
            SecretStanding::InUse | SecretStanding::Over => None,
            SecretStanding::ToBeRotated => Some(format!(
                "version {version} was handed out and is to be rotated: mayfly secret rotate {upstream} --reason TEXT, or revoke it at the vendor and \
                 store a new one: mayfly secret put {upstream}"
            )),
            SecretStanding::Retiring => Some(format!(
                "version {version} was rotated away and is still valid at the vendor: mayfly secret show {upstream}"
            )),
        })
    }
}

impl UpstreamConnector for SecretConnector {
    fn kind(&self) -> CredentialKind {
        CredentialKind::Secret
    }

    fn describe(&self, query: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError> {
        access::describe(query)
    }

    fn name(&self, order: &MintOrder<'_>) -> Result<UpstreamHandle, MakeError> {
        let settings = Self::settings(order)?;
        let upstream = &order.issued.upstream;
        if settings.release == SecretRelease::Never {
            return Err(MakeError::NotReleased(format!(
                "the secret of upstream {upstream} is never handed out (release = \"never\" in its registration)"
            )));
        }
        let version = match &settings.source {
            Some(_) => 0,
            None => self.vault().map_err(refused)?.current_version(upstream).ok_or_else(|| {
                MakeError::NotReleased(format!(
                    "no secret of upstream {upstream} is stored; an operator runs: mayfly secret put {upstream}"
                ))
            })?,
        };
        let handle = match &settings.source {
            Some(source) => format!("{} for {}", source.told(), order.credential),
            None => format!("version {version} for {}", order.credential),
        };
        let terms = SecretTerms {
            version,
            source: settings.source.map(|source| SourceTerms {
                environment: order.issued.environment.clone(),
                target: order.base_url.to_owned(),
                source,
            }),
            on_revoke: settings.on_revoke,
            expires_at: order.issued.expires_at,
            break_glass: order.issued.break_glass,
            header: settings.header,
            scheme: settings.scheme,
        };
        let terms = serde_json::to_string(&terms).map_err(refused)?;
        // The secret does not end with the credential.
        Ok(UpstreamHandle { handle, ends_at: Millis(0), terms })
    }

    fn make<'a>(&'a self, order: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<UpstreamCredential, MakeError>> {
        Box::pin(self.release(order))
    }

    fn undo<'a>(&'a self, order: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<(), UndoError>> {
        Box::pin(async move {
            let terms = terms_of(order.terms).map_err(UndoError)?;
            if terms.asks_for_replacement() {
                let marked = match &terms.source {
                    Some(_) => self.mark_note(order, &terms).await,
                    None => self.mark(order, &terms).await,
                };
                marked.map_err(UndoError)?;
            }
            match self.stands(order, &terms).await.map_err(UndoError)? {
                Some(why) => Err(UndoError(why)),
                None => Ok(()),
            }
        })
    }

    fn is_gone<'a>(&'a self, order: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<bool, UndoError>> {
        Box::pin(async move {
            let terms = terms_of(order.terms).map_err(UndoError)?;
            Ok(self.stands(order, &terms).await.map_err(UndoError)?.is_none())
        })
    }

    fn settles_ms(&self) -> u64 {
        // Nothing is on its way to a vendor.
        0
    }

    fn again<'a>(&'a self, order: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<RepeatResponse, MakeError>> {
        Box::pin(async move {
            let terms = terms_of(order.terms).map_err(refused)?;
            if terms.source.is_some() {
                // The source may have another secret by now.
                return Ok(RepeatResponse::Replace);
            }
            match self.opened(order, &terms).await? {
                Some(opened) => Ok(RepeatResponse::Same(Self::answer(order, &terms, opened.value)?)),
                None => Ok(RepeatResponse::Replace),
            }
        })
    }

    fn undoes_with_note(&self) -> bool {
        true
    }

    fn assertion_keys(&self, settings: &KindSettings) -> Option<AssertionKeys> {
        let settings: SecretSettings = settings.read(CredentialKind::Secret.name()).ok()?;
        Some(AssertionKeys { algorithm: settings.source?.algorithm()?, manual: false })
    }

    fn begin(&self, issuers: &AssertionIssuers) {
        // The first call counts.
        let _ = self.issuers.set(issuers.clone());
    }

    fn use_once<'a>(
        &'a self,
        order: &'a MintOrder<'a>,
        _answer: &'a CredentialMaterial,
    ) -> ConnectorFuture<'a, Result<String, MakeError>> {
        Box::pin(async move {
            let terms = terms_of(order.terms).map_err(refused)?;
            if let Some(terms) = &terms.source {
                let source = terms.source.told();
                return Ok(format!("it was read ({source}) and fits the registration; the vendor was not asked"));
            }
            Ok(format!(
                "version {} opens with the sealing key and fits the registration; the vendor was not asked",
                terms.version
            ))
        })
    }
}
