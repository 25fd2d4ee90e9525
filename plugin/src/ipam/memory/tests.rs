use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rstest::rstest;
use tempfile::TempDir;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The folder is made with the first line.
fn folder() -> (TempDir, PathBuf) {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("cni/flatnet");
    (place, folder)
}

fn memory(folder: &Path, name: &str) -> Memory {
    Memory::in_folder(folder, "flatnet", name)
}

fn log(folder: &Path) -> PathBuf {
    folder.join("flatnet.log")
}

fn lines(folder: &Path) -> usize {
    fs::read_to_string(log(folder)).expect("a log").lines().count()
}

/// The longest unused comes first.
fn used(folder: &Path) -> Vec<String> {
    let memory = memory(folder, "new");
    let mut used: Vec<_> = memory.used().iter().map(|(address, n)| (*n, address.to_string())).collect();
    used.sort();
    used.into_iter().map(|(_, address)| address).collect()
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_name_has_what_it_had_last() {
    let (_place, folder) = folder();
    assert!(memory(&folder, "web").last().is_empty());
    memory(&folder, "web").remember(&[ip("10.87.1.2"), ip("fd00::2")]);
    memory(&folder, "db").remember(&[ip("10.87.1.3")]);
    assert_eq!(memory(&folder, "web").last(), [ip("10.87.1.2"), ip("fd00::2")]);
    assert_eq!(memory(&folder, "db").last(), [ip("10.87.1.3")]);
    memory(&folder, "web").remember(&[ip("10.87.1.9")]);
    memory(&folder, "web").mark_freed(&[ip("10.87.1.2"), ip("fd00::2")]);
    assert_eq!(memory(&folder, "web").last(), [ip("10.87.1.9")]);
    assert_eq!(files(&folder), ["flatnet.log"]);
    assert!(Memory::in_folder(&folder, "other", "web").last().is_empty());
}

#[test]
fn the_longest_unused_is_what_was_freed_first() {
    let (_place, folder) = folder();
    // Of a network that remembers nothing, such as one whose addresses another plugin gives.
    memory(&folder, "a").mark_freed(&[ip("10.87.1.2")]);
    assert!(!folder.exists());
    for (name, address) in [("a", "10.87.1.2"), ("b", "10.87.1.3"), ("c", "10.87.1.4")] {
        memory(&folder, name).remember(&[ip(address)]);
    }
    assert_eq!(used(&folder), ["10.87.1.2", "10.87.1.3", "10.87.1.4"]);
    memory(&folder, "a").mark_freed(&[ip("10.87.1.2")]);
    assert_eq!(used(&folder), ["10.87.1.2", "10.87.1.3", "10.87.1.4"], "the others are in use");
    memory(&folder, "b").remember(&[ip("10.87.1.3"), ip("fd00::3")]);
    memory(&folder, "b").mark_freed(&[ip("10.87.1.3"), ip("fd00::3")]);
    assert_eq!(used(&folder), ["10.87.1.2", "10.87.1.3", "fd00::3", "10.87.1.4"]);
    memory(&folder, "d").remember(&[ip("10.87.1.2")]);
    assert_eq!(
        used(&folder),
        ["10.87.1.3", "fd00::3", "10.87.1.4", "10.87.1.2"],
        "what was given longest ago comes first"
    );
}

#[test]
fn the_log_stays_short_and_says_the_same() {
    let (_place, folder) = folder();
    for n in 0..3000 {
        let name = memory(&folder, &format!("c-{}", n % 40));
        name.used();
        name.remember(&[ip(&format!("10.87.1.{}", 2 + n % 40))]);
    }
    assert!(lines(&folder) < 700, "{}", lines(&folder));
    let expected: Vec<_> = (0..40).map(|n| format!("10.87.1.{}", 2 + n)).collect();
    assert_eq!(used(&folder), expected);
    assert_eq!(memory(&folder, "c-7").last(), [ip("10.87.1.9")]);

    // Where nobody has to read all of it, its length tells.
    for n in 0..9000 {
        memory(&folder, "web").remember(&[ip(&format!("10.87.1.{}", 2 + n % 2))]);
    }
    assert!(fs::metadata(log(&folder)).expect("a log").len() < 70_000);
    assert_eq!(used(&folder).len(), 40);
    assert_eq!(used(&folder)[38..], ["10.87.1.2", "10.87.1.3"]);
    assert_eq!(files(&folder), ["flatnet.log"]);
}

#[test]
fn of_more_names_than_a_bridge_has_ports_the_latest_are_remembered() {
    let (_place, folder) = folder();
    fs::create_dir_all(&folder).expect("a folder");
    let line = |n| format!("given c-{n} 10.87.1.2\nfreed c-{n} 10.87.1.2\n");
    let all = (0..4000).map(line).collect::<Vec<_>>().concat();
    fs::write(log(&folder), all).expect("a log");
    let memory = memory(&folder, "new");
    assert_eq!(memory.used().len(), 1);
    memory.remember(&[ip("10.87.1.3")]);
    assert_eq!(lines(&folder), 2048);
    let last = |name: &str| Memory::in_folder(&folder, "flatnet", name).last().to_vec();
    assert_eq!((last("new"), last("c-3999")), (vec![ip("10.87.1.3")], vec![ip("10.87.1.2")]));
    assert!(last("c-1000").is_empty());
    assert_eq!(used(&folder), ["10.87.1.2", "10.87.1.3"]);
}

#[test]
fn what_was_added_meanwhile_is_there() {
    let (_place, folder) = folder();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let folder = &folder;
            scope.spawn(move || {
                for n in 0..30 {
                    memory(folder, &format!("c-{thread}-{n}")).remember(&[ip(&format!("10.88.{thread}.{n}"))]);
                }
            });
        }
    });
    assert_eq!(used(&folder).len(), 240);
    assert_eq!(lines(&folder), 240);
}

