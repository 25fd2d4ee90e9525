//! Tables, chains, rules and sets: what they hold, written and read.

use super::expression::{self, Expression};
use crate::netlink::attribute::{self, Attributes};

/// `linux/netfilter/nf_tables.h`: the attributes of chains, of their hooks, of rules, of sets and of elements.
pub(super) const TABLE_NAME: u16 = 1;
pub(super) const CHAIN_TABLE: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const HOOK_DEVICE: u16 = 3;
pub(super) const RULE_TABLE: u16 = 1;
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
pub(super) const RULE_POSITION: u16 = 6;
const RULE_USERDATA: u16 = 7;
pub(super) const SET_TABLE: u16 = 1;
pub(super) const SET_NAME: u16 = 2;
pub(super) const SET_FLAGS: u16 = 3;
pub(super) const SET_KEY_TYPE: u16 = 4;
pub(super) const SET_KEY_LENGTH: u16 = 5;
pub(super) const SET_ID: u16 = 10;
const SET_USERDATA: u16 = 13;
pub(super) const ELEMENTS_TABLE: u16 = 1;
pub(super) const ELEMENTS_SET: u16 = 2;
pub(super) const ELEMENTS: u16 = 3;
pub(super) const LIST_ELEMENT: u16 = 1;
pub(super) const ELEMENT_KEY: u16 = 1;
const ELEMENT_USERDATA: u16 = 6;
pub(super) const DATA_VALUE: u16 = 1;
/// In the data of user space: `NFTNL_UDATA_RULE_COMMENT`, `NFTNL_UDATA_SET_ELEM_COMMENT` of libnftnl, by which `nft` shows comments.
const COMMENT: u8 = 0;
/// The same for sets: `NFTNL_UDATA_SET_KEYBYTEORDER`, a number of four bytes. `nft` would show names of links as empty texts without.
const IN_HOST_ORDER: [u8; 6] = {
    let [a, b, c, d] = 1_u32.to_ne_bytes();
    [0, 4, a, b, c, d]
};
/// The longest comment, as `nft` has it, with its closing NUL.
const COMMENT_MAX_BYTES: usize = 128;
/// `TYPE_BITS` of `nft`: how far the types of a concatenated key are apart.
const TYPE_BITS: u32 = 6;

/// Where packets meet a base chain (`enum nf_inet_hooks`; a bridge's have the same numbers, and of a link `NF_NETDEV_INGRESS` is 0, too).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Prerouting = 0,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// What makes a chain a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseChain {
    /// `filter`, `nat` or `route`.
    pub(crate) kind: String,
    /// `enum Hook`, or another number where it was read.
    pub(crate) hook: u32,
    /// Lower ones see a packet first.
    pub(crate) priority: i32,
    /// Whether packets that no rule decides about pass.
    pub(crate) accept: bool,
}

/// A chain; without a base it sees what others send there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) table: String,
    pub(crate) name: String,
    pub(crate) base: Option<BaseChain>,
}

/// A rule, wherever it is. The comment is for people, and for telling rules apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) expressions: Vec<Expression>,
    /// 127 bytes at most.
    pub(crate) comment: Option<String>,
}

/// A rule that is there, and the number by which it can be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlacedRule {
    pub(crate) handle: u64,
    pub(crate) rule: Rule,
}

/// A part of a set's key, by the type that `nft` has for it (`enum datatypes`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Ipv4Address = 7,
    Ipv6Address = 8,
    EthernetAddress = 9,
    /// The number of a transport protocol.
    Protocol = 12,
    /// A port.
    Service = 13,
    /// In the byte order of the host.
    LinkIndex = 20,
}

/// A set; its key is the concatenation of the fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) name: String,
    pub(crate) key: Vec<Field>,
}

/// An element of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    /// As `key` makes it.
    pub(crate) key: Vec<u8>,
    /// 127 bytes at most.
    pub(crate) comment: Option<String>,
}

/// The chain of a rule that was read.
pub(super) fn chain_of(attributes: &[u8]) -> Option<String> {
    attribute::text(attributes, RULE_CHAIN)
}

/// The key of an element from its parts: each begins at a register.
pub(crate) fn key(parts: &[(Field, &[u8])]) -> Vec<u8> {
    let mut key = Vec::new();
    for (field, part) in parts {
        let end = key.len() + field.slots() * 4;
        key.extend_from_slice(part);
        key.resize(end, 0);
    }
    key
}

/// The type of a concatenation.
pub(super) fn kind(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |kind, field| kind << TYPE_BITS | *field as u32)
}

