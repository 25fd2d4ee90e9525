//! Everything that flatnet can fail with: what went wrong, the CNI code for it, and what to do next.
//!
//! Codes below 100 are the specification's (section 2, "Error"), 100 and up are flatnet's own.
//! `Display` gives a whole sentence in lower case, which is the `msg` of the CNI error object. plugin/manual/errors.md explains each code.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use nix::errno::Errno;

use crate::deadline::Wait;
use crate::mac::Mac;
use crate::spec::{self, Command, SpecVersion};

/// The key of a configuration that a runtime fills in.
pub(crate) const PREV_RESULT: &str = "prevResult";

/// Where `CNI_ARGS` has the addresses that a runtime requests.
pub(crate) const IP_IN_CNI_ARGS: &str = "IP in CNI_ARGS";

/// A result whose error is flatnet's.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// One failure. Variants hold facts; the sentences are made in one place, below.
#[derive(Debug)]
pub(crate) enum Error {
    /// 1: the configuration's version is one that flatnet does not speak.
    Version { asked: String },
    /// 1: the command does not exist in the configuration's version.
    CommandVersion { command: Command, version: SpecVersion, since: SpecVersion },
    /// 2: a known key with a value that flatnet does not support.
    Unsupported { key: String, value: String, remedy: String },
    /// 2: a key that flatnet does not know.
    UnknownKey { key: String, value: String, hint: String },
    /// 4 where it came in the environment, else 7: a requested address that the network cannot give; `problem` is the sentence.
    Requested { source: &'static str, problem: String },
    /// 4: every environment variable that is missing or malformed, each with what is wrong with it.
    Environment { problems: Vec<(&'static str, String)> },
    /// 5: standard input could not be read.
    Stdin { problem: String },
    /// 6: standard input is not JSON.
    Json { problem: String },
    /// 7: the JSON says something that cannot be.
    Config { key: String, problem: String },
    /// 8: `CNI_NETNS` is the network namespace that flatnet itself runs in.
    OwnNamespace { path: String },
    /// 11: the work did not end in time, and was undone.
    Deadline { deadline: Duration, wait: Option<Wait> },
    /// 50, or 51 where containers that exist suffer as well: an ADD cannot succeed now.
    NotReady { what: String, suffering: bool, remedy: String },
    /// 100: the kernel refused an operation.
    Kernel { doing: String, errno: Errno },
    /// 101: no address of the pool is free.
    PoolFull { pool: String, bridge: String },
    /// 102: the address that was asked for is held by another container.
    AddressTaken { address: IpAddr, holder: String },
    /// 102: the MAC that was asked for is the bridge's, a port's or another container's.
    MacTaken { mac: Mac, holder: String },
    /// 103: the container already has an interface of that name.
    InterfaceExists { interface: String, netns: String },
    /// 104: this attachment exists already, at another interface or in another namespace.
    AttachmentExists { container: String, interface: String, link: String },
    /// 105: the bridge's name belongs to something that flatnet must not change.
    BridgeConflict { bridge: String, found: String, remedy: String },
    /// 106: CHECK found something other than what ADD left.
    Changed { what: String },
    /// 107: a bug in flatnet.
    Internal { message: String },
    /// 108: a port that was to be published is another container's.
    PortTaken { port: String, holder: String },
    /// 109: the packet filter could not be read or changed.
    Firewall { doing: String, problem: String, remedy: String },
    /// Its own code: the plugin that gives the addresses refused, in its own words.
    DelegateRefused { plugin: String, command: Command, code: u32, msg: String, details: String },
    /// 11: the plugin that gives the addresses did not end in time, and was ended.
    DelegateSilent { plugin: String, command: Command, patience: Duration },
    /// 110: the plugin that gives the addresses could not be run, or its answer is none, or cannot be.
    Delegate { plugin: String, command: Command, problem: String, remedy: String },
    /// 111: an ordinary user's runtime asks, whose network namespace nobody else reaches.
    Rootless { variable: &'static str },
    /// The code of `first`: it happened, and what had to be done all the same failed as well.
    AndThen { first: Box<Error>, second: Box<Error> },
}

/// The codes, and the list of them: the compiler refuses one that [`Error::code`] gives and the list lacks, and warns of the reverse.
macro_rules! codes {
    ($($name:ident = $code:literal,)*) => {
        enum Code { $($name = $code,)* }

        /// Every code that flatnet itself gives. An IPAM plugin's refusal has that plugin's code.
        pub(crate) const CODES: &[u32] = &[$($code,)*];
    };
}

codes! {
    Version = 1,
    Unsupported = 2,
    Environment = 4,
    Stdin = 5,
    Json = 6,
    Config = 7,
    OwnNamespace = 8,
    Deadline = 11,
    NotReady = 50,
    CutOff = 51,
    Kernel = 100,
    PoolFull = 101,
    Taken = 102,
    InterfaceExists = 103,
    AttachmentExists = 104,
    BridgeConflict = 105,
    Changed = 106,
    Internal = 107,
    PortTaken = 108,
    Firewall = 109,
    Delegate = 110,
    Rootless = 111,
}

impl Error {
    /// Both errors: `self`, and then `second`.
    pub(crate) fn and_then(self, second: Self) -> Self {
        Self::AndThen { first: Box::new(self), second: Box::new(second) }
    }

    /// Whether the kernel refused something with this errno.
    pub(crate) fn is(&self, errno: Errno) -> bool {
        matches!(self, Self::Kernel { errno: found, .. } if *found == errno)
    }

    /// The CNI error code: shape of `code` in the error object.
    pub(crate) fn code(&self) -> u32 {
        let code = match self {
            Self::Version { .. } | Self::CommandVersion { .. } => Code::Version,
            Self::Unsupported { .. } | Self::UnknownKey { .. } => Code::Unsupported,
            Self::Requested { source: IP_IN_CNI_ARGS, .. } | Self::Environment { .. } => Code::Environment,
            Self::Stdin { .. } => Code::Stdin,
            Self::Json { .. } => Code::Json,
            Self::Requested { .. } | Self::Config { .. } => Code::Config,
            Self::OwnNamespace { .. } => Code::OwnNamespace,
            Self::Deadline { .. } | Self::DelegateSilent { .. } => Code::Deadline,
            Self::NotReady { suffering: false, .. } => Code::NotReady,
            Self::NotReady { suffering: true, .. } => Code::CutOff,
            Self::Kernel { .. } => Code::Kernel,
            Self::PoolFull { .. } => Code::PoolFull,
            Self::AddressTaken { .. } | Self::MacTaken { .. } => Code::Taken,
            Self::InterfaceExists { .. } => Code::InterfaceExists,
            Self::AttachmentExists { .. } => Code::AttachmentExists,
            Self::BridgeConflict { .. } => Code::BridgeConflict,
            Self::Changed { .. } => Code::Changed,
            Self::Internal { .. } => Code::Internal,
            Self::PortTaken { .. } => Code::PortTaken,
            Self::Firewall { .. } => Code::Firewall,
            Self::DelegateRefused { code, .. } => return *code,
            Self::Delegate { .. } => Code::Delegate,
            Self::Rootless { .. } => Code::Rootless,
            Self::AndThen { first, .. } => return first.code(),
        };
        code as u32
    }

    /// What the reader can do about it: the `details` of the CNI error object.
    pub(crate) fn remedy(&self) -> String {
        match self {
            Self::Version { .. } => {
                format!("set cniVersion to one of {}", spec::supported_list())
            }
            Self::CommandVersion { since, .. } => {
                format!("set cniVersion to {since} or newer")
            }
            Self::Unsupported { remedy, .. }
            | Self::BridgeConflict { remedy, .. }
            | Self::NotReady { remedy, .. }
            | Self::Firewall { remedy, .. }
            | Self::Delegate { remedy, .. } => remedy.clone(),
            Self::DelegateRefused { plugin, details, .. } if details.is_empty() => {
                format!("see the documentation of {plugin}, this network's IPAM plugin (`ipam.type`)")
            }
            Self::DelegateRefused { details, .. } => details.clone(),
            Self::DelegateSilent { plugin, .. } => {
                format!("try again later; if it happens again, find out what {plugin} waits for")
            }
            Self::Requested { source, .. } => {
                format!("request another address, or none (`podman run --ip`); this one was requested by {source}")
            }
            Self::Environment { problems } if problems.iter().all(|(variable, _)| *variable == "CNI_ARGS") => {
                "correct CNI_ARGS, which the runtime sets (Podman: from `--ip` and `--mac-address`)".into()
            }
            Self::Environment { .. } => {
                "a CNI runtime such as Podman sets these variables; to run flatnet by hand, see `flatnet --help`".into()
            }
            Self::Stdin { .. } | Self::Json { .. } => {
                "flatnet expects one plugin's network configuration, as JSON, on standard input".into()
            }
            Self::Config { key, .. } if key == PREV_RESULT => {
                "the runtime must pass the result of ADD (in ADD: of the plugin before in the list) unchanged".into()
            }
            Self::Config { key, .. } if is_sent_by_runtime(key) => {
                "the runtime sends this key, it is not in the network's .conflist: correct the request, or the runtime".into()
            }
            Self::Config { .. } | Self::UnknownKey { .. } => {
                "correct the network's .conflist, by default /etc/cni/net.d/flatnet.conflist".into()
            }
            Self::OwnNamespace { .. } => "give the container a network namespace of its own".into(),
            Self::Deadline { .. } => {
                "try again later; if it happens again, check the host's load (`uptime`) and the kernel's messages (`dmesg`)".into()
            }
            Self::Kernel { errno, .. } => kernel_remedy(*errno).into(),
            Self::PoolFull { bridge, .. } => {
                format!(
                    "remove containers that are no longer needed (`flatnet ls`, `ip link show master {bridge}`), or configure a larger ipam.subnet"
                )
            }
            Self::AddressTaken { .. } => "request another address, or remove that container first".into(),
            Self::MacTaken { .. } => "request another MAC address, or none: it is then derived from the IP address".into(),
            Self::PortTaken { .. } => "publish another host port, or remove that container first".into(),
            Self::InterfaceExists { .. } => {
                "give this network another interface name, or run DEL for the existing interface".into()
            }
            Self::AttachmentExists { container, .. } => {
                format!("run DEL for container {container} before adding it again")
            }
            Self::Changed { .. } => "recreate the container, or run DEL and ADD again".into(),
            Self::Internal { .. } => {
                "this is a bug in flatnet: please report it with this message and the network configuration".into()
            }
            Self::Rootless { .. } => {
                "run the container as root (`sudo podman run --network flatnet ..`), or on another network and publish its ports (`podman run -p`)".into()
            }
            Self::AndThen { first, second } => {
                format!("{}; another error followed: {second} ({})", first.remedy(), second.remedy())
            }
        }
    }
}

/// Whether a key of the configuration is one that a runtime puts in, beside [`PREV_RESULT`].
fn is_sent_by_runtime(key: &str) -> bool {
    ["cni.dev/", "runtimeConfig", "args"].iter().any(|start| key.starts_with(start))
}

/// Names the likely reason where an errno has one.
fn kernel_remedy(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM | Errno::EACCES => "flatnet needs CAP_NET_ADMIN and CAP_SYS_ADMIN: run it as root",
        Errno::EOPNOTSUPP => {
            "the kernel lacks this: flatnet needs Linux 5.5 or newer with the bridge and veth modules (`uname -r`; on WSL: `wsl --update`)"
        }
        Errno::EAFNOSUPPORT => {
            "this kernel has no IPv6: boot it without `ipv6.disable=1`, or remove the network's IPv6 subnet"
        }
        Errno::ENODEV => "the interface was deleted in the meantime: try again",
        Errno::EROFS => {
            "/proc/sys is read-only where flatnet runs: set the value on the host (`sysctl -w net.ipv4.ip_forward=1`), or run flatnet there"
        }
        Errno::EXFULL => "a bridge has 1023 ports at most: remove containers, or create a second network",
        Errno::ENOBUFS | Errno::ENOMEM => "the kernel is short of memory: try again; if it happens again, see `free`",
        Errno::EMFILE | Errno::ENFILE => {
            "too many files are open: close some, or raise the limit (`ulimit -n`, `fs.file-max`)"
        }
        Errno::ENOTCONN => "the kernel closed the netlink socket: try again; if it happens again, see `dmesg`",
        _ => "see the kernel's messages (`dmesg`)",
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { asked } => write!(f, "unsupported CNI version {asked:?}"),
            Self::CommandVersion { command, version, since } => {
                write!(f, "CNI version {version} has no {command}, which exists since {since}")
            }
            Self::Unsupported { key, value, .. } => write!(f, "unsupported value for {key}: {value}"),
            // The hint before the value, which may be long.
            Self::UnknownKey { key, value, hint } => write!(f, "unknown key {key}: {hint} (its value is {value})"),
            Self::Requested { problem, .. } => f.write_str(problem),
            Self::Environment { problems } => {
                f.write_str("invalid environment: ")?;
                list(f, problems.iter().map(|(variable, problem)| format!("{variable} {problem}")))
            }
            Self::Stdin { problem } => write!(f, "failed to read standard input: {problem}"),
            Self::Json { problem } => write!(f, "failed to parse standard input as JSON: {problem}"),
            Self::Config { key, problem } => write!(f, "invalid configuration: {key} {problem}"),
            Self::OwnNamespace { path } => {
                write!(f, "CNI_NETNS {path} is the network namespace that flatnet itself runs in")
            }
            Self::Deadline { deadline, wait: None } => {
                write!(f, "timed out after {} s: nothing was waited for, the processor was busy", deadline.as_secs())
            }
            Self::Deadline { deadline, wait: Some(wait) } => {
                let (what, last) = (&wait.what, wait.elapsed().as_secs_f64());
                write!(f, "timed out after {} s: waited {last:.1} s for {what}", deadline.as_secs())
            }
            Self::NotReady { what, .. } => write!(f, "not ready: {what}"),
            Self::Kernel { doing, errno } => write!(f, "failed to {doing}: {}", errno.desc()),
            Self::PoolFull { pool, .. } => write!(f, "no address is free: all of {pool} are in use"),
            Self::AddressTaken { address, holder } => write!(f, "address {address} is already in use by {holder}"),
            Self::MacTaken { mac, holder } => write!(f, "MAC address {mac} is already in use by {holder}"),
            Self::InterfaceExists { interface, netns } => write!(f, "{netns} already has an interface {interface}"),
            Self::AttachmentExists { container, interface, link } => {
                write!(f, "interface {interface} of container {container} is already attached, by host link {link}")
            }
            Self::BridgeConflict { bridge, found, .. } => write!(f, "cannot use bridge {bridge}: {found}"),
            Self::Changed { what } => write!(f, "the attachment has changed since ADD: {what}"),
            Self::Internal { message } => write!(f, "internal error: {message}"),
            Self::PortTaken { port, holder } => write!(f, "host port {port} is already published by {holder}"),
            Self::Firewall { doing, problem, .. } => write!(f, "failed to {doing}: {problem}"),
            Self::DelegateRefused { plugin, command, msg, .. } => {
                write!(f, "IPAM plugin {plugin} refused {command}: {msg}")
            }
            Self::DelegateSilent { plugin, command, patience } => {
                write!(f, "IPAM plugin {plugin} did not finish {command} within {} s", patience.as_secs())
            }
            Self::Delegate { plugin, command, problem, .. } => {
                write!(f, "IPAM plugin {plugin} failed {command}: {problem}")
            }
            Self::Rootless { variable } => write!(
                f,
                "rootless containers are not supported ({variable} is set): nothing outside the user's network namespace would reach them"
            ),
            Self::AndThen { first, .. } => first.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

/// Both outcomes of two things that had to be done whatever became of the other.
pub(crate) fn both(first: Result<()>, second: Result<()>) -> Result<()> {
    match (first, second) {
        (Err(first), Err(second)) => Err(first.and_then(second)),
        (first, second) => first.and(second),
    }
}

/// Whether something was made: false where there is such a thing already (`EEXIST`).
pub(crate) fn unless_there(made: Result<()>) -> Result<bool> {
    match made {
        Ok(()) => Ok(true),
        Err(error) if error.is(Errno::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

fn list(f: &mut fmt::Formatter<'_>, items: impl Iterator<Item = String>) -> fmt::Result {
    f.write_str(&items.collect::<Vec<_>>().join(", "))
}

/// The errno of an error of the standard library's; `EIO` for the few that have none.
pub(crate) fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Says what was being done when the kernel refused.
pub(crate) trait Doing<T> {
    /// `what` reads after "failed to ...".
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for Result<T, Errno> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| Error::Kernel { doing: what(), errno })
    }
}
