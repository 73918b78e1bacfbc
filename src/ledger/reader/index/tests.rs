//! A search with the index finds the same records as one without it, whatever parts of the index are missing.

use std::path::Path;

use parking_lot::Mutex;

use super::segment::{BLOCKS, Block, IndexSegment};
use super::segment_builder::SegmentBuilder;
use super::{HistoryIndex, IndexQuery};
use crate::commit::{EncodedCommit, EncodedRecord, WriterHead, pack};
use crate::reader::commit_scan::ScannedCommit;
use crate::reader::history_query::CancelFlag;
use crate::reader::log_reader::{LogCommit, LogCursor, last_seq_of};
use crate::reader::search::{HistoryFilter, SearchCursor, search};
use crate::record::{Author, Event, GenerationBegun, KeyChanged, Record};
use mayfly_store::memory::MemoryStore;
use mayfly_store::{Store, StoreId};
use mayfly_verify::seq::{Millis, Seq};

const COMMITS: u64 = 1_500;
/// Block size: a few commits of this log.
const BLOCK: usize = 90;

fn rare(n: u64) -> String {
    format!("rare-{n}")
}

/// Commits of one to four records; each record names a key of its own and one of a few keys that many records name.
fn log() -> (MemoryStore, SearchCursor) {
    let store = MemoryStore::new(StoreId::from_bytes([1; 16]));
    let (mut head, mut seq) = (WriterHead::START, Seq::start_of(1));
    for n in 0..COMMITS {
        let event = |r: u64| match (n, r) {
            (0, 0) => Event::GenerationBegun(GenerationBegun { generation: 1, ..Default::default() }),
            (_, 0) => Event::KeyChanged(KeyChanged { key: rare(n), ..Default::default() }),
            _ => Event::KeyChanged(KeyChanged { key: format!("k{}", (n * 7 + r) % (40 + n / 100)), ..Default::default() }),
        };
        let records: Vec<EncodedRecord> =
            (0..1 + n % 4).map(|r| EncodedRecord::new(Record::new(Author::LocalUid(0), event(r))).unwrap()).collect();
        let (bytes, next) = pack(1, head, Millis(n * 10), records.iter());
        head = next;
        store.append(n + 1, &bytes).unwrap();
        seq = records.iter().fold(seq, |s, _| s.next().unwrap());
    }
    (store, SearchCursor { position: COMMITS, seq, before: Seq::LAST })
}

fn scan_commits(store: &dyn Store) -> Vec<ScannedCommit> {
    let mut seq = Seq::ZERO;
    let all = store.read(1, usize::MAX).unwrap();
    let scanned = |entry: mayfly_store::StoredCommit| {
        let scanned = ScannedCommit::of(entry.at, seq, &entry.bytes).unwrap();
        seq = scanned.last;
        scanned
    };
    all.into_iter().map(scanned).collect()
}

fn steps(store: &dyn Store) -> Vec<LogCommit> {
    let mut seq = Seq::ZERO;
    let all = store.read(1, usize::MAX).unwrap();
    let step = |entry: mayfly_store::StoredCommit| {
        let commit = EncodedCommit::from_bytes(&entry.bytes).unwrap();
        let before = seq;
        seq = last_seq_of(&commit, seq).unwrap();
        LogCommit { position: entry.at, before, last: seq, commit }
    };
    all.into_iter().map(step).collect()
}

/// Adds commits as the background thread does.
fn feed(index: &mut HistoryIndex, steps: &[ScannedCommit]) {
    for step in steps {
        let begin = LogCursor { position: step.position, seq: step.before };
        let tail = index.tail.get_or_insert_with(|| SegmentBuilder::of_blocks(begin, BLOCK));
        if tail.take(step).unwrap() {
            let built = index.tail.take().unwrap();
            index.add(&built).unwrap();
        }
    }
}

fn filters() -> Vec<HistoryFilter> {
    let named = |names: &[&str]| HistoryFilter {
        names: names.iter().map(|n| (None, (*n).to_owned())).collect(),
        ..HistoryFilter::default()
    };
    let seq = |count: u64| HistoryFilter { seq: Seq::from_u64(Seq::start_of(1).as_u64() + count), ..HistoryFilter::default() };
    vec![
        named(&["rare-3"]),
        named(&["rare-1499"]),
        named(&["rare-700", "key changed"]),
        named(&["k3"]),
        named(&["k52"]),
        named(&["k3", "k4"]),
        named(&["nobody"]),
        HistoryFilter { since: Some(Millis(5_000)), until: Some(Millis(5_200)), ..HistoryFilter::default() },
        HistoryFilter { since: Some(Millis(14_000)), ..named(&["k5"]) },
        HistoryFilter { until: Some(Millis(900)), ..named(&["k5"]) },
        seq(1),
        seq(1_800),
        HistoryFilter::default(),
    ]
}

