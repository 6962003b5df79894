//! The rule of this module held against every error of the machine: what it refuses is tried again, then an error that
//! names its cause, and never a broken sample or a damaged shard.

use std::io::Write;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;

use crate::data::shard::Shard;
use crate::data::source::folder::{Folder, FolderConfig};
use crate::data::source::table::{Table, TableConfig};
use crate::data::source::webdataset::{WebDataset, WebDatasetConfig};
use crate::data::source::{Order, Source};
use crate::data::storage::disk::faults::{done, set, Call};
use crate::data::storage::{Location, Storage, StorageConfig};
use crate::data::{Cursor, DataError};
use crate::data::{Image, LoadError};

const ERRORS: [i32; 7] =
    [libc::ENOSPC, libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EIO, libc::ESTALE, libc::EACCES];

/// One more than failures that pass by.
fn storage(attempts: u64, cache: Option<&Path>) -> Storage {
    let attempts = NonZeroU64::new(attempts).unwrap();
    Storage::new(&StorageConfig { attempts, cache: cache.map(Into::into), ..StorageConfig::default() })
}

/// A shard of pairs, keys `FIRST`, `FIRST + 1`, ...; the images are none, but they have bytes.
fn shard(first: usize, samples: usize) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for sample in first..first + samples {
        for (ending, body) in [("jpg", format!("image {sample}")), ("txt", format!("caption {sample}"))] {
            let mut header = tar::Header::new_ustar();
            header.set_size(body.len() as u64);
            builder.append_data(&mut header, format!("{sample:04}.{ending}"), body.as_bytes()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn captions(shard: &Shard) -> Vec<String> {
    (0..shard.len()).map(|sample| shard.load(sample).unwrap().captions.remove(0)).collect()
}

fn number(error: i32) -> String {
    format!("(os error {error})")
}

#[test]
fn errors_of_opening_and_reading_a_shard_pass_by_or_are_told_but_are_no_damage() {
    for error in ERRORS {
        // Opening; the first bytes of the file; its headers.
        for (call, after) in [(Call::Open, 0), (Call::Read, 0), (Call::Read, 1)] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.tar");
            std::fs::write(&path, shard(0, 3)).unwrap();
            let location = Location::File(path);
            set(call, folder.path(), error, after, 1);
            let opened = Shard::open_at(&location, &storage(2, None)).unwrap();
            assert!(done(folder.path()), "{error} {call:?}");
            assert_eq!((opened.damage(), captions(&opened).len()), (None, 3), "{error} {call:?}");

            set(call, folder.path(), error, after, 100);
            let told = Shard::open_at(&location, &storage(2, None)).unwrap_err().to_string();
            assert!(told.contains(&number(error)) && told.contains("given up after 2 attempts"), "{told}");
            assert!(told.contains("a.tar") && told.contains("data.storage.attempts"), "{told}");
        }
    }
}

#[test]
fn errors_of_unpacking_a_shard_pass_by_or_are_told_but_are_no_damage() {
    let plain = shard(0, 3);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let packed = [gzip.finish().unwrap(), zstd::encode_all(&plain[..], 1).unwrap()];
    for (error, packed) in ERRORS.iter().flat_map(|&error| packed.iter().map(move |packed| (error, packed))) {
        // Reading for unpacking: not the four bytes that tell the packing.
        for (call, after) in [(Call::Create, 0), (Call::Write, 0), (Call::Read, 1)] {
            let (folder, room) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let path = folder.path().join("a.tar");
            std::fs::write(&path, packed).unwrap();
            let location = Location::File(path);
            let at = if call == Call::Read { folder.path() } else { room.path() };
            set(call, at, error, after, 1);
            let opened = Shard::open_at(&location, &storage(2, Some(room.path()))).unwrap();
            assert!(done(at), "{error} {call:?}");
            assert_eq!((opened.damage(), captions(&opened).len()), (None, 3), "{error} {call:?}");

            set(call, at, error, after, 100);
            let told = Shard::open_at(&location, &storage(2, Some(room.path()))).unwrap_err().to_string();
            assert!(told.contains(&number(error)) && told.contains("given up after 2 attempts"), "{told}");
            if call != Call::Read {
                assert!(
                    told.contains(&format!("cannot be unpacked into {}", room.path().display())),
                    "{told}"
                );
            }
        }
    }
}

#[test]
fn errors_of_reading_a_sample_pass_by_or_end_the_run() {
    for error in ERRORS {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.tar"), shard(0, 3)).unwrap();
        let pattern = folder.path().join("*.tar").display().to_string();
        let config = WebDatasetConfig::new(pattern.as_str());
        let source = WebDataset::open_in(&config, Arc::new(storage(2, None))).unwrap();
        let ticket = source.ticket(Cursor::default(), Order::Stored).unwrap().unwrap();
        set(Call::Read, folder.path(), error, 0, 1);
        assert_eq!(source.load(&ticket).unwrap().captions, ["caption 0"], "{error}");
        assert!(done(folder.path()));
        set(Call::Read, folder.path(), error, 0, 100);
        match source.load(&ticket).unwrap_err() {
            LoadError::Failed(told) => assert!(told.to_string().contains(&number(error)), "{told}"),
            LoadError::Skip(skip) => panic!("{error}: {skip:?}"),
        }
    }
}

#[test]
fn errors_of_reading_image_files_pass_by_or_end_the_run() {
    for error in ERRORS {
        let folder = tempfile::tempdir().unwrap();
        let images = folder.path().join("cat");
        std::fs::create_dir(&images).unwrap();
        std::fs::write(images.join("a.jpg"), b"an image").unwrap();
        let table = folder.path().join("pairs.csv");
        std::fs::write(&table, "path,text\ncat/a.jpg,a cat\n").unwrap();
        let config = serde_json::json!({"files": table, "image": {"Path": "path"}, "caption": "text"});
        let config: TableConfig = serde_json::from_value(config).unwrap();
        let of_folder = FolderConfig { path: folder.path().into() };
        let sources: [Box<dyn Source>; 2] = [
            Box::new(Table::open(&config, Arc::new(storage(2, None))).unwrap()),
            Box::new(Folder::open(&of_folder, Arc::new(storage(2, None))).unwrap()),
        ];
        for source in sources {
            let ticket = source.ticket(Cursor::default(), Order::Stored).unwrap().unwrap();
            for call in [Call::Open, Call::Read] {
                set(call, &images, error, 0, 1);
                assert!(source.load(&ticket).is_ok() && done(&images), "{error} {call:?}");
                set(call, &images, error, 0, 2);
                match source.load(&ticket).unwrap_err() {
                    LoadError::Failed(told) => assert!(told.to_string().contains(&number(error)), "{told}"),
                    LoadError::Skip(skip) => panic!("{error} {call:?}: {skip:?}"),
                }
            }
        }
    }
}

#[test]
fn errors_of_reading_a_table_pass_by_or_end_the_run() {
    for (error, name) in ERRORS.iter().flat_map(|&error| ["a.csv", "a.jsonl"].map(|name| (error, name))) {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join(name);
        let text = match name {
            "a.csv" => "image,text\nb25l,a cat\n",
            _ => "{\"image\": \"b25l\", \"text\": \"a cat\"}\n",
        };
        std::fs::write(&table, text).unwrap();
        let config = serde_json::json!({"files": table, "image": {"Bytes": "image"}, "caption": "text"});
        let config: TableConfig = serde_json::from_value(config).unwrap();
        // When rows are counted, and when they are read.
        set(Call::Read, folder.path(), error, 1, 1);
        let source = Table::open(&config, Arc::new(storage(2, None))).unwrap();
        assert!(done(folder.path()), "{error}");
        set(Call::Read, folder.path(), error, 1, 1);
        let ticket = source.ticket(Cursor::default(), Order::Stored).unwrap().unwrap();
        assert!(done(folder.path()) && source.load(&ticket).unwrap().captions == ["a cat"], "{error}");
        let source = Table::open(&config, Arc::new(storage(2, None))).unwrap();
        set(Call::Read, folder.path(), error, 1, 100);
        let told = source.ticket(Cursor::default(), Order::Stored).unwrap_err().to_string();
        assert!(told.contains(&number(error)) && told.contains("given up after 2 attempts"), "{told}");
    }
}

#[test]
fn an_image_that_a_table_names_wrongly_is_the_sample_s_and_a_folder_that_is_away_the_machine_s() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("images");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("a.jpg"), b"an image").unwrap();
    let table = folder.path().join("pairs.csv");
    std::fs::write(
        &table,
        format!("path,text\na.jpg,a cat\nnone.jpg,a dog\n{}.jpg,long\n.,folder\n", "x".repeat(5000)),
    )
    .unwrap();
    let config =
        serde_json::json!({"files": table, "image": {"Path": "path"}, "caption": "text", "root": root});
    let config: TableConfig = serde_json::from_value(config).unwrap();
    let source = Table::open(&config, Arc::new(storage(4, None))).unwrap();
    let first = source.ticket(Cursor::default(), Order::Stored).unwrap().unwrap();
    let second = source.ticket(first.after, Order::Stored).unwrap().unwrap();
    let mut cursor = first.after;
    for _ in 0..3 {
        let ticket = source.ticket(cursor, Order::Stored).unwrap().unwrap();
        assert_eq!(source.load(&ticket).unwrap_err().skip().unwrap().reason, "image_missing");
        cursor = ticket.after;
    }

    // Away and back, and an empty mount point in its place.
    let away = folder.path().join("away");
    std::fs::rename(&root, &away).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(300));
            std::fs::rename(&away, &root).unwrap();
        });
        assert!(source.load(&first).is_ok());
    });
    std::fs::rename(&root, &away).unwrap();
    std::fs::create_dir(&root).unwrap();
    let told = source.load(&second).unwrap_err();
    assert!(matches!(&told, LoadError::Failed(_)), "{told:?}");
    assert!(told.to_string().contains("has it been moved or deleted, or is a disk not mounted?"), "{told}");
    let gone = serde_json::json!({
        "files": config.files, "image": {"Path": "path"}, "caption": "text", "root": folder.path().join("gone")
    });
    let gone = Table::open(&serde_json::from_value(gone).unwrap(), Arc::default()).map(|_| ());
    assert!(matches!(gone, Err(DataError::Io { .. })), "{gone:?}");
}

