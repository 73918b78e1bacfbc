//! Write coalescing: answers of one connection that become ready together are sent in one write.
//!
//! A commit answers many calls at once, and each answer wakes its connection. Polling the connection at every wake would cost a pass
//! through HTTP/2, a TLS record and a system call per answer: a third of the CPU of a unary issuance. A connection that is woken therefore
//! first lets all tasks that are ready run ([`in_turn`]), and its output is held until it is flushed ([`CoalescedOutput`]). A turn is what
//! tokio's `yield_now` provides: the connection runs when no other task is ready, and after 61 other tasks at the latest.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection_table::ConnectionActivity;
use mayfly_base::limits;

/// Size of the pieces in which held output is given to TLS, bytes. TLS copies each piece, and above 2,112 bytes the C library copies with
/// an instruction that takes ten times as long on some processors (Zen 4, depending on the page alignment of source and target): 2 % of an
/// issuance.
const PIECE: usize = 2 * 1024;
const PIECES: usize = limits::GATHERED_BYTES.div_ceil(PIECE);

/// The output of a connection, held back until the end of the connection's turn ([`in_turn`]) or until it has `limits::GATHERED_BYTES`.
///
/// Towards HTTP/2 a flush succeeds immediately: h2 flushes after each data frame, and real flushes would prevent coalescing.
pub struct CoalescedOutput<IO>(Arc<Mutex<Held<IO>>>);

thread_local! {
    /// The buffer of a connection's last write, for the next connection on this thread: an idle connection holds no memory, and a busy one
    /// does not grow a new buffer for each write.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The handle that flushes a [`CoalescedOutput`] at the end of a turn.
pub struct OutputFlusher<IO>(Arc<Mutex<Held<IO>>>);

struct Held<IO> {
    io: IO,
    activity: Arc<ConnectionActivity>,
    waiting: Vec<u8>,
    /// How many of the held bytes were written.
    gone: usize,
    /// The error of a write that failed after HTTP/2 was told that it succeeded: the next operation returns this error.
    broken: Option<io::ErrorKind>,
}

impl<IO> CoalescedOutput<IO> {
    /// Wraps a connection's IO.
    pub fn new(io: IO, activity: Arc<ConnectionActivity>) -> (CoalescedOutput<IO>, OutputFlusher<IO>) {
        let held = Arc::new(Mutex::new(Held { io, activity, waiting: Vec::new(), gone: 0, broken: None }));
        (CoalescedOutput(held.clone()), OutputFlusher(held))
    }
}

/// Polls a connection not at each wake, but after all tasks that were ready have run. Its output is written after each poll.
pub async fn in_turn<F: Future, IO: AsyncWrite + Unpin>(mut connection: Pin<&mut F>, turns: &OutputFlusher<IO>) -> F::Output {
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    std::future::poll_fn(|cx| {
        bell.answered_by(cx.waker());
        let mut own = Context::from_waker(&waker);
        let polled = connection.as_mut().poll(&mut own);
        if polled.is_pending() {
            turns.write(&mut own);
        }
        polled
    })
    .await
}

impl<IO: AsyncWrite + Unpin> OutputFlusher<IO> {
    /// Writes the held bytes as far as the peer accepts them. An error is stored for the connection, which is woken for it.
    fn write(&self, cx: &mut Context<'_>) {
        let mut held = self.0.lock();
        if let Poll::Ready(Err(error)) = held.poll_drain(cx) {
            held.broken = Some(error.kind());
            cx.waker().wake_by_ref();
        }
    }
}

impl<IO> Held<IO> {
    fn room(&self) -> usize {
        limits::GATHERED_BYTES.saturating_sub(self.waiting.len() - self.gone)
    }

    fn hold(&mut self, bytes: &[u8]) {
        if self.waiting.capacity() == 0 {
            self.waiting = SPARE.take();
        }
        self.waiting.drain(..std::mem::take(&mut self.gone));
        self.waiting.extend_from_slice(bytes);
    }

    fn hold_none(&mut self) {
        let mut spare = std::mem::take(&mut self.waiting);
        spare.clear();
        self.gone = 0;
        SPARE.set(spare);
    }

    fn unbroken(&self) -> io::Result<()> {
        self.broken.map_or(Ok(()), |kind| Err(kind.into()))
    }
}

impl<IO: AsyncWrite + Unpin> Held<IO> {
    /// Writes and flushes all held bytes, and records whether the peer accepts them.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let drained = self.poll_write_all(cx);
        self.activity.writes(drained.is_pending());
        drained
    }

    fn poll_write_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.unbroken()?;
        if self.waiting.is_empty() {
            // TLS may hold back data of its own: a ticket, a refused record.
            return Pin::new(&mut self.io).poll_flush(cx);
        }
        while let Some(rest) = self.waiting.get(self.gone..).filter(|rest| !rest.is_empty()) {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let filled = pieces.iter_mut().zip(rest.chunks(PIECE)).map(|(piece, bytes)| *piece = IoSlice::new(bytes)).count();
            match ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &pieces[..filled]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => {
                    self.gone += n;
                    self.activity.writes(false);
                }
            }
        }
        self.hold_none();
        Pin::new(&mut self.io).poll_flush(cx)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for CoalescedOutput<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for CoalescedOutput<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut held = self.0.lock();
        held.unbroken()?;
        if held.room() == 0 {
            ready!(held.poll_drain(cx))?;
        }
        let mut taken = 0;
        for buf in bufs {
            let now = buf.len().min(held.room());
            held.hold(buf.get(..now).unwrap_or_default());
            taken += now;
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.lock().unbroken())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = self.0.lock();
        ready!(held.poll_drain(cx))?;
        Pin::new(&mut held.io).poll_shutdown(cx)
    }
}

