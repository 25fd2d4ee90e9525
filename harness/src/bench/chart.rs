//! The figures as a picture: bars of the wall time of each verb, a panel for each number of other containers.

use super::table::Figures;

/// Sizes, in the picture's units (pixels at 100 %).
const LEFT: f64 = 205.0;
const BAR: f64 = 420.0;
const LINE: f64 = 20.0;
const WIDTH: f64 = LEFT + BAR + 150.0;
/// Of the columns, in turn: the first is flatnet's.
const COLOURS: [&str; 5] = ["#2f855a", "#68b58c", "#8a94a6", "#b0b7c3", "#c9a86a"];

/// An SVG, readable on light and on dark pages.
pub(super) fn svg(figures: &Figures, verbs: &[&str]) -> String {
    let mut body = String::new();
    let mut y = 10.0;
    for group in &figures.groups {
        y += 26.0;
        let title = format!("beside {} container{}", group.beside, if group.beside == 1 { "" } else { "s" });
        body.extend([format!(
            "<text x=\"12\" y=\"{y}\" font-weight=\"bold\">{title}: milliseconds of a call</text>\n"
        )]);
        for verb in verbs {
            let Some(row) = group.rows.iter().find(|row| row.what == format!("{verb}, ms")) else { continue };
            let largest = row.cells.iter().flatten().map(|cell| cell.median).fold(f64::MIN_POSITIVE, f64::max);
            y += 10.0;
            for (column, (cell, name)) in row.cells.iter().zip(&figures.contenders).enumerate() {
                let Some(cell) = cell else { continue };
                y += LINE;
                let (width, colour) = (BAR * cell.median / largest, COLOURS[column % COLOURS.len()]);
                let ratio = if column == figures.reference { String::new() } else { format!(" ({:.2})", cell.ratio) };
                body.extend([format!(
                    "<text x=\"12\" y=\"{y}\">{verb}</text><text x=\"62\" y=\"{y}\">{name}</text>\
                     <rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"14\" rx=\"2\" fill=\"{colour}\"/>\
                     <text x=\"{:.1}\" y=\"{y}\">{:.2}{ratio}</text>\n",
                    y - 11.5,
                    LEFT + width + 6.0,
                    cell.median,
                    name = name.replace('`', ""),
                )]);
            }
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" rx=\"6\" fill=\"#f7f8fa\"/>\n<g fill=\"#1a202c\">\n{body}</g>\n</svg>\n",
        height = y + 20.0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::table::{Group, Row};

    #[test]
    fn a_bar_is_as_long_as_its_part_of_the_longest() {
        let row = Row::new("ADD, ms".into(), &[vec![Some(2.0), Some(8.0), None]], 1);
        let groups = vec![Group { beside: 7, rows: vec![row] }];
        let contenders = vec!["flatnet", "`reference`", "one without"];
        let svg = svg(&Figures { contenders, reference: 1, groups }, &["ADD", "CHECK"]);
        assert!(svg.contains("beside 7 containers") && svg.contains(">reference</text>"), "{svg}");
        let bar = |part: f64| format!("width=\"{:.1}\" height=\"14\"", BAR * part);
        assert!(svg.contains(&bar(0.25)) && svg.contains(&bar(1.0)), "{svg}");
        assert!(
            svg.contains(">2.00 (0.25)</text>") && svg.contains(">8.00</text>"),
            "the reference has no ratio: {svg}"
        );
        assert!(!svg.contains("one without") && !svg.contains("CHECK"), "what was not measured has no bar: {svg}");
    }
}
