//! The names of netlink messages, and whether they change anything.
//!
//! Invariant: what is not known is named by its number, and taken for a change.

/// `NETLINK_ROUTE` and `NETLINK_NETFILTER` of linux/netlink.h.
const ROUTE: i32 = 0;
const NETFILTER: i32 = 12;
/// `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// The first type that is a protocol's own (`NLMSG_MIN_TYPE`).
const FIRST_OWN: u16 = 16;
/// The four verbs of a kind of object, in the order of linux/rtnetlink.h.
const VERBS: [&str; 4] = ["NEW", "DEL", "GET", "SET"];
/// The kinds of objects of route netlink, each by its first type (linux/rtnetlink.h).
const OBJECTS: [(u16, &str); 7] =
    [(16, "LINK"), (20, "ADDR"), (24, "ROUTE"), (28, "NEIGH"), (32, "RULE"), (88, "NSID"), (108, "LINKPROP")];
/// `NFNL_SUBSYS_NFTABLES` of `linux/netfilter/nfnetlink.h`, and its messages (`linux/netfilter/nf_tables.h`).
const NFTABLES: u16 = 10;
const NFTABLES_OBJECTS: [&str; 8] = ["TABLE", "CHAIN", "RULE", "SET", "SETELEM", "GEN", "TRACE", "OBJ"];
/// Of the same file: a batch is a transaction.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

/// What is in the bytes that are sent to a netlink socket.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Messages {
    /// Their names, without repetitions that follow each other.
    pub(super) names: Vec<String>,
    /// Whether any of them asks for a change.
    pub(super) change: bool,
}

/// Reads messages of a netlink protocol.
pub(super) fn read(protocol: i32, bytes: &[u8]) -> Messages {
    let mut found = Messages::default();
    let mut rest = bytes;
    while let Some((header, _)) = rest.split_at_checked(HEADER_BYTES) {
        let length = usize::try_from(u32::from_ne_bytes([header[0], header[1], header[2], header[3]])).unwrap_or(0);
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let name = name(protocol, kind);
        found.change |= !name.starts_with("GET");
        if found.names.last() != Some(&name) {
            found.names.push(name);
        }
        // Each begins at a multiple of four.
        rest = rest.get(length.max(HEADER_BYTES).next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn name(protocol: i32, kind: u16) -> String {
    match protocol {
        ROUTE if kind >= FIRST_OWN => {
            let object = OBJECTS.iter().find(|(first, _)| (*first..*first + 4).contains(&kind));
            object.map(|(first, object)| format!("{}{object}", VERBS[usize::from(kind - first)]))
        }
        NETFILTER if kind == BATCH_BEGIN => Some("BEGIN".to_owned()),
        NETFILTER if kind == BATCH_END => Some("END".to_owned()),
        NETFILTER if kind >> 8 == NFTABLES => nftables(kind & 0xff),
        _ => None,
    }
    .unwrap_or_else(|| format!("message {protocol}/{kind}"))
}

/// New, get and delete follow each other for each object; a generation is new and got, a trace only new.
fn nftables(message: u16) -> Option<String> {
    let (verb, object) = match message {
        0..=14 => (["NEW", "GET", "DEL"][usize::from(message % 3)], usize::from(message / 3)),
        15 => ("NEW", 5),
        16 => ("GET", 5),
        17 => ("NEW", 6),
        18..=20 => (["NEW", "GET", "DEL"][usize::from(message - 18)], 7),
        _ => return None,
    };
    Some(format!("{verb}{}", NFTABLES_OBJECTS[object]))
}

#[cfg(test)]
mod tests {
    use super::read;
    use rstest::rstest;

    fn message(kind: u16, length: u32) -> Vec<u8> {
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(usize::try_from(length).unwrap().next_multiple_of(4), 0);
        bytes
    }

    #[rstest]
    #[case(0, &[16], "NEWLINK", true)]
    #[case(0, &[17], "DELLINK", true)]
    #[case(0, &[18], "GETLINK", false)]
    #[case(0, &[19], "SETLINK", true)]
    #[case(0, &[26], "GETROUTE", false)]
    #[case(0, &[108], "NEWLINKPROP", true)]
    #[case(0, &[250], "message 0/250", true)]
    #[case(12, &[16, 0xa00, 0xa03, 0xa06, 0xa06, 17], "BEGIN NEWTABLE NEWCHAIN NEWRULE END", true)]
    #[case(12, &[0xa07], "GETRULE", false)]
    #[case(12, &[0xa10], "GETGEN", false)]
    fn messages_have_names(#[case] protocol: i32, #[case] kinds: &[u16], #[case] names: &str, #[case] change: bool) {
        let bytes: Vec<u8> = kinds.iter().flat_map(|kind| message(*kind, 22)).collect();
        let found = read(protocol, &bytes);
        assert_eq!((found.names.join(" ").as_str(), found.change), (names, change));
    }

    #[test]
    fn what_is_cut_short_is_read_as_far_as_it_goes() {
        assert_eq!(read(0, &[1, 2, 3]).names, Vec::<String>::new());
        assert_eq!(read(0, &message(16, 40)[..16]).names, ["NEWLINK"]);
    }
}
