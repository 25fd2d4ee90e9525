//! The values themselves.

/// Addresses and subnets that are none, or nobody's to have.
pub(super) const ADDRESSES: &[&str] = &[
    "10.87.1",
    "10.87.1.0/33",
    "10.87.1.0/-1",
    "10.87.1.0/99999999999999999999",
    "10.87.1.0/24/24",
    "010.087.001.000/24",
    "10.87.1.7/24",
    "10.87.0.0/24",
    "0.0.0.0/0",
    "255.255.255.255/32",
    "127.0.0.1",
    "fd00::/64",
    "::ffff:10.87.1.0/120",
    "10.87.1.0/24\u{0}",
    " 10.87.1.0/24",
    "10.87.1.256",
    "4294967296",
];

/// What may stand where something else is expected; not all of it is JSON.
pub(super) const JSON: &[(&str, &str)] = &[
    ("null", "null"),
    ("true", "true"),
    ("zero", "0"),
    ("minus zero", "-0"),
    ("minus one", "-1"),
    ("a fraction", "1.5"),
    ("the smallest i64 but one", "-9223372036854775809"),
    ("the largest u64 and one", "18446744073709551616"),
    ("a number beyond all floats", "1e999"),
    ("a number near the largest float", "1e308"),
    ("an empty list", "[]"),
    ("an empty object", "{}"),
    ("a list of nulls", "[null, null]"),
    ("a list in a list", "[[\"10.87.1.9\"]]"),
    ("an object of an empty key", "{\"\": 1}"),
    ("a NUL", "\"a\\u0000b\""),
    ("half a surrogate pair", "\"\\ud800\""),
    ("not a number", "NaN"),
    ("a raw line break", "\"a\nb\""),
    ("a raw NUL", "\"a\u{0}b\""),
];

/// Something again and again.
pub(super) struct Repeat {
    name: &'static str,
    open: &'static str,
    close: &'static str,
    times: usize,
}

impl Repeat {
    /// Its name, and all of it.
    pub(super) fn spelt(&self) -> (String, String) {
        (self.name.to_owned(), self.open.repeat(self.times) + &self.close.repeat(self.times))
    }
}

/// Deep, and long.
pub(super) const SEGMENTS: &[Repeat] = &[
    Repeat { name: "100 lists, one in the other", open: "[", close: "]", times: 100 },
    Repeat { name: "100,000 lists, one in the other", open: "[", close: "]", times: 100_000 },
    Repeat { name: "a number of 10,000 digits", open: "9", close: "", times: 10_000 },
];

/// Texts, for wherever there is a name: names and bytes.
pub(super) fn texts() -> Vec<(&'static str, Vec<u8>)> {
    let bait = super::BAIT;
    let mut all: Vec<(&str, Vec<u8>)> = [
        ("nothing", String::new()),
        ("a dot", ".".to_owned()),
        ("two dots", "..".to_owned()),
        ("a path upwards", format!("../../../../../../run/{bait}")),
        ("a path upwards, later", format!("a/../../../../../../run/{bait}")),
        ("an absolute path", format!("/run/{bait}")),
        ("a relative path", format!("./{bait}")),
        ("a short path upwards", "../x".to_owned()),
        ("a shell's words", format!("$(touch /run/{bait})")),
        ("a command after another", format!("a;touch /run/{bait};")),
        ("quotes", "a\"b'c`d".to_owned()),
        ("a backslash", "a\\b".to_owned()),
        ("formats", "%s%n%d".to_owned()),
        ("an option", "--help".to_owned()),
        ("a line break", "a\nb".to_owned()),
        ("a carriage return", "a\rb".to_owned()),
        ("a tab", "a\tb".to_owned()),
        ("spaces", " a b ".to_owned()),
        ("another part of a record", "a network=other".to_owned()),
        ("a terminal's orders", "\u{1b}[2J\u{7}".to_owned()),
        ("a change of direction", "a\u{202e}b".to_owned()),
        ("a space of another alphabet", "a\u{a0}b".to_owned()),
        ("a line separator", "a\u{2028}b".to_owned()),
        ("what is not ASCII", "\u{e9}\u{1f4a9}".to_owned()),
        ("an interface of all", "all".to_owned()),
        ("the loopback interface", "lo".to_owned()),
        ("300 bytes", "a".repeat(300)),
        ("64 KiB", "a".repeat(64 << 10)),
        ("64 KiB of paths upwards", "../".repeat((64 << 10) / 3)),
    ]
    .map(|(name, text)| (name, text.into_bytes()))
    .into();
    all.push(("bytes that are not UTF-8", vec![b'a', 0xff, 0xfe]));
    all.push(("half a character", vec![b'a', 0xc3]));
    all
}

