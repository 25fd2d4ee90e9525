//! The page: every message that flatnet can print, under its code, each with what to do.

use std::collections::{BTreeMap, BTreeSet};

use crate::crate_source::{Found, Fragments, Site};
use crate::definition::{Definition, Variant};

/// Which variant's messages the words of a function, with its file, end up in as the `<problem>` or `<what>`.
const FRAGMENTS: &[(&str, &[&str])] = &[
    ("cni/check.rs check_container", &["Changed"]),
    ("cni/check.rs check_host_link", &["Changed"]),
    ("cni/check.rs check_network", &["Changed"]),
    ("cni/check.rs problem", &["Changed"]),
    ("config.rs fitting_mtu", &["Config"]),
    ("config.rs plugin_name_problem", &["Config"]),
    ("config/gateways.rs one", &["Config"]),
    ("config/gateways.rs parse", &["Config"]),
    ("config/ipam.rs leave_some", &["Config"]),
    ("config/options.rs fitting_vlan", &["Config"]),
    ("config/options.rs vlan_link", &["Config"]),
    ("config/resolv_conf.rs text", &["Config"]),
    ("config/resolv_conf.rs text_in_time", &["Config"]),
    ("config/routes.rs next_hop_problem", &["Config", "Delegate"]),
    ("config/routes.rs own_address_problem", &["Config", "Delegate"]),
    ("config/routes.rs own_subnet_problem", &["Config", "Delegate"]),
    ("config/routes.rs scope_problem", &["Config", "Delegate"]),
    ("config/routes.rs twin_problem", &["Config", "Delegate"]),
    ("firewall/forward.rs problem", &["Changed", "NotReady"]),
    ("firewall/masquerade.rs problem", &["Changed"]),
    ("firewall/spoofing.rs problem", &["Changed", "NotReady"]),
    ("firewall/spoofing/table.rs problem", &["Changed", "NotReady"]),
    ("ipam/pool.rs refusal", &["Environment", "Config", "Delegate"]),
    ("ipam/pool/range.rs clash", &["Config"]),
    ("ipam/pool/range.rs emptiness", &["Config"]),
    ("ipam/pool/range.rs foreign_problem", &["Config", "Delegate"]),
    ("ipam/pool/range.rs reservation", &["Environment", "Config", "Delegate"]),
    ("ipam/pool/range.rs reserved_problem", &["Config"]),
    ("ipam/pool/range.rs subnet_problem", &["Config"]),
    ("ipam/pool/span.rs host_bits_problem", &["Config"]),
    ("ipam/pool/span.rs parse", &["Config"]),
    ("link/bridge.rs problem", &["Changed", "NotReady"]),
    ("link/port.rs problem", &["Changed"]),
    ("link/vlan.rs problem", &["Changed", "NotReady"]),
    ("netavark/options.rs metric", &["Config"]),
    ("netavark/options.rs mtu", &["Config"]),
    ("netavark/subnets.rs fitting_metric", &["Config"]),
    ("reply/success.rs read", &["Config"]),
    ("reply/success.rs refuse_dangling", &["Config"]),
    ("names.rs container_problem", &["Environment"]),
    ("names.rs interface_name_problem", &["Environment", "Config"]),
    ("cni/request.rs parse", &["Environment"]),
    ("cni/request.rs parse_boolean", &["Environment"]),
    ("cni/request.rs parse_ips", &["Environment"]),
    ("cni/request.rs text", &["Environment"]),
];
/// Functions that return a text which is no message.
const NO_MESSAGE: &[&str] = &[
    "config/section.rs string",
    "firewall/localnet.rs unguarded",
    "firewall/ports.rs problem",
    "firewall/ports/loopback.rs problem",
    "firewall/ports/table.rs problem",
    "link/bridge.rs mark_of",
    "netlink/attribute.rs text",
    "nft/object.rs comment_of_element",
    "netlink/link/read.rs alternative_name",
    "netavark/planned.rs text",
    "nft/object.rs chain_of",
    "nft/object.rs comment",
    "reach.rs problem",
];

const HEAD: &str = "\
# Every error of flatnet

Made from the source by `FLATNET_WRITE=1 cargo test -p flatnet --test errors`; the same test fails while this page is behind.
`flatnet explain 105` prints one code's part of it.

A CNI runtime gets one JSON object: `code`; `msg`, which is \"failed to\" and a message below; and `details`, which is what to do. Podman shows both
texts. A netavark driver's error is the two as one text. What stands in `<brackets>` is filled in at run time. An error that came
while another was being undone follows it in `details`.
";

const COMMANDS: &str = "
## Commands

The commands for people say \"flatnet: failed to\" and one of these on standard error, and exit with code 1; wrong arguments are code 2.
An error with a code above comes with its remedy.
";

/// The one variant whose remedy hangs on what the kernel said.
const KERNEL: &str = "Kernel";

/// Everything as Markdown. Panics where something is not told completely.
pub(crate) fn render(definition: &Definition, found: &Found, commands: &BTreeMap<String, BTreeSet<String>>) -> String {
    refuse_unknown_fragments(&found.fragments);
    let mut page = HEAD.to_owned();
    let codes: BTreeSet<_> =
        definition.variants.iter().flat_map(|variant| &variant.codes).map(|(code, _)| *code).collect();
    for code in codes {
        push(&mut page, &["", &format!("## {code}")]);
        for variant in &definition.variants {
            for (_, values) in variant.codes.iter().filter(|(of, _)| *of == code) {
                section(&mut page, variant, values, definition, found);
            }
        }
    }
    page.push_str(COMMANDS);
    for (command, messages) in commands {
        push(&mut page, &["", &format!("### {command}"), ""]);
        bullets(&mut page, messages);
    }
    page
}

