//! Refused handshakes: counted by listener and clause, and a few of each clause are logged.
//!
//! Anybody who reaches a listener can cause refused handshakes, as often as the network allows. The clauses are therefore a closed list,
//! and one clause at one listener has at most `limits::HANDSHAKE_LOG_LINES` log lines in a minute; the number of the other refusals is
//! logged when the minute is over.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use mayfly_base::limits;
use mayfly_identity::path::PathDefect;
use mayfly_identity::svid::SvidDefect;

macro_rules! defects {
    ($($(#[$doc:meta])* $name:ident => $code:literal, $clause:literal;)*) => {
        /// A defect of a handshake other than a defect of the certificate: the closed list.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum TlsDefect {
            $($(#[$doc])* $name,)*
        }

        impl TlsDefect {
            /// All defects.
            pub const ALL: &'static [TlsDefect] = &[$(TlsDefect::$name,)*];

            /// A stable name, for machines.
            pub const fn code(self) -> &'static str {
                match self { $(TlsDefect::$name => $code,)* }
            }

            /// The clause that refuses the handshake.
            pub const fn clause(self) -> &'static str {
                match self { $(TlsDefect::$name => $clause,)* }
            }
        }
    };
}

defects! {
    /// The peer presented no certificate.
    NoCertificate => "no_certificate", "a caller presents its certificate: this one presented no certificates (X509-SVID 5.1)";
    /// The handshake is not signed by the certificate's key.
    Signature => "signature", "the handshake is signed by the key of the certificate (RFC 8446, 4.4.3)";
    /// The peer does not speak TLS 1.3.
    Version => "tls_version", "TLS 1.3 is spoken, and no version before it";
    /// Peer and server have no algorithms in common.
    Algorithms => "no_common_algorithms", "peer and server have a key exchange, a cipher suite and a signature algorithm in common";
    /// The peer offers no application protocol of the listener (ALPN).
    Alpn => "alpn", "the protocol within TLS is one of this listener's: h2, and on the public listener http/1.1 (RFC 7301)";
    /// The peer refused the server's certificate.
    RefusedByPeer => "refused_by_peer", "the peer accepts the server's certificate: it refused and ended the handshake with an alert";
    /// The received bytes are not TLS.
    NotTls => "not_tls", "what is sent to this port is TLS";
    /// The peer violates the TLS protocol.
    Protocol => "protocol", "the handshake is as TLS 1.3 has it (RFC 8446)";
    /// The peer closed the connection.
    Closed => "closed", "the peer stays until the handshake is over";
    /// The handshake took too long.
    TooSlow => "too_slow", "the handshake is over within 5 s (limit HANDSHAKE_MS)";
    /// The listener has no place for the connection.
    NoPlace => "no_place", "the listener, and the peer's share of it, have a place for the connection (limits.connections)";
    /// A fault of the server.
    Internal => "internal", "the server is able to answer the handshake";
}

/// The clause that refused a handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandshakeClause {
    /// A clause about the certificate.
    Svid(SvidDefect),
    /// A clause about TLS.
    Tls(TlsDefect),
}

/// The code of every defect of a SPIFFE ID; the log has the exact clause.
const SPIFFE_ID: &str = "spiffe_id";

impl HandshakeClause {
    /// A stable name, for machines: the name that `mayfly svid check` uses, except that all defects of a SPIFFE ID have one name.
    pub const fn code(self) -> &'static str {
        match self {
            HandshakeClause::Svid(SvidDefect::Id(_)) => SPIFFE_ID,
            HandshakeClause::Svid(defect) => defect.code(),
            HandshakeClause::Tls(defect) => defect.code(),
        }
    }

    /// A port probe closes its connection; a full listener is logged by the listener itself. Neither gets a line here.
    fn is_quiet(self) -> bool {
        matches!(self, HandshakeClause::Tls(TlsDefect::Closed | TlsDefect::NoPlace))
    }

    /// All codes, sorted.
    pub fn codes() -> &'static [&'static str] {
        static CODES: OnceLock<Vec<&'static str>> = OnceLock::new();
        CODES.get_or_init(|| {
            let svid = SvidDefect::ALL.iter().map(|defect| defect.code());
            let path = PathDefect::ALL.iter().map(|defect| defect.code());
            let tls = TlsDefect::ALL.iter().map(|defect| defect.code());
            svid.chain(path).chain(tls).chain([SPIFFE_ID]).collect::<BTreeSet<_>>().into_iter().collect()
        })
    }
}

/// The listeners, in the order of the counters.
pub const LISTENERS: [&str; 4] = ["workload", "admin", "public", "metrics"];

/// The logged and unlogged refusals of one clause at one listener.
#[derive(Default, Clone, Copy)]
struct Sample {
    /// The minute in which `lines` were logged, by the steady clock.
    minute: u64,
    lines: u32,
    left_out: u64,
}

/// The refused handshakes of a server.
pub struct HandshakeMetrics {
    counts: Vec<AtomicU64>,
    samples: Mutex<Vec<Sample>>,
}