/// A whole input, made of one that is good.
pub(super) struct Body {
    pub(super) name: &'static str,
    pub(super) made: fn(&str) -> Vec<u8>,
}

const LIMIT_BYTES: usize = 1 << 20;

fn padded(good: &str, to: usize) -> Vec<u8> {
    let mut text = good.as_bytes().to_vec();
    text.resize(to, b' ');
    text
}

fn opened(good: &str, with: &str) -> Vec<u8> {
    good.replacen('{', with, 1).into_bytes()
}

fn many_keys(count: u32) -> String {
    let keys: Vec<_> = (0..count).map(|n| format!("\"cni.dev/{n}\":0,")).collect();
    keys.concat()
}

/// From nothing at all to more than anybody reads.
pub(super) const BODIES: &[Body] = &[
    Body { name: "nothing", made: |_| Vec::new() },
    Body { name: "a space", made: |_| b" \n".to_vec() },
    Body { name: "a NUL", made: |_| vec![0] },
    Body { name: "an opening brace", made: |_| b"{".to_vec() },
    Body { name: "an empty object", made: |_| b"{}".to_vec() },
    Body { name: "a list", made: |_| b"[]".to_vec() },
    Body { name: "a text", made: |_| b"\"x\"".to_vec() },
    Body { name: "1 MiB of nesting", made: |_| vec![b'['; LIMIT_BYTES] },
    Body { name: "1 MiB of objects, one in the other", made: |_| "{\"a\":".repeat(LIMIT_BYTES / 5).into_bytes() },
    Body { name: "100,000 lists that all close", made: |_| ("[".repeat(100_000) + &"]".repeat(100_000)).into_bytes() },
    Body { name: "exactly 1 MiB", made: |good| padded(good, LIMIT_BYTES) },
    Body { name: "1 MiB and a byte", made: |good| padded(good, LIMIT_BYTES + 1) },
    Body { name: "a byte order mark", made: |good| format!("\u{feff}{good}").into_bytes() },
    Body { name: "UTF-16", made: |good| good.encode_utf16().flat_map(u16::to_le_bytes).collect() },
    Body {
        name: "bytes that are not UTF-8",
        made: |good| good.replace("10.87", "\u{1}").bytes().map(|it| if it == 1 { 0xff } else { it }).collect(),
    },
    Body { name: "something after the end", made: |good| format!("{good}x").into_bytes() },
    Body { name: "the same twice", made: |good| good.repeat(2).into_bytes() },
    Body { name: "a comment", made: |good| opened(good, "{/* */") },
    Body { name: "a key twice, the first bad", made: |good| opened(good, r#"{"name":"../../run/hostile-bait","#) },
    Body { name: "a key 1,000 times", made: |good| opened(good, &format!("{{{}", r#""name":1,"#.repeat(1000))) },
    Body { name: "20,000 keys", made: |good| opened(good, &format!("{{{}", many_keys(20_000))) },
    Body { name: "a key of 64 KiB", made: |good| opened(good, &format!("{{\"{}\":0,", "k".repeat(64 << 10))) },
    Body { name: "a key with a terminal's orders", made: |good| opened(good, "{\"\\u001b[2J\\n\\u0007\":0,") },
    Body { name: "a NUL in a key", made: |good| opened(good, "{\"name\\u0000\":0,") },
    Body { name: "a raw NUL", made: |good| opened(good, "{\0") },
    Body { name: "no end", made: |good| good.as_bytes()[..good.len() - 1].to_vec() },
];
