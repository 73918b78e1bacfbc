//! Upstreams that people connect by signing in at their authorization server (`mayfly upstream connect`).
//!
//! The grants are named values of the store, which the connector keeps ([`mayfly_credential::sign_in`]). Here are the permissions of
//! operators, and the states that lists, the status and metrics show.

use std::sync::Arc;

use crate::authority::Authority;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_credential::sign_in::{
    ConnectionState, Disconnected, SignInError, SignInOrder, SignInProgress, SignInPrompt, SignInWay, UpstreamConnection,
    UpstreamSignIn,
};
use mayfly_identity::caller::Operator;
use mayfly_ledger::record::Author;
use mayfly_ledger::upstream::registry::Upstream;
use mayfly_policy::admin;
use zeroize::Zeroizing;

fn refused(error: SignInError) -> Error {
    let reason = match error {
        SignInError::NotForThis(_) => Reason::NotServed,
        SignInError::Exists(_) => Reason::AlreadyExists,
        SignInError::NotFound(_) => Reason::NotFound,
        SignInError::Failed(_) => Reason::UpstreamFailed,
        SignInError::Busy(_) => Reason::LimitReached,
    };
    Error::Refusal(Refusal::new(reason, error.to_string()))
}

fn name_of(author: &Author) -> String {
    match author {
        Author::SpiffeId(id) => id.clone(),
        Author::Person(person) => person.name(),
        Author::LocalUid(uid) => format!("uid {uid}"),
        Author::Mayfly(cause) => format!("mayfly: {cause}"),
    }
}

impl Authority {
    fn sign_in_of(&self, upstream: &Upstream) -> Result<&dyn UpstreamSignIn, Error> {
        self.leases.remotes().sign_ins().find(|part| part.wants_sign_in(upstream)).ok_or_else(|| {
            let name = &upstream.name;
            let what =
                format!("nobody signs in to upstream {name}: its registration has no [oauth] with grant = \"refresh_token\"");
            Error::Refusal(Refusal::new(Reason::NotServed, what))
        })
    }

    /// The registration of an upstream that the operator may manage.
    async fn managed(&self, operator: &Operator, name: &str) -> Result<(Upstream, bool, String), Error> {
        let found = self.standing_of(name).await?;
        let environment = found.as_ref().map(|(upstream, _)| upstream.environment.clone());
        // An operator who may manage no upstreams must not learn which upstreams exist.
        let admitted = self.admit_to_found::<admin::ManageUpstreams>(operator, environment.as_deref())?;
        match (admitted, found) {
            (Some(admitted), Some((upstream, version))) => Ok((upstream, version.active, name_of(&admitted.who()))),
            _ => Err(Error::Refusal(Refusal::new(Reason::NotFound, format!("there is no upstream {name}")))),
        }
    }

    /// Begins a sign-in at the authorization server of an upstream.
    ///
    /// Refused: NOT_FOUND, UPSTREAM_NOT_ACTIVE, NOT_SERVED where nobody signs in, ALREADY_EXISTS where somebody is, UPSTREAM_FAILED,
    /// LIMIT_REACHED.
    pub async fn connect_upstream(&self, operator: &Operator, name: &str, way: SignInWay) -> Result<SignInPrompt, Error> {
        let (upstream, active, by) = self.managed(operator, name).await?;
        if !active {
            let no = Refusal::new(Reason::UpstreamNotActive, format!("upstream {name} is not active"));
            return Err(Error::Refusal(no.way_out(format!("mayfly upstream enable {name} --reason TEXT"))));
        }
        self.sign_in_of(&upstream)?.begin(SignInOrder { upstream: &upstream, way, by }).await.map_err(refused)
    }

    /// Goes on with a sign-in: with the code of the browser, or by asking whether a device's code was typed. What the server answers is kept
    /// even if the caller is gone by then.
    ///
    /// Refused: NOT_FOUND, ALREADY_EXISTS, UPSTREAM_FAILED.
    pub async fn complete_connection(
        self: &Arc<Self>,
        operator: &Operator,
        id: &str,
        code: Option<Zeroizing<String>>,
    ) -> Result<SignInProgress, Error> {
        let name = self.leases.remotes().sign_ins().find_map(|part| part.upstream_of(id));
        let Some(name) = name else {
            self.scope::<admin::ManageUpstreams>(operator)?;
            let what = "there is no such sign-in: it ended, or the server was started again";
            return Err(Error::Refusal(Refusal::new(Reason::NotFound, what).way_out("mayfly upstream connect NAME")));
        };
        let (upstream, _, by) = self.managed(operator, &name).await?;
        let (this, id) = (self.clone(), id.to_owned());
        let done = tokio::spawn(async move {
            let part = this.sign_in_of(&upstream)?;
            let progress = part.proceed(&id, code).await.map_err(refused)?;
            if progress == SignInProgress::Connected {
                tracing::info!(upstream = %upstream.name, by, "somebody signed in at the authorization server of an upstream");
            }
            Ok::<_, Error>(progress)
        });
        let progress = done.await.map_err(|e| Error::Fault(Fault::new(format!("a sign-in: {e}"))))??;
        self.look_at_connections().await;
        Ok(progress)
    }

