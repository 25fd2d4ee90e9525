//! `ipam.resolvConf`: a file such as /etc/resolv.conf (resolv.conf(5)), as the `dns` of a result.
//!
//! It is read by an ADD, before anything is made; what is no regular file is not even opened, and one that does not answer is given up.

use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::child::aside::aside;
use crate::deadline::{self, waiting_for};
use crate::error::{Error, Result};
use crate::reply::Dns;
use nix::libc;

/// More is no such file.
const MAX_BYTES: u64 = 64 << 10;
/// More is not said of it.
const ANSWER_MAX_BYTES: usize = 128 << 10;
/// What an answer begins with.
const TEXT: &str = "+";
const PROBLEM: &str = "-";

/// What it says. Errors: 7.
pub(crate) async fn read(path: &Path) -> Result<Dns> {
    match text_in_time(path).await {
        Ok(text) => Ok(parse(&text)),
        Err(problem) => Err(Error::Config {
            key: "ipam.resolvConf".into(),
            problem: format!("is {:?}, which cannot be read: {problem}", path.display().to_string()),
        }),
    }
}

/// By a child process, whose answer begins with what it is: a text, or a problem.
async fn text_in_time(path: &Path) -> Result<String, String> {
    let work = || match text(path) {
        Ok(text) => [TEXT, text.as_str()].concat().into_bytes(),
        Err(problem) => [PROBLEM, problem.as_str()].concat().into_bytes(),
    };
    let said = match tokio::time::timeout(
        deadline::RESOLV_CONF,
        waiting_for("ipam.resolvConf to be read", aside(ANSWER_MAX_BYTES, work)),
    )
    .await
    {
        Err(_elapsed) => return Err(format!("it did not answer within {} s", deadline::RESOLV_CONF.as_secs())),
        Ok(said) => String::from_utf8(said.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?,
    };
    match (said.strip_prefix(TEXT), said.strip_prefix(PROBLEM)) {
        (Some(text), _) => Ok(text.to_owned()),
        (None, Some(problem)) => Err(problem.to_owned()),
        (None, None) => Err("the process that read it was killed".into()),
    }
}

fn text(path: &Path) -> Result<String, String> {
    let is_file = fs::metadata(path).map_err(|e| e.to_string())?.is_file();
    if !is_file {
        return Err("it is not a regular file".into());
    }
    // Nothing that has taken its place since is waited for.
    let file =
        fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|e| e.to_string())?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it has more than {MAX_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".into())
}

/// As the reference does it: the last `domain` counts, all else adds up, and what is not known is passed over.
fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            // One name server a line.
            Some("nameserver") => dns.nameservers.extend(words.next()),
            Some("domain") => dns.domain = words.next().unwrap_or(dns.domain),
            Some("search") => dns.search.extend(words),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn read(path: &Path) -> Result<Dns> {
        crate::call::block_on(super::read(path))
    }

    #[rstest]
    #[case::nothing("", json!({}))]
    #[case::usual(
        "# by hand\nnameserver 10.0.0.1\nnameserver\t10.0.0.2 # second\nsearch lan example.org\noptions ndots:2 rotate\n",
        json!({"nameservers": ["10.0.0.1", "10.0.0.2"], "search": ["lan", "example.org"], "options": ["ndots:2", "rotate"]})
    )]
    #[case::the_last_domain("domain a\n;domain b\n  domain c\ndomain\nsearch x\nsearch y\n", json!({"domain": "c", "search": ["x", "y"]}))]
    #[case::without_values("nameserver\ndomain\nsearch\nsortlist 1.2.3.4\n", json!({}))]
    fn files(#[case] text: &str, #[case] expected: Value) {
        assert_eq!(json!(parse(text)), expected);
    }

    #[rstest]
    #[case::missing("/nowhere/resolv.conf", "No such file")]
    #[case::folder("/proc", "not a regular file")]
    #[case::device("/dev/zero", "not a regular file")]
    fn what_cannot_be_read_is_refused(#[case] path: &str, #[case] words: &str) {
        let error = read(Path::new(path)).unwrap_err();
        assert_eq!(error.code(), 7);
        assert!(error.to_string().contains("ipam.resolvConf") && error.to_string().contains(words), "{error}");
    }

    #[test]
    fn a_file_that_is_no_such_file_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), vec![b'#'; 1 << 17]).expect("a file");
        assert!(read(file.path()).unwrap_err().to_string().contains("more than"));
        fs::write(file.path(), b"nameserver \xff").expect("a file");
        assert!(read(file.path()).unwrap_err().to_string().contains("not UTF-8"));
        fs::write(file.path(), "nameserver 10.0.0.1").expect("a file");
        assert_eq!(json!(read(file.path()).expect("a file")), json!({"nameservers": ["10.0.0.1"]}));
    }
}
