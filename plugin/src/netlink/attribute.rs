//! Netlink's messages and attributes: those of netfilter, of which rtnetlink's crates know nothing flatnet can use, and what is read in
//! long lists.
//!
//! Reading never fails and never panics: what is cut off is not there.

use nix::errno::Errno;

/// netlink(7): the length of a message's header, and the types of the messages that end an exchange.
const HEADER: usize = 16;
pub(crate) const ERROR: u16 = 2;
pub(crate) const DONE: u16 = 3;
/// `struct nfgenmsg` of `linux/netfilter/nfnetlink.h`, which follows the header: family, version, and a number.
const FAMILY_HEADER: usize = 4;
/// `NLA_F_NESTED` of `linux/netlink.h`, and the bits of an attribute's type that are no flags.
const NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = 0x3fff;

/// A message as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// What follows the header.
    pub(crate) content: &'a [u8],
}

impl<'a> Message<'a> {
    /// The messages of one datagram.
    pub(crate) fn all(mut datagram: &'a [u8]) -> impl Iterator<Item = Self> {
        std::iter::from_fn(move || {
            let (message, rest) = Self::split(datagram)?;
            datagram = rest;
            Some(message)
        })
    }

    /// The first message, and what is behind it.
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let flags = u16::from_ne_bytes(bytes.get(6..8)?.try_into().ok()?);
        let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
        let content = bytes.get(HEADER..length)?;
        let next = length.next_multiple_of(4).min(bytes.len());
        Some((Self { kind, flags, sequence, content }, bytes.get(next..)?))
    }

    /// What an `ERROR` or a `DONE` says: its content begins with a negative errno, or zero for success.
    pub(crate) fn outcome(&self) -> Result<(), Errno> {
        super::errno(self.content.get(..4).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes))
    }

    /// The family that a message of netfilter's is about.
    pub(crate) fn family(&self) -> u8 {
        self.content.first().copied().unwrap_or_default()
    }

    /// The attributes of a message of netfilter's.
    pub(crate) fn attributes(&self) -> &'a [u8] {
        self.content.get(FAMILY_HEADER..).unwrap_or_default()
    }
}

/// Attributes that are being written, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn bytes(mut self, kind: u16, content: &[u8]) -> Self {
        self.push(kind, content);
        self
    }

    /// With the closing NUL that the kernel expects.
    pub(crate) fn text(self, kind: u16, text: &str) -> Self {
        self.bytes(kind, &[text.as_bytes(), &[0]].concat())
    }

    /// In network byte order, as all numbers of netfilter's.
    pub(crate) fn number(self, kind: u16, number: u32) -> Self {
        self.bytes(kind, &number.to_be_bytes())
    }

    pub(crate) fn long(self, kind: u16, number: u64) -> Self {
        self.bytes(kind, &number.to_be_bytes())
    }

    /// Attributes in an attribute.
    pub(crate) fn nested(self, kind: u16, attributes: impl AsRef<[u8]>) -> Self {
        self.bytes(kind | NESTED, attributes.as_ref())
    }

    fn push(&mut self, kind: u16, content: &[u8]) {
        let length = u16::try_from(content.len() + 4).expect("a rule or an element, which are short");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

impl AsRef<[u8]> for Attributes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Appends a message of netfilter's to `datagram`.
pub(crate) fn append(
    datagram: &mut Vec<u8>,
    (kind, flags, sequence): (u16, u16, u32),
    family_header: [u8; FAMILY_HEADER],
    attributes: &[u8],
) {
    let length = HEADER + FAMILY_HEADER + attributes.len();
    datagram.extend(u32::try_from(length).expect("a message of some bytes").to_ne_bytes());
    datagram.extend(kind.to_ne_bytes());
    datagram.extend(flags.to_ne_bytes());
    datagram.extend(sequence.to_ne_bytes());
    // The port: the kernel knows whose socket it is.
    datagram.extend([0; 4]);
    datagram.extend(family_header);
    datagram.extend(attributes);
    datagram.resize(datagram.len().next_multiple_of(4), 0);
}

/// All attributes: the type without its flags, and the content.
pub(crate) fn each(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let content = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, content))
    })
}

/// The content of the first attribute of that type.
pub(crate) fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    each(bytes).find(|(kind, _)| *kind == wanted).map(|(_, content)| content)
}

/// A number in network byte order.
pub(crate) fn number(bytes: &[u8], wanted: u16) -> Option<u32> {
    Some(u32::from_be_bytes(find(bytes, wanted)?.try_into().ok()?))
}

/// A long number in network byte order.
pub(crate) fn long(bytes: &[u8], wanted: u16) -> Option<u64> {
    Some(u64::from_be_bytes(find(bytes, wanted)?.try_into().ok()?))
}

/// A text, without its closing NUL.
pub(crate) fn text(bytes: &[u8], wanted: u16) -> Option<String> {
    find(bytes, wanted).map(string)
}

/// An attribute's content that is a text, without its closing NUL.
pub(super) fn string(content: &[u8]) -> String {
    String::from_utf8_lossy(content.strip_suffix(&[0]).unwrap_or(content)).into_owned()
}

/// An attribute's content that is a number in the host's byte order, as all numbers of links are.
pub(super) fn native(content: &[u8]) -> Option<u32> {
    content.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let inner = Attributes::default().number(1, 7).text(2, "abc");
        let attributes = Attributes::default().nested(1, &inner).long(2, 9);
        let mut datagram = Vec::new();
        append(&mut datagram, (1, 2, 3), [4, 0, 0, 0], attributes.as_ref());
        append(&mut datagram, (5, 6, 7), [0; 4], &[]);
        let messages: Vec<_> = Message::all(&datagram).collect();
        assert_eq!(messages.len(), 2);
        assert_eq!((messages[0].kind, messages[0].flags, messages[0].sequence), (1, 2, 3));
        let found = messages[0].attributes();
        assert_eq!((number(find(found, 1).expect("inner"), 1), long(found, 2)), (Some(7), Some(9)));
        assert_eq!(text(find(found, 1).expect("inner"), 2).as_deref(), Some("abc"));
        assert_eq!(messages[1].kind, 5);
    }

    #[test]
    fn what_is_cut_off_is_not_there() {
        let attributes = Attributes::default().number(1, 7).number(2, 8);
        let bytes = attributes.as_ref();
        for length in 0..bytes.len() {
            assert_eq!(number(&bytes[..length], 2), None, "{length} bytes");
        }
        assert!(each(&[0, 0, 1, 0, 5, 5, 5, 5]).next().is_none(), "a length of zero ends it");
    }
}