impl Default for HandshakeMetrics {
    fn default() -> HandshakeMetrics {
        let all = LISTENERS.len() * HandshakeClause::codes().len();
        HandshakeMetrics {
            counts: (0..all).map(|_| AtomicU64::new(0)).collect(),
            samples: Mutex::new(vec![Sample::default(); all]),
        }
    }
}

impl HandshakeMetrics {
    /// Counts a refusal. Returns whether the refusal is to be logged.
    pub fn refused(&self, listener: usize, clause: HandshakeClause, steady_ms: u64) -> bool {
        let codes = HandshakeClause::codes();
        // A clause that the list lacks is counted as a fault of ours, not left out.
        let internal = TlsDefect::Internal.code();
        let Ok(code) = codes.binary_search(&clause.code()).or_else(|_| codes.binary_search(&internal)) else { return false };
        let place = listener.min(LISTENERS.len() - 1) * codes.len() + code;
        if let Some(count) = self.counts.get(place) {
            count.fetch_add(1, Relaxed);
        }
        if clause.is_quiet() {
            return false;
        }
        let mut samples = self.samples.lock();
        let Some(sample) = samples.get_mut(place) else { return false };
        let minute = steady_ms / 60_000;
        if sample.minute != minute {
            // The number of unlogged refusals is kept until it is reported.
            *sample = Sample { minute, lines: 0, left_out: sample.left_out };
        }
        let told = sample.lines < limits::HANDSHAKE_LOG_LINES;
        sample.lines += u32::from(told);
        sample.left_out += u64::from(!told);
        told
    }

    /// The number of unlogged refusals in minutes that are over, by listener and clause. Each refusal is reported once.
    pub fn left_out(&self, steady_ms: u64) -> Vec<(&'static str, &'static str, u64)> {
        let minute = steady_ms / 60_000;
        let mut samples = self.samples.lock();
        let over = samples.iter_mut().enumerate().filter(|(_, sample)| sample.left_out > 0 && sample.minute != minute);
        over.filter_map(|(place, sample)| Some((named(place)?, std::mem::take(&mut sample.left_out))))
            .map(|((listener, clause), left_out)| (listener, clause, left_out))
            .collect()
    }

    /// The number of refusals, by listener and clause.
    pub fn counts(&self) -> Vec<(&'static str, &'static str, u64)> {
        let all =
            self.counts.iter().enumerate().map(|(place, count)| (place, count.load(Relaxed))).filter(|(_, count)| *count > 0);
        all.filter_map(|(place, count)| named(place).map(|(listener, clause)| (listener, clause, count))).collect()
    }
}

/// The listener and the clause of a counter.
fn named(place: usize) -> Option<(&'static str, &'static str)> {
    let codes = HandshakeClause::codes();
    Some((*LISTENERS.get(place / codes.len())?, *codes.get(place % codes.len())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_identity::spiffe_id::IdDefect;

    #[test]
    fn every_clause_has_a_place() {
        let codes = HandshakeClause::codes();
        let svid = SvidDefect::ALL.iter().map(|defect| HandshakeClause::Svid(*defect));
        let path = PathDefect::ALL.iter().map(|defect| HandshakeClause::Svid(SvidDefect::Path(*defect)));
        let tls = TlsDefect::ALL.iter().map(|defect| HandshakeClause::Tls(*defect));
        let refused = HandshakeMetrics::default();
        for clause in svid.chain(path).chain(tls).chain([HandshakeClause::Svid(SvidDefect::Id(IdDefect::Port))]) {
            assert!(codes.contains(&clause.code()), "{clause:?}");
            refused.refused(1, clause, 0);
        }
        let counts = refused.counts();
        assert_eq!(counts.len(), codes.len(), "each of them was counted, and under its own name");
        assert!(counts.iter().all(|(listener, ..)| *listener == "admin"));
    }

    #[test]
    fn a_flood_has_a_few_lines_a_minute_and_the_number_of_the_others() {
        let refused = HandshakeMetrics::default();
        let (expired, closed) = (HandshakeClause::Svid(SvidDefect::Expired), HandshakeClause::Tls(TlsDefect::Closed));
        let lines = |at: u64, clause| (0..1_000).filter(|_| refused.refused(0, clause, at)).count();
        let most = limits::HANDSHAKE_LOG_LINES as usize;
        assert_eq!(lines(60_000, expired), most);
        assert_eq!(lines(119_999, expired), 0, "the same minute");
        assert_eq!(lines(60_000, closed), 0, "a probe of the port is counted and not logged");
        assert!(refused.left_out(119_999).is_empty(), "the minute is not over");
        assert_eq!(refused.left_out(120_000), [("workload", "expired", 2_000 - most as u64)]);
        assert!(refused.left_out(120_001).is_empty(), "told once");
        assert_eq!(lines(120_002, expired), most, "another minute has lines of its own");
        assert_eq!(refused.counts(), [("workload", "closed", 1_000), ("workload", "expired", 3_000)]);
    }
}
