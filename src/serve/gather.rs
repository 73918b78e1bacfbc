//! Answers of one connection that become ready together go out in one write.
//!
//! A commit answers many calls at once, and each of them wakes its connection. Were every wake a write, each answer would cost a TLS record
//! and a system call: a fifth of the CPU of a unary issuance. So a flush first lets whoever is ready have its turn, once, and then writes
//! what came together. A turn is what tokio makes of `yield_now`: when nothing else is ready, and after 61 others at the latest.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits;

/// Gathers what is written until it is flushed, or until it is as much as `limits::GATHERED_BYTES`.
pub struct Gathered<IO> {
    io: IO,
    waiting: BytesMut,
    turn: Arc<Turn>,
    /// A flush waits for the turn of others.
    waits: bool,
}

/// Whether others had their turn. Woken by the scheduler, while whatever else wakes the connection does not count.
#[derive(Default)]
struct Turn {
    over: AtomicBool,
    connection: Mutex<Option<Waker>>,
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.over.store(true, Ordering::Release);
        if let Some(connection) = self.connection.lock().take() {
            connection.wake();
        }
    }
}

impl Turn {
    fn begin(self: &Arc<Self>) {
        self.over.store(false, Ordering::Release);
        let waker = Waker::from(self.clone());
        // Polled once, it has the scheduler wake us; then it is not needed any more.
        if pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&waker)).is_ready() {
            self.over.store(true, Ordering::Release);
        }
    }

    fn poll_over(&self, cx: &Context<'_>) -> Poll<()> {
        *self.connection.lock() = Some(cx.waker().clone());
        // Looked at after the waker was left: a turn that ends in between wakes it.
        if self.over.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<IO> Gathered<IO> {
    /// Over a connection.
    pub fn new(io: IO) -> Gathered<IO> {
        Gathered { io, waiting: BytesMut::new(), turn: Arc::default(), waits: false }
    }

    fn room(&self) -> usize {
        limits::GATHERED_BYTES.saturating_sub(self.waiting.len())
    }
}

impl<IO: AsyncWrite + Unpin> Gathered<IO> {
    /// Writes all that waits.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.waiting))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.waiting.advance(n),
            }
        }
        // An idle connection holds no memory for it.
        self.waiting = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Gathered<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Gathered<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.room() == 0 {
            ready!(self.poll_drain(cx))?;
        }
        let mut taken = 0;
        for buf in bufs {
            let now = buf.len().min(self.room());
            self.waiting.extend_from_slice(buf.get(..now).unwrap_or_default());
            taken += now;
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.waiting.is_empty() {
            if !self.waits {
                self.waits = true;
                self.turn.begin();
            }
            ready!(self.turn.poll_over(cx));
        }
        ready!(self.poll_drain(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.waits = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Counts the writes that come through.
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

    fn over(most: usize) -> Gathered<Counted> {
        Gathered::new(Counted { writes: 0, most, got: Vec::new() })
    }

    #[tokio::test]
    async fn what_is_written_before_a_flush_goes_out_at_once_and_whole() {
        for (most, writes) in [(usize::MAX, 1), (7, 43)] {
            let mut io = over(most);
            for n in 0..100u8 {
                io.write_all(&[n; 3]).await.unwrap();
            }
            assert_eq!(io.io.writes, 0, "nothing goes before the flush");
            io.flush().await.unwrap();
            assert_eq!(io.io.writes, writes);
            assert_eq!(io.io.got, (0..100u8).flat_map(|n| [n; 3]).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn a_flush_lets_others_have_their_turn_whoever_else_wakes_it() {
        let mut io = over(usize::MAX);
        io.write_all(b"first").await.unwrap();
        // Polled again and again, as by each answer that becomes ready, it waits for the scheduler all the same.
        let turn = std::future::poll_fn(|cx| {
            let pending = (0..5).all(|_| Pin::new(&mut io).poll_flush(cx).is_pending());
            Poll::Ready((pending, io.io.writes))
        });
        assert_eq!(turn.await, (true, 0));
        io.write_all(b" second").await.unwrap();
        io.flush().await.unwrap();
        assert_eq!((io.io.writes, &io.io.got[..]), (1, &b"first second"[..]));
        io.flush().await.unwrap();
        assert_eq!(io.io.writes, 1, "nothing waits, nothing is written");
    }

    #[tokio::test]
    async fn it_holds_no_more_than_its_bound_and_ends_with_all_written() {
        let mut io = over(1000);
        let all = vec![5u8; 3 * limits::GATHERED_BYTES + 17];
        io.write_all(&all).await.unwrap();
        assert!(io.waiting.len() <= limits::GATHERED_BYTES);
        io.shutdown().await.unwrap();
        assert_eq!(io.io.got, all);
    }

    #[tokio::test]
    async fn reading_goes_through() {
        let (mut peer, ours) = tokio::io::duplex(64);
        peer.write_all(b"hello").await.unwrap();
        let mut got = [0; 5];
        Gathered::new(ours).read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello");
    }
}
