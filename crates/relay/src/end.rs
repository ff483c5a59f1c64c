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

    /// Reserves the right to read from it or write to it at most so many bytes: as many, or fewer, and at least one.
    /// It is told at once how many they were, and nothing is awaited in between.
    ///
    /// # Errors
    /// `WouldBlock` while all that is left is reserved by others; another where nothing is left.
    fn reserve(&self, most: usize) -> io::Result<usize> {
        Ok(most)
    }

    /// Of so many reserved bytes, so many were read from it.
    fn came(&self, _reserved: usize, _bytes: usize) {}

    /// Of so many reserved bytes, so many were written to it.
    fn went(&self, _reserved: usize, _bytes: usize) {}
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