/// The seqs that match each filter, read in pages of a given size, and how much was read.
fn found(
    store: &MemoryStore,
    index: Option<&Mutex<HistoryIndex>>,
    end: SearchCursor,
    filter: &HistoryFilter,
    most: usize,
) -> Vec<u64> {
    let (mut all, mut turn) = (Vec::new(), Some(end));
    while let Some(from) = turn {
        let page = search(store, index, filter, from, (most, 2_000), &CancelFlag::default()).unwrap();
        all.extend(page.records.iter().map(|m| m.past.seq.count()));
        turn = page.next;
    }
    all
}

fn same(store: &MemoryStore, index: &Mutex<HistoryIndex>, end: SearchCursor, what: &str) {
    let all = steps(store);
    for filter in filters() {
        let expected = found(store, None, end, &filter, 1_000);
        for most in [3, 1_000] {
            assert_eq!(found(store, Some(index), end, &filter, most), expected, "{what}: {filter:?}");
        }
        // Forward, as an export reads.
        let (mut asked, mut place, mut forward) =
            (IndexQuery::new(&filter), LogCursor { position: 1, seq: Seq::ZERO }, Vec::new());
        loop {
            place = index.lock().next(&mut asked, place);
            let Some(step) = all.get(place.position as usize - 1) else { break };
            assert_eq!(step.before, place.seq, "{what}");
            forward.extend(step.matches(&filter).unwrap().iter().map(|m| m.past.seq.count()));
            place = LogCursor { position: step.position + 1, seq: step.last };
        }
        forward.reverse();
        assert_eq!(forward, expected, "{what}, forward: {filter:?}");
        // Through all stretches that may contain a match, as a query reads them, including those that are not covered.
        let (mut asked, begin) = (
            IndexQuery::any(&[filter.clone(), HistoryFilter::named(None, "nobody".into())]),
            LogCursor { position: 1, seq: Seq::ZERO },
        );
        let after = LogCursor { position: end.position + 1, seq: end.seq };
        let stretches = index.lock().stretches(&mut asked, begin, after);
        assert!(stretches.windows(2).all(|w| w[0].end.position <= w[1].from.position), "{what}: in order, none twice");
        let mut found = Vec::new();
        for stretch in &stretches {
            assert_eq!(all[stretch.from.position as usize - 1].before, stretch.from.seq, "{what}");
            let steps = &all[stretch.from.position as usize - 1..stretch.end.position as usize - 1];
            found.extend(steps.iter().flat_map(|step| step.matches(&filter).unwrap()).map(|m| m.past.seq.count()));
        }
        found.reverse();
        assert_eq!(found, expected, "{what}, by stretches: {filter:?}");
    }
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut all: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    all
}

#[test]
fn a_part_that_cannot_be_written_leaves_nothing_behind_and_is_made_later() {
    let (store, end) = log();
    let all = scan_commits(&store);
    let (dir, good) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut index = HistoryIndex::open(Some(good.path())).unwrap();
    feed(&mut index, &all);
    // The second segment cannot be written, because a directory stands at its path.
    let names = files(good.path());
    let taken = dir.path().join(names[1].file_name().unwrap());
    std::fs::create_dir_all(taken.join("x")).unwrap();
    let mut index = HistoryIndex::open(Some(dir.path())).unwrap();
    let mut failed = 0;
    for step in &all {
        let tail = index.tail.get_or_insert_with(|| SegmentBuilder::of_blocks(LogCursor { position: 1, seq: Seq::ZERO }, BLOCK));
        if tail.take(step).unwrap() {
            let next = SegmentBuilder::of_blocks(tail.place(), BLOCK);
            failed += usize::from(index.tail.replace(next).is_some_and(|built| index.add(&built).is_err()));
        }
    }
    assert_eq!(failed, 1);
    let writing = |dir: &Path| files(dir).iter().filter(|f| f.extension().is_some_and(|e| e == "writing")).count();
    assert_eq!(writing(dir.path()), 0, "half a file takes room for nothing");
    same(&store, &Mutex::new(index), end, "with a part that could not be written");
    // A file left half written by a kill is removed at the next start.
    std::fs::remove_dir_all(&taken).unwrap();
    std::fs::write(dir.path().join("0000000000000001.writing"), [0; 4096]).unwrap();
    let again = HistoryIndex::open(Some(dir.path())).unwrap();
    assert_eq!(writing(dir.path()), 0);
    same(&store, &Mutex::new(again), end, "read again");
}

