//! The tail: commits that are durable in the log and not in the engine yet.
//!
//! Readers take no lock: a low-priority reader that lost its core while it held a lock would delay every append.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use crate::{Position, StoredCommit};

/// Positions per piece. A piece is freed as a whole once all its commits were moved; until then moved commits keep their memory, up to 32
/// MiB if each commit fills a log file.
const PIECE: u64 = 16;

pub(super) struct TailChunk {
    number: u64,
    entries: [OnceLock<StoredCommit>; PIECE as usize],
}

impl TailChunk {
    fn new(number: u64) -> TailChunk {
        TailChunk { number, entries: Default::default() }
    }

    fn entries(&self) -> impl Iterator<Item = &StoredCommit> {
        self.entries.iter().filter_map(OnceLock::get)
    }
}

pub(super) type TailChunks = Arc<Vec<Arc<TailChunk>>>;

/// The newest commits. Changed under the lock of the owner's state.
pub(super) struct Tail {
    /// The pieces, in order; none is empty.
    pieces: ArcSwap<Vec<Arc<TailChunk>>>,
    head: AtomicU64,
    /// All commits up to this position are in the engine.
    moved: AtomicU64,
}

impl Tail {
    /// `found`: the commits that the engine, whose head is `head`, lacks.
    pub fn new(head: Position, found: Vec<StoredCommit>) -> Tail {
        let tail = Tail { pieces: ArcSwap::default(), head: AtomicU64::new(head), moved: AtomicU64::new(head) };
        found.into_iter().for_each(|entry| tail.push(entry));
        tail
    }

    /// The position of the newest durable commit, 0 for none.
    pub fn head(&self) -> Position {
        self.head.load(Ordering::Acquire)
    }

    /// The first position that is not in the engine, 0 for none.
    pub fn oldest(&self) -> Position {
        let head = self.head();
        // Commits missing from these pieces were marked as moved before.
        let pieces = self.pieces.load();
        let moved = self.moved.load(Ordering::Acquire);
        pieces.iter().flat_map(|piece| piece.entries()).find(|e| (moved + 1..=head).contains(&e.at)).map_or(0, |e| e.at)
    }

    /// A commit is durable in the log.
    pub fn push(&self, entry: StoredCommit) {
        let (at, number) = (entry.at, entry.at / PIECE);
        let pieces = self.pieces.load();
        let last = match pieces.last().filter(|piece| piece.number == number) {
            Some(last) => last.clone(),
            None => {
                let piece = Arc::new(TailChunk::new(number));
                let mut more = Vec::clone(&pieces);
                more.push(piece.clone());
                self.pieces.store(Arc::new(more));
                piece
            }
        };
        if let Some(place) = last.entries.get((at % PIECE) as usize) {
            let _ = place.set(entry);
        }
        // A reader that sees this head finds the commit in the pieces.
        self.head.store(at, Ordering::Release);
    }

    /// Commits up to this position were appended to the engine directly; the tail was empty.
    pub fn passed(&self, last: Position) {
        self.moved.store(last, Ordering::Release);
        // A reader that sees this head asks the engine.
        self.head.store(last, Ordering::Release);
    }

    /// All commits up to this position are in the engine. Returns the pieces that are not needed any more, to be freed where no append
    /// waits.
    #[must_use]
    pub fn moved(&self, last: Position) -> Option<TailChunks> {
        self.moved.store(last, Ordering::Release);
        let pieces = self.pieces.load();
        let gone = pieces.iter().take_while(|piece| (piece.number + 1) * PIECE <= last + 1).count();
        (gone > 0).then(|| self.pieces.swap(Arc::new(pieces.iter().skip(gone).cloned().collect())))
    }

