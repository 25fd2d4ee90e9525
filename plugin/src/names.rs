//! What containers, networks and interfaces can be called.

/// An interface name has 15 bytes at most: IFNAMSIZ counts the closing NUL.
const INTERFACE_NAME_MAX_BYTES: usize = 15;

/// The pattern of container ids and network names (section "Parameters"): `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// Why `text` cannot be a container id, to follow a name: "is ...".
pub(crate) fn container_problem(text: &str) -> Option<String> {
    let problem = || format!("is {text:?}, but must start with a letter or digit and hold only letters, digits, _ . -");
    (!is_identifier(text)).then(problem)
}

/// Why the kernel would refuse `text` as an interface name, to follow a name: "is ...", "has ...".
pub(crate) fn interface_name_problem(text: &str) -> Option<String> {
    let problem = if text.is_empty() {
        // The kernel would take that for "any name will do".
        "is empty".to_owned()
    } else if text.len() > INTERFACE_NAME_MAX_BYTES {
        format!("has {} bytes, but an interface name has {INTERFACE_NAME_MAX_BYTES} at most", text.len())
    } else if matches!(text, "." | ".." | "all" | "default") {
        format!("is {text:?}, which the kernel refuses as an interface name")
    } else if text.bytes().any(is_refused_in_names) {
        format!("is {text:?}, but an interface name holds no slash, colon, percent sign or white space")
    } else {
        return None;
    };
    Some(problem)
}

/// To the kernel `%` is a format to be filled in, and 0xA0 white space, also inside a character of UTF-8.
fn is_refused_in_names(byte: u8) -> bool {
    matches!(byte, b'/' | b':' | b'%' | 0xa0) || byte.is_ascii_whitespace() || byte.is_ascii_control()
}

/// What the host's own end of a VLAN is called, as in the reference.
pub(crate) fn vlan_link(bridge: &str, vlan: u16) -> String {
    format!("{bridge}.{vlan}")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::letter("a", true)]
    #[case::digit("0abc", true)]
    #[case::all_kinds("a_b.c-D9", true)]
    #[case::empty("", false)]
    #[case::leading_dash("-a", false)]
    #[case::leading_dot(".a", false)]
    #[case::slash("a/b", false)]
    #[case::space("a b", false)]
    #[case::not_ascii("\u{e9}", false)]
    fn identifiers(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(is_identifier(text), valid);
    }

    #[rstest]
    #[case::usual("eth0", true)]
    #[case::longest("a23456789012345", true)]
    #[case::empty("", false)]
    #[case::too_long("a234567890123456", false)]
    #[case::dot(".", false)]
    #[case::dots("..", false)]
    #[case::slash("a/b", false)]
    #[case::colon("eth0:1", false)]
    #[case::space("eth 0", false)]
    #[case::tab("eth\t0", false)]
    #[case::format("eth%d", false)]
    #[case::all("all", false)]
    #[case::default("default", false)]
    #[case::kernel_white_space("\u{e0}", false)]
    #[case::not_ascii("\u{e9}0", true)]
    fn interface_names(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(interface_name_problem(text).is_none(), valid);
    }
}
