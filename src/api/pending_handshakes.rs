//! Places for connections whose handshake has not finished.
//!
//! Open connections have separate places. The number of handshake places is bounded by not accepting: beyond the limit new sockets wait in
//! the kernel's backlog. If all places are taken, a peer that keeps the server waiting loses its place to a new socket: first peers that
//! have sent nothing, and of these the oldest one of the source address with the most handshakes. Silent sockets, however many, therefore
//! keep no client out, and a client that waits for the server loses nothing.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::shares::Network;
use mayfly_base::limits;
use mayfly_base::system::System;

/// The handshakes in progress on one listener.
pub struct PendingHandshakes {
    places: Arc<Semaphore>,
    most: usize,
    system: System,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    all: BTreeMap<u64, Arrival>,
    of: HashMap<Network, usize>,
    next: u64,
}

struct Arrival {
    source: Network,
    /// A second handle of the socket, used to inspect the socket and to shut it down.
    socket: OwnedFd,
    spoke: Arc<AtomicBool>,
    /// Arrival time, by the steady clock.
    at: u64,
    ended: bool,
}

/// A place for one handshake. Dropping it releases the place.
pub struct HandshakePlace {
    arrivals: Arc<PendingHandshakes>,
    number: u64,
    spoke: Arc<AtomicBool>,
    _place: OwnedSemaphorePermit,
}

impl HandshakePlace {
    /// Waits for the peer's first byte. Until then, this handshake is among the first to lose its place.
    pub async fn first_byte(&self, tcp: &TcpStream) {
        // A failed socket is reported by the next read from it.
        if tcp.peek(&mut [0]).await.is_ok() {
            self.spoke.store(true, Relaxed);
        }
    }
}

impl Drop for HandshakePlace {
    fn drop(&mut self) {
        self.arrivals.pending.lock().remove(self.number);
    }
}

impl PendingHandshakes {
    /// Creates `most` places.
    pub fn new(most: usize, system: System) -> Arc<PendingHandshakes> {
        Arc::new(PendingHandshakes { places: Arc::new(Semaphore::new(most)), most, system, pending: Mutex::default() })
    }

    /// Returns a place for an accepted socket. While all places are taken by handshakes that wait for the server, this call waits. `None`:
    /// the socket is broken.
    pub async fn admit(self: &Arc<Self>, tcp: &TcpStream, from: SocketAddr) -> Option<HandshakePlace> {
        let source = Network::of(from);
        // One source may hold half of the places. Beyond that share it takes places from its own handshakes, so that a crowd behind one
        // address does not affect other addresses.
        let share = (self.most / limits::HANDSHAKES_SOURCE_SHARE).max(1);
        if self.most > 1 && self.pending.lock().of.get(&source).is_some_and(|own| *own >= share) {
            self.pending.lock().end_one_of(source, self.system.steady());
        }
        let look = Duration::from_millis(limits::HANDSHAKE_LOOK_MS);
        let place = loop {
            if let Ok(place) = self.places.clone().try_acquire_owned() {
                break place;
            }
            self.pending.lock().end_one(self.system.steady());
            // The semaphore is never closed.
            if let Ok(place) = tokio::time::timeout(look, self.places.clone().acquire_owned()).await {
                break place.ok()?;
            }
        };
        let socket = tcp.as_fd().try_clone_to_owned().ok()?;
        let spoke = Arc::new(AtomicBool::new(false));
        let at = self.system.steady();
        let number = self.pending.lock().add(Arrival { source, socket, spoke: spoke.clone(), at, ended: false });
        Some(HandshakePlace { arrivals: self.clone(), number, spoke, _place: place })
    }
}

impl Pending {
    fn add(&mut self, arrival: Arrival) -> u64 {
        let number = self.next;
        self.next += 1;
        *self.of.entry(arrival.source).or_default() += 1;
        self.all.insert(number, arrival);
        number
    }

    fn remove(&mut self, number: u64) {
        let Some(arrival) = self.all.remove(&number) else { return };
        if let Some(count) = self.of.get_mut(&arrival.source) {
            *count -= 1;
            if *count == 0 {
                self.of.remove(&arrival.source);
            }
        }
    }

