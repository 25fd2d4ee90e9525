//! nftables, over netlink: no program `nft` is needed, and what is written is one transaction.
//!
//! A socket of its own, opened only when it is needed: opening it may load kernel modules. A kernel that lacks a piece is told apart
//! from one that refuses. Deadlines are the caller's: the socket never blocks, and dropping the future abandons the exchange.
//!
//! Why not a crate: `rustables` is under the GPL and needs libclang to build; `netlink-packet-netfilter` knows neither masquerading nor
//! transactions, and what flatnet writes must be compared with what the kernel shows, for which its attributes would have to be lowered
//! all the same; the program `nft` may be missing, and starting it takes longer than all else that an ADD does.

mod batch;
mod conntrack;
mod expression;
mod family;
mod map;
mod network;
mod object;
mod packet;
mod verdict;

use std::fmt;
use std::io;

use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub(crate) use self::batch::Batch;
pub(crate) use self::expression::{Expression, FIB};
pub(crate) use self::map::{Map, Mapping};
pub(crate) use self::network::{from_network, networks, to_network};
pub(crate) use self::object::{BaseChain, Chain, Element, Family, Field, Hook, PlacedRule, Rule, Set, key};
pub(crate) use self::packet::{Base, Meta, Slot, link};
pub(crate) use self::verdict::Verdict;
use crate::deadline::waiting_for;
use crate::error::errno_of;
use crate::netlink::attribute::{Attributes, DONE, ERROR, Message, append};
use crate::netlink::socket::{make_room, uninterrupted};
use crate::netlink::{self, delete};

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// `enum nf_tables_msg_types`.
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const NEW_ELEMENT: u16 = 12;
const GET_ELEMENT: u16 = 13;
/// The most that the kernel puts into one datagram of a dump.
const DATAGRAM_MAX_BYTES: usize = 32 * 1024;
/// What a kernel without nftables lacks.
const NF_TABLES: &str = "nf_tables (CONFIG_NF_TABLES)";

/// Why nftables gave no answer, or did not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The kernel was built without it, or cannot load its module.
    Lacking { piece: &'static str },
    /// `doing` reads after "failed to ".
    Refused { doing: String, errno: Errno },
}

impl Problem {
    /// The kernel's errno, where it refused something that it has.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Lacking { .. } => None,
            Self::Refused { errno, .. } => Some(*errno),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lacking { piece } => write!(f, "the kernel lacks {piece}"),
            Self::Refused { doing, errno } => write!(f, "failed to {doing}: {}", errno.desc()),
        }
    }
}

/// A socket to nftables, in the network namespace where it was opened. Needs a tokio runtime, for as long as it is used.
pub(crate) struct Nftables {
    socket: AsyncFd<Socket>,
    /// Of the last message that was sent.
    sequence: u32,
}

impl Nftables {
    /// Opens a socket in the namespace of the calling thread.
    pub(crate) fn open() -> Result<Self, Problem> {
        match open() {
            Ok(socket) => Ok(Self { socket, sequence: 0 }),
            Err(e) => Err(match errno_of(&e) {
                Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT | Errno::ESOCKTNOSUPPORT => {
                    Problem::Lacking { piece: NF_TABLES }
                }
                errno => Problem::Refused { doing: "open a netfilter socket".into(), errno },
            }),
        }
    }

    /// Lets go of the socket without waiting: where something was deleted, the kernel closes it only after it has buried that. May
    /// leave a child process behind, for as long as the kernel needs. The process must have one thread.
    pub(crate) fn close_soon(self) -> Result<(), Errno> {
        delete::close_soon(self.socket).map_err(|e| errno_of(&e))
    }

    /// Carries out the transaction, whole or not at all. The first step that the kernel refuses is told.
    pub(crate) async fn apply(&mut self, batch: &Batch) -> Result<(), Problem> {
        self.transact(batch, true).await
    }

    /// Carries out what takes something out of a table, and takes the table along unless there is more in it: in one transaction, so that whatever
    /// cuts this short, no empty table is left.
    pub(crate) async fn take_away(&mut self, batch: &Batch) -> Result<(), Problem> {
        let mut with_table = batch.clone();
        with_table.delete_empty_table();
        match self.apply(&with_table).await {
            Err(problem) if problem.errno() == Some(Errno::EBUSY) => self.apply(batch).await,
            done => done,
        }
    }

