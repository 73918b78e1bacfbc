//! Accepts connections within limits.
//!
//! - Handshakes in progress have separate places (`PendingHandshakes`). Beyond them, new sockets wait in the kernel's backlog, where they
//!   cost nothing, and a peer that keeps the server waiting loses its place to them. Clients that reconnect after a restart therefore get
//!   in one after the other, and sockets that send nothing keep nobody out.
//! - Open connections are shared fairly among their holders ([`ConnectionTable`]): when all places are taken, the holder with the most
//!   connections loses one. If nobody holds more than the new peer, the new connection is closed, so that the peer can try another replica
//!   instead of waiting.
//! - Operators have a separate listener, with separate limits, on a separate thread.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::call_handler;
use super::connection::{ConnectionOutcome, NegotiatedProtocol};
use super::connection_end::{ConnectionEnds, Stopping, TrustChanges};
use super::connection_table::{ConnectionActivity, ConnectionSlot, ConnectionTable};
use super::grpc::Services;
use super::handshakes::Handshakes;
use super::peer::Peer;
use super::pending_handshakes::{HandshakePlace, PendingHandshakes};
use super::shares::{Holder, Pool};
use super::tls::{MtlsAcceptor, PeerError, defect_of};
use mayfly_authority::authority::Authority;
use mayfly_authority::metrics::handshakes::{HandshakeClause, HandshakeMetrics, LISTENERS, TlsDefect};
use mayfly_base::limits;
use mayfly_base::system::System;
use mayfly_identity::caller::Caller;
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_identity::svid::VerifiedSvid;

/// Pause after `accept` failed for lack of a system resource.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The limits of one listener.
#[derive(Clone, Copy, Debug)]
pub struct ListenerLimits {
    /// Concurrent open connections.
    pub connections: usize,
    /// Concurrent handshakes.
    pub handshakes: usize,
    /// Concurrent calls on one connection.
    pub streams: u32,
}

/// The counters of one listener, for the status.
#[derive(Default, Debug)]
pub struct ListenerCounts {
    open: AtomicUsize,
    accepted: AtomicU64,
    refused: AtomicU64,
    full: AtomicU64,
}

impl ListenerCounts {
    /// The number of open connections.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// The number of connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// The number of peers that were refused in the handshake.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The number of sockets that were closed because there were too many.
    pub fn full(&self) -> u64 {
        self.full.load(Ordering::Relaxed)
    }
}

/// The kind of a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// For workloads.
    Workload,
    /// For operators.
    Admin,
    /// For everybody.
    Public,
    /// For scrapers of the metrics.
    Metrics,
}

impl Role {
    /// The name, for log lines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Workload => "workload",
            Role::Admin => "admin",
            Role::Public => "public",
            Role::Metrics => "metrics",
        }
    }

    /// The listener's index in [`LISTENERS`].
    fn place(self) -> usize {
        LISTENERS.iter().position(|name| *name == self.as_str()).unwrap_or_default()
    }

    fn peer(self, caller: Caller) -> Peer {
        match self {
            Role::Admin => Peer::Admin(caller),
            Role::Workload | Role::Public | Role::Metrics => Peer::Workload(caller),
        }
    }
}

/// The gate of one listener: it admits connections within the limits.
#[derive(Clone)]
pub struct Gate {
    role: Role,
    connections: Arc<ConnectionTable>,
    arrivals: Arc<PendingHandshakes>,
    streams: u32,
    counts: Arc<ListenerCounts>,
    stopping: Stopping,
    tasks: TaskTracker,
    system: System,
    handshaking: Option<Arc<Handshakes>>,
    refused: Arc<HandshakeMetrics>,
}

/// The place of a connection, which is released when this value is dropped.
pub struct ConnectionPlace {
    slot: ConnectionSlot,
    counts: Arc<ListenerCounts>,
}

