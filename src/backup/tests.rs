use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

struct Data {
    root: tempfile::TempDir,
}

impl Data {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let data = Self { root };
        let directory = data.path("data");
        std::fs::create_dir_all(directory.join("base/1")).unwrap();
        std::fs::write(directory.join("base/1/table"), "rows").unwrap();
        std::fs::write(directory.join("PG_VERSION"), "15\n").unwrap();
        std::fs::hard_link(directory.join("PG_VERSION"), directory.join("base/same")).unwrap();
        symlink("base/1/table", directory.join("link")).unwrap();
        std::fs::write(data.path("one.conf"), "single").unwrap();
        std::fs::set_permissions(directory.join("base"), std::fs::Permissions::from_mode(0o750))
            .unwrap();
        data
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn sources(&self) -> Vec<Source> {
        ["data", "one.conf"].map(|name| Source { path: self.path(name), volume: None }).to_vec()
    }

    fn save(&self, stamp: &str) -> PathBuf {
        create(
            &self.path("backups"),
            &self.sources(),
            stamp,
            "2026-01-12T12:29:08Z",
            &Cancelled::new(false),
        )
        .unwrap()
    }
}

#[test]
fn what_is_saved_comes_back_and_nothing_else_stays() {
    let data = Data::new();
    let backup = data.save("20260112122908");
    let directory = data.path("data");
    std::fs::write(directory.join("base/1/table"), "migrated").unwrap();
    std::fs::write(directory.join("new"), "").unwrap();
    std::fs::remove_file(directory.join("link")).unwrap();
    std::fs::write(data.path("one.conf"), "changed").unwrap();

    verify(&backup, &Cancelled::new(false)).unwrap();
    let sources = contents(&backup).unwrap().sources;
    assert_eq!(sources, data.sources());
    restore(&backup, &sources, &Cancelled::new(false)).unwrap();

    let mut names: Vec<_> =
        std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["PG_VERSION", "base", "link"]);
    assert_eq!(std::fs::read_to_string(directory.join("link")).unwrap(), "rows");
    assert_eq!(std::fs::metadata(directory.join("base/same")).unwrap().nlink(), 2);
    assert_eq!(std::fs::metadata(directory.join("base")).unwrap().mode() & 0o777, 0o750);
    assert_eq!(std::fs::read_to_string(data.path("one.conf")).unwrap(), "single");
}

#[test]
fn a_changed_archive_and_one_without_checksum_are_refused() {
    let data = Data::new();
    let backup = data.save("20260112122908");
    let mut bytes = std::fs::read(&backup).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&backup, bytes).unwrap();
    assert!(
        verify(&backup, &Cancelled::new(false))
            .unwrap_err()
            .to_string()
            .contains("checksum is another")
    );
    std::fs::remove_file(checksum_file(&backup)).unwrap();
    assert!(verify(&backup, &Cancelled::new(false)).is_err());
}

#[test]
fn the_newest_three_are_kept_and_none_is_replaced() {
    let data = Data::new();
    let made: Vec<PathBuf> =
        ["1", "1", "2", "3", "4"].map(|stamp| data.save(&format!("2026011212290{stamp}"))).into();
    assert_eq!(made[1].file_name().unwrap(), "data-20260112122901-1.tar.zst");
    assert_eq!(list(&data.path("backups")), [&made[4], &made[3], &made[2]].map(Clone::clone));
    assert_eq!(std::fs::read_dir(data.path("backups")).unwrap().count(), 6);
}

#[test]
fn an_interrupted_backup_leaves_nothing() {
    let data = Data::new();
    let directory = data.path("backups");
    assert!(create(&directory, &data.sources(), "1", "", &Cancelled::new(true)).is_err());
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
}

#[test]
fn a_disk_that_is_too_small_is_noticed() {
    let data = Data::new();
    assert_eq!(measure(&data.sources()).unwrap(), 4 + 3 + 3 + 6);
    check_space(&data.path("backups"), 1).unwrap();
    let error = check_space(&data.path("backups"), u64::MAX / 2).unwrap_err();
    assert_eq!(error::kind(&error), error::Kind::State);
}
