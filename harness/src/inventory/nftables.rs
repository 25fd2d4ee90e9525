//! The nftables of the caller's network namespace: tables, chains, sets and rules, by name, number and comment.
//!
//! Invariant: asks the kernel itself, so it needs no `nft`; a kernel without nftables has none.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use anyhow::{Context, Result, bail};
use nix::net::if_::if_indextoname;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

const SUBSYSTEM: u16 = 10;
const REQUEST: u16 = 0x1;
const REQUEST_ACK: u16 = 0x5;
const REQUEST_DUMP: u16 = 0x301;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const DELETE_TABLE: u16 = 2;
const MESSAGE_ERROR: u16 = 2;
const MESSAGE_DONE: u16 = 3;
const HEADER: usize = 16;
const NFGENMSG: usize = 4;

/// A kind of object: its name, the number that asks for all of them, and the attributes that tell which one it is.
struct Kind {
    name: &'static str,
    ask: u16,
    texts: &'static [u16],
    handle: Option<u16>,
    comment: Option<u16>,
}

/// A bridge's chain of flatnet's table, and the comments of the rules in it. Each is there once, but for one for each of the subnets and `gateways`.
const MASQUERADE: &str = "masquerade-";
const COMMENTS: [&str; 10] = [
    "of others",
    "among the bridge's own",
    "to another flat network of the host",
    "the flat range",
    A_SUBNET,
    "multicast",
    "link-local",
    A_GATEWAY,
    "connections from before these rules",
    "the rest",
];
const A_SUBNET: &str = "the subnet";
const A_GATEWAY: &str = "a gateway";

/// How the lines begin of a chain of flatnet's that sees one link's frames, and of the rule in it; the link's number follows.
const OF_LINKS: [&str; 2] = ["nftables chain netdev flatnet port-", "nftables rule netdev flatnet port-"];

const KINDS: [Kind; 4] = [
    Kind { name: "table", ask: 1, texts: &[1], handle: None, comment: None },
    Kind { name: "chain", ask: 4, texts: &[1, 3], handle: None, comment: None },
    Kind { name: "set", ask: 10, texts: &[1, 2], handle: None, comment: None },
    Kind { name: "rule", ask: 7, texts: &[1, 2], handle: Some(3), comment: Some(7) },
];

/// Those of `lines` that are what flatnet has, in one family (`ip` or `ip6`), for a network that masquerades: its table, its bridge's
/// chain, and the rules in it.
pub(crate) fn masquerade<'a>(
    lines: impl Iterator<Item = &'a str> + Clone,
    family: &str,
    bridge: &str,
) -> BTreeSet<&'a str> {
    let chain = format!("nftables chain {family} flatnet {MASQUERADE}{bridge}");
    let rule = format!("nftables rule {family} flatnet {MASQUERADE}{bridge} #");
    let mut known: BTreeSet<_> = lines.clone().filter(|line| *line == chain).collect();
    if !known.is_empty() {
        let table = format!("nftables table {family} flatnet");
        known.extend(lines.clone().filter(|line| *line == table));
    }
    let mut seen = BTreeSet::new();
    for line in lines {
        let Some((_, comment)) = line.strip_prefix(&rule).and_then(|rest| rest.split_once(' ')) else { continue };
        let comment = comment.trim_matches('"');
        let is_new = seen.insert(comment) || [A_SUBNET, A_GATEWAY].contains(&comment);
        if is_new && COMMENTS.contains(&comment) {
            known.insert(line);
        }
    }
    known
}

/// One line for each object.
pub(crate) fn list() -> Result<Vec<String>> {
    let Some(socket) = open()? else { return Ok(Vec::new()) };
    let mut lines = Vec::new();
    for kind in &KINDS {
        dump(&socket, kind, &mut lines).with_context(|| format!("list nftables {}s", kind.name))?;
    }
    lines.retain(|line| !is_of_gone_link(line));
    number(&mut lines);
    Ok(lines)
}

/// Numbers the rules of the chains that see one link's frames within their chain: the handles change where the table is made anew, and the rules
/// do not.
fn number(lines: &mut [String]) {
    let mut seen = BTreeMap::<String, usize>::new();
    for line in lines.iter_mut().filter(|line| line.starts_with(OF_LINKS[1])) {
        let Some((chain, _)) = line.split_once(" #") else { continue };
        let count = seen.entry(chain.to_owned()).or_default();
        *count += 1;
        *line = format!("{chain} #{count}");
    }
}

/// Whether it is of the chain that flatnet has for the frames of a link which is gone: like an element of a set, it does nothing, and goes
/// with the next container. (Linux before 6.16 takes it away with the link.)
fn is_of_gone_link(line: &str) -> bool {
    let port = OF_LINKS.iter().find_map(|prefix| line.strip_prefix(prefix)?.split(' ').next()?.parse().ok());
    // nix takes no link for one without a name.
    port.is_some_and(|port| !if_indextoname(port).is_ok_and(|name| !name.is_empty()))
}