/// Its length in bytes.
pub(super) fn length(fields: &[Field]) -> usize {
    match fields {
        [field] => field.bytes(),
        fields => fields.iter().map(|field| field.slots() * 4).sum(),
    }
}

impl Field {
    /// How many registers of four bytes it takes.
    pub(crate) const fn slots(self) -> usize {
        match self {
            Self::Ipv4Address | Self::LinkIndex | Self::Protocol | Self::Service => 1,
            Self::EthernetAddress => 2,
            Self::Ipv6Address => 4,
        }
    }

    /// Its own length in bytes, which a key of one field has.
    const fn bytes(self) -> usize {
        match self {
            Self::Protocol => 1,
            Self::Service => 2,
            Self::Ipv4Address | Self::LinkIndex => 4,
            Self::EthernetAddress => 6,
            Self::Ipv6Address => 16,
        }
    }
}

impl Chain {
    pub(super) fn write(&self) -> Attributes {
        self.write_on(None)
    }

    /// `link` is the one whose frames it sees, in the family netdev.
    pub(super) fn write_on(&self, link: Option<&str>) -> Attributes {
        let chain = Attributes::default().text(CHAIN_TABLE, &self.table).text(CHAIN_NAME, &self.name);
        let Some(base) = &self.base else { return chain };
        let hook = Attributes::default().number(HOOK_NUMBER, base.hook);
        let mut hook = hook.number(HOOK_PRIORITY, base.priority.cast_unsigned());
        if let Some(link) = link {
            hook = hook.text(HOOK_DEVICE, link);
        }
        chain.nested(CHAIN_HOOK, &hook).number(CHAIN_POLICY, u32::from(base.accept)).text(CHAIN_TYPE, &base.kind)
    }

    pub(super) fn read(attributes: &[u8]) -> Option<Self> {
        let base = attribute::find(attributes, CHAIN_HOOK).and_then(|hook| {
            Some(BaseChain {
                kind: attribute::text(attributes, CHAIN_TYPE)?,
                hook: attribute::number(hook, HOOK_NUMBER)?,
                priority: attribute::number(hook, HOOK_PRIORITY)?.cast_signed(),
                accept: attribute::number(attributes, CHAIN_POLICY)? == 1,
            })
        });
        Some(Self {
            table: attribute::text(attributes, CHAIN_TABLE)?,
            name: attribute::text(attributes, CHAIN_NAME)?,
            base,
        })
    }

    /// What a kernel lacks that knows tables, but not this.
    pub(super) fn piece(&self) -> Option<&'static str> {
        self.base.as_ref().map(|base| match base.kind.as_str() {
            "nat" => "nat chains (CONFIG_NFT_NAT)",
            _ => "base chains of this family (CONFIG_NF_TABLES_IPV4, CONFIG_NF_TABLES_IPV6, CONFIG_NF_TABLES_BRIDGE, CONFIG_NF_TABLES_NETDEV)",
        })
    }
}

impl Rule {
    pub(super) fn write(&self, table: &str, chain: &str) -> Attributes {
        let place = Attributes::default().text(RULE_TABLE, table).text(RULE_CHAIN, chain);
        let rule = place.nested(RULE_EXPRESSIONS, expression::write(&self.expressions));
        with_comment(rule, RULE_USERDATA, self.comment.as_deref())
    }

    pub(super) fn piece(&self) -> Option<&'static str> {
        self.expressions.iter().find_map(Expression::piece)
    }
}

impl PlacedRule {
    pub(super) fn read(attributes: &[u8]) -> Option<Self> {
        let expressions = attribute::find(attributes, RULE_EXPRESSIONS).map(expression::read).unwrap_or_default();
        let comment = attribute::find(attributes, RULE_USERDATA).and_then(comment);
        Some(Self { handle: attribute::long(attributes, RULE_HANDLE)?, rule: Rule { expressions, comment } })
    }
}

impl Set {
    /// `id` tells the set from others of one transaction.
    pub(super) fn write(&self, table: &str, id: u32) -> Attributes {
        let set = Attributes::default()
            .text(SET_TABLE, table)
            .text(SET_NAME, &self.name)
            .number(SET_FLAGS, 0)
            .number(SET_KEY_TYPE, kind(&self.key))
            .number(SET_KEY_LENGTH, u32::try_from(length(&self.key)).expect("as many bytes as registers have"))
            .number(SET_ID, id);
        match self.key.as_slice() {
            [Field::LinkIndex] => set.bytes(SET_USERDATA, &IN_HOST_ORDER),
            _ => set,
        }
    }
}

