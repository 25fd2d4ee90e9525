//! The verbs on a network whose addresses another plugin gives (`ipam.type`).
//!
//! That plugin is asked before anything is made, and told last when something is taken back: what it gives out is never still in
//! use. Once it has been asked for an address, a failure of any kind has it take back what it may have given.

use std::net::IpAddr;

use super::add::attach;
use crate::attachment::{Attachment, Target};
use crate::call::{block_on, undone, within_deadline};
use crate::cni::request::asked::Asked;
use crate::cni::request::{Environment, Input};
use crate::config::Draft;
use crate::delegate::{Delegate, Given};
use crate::error::{Error, Result, both};
use crate::ipam::lease;
use crate::link::veth;
use crate::netlink::Netlink;
use crate::netns::Netns;
use crate::reply::{Reply, Success};
use crate::spec::Command;

/// What a runtime called flatnet with: what the other plugin is called with.
pub(super) struct Call<'a> {
    pub(super) command: Command,
    pub(super) environment: &'a Environment,
    /// Standard input, as it came.
    pub(super) text: &'a str,
}

impl<'a> Call<'a> {
    /// The plugin of that name. Errors: 4 and 110.
    pub(super) fn find(&self, plugin: &'a str) -> Result<Delegate<'a>> {
        Delegate::find(plugin, &self.environment.plugin_folders()?, self.command, self.text)
    }

    /// Has `plugin`, if there is one, carry out the command too, whatever became of flatnet's own part; tells both failures.
    pub(super) fn pass_on(&self, own: Result<Reply>, plugin: Option<&'a str>) -> Result<Reply> {
        let Some(plugin) = plugin else { return own };
        // It has a patience of its own, and must hear of it also where flatnet's part was late.
        let theirs = self.find(plugin).and_then(|delegate| block_on(delegate.run(self.command)));
        both(own.map(drop), theirs).map(|()| Reply::Nothing)
    }
}

/// Answers a CNI runtime's ADD.
pub(super) async fn add(
    input: &Input,
    (target, asked): (Target, &Asked),
    (draft, delegate): (Draft, &Delegate<'_>),
    before: Success,
) -> Result<Reply> {
    within_deadline(refuse_existing(&draft.name, &target)).await?;
    let running = delegate.start(Command::Add)?;
    let outcome = match within_deadline(running.given(input.version)).await {
        Ok(given) => Box::pin(build((target, asked), draft, given, |own| own.after(before).json(input.version))).await,
        Err(cause) => Err(cause),
    };
    undone(outcome, || delegate.undo()).await.map(Reply::Added)
}

/// The other plugin knows an attachment by container and interface, as flatnet does: were it asked once more for one that exists,
/// undoing would take that one's address. Errors: 103, 104.
async fn refuse_existing(network: &str, target: &Target) -> Result<()> {
    let netns = Netns::open(&target.netns)?;
    let host = Netlink::open()?;
    let container = Netlink::open_in(&netns)?;
    lease::refuse_existing(&host, &Attachment { network, target }).await?;
    veth::refuse_existing(&container, &netns, &target.interface).await
}

/// Leases what was given as if it had been asked for: an address that is given twice is refused.
async fn build<T>(
    (mut target, asked): (Target, &Asked),
    draft: Draft,
    given: Given,
    tell: impl FnOnce(Success) -> Result<T>,
) -> Result<T> {
    (target.args.ips, target.args.mac) = (given.addresses.clone(), asked.mac);
    if let Some((asked, road)) = asked.missing_in(&given.addresses) {
        let given: Vec<_> = given.addresses.iter().map(IpAddr::to_string).collect();
        let given = given.join(", ");
        return Err(Error::Unsupported {
            key: road.to_string(),
            value: asked.to_string(),
            remedy: format!("ask for none: the plugin of ipam.type gives {given}, whatever is asked for"),
        });
    }
    attach(&target, &given.complete(draft), None, tell).await
}