    /// Some commits that are not in the engine, from a position on; at least one if `at_least_one`. `None` if the commit at `from` is in
    /// the engine.
    pub fn read(&self, from: Position, max_bytes: usize, at_least_one: bool) -> Option<Vec<StoredCommit>> {
        // Load the head before the pieces: the pieces contain everything up to it. Beyond it, a commit may be visible while the one before
        // it is not yet.
        let head = self.head();
        let pieces = self.pieces.load();
        // Load `moved` after the pieces: commits missing from the pieces were moved and marked before.
        if from <= self.moved.load(Ordering::Acquire) {
            return None;
        }
        let (mut bytes, mut out) = (0_usize, Vec::new());
        let later = pieces.iter().skip_while(|piece| piece.number < from / PIECE);
        let settled = later.flat_map(|piece| piece.entries()).take_while(|e| e.at <= head);
        for entry in settled.skip_while(|e| e.at < from) {
            bytes = bytes.saturating_add(entry.bytes.len());
            if bytes > max_bytes && !(at_least_one && out.is_empty()) {
                break;
            }
            out.push(entry.clone());
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use parking_lot::Mutex;
    use proptest::prelude::*;

    use super::*;

    fn entry(at: Position) -> StoredCommit {
        StoredCommit { at, bytes: Bytes::copy_from_slice(&[at as u8; 10]) }
    }

    fn places(some: Option<Vec<StoredCommit>>) -> Option<Vec<Position>> {
        some.map(|some| some.iter().map(|e| e.at).collect())
    }

    proptest! {
        #[test]
        fn what_is_added_and_not_moved_is_read_and_nothing_else(
            begin in 0..40_u64,
            steps in proptest::collection::vec((0..3_u8, 1..40_u64), 1..60),
            room in 0..500_usize,
        ) {
            let tail = Tail::new(begin, vec![]);
            let (mut head, mut moved) = (begin, begin);
            for (what, n) in steps {
                match what {
                    0 if head == moved => {
                        head += n;
                        moved = head;
                        tail.passed(head);
                    }
                    1 => {
                        moved = head.min(moved + n);
                        drop(tail.moved(moved));
                    }
                    _ => (0..n).for_each(|_| {
                        head += 1;
                        tail.push(entry(head));
                    }),
                }
                prop_assert_eq!(tail.head(), head);
                prop_assert_eq!(tail.oldest(), if moved < head { moved + 1 } else { 0 });
                for from in [1, moved, moved + 1, (moved + head) / 2, head, head + 1] {
                    let fit = if room < 10 { 1 } else { (room / 10) as u64 };
                    let expected = (from > moved).then(|| (from..=head).take(fit as usize).collect::<Vec<_>>());
                    prop_assert_eq!(places(tail.read(from, room, true)), expected);
                }
                // Moved commits keep the memory of one piece at most.
                let kept = tail.pieces.load().iter().map(|p| p.entries().count() as u64).sum::<u64>();
                prop_assert!(kept < head - moved + PIECE, "{kept}");
            }
        }
    }

    #[test]
    fn what_was_saved_from_a_damaged_log_is_read_over_its_gaps() {
        let tail = Tail::new(4, [5, 6, 9, 40, 41].map(entry).to_vec());
        assert_eq!((tail.head(), tail.oldest()), (41, 5));
        assert_eq!(places(tail.read(3, 1000, true)), None);
        assert_eq!(places(tail.read(5, 1000, true)), Some(vec![5, 6, 9, 40, 41]));
        assert_eq!(places(tail.read(7, 1000, true)), Some(vec![9, 40, 41]));
        assert_eq!(places(tail.read(10, 1000, true)), Some(vec![40, 41]));
    }

    /// A read that checked the slot of position 3 before the commit was there, and the slot of position 4 after that commit was there.
    #[test]
    fn what_is_being_added_is_not_read_without_what_comes_before_it() {
        let tail = Tail::new(0, vec![]);
        (1..=2).for_each(|at| tail.push(entry(at)));
        let seen = |at: Position| tail.pieces.load()[0].entries[at as usize].set(entry(at)).is_ok();
        assert!(seen(4));
        assert_eq!(places(tail.read(2, 1000, true)), Some(vec![2]));
        drop(tail.moved(2));
        assert_eq!((tail.oldest(), places(tail.read(3, 1000, true))), (0, Some(vec![])));
        assert!(seen(3));
        tail.head.store(4, Ordering::Release);
        assert_eq!((tail.oldest(), places(tail.read(3, 1000, true))), (3, Some(vec![3, 4])));
    }

    #[test]
    fn whoever_reads_while_it_is_moved_misses_nothing() {
        let (tail, last, changing) = (Tail::new(0, vec![]), 20_000, Mutex::new(()));
        let moved = || tail.moved.load(Ordering::Acquire);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (1..=last).for_each(|at| {
                    let _alone = changing.lock();
                    tail.push(entry(at));
                });
            });
            scope.spawn(|| {
                while moved() < last {
                    let _alone = changing.lock();
                    let head = tail.head();
                    let upto = if head == last { last } else { moved().max(head.saturating_sub(7)) };
                    drop(tail.moved(upto));
                }
            });
            scope.spawn(|| {
                let mut from = 1;
                while from <= last {
                    let head = tail.head();
                    match tail.read(from, 300, true) {
                        _ if from > head => std::hint::spin_loop(),
                        // The commit is in the engine.
                        None => {
                            assert!(moved() >= from);
                            from += 1;
                        }
                        Some(some) => {
                            assert!(
                                some.iter().map(|e| e.at).eq((from..).take(some.len())) && !some.is_empty(),
                                "{from} of {head}"
                            );
                            from += some.len() as u64;
                        }
                    }
                }
            });
        });
    }
}
