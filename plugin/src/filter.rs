//! Packet filters, whoever wrote them: their rules read, and judged by what becomes of a packet.

pub(crate) mod iptables;
pub(crate) mod meaning;
pub(crate) mod rules;
