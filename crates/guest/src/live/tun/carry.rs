//! One connection of a program that knows no proxy, from its first packet to its end.

use super::packet::{self, DNS_PORT, Flow};
use super::{Tun, ask, name};
use guest::message::TUN_DNS;
use smoltcp::socket::tcp::{Socket, State};
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Times that both directions are looked at before others get their turn.
const ROUNDS: usize = 16;

/// How long a program that was told of the end may say nothing and keep its own end open; as `tcp_fin_timeout` of
/// `tcp(7)`.
const HALF_MAX: Duration = Duration::from_secs(60);

/// Bytes of a connection for questions that wait.
const QUESTIONS: usize = 4096;

/// Asks the node, answers the program's first packet, and carries what both say. A program whose connection is
/// refused, or comes to nothing, gets a reset as its first answer.
pub(super) async fn connect(tun: Rc<Tun>, flow: Flow, mut syn: Vec<u8>) {
    packet::cut(&mut syn);
    if flow.to.ip() == TUN_DNS {
        take_questions(&tun, flow, &syn).await;
    } else {
        let host = tun.host_of(flow.to);
        match ask::connect(&tun.lines, &host, flow.to.port()).await {
            Some(mut line) => {
                tun.stack.borrow_mut().accept(&tun.device, flow, &syn);
                carry(&tun, flow, &mut line).await;
            }
            None => tun.stack.borrow_mut().refuse(&tun.device, &syn),
        }
    }
    let mut stack = tun.stack.borrow_mut();
    stack.remove(flow);
    stack.rest();
}

async fn take_questions(tun: &Tun, flow: Flow, syn: &[u8]) {
    if flow.to.port() != DNS_PORT || tun.askers.get() >= name::ASKERS_MAX {
        return tun.stack.borrow_mut().refuse(&tun.device, syn);
    }
    tun.askers.set(tun.askers.get() + 1);
    let (mut line, theirs) = tokio::io::duplex(QUESTIONS);
    tun.stack.borrow_mut().accept(&tun.device, flow, syn);
    tokio::join!(carry(tun, flow, &mut line), name::serve(tun, theirs));
    tun.askers.set(tun.askers.get() - 1);
}

/// Which directions are still open.
#[derive(Debug)]
struct Carrying {
    /// From the program to the line.
    out: bool,
    /// From the line to the program.
    back: bool,
    /// When something was last carried.
    moved: Instant,
}

async fn carry(tun: &Tun, flow: Flow, line: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let mut carrying = Carrying {
        out: true,
        back: true,
        moved: Instant::now(),
    };
    let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
    poll_fn(|context| {
        for _ in 0..ROUNDS {
            let mut stack = tun.stack.borrow_mut();
            let Some(socket) = stack.socket(flow, context.waker()) else {
                return Poll::Ready(());
            };
            let moved = carrying.step(socket, line, context);
            let over = carrying.is_over(socket);
            let delay = stack.flush(&tun.device, flow);
            if over {
                return Poll::Ready(());
            }
            if !moved {
                ready!(wait(timer.as_mut(), carrying.patience(delay), context));
            }
        }
        // There may be more, and others wait.
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Ready when there is something to do again without anything having come.
fn wait(
    mut timer: Pin<&mut tokio::time::Sleep>,
    delay: Option<Duration>,
    context: &mut Context<'_>,
) -> Poll<()> {
    let Some(delay) = delay else {
        return Poll::Pending;
    };
    // The clock of timers ticks in milliseconds.
    let delay = delay.max(Duration::from_millis(1));
    timer.as_mut().reset(Instant::now() + delay);
    timer.poll(context)
}

impl Carrying {
    /// Carries what there is, once each way. Whether something was.
    fn step(
        &mut self,
        socket: &mut Socket<'_>,
        line: &mut (impl AsyncRead + AsyncWrite + Unpin),
        context: &mut Context<'_>,
    ) -> bool {
        if matches!(socket.state(), State::Listen | State::SynReceived) {
            return false;
        }
        if !self.back && self.moved.elapsed() >= HALF_MAX {
            socket.abort();
        }
        let out = self.out && self.step_out(socket, line, context);
        let back = self.back && self.step_back(socket, line, context);
        if out || back {
            self.moved = Instant::now();
        }
        out || back
    }

    fn step_out(
        &mut self,
        socket: &mut Socket<'_>,
        line: &mut (impl AsyncWrite + Unpin),
        context: &mut Context<'_>,
    ) -> bool {
        let mut line = Pin::new(line);
        if socket.can_recv() {
            let written = socket.recv(|bytes| match line.as_mut().poll_write(context, bytes) {
                Poll::Ready(Ok(count @ 1..)) => (count, Some(true)),
                Poll::Ready(Ok(0) | Err(_)) => (0, Some(false)),
                Poll::Pending => (0, None),
            });
            return match written {
                Ok(None) => false,
                Ok(Some(true)) => true,
                // Nobody reads it any more: the program is told as if by whom it speaks to.
                Ok(Some(false)) | Err(_) => {
                    self.out = false;
                    socket.abort();
                    true
                }
            };
        }
        if socket.may_recv() {
            return false;
        }
        let ended = line.poll_shutdown(context).is_ready();
        self.out = !ended;
        ended
    }

    fn step_back(
        &mut self,
        socket: &mut Socket<'_>,
        line: &mut (impl AsyncRead + Unpin),
        context: &mut Context<'_>,
    ) -> bool {
        if !socket.can_send() {
            return false;
        }
        let read = socket.send(|room| {
            let mut room = ReadBuf::new(room);
            let read = Pin::new(line).poll_read(context, &mut room);
            (room.filled().len(), read.map_ok(|()| room.filled().len()))
        });
        match read {
            Ok(Poll::Pending) => false,
            Ok(Poll::Ready(Ok(1..))) => true,
            Ok(Poll::Ready(Ok(0))) => {
                self.back = false;
                socket.close();
                true
            }
            Ok(Poll::Ready(Err(_))) | Err(_) => {
                self.back = false;
                socket.abort();
                true
            }
        }
    }

    /// Both ends know that it is over, or one does not care.
    fn is_over(&self, socket: &Socket<'_>) -> bool {
        let ended = matches!(
            socket.state(),
            State::Closed | State::TimeWait | State::Listen
        );
        ended && !(self.out && socket.can_recv())
    }

    /// When this must be looked at again: the socket's own time, or that of a program that does not go.
    fn patience(&self, delay: Option<Duration>) -> Option<Duration> {
        if self.back {
            return delay;
        }
        let left = HALF_MAX.saturating_sub(self.moved.elapsed());
        Some(delay.map_or(left, |delay| delay.min(left)))
    }
}