#[test]
fn a_line_that_was_cut_short_was_never_written() {
    let (_place, folder) = folder();
    memory(&folder, "web").remember(&[ip("10.87.1.2")]);
    let cut = || {
        let mut text = fs::read_to_string(log(&folder)).expect("a log");
        text.push_str("given web 10.87.1.25");
        fs::write(log(&folder), text).expect("a log");
    };
    cut();
    assert_eq!(memory(&folder, "web").last(), [ip("10.87.1.2")]);
    assert_eq!(used(&folder), ["10.87.1.2"]);
    // What comes behind it is lost with it, and what follows is not.
    memory(&folder, "db").remember(&[ip("10.87.1.3")]);
    memory(&folder, "cache").remember(&[ip("10.87.1.4")]);
    assert_eq!(memory(&folder, "web").last(), [ip("10.87.1.2")]);
    assert!(memory(&folder, "db").last().is_empty());
    assert_eq!(used(&folder), ["10.87.1.2", "10.87.1.4"]);
}

#[test]
fn uninstall_takes_the_logs_and_nothing_else() {
    let (_place, folder) = folder();
    memory(&folder, "web").remember(&[ip("10.87.1.2")]);
    Memory::in_folder(&folder, ".hidden", "web").remember(&[ip("10.87.1.2")]);
    fs::write(folder.join(".flatnet.log"), "given web 10.87.1.2\n").expect("a file");
    fs::create_dir(folder.join("folder.log")).expect("a folder");
    symlink("/etc/passwd", folder.join("link.log")).expect("a link");
    fs::write(folder.join("note"), "theirs").expect("a file");
    assert_eq!(files(&folder).len(), 6);
    forget_in(&folder).expect("logs that go");
    assert_eq!(files(&folder), ["folder.log", "link.log", "note"]);
    for theirs in ["link.log", "note"] {
        fs::remove_file(folder.join(theirs)).expect("a file");
    }
    fs::remove_dir(folder.join("folder.log")).expect("a folder");
    forget_in(&folder).expect("a folder that goes");
    assert!(!folder.exists());
}

#[rstest]
#[case::folder(|path: &Path| fs::create_dir(path).expect("a folder"))]
#[case::pipe(|path: &Path| mkfifo(path, Mode::S_IRWXU).expect("a pipe"))]
#[case::link(|path: &Path| symlink("/dev/zero", path).expect("a link"))]
fn where_something_else_is_nothing_is_remembered_and_nobody_waits(#[case] make: fn(&Path)) {
    let (_place, folder) = folder();
    fs::create_dir_all(&folder).expect("a folder");
    make(&log(&folder));
    let start = Instant::now();
    memory(&folder, "web").remember(&[ip("10.87.1.2")]);
    memory(&folder, "web").mark_freed(&[ip("10.87.1.2")]);
    assert!(used(&folder).is_empty());
    assert!(memory(&folder, "web").last().is_empty());
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(files(&folder), ["flatnet.log"]);
}

