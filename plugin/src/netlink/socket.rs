//! The socket under an exchange: it never waits where nobody would wake it, and it keeps the reason why it died.
//!
//! The kernel carries a request out within `send`, and the answer is queued when that returns. So a send that "would block" is a
//! failure (no event ever announces that it would not any more), and an answer that was lost to a full queue is known to be lost
//! as soon as the queue is empty.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::task::{Context, Poll, ready};

use bytes::BufMut;
use nix::errno::Errno;
use nix::libc;
use rtnetlink::sys::{AsyncSocket, Socket, SocketAddr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::errno_of;

/// How often a call that a signal has interrupted is made again: flatnet is sent none, as a rule.
const INTERRUPTIONS_MAX: usize = 16;

/// What a socket has room for if nobody asked for more (`net.core.wmem_default` of Linux), less what the kernel adds.
const ROOM_BYTES: usize = 128 * 1024;

/// Why a socket is of no use any more.
#[derive(Clone, Debug, Default)]
pub(super) struct Death(Arc<AtomicI32>);

impl Death {
    /// To be asked where an answer is missing; `ENOTCONN` where nothing more is known.
    pub(super) fn reason(&self) -> Errno {
        let unknown = Errno::ENOTCONN as i32;
        match self.0.compare_exchange(0, unknown, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Errno::ENOTCONN,
            Err(known) => Errno::from_raw(known),
        }
    }

    /// Whether it has happened.
    pub(super) fn has_come(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// The connection above only needs to hear that it is over; it would take `ENOBUFS` for news of the queue, and go on waiting.
    fn of(&self, error: &io::Error) -> io::Error {
        self.0.store(errno_of(error) as i32, Ordering::Relaxed);
        io::ErrorKind::NotConnected.into()
    }
}

/// Needs a tokio runtime, for as long as it is used.
pub(super) struct Exchange {
    socket: AsyncFd<Socket>,
    death: Death,
    /// Whether the kernel had no room for something since the last message that came.
    lost: AtomicBool,
    /// Whether something was sent since the queue was seen empty: then the answer is in it already.
    asked: AtomicBool,
}

impl Exchange {
    /// What becomes of the socket is written into `death`.
    pub(super) fn open(protocol: isize, death: Death) -> io::Result<Self> {
        let socket = Socket::new(protocol)?;
        socket.set_non_blocking(true)?;
        // SAFETY: the socket owns its descriptor, gives no other, and stays open until it is dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { socket, death, lost: AtomicBool::new(false), asked: AtomicBool::new(false) })
    }

    /// Whoever reads is woken at once: it would be some time before the event that announces the answer is looked at.
    fn send(&self, cx: &mut Context<'_>, send: impl Fn(&Socket) -> io::Result<usize>) -> Poll<io::Result<usize>> {
        let outcome = uninterrupted(|| send(self.socket.get_ref()));
        self.asked.store(true, Ordering::Relaxed);
        cx.waker().wake_by_ref();
        Poll::Ready(outcome.map_err(|error| self.death.of(&error)))
    }

    fn receive<T>(
        &self,
        cx: &mut Context<'_>,
        mut receive: impl FnMut(&Socket) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            let received = if self.asked.load(Ordering::Relaxed) {
                uninterrupted(|| receive(self.socket.get_ref()))
            } else {
                let mut ready = ready!(self.socket.poll_read_ready(cx))?;
                let received = ready.try_io(|socket| uninterrupted(|| receive(socket.get_ref())));
                received.unwrap_or_else(|_would_block| Err(io::ErrorKind::WouldBlock.into()))
            };
            match received {
                Ok(message) => {
                    self.lost.store(false, Ordering::Relaxed);
                    return Poll::Ready(Ok(message));
                }
                // What is in the queue is whole; only what did not fit is missing.
                Err(error) if is_loss(&error) && !self.lost.swap(true, Ordering::Relaxed) => {}
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(self.death.of(&error)));
                }
                Err(_empty) if self.lost.load(Ordering::Relaxed) => {
                    return Poll::Ready(Err(self.death.of(&Errno::ENOBUFS.into())));
                }
                Err(_empty) => self.asked.store(false, Ordering::Relaxed),
            }
        }
    }
}

impl AsyncSocket for Exchange {
    fn socket_ref(&self) -> &Socket {
        self.socket.get_ref()
    }

    fn socket_mut(&mut self) -> &mut Socket {
        self.socket.get_mut()
    }

    fn new(protocol: isize) -> io::Result<Self> {
        Self::open(protocol, Death::default())
    }

    fn poll_send(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.send(cx, |socket| socket.send(buf, 0))
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, buf: &[u8], address: &SocketAddr) -> Poll<io::Result<usize>> {
        self.send(cx, |socket| socket.send_to(buf, address, 0))
    }

    fn poll_recv<B: BufMut>(&self, cx: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<()>> {
        self.receive(cx, |socket| socket.recv(buf, 0).map(drop))
    }

    fn poll_recv_from<B: BufMut>(&self, cx: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<SocketAddr>> {
        self.receive(cx, |socket| socket.recv_from(buf, 0).map(|(_, address)| address))
    }

    fn poll_recv_from_full(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        self.receive(cx, Socket::recv_from_full)
    }
}

fn is_loss(error: &io::Error) -> bool {
    errno_of(error) == Errno::ENOBUFS
}

/// `call`, made again where a signal has interrupted it.
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..INTERRUPTIONS_MAX {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
    call()
}

/// Has the kernel take a datagram of that size, which is larger than usual. Where it does not, sending it says so.
pub(crate) fn make_room(socket: &Socket, bytes: usize) {
    if bytes <= ROOM_BYTES {
        return;
    }
    let room = libc::c_int::try_from(bytes.saturating_mul(2)).unwrap_or(libc::c_int::MAX);
    for option in [libc::SO_SNDBUF, libc::SO_SNDBUFFORCE] {
        let size = libc::socklen_t::try_from(size_of_val(&room)).expect("four bytes");
        // SAFETY: the socket is open while it is borrowed, and the kernel reads as many bytes as `room` has.
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const room).cast(), size) };
    }
}
