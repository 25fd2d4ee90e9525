//! The figures of a bench, and how they are shown: as a table, as JSON, as a page of the manual.
//!
//! Invariant: a ratio is the median of the ratios round by round, as machines are noisy and drift.

use serde::Serialize;

/// All that was measured.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// What was compared, a column each.
    pub contenders: Vec<&'static str>,
    /// The column that ratios are to.
    pub reference: usize,
    /// A table for each number of other containers.
    pub groups: Vec<Group>,
}

/// The figures beside a number of other containers.
#[derive(Debug, Serialize)]
pub struct Group {
    /// How many others each contender had on its bridge.
    pub beside: u32,
    /// One for each thing that was measured.
    pub rows: Vec<Row>,
}

/// One thing that was measured.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What, with its unit.
    pub what: String,
    /// Of each contender; nothing where it has no such thing.
    pub cells: Vec<Option<Cell>>,
}

/// One figure.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cell {
    /// The median.
    pub median: f64,
    /// The median of the ratios to the reference.
    pub ratio: f64,
}

impl Row {
    /// From what each round measured of each contender.
    pub(super) fn new(what: String, rounds: &[Vec<Option<f64>>], reference: usize) -> Self {
        let columns = rounds.first().map_or(0, Vec::len);
        let cell = |column: usize| {
            let values: Option<Vec<f64>> = rounds.iter().map(|round| round[column]).collect();
            let ratios: Option<Vec<f64>> =
                rounds.iter().map(|round| Some(round[column]? / round[reference]?)).collect();
            Some(Cell { median: median(values?.into_iter()), ratio: median(ratios?.into_iter()) })
        };
        Self { what, cells: (0..columns).map(cell).collect() }
    }
}

/// The middle value; of an even number, the upper of the two in the middle.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Figures {
    /// As Markdown: a table for each number of other containers.
    pub fn tables(&self) -> String {
        let tables: Vec<_> = self.groups.iter().map(|group| self.table(group)).collect();
        tables.join("\n")
    }

    fn table(&self, group: &Group) -> String {
        let mut text = format!("| beside {} |", group.beside);
        for contender in &self.contenders {
            text.extend([format!(" {contender} |")]);
        }
        text.extend([format!("\n|---|{}\n", "---|".repeat(self.contenders.len()))]);
        for row in &group.rows {
            text.extend([format!("| {} |", row.what)]);
            for (column, cell) in row.cells.iter().enumerate() {
                text.extend([match cell {
                    None => " - |".to_owned(),
                    Some(Cell { median, .. }) if column == self.reference => format!(" {median:.2} |"),
                    Some(Cell { median, ratio }) => format!(" {median:.2} ({ratio:.2}) |"),
                }]);
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_compares_round_by_round() {
        // The machine was ten times slower in the third round: the ratio does not see it.
        let rounds = [[2.0, 8.0], [3.0, 12.0], [20.0, 80.0]].map(|[a, b]| vec![Some(a), Some(b), None]);
        let group = Group { beside: 7, rows: vec![Row::new("ADD, ms".into(), &rounds, 1)] };
        let figures =
            Figures { contenders: vec!["flatnet", "reference", "another"], reference: 1, groups: vec![group] };
        insta::assert_snapshot!(figures.tables(), @r"
        | beside 7 | flatnet | reference | another |
        |---|---|---|---|
        | ADD, ms | 3.00 (0.25) | 12.00 | - |
        ");
    }
}
