//! What a rule decides about a packet.

use crate::netlink::attribute::{self, Attributes};

/// `NFTA_VERDICT_CODE` and `_CHAIN` of `linux/netfilter/nf_tables.h`.
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
/// `NF_DROP`, `NF_ACCEPT`, and the verdicts of nftables' own.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
const JUMP: u32 = (-3_i32).cast_unsigned();
const GOTO: u32 = (-4_i32).cast_unsigned();
const RETURN: u32 = (-5_i32).cast_unsigned();

/// What becomes of the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    /// Back to the calling chain; in a base chain, its policy.
    Return,
    Jump(String),
    Goto(String),
}

impl Verdict {
    pub(super) fn write(&self) -> Attributes {
        let (code, chain) = match self {
            Self::Accept => (ACCEPT, None),
            Self::Drop => (DROP, None),
            Self::Return => (RETURN, None),
            Self::Jump(chain) => (JUMP, Some(chain)),
            Self::Goto(chain) => (GOTO, Some(chain)),
        };
        let verdict = Attributes::default().number(VERDICT_CODE, code);
        match chain {
            Some(chain) => verdict.text(VERDICT_CHAIN, chain),
            None => verdict,
        }
    }

    pub(super) fn read(verdict: &[u8]) -> Option<Self> {
        let chain = attribute::text(verdict, VERDICT_CHAIN);
        match (attribute::number(verdict, VERDICT_CODE)?, chain) {
            (ACCEPT, None) => Some(Self::Accept),
            (DROP, None) => Some(Self::Drop),
            (RETURN, None) => Some(Self::Return),
            (JUMP, Some(chain)) => Some(Self::Jump(chain)),
            (GOTO, Some(chain)) => Some(Self::Goto(chain)),
            _ => None,
        }
    }
}
