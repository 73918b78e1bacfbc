//! A cache of verdicts. The key consists of the set's digest, the action, and the values of exactly those attributes that the set reads for
//! that action.
//!
//! Attributes are in the key by value, so a new version of a registration or a role needs no invalidation; attributes that no policy reads
//! are not in the key. A set that reads time, counts or approvals for an action is evaluated every time, and so is a set that could not be
//! analysed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::sync::Cache;

use super::action::Action;
use super::attribute_reads::{AttributeRead, AttributeReads};
use super::attributes::{AttributeValue, ResolvedQuestion};
use super::cedar::PolicyVerdict;
use super::question::Question;
use super::set::PolicySet;
use mayfly_base::limits;

/// The verdict cache of one server, shared by all sets that the server evaluates.
pub struct VerdictCache {
    cache: Cache<Box<[u8]>, Arc<PolicyVerdict>>,
    hits: AtomicU64,
    misses: AtomicU64,
    not_cacheable: AtomicU64,
}

/// Cache statistics.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct CacheStats {
    /// Answered from the cache.
    pub hits: u64,
    /// Evaluated by Cedar and then stored.
    pub misses: u64,
    /// Evaluated by Cedar because the set reads time, counts or approvals.
    pub not_cacheable: u64,
}

impl CacheStats {
    /// Share of hits among all questions, from 0 to 1.
    pub fn hit_rate(&self) -> f64 {
        let all = self.hits + self.misses + self.not_cacheable;
        if all == 0 { 0.0 } else { self.hits as f64 / all as f64 }
    }
}

impl VerdictCache {
    /// A cache of at most `bytes` of keys and verdicts.
    pub fn new(bytes: u64) -> VerdictCache {
        #[allow(clippy::borrowed_box, reason = "moka hands out its key as it is stored")]
        let weigh = |key: &Box<[u8]>, verdict: &Arc<PolicyVerdict>| {
            let by: usize = verdict.by().iter().map(|id| id.len() + 24).sum();
            u32::try_from(key.len() + by + limits::VERDICT_OVERHEAD).unwrap_or(u32::MAX)
        };
        let cache = Cache::builder().max_capacity(bytes).weigher(weigh).build();
        VerdictCache { cache, hits: AtomicU64::new(0), misses: AtomicU64::new(0), not_cacheable: AtomicU64::new(0) }
    }

    /// The set's verdict, from the cache where possible. Equal to [`PolicySet::verdict`].
    pub fn verdict(&self, set: &PolicySet, question: &Question<'_>) -> Arc<PolicyVerdict> {
        let reads = set.reads(question.action());
        let case = set.case(question);
        if !reads.cacheable() {
            self.not_cacheable.fetch_add(1, Ordering::Relaxed);
            return Arc::new(set.evaluate(&case));
        }
        let key = key_of(set.digest(), question.action(), reads, &case);
        if let Some(known) = self.cache.get(key.as_slice()) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return known;
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let verdict = Arc::new(set.evaluate(&case));
        let keep = key.len() <= limits::VERDICT_KEY_BYTES && !matches!(*verdict, PolicyVerdict::EngineError { .. });
        if keep {
            self.cache.insert(key.into_boxed_slice(), verdict.clone());
        }
        verdict
    }

    /// Cache statistics since the start.
    pub fn counts(&self) -> CacheStats {
        CacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            not_cacheable: self.not_cacheable.load(Ordering::Relaxed),
        }
    }
}

/// The cache key of a question for a set that reads exactly `reads`. Two questions with the same key get the same verdict.
pub fn key(set: &PolicySet, reads: &AttributeReads, question: &Question<'_>) -> Vec<u8> {
    key_of(set.digest(), question.action(), reads, &set.case(question))
}

fn key_of(digest: &[u8; 32], action: Action, reads: &AttributeReads, case: &ResolvedQuestion<'_>) -> Vec<u8> {
    let mut key = Vec::with_capacity(256);
    key.extend_from_slice(digest);
    key.push(action.number());
    write_facts(&mut key, reads.iter(), case);
    key
}

/// Appends the attributes in `reads` to the key: by value, or only by presence where only presence is read.
pub(super) fn write_facts<'r>(key: &mut Vec<u8>, reads: impl Iterator<Item = &'r AttributeRead>, case: &ResolvedQuestion<'_>) {
    for read in reads {
        let value = (read.fact.get)(case);
        key.push(u8::from(value.is_some()));
        if let (Some(value), true) = (value, read.value) {
            write(key, value);
        }
    }
}

/// Each value is prefixed with its length, so no two lists of values have the same encoding.
fn write(key: &mut Vec<u8>, value: AttributeValue<'_>) {
    match value {
        AttributeValue::Bool(b) => key.push(u8::from(b)),
        AttributeValue::Long(n) => key.extend_from_slice(&n.to_le_bytes()),
        AttributeValue::Moment(at) => key.extend_from_slice(&at.0.to_le_bytes()),
        AttributeValue::Text(text) => write_text(key, text),
        AttributeValue::Texts(mut texts) => {
            texts.sort_unstable();
            texts.dedup();
            key.extend_from_slice(&(texts.len() as u64).to_le_bytes());
            texts.iter().for_each(|text| write_text(key, text));
        }
    }
}

pub(super) fn write_text(key: &mut Vec<u8>, text: &str) {
    key.extend_from_slice(&(text.len() as u64).to_le_bytes());
    key.extend_from_slice(text.as_bytes());
}
