//! What bytes can be carried between.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

/// A socket that bytes come from and go to, and whoever counts them.
pub trait End: Sync {
    /// The socket, which does not block.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Waits until it may be readable or writable.
    fn ready(&self, interest: Interest) -> impl Future<Output = io::Result<()>> + Send;

    /// Does it where the socket is thought ready, and remembers that it is not where it says so.
    ///
    /// # Errors
    /// Those of the deed; `WouldBlock` when the socket is not ready.
    fn when_ready<R>(
        &self,
        interest: Interest,
        deed: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R>;

    /// How many bytes more may be read from it or written to it now, at least one.
    ///
    /// # Errors
    /// Where none may any more.
    fn room(&self) -> io::Result<usize> {
        Ok(usize::MAX)
    }

    /// So many bytes were read from it.
    fn came(&self, _bytes: usize) {}

    /// So many bytes were written to it.
    fn went(&self, _bytes: usize) {}
}

macro_rules! socket {
    ($stream:ty) => {
        impl End for $stream {
            fn fd(&self) -> BorrowedFd<'_> {
                self.as_fd()
            }

            async fn ready(&self, interest: Interest) -> io::Result<()> {
                <$stream>::ready(self, interest).await.map(drop)
            }

            fn when_ready<R>(
                &self,
                interest: Interest,
                deed: impl FnOnce() -> io::Result<R>,
            ) -> io::Result<R> {
                self.try_io(interest, deed)
            }
        }
    };
}

socket!(TcpStream);
socket!(UnixStream);
