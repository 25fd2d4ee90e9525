//! The kernel's settings for forwarding, in the network namespace of the caller.
//!
//! Only the families that a network has are looked at, and nothing is written that is right already.

use std::fs;
use std::io;

use nix::errno::Errno;

use crate::error::{Doing, Result, errno_of};

/// Whether the host passes packets of a family on between its links.
pub(crate) struct Forwarding {
    /// As `sysctl` calls it.
    pub(crate) setting: &'static str,
    file: &'static str,
}

/// ip-sysctl.rst, `ip_forward`.
pub(crate) const IPV4: Forwarding =
    Forwarding { setting: "net.ipv4.ip_forward", file: "/proc/sys/net/ipv4/ip_forward" };
/// ip-sysctl.rst, `conf/all/forwarding` of IPv6.
pub(crate) const IPV6: Forwarding =
    Forwarding { setting: "net.ipv6.conf.all.forwarding", file: "/proc/sys/net/ipv6/conf/all/forwarding" };

impl Forwarding {
    pub(crate) fn is_on(&self) -> Result<bool> {
        let file = self.file;
        let text = fs::read_to_string(file).map_err(|e| errno_of(&e)).doing(|| format!("read {file}"))?;
        Ok(text.trim() == "1")
    }

    /// Writes only if it is off.
    pub(crate) fn enable(&self) -> Result<()> {
        if self.is_on()? { Ok(()) } else { write(self.file, "1").doing(|| format!("write {}", self.file)) }
    }
}

/// What `sysctl` calls a setting that IPv6 has for each link. A dot of the link's own, as the name of a VLAN has one, is a slash there
/// (sysctl(8)).
pub(crate) fn ipv6_of(link: &str, setting: &str) -> String {
    format!("net.ipv6.conf.{}.{setting}", link.replace('.', "/"))
}

/// Gives a setting a value. One that has it already is not written: it may be that nobody can.
pub(crate) fn set(file: &str, value: &str) -> io::Result<()> {
    match fs::read_to_string(file) {
        Ok(text) if text.trim() == value => Ok(()),
        _ => fs::write(file, value),
    }
}

/// The same in the namespace of the caller.
pub(crate) fn write(file: &str, value: &str) -> Result<(), Errno> {
    set(file, value).map_err(|e| errno_of(&e))
}
