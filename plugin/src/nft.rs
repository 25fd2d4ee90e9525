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

use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;

pub(crate) use self::batch::Batch;
pub(crate) use self::expression::{Expression, FIB};
pub(crate) use self::family::Family;
pub(crate) use self::map::{Map, Mapping};
pub(crate) use self::network::{from_network, link, networks, to_network};
pub(crate) use self::object::{BaseChain, Chain, Element, Field, Hook, PlacedRule, Rule, Set, key};
pub(crate) use self::packet::{Base, Meta, Slot};
pub(crate) use self::verdict::Verdict;
use crate::error::errno_of;
use crate::netlink::attribute::{Attributes, DONE, ERROR, append};
use crate::netlink::delete;
use crate::netlink::socket::Socket;

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// `enum nf_tables_msg_types`.
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const NEW_ELEMENT: u16 = 12;
const GET_ELEMENT: u16 = 13;
/// What an exchange waits for.
const ANSWER: &str = "nftables in the kernel";
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
    socket: Socket,
}

impl Nftables {
    /// Opens a socket in the namespace of the calling thread.
    pub(crate) fn open() -> Result<Self, Problem> {
        match Socket::open(NETLINK_NETFILTER) {
            Ok(socket) => Ok(Self { socket }),
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
        self.members(family, (table, set), Element::read_all).await
    }

    /// The elements of a map; nothing where there is no such map or table.
    pub(crate) async fn mappings(
        &mut self,
        family: Family,
        table: &str,
        map: &str,
    ) -> Result<Option<Vec<Mapping>>, Problem> {
        self.members(family, (table, map), Mapping::read_all).await
    }

    /// What is in a set or a map.
    async fn members<T, I: IntoIterator<Item = T>>(
        &mut self,
        family: Family,
        (table, set): (&str, &str),
        read: impl Fn(&[u8]) -> I,
    ) -> Result<Option<Vec<T>>, Problem> {
        let named = Attributes::default().text(object::ELEMENTS_TABLE, table).text(object::ELEMENTS_SET, set);
        let doing = || format!("list set {set}");
        match self.list(family, (GET_ELEMENT, NEW_ELEMENT), &named, doing, |_, members| read(members)).await {
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
        }
    }

    async fn transact(&mut self, batch: &Batch, commit: bool) -> Result<(), Problem> {
        // The end of it has a number too.
        let first = self.socket.numbers(batch.steps() + 2);
        let problem = |step, errno| batch.problem(step, errno);
        let request = batch.write(first, commit);
        let mut exchange = self.socket.send(&request, ANSWER).await.map_err(|errno| problem(0, errno))?;
        let mut refused = None;
        loop {
            let messages = exchange.messages().await.map_err(|errno| problem(0, errno))?;
            let mut end = None;
            for message in messages.filter(|message| message.kind == ERROR) {
                let Some(step) = message.sequence.checked_sub(first).filter(|step| *step <= batch.steps()) else {
                    continue;
                };
                let outcome = message.outcome().map_err(|errno| problem(step, errno));
                // Where the beginning is refused, so is all.
                let is_last = step == 0 || step == batch.steps();
                match (refused.take(), outcome) {
                    (None, outcome) if is_last => end = Some(outcome),
                    (Some(earlier), _) if is_last => end = Some(Err(earlier)),
                    (None, Err(now)) => refused = Some(now),
                    (earlier, _) => refused = earlier,
                }
            }
            if let Some(outcome) = end {
                exchange.end();
                return outcome;
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
        let count = u32::try_from(questions.len()).expect("a few questions");
        let first = self.socket.numbers(count);
        let numbers = first..first + count;
        let mut request = Vec::new();
        for ((kind, flags, attributes), number) in questions.iter().zip(numbers.clone()) {
            let header = (message_type(*kind), NLM_F_REQUEST | flags, number);
            append(&mut request, header, [family as u8, 0, 0, 0], attributes.as_ref());
        }
        let mut exchange = self.socket.send(&request, ANSWER).await.map_err(refused)?;
        let mut interrupted = false;
        loop {
            let (mut end, mut is_whole) = (None, false);
            let messages = exchange.messages().await.map_err(refused)?;
            for message in messages.filter(|message| numbers.contains(&message.sequence)) {
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                let is_last = message.sequence + 1 == numbers.end;
                match message.kind {
                    ERROR | DONE => match (message.outcome(), is_last) {
                        (Ok(()) | Err(Errno::ENOENT), false) => {}
                        (outcome, is_last) => {
                            end = end.or(Some(outcome));
                            is_whole |= is_last;
                        }
                    },
                    kind => found(kind & 0xff, message.family(), message.attributes()),
                }
            }
            if let Some(outcome) = end {
                if is_whole {
                    exchange.end();
                }
                return outcome.map(|()| interrupted).map_err(refused);
            }
        }
    }
}

fn message_type(kind: u16) -> u16 {
    SUBSYSTEM << 8 | kind
}
