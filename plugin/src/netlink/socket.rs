//! A netlink socket of any protocol: requests with their answers, and announcements. It keeps the reason why it died.
//!
//! The kernel carries a request out within `send`, and has queued the answer when that returns. So an exchange waits for nothing, as a
//! rule; a send that "would block" is a failure (no event ever announces that it would not any more), and an answer that was lost to
//! a full queue is known to be lost as soon as the queue is empty. Deadlines are the caller's: what an exchange that was dropped has left
//! in the queue is thrown away by the next one.

use std::cell::Cell;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use bytes::BufMut;
use log::debug;
use nix::errno::Errno;
use nix::libc;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR};
use rtnetlink::sys::{Socket as Raw, SocketAddr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::yield_now;

use super::attribute::{DONE, ERROR, Message};
use crate::deadline::waiting_for;
use crate::error::errno_of;

/// To the kernel.
pub(crate) const KERNEL: (u32, u32) = (0, 0);
/// How often a call that a signal has interrupted is made again: flatnet is sent none, as a rule.
const INTERRUPTIONS_MAX: usize = 16;
/// What a socket has room for if nobody asked for more (`net.core.wmem_default` of Linux), less what the kernel adds.
const ROOM_BYTES: usize = 128 * 1024;
/// More than the kernel puts into one datagram: 32 KiB of a list, or one object of it.
pub(crate) const DATAGRAM_MAX_BYTES: usize = 64 * 1024;
/// How long exchanges may follow one another before others have their turn.
const TURN: Duration = Duration::from_millis(5);

/// A socket in one network namespace. Needs a tokio runtime where it has to wait.
pub(crate) struct Socket {
    raw: Raw,
    /// Of the last message that was sent.
    sequence: Cell<u32>,
    /// Why it is of no use any more.
    death: Cell<Option<Errno>>,
    /// Whether an exchange has begun that has not come to its end.
    unfinished: Cell<bool>,
    /// Whether the kernel had no room for something since the queue was last seen empty.
    lost: Cell<bool>,
    /// When others last had their turn.
    turn: Cell<Instant>,
}

/// A request that was sent, and its answer.
pub(crate) struct Exchange<'a> {
    socket: &'a Socket,
    /// What is waited for, as a deadline says it.
    what: &'static str,
    datagram: Vec<u8>,
}