    /// Ends one handshake that waits for its peer; sources with the most handshakes are tried first.
    fn end_one(&mut self, now: u64) {
        let mut sources: Vec<(usize, Network)> = self.of.iter().map(|(source, count)| (*count, *source)).collect();
        sources.sort_unstable_by(|a, b| b.cmp(a));
        for (_, source) in sources {
            if self.end_one_of(source, now) {
                return;
            }
        }
    }

    /// Ends the oldest handshake of this source whose peer has sent nothing; if there is none, the oldest whose peer has sent something and
    /// owes the rest.
    fn end_one_of(&mut self, source: Network, now: u64) -> bool {
        for (spoke, patience) in [(false, limits::HANDSHAKE_SILENT_MS), (true, limits::HANDSHAKE_ANSWER_MS)] {
            let of_source = self.all.values_mut().filter(|a| a.source == source && !a.ended && now >= a.at + patience);
            let mut waits = of_source.filter(|a| a.spoke.load(Relaxed) == spoke && leaves_us_waiting(&a.socket));
            if let Some(oldest) = waits.next() {
                oldest.ended = true;
                // The reader of this socket sees the shutdown and releases the place.
                let _ = shutdown(&oldest.socket, Shutdown::Both);
                return true;
            }
        }
        false
    }
}

/// Whether the handshake waits for its peer: the socket has no unread bytes.
fn leaves_us_waiting(socket: &OwnedFd) -> bool {
    !matches!(recv(socket, &mut [0u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT), Ok((1.., _)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket};

    async fn connect(listener: &TcpListener, from: &str) -> (TcpStream, TcpStream, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        let peer = socket.connect(listener.local_addr().unwrap()).await.unwrap();
        let (ours, from) = listener.accept().await.unwrap();
        (peer, ours, from)
    }

    /// Whether the server shut this socket down.
    async fn ended(tcp: &mut TcpStream) -> bool {
        let read = tokio::time::timeout(Duration::from_millis(20), tcp.read(&mut [0; 8])).await;
        matches!(read, Ok(Ok(0) | Err(_)))
    }

    #[tokio::test]
    async fn the_oldest_silent_socket_of_the_busiest_source_gives_way() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let arrivals = PendingHandshakes::new(4, System::real());
        let mut held = Vec::new();
        for from in ["127.0.0.2", "127.0.0.1", "127.0.0.1", "127.0.0.3"] {
            let (peer, ours, at) = connect(&listener, from).await;
            let place = arrivals.admit(&ours, at).await.unwrap();
            held.push((peer, ours, Some(place)));
        }
        // Of the two handshakes of this source, the peer of the older one has sent a byte and owes the rest.
        held[1].0.write_all(b"x").await.unwrap();
        held[1].2.as_ref().unwrap().first_byte(&held[1].1).await;
        held[1].1.read_exact(&mut [0]).await.unwrap();
        let (_peer, ours, at) = connect(&listener, "127.0.0.4").await;
        tokio::time::sleep(Duration::from_millis(limits::HANDSHAKE_SILENT_MS)).await;
        let taken = tokio::join!(arrivals.admit(&ours, at), async {
            while !ended(&mut held[2].1).await {}
            // A reader of the socket would release the place at once; as long as nothing reads from it, the next look ends another
            // handshake.
            held[2].2 = None;
            let mut was = Vec::new();
            for at in [0, 1, 3] {
                was.push(ended(&mut held[at].1).await);
            }
            was
        });
        assert!(taken.0.is_some());
        assert_eq!(taken.1, [false, false, false]);
    }

    #[tokio::test]
    async fn whoever_waits_for_us_is_not_ended_and_the_next_one_waits() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let arrivals = PendingHandshakes::new(1, System::real());
        let (mut peer, ours, at) = connect(&listener, "127.0.0.1").await;
        let place = arrivals.admit(&ours, at).await.unwrap();
        peer.write_all(b"hello").await.unwrap();
        place.first_byte(&ours).await;
        let (_next, later, from) = connect(&listener, "127.0.0.1").await;
        let waits = arrivals.admit(&later, from);
        assert!(tokio::time::timeout(Duration::from_millis(120), waits).await.is_err(), "its bytes are ours to read");
        drop(place);
        assert!(arrivals.admit(&later, from).await.is_some());
        assert!(arrivals.pending.lock().of.is_empty(), "all places were given back");
    }
}
