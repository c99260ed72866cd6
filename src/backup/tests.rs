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
        ["data", "one.conf"].map(|name| Source::at(self.path(name))).to_vec()
    }

    /// What a restore of `backup` does before it replaces anything.
    fn unpack(&self, backup: &Path) -> Restore {
        let go = Cancelled::new(false);
        let inspected = inspect(backup, false, &go).unwrap();
        let contents = inspected.contents.clone();
        let restore = Restore::begin(
            backup.to_owned(),
            contents.made_at,
            contents.sources,
            inspected.files.clone(),
        );
        check_places(&restore.places(), &inspected).unwrap();
        unpack(backup, &restore.places(), &go).unwrap();
        restore
    }

    fn save(&self, stamp: &str) -> PathBuf {
        create(&self.order(stamp), &self.sources(), &Cancelled::new(false)).unwrap()
    }

    fn order(&self, stamp: &str) -> Order {
        let about = About {
            made_at: "2026-01-12T12:29:08Z".to_owned(),
            made_by: "alice".to_owned(),
            sources: self.sources().iter().map(ToString::to_string).collect(),
            bytes: None,
            made_for: MadeFor::Restore { backup: "data-1".to_owned() },
        };
        let (directory, stamp) = (self.path("backups"), stamp.to_owned());
        Order { directory, stamp, about, spared: None }
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
    let restore = data.unpack(&backup);
    assert_eq!(restore.sources, data.sources());
    for place in restore.places() {
        place.swap().unwrap();
        place.discard().unwrap();
    }

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
    assert_eq!(
        list(&data.path("backups")).unwrap(),
        [&made[4], &made[3], &made[2]].map(Clone::clone)
    );
    // Three with their checksums, the ledger, and what is known of them.
    assert_eq!(std::fs::read_dir(data.path("backups")).unwrap().count(), 8);
}

#[test]
fn an_interrupted_backup_leaves_nothing() {
    let data = Data::new();
    let directory = data.path("backups");
    assert!(create(&data.order("1"), &data.sources(), &Cancelled::new(true)).is_err());
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
}

#[test]
fn a_disk_that_is_too_small_is_noticed() {
    let data = Data::new();
    let go = Cancelled::new(false);
    assert_eq!(measure(&data.sources(), &go).unwrap(), 4 + 3 + 3 + 6);
    check_space(&data.path("backups"), 1, "").unwrap();
    let error = check_space(&data.path("backups"), u64::MAX / 2, "").unwrap_err();
    assert_eq!(error::kind(&error), error::Kind::State);
}

#[test]
fn after_the_clock_went_back_the_newest_is_still_the_last_made() {
    let data = Data::new();
    let stamps = ["20270101000000", "20270101000001", "20260101000000", "20260101000001"];
    let made = stamps.map(|stamp| data.save(stamp));
    assert_eq!(
        list(&data.path("backups")).unwrap(),
        [&made[3], &made[2], &made[1]].map(Clone::clone)
    );
}

#[test]
fn what_was_replaced_comes_back_from_wherever_it_was() {
    let data = Data::new();
    let backup = data.save("20260112122908");
    let now = || std::fs::read_to_string(data.path("data/base/1/table")).unwrap();
    std::fs::write(data.path("data/base/1/table"), "now").unwrap();
    std::fs::write(data.path("data/extra"), "").unwrap();
    std::fs::write(data.path("one.conf"), "now").unwrap();
    for swapped in 0..=2 {
        let places = data.unpack(&backup).places();
        for place in &places[..swapped] {
            place.swap().unwrap();
        }
        assert_eq!(now(), if swapped > 0 { "rows" } else { "now" });
        for place in &places {
            place.swap_back().unwrap();
            place.swap_back().unwrap();
        }
        assert_eq!(now(), "now");
        assert_eq!(std::fs::read_to_string(data.path("one.conf")).unwrap(), "now");
        let names = |directory: &Path| {
            let entries = std::fs::read_dir(directory).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&data.path("data")), ["PG_VERSION", "base", "extra", "link"]);
        assert_eq!(names(data.root.path()), ["backups", "data", "one.conf"]);
    }
}