impl Element {
    /// A list of elements, as one message has it.
    pub(super) fn write_all(elements: &[Self], table: &str, set: &str) -> Attributes {
        let add = |list: Attributes, element: &Self| {
            let key = Attributes::default().bytes(DATA_VALUE, &element.key);
            let written = Attributes::default().nested(ELEMENT_KEY, &key);
            list.nested(LIST_ELEMENT, with_comment(written, ELEMENT_USERDATA, element.comment.as_deref()))
        };
        let list = elements.iter().fold(Attributes::default(), add);
        Attributes::default().text(ELEMENTS_TABLE, table).text(ELEMENTS_SET, set).nested(ELEMENTS, &list)
    }

    /// All that a message lists.
    pub(super) fn read_all(attributes: &[u8]) -> Vec<Self> {
        let list = attribute::find(attributes, ELEMENTS).unwrap_or_default();
        let read = |element| {
            let key = attribute::find(attribute::find(element, ELEMENT_KEY)?, DATA_VALUE)?.to_vec();
            Some(Self { key, comment: comment_of_element(element) })
        };
        attribute::each(list).filter_map(|(_, element)| read(element)).collect()
    }
}

/// One entry: type, length, and the text with its closing NUL. A text that is too long is cut.
fn with_comment(attributes: Attributes, kind: u16, comment: Option<&str>) -> Attributes {
    let Some(comment) = comment else { return attributes };
    let mut text = comment.as_bytes()[..comment.floor_char_boundary(COMMENT_MAX_BYTES - 1)].to_vec();
    text.push(0);
    let mut entry = vec![COMMENT, u8::try_from(text.len()).expect("a text that was cut")];
    entry.extend(text);
    attributes.bytes(kind, &entry)
}

/// The comment of an element.
pub(super) fn comment_of_element(element: &[u8]) -> Option<String> {
    attribute::find(element, ELEMENT_USERDATA).and_then(comment)
}

fn comment(mut data: &[u8]) -> Option<String> {
    loop {
        let (kind, length) = (*data.first()?, usize::from(*data.get(1)?));
        let content = data.get(2..2 + length)?;
        if kind == COMMENT {
            let text = content.strip_suffix(&[0]).unwrap_or(content);
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        data = &data[2 + length..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_read_as_it_was_written() {
        let base = BaseChain { kind: "nat".into(), hook: Hook::Postrouting as u32, priority: -100, accept: true };
        let chain = Chain { table: "flatnet".into(), name: "out".into(), base: Some(base) };
        assert_eq!(Chain::read(chain.write().as_ref()), Some(chain.clone()));
        let plain = Chain { base: None, ..chain };
        assert_eq!(Chain::read(plain.write().as_ref()), Some(plain));
    }

    #[test]
    fn a_rule_is_read_as_it_was_written() {
        let rule = Rule { expressions: vec![Expression::Masquerade], comment: Some("why".into()) };
        let attributes = rule.write("flatnet", "out").long(RULE_HANDLE, 7);
        assert_eq!(PlacedRule::read(attributes.as_ref()), Some(PlacedRule { handle: 7, rule }));
    }

    #[test]
    fn a_long_comment_is_cut() {
        let rule = Rule { comment: Some("\u{e9}".repeat(100)), ..Rule::default() };
        let attributes = rule.write("flatnet", "out").long(RULE_HANDLE, 7);
        let found = PlacedRule::read(attributes.as_ref()).expect("a rule").rule.comment.expect("a comment");
        assert_eq!(found, "\u{e9}".repeat(63));
    }

    #[test]
    fn each_part_of_a_key_begins_at_a_register() {
        let parts: [(Field, &[u8]); 3] = [
            (Field::LinkIndex, &[7, 0, 0, 0]),
            (Field::EthernetAddress, &[1; 6]),
            (Field::Ipv4Address, &[10, 87, 1, 2]),
        ];
        let key = key(&parts);
        assert_eq!(
            (key.len(), &key[..4], &key[4..12], &key[12..]),
            (16, &[7, 0, 0, 0][..], &[1, 1, 1, 1, 1, 1, 0, 0][..], &[10, 87, 1, 2][..])
        );
        let elements = [Element { key, comment: Some("whose".into()) }, Element { key: vec![1; 4], comment: None }];
        assert_eq!(Element::read_all(Element::write_all(&elements, "flatnet", "known").as_ref()), elements);
    }
}
