//! A transaction: the kernel carries out all of it, or nothing.

use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST};

use super::Problem;
use super::family::Family;
use super::map::{Map, Mapping};
use super::object::{self, Chain, Element, Rule, Set};
use super::{NF_TABLES, SUBSYSTEM, message_type};
use crate::netlink::attribute::{Attributes, append};

/// `linux/netfilter/nfnetlink.h`: `NFNL_MSG_BATCH_BEGIN` and `_END`.
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
/// `NLM_F_NONREC` of `linux/netlink.h`: deletes only what is empty.
const ONLY_IF_EMPTY: u16 = 0x100;
/// `enum nf_tables_msg_types`.
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DELETE_SET: u16 = 11;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;
/// An attribute's length is a number of 16 bits; with the longest key and comment an element takes 224 bytes.
const ELEMENTS_PER_MESSAGE: usize = 256;

/// What is to be changed, in this order, in one table.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    family: Family,
    table: String,
    steps: Vec<Step>,
}

/// One message of the transaction.
#[derive(Clone, Debug)]
struct Step {
    kind: u16,
    flags: u16,
    attributes: Attributes,
    /// In words, to follow "failed to ".
    doing: String,
    /// What a kernel lacks that answers `ENOENT` or the like, where it is a module of its own.
    piece: Option<&'static str>,
}

impl Batch {
    /// Nothing yet.
    pub(crate) fn new(family: Family, table: &str) -> Self {
        Self { family, table: table.to_owned(), steps: Vec::new() }
    }

    /// Makes the table, if it is not there.
    pub(crate) fn add_table(&mut self) {
        let piece = Some(
            "this family of tables (CONFIG_NF_TABLES_IPV4, CONFIG_NF_TABLES_IPV6, CONFIG_NF_TABLES_BRIDGE, CONFIG_NF_TABLES_NETDEV)",
        );
        self.step((NEW_TABLE, NLM_F_CREATE), self.table_name(), format!("make table {}", self.table), piece);
    }

    /// Deletes the table if there is nothing in it. Errors: `ENOENT`; `EBUSY` where there is something.
    pub(crate) fn delete_empty_table(&mut self) {
        self.step((DELETE_TABLE, ONLY_IF_EMPTY), self.table_name(), format!("delete table {}", self.table), None);
    }

    /// Deletes the table with all that is in it. Errors: `ENOENT`.
    pub(crate) fn delete_table(&mut self) {
        self.step((DELETE_TABLE, 0), self.table_name(), format!("delete table {}", self.table), None);
    }

    /// Makes the chain, if it is not there; one that is keeps its rules and gets the policy. Errors: `EEXIST` where it has another
    /// hook or priority.
    pub(crate) fn add_chain(&mut self, chain: &Chain) {
        self.step((NEW_CHAIN, NLM_F_CREATE), chain.write(), format!("make chain {}", chain.name), chain.piece());
    }

    /// Makes the chain for the frames of one link, in the family netdev. Errors: `ENOENT` where there is no such link.
    pub(crate) fn add_chain_of_link(&mut self, chain: &Chain, link: &str) {
        let doing = format!("make chain {} for link {link}", chain.name);
        self.step((NEW_CHAIN, NLM_F_CREATE), chain.write_on(Some(link)), doing, None);
    }

    /// The same for the loopback link, which is always there: shows whether the kernel has such chains.
    pub(crate) fn try_chain_of_links(&mut self, chain: &Chain) {
        let (doing, piece) = (format!("make chain {}", chain.name), chain.piece());
        self.step((NEW_CHAIN, NLM_F_CREATE), chain.write_on(Some("lo")), doing, piece);
    }

    /// Deletes the chain with its rules. Errors: `ENOENT`; `EBUSY` where a rule leads there.
    pub(crate) fn delete_chain(&mut self, chain: &str) {
        let named = Attributes::default().text(object::CHAIN_TABLE, &self.table).text(object::CHAIN_NAME, chain);
        self.step((DELETE_CHAIN, 0), named, format!("delete chain {chain}"), None);
    }

    /// Deletes the rules of the chain. Errors: `ENOENT` where there is no such chain.
    pub(crate) fn flush_chain(&mut self, chain: &str) {
        self.step((DELETE_RULE, 0), self.in_chain(chain), format!("flush chain {chain}"), None);
    }