#[test]
fn a_listed_file_that_disappears_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let (path, away) = (folder.path().join("a.tar"), folder.path().join("away"));
    std::fs::write(&path, shard(0, 3)).unwrap();
    let pattern = folder.path().join("*.tar").display().to_string();
    let open = |attempts| {
        let config = WebDatasetConfig::new(pattern.as_str());
        WebDataset::open_in(&config, Arc::new(storage(attempts, None))).unwrap()
    };
    let (patient, quick) = (open(8), open(2));
    std::fs::rename(&path, &away).unwrap();
    let told = quick.ticket(Cursor::default(), Order::Stored).unwrap_err().to_string();
    assert!(
        told.contains("a.tar: No such file or directory (os error 2); given up after 2 attempts"),
        "{told}"
    );
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(500));
            std::fs::rename(&away, &path).unwrap();
        });
        let ticket = patient.ticket(Cursor::default(), Order::Stored).unwrap().unwrap();
        assert_eq!(patient.load(&ticket).unwrap().captions, ["caption 0"]);
    });
}

/// Replaces a file as a whole, or in its place.
fn replace(path: &Path, bytes: &[u8], in_place: bool) {
    if in_place {
        std::fs::write(path, bytes).unwrap();
    } else {
        let beside = path.with_extension("new");
        std::fs::write(&beside, bytes).unwrap();
        std::fs::rename(&beside, path).unwrap();
    }
}

