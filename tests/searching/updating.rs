//! An index as its images change, as it is damaged, and as processes are killed over it.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::process::{ends_with, flip, wait_for};
use crate::{names, There};

fn index(there: &There) -> Vec<u8> {
    fs::read(there.image("flip.index")).unwrap()
}

/// Files beside the images that are no images.
fn beside(there: &There) -> Vec<String> {
    let entries = fs::read_dir(there.path().join("images")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.ends_with(".png")).collect();
    names.sort();
    names
}

#[test]
fn only_images_that_are_new_or_changed_are_embedded() {
    let there = There::new(&["run"]);
    for number in 0..20 {
        there.draw(&format!("{number:02}.png"), number, "");
    }
    fs::write(there.image("broken.png"), "no image").unwrap();
    let asked = there.path().join("asked.png");
    crate::drawing(77).save(&asked).unwrap();
    let search = || there.found(&["--image", asked.to_str().unwrap(), "-k", "30"]);
    let (found, said) = search();
    assert!(
        said.contains("embedded 20 images") && said.contains("left out: 1 image_decode; first: "),
        "{said}"
    );
    assert_eq!((&found["images"], &found["left_out"]), (&20.into(), &1.into()));
    let first = index(&there);
    let (again, said) = search();
    assert!(again == found && !said.contains("embedded") && !said.contains("skipped"), "{said}");
    assert_eq!(index(&there), first);

    there.draw("new.png", 77, "");
    there.draw("03.png", 78, "");
    fs::remove_file(there.image("05.png")).unwrap();
    let (found, said) = search();
    assert!(said.contains("embedded 2 images"), "{said}");
    assert_eq!(names(&found)[0], "new.png");
    assert!(!names(&found).contains(&"05.png".to_owned()) && names(&found).len() == 20);
    // The same as if it had been made at once.
    let updated = index(&there);
    fs::remove_file(there.image("flip.index")).unwrap();
    assert_eq!(search().0, found);
    assert_eq!(index(&there), updated);
    // Nothing to embed, and yet another index.
    fs::remove_file(there.image("broken.png")).unwrap();
    let (found, said) = search();
    assert!(!said.contains("embedded"), "{said}");
    assert_eq!(found["left_out"], 0);
    assert_eq!(beside(&there), [".flip.index.lock", "flip.index"]);
}

#[test]
fn damaged_and_foreign_indexes_are_refused_by_name() {
    let there = There::new(&["run", "other"]);
    there.draw("a.png", 1, "");
    there.draw("b.png", 2, "");
    let (found, _) = there.found(&["a"]);
    let whole = index(&there);
    let path = there.image("flip.index");
    let refused = |expected: &str| {
        let said = ends_with(2, there.search(&["a"]));
        assert!(said.contains("images/flip.index: ") && said.contains(expected), "{said}");
    };
    for (bytes, expected) in [(&b""[..], "0 bytes"), (&whole[..whole.len() / 2], "is damaged")] {
        fs::write(&path, bytes).unwrap();
        refused(expected);
        let (again, said) = there.found(&["a", "--rebuild"]);
        assert!(again == found && said.contains("embedded 2 images"), "{said}");
        assert_eq!(index(&there), whole);
    }
    // A file of something else is neither read nor written over.
    fs::write(&path, "a diary").unwrap();
    refused("is no index of flip search");
    let said = ends_with(2, there.search(&["a", "--rebuild"]));
    assert!(said.contains("not written over"), "{said}");
    assert_eq!(index(&there), b"a diary");

    fs::write(&path, &whole).unwrap();
    let other = ["search", "other", "--images", "images", "a"];
    let said = ends_with(2, flip(there.path(), &other));
    assert!(said.contains("flip.index: is the index of another model"), "{said}");
    // Other images under an index that is named.
    fs::create_dir(there.path().join("more")).unwrap();
    fs::copy(there.image("a.png"), there.path().join("more/c.png")).unwrap();
    let more = ["search", "run", "--images", "more", "--index", "images/flip.index", "a"];
    let said = ends_with(2, flip(there.path(), &more));
    assert!(said.contains("is the index of other images (\"a.png\""), "{said}");
    assert_eq!(index(&there), whole);
}

/// True if embeddings are on the disk that wait for their index.
fn has_grown(folder: &Path) -> bool {
    let journal = fs::read_to_string(folder.join("flip.index.growing.journal")).unwrap_or_default();
    journal.lines().skip(1).any(|line| line.contains("\"rows\":") && !line.contains("\"rows\":0,"))
}

/// Images under so many names, whose first update is killed when a part of it is on the disk; none where it was done too soon.
fn killed(images: u32) -> Option<There> {
    let there = There::new(&["run"]);
    there.draw("000000.png", 0, "");
    for number in 1..images {
        let (one, name) = (there.image("000000.png"), there.image(&format!("{number:06}.png")));
        fs::hard_link(&one, &name).or_else(|_| fs::copy(&one, &name).map(drop)).unwrap();
    }
    let folder = there.path().join("images");
    let mut child = there.search(&["a"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&mut child, || has_grown(&folder));
    let is_done = child.try_wait().unwrap().is_some();
    let _ = child.kill();
    child.wait().unwrap();
    (!is_done && !folder.join("flip.index").exists()).then_some(there)
}

#[test]
fn a_killed_update_goes_on_where_it_was_also_with_other_images() {
    let sizes = [3_000, 12_000, 60_000];
    let (images, there) =
        sizes.iter().find_map(|images| Some((*images, killed(*images)?))).expect("a machine as fast as that");
    there.draw("new.png", 1, "");
    fs::remove_file(there.image("000001.png")).unwrap();
    let (found, said) = there.found(&["a"]);
    let embedded = said.split("embedded ").nth(1).unwrap().split(' ').next().unwrap().replace(',', "");
    let embedded: u32 = embedded.parse().unwrap();
    assert!(embedded > 0 && embedded < images, "{said}");
    assert_eq!(found["images"], images);
    assert_eq!(beside(&there), [".flip.index.lock", "flip.index"]);
    let gone_on = index(&there);
    assert_eq!(there.found(&["a", "--rebuild"]).0, found);
    assert!(index(&there) == gone_on, "other bytes");
}

#[test]
fn two_searches_at_once_embed_the_images_once() {
    const IMAGES: u32 = 600;
    let there = There::new(&["run"]);
    for number in 0..IMAGES {
        there.draw(&format!("{number:04}.png"), number, "");
    }
    let start = || there.search(&["a", "--json"]).spawn().unwrap();
    let both = [start(), start(), start()].map(|child| child.wait_with_output().unwrap());
    let said: Vec<_> = both.iter().map(|output| String::from_utf8_lossy(&output.stderr)).collect();
    assert!(both.iter().all(|output| output.status.success()), "{said:?}");
    assert!(both.iter().all(|output| output.stdout == both[0].stdout));
    assert_eq!(said.iter().filter(|said| said.contains("embedded 600 images")).count(), 1, "{said:?}");
    assert_eq!(beside(&there), [".flip.index.lock", "flip.index"]);
}
