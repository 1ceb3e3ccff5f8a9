//! A connection of which only so much is read until more is granted: a line of a reply has no end
//! before the server says so, and lettre would hold all of it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of one reply, or of all that is said until mails can be sent; certificates are the most of it.
const GRANT: usize = 128 * 1024;

/// How much may still be read.
#[derive(Clone, Debug)]
pub(super) struct Grant(Arc<AtomicUsize>);

impl Grant {
    /// Enough for one reply.
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicUsize::new(GRANT)))
    }

    /// What was read is forgotten.
    pub(super) fn renew(&self) {
        self.0.store(GRANT, Ordering::Relaxed);
    }
}

/// The connection.
#[derive(Debug)]
pub(super) struct Bounded<S> {
    stream: S,
    peer: SocketAddr,
    grant: Grant,
}

impl<S> Bounded<S> {
    pub(super) fn new(stream: S, peer: SocketAddr, grant: Grant) -> Self {
        Self { stream, peer, grant }
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin + std::fmt::Debug> AsyncTokioStream for Bounded<S> {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.grant.0.load(Ordering::Relaxed);
        if left == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the reply is too long")));
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        // By as much as the reader's buffer it may be exceeded.
        self.grant.0.store(left.saturating_sub(into.filled().len() - before), Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