#[test]
fn a_shard_that_is_replaced_while_the_run_reads_it_is_an_error_that_names_it() {
    for in_place in [true, false] {
        // Shorter; longer; of the same length with other samples; no archive at all.
        for other in [shard(0, 2), shard(0, 9), shard(5, 6), vec![7; shard(0, 6).len()]] {
            let folder = tempfile::tempdir().unwrap();
            let at = |number: usize| folder.path().join(format!("{number}.tar"));
            (0..6).for_each(|number| std::fs::write(at(number), shard(0, 6)).unwrap());
            let pattern = folder.path().join("*.tar").display().to_string();
            let config = WebDatasetConfig { shuffle_shards: 1, ..WebDatasetConfig::new(pattern.as_str()) };
            let source = WebDataset::open_in(&config, Arc::new(storage(1, None))).unwrap();
            let mut tickets = Vec::new();
            let mut cursor = Cursor::default();
            // Three windows stay open at most: the first has to be opened again, and is not opened ahead yet.
            for _ in 0..27 {
                let ticket = source.ticket(cursor, Order::Stored).unwrap().unwrap();
                source.load(&ticket).unwrap();
                cursor = ticket.after;
                tickets.push(ticket);
            }
            replace(&at(0), &other, in_place);
            let told: Vec<String> = tickets[..6]
                .iter()
                .map(|ticket| match source.load(ticket) {
                    Err(LoadError::Failed(error)) => error.to_string(),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert!(told[5].contains("0.tar: it was changed while the run reads it"), "{told:?}");
        }
    }
}

#[test]
fn a_shard_that_is_replaced_in_its_place_gives_none_of_the_new_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    for other in [shard(3, 6), shard(0, 1), vec![0; 20_000]] {
        std::fs::write(&path, shard(0, 6)).unwrap();
        let opened = Shard::open_at(&Location::File(path.clone()), &storage(1, None)).unwrap();
        assert_eq!(captions(&opened).len(), 6);
        replace(&path, &other, true);
        for sample in 2..6 {
            match opened.load(sample) {
                Err(LoadError::Failed(error)) => {
                    assert!(error.to_string().contains("was changed while"), "{error}")
                }
                other => panic!("{other:?}"),
            }
        }
        // A number that a shorter shard does not have.
        assert!(matches!(opened.load(6), Err(LoadError::Failed(_))));
        assert_eq!(opened.key(6), "");
    }
}

#[test]
fn a_table_that_is_replaced_while_the_run_reads_it_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("pairs.csv");
    std::fs::write(folder.path().join("a.jpg"), b"an image").unwrap();
    std::fs::write(&table, "path,text\na.jpg,a cat\na.jpg,a dog\n").unwrap();
    let config = serde_json::json!({"files": table, "image": {"Path": "path"}, "caption": "text"});
    let source = Table::open(&serde_json::from_value(config).unwrap(), Arc::default()).unwrap();
    std::fs::write(&table, "path,text\na.jpg,a cat\n").unwrap();
    let told = source.ticket(Cursor::default(), Order::Stored).unwrap_err().to_string();
    assert!(told.contains("pairs.csv: it was changed while the run reads it"), "{told}");
}