    /// Adds the rule behind those of the chain.
    pub(crate) fn add_rule(&mut self, chain: &str, rule: &Rule) {
        self.rule(chain, rule, NLM_F_APPEND);
    }

    /// Puts the rule before those of the chain.
    pub(crate) fn insert_rule(&mut self, chain: &str, rule: &Rule) {
        self.rule(chain, rule, 0);
    }

    /// Puts the rule before the one of that handle. Errors: `ENOENT`.
    pub(crate) fn insert_rule_before(&mut self, chain: &str, handle: u64, rule: &Rule) {
        let attributes = rule.write(&self.table, chain).long(object::RULE_POSITION, handle);
        self.step((NEW_RULE, NLM_F_CREATE), attributes, format!("add a rule to chain {chain}"), rule.piece());
    }

    /// Deletes one rule. Errors: `ENOENT`.
    pub(crate) fn delete_rule(&mut self, chain: &str, handle: u64) {
        let rule = self.in_chain(chain).long(object::RULE_HANDLE, handle);
        self.step((DELETE_RULE, 0), rule, format!("delete a rule of chain {chain}"), None);
    }

    /// Makes the set, if it is not there; one that is keeps its elements.
    pub(crate) fn add_set(&mut self, set: &Set) {
        let id = u32::try_from(self.steps.len()).expect("a few steps");
        self.step((NEW_SET, NLM_F_CREATE), set.write(&self.table, id), format!("make set {}", set.name), None);
    }

