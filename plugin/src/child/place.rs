//! Where a host's own programs are: in the folders of the system, whatever `PATH` a runtime or a unit has; for a person, on the person's `PATH`.
//!
//! Invariant: what is found can be changed by root alone, as far as its mode and its folder's say.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// In this order. The last two are an administrator's own.
const FOLDERS: [&str; 6] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"];
/// How root's files look in a user namespace that does not have root (`user_namespaces`(7)).
const NO_USER: u32 = 65534;

/// The program of that name.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    find_in(FOLDERS.map(Path::new), program)
}

/// The program of that name for a person: the first on `PATH` that root alone can change, or one of those for root alone, which other paths
/// leave out.
pub(crate) fn find_on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect();
    find_in(folders.iter().map(PathBuf::as_path).chain([Path::new(FOLDERS[0])]), program)
}

fn find_in<'a>(folders: impl IntoIterator<Item = &'a Path>, program: &str) -> Option<PathBuf> {
    let trusted =
        folders.into_iter().filter(|folder| fs::metadata(folder).is_ok_and(|it| it.is_dir() && is_roots(&it)));
    let mut files = trusted.map(|folder| folder.join(program));
    files.find(|file| {
        let is_program = |it: &Metadata| it.is_file() && it.permissions().mode() & 0o111 != 0;
        fs::metadata(file).is_ok_and(|it| is_program(&it) && is_roots(&it))
    })
}

fn is_roots(it: &Metadata) -> bool {
    matches!(it.uid(), 0 | NO_USER) && it.permissions().mode() & 0o022 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_others_cannot_write_is_found() {
        if !nix::unistd::geteuid().is_root() {
            // Whose files count are root's: another user has none.
            return;
        }
        let (first, second) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let folders = || [first.path(), second.path()];
        let put = |folder: &Path, mode| {
            fs::write(folder.join("it"), "#!/bin/sh\n").expect("a file");
            fs::set_permissions(folder.join("it"), PermissionsExt::from_mode(mode)).expect("a mode");
        };
        put(second.path(), 0o755);
        for mode in [0o775, 0o757, 0o644] {
            put(first.path(), mode);
            assert_eq!(find_in(folders(), "it"), Some(second.path().join("it")), "{mode:o}");
        }
        put(first.path(), 0o755);
        assert_eq!(find_in(folders(), "it"), Some(first.path().join("it")));
        fs::set_permissions(first.path(), PermissionsExt::from_mode(0o777)).expect("a mode");
        assert_eq!(find_in(folders(), "it"), Some(second.path().join("it")));
    }
}