impl ConnectionPlace {
    /// The activity of the connection.
    pub fn activity(&self) -> &Arc<ConnectionActivity> {
        self.slot.activity()
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    /// A gate with these limits. `pool` bounds the resources that the admitted connections may hold.
    pub fn new(role: Role, bounds: ListenerLimits, pool: Pool, stopping: Stopping, system: System) -> Gate {
        Gate {
            role,
            connections: ConnectionTable::new(bounds.connections, pool),
            arrivals: PendingHandshakes::new(bounds.handshakes, system.clone()),
            streams: bounds.streams,
            counts: Arc::default(),
            stopping,
            tasks: TaskTracker::new(),
            system,
            handshaking: None,
            refused: Arc::default(),
        }
    }

    /// With the counter of refused handshakes that all listeners share.
    pub fn refusals_in(self, refused: Arc<HandshakeMetrics>) -> Gate {
        Gate { refused, ..self }
    }

    /// With separate threads for handshakes.
    pub fn handshaking_on(self, handshaking: Arc<Handshakes>) -> Gate {
        Gate { handshaking: Some(handshaking), ..self }
    }

    /// The counters of the listener.
    pub fn counts(&self) -> Arc<ListenerCounts> {
        self.counts.clone()
    }

    /// Concurrent calls on one connection.
    pub fn streams(&self) -> u32 {
        self.streams
    }

    /// The signal that the server stops.
    pub fn stopping(&self) -> Stopping {
        self.stopping.clone()
    }

    /// Time and randomness.
    pub fn system(&self) -> &System {
        &self.system
    }

    /// A place for another connection of this holder, if the holder may have one.
    pub fn place(&self, holder: Holder) -> Option<ConnectionPlace> {
        let Some(slot) = self.connections.enter(holder) else {
            self.refused.refused(self.role.place(), HandshakeClause::Tls(TlsDefect::NoPlace), self.system.steady());
            self.full();
            return None;
        };
        self.counts.open.fetch_add(1, Ordering::Relaxed);
        self.counts.accepted.fetch_add(1, Ordering::Relaxed);
        Some(ConnectionPlace { slot, counts: self.counts.clone() })
    }

    fn full(&self) {
        if self.counts.full.fetch_add(1, Ordering::Relaxed).is_power_of_two() {
            tracing::warn!(listener = self.role.as_str(), "the limit of connections is reached; new connections are closed");
        }
    }

    /// Runs `serve` for one connection in its own task; the end of the server waits for the task.
    pub fn spawn(&self, serve: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(serve);
    }

    /// Waits until the last connection has ended. Called after accepting has ended.
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Accepts connections until the server stops. `each` gets every socket with its handshake place.
    pub async fn accept(&self, listener: &TcpListener, each: impl Fn(TcpStream, SocketAddr, HandshakePlace)) {
        let mut stopping = self.stopping.clone();
        loop {
            let next = async {
                let (tcp, from) = listener.accept().await?;
                // If no peer could get a place, a handshake would be useless.
                let shut = self.connections.is_shut();
                let arriving = if shut { None } else { self.arrivals.admit(&tcp, from).await };
                if shut {
                    self.refused.refused(self.role.place(), HandshakeClause::Tls(TlsDefect::NoPlace), self.system.steady());
                    self.full();
                }
                Ok::<_, io::Error>((tcp, from, arriving))
            };
            let accepted = tokio::select! {
                next = next => next,
                _ = stopping.wait_for(|stops| *stops) => return,
            };
            match accepted {
                Ok((tcp, from, Some(arriving))) => {
                    // Otherwise an answer may wait for the acknowledgement of the previous one (Nagle's algorithm).
                    let _ = tcp.set_nodelay(true);
                    each(tcp, from, arriving);
                }
                Ok((.., None)) => {}
                Err(error) => self.not_accepted(&error).await,
            }
        }
    }

    /// Ends connections whose peers do not read their answers, until the server stops.
    pub async fn sweep(&self) {
        let mut stopping = self.stopping.clone();
        let mut tick = tokio::time::interval(Duration::from_millis(limits::SWEEP_MS));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                _ = stopping.wait_for(|stops| *stops) => return,
            }
            let unread = self.connections.sweep();
            if unread > 0 {
                tracing::warn!(
                    listener = self.role.as_str(),
                    unread,
                    "connections were closed because their peers do not read the answers"
                );
            }
        }
    }

    /// Handles an error of `accept`. A peer that went away before it was accepted is ignored; all other errors end only when resources are
    /// released, so accepting pauses.
    async fn not_accepted(&self, error: &io::Error) {
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted)
        {
            return;
        }
        tracing::error!(listener = self.role.as_str(), %error, "accepting a connection failed");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }

    /// Counts and logs a refused handshake. The peer is not authenticated, so the log has only values in which it cannot hide other text:
    /// its address, the clause, the TLS library's own words for the cause, and a SPIFFE ID in its canonical form.
    fn refused(&self, from: SocketAddr, no: &PeerError) {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        let (listener, clause) = (self.role.as_str(), no.clause());
        let (code, why, cause) = (clause.code(), no.to_string(), no.cause());
        if self.refused.refused(self.role.place(), clause, self.system.steady()) {
            let claimed_id = no.claimed().map(SpiffeId::as_str);
            tracing::warn!(listener, %from, clause = code, why, cause, claimed_id, "a handshake was refused");
        } else {
            tracing::debug!(listener, %from, clause = code, why, cause, "a handshake was refused");
        }
    }

    fn ended(&self, who: &str, ended: &ConnectionOutcome) {
        tracing::debug!(listener = self.role.as_str(), who, ?ended, "connection ended");
    }
}

