//! Handshakes that were refused: counted by listener and clause, and a few of each clause told in the log.
//!
//! Anybody who reaches a listener can have a handshake refused, as often as the network lets them. So the clauses are a closed list, and of one
//! clause at one listener there are at most `limits::HANDSHAKE_LOG_LINES` lines in a minute; the number of the others follows when the minute is over.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::identity::path::PathDefect;
use crate::identity::svid::SvidDefect;
use crate::limits;

macro_rules! defects {
    ($($(#[$doc:meta])* $name:ident => $code:literal, $clause:literal;)*) => {
        /// Why a handshake was refused before there was a certificate to look at, or beside it: the closed list.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum TlsDefect {
            $($(#[$doc])* $name,)*
        }

        impl TlsDefect {
            /// All of them.
            pub const ALL: &'static [TlsDefect] = &[$(TlsDefect::$name,)*];

            /// A stable name, for machines.
            pub const fn code(self) -> &'static str {
                match self { $(TlsDefect::$name => $code,)* }
            }

            /// The clause that refuses it.
            pub const fn clause(self) -> &'static str {
                match self { $(TlsDefect::$name => $clause,)* }
            }
        }
    };
}

defects! {
    /// No certificate.
    NoCertificate => "no_certificate", "a caller presents its certificate: this one presented no certificates (X509-SVID 5.1)";
    /// The handshake is not signed by the certificate's key.
    Signature => "signature", "the handshake is signed by the key of the certificate (RFC 8446, 4.4.3)";
    /// No TLS 1.3.
    Version => "tls_version", "TLS 1.3 is spoken, and no version before it";
    /// No algorithms in common.
    Algorithms => "no_common_algorithms", "peer and server have a key exchange, a cipher suite and a signature algorithm in common";
    /// Another protocol in TLS.
    Alpn => "alpn", "the protocol within TLS is one of this listener's: h2, and on the public listener http/1.1 (RFC 7301)";
    /// The peer refused us.
    RefusedByPeer => "refused_by_peer", "the peer accepts the server's certificate: it refused and ended the handshake with an alert";
    /// No TLS.
    NotTls => "not_tls", "what is sent to this port is TLS";
    /// TLS that is not as the protocol has it.
    Protocol => "protocol", "the handshake is as TLS 1.3 has it (RFC 8446)";
    /// The peer went away.
    Closed => "closed", "the peer stays until the handshake is over";
    /// It took too long.
    TooSlow => "too_slow", "the handshake is over within 5 s (limit HANDSHAKE_MS)";
    /// There is no place for its connection.
    NoPlace => "no_place", "the listener, and the peer's share of it, have a place for the connection (limits.connections)";
    /// A fault of ours.
    Internal => "internal", "the server is able to answer the handshake";
}

/// The clause that refused a handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandshakeClause {
    /// One about the certificate.
    Svid(SvidDefect),
    /// One about TLS.
    Tls(TlsDefect),
}

/// The code of everything that is wrong with a SPIFFE ID; the log has the clause.
const SPIFFE_ID: &str = "spiffe_id";

impl HandshakeClause {
    /// A stable name, for machines: those of `mayfly svid check`, but for a malformed SPIFFE ID, which is one of them here.
    pub const fn code(self) -> &'static str {
        match self {
            HandshakeClause::Svid(SvidDefect::Id(_)) => SPIFFE_ID,
            HandshakeClause::Svid(defect) => defect.code(),
            HandshakeClause::Tls(defect) => defect.code(),
        }
    }

    /// A probe of a port looks like this; no line is logged for it.
    fn is_quiet(self) -> bool {
        self == HandshakeClause::Tls(TlsDefect::Closed)
    }

    /// Every code that there is, in order.
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

/// The listeners, by their places in what is counted.
pub const LISTENERS: [&str; 4] = ["workload", "admin", "public", "metrics"];

/// What is known of one clause at one listener.
#[derive(Default, Clone, Copy)]
struct Sample {
    /// The minute that lines were logged in, by the steady clock.
    minute: u64,
    lines: u32,
    left_out: u64,
}

/// The refused handshakes of a server.
pub struct RefusedHandshakes {
    counts: Vec<AtomicU64>,
    samples: Mutex<Vec<Sample>>,
}

impl Default for RefusedHandshakes {
    fn default() -> RefusedHandshakes {
        let all = LISTENERS.len() * HandshakeClause::codes().len();
        RefusedHandshakes {
            counts: (0..all).map(|_| AtomicU64::new(0)).collect(),
            samples: Mutex::new(vec![Sample::default(); all]),
        }
    }
}

impl RefusedHandshakes {
    /// Counts one. Says whether it is one of the few that have a line in the log.
    pub fn refused(&self, listener: usize, clause: HandshakeClause, steady_ms: u64) -> bool {
        let codes = HandshakeClause::codes();
        let Ok(code) = codes.binary_search(&clause.code()) else { return false };
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
            // What was left out before is still to be told.
            *sample = Sample { minute, lines: 0, left_out: sample.left_out };
        }
        let told = sample.lines < limits::HANDSHAKE_LOG_LINES;
        sample.lines += u32::from(told);
        sample.left_out += u64::from(!told);
        told
    }

    /// How many had no line in minutes that are over, by listener and clause. Each is told once.
    pub fn left_out(&self, steady_ms: u64) -> Vec<(&'static str, &'static str, u64)> {
        let minute = steady_ms / 60_000;
        let mut samples = self.samples.lock();
        let over = samples.iter_mut().enumerate().filter(|(_, sample)| sample.left_out > 0 && sample.minute != minute);
        over.filter_map(|(place, sample)| Some((named(place)?, std::mem::take(&mut sample.left_out))))
            .map(|((listener, clause), left_out)| (listener, clause, left_out))
            .collect()
    }

    /// How many there were, by listener and clause.
    pub fn counts(&self) -> Vec<(&'static str, &'static str, u64)> {
        let all =
            self.counts.iter().enumerate().map(|(place, count)| (place, count.load(Relaxed))).filter(|(_, count)| *count > 0);
        all.filter_map(|(place, count)| named(place).map(|(listener, clause)| (listener, clause, count))).collect()
    }
}

/// The listener and the clause at a place.
fn named(place: usize) -> Option<(&'static str, &'static str)> {
    let codes = HandshakeClause::codes();
    Some((*LISTENERS.get(place / codes.len())?, *codes.get(place % codes.len())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::spiffe_id::IdDefect;

    #[test]
    fn every_clause_has_a_place() {
        let codes = HandshakeClause::codes();
        let svid = SvidDefect::ALL.iter().map(|defect| HandshakeClause::Svid(*defect));
        let path = PathDefect::ALL.iter().map(|defect| HandshakeClause::Svid(SvidDefect::Path(*defect)));
        let tls = TlsDefect::ALL.iter().map(|defect| HandshakeClause::Tls(*defect));
        let refused = RefusedHandshakes::default();
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
        let refused = RefusedHandshakes::default();
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