/// A waker that any number of wakes set; the connection's task is woken once, after other tasks had their turn.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Bell {
    /// Records the connection's task as the one to wake. Wakes from now on cause one more poll.
    fn answered_by(&self, task: &Waker) {
        let mut known = self.task.lock();
        if !known.as_ref().is_some_and(|known| known.will_wake(task)) {
            *known = Some(task.clone());
        }
        drop(known);
        // A swap, not a store: with acquire ordering, everything that an earlier waker did is visible to this poll, and a later wake causes
        // another poll.
        self.rung.swap(false, Ordering::AcqRel);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let task = self.task.lock().clone();
        if let Some(task) = task {
            // One poll of `yield_now` leaves the waker with the scheduler, which wakes the task after this turn; without a scheduler the
            // task is woken at once.
            let _ = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&task));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shares::ShareLimits;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Counts the writes that arrive.
    struct Counted {
        writes: usize,
        most: usize,
        got: Vec<u8>,
    }

    impl AsyncWrite for Counted {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.writes += 1;
            let n = buf.len().min(self.most);
            self.got.extend_from_slice(&buf[..n]);
            Poll::Ready(Ok(n))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn over(most: usize) -> (CoalescedOutput<Counted>, OutputFlusher<Counted>) {
        let activity = ConnectionActivity::alone(ShareLimits::AUTHENTICATED);
        CoalescedOutput::new(Counted { writes: 0, most, got: Vec::new() }, activity)
    }

    fn written(turns: &OutputFlusher<Counted>) -> (usize, Vec<u8>) {
        let held = turns.0.lock();
        (held.io.writes, held.io.got.clone())
    }

    #[tokio::test]
    async fn what_is_written_in_one_turn_goes_out_at_its_end_at_once_and_whole() {
        for (most, writes) in [(usize::MAX, 1), (7, 43)] {
            let (mut io, turns) = over(most);
            let mut sent = false;
            let connection = async {
                for n in 0..100u8 {
                    io.write_all(&[n; 3]).await.unwrap();
                    // h2 flushes after each frame, too.
                    io.flush().await.unwrap();
                }
                std::future::poll_fn(|cx| {
                    assert_eq!(io.0.lock().io.writes, if sent { writes } else { 0 }, "nothing goes before the turn is over");
                    cx.waker().wake_by_ref();
                    if std::mem::replace(&mut sent, true) { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            };
            in_turn(pin!(connection), &turns).await;
            assert_eq!(written(&turns), (writes, (0..100u8).flat_map(|n| [n; 3]).collect::<Vec<_>>()));
        }
    }

    #[tokio::test]
    async fn a_write_that_failed_after_it_was_taken_is_told_to_who_wrote_it() {
        let (mut io, turns) = over(0);
        let connection = async {
            io.write_all(b"lost").await.unwrap();
            tokio::task::yield_now().await;
            io.flush().await.unwrap_err().kind()
        };
        assert_eq!(in_turn(pin!(connection), &turns).await, io::ErrorKind::WriteZero);
        assert_eq!(io.write_all(b"more").await.unwrap_err().kind(), io::ErrorKind::WriteZero);
    }

    #[tokio::test]
    async fn what_is_woken_by_many_is_polled_when_all_had_their_turn() {
        let (send, mut recv) = tokio::sync::mpsc::unbounded_channel();
        let polls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = polls.clone();
        let reader = tokio::spawn(async move {
            let all = std::future::poll_fn(move |cx| {
                counted.fetch_add(1, Ordering::SeqCst);
                while let Some(n) = ready!(recv.poll_recv(cx)) {
                    if n == 99 {
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(())
            });
            in_turn(pin!(all), &over(1).1).await;
        });
        tokio::task::yield_now().await;
        let before = polls.load(Ordering::SeqCst);
        // Each message is sent from its own task and wakes the connection, as answers wake their connection.
        let tasks: Vec<_> = (0..100)
            .map(|n| {
                tokio::spawn({
                    let send = send.clone();
                    async move { send.send(n).unwrap() }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        reader.await.unwrap();
        let polls = polls.load(Ordering::SeqCst) - before;
        assert!((1..=4).contains(&polls), "polled {polls} times for 100 wakes");
    }

    #[tokio::test]
    async fn a_wake_from_outside_or_in_the_middle_of_a_poll_is_not_lost() {
        for _ in 0..200 {
            let rung = Arc::new(AtomicBool::new(false));
            let mut thread = None;
            let waits = std::future::poll_fn(|cx| {
                if rung.load(Ordering::SeqCst) {
                    return Poll::Ready(());
                }
                // Woken by a thread without a scheduler, perhaps before this poll has returned.
                let (waker, rung) = (cx.waker().clone(), rung.clone());
                thread.get_or_insert_with(|| {
                    std::thread::spawn(move || {
                        rung.store(true, Ordering::SeqCst);
                        waker.wake();
                    })
                });
                Poll::Pending
            });
            tokio::time::timeout(std::time::Duration::from_secs(10), in_turn(pin!(waits), &over(1).1)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn it_holds_no_more_than_its_bound_and_ends_with_all_written() {
        let (mut io, turns) = over(1000);
        let all = vec![5u8; 3 * limits::GATHERED_BYTES + 17];
        io.write_all(&all).await.unwrap();
        assert!(turns.0.lock().waiting.len() <= limits::GATHERED_BYTES);
        io.shutdown().await.unwrap();
        assert_eq!(written(&turns).1, all);
    }

    #[tokio::test]
    async fn reading_goes_through() {
        let (mut peer, ours) = tokio::io::duplex(64);
        peer.write_all(b"hello").await.unwrap();
        let mut got = [0; 5];
        CoalescedOutput::new(ours, ConnectionActivity::alone(ShareLimits::AUTHENTICATED)).0.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello");
    }
}
