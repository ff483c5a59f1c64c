//! A connection to the outside: a socket of this machine, or TLS over one, to a proxy that is spoken to so.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

#[derive(Debug)]
pub(crate) enum Outside {
    Bare(TcpStream),
    Secured(Box<TlsStream<TcpStream>>),
}

impl Outside {
    /// The socket, where what is carried need not pass through here.
    pub(crate) fn bare(&self) -> Option<&TcpStream> {
        match self {
            Outside::Bare(socket) => Some(socket),
            Outside::Secured(_) => None,
        }
    }
}

impl AsyncRead for Outside {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Outside::Bare(socket) => Pin::new(socket).poll_read(context, buffer),
            Outside::Secured(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Outside {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Outside::Bare(socket) => Pin::new(socket).poll_write(context, bytes),
            Outside::Secured(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Outside::Bare(socket) => Pin::new(socket).poll_write_vectored(context, parts),
            Outside::Secured(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Outside::Bare(socket) => socket.is_write_vectored(),
            Outside::Secured(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Outside::Bare(socket) => Pin::new(socket).poll_flush(context),
            Outside::Secured(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Outside::Bare(socket) => Pin::new(socket).poll_shutdown(context),
            Outside::Secured(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
