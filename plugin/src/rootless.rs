//! Whether an ordinary user's runtime is asking: what is made for it would be in that user's own network namespace.
//!
//! Nothing outside that namespace can reach an address in it, so a new attachment is refused; taking one back never is.

use crate::error::{Error, Result};

/// Set by Podman and by rootlesskit (nerdctl) for all that they start in a user's namespace; each is the user's number.
const VARIABLES: [&str; 2] = ["_CONTAINERS_ROOTLESS_UID", "ROOTLESSKIT_PARENT_EUID"];

/// Errors: 111.
pub(crate) fn refuse() -> Result<()> {
    refuse_where(|variable| std::env::var(variable).ok())
}

fn refuse_where(value: impl Fn(&str) -> Option<String>) -> Result<()> {
    let set = |variable: &&&str| value(variable).is_some_and(|value| !value.is_empty());
    match VARIABLES.iter().find(set) {
        Some(variable) => Err(Error::Rootless { variable }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::roots_podman(None, false)]
    #[case::empty(Some(("_CONTAINERS_ROOTLESS_UID", "")), false)]
    #[case::podman(Some(("_CONTAINERS_ROOTLESS_UID", "1000")), true)]
    #[case::nerdctl(Some(("ROOTLESSKIT_PARENT_EUID", "1000")), true)]
    fn environments(#[case] set: Option<(&str, &str)>, #[case] refused: bool) {
        let value = |variable: &str| set.filter(|(name, _)| *name == variable).map(|(_, value)| value.to_owned());
        assert_eq!(refuse_where(value).is_err_and(|error| error.code() == 111), refused);
    }
}
