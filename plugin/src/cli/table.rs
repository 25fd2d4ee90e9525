//! Rows in columns that line up: the one way in which commands print a table or a list.
//!
//! Invariant: without a width to keep to, each row is one line with all of its cells: so programs can read it.

use super::terminal::{HEADING, columns, paint, wrap_to};

const GAP: usize = 2;

/// The last column may be text, which is wrapped where a width is kept to. Cells may have styles.
#[derive(Debug, Default)]
pub(super) struct Table {
    headings: Vec<&'static str>,
    /// Those that go first where there is no room for all.
    expendable: &'static [&'static str],
    rows: Vec<Row>,
}

#[derive(Debug)]
pub(super) struct Row {
    cells: Vec<String>,
    /// Each a label and a text, which stand below the row, from the second column on.
    below: Vec<(String, String)>,
}

impl Table {
    /// Without headings.
    pub(super) fn list() -> Self {
        Self::default()
    }

    pub(super) fn with_headings(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), ..Self::default() }
    }

    /// The columns that are left out, one after the other, where all do not fit.
    pub(super) fn expendable(self, expendable: &'static [&'static str]) -> Self {
        Self { expendable, ..self }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) -> &mut Row {
        let cells = cells.into_iter().map(Into::into).collect();
        self.rows.push(Row { cells, below: Vec::new() });
        let last = self.rows.len() - 1;
        &mut self.rows[last]
    }

    /// All of it, with a line's end after each line.
    pub(super) fn text(&self, width: Option<usize>) -> String {
        let (heading, rows) = self.lines(width);
        heading.into_iter().chain(rows.into_iter().flatten()).map(|line| line + "\n").collect()
    }

    /// The lines of each row.
    pub(super) fn rows(&self, width: Option<usize>) -> Vec<Vec<String>> {
        self.lines(width).1
    }

    /// The headings that have no room.
    pub(super) fn left_out(&self, width: Option<usize>) -> Vec<&'static str> {
        let shown = self.shown(width);
        let is_out = |(column, _): &(usize, &&str)| !shown.contains(column);
        self.headings.iter().enumerate().filter(is_out).map(|(_, heading)| *heading).collect()
    }

    fn lines(&self, width: Option<usize>) -> (Option<String>, Vec<Vec<String>>) {
        let shown = self.shown(width);
        let widths: Vec<_> = shown.iter().map(|column| self.width_of(*column)).collect();
        let cell_of = |cells: &[String], column: usize| cells.get(column).cloned().unwrap_or_default();
        let line = |cells: Vec<String>| {
            let (mut line, mut at) = (String::new(), 0);
            for (position, cell) in cells.iter().enumerate() {
                let is_last = position + 1 == cells.len();
                let cell = if is_last { wrap_to(cell, at, width) } else { cell.clone() };
                let fill = if is_last { 0 } else { widths[position].saturating_sub(columns(&cell)) + GAP };
                line.push_str(&cell);
                line.extend(std::iter::repeat_n(' ', fill));
                at += widths[position] + GAP;
            }
            line.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>()
        };
        let heading = (!self.headings.is_empty()).then(|| {
            let cells = shown.iter().map(|column| self.headings[*column].to_owned()).collect();
            paint(HEADING, line(cells).concat())
        });
        let indent = widths.first().map_or(0, |first| first + GAP);
        let rows = self.rows.iter().map(|row| {
            let mut lines = line(shown.iter().map(|column| cell_of(&row.cells, *column)).collect());
            for (label, text) in &row.below {
                let text = wrap_to(text, indent + columns(label), width);
                lines.extend(format!("{:indent$}{label}{text}", "").lines().map(|line| line.trim_end().to_owned()));
            }
            lines
        });
        (heading, rows.collect())
    }

    fn width_of(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.cells.get(column)).map(|cell| columns(cell));
        cells.chain(self.headings.get(column).map(|heading| heading.len())).max().unwrap_or_default()
    }

    /// The columns for which there is room.
    fn shown(&self, width: Option<usize>) -> Vec<usize> {
        let count = self.rows.iter().map(|row| row.cells.len()).chain([self.headings.len()]).max().unwrap_or_default();
        let mut shown: Vec<_> = (0..count).collect();
        let Some(width) = width else { return shown };
        for heading in self.expendable {
            let taken: usize = shown.iter().map(|column| self.width_of(*column) + GAP).sum();
            if taken.saturating_sub(GAP) <= width {
                break;
            }
            shown.retain(|column| self.headings.get(*column) != Some(heading));
        }
        shown
    }
}

impl Row {
    pub(super) fn below(&mut self, label: impl Into<String>, text: impl Into<String>) -> &mut Self {
        self.below.push((label.into(), text.into()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::terminal::BAD;
    use super::*;

    fn table() -> Table {
        let mut table = Table::with_headings(&["ADDRESS", "MAC", "STATE"]).expendable(&["MAC"]);
        table.row(["10.87.1.2", "0a:57:0a:57:01:02", "forwarding"]);
        table.row(["10.87.1.13", "", "down"]);
        table
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn columns_line_up_and_those_without_room_go() {
        insta::assert_snapshot!(plain(&table().text(None)), @r"
        ADDRESS     MAC                STATE
        10.87.1.2   0a:57:0a:57:01:02  forwarding
        10.87.1.13                     down
        ");
        assert_eq!(table().text(Some(41)), table().text(None));
        insta::assert_snapshot!(plain(&table().text(Some(40))), @r"
        ADDRESS     STATE
        10.87.1.2   forwarding
        10.87.1.13  down
        ");
        assert_eq!(table().left_out(Some(40)), ["MAC"]);
        assert!(table().left_out(None).is_empty());
    }

    #[test]
    fn a_style_does_not_move_the_next_column() {
        let mut table = Table::list();
        table.row([paint(BAD, "bad"), "one".to_owned()]);
        table.row(["skipped".to_owned(), "two".to_owned()]);
        insta::assert_snapshot!(plain(&table.text(None)), @r"
        bad      one
        skipped  two
        ");
    }

    #[test]
    fn text_is_wrapped_in_its_column_and_below() {
        let mut table = Table::list();
        table
            .row(["bad", "bridge", "flatnet-br0 is down since this morning"])
            .below("fix: ", "run `ip link set flatnet-br0 up`");
        insta::assert_snapshot!(table.text(Some(40)), @r"
        bad  bridge  flatnet-br0 is down since
                     this morning
             fix: run
                  `ip link set flatnet-br0 up`
        ");
        assert_eq!(table.rows(None)[0].len(), 2);
    }
}
