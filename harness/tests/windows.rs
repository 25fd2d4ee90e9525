//! The Windows script and its tests, read with a grammar of PowerShell: what a machine without PowerShell can hold them to.
//!
//! Invariant: nothing is run here. That the script does what it says is for `ci/windows/check.ps1`, on Windows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use rstest::rstest;
use tree_sitter::{Node, Parser, Tree};

const SCRIPT: &str = "plugin/dist/windows/flatnet-route.ps1";
/// Behind this line the script touches the machine.
const MACHINE: &str = "# --- The machine";

/// Every command that Windows PowerShell 5.1 brings and the script uses, with the parameters that it uses.
const COMMANDS: &[(&str, &[&str])] = &[
    ("Add-Content", &["LiteralPath", "Value"]),
    ("Copy-Item", &["Destination", "Force", "LiteralPath"]),
    ("ForEach-Object", &[]),
    ("Get-Content", &["LiteralPath"]),
    ("Get-Date", &["Format"]),
    ("Get-Event", &["ErrorAction", "SourceIdentifier"]),
    ("Get-EventSubscriber", &["ErrorAction", "SourceIdentifier"]),
    ("Get-NetIPAddress", &["AddressFamily"]),
    ("Get-NetRoute", &["AddressFamily", "DestinationPrefix", "ErrorAction", "PolicyStore"]),
    ("Get-ScheduledTask", &["ErrorAction", "TaskName"]),
    ("Join-Path", &[]),
    ("New-Item", &["Force", "ItemType", "Path"]),
    ("Out-Null", &[]),
    ("Register-ObjectEvent", &["EventName", "InputObject", "SourceIdentifier"]),
    ("Register-ScheduledTask", &["Force", "TaskName", "Xml"]),
    ("Remove-Event", &[]),
    ("Remove-Item", &["Force", "LiteralPath", "Recurse"]),
    ("Select-Object", &["First", "Property"]),
    ("Set-StrictMode", &["Version"]),
    ("Sort-Object", &["Descending", "Property"]),
    ("Start-ScheduledTask", &["TaskName"]),
    ("Stop-ScheduledTask", &["ErrorAction", "TaskName"]),
    ("Test-Path", &["LiteralPath"]),
    ("Unregister-ScheduledTask", &["Confirm", "TaskName"]),
    ("Wait-Event", &["SourceIdentifier", "Timeout"]),
    ("Where-Object", &[]),
    ("Write-Output", &[]),
];

/// Those of them that look at nothing but what they are given.
const PURE: &[&str] = &["ForEach-Object", "Select-Object", "Sort-Object", "Where-Object"];

/// Variables that are there by themselves.
const AUTOMATIC: &[&str] = &[
    "_",
    "erroractionpreference",
    "false",
    "lastexitcode",
    "matches",
    "myinvocation",
    "null",
    "psboundparameters",
    "pscmdlet",
    "pscommandpath",
    "true",
    "whatifpreference",
];

/// What came with PowerShell 7, as far as the grammar knows it: Windows has 5.1.
const TOO_NEW: &[&str] = &["&&", "||"];

struct Source {
    text: String,
    tree: Tree,
}

impl Source {
    fn read(file: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        Self::parse(fs::read_to_string(path).unwrap())
    }

    fn parse(text: String) -> Self {
        let mut parser = Parser::new();
        parser.set_language(&tree_sitter_powershell::LANGUAGE.into()).unwrap();
        let tree = parser.parse(&text, None).unwrap();
        Self { text, tree }
    }

    fn all(&self) -> Vec<Node<'_>> {
        within(self.tree.root_node())
    }

    fn text(&self, node: Node<'_>) -> &str {
        &self.text[node.byte_range()]
    }

    fn functions(&self) -> BTreeMap<&str, Node<'_>> {
        let functions = self.all().into_iter().filter(|node| node.kind() == "function_statement");
        functions.map(|node| (self.text(child(node, "function_name").unwrap()), node)).collect()
    }

    /// The parameters of a function, or of the script.
    fn parameters(&self, of: Node<'_>) -> BTreeSet<&str> {
        let body = child(of, "script_block");
        let list = child(of, "function_parameter_declaration").or_else(|| child(body.unwrap_or(of), "param_block"));
        let list = list.and_then(|list| child(list, "parameter_list"));
        let declared = list.into_iter().flat_map(|list| children(list, "script_parameter"));
        declared.map(|one| self.text(child(one, "variable").unwrap()).trim_start_matches('$')).collect()
    }

    fn line(node: Node<'_>) -> usize {
        node.start_position().row + 1
    }
}

