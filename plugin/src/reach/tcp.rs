//! Connections to what does not answer an echo: one that is taken proves as much as one that is refused.
//!
//! Bounded: so many at the same moment, and the whole ends in time.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The one that a container's packet filter lets in, if any.
const PORT: u16 = 80;
/// Each is a descriptor.
const AT_ONCE: usize = 128;
/// For all of them together.
const PATIENCE: Duration = Duration::from_millis(700);

/// Those that answer.
pub(super) async fn ask(addresses: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
    let addresses: Vec<_> = addresses.iter().copied().collect();
    let mut answered = BTreeSet::new();
    let rounds = u32::try_from(addresses.len().div_ceil(AT_ONCE)).unwrap_or(u32::MAX);
    for some in addresses.chunks(AT_ONCE) {
        answered
            .extend(join_all(some.iter().map(|address| one(*address, PATIENCE / rounds))).await.into_iter().flatten());
    }
    answered
}

async fn one(address: IpAddr, patience: Duration) -> Option<IpAddr> {
    match timeout(patience, TcpStream::connect((address, PORT))).await {
        Ok(Ok(_)) => Some(address),
        Ok(Err(error)) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset) => {
            Some(address)
        }
        _ => None,
    }
}
