//! What a promise comes to: an error that can be shown, a network that can be built, an attachment that can be written down.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::Path;

use serde_json::Value;

use crate::attachment::{Attachment, Target};
use crate::config::{Configured, Network};
use crate::error::Error;
use crate::ipam::pool::{Pools, Range};
use crate::names::{interface_name_problem, is_identifier};
use crate::{attachment, reply, spec};

/// The longest text that an error may have: it ends up in a log, or on somebody's screen.
const TEXT_MAX_BYTES: usize = 8 << 10;
/// IFALIASZ of linux/if.h without its closing NUL.
const ALIAS_MAX_BYTES: usize = 255;

/// An error has one of `codes`, says what is wrong and what to do, and can be shown to a person as it is.
pub(super) fn refused(error: &Error, codes: &[u32]) {
    assert!(codes.contains(&error.code()), "code {} is none of {codes:?}: {error}", error.code());
    let object = reply::error(spec::NEWEST, error);
    let again: Value = serde_json::from_str(&object.to_string()).expect("JSON");
    assert_eq!(again, object);
    assert_eq!(object.as_object().expect("an object").len(), 4, "{object}");
    for key in ["msg", "details"] {
        let text = object[key].as_str().expect("a text");
        assert!(!text.is_empty() && text.len() <= TEXT_MAX_BYTES, "{key} has {} bytes", text.len());
        assert!(!text.contains(char::is_control), "{key} is not one line: {text:?}");
    }
}

/// What a configuration may say can be built, or be left to a plugin that is found in no other folder than it should be.
pub(super) fn can_be_built(configured: &Configured) {
    match configured {
        Configured::Whole(network) => is_sound(network),
        Configured::Delegated(draft, plugin) => {
            assert!(is_identifier(&draft.name), "name {:?}", draft.name);
            is_interface(&draft.bridge);
            // It leads to a file of the folder that it is looked for in, as "..host-local" does.
            let file = Path::new("/folder").join(plugin);
            assert_eq!(file.file_name(), Some(OsStr::new(plugin)));
            assert!(file.parent() == Some(Path::new("/folder")) && !plugin.contains('\0'), "{plugin:?}");
        }
    }
}

/// A network that exists can be built.
pub(super) fn is_sound(network: &Network) {
    assert!(is_identifier(&network.name), "name {:?}", network.name);
    is_interface(&network.bridge);
    assert!(network.mtu.is_none_or(|mtu| (68..=65_535).contains(&mtu)), "mtu {:?}", network.mtu);
    can_give(&network.pools);
}

/// An attachment that is asked for can be named and written down, and reads back as what it is.
pub(super) fn is_recorded(network: &str, target: &Target) {
    assert!(is_identifier(&target.container), "container {:?}", target.container);
    is_interface(&target.interface);
    assert!(target.args.mac.is_none_or(|mac| mac.0[0] & 1 == 0 && mac.0 != [0; 6]), "MAC {:?}", target.args.mac);
    let attachment = Attachment { network, target };
    let name = attachment.name();
    assert!(name.len() < 128, "{name}");
    let parts = attachment::parts_of(&name);
    assert!(parts.is_none_or(|parts| parts == (target.container.as_str(), target.interface.as_str())), "{name}");
    let record = attachment.record(None, None);
    assert!(record.len() <= ALIAS_MAX_BYTES && !record.contains(char::is_control), "{record:?}");
    // No name of a container can pass itself off as another part.
    assert_eq!(record.matches(' ').count(), 2 + usize::from(target.args.name.is_some()), "{record}");
    assert!(attachment.host_names().all(|name| interface_name_problem(&name).is_none()));
}

fn is_interface(name: &str) {
    assert!((1..=15).contains(&name.len()) && interface_name_problem(name).is_none(), "interface {name:?}");
    assert!(!name.contains('/') && name != "." && name != "..", "interface {name:?}");
}

/// Every address that they give is a container's to have, and each has one.
fn can_give(pools: &Pools) {
    for pool in pools.iter() {
        let free: Vec<_> = pool.free(&BTreeSet::new()).take(3).map(|own| own.address.ip()).collect();
        assert!(!free.is_empty(), "{pools:?} have nothing to give");
        assert!(free.iter().all(|address| pools.refusal(*address).is_none()), "{pools:?} give what they refuse");
        assert_eq!(free.iter().collect::<BTreeSet<_>>().len(), free.len(), "{pools:?} give twice");
        for address in free {
            can_have(pools, address);
        }
    }
    let edges = pools.ranges().flat_map(|range| {
        let ((first, last), subnet) = (range.bounds(), range.subnet());
        [first, last, range.gateway(), subnet.network(), subnet.broadcast()]
    });
    for address in edges.filter(|address| pools.refusal(*address).is_none()) {
        can_have(pools, address);
    }
}

/// `address` is one that an ADD may have.
pub(super) fn can_have(pools: &Pools, address: IpAddr) {
    let is_reserved = match address {
        IpAddr::V4(address) => address.octets().starts_with(&[10, 87, 0]),
        IpAddr::V6(address) => address.segments().starts_with(&[0xfd87, 0, 0, 0]),
    };
    assert!(!is_reserved, "{pools:?} give {address}");
    let may_give = |range: &Range| {
        let ((first, last), subnet) = (range.bounds(), range.subnet());
        let is_broadcast = address.is_ipv4() && address == subnet.broadcast();
        let is_edge = address == subnet.network() || is_broadcast || address == range.gateway();
        subnet.contains(address) && (first..=last).contains(&address) && !is_edge
    };
    assert!(pools.ranges().any(may_give), "{pools:?} give {address}");
}
