//! Throwaway networks out of namespaces: replays scenarios through the real `flatnet` binary and probes with real HTTP.
//!
//! Invariant: the machine's own network, mounts and processes are never touched; everything happens in a [`sandbox`],
//! and nothing of it outlives the process that asked for it.

pub mod asked;
pub mod bench;
pub mod conformance;
pub mod deadline;
pub mod demo;
pub mod fault;
pub mod frame;
pub mod gateway;
pub mod hostile;
pub mod http;
pub mod inside;
pub mod installed;
pub mod inventory;
pub mod lab;
pub mod lacking;
pub mod pattern;
pub mod plugin;
pub mod podman;
pub mod process;
pub mod report;
pub mod runner;
pub mod sandbox;
pub mod scenario;
pub mod seeds;
pub mod shell;
pub mod shipped;
pub mod stand_in;
pub mod storm;
pub mod suite;
pub mod tally;
pub mod terminal;
pub mod torture;
pub mod verb;
pub mod world;