#[test]
fn an_index_of_millions_of_headers_stops_at_its_limit() {
    let mut builder = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
    for sample in 0..30_000 {
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        builder.append_data(&mut header, format!("{sample}.jpg"), &b""[..]).unwrap();
    }
    let packed = builder.into_inner().unwrap().finish().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    std::fs::write(&path, packed).unwrap();
    let storage = Storage::new(&StorageConfig { index_mib: 1.0, ..StorageConfig::default() });
    let shard = Shard::open_at(&Location::File(path), &storage).unwrap();
    let damage = shard.damage().unwrap();
    assert_eq!(damage.reason, "shard_too_large");
    assert!(damage.detail.contains("more than 1 MiB") && damage.detail.contains("data.storage.index_mib"));
    assert!((3_000..10_000).contains(&shard.len()), "{}", shard.len());
}

#[test]
fn members_with_holes_are_read_with_their_zeros_in_every_form() {
    let mut expected = vec![0; 30 * 16_384 + 5000];
    for piece in 0..30 {
        let text = format!("piece {piece}");
        expected[piece * 16_384..][..text.len()].copy_from_slice(text.as_bytes());
    }
    for form in ["gnu", "pax-0.0", "pax-0.1", "pax-1.0"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/sparse/{form}.tar.gz"));
        let shard = Shard::open(&path).unwrap();
        assert_eq!((shard.damage(), shard.len()), (None, 2), "{form}");
        let raw = shard.load(0).unwrap();
        assert!(raw.image == Image::Encoded(expected.clone()), "{form}");
        assert_eq!((raw.captions, shard.key(0)), (vec!["a picture with holes".to_owned()], "0000"), "{form}");
        assert_eq!(shard.load(1).unwrap().captions, ["a picture without"], "{form}");
    }
}

#[test]
fn long_extended_headers_are_read_up_to_a_limit() {
    let archive = |longest: usize| {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("SCHILY.xattr.user.x", vec![b'x'; longest].as_slice())]).unwrap();
        let mut plain = builder.into_inner().unwrap();
        plain.truncate(plain.len() - 1024);
        [plain, shard(0, 2)].concat()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    std::fs::write(&path, archive(1_000_000)).unwrap();
    let read = Shard::open(&path).unwrap();
    assert_eq!((read.damage(), captions(&read).len()), (None, 2));
    std::fs::write(&path, archive(1_100_000)).unwrap();
    let damage = Shard::open(&path).unwrap().damage().unwrap().clone();
    assert!(damage.detail.contains("at most 1048576 are read"), "{damage:?}");
}

#[test]
fn a_page_or_a_pointer_named_as_a_shard_is_called_that() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let long = format!("<!doctype html><html>{}</html>", "text ".repeat(400));
    for (text, named) in [
        ("<html>404</html>", "an HTML page"),
        (long.as_str(), "an HTML page"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12345\n", "a git-lfs pointer"),
    ] {
        std::fs::write(&path, text).unwrap();
        let damage = Shard::open(&path).unwrap().damage().unwrap().clone();
        assert!(damage.reason == "shard_other" && damage.detail.contains(named), "{damage:?}");
    }
}