    /// Whether the kernel would carry it out: it tries all of it and changes nothing.
    pub(crate) async fn try_out(&mut self, batch: &Batch) -> Result<(), Problem> {
        self.transact(batch, false).await
    }

    /// One chain with its rules, at one round trip; nothing where there is no such chain or table.
    pub(crate) async fn chain(
        &mut self,
        family: Family,
        table: &str,
        chain: &str,
    ) -> Result<Option<(Chain, Vec<PlacedRule>)>, Problem> {
        let named = Attributes::default().text(object::CHAIN_TABLE, table).text(object::CHAIN_NAME, chain);
        let rules = Attributes::default().text(object::RULE_TABLE, table).text(object::RULE_CHAIN, chain);
        let doing = || format!("read chain {chain} of table {table}");
        loop {
            let asked = [(GET_CHAIN, 0, &named), (GET_RULE, NLM_F_DUMP, &rules)];
            let (mut found, mut placed) = (None, Vec::new());
            let interrupted = self.ask(family, &asked, doing, |kind, _, attributes| match kind {
                NEW_CHAIN => found = Chain::read(attributes),
                NEW_RULE => placed.extend(PlacedRule::read(attributes)),
                _ => {}
            });
            if !interrupted.await? {
                return Ok(found.map(|chain| (chain, placed)));
            }
            // As in `list`.
            tokio::task::yield_now().await;
        }
    }

    /// The chains of all families, each with the number of its own: one round trip, to see whether there are any.
    pub(crate) async fn all_chains(&mut self) -> Result<Vec<(u8, Chain)>, Problem> {
        let all = Attributes::default();
        let doing = || "list the chains".into();
        let read = |family, chain: &[u8]| Chain::read(chain).map(|chain| (family, chain));
        self.list(Family::Any, (GET_CHAIN, NEW_CHAIN), &all, doing, read).await
    }

    /// The rules of a table, each with the name of its chain, in their order there.
    pub(crate) async fn rules(&mut self, family: Family, table: &str) -> Result<Vec<(String, PlacedRule)>, Problem> {
        let named = Attributes::default().text(object::RULE_TABLE, table);
        let doing = || format!("list the rules of table {table}");
        let read = |_, rule: &[u8]| object::chain_of(rule).zip(PlacedRule::read(rule));
        self.list(family, (GET_RULE, NEW_RULE), &named, doing, read).await
    }

    /// The elements of a set; nothing where there is no such set or table.
    pub(crate) async fn elements(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
    ) -> Result<Option<Vec<Element>>, Problem> {
        let named = Attributes::default().text(object::ELEMENTS_TABLE, table).text(object::ELEMENTS_SET, set);
        let doing = || format!("list set {set}");
        let read = |_, elements: &[u8]| Element::read_all(elements);
        match self.list(family, (GET_ELEMENT, NEW_ELEMENT), &named, doing, read).await {
            Err(problem) if problem.errno() == Some(Errno::ENOENT) => Ok(None),
            found => found.map(Some),
        }
    }

    /// The elements of a map; nothing where there is no such map or table.
    pub(crate) async fn mappings(
        &mut self,
        family: Family,
        table: &str,
        map: &str,
    ) -> Result<Option<Vec<Mapping>>, Problem> {
        let named = Attributes::default().text(object::ELEMENTS_TABLE, table).text(object::ELEMENTS_SET, map);
        let doing = || format!("list map {map}");
        let read = |_, elements: &[u8]| Mapping::read_all(elements);
        match self.list(family, (GET_ELEMENT, NEW_ELEMENT), &named, doing, read).await {
            Err(problem) if problem.errno() == Some(Errno::ENOENT) => Ok(None),
            found => found.map(Some),
        }
    }

    /// All that the kernel lists about `about`, anew where something changed meanwhile: what `read` makes of a family's number and
    /// the attributes of each object.
    async fn list<T, I: IntoIterator<Item = T>>(
        &mut self,
        family: Family,
        (question, answer): (u16, u16),
        about: &Attributes,
        doing: impl Fn() -> String,
        read: impl Fn(u8, &[u8]) -> I,
    ) -> Result<Vec<T>, Problem> {
        loop {
            let mut found = Vec::new();
            let asked = [(question, NLM_F_DUMP, about)];
            let interrupted = self.ask(family, &asked, &doing, |kind, family, attributes| {
                if kind == answer {
                    found.extend(read(family, attributes));
                }
            });
            if !interrupted.await? {
                return Ok(found);
            }
            // The kernel answers at once: without a pause the deadline would never have its turn.
            tokio::task::yield_now().await;
        }
    }