/// Takes all tables away, of all families, as `nft flush ruleset` does.
pub(crate) fn flush() -> Result<()> {
    let Some(socket) = open()? else { return Ok(()) };
    let mut batch = message(BATCH_BEGIN, REQUEST, SUBSYSTEM);
    // Without a family and a name all are meant.
    batch.extend(message(SUBSYSTEM << 8 | DELETE_TABLE, REQUEST_ACK, 0));
    batch.extend(message(BATCH_END, REQUEST, SUBSYSTEM));
    socket.send(&batch, 0).context("ask the kernel")?;
    let (answer, _) = socket.recv_from_full().context("hear from the kernel")?;
    match split_message(&answer) {
        Some((MESSAGE_ERROR, message, _)) => read_error(message).context("flush nftables"),
        _ => bail!("flush nftables: the kernel's answer cannot be read"),
    }
}

/// No socket where the kernel has no netfilter.
fn open() -> Result<Option<Socket>> {
    let mut socket = match Socket::new(NETLINK_NETFILTER) {
        Err(err) if err.raw_os_error() == Some(nix::libc::EPROTONOSUPPORT) => return Ok(None),
        socket => socket.context("open a netfilter socket")?,
    };
    socket.bind_auto().context("bind a netfilter socket")?;
    socket.connect(&SocketAddr::new(0, 0)).context("connect a netfilter socket")?;
    Ok(Some(socket))
}

/// A message for all families, without attributes; `resource` stands behind the family, in the network's order.
fn message(number: u16, flags: u16, resource: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + NFGENMSG);
    bytes.extend(u32::try_from(HEADER + NFGENMSG).unwrap_or_default().to_ne_bytes());
    bytes.extend(number.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence and port, family and version.
    bytes.resize(HEADER + 2, 0);
    bytes.extend(resource.to_be_bytes());
    bytes
}

fn dump(socket: &Socket, kind: &Kind, lines: &mut Vec<String>) -> Result<()> {
    let request = message(SUBSYSTEM << 8 | kind.ask, REQUEST_DUMP, 0);
    socket.send(&request, 0).context("ask the kernel")?;
    loop {
        let (answer, _) = socket.recv_from_full().context("hear from the kernel")?;
        let mut rest = answer.as_slice();
        while let Some((number, message, after)) = split_message(rest) {
            rest = after;
            match number {
                MESSAGE_DONE => return Ok(()),
                MESSAGE_ERROR => return read_error(message),
                _ => lines.extend(describe(kind, message)),
            }
        }
    }
}

/// The first message's type and content, and what is behind it.
fn split_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
    let number = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let next = length.next_multiple_of(4).min(bytes.len());
    Some((number, bytes.get(HEADER..length)?, bytes.get(next..)?))
}

fn read_error(message: &[u8]) -> Result<()> {
    let code = message.get(..4).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes);
    let err = io::Error::from_raw_os_error(-code);
    match -code {
        0 | nix::libc::EINVAL | nix::libc::EOPNOTSUPP | nix::libc::EPROTONOSUPPORT => Ok(()),
        _ => bail!("{err}"),
    }
}

fn describe(kind: &Kind, message: &[u8]) -> Option<String> {
    let family = match message.first()? {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "?",
    };
    let mut line = format!("nftables {} {family}", kind.name);
    for wanted in kind.texts {
        let text = attribute(message.get(NFGENMSG..)?, *wanted)?;
        line.push(' ');
        line.push_str(String::from_utf8_lossy(text).trim_end_matches('\0'));
    }
    if let Some(wanted) = kind.handle {
        let handle = attribute(message.get(NFGENMSG..)?, wanted)?;
        line.push_str(" #");
        line.push_str(&u64::from_be_bytes(handle.try_into().ok()?).to_string());
    }
    // User space's data begins, where it is a comment: type 0, length, and the text with its closing NUL.
    if let Some([0, _, text @ ..]) = kind.comment.and_then(|wanted| attribute(message.get(NFGENMSG..)?, wanted)) {
        line.push_str(" \"");
        line.push_str(String::from_utf8_lossy(text).trim_end_matches('\0'));
        line.push('"');
    }
    Some(line)
}

/// The content of the first attribute of that type.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        if kind == wanted {
            return bytes.get(4..length);
        }
        bytes = bytes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_flatnet_writes_is_known_and_nothing_else() {
        let lines = [
            "nftables table ip flatnet",
            "nftables table ip other",
            "nftables chain ip flatnet masquerade-flatnet-br0",
            "nftables chain ip flatnet masquerade-flatnet-br1",
            "nftables rule ip flatnet masquerade-flatnet-br0 #4 \"of others\"",
            "nftables rule ip flatnet masquerade-flatnet-br0 #5 \"a gateway\"",
            "nftables rule ip flatnet masquerade-flatnet-br0 #6 \"a gateway\"",
            "nftables rule ip flatnet masquerade-flatnet-br0 #7 \"the rest\"",
            "nftables rule ip flatnet masquerade-flatnet-br0 #8 \"the rest\"",
            "nftables rule ip flatnet masquerade-flatnet-br0 #9",
            "nftables rule ip flatnet masquerade-flatnet-br0 #10 \"somebody's\"",
        ];
        let known = masquerade(lines.iter().copied(), "ip", "flatnet-br0");
        let unknown: Vec<_> = lines.iter().filter(|line| !known.contains(**line)).collect();
        assert_eq!(unknown, [&lines[1], &lines[3], &lines[8], &lines[9], &lines[10]]);
        assert!(masquerade(lines.iter().copied(), "ip6", "flatnet-br0").is_empty());
        assert!(masquerade(lines[..2].iter().copied(), "ip", "flatnet-br0").is_empty());
    }
}