#[test]
fn it_leads_to_all_that_is_there_also_with_parts_missing_or_damaged() {
    let (store, end) = log();
    let all = scan_commits(&store);
    let dir = tempfile::tempdir().unwrap();
    let mut index = HistoryIndex::open(Some(dir.path())).unwrap();
    feed(&mut index, &all);
    assert!(files(dir.path()).len() > 3 && index.tail.is_some(), "several segments, and what is new");
    let index = Mutex::new(index);
    same(&store, &index, end, "whole");
    // After a restart, before the new commits are indexed.
    let again = Mutex::new(HistoryIndex::open(Some(dir.path())).unwrap());
    same(&store, &again, end, "read again");
    assert_eq!(again.lock().size(), index.lock().size());
    // In memory.
    let mut memory = HistoryIndex::default();
    feed(&mut memory, &all);
    same(&store, &Mutex::new(memory), end, "in memory");
    // One segment that is lost, and one with a changed byte in its names or in its head.
    let names = files(dir.path());
    std::fs::remove_file(&names[1]).unwrap();
    let mut bytes = std::fs::read(&names[2]).unwrap();
    let at = bytes.len() - 2_000;
    bytes[at] ^= 1;
    std::fs::write(&names[2], bytes).unwrap();
    let mut bytes = std::fs::read(&names[0]).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&names[0], bytes).unwrap();
    let holed = Mutex::new(HistoryIndex::open(Some(dir.path())).unwrap());
    same(&store, &holed, end, "with holes");
    assert!(!names[2].exists(), "what is damaged goes, to be made again");
    // Filled again, the index is equal to the original.
    let mut index = holed.into_inner();
    loop {
        let (from, until) = index.hole(LogCursor { position: 1, seq: Seq::ZERO });
        let Some(until) = until else { break };
        let mut built = SegmentBuilder::of_blocks(from, BLOCK);
        for step in all.iter().filter(|s| (from.position..until).contains(&s.position)) {
            if built.take(step).unwrap() {
                break;
            }
        }
        index.add(&built).unwrap();
    }
    same(&store, &Mutex::new(index), end, "filled");
}

#[test]
fn what_was_written_at_a_stop_is_gone_on_with_after_it() {
    let (store, end) = log();
    let all = scan_commits(&store);
    let dir = tempfile::tempdir().unwrap();
    let mut index = HistoryIndex::open(Some(dir.path())).unwrap();
    let (before, after) = all.split_at(1_003);
    feed(&mut index, before);
    let tail = index.tail.take().unwrap();
    tail.segment(Some(dir.path())).unwrap();
    let (count, place) = (files(dir.path()).len(), tail.place());
    let mut again = HistoryIndex::open(Some(dir.path())).unwrap();
    again.resume(BLOCK);
    assert_eq!(again.tail.as_ref().map(SegmentBuilder::place), Some(place), "nothing is read again");
    assert_eq!(again.covered(1, end.position + 1), 1_003);
    feed(&mut again, after);
    assert_eq!(again.covered(1, end.position + 1), COMMITS);
    assert!(files(dir.path()).len() >= count, "what becomes whole takes the place of what was not");
    same(&store, &Mutex::new(again), end, "gone on with");
}

#[test]
fn one_name_leads_to_few_blocks_and_a_seq_to_its_own() {
    let (store, end) = log();
    let all = scan_commits(&store);
    let mut index = HistoryIndex::default();
    feed(&mut index, &all);
    let total = index.segments.values().map(|s| s.blocks().len()).sum::<usize>();
    assert!(total > 150);
    let index = Mutex::new(index);
    for n in [3, 500, 1_400] {
        let filter = HistoryFilter { names: vec![(None, rare(n))], ..HistoryFilter::default() };
        // One step reads at most the bound; with the index one step is enough.
        let page = search(&store, Some(&index), &filter, end, (10, 4_000), &CancelFlag::default()).unwrap();
        assert_eq!((page.records.len(), page.next), (1, None));
        assert!(search(&store, None, &filter, end, (10, 4_000), &CancelFlag::default()).unwrap().next.is_some());
    }
    for step in &all {
        for seq in [step.before, step.last] {
            let place = index.lock().place_of(seq).unwrap();
            assert!(place.seq <= seq && place.position <= step.position + 1);
        }
    }
    assert_eq!(index.lock().place_of(end.seq.next().unwrap()), None);
    let mut index = index.into_inner();
    index.forget_before(700);
    assert!(index.segments.values().all(|s| s.end().position > 700));
    assert!(index.hint(&mut IndexQuery::new(&HistoryFilter::default()), 1).is_none());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]

    #[test]
    fn a_file_says_of_each_name_what_its_rows_say(
        rows in proptest::collection::vec(
            proptest::collection::btree_set(proptest::prop_oneof![0_u32..40, proptest::prelude::any::<u32>(), u32::MAX - 3..=u32::MAX], 0..400),
            1..=BLOCKS,
        ),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let place = |position| LogCursor { position, seq: Seq::start_of(1) };
        let blocks = vec![Block { first: 1, before: 0, oldest: 0, newest: 0 }; rows.len()];
        let boxed = || rows.iter().map(|row| row.iter().copied().collect()).collect();
        let make = |dir| IndexSegment::make(dir, (place(1), place(2)), blocks.clone(), boxed(), [0; 32]).unwrap();
        let (file, memory) = (make(Some(dir.path())), make(None));
        let one = |segment: &IndexSegment, name| segment.masks(&[name], &mut 0).unwrap()[0];
        proptest::prop_assert_eq!(file.rows().unwrap(), memory.rows().unwrap());
        for name in rows.iter().flatten().step_by(13).copied().chain([0, 41, u32::MAX / 2, u32::MAX]) {
            let of = (0..).zip(&rows).filter(|(_, row)| row.contains(&name)).fold(0, |mask, (block, _)| mask | 1_u64 << block);
            proptest::prop_assert_eq!((one(&file, name), one(&memory, name)), (of, of), "{:08x}", name);
        }
    }
}
