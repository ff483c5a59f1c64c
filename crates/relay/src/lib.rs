//! Carries bytes between two sockets without taking them into this process: `splice(2)` moves pages from one to a
//! pipe, and from the pipe to the other. The node's proxy and the guest both do it, each for its half of the way
//! out.
//!
//! Both ends may be hostile. Neither is believed to go on, to read or to end; a connection on which nothing moves
//! holds no pipe and no buffer, and one whose reader is slow holds one of either, of a bounded size. Pipes are
//! made here and given to nobody: who has the other end of a pipe can hold its lock, and whoever waits for that
//! lock waits in the kernel without an end.
//!
//! This room must never look at a byte, know whose it is, start a thread, or block.

mod end;
mod store;

pub use end::End;
pub use store::{Pipes, Share};

use rustix::io::Errno;
use rustix::net::Shutdown;
use std::io;
use store::Held;
use tokio::io::Interest;

/// Times that one direction is carried before others get their turn: some milliseconds.
const TURNS: usize = 16;

/// Carries bytes both ways until both ends have closed or one is broken. An end that has closed is told to the
/// other, which may go on.
///
/// # Errors
/// Those of either end, and what [`End::room`] says.
pub async fn both(one: &impl End, other: &impl End, share: &Share) -> io::Result<()> {
    let there = one_way(one, other, share);
    let back = one_way(other, one, share);
    tokio::try_join!(there, back).map(|((), ())| ())
}

async fn one_way(from: &impl End, to: &impl End, share: &Share) -> io::Result<()> {
    let mut turns = 0;
    loop {
        from.ready(Interest::READABLE).await?;
        // Only now: who says nothing holds nothing.
        let mut held = share.take();
        loop {
            match held.fill(from) {
                Ok(0) => return told(to),
                Ok(_) => empty(&mut held, to).await?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            turns += 1;
            if turns % TURNS == 0 {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Gives an end all that is held.
async fn empty(held: &mut Held<'_>, to: &impl End) -> io::Result<()> {
    while !held.is_empty() {
        match held.pour(to) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                to.ready(Interest::WRITABLE).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Tells an end that nothing more comes.
fn told(to: &impl End) -> io::Result<()> {
    match rustix::net::shutdown(to.fd(), Shutdown::Write) {
        // It went away in the meantime, and the other direction will say so.
        Ok(()) | Err(Errno::NOTCONN) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests;