fn section(page: &mut String, variant: &Variant, values: &[(String, String)], definition: &Definition, found: &Found) {
    let Variant { name, cause, sentence, remedies, .. } = variant;
    assert!(!cause.is_empty() && !sentence.is_empty() && !remedies.is_empty(), "error.rs says too little of {name}");
    push(page, &["", &format!("**{}.**", capital(cause))]);
    let is_meant = |site: &&Site| {
        site.variant == *name
            && values.iter().all(|(field, value)| site.fields.get(field).is_none_or(|of| has(of, value)))
    };
    let sites: Vec<_> = found.sites.iter().filter(is_meant).collect();
    // One that says nothing by itself has callers that do.
    let says: Vec<_> =
        sites.iter().copied().filter(|site| site.fields.values().flatten().any(|text| is_known(text))).collect();
    let told = if says.is_empty() { sites } else { says };
    let rows: BTreeSet<_> = told.into_iter().flat_map(|site| rows(variant, site)).collect();
    assert!(!rows.is_empty(), "nothing makes the error {name}: remove it");
    messages(page, name, &rows);
    let of_this = |found: &&Fragments| uses(&found.function).is_some_and(|of| of.contains(&name.as_str()));
    let fragments: BTreeSet<_> = found.fragments.iter().filter(of_this).flat_map(|found| found.texts.clone()).collect();
    if !fragments.is_empty() {
        push(page, &["", "What a thing *is* or *has* there, or what CHECK found, is one of these:", ""]);
        bullets(page, &fragments);
    }
    if name == KERNEL {
        push(page, &["", "| where the kernel says | what to do |", "|---|---|"]);
        for (errno, remedy) in &definition.kernel {
            push(page, &[&format!("| {errno} | {} |", cell(remedy))]);
        }
    }
}

/// A table; a list where the advice is the same for all.
fn messages(page: &mut String, name: &str, rows: &BTreeSet<(String, String)>) {
    let remedies: BTreeSet<_> = rows.iter().map(|(_, remedy)| remedy).collect();
    push(page, &[""]);
    if name != KERNEL && remedies.len() > 1 {
        push(page, &["| failed to ... | what to do |", "|---|---|"]);
        for (message, remedy) in rows {
            push(page, &[&format!("| {} | {} |", cell(message), cell(remedy))]);
        }
        return;
    }
    let messages = rows.iter().map(|(message, _)| message.clone()).collect();
    bullets(page, &messages);
    if let (true, Some(remedy)) = (name != KERNEL, remedies.first()) {
        push(page, &["", &format!("What to do: {}.", cell(remedy))]);
    }
}

/// The message and the remedy of one site, for every text that its fields can have.
fn rows(variant: &Variant, site: &Site) -> Vec<(String, String)> {
    let mut rows = vec![(variant.sentence.clone(), variant.remedies.join("; or: "))];
    for (field, texts) in &site.fields {
        let placeholder = format!("<{field}>");
        let texts: Vec<_> = texts.iter().filter(|text| !text.is_empty()).collect();
        let fill = |(message, remedy): &(String, String)| {
            let fill = |text: &&String| (message.replace(&placeholder, text), remedy.replace(&placeholder, text));
            texts.iter().map(fill).collect::<Vec<_>>()
        };
        if !texts.is_empty() {
            rows = rows.iter().flat_map(fill).collect();
        }
    }
    rows
}

/// False for `<name>`, which only running tells.
fn is_known(text: &str) -> bool {
    !(text.starts_with('<') && text.ends_with('>')) || text.contains(' ')
}

/// Whether a field can have that value: it can, where only running tells.
fn has(texts: &[String], value: &str) -> bool {
    texts.iter().any(|text| text == value || text.starts_with('<'))
}

fn uses(function: &str) -> Option<&'static [&'static str]> {
    FRAGMENTS.iter().find(|(name, _)| *name == function).map(|(_, of)| *of)
}

fn refuse_unknown_fragments(fragments: &[Fragments]) {
    let is_known = |function: &str| uses(function).is_some() || NO_MESSAGE.contains(&function);
    let unknown: Vec<_> = fragments.iter().filter(|found| !is_known(&found.function)).collect();
    assert!(
        unknown.is_empty(),
        "functions return words about a problem: name them in FRAGMENTS of tests/errors/page.rs: {unknown:#?}"
    );
}

fn bullets(page: &mut String, texts: &BTreeSet<String>) {
    for text in texts {
        push(page, &[&format!("- {}", cell(text))]);
    }
}

fn push(page: &mut String, lines: &[&str]) {
    for line in lines {
        page.push_str(line);
        page.push('\n');
    }
}

fn capital(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| first.to_uppercase().chain(rest).collect())
}

/// A text as a cell of a table: no line breaks or bars, and nothing that Markdown would take for HTML.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|").replace('<', "&lt;").replace('>', "&gt;")
}
