//! An attachment: one interface of one container in one network. Its names on the host's link, and the record that says whose the link is.
//!
//! Pure: reading the kernel's links is a matter of leases.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::hash::{hex8, hex16};
use crate::mac::Mac;

/// How the alternative name of a link begins that says which attachment the link is of.
pub(crate) const ATTACHMENT_PREFIX: &str = "flatnet-att-";
/// How the name of an attachment's link on the host begins.
pub(crate) const LINK_PREFIX: &str = "fn-";
/// ALTIFNAMSIZ (linux/if.h) without its closing NUL.
pub(crate) const ALTERNATIVE_NAME_MAX_BYTES: usize = 127;
/// What each part of a record may take of the 255 bytes that a link's alias has (IFALIASZ of linux/if.h).
const RECORD_PART_MAX_BYTES: usize = 64;
/// IFALIASZ of linux/if.h without its closing NUL.
const RECORD_MAX_BYTES: usize = 255;
/// How a link's first alias ends.
pub(crate) const FIRST_RECORD: &str = " ADD is at work";
/// How many host names an attachment tries before it gives up; each is as likely to be free as 1 - links / 2^32.
const HOST_NAMES: u32 = 8;

/// `CNI_ARGS`, the keys that flatnet knows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Args {
    /// `IP`: the addresses that were asked for, each once.
    pub(crate) ips: Vec<IpAddr>,
    /// `MAC`: the hardware address that was asked for.
    pub(crate) mac: Option<Mac>,
    /// `K8S_POD_NAME`, where Podman puts the container's name, or else `NERDCTL_CNI_DHCP_HOSTNAME`, where nerdctl puts its host name.
    pub(crate) name: Option<String>,
}

/// One attachment, as the environment names it. A command that does not need a field leaves it empty.
#[derive(Debug)]
pub(crate) struct Target {
    /// `CNI_CONTAINERID`, never empty.
    pub(crate) container: String,
    /// `CNI_IFNAME`, a valid interface name.
    pub(crate) interface: String,
    /// `CNI_NETNS`; DEL may come without it, and has no use for it.
    pub(crate) netns: PathBuf,
    /// `CNI_ARGS`, which only ADD has a use for: what it refused must not keep DEL from cleaning up.
    pub(crate) args: Args,
}

/// One interface of one container in one network.
#[derive(Debug)]
pub(crate) struct Attachment<'a> {
    pub(crate) network: &'a str,
    pub(crate) target: &'a Target,
}

impl Attachment<'_> {
    /// The alternative name that says "this attachment exists".
    pub(crate) fn name(&self) -> String {
        name(&self.target.container, &self.target.interface)
    }

    /// The host end's names in the order of trying: `fn-` and eight hex digits. Nothing is ever looked up by them but what
    /// a crash left without the attachment's own name.
    pub(crate) fn host_names(&self) -> impl Iterator<Item = String> + '_ {
        (0..HOST_NAMES).map(|n| {
            let salt = if n == 0 { String::new() } else { n.to_string() };
            format!("{LINK_PREFIX}{}", hex8(&[&self.target.container, &self.target.interface, &salt]))
        })
    }

    /// The link's first alias, from before it has any of the names: whose it is until its record says more.
    pub(crate) fn first_record(&self) -> String {
        format!("{}{FIRST_RECORD}", network_part(self.network))
    }

    /// The link's alias: who this is, for people and for messages. Long parts are cut. `guarded` is the MAC that the container is held to.
    /// `vlan` is the one that it belongs to.
    pub(crate) fn record(&self, guarded: Option<Mac>, vlan: Option<u16>) -> String {
        let mut record = format!(
            "{} container={} interface={}",
            network_part(self.network),
            part(&self.target.container),
            self.target.interface
        );
        if let Some(mac) = guarded {
            record.push_str(" mac=");
            record.push_str(&mac.to_string());
        }
        if let Some(vlan) = vlan {
            record.push_str(" vlan=");
            record.push_str(&vlan.to_string());
        }
        if let Some(name) = &self.target.args.name {
            record.push_str(" name=");
            let room = RECORD_MAX_BYTES - record.len();
            record.push_str(&cut(name, room.min(RECORD_PART_MAX_BYTES)));
        }
        record
    }
}

/// The alternative name that says "this attachment exists".
pub(crate) fn name(container: &str, interface: &str) -> String {
    // A container id cannot hold the separator: no two attachments have one name.
    let name = format!("{ATTACHMENT_PREFIX}{container}@{interface}");
    match name.len() {
        0..=ALTERNATIVE_NAME_MAX_BYTES => name,
        _ => format!("{ATTACHMENT_PREFIX}{}", hex16(&[container, interface])),
    }
}

/// Whether that is the name of an attachment of `container`; unknown, and so false, where the name is a hash.
pub(crate) fn is_of_container(name: &str, container: &str) -> bool {
    parts_of(name).is_some_and(|(id, _)| id == container)
}

/// The container's id and its interface in an attachment's name; nothing where the name is a hash.
pub(crate) fn parts_of(attachment: &str) -> Option<(&str, &str)> {
    attachment.strip_prefix(ATTACHMENT_PREFIX)?.split_once('@')
}

/// How the record of an attachment to the network begins.
pub(crate) fn network_part(network: &str) -> String {
    format!("network={}", part(network))
}

fn part(text: &str) -> String {
    cut(text, RECORD_PART_MAX_BYTES)
}

/// Cuts what would not fit; white space would look like the next part.
fn cut(text: &str, max_bytes: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_whitespace() || c.is_control() { '_' } else { c }).collect();
    if text.len() <= max_bytes {
        return text;
    }
    let hash = hex16(&[&text]);
    let end = text.floor_char_boundary(max_bytes - hash.len() - 1);
    format!("{}~{hash}", &text[..end])
}

/// A part of a link's record, such as `container`; long ones are cut as they were written.
pub(crate) fn record_part<'a>(record: &'a str, key: &str) -> Option<&'a str> {
    record.split(' ').find_map(|part| part.strip_prefix(key)?.strip_prefix('='))
}

#[cfg(test)]
mod tests;
