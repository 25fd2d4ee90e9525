//! The floors of the house: a room uses rooms of lower floors only. So no two rooms use each other, and a room can be read without those above it.

use std::fs;
use std::path::{Path, PathBuf};

/// Every module of the library's root, from the ground to the top.
const FLOORS: &[&[&str]] = &[
    // Plain types, rules and numbers.
    &["deadline", "family", "hash", "layout", "logging", "names", "spec"],
    &["mac"],
    &["attachment", "error"],
    // The machine: namespaces, processes, settings, and the frame that a call runs in.
    &["call", "child", "netns", "rootless", "sysctl"],
    &["netlink"],
    &["nft", "processes", "reply"],
    // What is known of networks without making anything.
    &["filter", "ipam"],
    &["config"],
    // What networks are made of.
    &["delegate", "firewall"],
    &["link", "reach"],
    // Those who ask: CNI runtimes, netavark, people.
    &["cni"],
    &["netavark"],
    &["cli"],
    // For tests and fuzzing only.
    &["properties"],
];

#[test]
fn rooms_use_lower_floors_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rooms = modules(&production(&text_of(&root.join("lib"))));
    let mut wrong = Vec::new();
    for room in &rooms {
        let Some(floor) = floor_of(room) else {
            wrong.push(format!("src/lib.rs: {room} is on no floor"));
            continue;
        };
        let mut uses = Vec::new();
        gather(&root.join(room), 1, &mut uses);
        let up = uses.into_iter().filter(|found| found.room != *room && floor_of(&found.room) >= Some(floor));
        wrong.extend(up.map(|found| {
            let file = found.file.strip_prefix(&root).expect("a file of the library").display();
            format!("src/{file}.rs:{}: {room} uses {}, which is not on a lower floor", found.line, found.room)
        }));
    }
    let gone = FLOORS.concat().into_iter().filter(|room| !rooms.iter().any(|it| it == room));
    wrong.extend(gone.map(|room| format!("{room} has a floor and is no module of src/lib.rs")));
    assert!(wrong.is_empty(), "the floors are in tests/floors.rs\n{}", wrong.join("\n"));
}

/// Where one room uses another.
struct Use {
    /// The file that does, without `.rs`.
    file: PathBuf,
    line: usize,
    room: String,
}

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn text_of(module: &Path) -> String {
    let file = module.with_extension("rs");
    fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// What a module uses, with the modules in it. `depth` is how far it is from the root.
fn gather(module: &Path, depth: usize, uses: &mut Vec<Use>) {
    let code = production(&text_of(module));
    let here = rooms_used(&code, depth);
    uses.extend(here.into_iter().map(|(line, room)| Use { file: module.to_owned(), line, room }));
    for inner in modules(&code) {
        gather(&module.join(inner), depth + 1, uses);
    }
}

/// The source without comments and what is `#[cfg(test)]`, line for line. It relies on the layout that rustfmt gives.
fn production(source: &str) -> String {
    let mut code = String::new();
    let mut is_test = false;
    let mut end = None;
    for line in source.lines() {
        let kept = line.split("//").next().unwrap_or_default();
        let indent = &line[..line.len() - line.trim_start().len()];
        match &end {
            Some(closing) if line.starts_with(closing) => end = None,
            Some(_) => {}
            None if kept.trim() == "#[cfg(test)]" => is_test = true,
            None if is_test => {
                // Of a file of its own the line is all that there is.
                is_test = kept.trim_start().starts_with("#[");
                end = kept.trim_end().ends_with('{').then(|| format!("{indent}}}"));
            }
            None => code.push_str(kept),
        }
        code.push('\n');
    }
    code
}

/// The modules that are declared, each a file of its own.
fn modules(code: &str) -> Vec<String> {
    let declared = code.lines().filter_map(|line| line.trim().strip_suffix(';')?.rsplit_once("mod "));
    declared.filter(|(before, _)| before.is_empty() || before.starts_with("pub")).map(|(_, name)| name.into()).collect()
}

/// The rooms that the code names from the root on, by `crate::` or by as many `super::` as lead there, with the lines.
fn rooms_used(code: &str, depth: usize) -> Vec<(usize, String)> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut used = Vec::new();
    for prefix in ["crate::".to_owned(), "super::".repeat(depth)] {
        for (at, _) in code.match_indices(&prefix).filter(|(at, _)| !code[..*at].ends_with(|c| is_name(c) || c == ':'))
        {
            for start in heads(code, at + prefix.len()) {
                let name = code[start..].split(|c| !is_name(c)).next().unwrap_or_default();
                used.push((1 + code[..start].matches('\n').count(), name.to_owned()));
            }
        }
    }
    used
}

/// Where the first names of a path begin: it goes on with one, or with several in braces.
fn heads(code: &str, at: usize) -> Vec<usize> {
    if !code[at..].starts_with('{') {
        return vec![at];
    }
    let (mut starts, mut level, mut is_next) = (Vec::new(), 0, true);
    for (offset, c) in code[at..].char_indices() {
        match c {
            '{' => level += 1,
            '}' if level == 1 => break,
            '}' => level -= 1,
            ',' if level == 1 => is_next = true,
            _ if is_next && !c.is_whitespace() => {
                starts.push(at + offset);
                is_next = false;
            }
            _ => {}
        }
    }
    starts
}

#[test]
fn every_way_to_name_a_room_is_seen() {
    let source = "use crate::error::{Error, Result};\n\
        use crate::{\n    cli::{Arguments, run},\n    mac::Mac,\n};\n\
        // crate::netns\n\
        fn f() -> crate::config::Network { super::super::firewall::sweep(super::own(), $crate::spec::NEWEST) }\n\
        #[cfg(test)]\nmod tests {\n    use crate::netavark;\n}\nuse crate::link;\n#[cfg(test)]\nmod reach;\nmod inner;\n";
    let code = production(source);
    let mut used = rooms_used(&code, 2);
    used.sort();
    let expected = [(1, "error"), (3, "cli"), (4, "mac"), (7, "config"), (7, "firewall"), (7, "spec"), (12, "link")];
    assert_eq!(used, expected.map(|(line, room)| (line, room.to_owned())));
    assert_eq!(modules(&code), ["inner"]);
}
