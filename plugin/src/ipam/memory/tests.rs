use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rstest::rstest;
use tempfile::TempDir;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The network's folder is made by whoever remembers first.
fn folder() -> (TempDir, PathBuf) {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("cni/flatnet");
    (place, folder)
}

fn memory(folder: &Path, name: &str) -> Memory {
    Memory::in_folder(folder.to_owned(), name)
}

fn used(folder: &Path, taken: &[&str]) -> Vec<String> {
    let taken = taken.iter().map(|text| ip(text)).collect();
    let memory = memory(folder, "new");
    let mut used: Vec<_> = memory.used(&taken).iter().map(|(address, time)| (*time, address.to_string())).collect();
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
    assert_eq!(memory(&folder, "web").last(), [ip("10.87.1.9")]);
    assert_eq!(files(&folder), ["db", "web"]);
    assert_eq!(fs::read_link(folder.join("web")).expect("a link"), Path::new("10.87.1.9"));
}

#[test]
fn the_longest_unused_is_what_was_let_go_first() {
    let (_place, folder) = folder();
    for (name, address) in [("a", "10.87.1.2"), ("b", "10.87.1.3"), ("c", "10.87.1.4")] {
        memory(&folder, name).remember(&[ip(address)]);
    }
    assert_eq!(used(&folder, &[]), ["10.87.1.2", "10.87.1.3", "10.87.1.4"]);
    memory(&folder, "a").let_go();
    assert_eq!(used(&folder, &[]), ["10.87.1.3", "10.87.1.4", "10.87.1.2"]);
    memory(&folder, "b").remember(&[ip("10.87.1.3")]);
    assert_eq!(used(&folder, &[]), ["10.87.1.4", "10.87.1.2", "10.87.1.3"]);
    memory(&folder, "nobody").let_go();
    assert_eq!(files(&folder), ["a", "b", "c"]);
}

#[test]
fn an_address_is_its_last_name_s() {
    let (_place, folder) = folder();
    memory(&folder, "a").remember(&[ip("10.87.1.2"), ip("fd00::2")]);
    memory(&folder, "b").remember(&[ip("10.87.1.2")]);
    used(&folder, &[]);
    assert_eq!(files(&folder), ["a", "b"], "one of a's two addresses is nobody else's");
    memory(&folder, "c").remember(&[ip("fd00::2")]);
    used(&folder, &[]);
    assert_eq!(files(&folder), ["b", "c"]);
}

#[test]
fn the_longest_unused_names_are_forgotten_but_for_those_whose_containers_are_there() {
    let (_place, folder) = folder();
    fs::create_dir_all(&folder).expect("a folder");
    for n in 0..NAMES_MOST + 3 {
        let path = folder.join(format!("c-{n:04}"));
        symlink(format!("10.88.{}.{}", n / 256, n % 256), &path).expect("a link");
        let time = TimeSpec::new(1_000_000 + i64::try_from(n).expect("a number"), 0);
        utimensat(AT_FDCWD, &path, &time, &time, UtimensatFlags::NoFollowSymlink).expect("a time");
    }
    // Of those that nobody has, two are too many.
    assert_eq!(used(&folder, &["10.88.0.0"]).len(), NAMES_MOST + 3);
    assert_eq!(files(&folder)[..2], ["c-0000", "c-0003"]);
    assert_eq!(files(&folder).len(), NAMES_MOST + 1);
}

#[test]
fn what_a_killed_process_left_goes_and_what_another_is_at_stays() {
    let (_place, folder) = folder();
    fs::create_dir_all(&folder).expect("a folder");
    symlink("10.87.1.2", folder.join(".old")).expect("a link");
    symlink("10.87.1.3", folder.join(".new")).expect("a link");
    let time = TimeSpec::new(1_000_000, 0);
    utimensat(AT_FDCWD, &folder.join(".old"), &time, &time, UtimensatFlags::NoFollowSymlink).expect("a time");
    used(&folder, &[]);
    assert_eq!(files(&folder), [".new"]);
    // It is no obstacle either.
    memory(&folder, "new").remember(&[ip("10.87.1.4")]);
    memory(&folder, "new").remember(&[ip("10.87.1.5")]);
    assert_eq!(files(&folder), ["new"]);
}

#[test]
fn what_is_no_link_of_flatnet_s_is_passed_over_and_left_alone() {
    let (_place, folder) = folder();
    fs::create_dir_all(folder.join("folder")).expect("a folder");
    fs::create_dir_all(folder.join(".temporary")).expect("a folder");
    fs::write(folder.join("file"), "10.87.1.2").expect("a file");
    let many = ["10.87.1.2"; 65].join(",");
    let links: [(&str, &[u8]); 7] = [
        ("loop", b"loop"),
        ("huge", &[b'1'; 4000]),
        ("many", many.as_bytes()),
        ("half", b"10.87.1.2,10.87.1"),
        ("binary", b"\xff\xfe"),
        ("path", b"/etc/passwd"),
        ("temporary", b"10.87.1.9"),
    ];
    for (name, target) in links {
        symlink(OsStr::from_bytes(target), folder.join(name)).expect("a link");
    }
    let before = files(&folder);
    assert_eq!(used(&folder, &[]), ["10.87.1.9"]);
    for name in ["folder", "file", "loop", "huge", "many", "half", "binary", "path"] {
        assert!(memory(&folder, name).last().is_empty(), "{name}");
    }
    for name in ["folder", "file", "temporary"] {
        memory(&folder, name).remember(&[ip("10.87.1.4")]);
        memory(&folder, name).let_go();
    }
    assert_eq!(files(&folder), before);
    assert_eq!(fs::read(folder.join("file")).expect("a file"), b"10.87.1.2");
    assert_eq!(memory(&folder, "temporary").last(), [ip("10.87.1.9")], "there was no place for a new one");
    // A link that leads nowhere is as good as none.
    memory(&folder, "loop").remember(&[ip("10.87.1.5")]);
    assert_eq!(memory(&folder, "loop").last(), [ip("10.87.1.5")]);
}

#[rstest]
#[case::a_file("/dev/null/flatnet")]
#[case::nobody_s("/proc/self/flatnet")]
fn where_nothing_can_be_written_nothing_is_remembered(#[case] folder: &str) {
    let folder = Path::new(folder);
    memory(folder, "web").remember(&[ip("10.87.1.2")]);
    memory(folder, "web").let_go();
    assert!(memory(folder, "web").last().is_empty());
    assert!(memory(folder, "web").used(&BTreeSet::new()).is_empty());
}

#[test]
fn a_folder_full_of_strangers_is_not_read_to_its_end() {
    let (_place, folder) = folder();
    fs::create_dir_all(&folder).expect("a folder");
    for n in 0..ENTRIES_MOST + 100 {
        symlink(format!("fd00::{n:x}"), folder.join(format!("c-{n}"))).expect("a link");
    }
    assert_eq!(used(&folder, &[]).len(), ENTRIES_MOST);
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
#[case::control("a\nb\0", "a%0ab%00")]
#[case::empty("", "%af63bd4c8601b7df")]
fn names_of_files(#[case] name: &str, #[case] expected: &str) {
    assert_eq!(file_name(name), expected);
}

#[test]
fn a_name_that_is_too_long_for_a_file_has_one_all_the_same() {
    let (_place, folder) = folder();
    for name in ["a".repeat(300), "a".repeat(301), "\u{1f4a9}".repeat(64)] {
        memory(&folder, &name).remember(&[ip("10.87.1.2")]);
        assert_eq!(memory(&folder, &name).last(), [ip("10.87.1.2")]);
    }
    assert_eq!(files(&folder).len(), 3);
}
