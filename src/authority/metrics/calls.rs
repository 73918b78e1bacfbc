//! Counts calls by method and status code, and their latency.
//!
//! The methods are those of the protobuf descriptors, so a caller cannot create a series: a call whose path names no method is counted as
//! `other`. Counting takes a look-up, one or two atomic additions and one reading of the clock, without a lock or an allocation.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prost::Message as _;
use prost_types::FileDescriptorSet;

use super::latency::{Histogram, LatencyRecorder};
use mayfly_base::system::Stopwatch;
use mayfly_proto as pb;

/// The label of calls to unknown methods, and of upstreams that have no label of their own.
pub const OTHER: &str = "other";

/// The status codes by their numbers (google.rpc.Code).
pub const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The code of a call whose caller went away.
const CANCELLED: i32 = 1;
/// The code that is counted for a value that is not in the list.
const UNKNOWN: usize = 2;

/// The index of a method in [`CallMetrics`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MethodIndex(usize);

struct Method {
    /// The label, like `TokenService/Exchange`.
    name: String,
    /// Whether a call has one answer: neither side streams.
    single: bool,
    codes: [AtomicU64; CODES.len()],
    took: LatencyRecorder,
}

impl Method {
    fn new(name: String, single: bool) -> Method {
        Method { name, single, codes: [const { AtomicU64::new(0) }; CODES.len()], took: LatencyRecorder::default() }
    }
}

/// The counters of all calls of a server.
pub struct CallMetrics {
    /// The methods in the order of the descriptors, `other` last.
    methods: Vec<Method>,
    by_path: HashMap<Box<str>, MethodIndex>,
}

impl Default for CallMetrics {
    fn default() -> CallMetrics {
        let sets = [
            pb::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let (mut methods, mut by_path) = (Vec::new(), HashMap::new());
        for (name, single) in sets.into_iter().flat_map(methods_of) {
            by_path.insert(format!("/{name}").into(), MethodIndex(methods.len()));
            let short = name.strip_prefix("mayfly.v1.").map(str::to_owned);
            methods.push(Method::new(short.unwrap_or(name), single));
        }
        methods.push(Method::new(OTHER.to_owned(), false));
        CallMetrics { methods, by_path }
    }
}

/// `package.Service/Method` of each method of a descriptor set, and whether neither side streams.
fn methods_of(set: &[u8]) -> Vec<(String, bool)> {
    // The built-in descriptors decode; a test checks that.
    let files = FileDescriptorSet::decode(set).unwrap_or_default().file;
    let mut all = Vec::new();
    for file in &files {
        for service in &file.service {
            for method in &service.method {
                let single = !method.client_streaming() && !method.server_streaming();
                all.push((format!("{}.{}/{}", file.package(), service.name(), method.name()), single));
            }
        }
    }
    all
}

impl CallMetrics {
    /// The index of the method of a path.
    pub fn method(&self, path: &str) -> MethodIndex {
        self.by_path.get(path).copied().unwrap_or(MethodIndex(self.methods.len().saturating_sub(1)))
    }

    /// Counts `times` answers that took `us` microseconds each.
    pub fn took(&self, method: MethodIndex, us: u64, times: u64) {
        if let Some(method) = self.methods.get(method.0) {
            method.took.observe(us, times);
        }
    }

    fn ended(&self, method: MethodIndex, code: i32) {
        let code = usize::try_from(code).ok().filter(|code| *code < CODES.len()).unwrap_or(UNKNOWN);
        if let Some(count) = self.methods.get(method.0).and_then(|method| method.codes.get(code)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// The number of ended calls, by method and code.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&str, &'static str, u64)> {
        self.methods.iter().flat_map(|method| {
            let each = CODES.iter().zip(&method.codes).map(|(code, count)| (method.name.as_str(), *code, count.load(Relaxed)));
            each.filter(|(.., count)| *count > 0)
        })
    }

    /// The latencies by method: of calls with a single answer, and of the exchanges of a stream.
    pub(super) fn latencies(&self) -> impl Iterator<Item = (&str, Histogram)> {
        let all = self.methods.iter().map(|method| (method.name.as_str(), method.took.read()));
        all.filter(|(_, histogram)| histogram.counts.iter().any(|count| *count > 0))
    }
}

/// A call in progress. Dropping the value counts the call: with its status code, or as cancelled if it has none.
pub struct CountedCall {
    metrics: Arc<CallMetrics>,
    method: MethodIndex,
    read: Stopwatch,
    code: i32,
    answered: bool,
}

impl CountedCall {
    /// A call that was just read.
    pub fn new(metrics: Arc<CallMetrics>, path: &str, read: Stopwatch) -> CountedCall {
        let method = metrics.method(path);
        CountedCall { metrics, method, read, code: CANCELLED, answered: false }
    }

    /// Counts the latency: the call is being answered.
    pub fn answered(&mut self) {
        self.answered = true;
        self.metrics.took(self.method, self.read.us(), 1);
    }

    /// Sets the status code with which the call ended.
    pub fn ended(&mut self, code: i32) {
        self.code = code;
    }
}

impl Drop for CountedCall {
    fn drop(&mut self) {
        // A caller that gave up waited as well: without its time, a server that answers too late would look fast.
        if !self.answered && self.metrics.methods.get(self.method.0).is_some_and(|method| method.single) {
            self.metrics.took(self.method, self.read.us(), 1);
        }
        self.metrics.ended(self.method, self.code);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_the_contract_is_counted_by_its_name_and_everything_else_as_one() {
        let metrics = CallMetrics::default();
        let names: Vec<&str> = metrics.methods.iter().map(|method| method.name.as_str()).collect();
        for name in
            ["TokenService/Exchange", "TokenService/StreamExchange", "RevocationService/Revoke", "grpc.health.v1.Health/Check"]
        {
            assert_eq!(names.iter().filter(|n| **n == name).count(), 1, "{name}");
        }
        assert!(names.len() > 80 && names.last() == Some(&OTHER));
        let other = metrics.method("/mayfly.v1.TokenService/exchange");
        assert_eq!((other, metrics.method("")), (MethodIndex(names.len() - 1), other));
        assert_ne!(metrics.method("/mayfly.v1.TokenService/Exchange"), other);
    }

    #[test]
    fn a_call_counts_once_with_its_code_and_one_that_is_dropped_is_cancelled() {
        let metrics = Arc::new(CallMetrics::default());
        let call = |path| CountedCall::new(metrics.clone(), path, Stopwatch::start());
        let mut one = call("/mayfly.v1.TokenService/Exchange");
        one.answered();
        one.ended(0);
        drop(one);
        drop(call("/mayfly.v1.TokenService/Exchange"));
        let mut strange = call("/nobody/knows");
        strange.ended(99);
        drop(strange);
        let counts: Vec<_> = metrics.counts().collect();
        assert_eq!(
            counts,
            [("TokenService/Exchange", "OK", 1), ("TokenService/Exchange", "CANCELLED", 1), (OTHER, "UNKNOWN", 1)]
        );
        let latencies: Vec<_> = metrics.latencies().map(|(name, h)| (name.to_owned(), h.counts.iter().sum::<u64>())).collect();
        assert_eq!(latencies, [("TokenService/Exchange".to_owned(), 2)], "a caller that went away waited as well");
    }
}
