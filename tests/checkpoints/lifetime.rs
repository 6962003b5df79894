//! Snapshots that are replaced, removed or left half-written.

use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use flip::checkpoint::{prepare, retain};

use super::{listing, name, pick, save};

#[test]
fn a_killed_write_leaves_the_former_snapshots_and_is_cleaned_up() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), name(0, 100));
    // As a kill after two of three files leaves it.
    let half = dir.path().join(".writing-stage0-step00000200");
    fs::create_dir(&half).unwrap();
    fs::write(half.join("model.safetensors"), "half").unwrap();
    // As a kill in the middle of a removal leaves it.
    let removing = dir.path().join(".removing-stage0-step00000050");
    fs::create_dir(&removing).unwrap();
    // Not ours.
    fs::create_dir(dir.path().join(".writing-thesis")).unwrap();

    assert_eq!(pick(dir.path()).0, Some(name(0, 100)));
    assert_eq!(prepare(dir.path()).unwrap(), [removing, half.clone()]);
    assert_eq!(listing(dir.path()), [".writing-thesis", "stage0-step00000100"]);

    // A write of the same name does not stumble over the leftover of the one before.
    fs::create_dir(&half).unwrap();
    fs::write(half.join("junk"), "half").unwrap();
    let folder = save(dir.path(), name(0, 200));
    assert!(!half.exists() && !folder.join("junk").exists());
    assert_eq!(pick(dir.path()).0, Some(name(0, 200)));
}

#[test]
fn a_snapshot_of_the_same_name_is_replaced_even_if_broken() {
    let dir = tempfile::tempdir().unwrap();
    let folder = save(dir.path(), name(0, 100));
    fs::write(folder.join("model.safetensors"), "broken").unwrap();
    assert_eq!(pick(dir.path()).0, None);
    save(dir.path(), name(0, 100));
    assert_eq!(pick(dir.path()).0, Some(name(0, 100)));
    assert_eq!(listing(dir.path()), ["stage0-step00000100"]);
}

#[test]
fn killed_in_the_middle_of_a_replacement_the_former_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let folder = save(dir.path(), name(0, 100));
    let aside = dir.path().join(".replaced-stage0-step00000100");
    fs::rename(&folder, &aside).unwrap();
    assert_eq!(prepare(dir.path()).unwrap(), Vec::<PathBuf>::new());
    assert_eq!(pick(dir.path()).0, Some(name(0, 100)));

    // Killed after the replacement: the new one stays, the former goes.
    fs::create_dir(&aside).unwrap();
    assert_eq!(prepare(dir.path()).unwrap(), [aside]);
    assert_eq!(pick(dir.path()).0, Some(name(0, 100)));
}

#[test]
fn the_newest_the_last_of_each_stage_and_the_protected_stay() {
    let dir = tempfile::tempdir().unwrap();
    for step in [100, 200, 300] {
        save(dir.path(), name(0, step));
    }
    for step in [100, 200, 300, 400] {
        save(dir.path(), name(2, step));
    }
    let two = NonZeroUsize::new(2).unwrap();
    let removed = retain(dir.path(), name(2, 400), two, &[name(0, 100)]).unwrap();
    assert_eq!(
        listing(dir.path()),
        ["stage0-step00000100", "stage0-step00000300", "stage2-step00000300", "stage2-step00000400"]
    );
    assert_eq!(removed.len(), 3);
    assert_eq!(removed[0], dir.path().join("stage0-step00000200"));
}

/// A broken snapshot of a later step must not push out the good ones that the run continues from.
#[test]
fn later_snapshots_do_not_count_against_the_current_one() {
    let dir = tempfile::tempdir().unwrap();
    for step in [100, 200, 300] {
        save(dir.path(), name(0, step));
    }
    fs::write(dir.path().join("stage0-step00000300/model.safetensors"), "broken").unwrap();
    let one = NonZeroUsize::MIN;
    retain(dir.path(), name(0, 200), one, &[]).unwrap();
    assert_eq!(listing(dir.path()), ["stage0-step00000200", "stage0-step00000300"]);
    assert_eq!(pick(dir.path()).0, Some(name(0, 200)));
}
