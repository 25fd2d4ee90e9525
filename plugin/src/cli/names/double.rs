//! Containers that are not reached by their own names, for people: a name means one container, and so others of it go without.

use std::fmt;

use super::{Holder, Names, Unknown};

/// As Podman shows an id.
const ID_SHOWN_CHARS: usize = 12;
/// A zone, whichever a gateway has.
const ZONE: &str = ".flat";

/// A container whose name leads elsewhere.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) struct Double {
    pub(in crate::cli) name: String,
    /// Its id.
    pub(in crate::cli) container: Option<String>,
    leads_to: Place,
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// It has the form of an address, which it may or may not have.
    Address,
    /// It asks for the IPv6 address of this container, which has none.
    Ipv6(String),
    /// Another container's name means this, perhaps with a port or a zone.
    Container { name: String, container: Option<String>, upstream: String },
}

impl Names {
    /// All of them, the oldest first.
    pub(in crate::cli) fn doubles(&self) -> Vec<Double> {
        self.holders.iter().filter_map(|holder| self.double(holder)).collect()
    }

    fn double(&self, holder: &Holder) -> Option<Double> {
        // Browsers and proxies ask in lower case.
        let host = format!("{}{ZONE}", holder.name.to_lowercase());
        let leads_to = match self.resolve(&host) {
            Err(Unknown::Address) => Place::Address,
            Err(Unknown::NoIpv6(name)) => Place::Ipv6(name),
            Ok(found) if !holder.addresses.contains(&found.upstream.ip()) => Place::Container {
                name: found.name.to_owned(),
                container: found.container.map(str::to_owned),
                upstream: found.upstream.to_string(),
            },
            _ => return None,
        };
        Some(Double { name: holder.name.clone(), container: holder.container.clone(), leads_to })
    }
}

impl fmt::Display for Double {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |id: &Option<String>| id.as_deref().unwrap_or("?").chars().take(ID_SHOWN_CHARS).collect::<String>();
        let Self { name, container, leads_to } = self;
        write!(f, "container {name} ({}) is not reached by its name: {name}{ZONE} is ", shown(container))?;
        match leads_to {
            Place::Address => f.write_str("an address"),
            Place::Ipv6(name) => write!(f, "the IPv6 address of {name}"),
            Place::Container { name, container, upstream } => write!(f, "{upstream} of {name} ({})", shown(container)),
        }
    }
}
