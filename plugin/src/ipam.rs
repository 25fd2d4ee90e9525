//! Which address a container gets, and how the kernel holds it.

pub(crate) mod lease;
pub(crate) mod memory;
pub(crate) mod pool;