fn children<'a>(node: Node<'a>, kind: &str) -> Vec<Node<'a>> {
    let mut cursor = node.walk();
    node.children(&mut cursor).filter(|child| child.kind() == kind).collect()
}

fn child<'a>(node: Node<'a>, kind: &str) -> Option<Node<'a>> {
    children(node, kind).into_iter().next()
}

/// The node and all below it, in the order of the text.
fn within(node: Node<'_>) -> Vec<Node<'_>> {
    let mut found = vec![node];
    let mut cursor = node.walk();
    for child in node.children(&mut cursor) {
        found.extend(within(child));
    }
    found
}

/// What is wrong with how a script is written.
fn mistakes_of_form(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for node in source.all() {
        let line = Source::line(node);
        if node.is_error() || node.is_missing() {
            found.push(format!("{line}: is no PowerShell: {:?}", source.text(node)));
        } else if !node.is_named() && TOO_NEW.contains(&node.kind()) {
            found.push(format!("{line}: {} is not known to Windows PowerShell 5.1", node.kind()));
        }
    }
    for (number, line) in source.text.lines().enumerate() {
        if !line.is_ascii() {
            // Without a byte order mark it is read in the machine's old code page.
            found.push(format!("{}: holds more than ASCII", number + 1));
        }
    }
    for (name, node) in source.functions() {
        if node.end_position().row - node.start_position().row >= 70 {
            found.push(format!("{}: {name} is too long", Source::line(node)));
        }
    }
    found
}

/// Commands and parameters that do not exist, and touches of the machine in the pure part.
fn mistakes_of_calls(source: &Source) -> Vec<String> {
    let functions = source.functions();
    let machine = source.text.find(MACHINE).unwrap_or(0);
    let pure_function = |name: &str| functions.get(name).is_some_and(|node| node.start_byte() < machine);
    let mut found = Vec::new();
    for node in source.all().into_iter().filter(|node| node.kind() == "command") {
        let line = Source::line(node);
        // A call over `&` names a program of Windows.
        let Some(name) = child(node, "command_name").map(|name| source.text(name)) else { continue };
        let own = functions.get(name).map(|function| source.parameters(*function));
        let known = COMMANDS.iter().find(|(known, _)| *known == name).map(|(_, parameters)| *parameters);
        let Some(parameters) = own.or_else(|| known.map(|parameters| parameters.iter().copied().collect())) else {
            found.push(format!("{line}: there is no command {name}"));
            continue;
        };
        if node.start_byte() < machine && within_function(node) && !PURE.contains(&name) && !pure_function(name) {
            found.push(format!("{line}: a decision must not call {name}"));
        }
        let elements = child(node, "command_elements");
        for parameter in elements.into_iter().flat_map(|elements| children(elements, "command_parameter")) {
            let word = source.text(parameter).trim_start_matches('-').trim_end_matches(':');
            let common = word == "WhatIf" || word == "Verbose";
            if !common && !parameters.contains(word) && !word.chars().all(|letter| letter.is_ascii_lowercase()) {
                found.push(format!("{line}: {name} has no -{word}"));
            }
        }
    }
    found
}

fn within_function(node: Node<'_>) -> bool {
    std::iter::successors(Some(node), Node::parent).any(|node| node.kind() == "function_statement")
}

/// Variables that are read and set nowhere: in Windows PowerShell they would be empty, or end the script.
fn mistakes_of_variables(source: &Source) -> Vec<String> {
    let root = source.tree.root_node();
    let functions: Vec<Node<'_>> = source.functions().into_values().collect();
    let outside =
        |node: &Node<'_>| !functions.iter().any(|function| function.byte_range().contains(&node.start_byte()));
    let mut global = source.parameters(root).into_iter().map(str::to_lowercase).collect::<BTreeSet<_>>();
    global.extend(set_in(source, source.all().into_iter().filter(outside)));
    global.extend(AUTOMATIC.iter().map(|&name| name.to_owned()));
    let mut found = Vec::new();
    let mut judge = |nodes: Vec<Node<'_>>, local: &BTreeSet<String>| {
        for node in nodes.into_iter().filter(|node| node.kind() == "variable") {
            let name = name_of(source.text(node));
            if !name.starts_with("env:") && !global.contains(&name) && !local.contains(&name) {
                found.push(format!("{}: ${name} is set nowhere", Source::line(node)));
            }
        }
    };
    for function in &functions {
        let mut local = set_in(source, within(*function).into_iter());
        local.extend(source.parameters(*function).into_iter().map(str::to_lowercase));
        judge(within(*function), &local);
    }
    judge(source.all().into_iter().filter(outside).collect(), &BTreeSet::new());
    found
}