    /// Adds the elements that are not there, as few messages as they fit in.
    pub(crate) fn add_elements(&mut self, set: &str, elements: &[Element]) {
        for some in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let elements = Element::write_all(some, &self.table, set);
            self.step((NEW_ELEMENT, NLM_F_CREATE), elements, format!("add an element to set {set}"), None);
        }
    }

    /// Makes the map, if it is not there; one that is keeps its elements. Errors: `EEXIST` where it is another kind of set.
    pub(crate) fn add_map(&mut self, map: &Map) {
        let id = u32::try_from(self.steps.len()).expect("a few steps");
        self.step((NEW_SET, NLM_F_CREATE), map.write(&self.table, id), format!("make map {}", map.name), None);
    }

    /// Adds the elements, as few messages as they fit in. Errors: `EEXIST` where one is there that leads elsewhere.
    pub(crate) fn add_mappings(&mut self, map: &str, mappings: &[Mapping]) {
        for some in mappings.chunks(ELEMENTS_PER_MESSAGE) {
            let elements = Mapping::write_all(some, &self.table, map);
            self.step((NEW_ELEMENT, NLM_F_CREATE), elements, format!("add an element to map {map}"), None);
        }
    }

    /// Deletes the elements with these keys, of a set or a map. Errors: `ENOENT`.
    pub(crate) fn delete_elements(&mut self, set: &str, elements: &[Element]) {
        for some in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let elements = Element::write_all(some, &self.table, set);
            self.step((DELETE_ELEMENT, 0), elements, format!("delete elements of set {set}"), None);
        }
    }

    /// Deletes the set or map with its elements. Errors: `ENOENT`; `EBUSY` where a rule looks there.
    pub(crate) fn delete_set(&mut self, set: &str) {
        let named = Attributes::default().text(object::SET_TABLE, &self.table).text(object::SET_NAME, set);
        self.step((DELETE_SET, 0), named, format!("delete set {set}"), None);
    }

    /// Deletes the element with that key. Errors: `ENOENT`.
    pub(crate) fn delete_element(&mut self, set: &str, element: &Element) {
        let element = Element::write_all(std::slice::from_ref(element), &self.table, set);
        self.step((DELETE_ELEMENT, 0), element, format!("delete an element of set {set}"), None);
    }

    /// As one datagram; the sequence numbers are `first` for the beginning, and one more for each step. With `commit` false the kernel
    /// tries all of it and changes nothing.
    ///
    /// Only the last step asks for an acknowledgement: the kernel sends errors unasked, and all answers in the order of the steps.
    pub(super) fn write(&self, first: u32, commit: bool) -> Vec<u8> {
        let subsystem = SUBSYSTEM.to_be_bytes();
        let frame = [0, 0, subsystem[0], subsystem[1]];
        let mut datagram = Vec::new();
        append(&mut datagram, (BEGIN, NLM_F_REQUEST, first), frame, &[]);
        let mut sequence = first;
        for (n, step) in self.steps.iter().enumerate() {
            sequence += 1;
            let acknowledged = if n + 1 == self.steps.len() { NLM_F_ACK } else { 0 };
            let flags = NLM_F_REQUEST | acknowledged | step.flags;
            let family = [self.family as u8, 0, 0, 0];
            append(&mut datagram, (message_type(step.kind), flags, sequence), family, step.attributes.as_ref());
        }
        if commit {
            append(&mut datagram, (END, NLM_F_REQUEST, sequence + 1), frame, &[]);
        }
        datagram
    }

    /// How many answers' sequence numbers it takes.
    pub(super) fn steps(&self) -> u32 {
        u32::try_from(self.steps.len()).expect("a few steps")
    }

    /// Why it was not done: the kernel refused that step, counted from one, or the whole for zero.
    pub(super) fn problem(&self, step: u32, errno: Errno) -> Problem {
        let step = usize::try_from(step).ok().and_then(|step| self.steps.get(step.checked_sub(1)?));
        let Some(step) = step else {
            return match errno {
                Errno::EOPNOTSUPP | Errno::EINVAL => Problem::Lacking { piece: NF_TABLES },
                errno => Problem::Refused { doing: format!("change table {}", self.table), errno },
            };
        };
        let lacks = matches!(errno, Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT);
        match step.piece.filter(|_| lacks) {
            Some(piece) => Problem::Lacking { piece },
            None => Problem::Refused { doing: step.doing.clone(), errno },
        }
    }

    fn rule(&mut self, chain: &str, rule: &Rule, place: u16) {
        let (attributes, piece) = (rule.write(&self.table, chain), rule.piece());
        self.step((NEW_RULE, NLM_F_CREATE | place), attributes, format!("add a rule to chain {chain}"), piece);
    }

    fn step(&mut self, (kind, flags): (u16, u16), attributes: Attributes, doing: String, piece: Option<&'static str>) {
        self.steps.push(Step { kind, flags, attributes, doing, piece });
    }

    fn table_name(&self) -> Attributes {
        Attributes::default().text(object::TABLE_NAME, &self.table)
    }

    fn in_chain(&self, chain: &str) -> Attributes {
        Attributes::default().text(object::RULE_TABLE, &self.table).text(object::RULE_CHAIN, chain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{BaseChain, Expression, Hook};

    /// Steps 1 to 5.
    fn batch() -> Batch {
        let base = BaseChain { kind: "nat".into(), hook: Hook::Postrouting as u32, priority: 100, accept: true };
        let chain = Chain { table: "flatnet".into(), name: "out".into(), base: Some(base) };
        let mut batch = Batch::new(Family::Ip, "flatnet");
        batch.add_table();
        batch.delete_chain("out");
        batch.add_chain(&chain);
        batch.add_rule("out", &Rule::default());
        batch.add_rule("out", &Rule { expressions: vec![Expression::Masquerade], comment: None });
        batch
    }

    #[test]
    fn a_piece_that_the_kernel_lacks_is_named() {
        let said = |step, errno| batch().problem(step, errno).to_string();
        assert_eq!(said(0, Errno::EOPNOTSUPP), "the kernel lacks nf_tables (CONFIG_NF_TABLES)");
        assert_eq!(said(3, Errno::ENOENT), "the kernel lacks nat chains (CONFIG_NFT_NAT)");
        assert_eq!(said(5, Errno::ENOENT), "the kernel lacks masquerade (CONFIG_NFT_MASQ)");
    }

    #[test]
    fn what_the_kernel_has_and_refuses_is_told_apart() {
        let refused = |step, errno| batch().problem(step, errno).errno();
        for (step, errno) in [(0, Errno::EPERM), (2, Errno::ENOENT), (3, Errno::EEXIST), (4, Errno::ENOENT)] {
            assert_eq!(refused(step, errno), Some(errno), "step {step}");
        }
    }

    #[test]
    fn only_the_last_step_is_acknowledged_and_only_the_end_commits() {
        use crate::netlink::attribute::Message;
        let flags = |commit| {
            let datagram = batch().write(7, commit);
            Message::all(&datagram)
                .map(|message| (message.sequence, message.flags & NLM_F_ACK != 0))
                .collect::<Vec<_>>()
        };
        let steps = [(7, false), (8, false), (9, false), (10, false), (11, false), (12, true)];
        assert_eq!(flags(false), steps);
        assert_eq!(flags(true), [&steps[..], &[(13, false)]].concat());
    }
}
