//! `flatnet explain`: what an error means and what to do, by its code or by its message, from the manual's page on errors.
//!
//! The page is compiled in, so it is always that of this binary.

mod catalogue;
mod markdown;

use std::io::Write;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;

use self::catalogue::{Found, Section};
use super::terminal;
use crate::error::CODES;

/// Say what an error means, and what to do about it
///
/// Without arguments, the codes and what each means in a line.
#[derive(Args)]
pub(super) struct Arguments {
    /// The `code` of an error, such as 105; or its message, as Podman or a log shows it
    #[arg(value_name = "CODE or MESSAGE")]
    error: Vec<String>,
}

pub(super) fn run(arguments: &Arguments, out: &mut impl Write) -> Result<()> {
    let text = if arguments.error.is_empty() {
        let list: Vec<_> = catalogue::sections().iter().map(|section| format!("- {}", section.title)).collect();
        format!("{}\n\n`flatnet explain 105` explains one of them.", list.join("\n"))
    } else {
        explanation(&arguments.error.join(" "))?.text.to_owned()
    };
    let text = markdown::render(&text, terminal::width());
    out.write_all(text.as_bytes()).context("failed to write the explanation")
}

/// The section for a code or a message.
fn explanation(error: &str) -> Result<Section> {
    let sections = catalogue::sections();
    let known: Vec<_> = CODES.iter().map(u32::to_string).collect();
    let codes = format!("the codes are {}", known.join(", "));
    match catalogue::find(&sections, error) {
        Found::Code(code) => sections
            .iter()
            .find(|section| section.code == code)
            .cloned()
            .ok_or_else(|| anyhow!("unknown code {code} (it may be that of another plugin): {codes}")),
        Found::One(section) => Ok(section.clone()),
        Found::Several(one, other) => {
            bail!("this can be error {} or error {}: pass the code, or more of the message", one.code, other.code)
        }
        Found::Nothing => bail!("no known message is like this one: pass the error's code; {codes}"),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::code("105", 105)]
    #[case::object(r#"{"cniVersion": "1.0.0", "code": 101, "msg": "some words", "details": ""}"#, 101)]
    #[case::object_of_netavark(r#"{"error":"unsupported value for internal: true (leave out --internal: ..)"}"#, 2)]
    #[case::part_of_a_message("address 10.88.1.2 is outside ..", 4)]
    #[case::podman_4(
        r#"Error: plugin type="flatnet" failed (add): cannot use bridge lan0: link lan0 is of kind veth, not a bridge; give the network another bridge"#,
        105
    )]
    #[case::log("flatnet: warning: no address is free: all of fd00::2 - fd00::ff are in use (remove containers)", 101)]
    #[case::code_in_a_text("CNI error code: 109, exit code 1", 109)]
    fn an_error_is_found(#[case] error: &str, #[case] code: u32) {
        assert_eq!(explanation(error).expect("a section").code, code);
    }

    #[rstest]
    #[case::code("10", "unknown code 10")]
    #[case::code_of_another(
        r#"{"code": 999, "msg": "no address is free: all of them are in use"}"#,
        "unknown code 999"
    )]
    #[case::nonsense("hello world", "no known message")]
    #[case::too_little("address is", "no known message")]
    #[case::exit_code("exit code 1", "no known message")]
    #[case::ended("the container exited with code 1", "no known message")]
    #[case::answer("status code 4", "no known message")]
    fn what_is_unknown_is_said_with_the_codes(#[case] error: &str, #[case] words: &str) {
        let refusal = explanation(error).expect_err("no section").to_string();
        assert!(refusal.contains(words) && refusal.contains("the codes are 1, 2, 4"), "{refusal}");
    }

    #[test]
    fn what_two_sections_have_alike_is_left_to_the_reader() {
        let refusal = explanation("bridge flatnet-br0 is gone").expect_err("two sections").to_string();
        assert!(refusal.contains("51") && refusal.contains("106"), "{refusal}");
    }
}
