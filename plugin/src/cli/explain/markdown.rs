//! Markdown as a terminal shows it: headings, lists, paragraphs and blocks of code. Only what the manual's page on errors uses is known.

use clap::builder::styling::{AnsiColor, Style};

use crate::cli::terminal::{HEADING, paint, wrap_to};

const CODE: Style = AnsiColor::Cyan.on_default();

/// In lines of so many columns; blocks of code stay as they are, as they may be for copying.
pub(super) fn render(markdown: &str, width: usize) -> String {
    let mut page = Vec::new();
    let mut lines = markdown.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            let block = lines.by_ref().take_while(|line| *line != "```");
            page.extend(block.map(|line| format!("    {}", paint(CODE, line))));
        } else if line.starts_with('#') {
            page.push(paint(HEADING, line.trim_start_matches(['#', ' '])));
        } else {
            let goes_on = |next: &&str| !line.is_empty() && !next.is_empty() && !next.starts_with(['-', '#', '`']);
            let more = std::iter::from_fn(|| lines.next_if(goes_on));
            let text: Vec<_> = std::iter::once(line).chain(more.map(str::trim_start)).collect();
            page.push(paragraph(&text.join(" "), width));
        }
    }
    page.join("\n") + "\n"
}

/// A paragraph, or an item of a list.
fn paragraph(text: &str, width: usize) -> String {
    let (mark, text) = text.strip_prefix("- ").map_or(("", text), |item| ("- ", item));
    let wrapped = wrap_to(text, mark.len(), Some(width));
    let parts = wrapped.split('`').enumerate();
    // With its quotes: where there is no colour, they show what is to be typed.
    let parts = parts.map(|(n, part)| if n % 2 == 1 { paint(CODE, format!("`{part}`")) } else { part.to_owned() });
    parts.fold(mark.to_owned(), |text, part| text + &part)
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;

    #[test]
    fn a_terminal_shows_text_and_what_is_to_be_typed() {
        let text = render(
            "## 7: a heading\n\nSome words with `some code` that\ngo on.\n\n```text\nneither `wrapped` nor changed\n```\n\n- one\n- another `item` that is wrapped\n",
            24,
        );
        let expected = "7: a heading\n\nSome words with\n`some code` that go on.\n\n    neither `wrapped` nor changed\n\n- one\n- another `item` that is\n  wrapped\n";
        assert_eq!(strip_str(&text).to_string(), expected);
        assert!(
            text.contains(&paint(CODE, "`some code`")) && text.starts_with(&paint(HEADING, "7: a heading")),
            "{text:?}"
        );
    }
}
