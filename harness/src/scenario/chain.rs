//! A network of several plugins, which a runtime calls one after the other.
//!
//! Invariant: each has the list's name and version; one of them is under test, and is what steps mean by the network.

use serde_json::{Map, Value};

use super::Network;

/// The plugin that steps are about, wherever it stands.
const UNDER_TEST: &str = "flatnet";

/// What a list may say beside its plugins.
const KEYS: [&str; 3] = ["cniVersion", "name", "plugins"];

/// The plugins around the one under test.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    before: Vec<Network>,
    after: Vec<Network>,
}

impl Chain {
    /// Takes a list apart: the plugin under test, which is the first of its type, else the first of all, and the others.
    pub(super) fn read(mut list: Map<String, Value>) -> Result<(Network, Self), String> {
        if let Some(strange) = list.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(format!(
                "`{strange}` does not belong to a network with `plugins` (it knows {})",
                KEYS.join(", ")
            ));
        }
        let plugins = list.remove("plugins").unwrap_or_default();
        let plugins =
            plugins.as_array().filter(|plugins| !plugins.is_empty()).ok_or("`plugins` is a list of tables")?;
        let mut plugins = plugins.iter().map(|plugin| of_list(plugin, &list)).collect::<Result<Vec<_>, _>>()?;
        let place = plugins.iter().position(|plugin| plugin.kind() == UNDER_TEST).unwrap_or(0);
        let after = plugins.split_off(place + 1);
        let own = plugins.pop().ok_or("a list has plugins")?;
        Ok((own, Self { before: plugins, after }))
    }

    /// All plugins in order, `own` being the one under test.
    pub fn around<'a>(&'a self, own: &'a Network) -> impl DoubleEndedIterator<Item = &'a Network> {
        self.before.iter().chain([own]).chain(&self.after)
    }

    /// Those that are not under test.
    pub fn others(&self) -> impl Iterator<Item = &Network> {
        self.before.iter().chain(&self.after)
    }

    /// How many come before the one under test.
    pub fn place(&self) -> usize {
        self.before.len()
    }
}

/// A plugin with what the list says of all.
fn of_list(plugin: &Value, list: &Map<String, Value>) -> Result<Network, String> {
    let Value::Object(config) = plugin else { return Err("a plugin is a table".to_owned()) };
    let mut network = Network::new(config.clone());
    list.iter().for_each(|(key, value)| network.set(key, value.clone()));
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::Chain;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn read(list: &Value) -> Result<Vec<String>, String> {
        let (own, chain) = Chain::read(list.as_object().unwrap().clone())?;
        let all = chain.around(&own).map(|it| format!("{} of {} {}", it.kind(), it.name(), it.version())).collect();
        assert_eq!(chain.around(&own).nth(chain.place()), Some(&own));
        Ok([vec![own.kind().to_owned()], all].concat())
    }

    #[rstest]
    #[case(&["flatnet", "portmap"], "flatnet")]
    #[case(&["bridge", "flatnet"], "flatnet")]
    #[case(&["bridge", "tuning"], "bridge")]
    fn the_plugin_under_test_stands_anywhere(#[case] types: &[&str], #[case] own: &str) {
        let plugins: Vec<_> = types.iter().map(|kind| json!({ "type": kind })).collect();
        let read = read(&json!({ "cniVersion": "1.0.0", "name": "net", "plugins": plugins })).unwrap();
        let all = types.iter().map(|kind| format!("{kind} of net 1.0.0"));
        assert_eq!(read, std::iter::once(own.to_owned()).chain(all).collect::<Vec<_>>());
    }

    #[rstest]
    #[case(json!({ "plugins": [] }), "`plugins` is a list of tables")]
    #[case(json!({ "plugins": ["flatnet"] }), "a plugin is a table")]
    #[case(json!({ "plugins": [{}], "ipam": {} }), "`ipam` does not belong to a network with `plugins`")]
    fn mistakes_are_named(#[case] list: Value, #[case] says: &str) {
        assert!(read(&list).unwrap_err().starts_with(says));
    }
}
