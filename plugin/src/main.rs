//! The program `flatnet`. All of it is in the library, for fuzz targets and tests to link.

use std::process::ExitCode;

fn main() -> ExitCode {
    flatnet::run()
}