/// The additional parts of an mTLS listener.
#[derive(Clone)]
pub struct MtlsParts {
    /// Performs the handshake.
    pub acceptor: MtlsAcceptor,
    /// The shared state, with the bundles in effect and the count of open connections.
    pub authority: Arc<Authority>,
    /// The signal that the bundles changed.
    pub changes: TrustChanges,
    /// The services.
    pub services: Services,
}

/// Serves gRPC over mTLS until the server stops, and then until the last connection has ended.
pub async fn serve_mtls(gate: Gate, listener: TcpListener, mtls: MtlsParts) {
    let accepting = gate.accept(&listener, |tcp, from, arriving| {
        let (gate, mtls) = (gate.clone(), mtls.clone());
        let tracked = gate.clone();
        tracked.spawn(async move {
            let acceptor = mtls.acceptor.clone();
            let handshake = (tcp, |tcp| async move { acceptor.accept(tcp).await });
            let Some((stream, svid)) = handshaken(&gate, handshake, from, arriving).await else { return };
            let who = svid.id().as_str().to_owned();
            let Some(place) = gate.place(Holder::Identity(who.as_str().into())) else { return };
            let agreed = NegotiatedProtocol::by_alpn(stream.get_ref().1.alpn_protocol());
            let ended = serve_one(&gate, &mtls, (stream, agreed), (svid, place)).await;
            gate.ended(&who, &ended);
        });
    });
    tokio::join!(accepting, gate.sweep());
    // From here on, new connections are refused instead of waiting.
    drop(listener);
    gate.finished().await;
}

async fn serve_one<IO>(
    gate: &Gate,
    mtls: &MtlsParts,
    (stream, agreed): (IO, NegotiatedProtocol),
    (svid, place): (VerifiedSvid, ConnectionPlace),
) -> ConnectionOutcome
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let random = gate.system.random16();
    let jitter = u64::from_be_bytes(random.first_chunk::<8>().copied().unwrap_or_default());
    let _counted = mtls.authority.peers.enter(svid.evidence().trust_anchor);
    let (bundles, changes) = (mtls.authority.bundles.clone(), mtls.changes.clone());
    let ends = ConnectionEnds::with_svid(
        svid.evidence().clone(),
        bundles,
        changes,
        gate.system.clone(),
        gate.stopping(),
        (place.activity().clone(), jitter),
    );
    let peer = gate.role.peer(mtls.authority.caller_of(&svid));
    call_handler::serve(stream, agreed, mtls.services.clone(), peer, ends, gate.streams).await
}

/// Performs a handshake within its time, on the handshake threads if there are any. The handshake place is released afterwards.
async fn handshaken<T, F>(
    gate: &Gate,
    (tcp, accept): (TcpStream, impl FnOnce(TcpStream) -> F + Send + 'static),
    from: SocketAddr,
    arriving: HandshakePlace,
) -> Option<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T, PeerError>> + Send + 'static,
{
    // The time limit includes the wait for a thread.
    let within = Duration::from_millis(limits::HANDSHAKE_MS);
    let accepting = async move {
        arriving.first_byte(&tcp).await;
        let accepted = match &gate.handshaking {
            None => accept(tcp).await,
            Some(threads) => threads.run(accept(tcp)).await?,
        };
        drop(arriving);
        Some(accepted)
    };
    let accepted = tokio::time::timeout(within, accepting).await.ok().flatten();
    match accepted {
        Some(Ok(peer)) => Some(peer),
        Some(Err(no)) => {
            gate.refused(from, &no);
            None
        }
        None => {
            gate.refused(from, &PeerError::Tls(TlsDefect::TooSlow, String::new()));
            None
        }
    }
}

/// A handshake without a client certificate, for the public listener.
pub async fn handshake_public(
    gate: &Gate,
    config: Arc<ServerConfig>,
    tcp: TcpStream,
    (from, arriving): (SocketAddr, HandshakePlace),
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    let accept =
        |tcp| async { TlsAcceptor::from(config).accept(tcp).await.map_err(|e| PeerError::Tls(defect_of(&e), e.to_string())) };
    handshaken(gate, (tcp, accept), from, arriving).await
}

/// The handshake of a plaintext listener: the peer has to send its first bytes within the time of a handshake.
pub async fn arrive_plain(gate: &Gate, tcp: TcpStream, (from, arriving): (SocketAddr, HandshakePlace)) -> Option<TcpStream> {
    handshaken(gate, (tcp, |tcp| async { Ok(tcp) }), from, arriving).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_listener_has_its_own_place_among_the_refused_handshakes() {
        let roles = [Role::Workload, Role::Admin, Role::Public, Role::Metrics];
        assert_eq!(roles.map(Role::as_str), LISTENERS);
        assert_eq!(roles.map(Role::place), [0, 1, 2, 3]);
    }
}
