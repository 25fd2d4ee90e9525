//! The long sweeps: every verb, killed and failed at every system call in every way.
//!
//! Invariant: a scenario has one verb and one fault, so that they run side by side, and one finding hides no other verb's.

use super::{Case, made_up};

/// What is true before a verb is swept, the verb, and what takes it back.
struct Sweep {
    verb: &'static str,
    before: &'static [&'static str],
    step: &'static str,
    after: &'static [&'static str],
}

/// Addresses .2 to .6: the neighbours have all but one, so a leak is missed at once.
const NEIGHBOURS: &str = "{ add = \"neighbour\", together = 4 }";
const PREFIX: u8 = 29;
const VALID: &str = "set = { \"cni.dev/valid-attachments\" = [{ containerID = \"neighbour-1\", ifname = \"eth0\" }, { \
                     containerID = \"neighbour-2\", ifname = \"eth0\" }, { containerID = \"neighbour-3\", ifname = \"eth0\" }, { \
                     containerID = \"neighbour-4\", ifname = \"eth0\" }] }";
const ADD: &str = "{ add = \"web\" }";
const DEL: &str = "{ del = \"web\" }";

const SWEEPS: [Sweep; 5] = [
    Sweep { verb: "add", before: &[], step: "add = \"web\"", after: &[DEL] },
    Sweep { verb: "del", before: &[ADD], step: "del = \"web\"", after: &[DEL] },
    Sweep { verb: "check", before: &[ADD], step: "check = \"web\"", after: &[DEL] },
    Sweep { verb: "gc", before: &[ADD], step: "cni = \"GC\", container = \"web\", VALID", after: &[DEL] },
    Sweep { verb: "status", before: &[], step: "cni = \"STATUS\"", after: &[] },
];

/// What the kernel may say to a call that flatnet itself makes, and is nobody's fault: EACCES would be the caller's. Not among the
/// calls: memory and threads, without which no program starts.
const ERRNOS: [&str; 11] =
    ["EAGAIN", "EBUSY", "EINTR", "EIO", "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ENOSPC", "EPERM", "EROFS"];
const CALLS: &str = "[\"netlink\", \"file\", \"descriptor\", \"setns\"]";

impl Sweep {
    fn case(&self, fault: &str, option: &str) -> Case {
        let step = self.step.replace("VALID", VALID);
        let mut steps = vec![NEIGHBOURS.to_owned()];
        steps.extend(self.before.iter().copied().map(str::to_owned));
        steps.push(format!("{{ {step}, {option} }}"));
        steps.extend(self.after.iter().copied().map(str::to_owned));
        // Each neighbour is whole still.
        steps.extend((1..=4).map(|number| format!("{{ check = \"neighbour-{number}\" }}")));
        made_up(&format!("{}-{fault}", self.verb), PREFIX, 5, &steps)
    }
}

/// Every verb, killed before every system call and after each that changes something, which is after every other one as well; and
/// the first ADD after a boot.
pub(super) fn kills() -> Vec<Case> {
    let all = |sweep: &Sweep| sweep.case("killed-at-every-system-call", "kill = { at = \"every syscall\" }");
    // A boot takes neighbours along.
    let first = ["{ add = \"web\", kill = { at = \"every syscall\", fresh = true } }".to_owned(), DEL.to_owned()];
    let first = made_up("the-first-add-killed-at-every-system-call", PREFIX, 5, &first);
    SWEEPS.iter().map(all).chain([first]).collect()
}

/// Every verb, each system call of its own failing in every way.
pub(super) fn failures() -> Vec<Case> {
    let all = |sweep: &Sweep| {
        ERRNOS.map(|errno| {
            let option = format!("fail = {{ syscall = {CALLS}, errno = \"{errno}\", at = \"every\" }}");
            sweep.case(&format!("every-system-call-failing-with-{errno}"), &option)
        })
    };
    SWEEPS.iter().flat_map(all).collect()
}
