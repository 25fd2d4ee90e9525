//! What the kernel of a host lacks: requests of its programs that name such a piece are answered as a kernel without it answers.
//!
//! A program of that host runs under a seccomp filter, which its children inherit. Before a message is sent to netlink, what it names
//! of a missing piece is replaced by a name that no kernel knows, and the kernel under test gives its own answer to that.
//!
//! Invariant: nothing but such names is changed; a program of a host that lacks nothing has no filter.

mod filter;
mod message;

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result};
use serde::Deserialize;

/// A part of the kernel that can be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Piece {
    /// nftables' family bridge (`CONFIG_NF_TABLES_BRIDGE`).
    NftBridge,
    /// nftables' family netdev (`CONFIG_NF_TABLES_NETDEV`).
    NftNetdev,
    /// nftables' expression `fib` in tables of IPv4 (`CONFIG_NFT_FIB_IPV4`), and so in those of the family inet.
    FibIpv4,
    /// nftables' expression `fib` in tables of IPv6 (`CONFIG_NFT_FIB_IPV6`), and so in those of the family inet.
    FibIpv6,
    /// What iptables' own conditions and targets are in nftables, its expressions `match` and `target` (`CONFIG_NFT_COMPAT`).
    NftCompat,
    /// nftables' requests that came after 5.15: `destroy`, which deletes what may not be there, and a reset of rules or elements.
    NftDestroy,
    /// Ports of a bridge that are `locked` (Linux 5.18): an older kernel ignores the request.
    LockedPorts,
    /// What limits bandwidth: the queueing disciplines htb and tbf, and links of kind ifb.
    Shaping,
    /// Lists of links, which take the longer the more containers there are. Every kernel has them: a host without shows who does without.
    LinkLists,
}

/// A kernel that Microsoft ships with WSL for x86, as far as flatnet is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
pub enum Stock {
    /// 5.15: Windows 10, and older WSL.
    #[serde(rename = "wsl-5.15")]
    #[value(name = "wsl-5.15")]
    Wsl5,
    /// 6.6.29 to 6.6.87.
    #[serde(rename = "wsl-6.6")]
    #[value(name = "wsl-6.6")]
    Wsl6,
    /// 6.6.114.1, and 6.18.
    #[serde(rename = "wsl-6.18")]
    #[value(name = "wsl-6.18")]
    Wsl618,
}

impl Stock {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wsl5 => "wsl-5.15",
            Self::Wsl6 => "wsl-6.6",
            Self::Wsl618 => "wsl-6.18",
        }
    }

    /// What it lacks.
    pub fn lacks(self) -> BTreeSet<Piece> {
        use Piece::{FibIpv4, FibIpv6, LockedPorts, NftBridge, NftDestroy, NftNetdev, Shaping};
        let pieces: &[Piece] = match self {
            Self::Wsl5 => &[NftBridge, NftNetdev, FibIpv4, FibIpv6, NftDestroy, LockedPorts, Shaping],
            Self::Wsl6 => &[NftBridge, FibIpv6],
            Self::Wsl618 => &[NftBridge],
        };
        pieces.iter().copied().collect()
    }
}

/// Has `command`, and whatever it starts, find a kernel without these.
pub fn impose(command: &mut Command, lacks: &BTreeSet<Piece>) -> Result<()> {
    if lacks.is_empty() {
        return Ok(());
    }
    let (ours, theirs) = UnixStream::pair().context("make a pair of sockets")?;
    let lacks = lacks.clone();
    // It ends with the last process under the filter, or with `command` if that is never started.
    thread::spawn(move || filter::serve(ours, &lacks));
    // SAFETY: between fork and exec the closure makes system calls only, and touches no memory but its own stack.
    unsafe {
        command.pre_exec(move || filter::install(&theirs));
    }
    Ok(())
}
