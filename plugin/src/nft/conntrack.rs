//! iptables' condition `conntrack`, as far as it asks for nothing but states: iptables shows a rule with it like its own.
//!
//! Whatever else such a condition asks for, it is not read as this one.

use crate::netlink::attribute;

pub(super) const NAME: &str = "conntrack";
/// `struct xt_conntrack_mtinfo3` of `linux/netfilter/xt_conntrack.h`.
pub(super) const REVISION: u32 = 3;
/// Its size, as `XT_ALIGN` rounds it up.
const INFO_BYTES: usize = 168;
/// Where it has what is asked for, and the states.
const FLAGS_OFFSET: usize = 146;
const STATES_OFFSET: usize = 150;
/// `XT_CONNTRACK_STATE`.
const FLAG_STATE: u16 = 1;

/// The condition's data: any of these states.
pub(super) fn info(states: u16) -> [u8; INFO_BYTES] {
    let mut info = [0; INFO_BYTES];
    info[FLAGS_OFFSET..FLAGS_OFFSET + 2].copy_from_slice(&FLAG_STATE.to_ne_bytes());
    info[STATES_OFFSET..STATES_OFFSET + 2].copy_from_slice(&states.to_ne_bytes());
    info
}

/// The states that the content of an expression `match` asks for, if it is this one.
pub(super) fn states(content: &[u8]) -> Option<u16> {
    let found = attribute::find(content, 3)?;
    let is_conntrack = attribute::text(content, 1)? == NAME && attribute::number(content, 2)? == REVISION;
    let states = found.get(STATES_OFFSET..STATES_OFFSET + 2)?.try_into().ok().map(u16::from_ne_bytes)?;
    let meaningful = ..STATES_OFFSET + 2;
    (is_conntrack && found.get(meaningful)? == &info(states)[meaningful]).then_some(states)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attribute::Attributes;

    #[test]
    fn only_a_condition_that_asks_for_states_alone_is_read() {
        let content = |revision, info: &[u8]| {
            Attributes::default().text(1, NAME).number(2, revision).bytes(3, info).as_ref().to_vec()
        };
        assert_eq!(states(&content(REVISION, &info(6))), Some(6));
        assert_eq!(states(&content(1, &info(6))), None);
        let mut with_port = info(6);
        with_port[138] = 1;
        assert_eq!(states(&content(REVISION, &with_port)), None);
        let mut inverted = info(6);
        inverted[148] = 1;
        assert_eq!(states(&content(REVISION, &inverted)), None);
    }
}