impl Socket {
    /// Opens a socket for requests in the namespace of the calling thread.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut raw = Raw::new(protocol)?;
        let (port, groups) = KERNEL;
        raw.bind_auto()?;
        raw.connect(&SocketAddr::new(port, groups))?;
        // An error then brings the header of what it is about, and not all of it.
        raw.set_cap_ack(true)?;
        Self::new(raw)
    }

    /// Opens a socket that hears what is announced to these groups, in the namespace of the calling thread.
    pub(crate) fn listen(protocol: isize, groups: &[u32]) -> io::Result<Self> {
        let mut raw = Raw::new(protocol)?;
        raw.bind(&SocketAddr::new(0, 0))?;
        for group in groups {
            raw.add_membership(*group)?;
        }
        Self::new(raw)
    }

    fn new(raw: Raw) -> io::Result<Self> {
        raw.set_non_blocking(true)?;
        Ok(Self {
            raw,
            sequence: Cell::new(0),
            death: Cell::new(None),
            unfinished: Cell::new(false),
            lost: Cell::new(false),
            turn: Cell::new(Instant::now()),
        })
    }

    pub(crate) fn raw(&mut self) -> &mut Raw {
        &mut self.raw
    }

    /// Whether it has died under an exchange; a new one may do.
    pub(crate) fn is_dead(&self) -> bool {
        self.death.get().is_some()
    }

    /// The first of so many numbers for messages, which no message had before.
    pub(crate) fn numbers(&self, count: u32) -> u32 {
        let first = self.sequence.get() + 1;
        self.sequence.set(self.sequence.get() + count);
        first
    }

    /// Sends a request; `what` is what its answer is, to follow "waited for". The kernel takes it and answers within the call.
    pub(crate) async fn send(&self, request: &[u8], what: &'static str) -> Result<Exchange<'_>, Errno> {
        // No exchange waits, as a rule: without a pause neither a deadline nor another task would ever have its turn. Here, where the queue is
        // empty: from now on until the answer's end it must be nobody else's.
        if self.turn.get().elapsed() > TURN {
            yield_now().await;
            self.turn.set(Instant::now());
        }
        if let Some(death) = self.death.get() {
            return Err(death);
        }
        let mut datagram = Vec::with_capacity(DATAGRAM_MAX_BYTES);
        if self.unfinished.replace(true) {
            self.drain(&mut datagram)?;
        }
        make_room(&self.raw, request.len());
        uninterrupted(|| self.raw.send(request, 0)).map_err(|e| self.die(errno_of(&e)))?;
        Ok(Exchange { socket: self, what, datagram })
    }

    /// Sends a request of that number, with these flags, and hears the answer to its end; `found` gets each object of it. Gives whether something
    /// changed while the kernel was listing (`NLM_F_DUMP_INTR`).
    pub(crate) async fn ask(
        &self,
        request: &[u8],
        (number, flags): (u32, u16),
        what: &'static str,
        mut found: impl FnMut(Message<'_>),
    ) -> Result<bool, Errno> {
        let mut exchange = self.send(request, what).await?;
        let (mut interrupted, mut objects) = (false, 0_u32);
        loop {
            let mut end = None;
            for message in exchange.messages().await?.filter(|message| message.sequence == number) {
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    ERROR | DONE => end = Some(message.outcome()),
                    _ => {
                        objects += 1;
                        found(message);
                        // Nothing follows the one object that was asked for.
                        end = (flags & (NLM_F_ACK | NLM_F_DUMP) == 0).then_some(Ok(()));
                    }
                }
            }
            if let Some(outcome) = end {
                match outcome {
                    Ok(()) => debug!("asked for {what}: done, {objects} shown"),
                    Err(errno) => debug!("asked for {what}: {}", errno.desc()),
                }
                exchange.end();
                return outcome.map(|()| interrupted);
            }
        }
    }

    /// Throws away what is in the queue.
    fn drain(&self, datagram: &mut Vec<u8>) -> Result<(), Errno> {
        loop {
            datagram.clear();
            match self.next(datagram, 0) {
                Ok(Some(_)) | Err(Errno::ENOBUFS) => {}
                Ok(None) => {
                    self.lost.set(false);
                    return Ok(());
                }
                Err(errno) => return Err(self.die(errno)),
            }
        }
    }

    /// The next datagram of the queue and its length, as recv(2) gives it; nothing where the queue is empty. Never waits.
    pub(crate) fn next(&self, datagram: &mut impl BufMut, flags: libc::c_int) -> Result<Option<usize>, Errno> {
        match uninterrupted(|| self.raw.recv(datagram, flags)).map_err(|e| errno_of(&e)) {
            Ok(length) => Ok(Some(length)),
            Err(Errno::EAGAIN) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// The same, whole, in place of what `datagram` had. Errors: `ENOBUFS` where one was lost, and it is known that no other will come.
    fn take(&self, datagram: &mut Vec<u8>) -> Result<bool, Errno> {
        loop {
            datagram.clear();
            match self.next(datagram, libc::MSG_TRUNC) {
                Ok(Some(length)) if length > datagram.len() => return Err(self.die(Errno::EMSGSIZE)),
                Ok(Some(_)) => return Ok(true),
                Ok(None) if self.lost.take() => return Err(self.die(Errno::ENOBUFS)),
                Ok(None) => return Ok(false),
                // What is in the queue is whole; only what did not fit is missing.
                Err(Errno::ENOBUFS) if !self.lost.replace(true) => {}
                Err(errno) => return Err(self.die(errno)),
            }
        }
    }

    /// The same; where the queue is empty, the first that comes.
    pub(crate) async fn receive(&self, what: &'static str, datagram: &mut Vec<u8>) -> Result<(), Errno> {
        while !self.take(datagram)? {
            waiting_for(what, self.readable()).await?;
        }
        Ok(())
    }

    /// Ends as soon as there is something in the queue.
    pub(crate) async fn readable(&self) -> Result<(), Errno> {
        // SAFETY: `self` owns the descriptor, and stays borrowed until this registration of it is dropped.
        let registered = unsafe { AsyncFd::register_with_interest(self.raw.as_raw_fd(), Interest::READABLE) };
        let ready = registered.map_err(|e| errno_of(&e.into()))?;
        ready.readable().await.map(drop).map_err(|e| errno_of(&e))
    }

    fn die(&self, errno: Errno) -> Errno {
        self.death.set(Some(errno));
        errno
    }
}

impl Exchange<'_> {
    /// The next messages of the answer.
    pub(crate) async fn messages(&mut self) -> Result<impl Iterator<Item = Message<'_>>, Errno> {
        self.socket.receive(self.what, &mut self.datagram).await?;
        Ok(Message::all(&self.datagram))
    }

    /// The answer was heard to its end.
    pub(crate) fn end(self) {
        self.socket.unfinished.set(false);
        self.socket.lost.set(false);
    }
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
fn make_room(socket: &Raw, bytes: usize) {
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