fn set_in<'a>(source: &Source, nodes: impl Iterator<Item = Node<'a>>) -> BTreeSet<String> {
    let targets = nodes.filter_map(|node| match node.kind() {
        "left_assignment_expression" => Some(within(node)),
        // The loop's own variable is its first.
        "foreach_statement" => Some(children(node, "variable").into_iter().take(1).collect()),
        _ => None,
    });
    let variables = targets.flatten().filter(|node| node.kind() == "variable");
    variables.map(|node| name_of(source.text(node))).collect()
}

fn name_of(variable: &str) -> String {
    variable.trim_start_matches(['$', '@']).trim_matches(['{', '}']).to_lowercase()
}

#[rstest]
#[case(SCRIPT)]
#[case("ci/windows/check.ps1")]
#[case("ci/windows/flatnet-route.Tests.ps1")]
#[case("ci/windows/lint.psd1")]
fn it_is_plain_powershell(#[case] file: &str) {
    assert_eq!(mistakes_of_form(&Source::read(file)), [""; 0]);
}

#[test]
fn what_the_script_calls_exists_and_decisions_touch_nothing() {
    assert_eq!(mistakes_of_calls(&Source::read(SCRIPT)), [""; 0]);
}

#[test]
fn what_the_script_reads_is_set() {
    assert_eq!(mistakes_of_variables(&Source::read(SCRIPT)), [""; 0]);
}

#[test]
fn the_help_names_every_parameter_and_no_other() {
    let source = Source::read(SCRIPT);
    let words = source.text.lines().filter_map(|line| line.strip_prefix(".PARAMETER "));
    let help: BTreeSet<&str> = words.collect();
    assert_eq!(help, source.parameters(source.tree.root_node()));
}

#[rstest]
#[case::no_powershell("function F { if ($a {} }", "is no PowerShell")]
#[case::too_new("Get-Date && Get-Date", "1: && is not known to Windows PowerShell 5.1")]
#[case::too_new_for_the_grammar("$a = 1 ?? 2", "is no PowerShell")]
#[case::not_ascii("# \u{e9}", "1: holds more than ASCII")]
fn a_mistake_of_form_is_found(#[case] text: &str, #[case] expected: &str) {
    let found = mistakes_of_form(&Source::parse(text.to_owned())).join("\n");
    assert!(found.contains(expected), "{found}");
}

#[rstest]
#[case::no_command("Get-Nothing", "1: there is no command Get-Nothing")]
#[case::no_parameter("Get-NetRoute -Gateway 1", "1: Get-NetRoute has no -Gateway")]
#[case::no_parameter_of_ours("function F([int] $A) { $A }\nF -B 1", "2: F has no -B")]
#[case::a_touch("function F { Get-Date }\n# --- The machine", "1: a decision must not call Get-Date")]
#[case::a_touch_through("function F { G }\n# --- The machine\nfunction G { 1 }", "1: a decision must not call G")]
fn a_mistaken_call_is_found(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(mistakes_of_calls(&Source::parse(text.to_owned())), [expected]);
}

#[rstest]
#[case::in_a_function("function F($a) { $b = $a; $c }", "1: $c is set nowhere")]
#[case::in_a_string("function F($a) { \"$a $($d)\" }", "1: $d is set nowhere")]
#[case::of_another_function("function F { $a = 1 }\nfunction G { $a }", "2: $a is set nowhere")]
fn an_unset_variable_is_found(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(mistakes_of_variables(&Source::parse(text.to_owned())), [expected]);
}
