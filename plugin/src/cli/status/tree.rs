//! The tree as a person reads it: host, bridges, containers, and how many of them are how.

use std::env;

use super::{Bridge, Container, Reach, Status};
use crate::cli::table::Table;
use crate::cli::terminal::{BAD, GOOD, HEADING, QUIET, WARNING, paint, wrap_to};

/// What branches are drawn with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pen {
    branch: &'static str,
    last: &'static str,
    trunk: &'static str,
}

/// The same for each of the parts above.
const BRANCH_COLUMNS: usize = 3;
const NOTHING: &str = "   ";

impl Pen {
    const LINES: Self = Self { branch: "├─ ", last: "└─ ", trunk: "│  " };
    pub(super) const ASCII: Self = Self { branch: "|- ", last: "`- ", trunk: "|  " };

    /// Lines where the reader's locale has them (locale(7): the first of these that is set decides).
    pub(super) fn of_locale() -> Self {
        let said =
            ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| env::var(name).ok().filter(|it| !it.is_empty()));
        let has_lines = said.is_some_and(|it| it.to_ascii_lowercase().replace('-', "").ends_with("utf8"));
        if has_lines { Self::LINES } else { Self::ASCII }
    }

    /// Puts parts, of several lines each, below what they belong to.
    fn branches(self, parts: Vec<Vec<String>>) -> Vec<String> {
        let count = parts.len();
        let drawn = parts.into_iter().enumerate().flat_map(|(number, lines)| {
            let (first, more) = if number + 1 == count { (self.last, NOTHING) } else { (self.branch, self.trunk) };
            let stem = move |place| if place == 0 { first } else { more };
            lines
                .into_iter()
                .enumerate()
                .map(move |(place, line)| format!("{}{line}", stem(place)).trim_end().to_owned())
        });
        drawn.collect()
    }
}

pub(super) fn text(status: &Status, width: Option<usize>, pen: Pen) -> String {
    let room = inside(width);
    let mut parts: Vec<_> = status.bridges.iter().map(|bridge| of_bridge(bridge, room, pen)).collect();
    if !status.others.is_empty() {
        let containers = pen.branches(rows(&status.others, true, inside(room)));
        parts.push(std::iter::once(paint(WARNING, "no bridge is known")).chain(containers).collect());
    }
    let mut lines = vec![paint(HEADING, &status.host)];
    lines.extend(pen.branches(parts));
    lines.push(String::new());
    lines.push(wrap_to(&summary(status), 0, width));
    lines.join("\n") + "\n"
}

/// What is left behind a branch.
fn inside(width: Option<usize>) -> Option<usize> {
    width.map(|width| width.saturating_sub(BRANCH_COLUMNS))
}

fn of_bridge(bridge: &Bridge, room: Option<usize>, pen: Pen) -> Vec<String> {
    let networks = bridge.networks.iter().map(|network| {
        let subnets: Vec<_> = network.subnets.iter().map(ToString::to_string).collect();
        format!("network {}: {}", network.name, subnets.join(", "))
    });
    let networks: Vec<_> = networks.collect();
    let (style, found) = (if bridge.ok { HEADING } else { BAD }, bridge.found.join("; "));
    let heading = wrap_to(&format!("{} ({})", paint(style, found), networks.join("; ")), 0, room);
    let mut lines: Vec<_> = heading.lines().map(str::to_owned).collect();
    if !bridge.ok {
        for remedy in &bridge.remedies {
            const LABEL: &str = "fix: ";
            lines.extend(format!("{LABEL}{}", wrap_to(remedy, LABEL.len(), room)).lines().map(str::to_owned));
        }
    }
    let is_shared = bridge.networks.len() > 1;
    lines.extend(pen.branches(rows(&bridge.containers, is_shared, inside(room))));
    lines
}

/// The lines of each container.
fn rows(containers: &[Container], with_network: bool, room: Option<usize>) -> Vec<Vec<String>> {
    let mut table = Table::list();
    for Container { line, reach, found, remedy } in containers {
        let style = match reach {
            Reach::Reached => GOOD,
            Reach::Blocked => BAD,
            Reach::NoAnswer => WARNING,
            Reach::NotTried => QUIET,
        };
        let id = || line.container.as_deref().map(|id| id.chars().take(12).collect());
        let who: String = line.name.clone().or_else(id).unwrap_or_else(|| "-".into());
        let network = with_network.then(|| line.network.clone().unwrap_or_else(|| "-".into()));
        let cells = [paint(style, reach.as_str()), line.address.to_string(), who].into_iter().chain(network);
        let row = table.row(cells.chain([found.clone().unwrap_or_default()]));
        for remedy in remedy.iter().flat_map(|remedy| remedy.lines()) {
            row.below("fix: ", remedy);
        }
    }
    table.rows(room)
}

fn summary(status: &Status) -> String {
    if status.bridges.is_empty() && status.others.is_empty() {
        return "no valid network of type flatnet is configured: run `flatnet doctor`".into();
    }
    let counts = Reach::ALL.map(|reach| (status.count(reach), reach.as_str()));
    let counts: Vec<_> = counts.iter().filter(|(count, _)| *count > 0).map(|(n, word)| format!("{n} {word}")).collect();
    let counts = if counts.is_empty() { "no container has an address".to_owned() } else { counts.join(", ") };
    if status.ok { counts } else { format!("{counts}: {}", paint(BAD, "`flatnet doctor` looks at all the rest")) }
}