    async fn transact(&mut self, batch: &Batch, commit: bool) -> Result<(), Problem> {
        let first = self.sequence + 1;
        // The end of it has a number too.
        self.sequence = first + batch.steps() + 1;
        let problem = |step, errno| batch.problem(step, errno);
        self.send(&batch.write(first, commit)).map_err(|errno| problem(0, errno))?;
        let mut refused = None;
        loop {
            let datagram = self.receive().await.map_err(|errno| problem(0, errno))?;
            for message in Message::all(&datagram).filter(|message| message.kind == ERROR) {
                let Some(step) = message.sequence.checked_sub(first).filter(|step| *step <= batch.steps()) else {
                    continue;
                };
                let outcome = netlink::errno(message.code()).map_err(|errno| problem(step, errno));
                // Where the beginning is refused, so is all.
                let is_last = step == 0 || step == batch.steps();
                match (refused.take(), outcome) {
                    (None, outcome) if is_last => return outcome,
                    (Some(earlier), _) if is_last => return Err(earlier),
                    (None, Err(now)) => refused = Some(now),
                    (earlier, _) => refused = earlier,
                }
            }
        }
    }

    /// Asks for several things at once, of which only the last may be a dump; `found` gets each object that comes. An object that does not
    /// exist is none; gives whether something changed while the kernel was listing (`NLM_F_DUMP_INTR`).
    async fn ask(
        &mut self,
        family: Family,
        questions: &[(u16, u16, &Attributes)],
        doing: impl Fn() -> String,
        mut found: impl FnMut(u16, u8, &[u8]),
    ) -> Result<bool, Problem> {
        let refused = |errno| match errno {
            // A kernel that has netfilter's netlink, but no nftables.
            Errno::EINVAL | Errno::EOPNOTSUPP => Problem::Lacking { piece: NF_TABLES },
            errno => Problem::Refused { doing: doing(), errno },
        };
        let mut datagram = Vec::new();
        for (kind, flags, attributes) in questions {
            self.sequence += 1;
            let header = (message_type(*kind), NLM_F_REQUEST | flags, self.sequence);
            append(&mut datagram, header, [family as u8, 0, 0, 0], attributes.as_ref());
        }
        self.send(&datagram).map_err(refused)?;
        let first = self.sequence + 1 - u32::try_from(questions.len()).expect("a few questions");
        let mut interrupted = false;
        loop {
            let datagram = self.receive().await.map_err(refused)?;
            for message in Message::all(&datagram) {
                if !(first..=self.sequence).contains(&message.sequence) {
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                let is_last = message.sequence == self.sequence;
                match message.kind {
                    ERROR | DONE => match (netlink::errno(message.code()), is_last) {
                        (Ok(()), true) => return Ok(interrupted),
                        (Ok(()) | Err(Errno::ENOENT), false) => {}
                        (Err(errno), _) => return Err(refused(errno)),
                    },
                    kind => found(kind & 0xff, message.family(), message.attributes()),
                }
            }
        }
    }

    /// The kernel takes it and answers within the call.
    fn send(&self, datagram: &[u8]) -> Result<(), Errno> {
        make_room(self.socket.get_ref(), datagram.len());
        uninterrupted(|| self.socket.get_ref().send(datagram, 0)).map(drop).map_err(|e| errno_of(&e))
    }

    async fn receive(&self) -> Result<Vec<u8>, Errno> {
        let mut datagram = Vec::with_capacity(DATAGRAM_MAX_BYTES);
        loop {
            datagram.clear();
            match uninterrupted(|| self.socket.get_ref().recv(&mut datagram, 0)).map_err(|e| errno_of(&e)) {
                Ok(_) => return Ok(datagram),
                Err(Errno::EAGAIN) => waiting_for("nftables in the kernel", self.socket.readable())
                    .await
                    .map_err(|e| errno_of(&e))?
                    .clear_ready(),
                Err(errno) => return Err(errno),
            }
        }
    }
}

fn open() -> io::Result<AsyncFd<Socket>> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // An error then brings the header of what it is about, and not all of it.
    socket.set_cap_ack(true)?;
    socket.set_non_blocking(true)?;
    // SAFETY: the socket owns its descriptor, gives no other, and stays open until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

fn message_type(kind: u16) -> u16 {
    SUBSYSTEM << 8 | kind
}
