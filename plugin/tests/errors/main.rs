//! The catalogue of errors, `plugin/manual/errors.md`, is what the source says: nothing more, and nothing less.

mod crate_source;
mod definition;
mod makers;
mod page;
mod texts;

use std::fs;
use std::path::Path;

/// The commands for people have errors of another kind, which `commands` reads.
const COMMANDS: &str = "cli";

#[test]
fn the_catalogue_is_complete() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let definition = definition::read(&root.join("src/error.rs"));
    let found = crate_source::search(&root.join("src"), &["error.rs", COMMANDS]);
    let commands = crate_source::commands(&root.join("src").join(COMMANDS));
    let wanted = page::render(&definition, &found, &commands);
    let path = root.join("manual/errors.md");
    if std::env::var_os("FLATNET_WRITE").is_some() {
        fs::write(&path, &wanted).expect("to write the page");
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    let first = there.lines().zip(wanted.lines()).find(|(there, wanted)| there != wanted);
    assert!(
        there == wanted,
        "manual/errors.md is behind the source, first at {first:?}: run `FLATNET_WRITE=1 cargo test -p flatnet --test errors` and look at the difference"
    );
}