    /// Ends the grant of an upstream. From then on it is not used; revoking it at the server is tried until it works.
    ///
    /// Refused: NOT_FOUND where there is no upstream or nobody is signed in, NOT_SERVED where nobody signs in to it.
    pub async fn disconnect_upstream(self: &Arc<Self>, operator: &Operator, name: &str) -> Result<Disconnected, Error> {
        let (upstream, _, by) = self.managed(operator, name).await?;
        let (this, name) = (self.clone(), name.to_owned());
        let done = tokio::spawn(async move {
            let mut none = SignInError::NotFound(format!("nobody is signed in to upstream {name}"));
            for part in this.leases.remotes().sign_ins() {
                match part.disconnect(&name).await {
                    Ok(ended) => {
                        tracing::info!(upstream = %name, by, "an upstream was disconnected");
                        return Ok(ended);
                    }
                    Err(error) => none = error,
                }
            }
            // A grant may be older than a registration by which nobody signs in any more.
            if let SignInError::NotFound(_) = none {
                this.sign_in_of(&upstream)?;
            }
            Err(refused(none))
        });
        let ended = done.await.map_err(|e| Error::Fault(Fault::new(format!("disconnecting: {e}"))))??;
        self.look_at_connections().await;
        Ok(ended)
    }

    /// Reads the grants, for everything that shows them.
    pub async fn look_at_connections(&self) -> Arc<Vec<UpstreamConnection>> {
        let mut all = Vec::new();
        for part in self.leases.remotes().sign_ins() {
            match part.connections().await {
                Ok(found) => all.extend(found),
                Err(error) => {
                    tracing::warn!(%error, "the grants of upstreams cannot be read");
                    return self.connections.load_full();
                }
            }
        }
        let all = Arc::new(all);
        self.connections.store(all.clone());
        all
    }

    /// Where the grant of an upstream stands, as of the last look; `None` for an upstream that needs none.
    pub fn connection_of(&self, upstream: &Upstream) -> Option<UpstreamConnection> {
        let known = self.connections.load();
        if let Some(found) = known.iter().find(|connection| connection.upstream == upstream.name) {
            return Some(found.clone());
        }
        self.leases.remotes().sign_ins().find(|part| part.wants_sign_in(upstream))?;
        Some(UpstreamConnection {
            upstream: upstream.name.clone(),
            environment: upstream.environment.clone(),
            state: ConnectionState::None,
            connected_at: Default::default(),
            connected_by: String::new(),
            refreshed_at: Default::default(),
            trouble: String::new(),
            trouble_since: Default::default(),
        })
    }

    /// The number of active upstreams that somebody has to sign in to, as of the last look.
    pub fn awaiting_sign_in(&self) -> usize {
        let compiled = self.catalog.now();
        let active =
            self.ledger.peek(|s| s.upstreams.iter().filter(|(_, v)| v.active).map(|(n, _)| n.to_string()).collect::<Vec<_>>());
        let of = |name: &String| compiled.upstream(name).and_then(|registered| self.connection_of(&registered.upstream));
        let waits = |c: &UpstreamConnection| matches!(c.state, ConnectionState::None | ConnectionState::SignInAgain);
        active.iter().filter_map(of).filter(waits).count()
    }

    /// Refreshes grants before the idle limit of their servers, and revokes those that were disconnected, or whose upstream is retired.
    pub async fn tend_connections(&self) {
        let registered = self
            .ledger
            .settled(|s| s.upstreams.iter().filter(|(_, v)| !v.retired).map(|(n, _)| n.to_string()).collect::<Vec<_>>());
        // Without the ledger, it is unknown which upstreams are retired.
        let Ok(names) = registered.await else { return };
        let compiled = self.catalog.now();
        let upstreams: Vec<Arc<Upstream>> =
            names.iter().filter_map(|name| compiled.upstream(name).map(|r| r.upstream.clone())).collect();
        if upstreams.len() != names.len() {
            return;
        }
        for part in self.leases.remotes().sign_ins() {
            part.tend(upstreams.clone()).await;
        }
        self.look_at_connections().await;
    }
}