/// An archive of one directory with these entries after the directory itself.
fn forged(path: &Path, add: impl FnOnce(&mut tar::Builder<zstd::Encoder<'static, File>>)) {
    let file = File::create(path).unwrap();
    let mut tar = tar::Builder::new(zstd::Encoder::new(file, 1).unwrap());
    let list = br#"{"format": 1, "made_at": "", "sources": [{"path": "/data", "volume": null}]}"#;
    let mut header = tar::Header::new_gnu();
    header.set_size(list.len() as u64);
    tar.append_data(&mut header, LIST, &list[..]).unwrap();
    tar.append_data(&mut entry(tar::EntryType::Directory), "0", io::empty()).unwrap();
    add(&mut tar);
    tar.into_inner().unwrap().finish().unwrap();
}

fn entry(kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(0o755);
    header
}

#[test]
fn entries_that_would_be_made_elsewhere_are_refused_before_anything_is_unpacked() {
    let data = Data::new();
    let path = data.path("forged.tar.zst");
    let refused = |why: &str, is_own: bool| {
        let error = inspect(&path, is_own, &Cancelled::new(false)).unwrap_err();
        assert_eq!(error::kind(&error), error::Kind::State);
        assert!(error.to_string().contains(why), "{error:#}");
    };
    // tar's own functions refuse to write such a name.
    let named = |name: &str, kind| {
        let mut header = entry(kind);
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        header
    };
    for name in ["0/../../etc/x", "/etc/x", "1/x", "x", "00/x"] {
        let header = named(name, tar::EntryType::Regular);
        forged(&path, |tar| tar.append(&header, io::empty()).unwrap());
        refused("belongs to none of its sources", true);
    }
    for kind in [tar::EntryType::Char, tar::EntryType::Block, tar::EntryType::Fifo] {
        let header = named("0/x", kind);
        forged(&path, |tar| tar.append(&header, io::empty()).unwrap());
        refused("no file, directory or link", true);
    }
    for target in ["/etc", "..", "a/../../.."] {
        let link = |tar: &mut tar::Builder<_>| {
            tar.append_link(&mut entry(tar::EntryType::Symlink), "0/x", target).unwrap();
        };
        forged(&path, link);
        refused("leaves its source", false);
        // What dkv saved itself may hold such links; nothing goes through them.
        inspect(&path, true, &Cancelled::new(false)).unwrap();
        forged(&path, |tar| {
            link(tar);
            let mut file = entry(tar::EntryType::Regular);
            tar.append_data(&mut file, "0/x/passwd", io::empty()).unwrap();
        });
        refused("stands behind a link", true);
    }
    for target in ["/etc/passwd", "0/../x", "1/x"] {
        forged(&path, |tar| {
            tar.append_link(&mut entry(tar::EntryType::Link), "0/x", target).unwrap();
        });
        refused("leaves its source", true);
    }
    forged(&path, |tar| {
        tar.append_link(&mut entry(tar::EntryType::Symlink), "0/x", "/etc/passwd").unwrap();
        tar.append_link(&mut entry(tar::EntryType::Link), "0/y", "0/x").unwrap();
    });
    refused("leaves its source", true);
    forged(&path, |_| ());
    inspect(&path, false, &Cancelled::new(false)).unwrap();
}

#[test]
fn backups_are_known_by_a_beginning_and_by_what_they_were_made_for() {
    let data = Data::new();
    let directory = data.path("backups");
    let made = ["20260112122908", "20260112122959", "20260205000000"].map(|stamp| data.save(stamp));
    let named = |name: &str| named(&directory, name).unwrap().len();
    for (name, count) in [
        ("data-20260112122908.tar.zst", 1),
        ("data-202602", 1),
        ("202602", 1),
        ("20260112", 2),
        ("data-", 3),
        ("", 0),
        ("2025", 0),
    ] {
        assert_eq!(named(name), count, "{name}");
    }
    // As shown, also where a second one of that moment begins the same.
    let second = directory.join("data-20260112122908-1.tar.zst");
    std::fs::copy(&made[0], &second).unwrap();
    assert_eq!((named("data-20260112122908"), named("data-20260112122908-1")), (1, 1));
    std::fs::remove_file(&second).unwrap();
    let known = about(&directory);
    assert_eq!(known.len(), 3);
    assert_eq!(known["data-20260112122908.tar.zst"].made_by, "alice");
    // A fourth takes the place of the first.
    data.save("20260301000000");
    assert!(!made[0].exists() && !about(&directory).contains_key("data-20260112122908.tar.zst"));
}
