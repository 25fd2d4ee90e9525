use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
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
    assert_eq!(memory(&folder, "web").last(), [ip("10.87.1.9")]);
    assert_eq!(files(&folder), ["%order", "db", "web"]);
    assert_eq!(fs::read_link(folder.join("web")).expect("a link"), Path::new("10.87.1.9"));
}

#[test]
fn the_longest_unused_is_what_was_let_go_first() {
    let (_place, folder) = folder();
    // Of a network that remembers nothing, such as one whose addresses another plugin gives.
    memory(&folder, "a").let_go(&[ip("10.87.1.2")]);
    assert!(!folder.exists());
    for (name, address) in [("a", "10.87.1.2"), ("b", "10.87.1.3"), ("c", "10.87.1.4")] {
        memory(&folder, name).remember(&[ip(address)]);
    }
    assert_eq!(used(&folder), ["10.87.1.2", "10.87.1.3", "10.87.1.4"]);
    memory(&folder, "a").let_go(&[ip("10.87.1.2")]);
    assert_eq!(used(&folder), ["10.87.1.2", "10.87.1.3", "10.87.1.4"], "the others are in use");
    memory(&folder, "b").remember(&[ip("10.87.1.3"), ip("fd00::3")]);
    memory(&folder, "b").let_go(&[ip("10.87.1.3"), ip("fd00::3")]);
    assert_eq!(used(&folder), ["10.87.1.2", "10.87.1.3", "fd00::3", "10.87.1.4"]);
    memory(&folder, "d").remember(&[ip("10.87.1.2")]);
    assert_eq!(
        used(&folder),
        ["10.87.1.3", "fd00::3", "10.87.1.4", "10.87.1.2"],
        "what was given longest ago comes first"
    );
}

#[test]
fn the_order_stays_short_and_says_the_same() {
    let (_place, folder) = folder();
    for n in 0..3000 {
        let name = memory(&folder, &format!("c-{}", n % 40));
        name.used();
        name.remember(&[ip(&format!("10.87.1.{}", 2 + n % 40))]);
    }
    let lines = fs::read_to_string(folder.join("%order")).expect("a file").lines().count();
    assert!(lines < 700, "{lines}");
    let expected: Vec<_> = (0..40).map(|n| format!("10.87.1.{}", 2 + n)).collect();
    assert_eq!(used(&folder), expected);

    // Where nobody has to read it, its length tells.
    for n in 0..9000 {
        memory(&folder, "web").remember(&[ip(&format!("10.87.1.{}", 2 + n % 2))]);
    }
    assert!(fs::metadata(folder.join("%order")).expect("a file").len() < 70_000);
    assert_eq!(used(&folder).len(), 40);
    assert_eq!(used(&folder)[38..], ["10.87.1.2", "10.87.1.3"]);
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
    assert_eq!(files(&folder).len(), 241);
}

#[test]
fn the_longest_unused_names_are_forgotten() {
    let (_place, folder) = folder();
    let address = |n: usize| ip(&format!("10.88.{}.{}", n / 256, n % 256));
    for n in 0..NAMES_MOST + 3 {
        memory(&folder, &format!("c-{n:04}")).remember(&[address(n)]);
    }
    memory(&folder, "c-0001").let_go(&[address(1)]);
    symlink("10.87.1.3", folder.join(".at-work")).expect("a link");
    let memory = memory(&folder, "new");
    memory.forget_the_longest_unused(memory.used());
    let names: Vec<_> = files(&folder).into_iter().filter(|file| file.starts_with('c')).collect();
    assert_eq!(names.len(), NAMES_MOST);
    assert_eq!(names[..2], ["c-0001", "c-0004"]);
    assert!(files(&folder).contains(&".at-work".to_owned()));
}

#[test]
fn a_link_that_a_killed_process_left_is_no_obstacle() {
    let (_place, folder) = folder();
    memory(&folder, "web").remember(&[ip("10.87.1.2")]);
    symlink("10.87.1.3", folder.join(".web")).expect("a link");
    memory(&folder, "web").remember(&[ip("10.87.1.4")]);
    assert_eq!(files(&folder), ["%order", "web"]);
}

#[test]
fn what_is_not_flatnet_s_is_passed_over_and_left_alone() {
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
    for name in ["folder", "file", "loop", "huge", "many", "half", "binary", "path"] {
        assert!(memory(&folder, name).last().is_empty(), "{name}");
    }
    for name in ["folder", "file", "temporary"] {
        memory(&folder, name).remember(&[ip("10.87.1.4")]);
    }
    assert_eq!(files(&folder), before);
    assert_eq!(fs::read(folder.join("file")).expect("a file"), b"10.87.1.2");
    assert_eq!(memory(&folder, "temporary").last(), [ip("10.87.1.9")], "there was no place for a new one");
    // A link that leads nowhere is as good as none.
    memory(&folder, "loop").remember(&[ip("10.87.1.5")]);
    assert_eq!(memory(&folder, "loop").last(), [ip("10.87.1.5")]);
}

#[rstest]
#[case::folder(|path: &Path| fs::create_dir(path).expect("a folder"))]
#[case::pipe(|path: &Path| mkfifo(path, Mode::S_IRWXU).expect("a pipe"))]
#[case::link(|path: &Path| symlink("/dev/zero", path).expect("a link"))]
#[case::nonsense(|path: &Path| fs::write(path, b"\xff\n10.87.1\n\n10.87.1.9 \n0.0.0.0.0\n").expect("a file"))]
fn an_order_that_is_none_says_nothing_and_nobody_waits(#[case] make: fn(&Path)) {
    let (_place, folder) = folder();
    fs::create_dir_all(&folder).expect("a folder");
    make(&folder.join("%order"));
    let start = Instant::now();
    assert!(used(&folder).is_empty());
    memory(&folder, "web").remember(&[ip("10.87.1.2")]);
    memory(&folder, "web").let_go(&[ip("10.87.1.2")]);
    assert_eq!(memory(&folder, "web").last(), [ip("10.87.1.2")]);
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn of_an_order_that_never_ends_the_end_is_read() {
    let (_place, folder) = folder();
    fs::create_dir_all(&folder).expect("a folder");
    let file = fs::File::create(folder.join("%order")).expect("a file");
    // Nothing but a hole.
    file.set_len(1 << 40).expect("a long file");
    memory(&folder, "web").remember(&[ip("10.87.1.2")]);
    let length = fs::metadata(folder.join("%order")).expect("a file").len();
    assert!(length < 100, "it was written anew, with {length} bytes");
    assert!(used(&folder).len() <= 1);
}

#[rstest]
#[case::a_file("/dev/null/flatnet")]
#[case::nobody_s("/proc/self/flatnet")]
fn where_nothing_can_be_written_nothing_is_remembered(#[case] folder: &str) {
    let folder = Path::new(folder);
    memory(folder, "web").remember(&[ip("10.87.1.2")]);
    memory(folder, "web").let_go(&[ip("10.87.1.2")]);
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
#[case::control("a\nb\0", "a%0ab%00")]
#[case::order("%order", "%25order")]
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
    assert_eq!(files(&folder).len(), 4);
}
