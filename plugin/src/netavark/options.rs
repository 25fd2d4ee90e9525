//! `podman network create --opt`: what of a network Podman has no word of its own for, a text each.
//!
//! The names are those of netavark's own bridge driver where it has one, else those of CNI in small letters. What netavark's driver can and
//! flatnet cannot is refused with the reason.

use ipnetwork::IpNetwork;
use serde_json::{Map, json};

use super::subnets::fitting_metric;
use crate::config::options::BridgeOptions;
use crate::config::section::Section;
use crate::config::{fitting_mtu, gateways};
use crate::error::{Error, Result};

/// All of them.
pub(super) struct Options {
    pub(super) mtu: Option<u32>,
    pub(super) macspoofchk: bool,
    pub(super) masquerade: bool,
    pub(super) gateways: Vec<IpNetwork>,
    /// `enabledad`, as of CNI.
    pub(super) dad: bool,
    /// `metric` of the containers' default routes.
    pub(super) metric: Option<u32>,
    /// What the bridge and its ports are like.
    pub(super) bridge: BridgeOptions,
}

impl Options {
    /// Of a network on `bridge`. Errors: 2 and 7.
    pub(super) fn parse(mut options: Section, bridge: &str) -> Result<Self> {
        let mtu = match options.string("mtu")? {
            Some(text) => mtu(&text).map_err(|problem| options.problem("mtu", problem))?,
            None => None,
        };
        let macspoofchk = boolean(&mut options, "macspoofchk")?.unwrap_or(false);
        let masquerade = boolean(&mut options, "ipmasq")?.unwrap_or(true);
        let gateways = options.string("gateways")?.unwrap_or_default();
        let gateways = gateways.split([',', ' ']).filter(|text| !text.is_empty());
        let gateways = gateways::parse(gateways).map_err(|problem| options.problem("gateways", problem))?;
        let dad = boolean(&mut options, "enabledad")?.unwrap_or(false);
        let metric = match options.string("metric")? {
            Some(text) => Some(metric(&text).map_err(|problem| options.problem("metric", problem))?),
            None => None,
        };
        let bridge = bridge_options(&mut options, bridge)?;
        refuse_unsupported(&mut options)?;
        options.end()?;
        Ok(Self { mtu, macspoofchk, masquerade, gateways, dad, metric, bridge })
    }
}

/// Those that CNI's bridge options are, said by their names there: one place knows what they mean.
fn bridge_options(options: &mut Section, bridge: &str) -> Result<BridgeOptions> {
    let mut said = Map::new();
    for (key, name) in
        [("hairpinmode", "hairpinMode"), ("portisolation", "portIsolation"), ("promiscmode", "promiscMode")]
    {
        said.insert(name.into(), json!(boolean(options, key)?));
    }
    if let Some(text) = options.string("vlan")? {
        let vlan: i64 = text.parse().map_err(|_| options.problem("vlan", format!("is {text:?}, not a number")))?;
        said.insert("vlan".into(), json!(vlan));
    }
    if boolean(options, "no_default_route")? == Some(true) {
        said.insert("isGateway".into(), json!(true));
        said.insert("isDefaultGateway".into(), json!(false));
    }
    BridgeOptions::parse(&mut Section::new(options.path(), &said), bridge, Some(true)).map(|(options, _)| options)
}

/// Options of netavark's bridge driver that mean something else or nothing here, but for the values that change nothing. Errors: 2.
fn refuse_unsupported(options: &mut Section) -> Result<()> {
    let refused: [(&'static str, &[&str], &str); 7] = [
        ("bclim", &[], "leave it out: it is an option of macvlan"),
        ("host_interface_name", &[], "leave it out: flatnet names the host links itself (`flatnet ls`)"),
        (
            "isolate",
            &["false"],
            "leave it out: on a flat network containers of other networks are reached; keep them out with the host's firewall",
        ),
        ("mode", &["", "managed"], "leave it out: flatnet manages its bridge itself"),
        ("outbound_addr4", &[], "leave it out: masqueraded packets get an address of the link that they leave by"),
        ("outbound_addr6", &[], "leave it out: masqueraded packets get an address of the link that they leave by"),
        ("vrf", &[], "leave it out: the routes to containers are in the host's main table"),
    ];
    for (key, harmless, remedy) in refused {
        let Some(value) = options.string(key)?.filter(|value| !harmless.contains(&value.as_str())) else { continue };
        return Err(Error::Unsupported {
            key: format!("options.{key}"),
            value: format!("{value:?}"),
            remedy: remedy.into(),
        });
    }
    Ok(())
}

fn boolean(options: &mut Section, key: &'static str) -> Result<Option<bool>> {
    match options.string(key)?.as_deref() {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(other) => Err(options.problem(key, format!("is {other:?}, not true or false"))),
    }
}

/// Zero means "not configured", as for CNI. The error follows the key.
fn mtu(text: &str) -> Result<Option<u32>, String> {
    match text.parse() {
        Ok(0) => Ok(None),
        Ok(mtu) => fitting_mtu(mtu).map(Some),
        Err(_) => Err(format!("is {text:?}, not a number of bytes")),
    }
}

/// The error follows the key.
fn metric(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("is {text:?}, not a number")).and_then(fitting_metric)
}