#[test]
fn nonsense_says_nothing() {
    let (_place, folder) = folder();
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(log(&folder), b"\xff\ngiven web 10.87.1\n\n10.87.1.9 \ngiven \xff 10.87.1.9\ngiven web x,10.87.1.9\n")
        .expect("a log");
    assert_eq!(used(&folder), ["10.87.1.9"], "whatever the name was");
    assert!(memory(&folder, "web").last().is_empty());
    memory(&folder, "web").remember(&[ip("10.87.1.2")]);
    assert_eq!(memory(&folder, "web").last(), [ip("10.87.1.2")]);
}

#[test]
fn of_a_log_that_never_ends_the_end_is_read() {
    let (_place, folder) = folder();
    fs::create_dir_all(&folder).expect("a folder");
    // Nothing but a hole.
    fs::File::create(log(&folder)).expect("a log").set_len(1 << 40).expect("a long log");
    memory(&folder, "web").remember(&[ip("10.87.1.2")]);
    let length = fs::metadata(log(&folder)).expect("a log").len();
    assert!(length < 100, "it was written anew, with {length} bytes");
    assert!(used(&folder).len() <= 1);
}

#[rstest]
#[case::a_file("/dev/null/flatnet")]
#[case::nobody_s("/proc/self/flatnet")]
fn where_nothing_can_be_written_nothing_is_remembered(#[case] folder: &str) {
    let folder = Path::new(folder);
    memory(folder, "web").remember(&[ip("10.87.1.2")]);
    memory(folder, "web").mark_freed(&[ip("10.87.1.2")]);
    assert!(memory(folder, "web").last().is_empty());
    assert!(memory(folder, "web").used().is_empty());
}

#[rstest]
#[case::usual("web-1.example_2", "web-1.example_2")]
#[case::cut("web~0123456789abcdef", "web~0123456789abcdef")]
#[case::hidden(".web", "%2eweb")]
#[case::here(".", "%2e")]
#[case::up("..", "%2e.")]
#[case::path("../../etc/passwd", "%2e.%2f..%2fetc%2fpasswd")]
#[case::escaped("a%2fb", "a%252fb")]
#[case::not_ascii("\u{e9}", "%c3%a9")]
#[case::words("a b,c", "a%20b%2cc")]
#[case::control("a\nb\0", "a%0ab%00")]
#[case::empty("", "%af63bd4c8601b7df")]
fn words(#[case] name: &str, #[case] expected: &str) {
    assert_eq!(plain(name), expected);
}

#[test]
fn a_name_that_is_too_long_for_a_word_has_one_all_the_same() {
    let (_place, folder) = folder();
    for name in ["a".repeat(300), "a".repeat(301), "\u{1f4a9}".repeat(64)] {
        memory(&folder, &name).remember(&[ip("10.87.1.2")]);
        assert_eq!(memory(&folder, &name).last(), [ip("10.87.1.2")]);
        Memory::in_folder(&folder, &name, "web").remember(&[ip("10.87.1.3")]);
        assert_eq!(Memory::in_folder(&folder, &name, "web").last(), [ip("10.87.1.3")]);
    }
    assert_eq!(files(&folder).len(), 4);
}

#[test]
fn who_had_no_address_frees_none() {
    let (_place, folder) = folder();
    memory(&folder, "web").remember(&[ip("10.87.1.2")]);
    memory(&folder, "of-layer-2").mark_freed(&[]);
    assert_eq!(lines(&folder), 1);
}

#[test]
fn what_is_freed_only_does_not_grow_for_ever() {
    let (_place, folder) = folder();
    memory(&folder, "web").remember(&[ip("10.87.1.2")]);
    for _ in 0..5000 {
        memory(&folder, "another-plugin-s").mark_freed(&[ip("10.87.1.3")]);
    }
    assert!(lines(&folder) < 4000, "{}", lines(&folder));
}
