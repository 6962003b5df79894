use std::collections::BTreeSet;

use ::parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use proptest::prelude::*;

use super::*;

struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Self {
        Disk(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }

    /// Without the folder in it.
    fn shown(&self, text: String) -> String {
        text.replace(&self.0.path().display().to_string(), "")
    }
}

fn config(files: &str, image: ImageColumn, caption: &str) -> TableConfig {
    TableConfig::new(files, image, caption)
}

fn path(name: &str) -> ImageColumn {
    ImageColumn::Path(name.into())
}

fn open(config: &TableConfig) -> Result<Table, DataError> {
    Table::open(config, Arc::default())
}

/// Every row in stored order, a skipped one as `reason: place: detail`.
fn rows(table: &Table) -> Vec<Result<Raw, String>> {
    let mut cursor = Cursor::default();
    let mut rows = Vec::new();
    while let Some(ticket) = table.ticket(cursor, Order::Stored).unwrap() {
        let told = |error: LoadError| {
            let skip = error.skip().unwrap();
            format!("{}: {}: {}", skip.reason, skip.sample, skip.detail)
        };
        rows.push(table.load(&ticket).map_err(told));
        cursor = ticket.after;
    }
    rows
}

fn captions(table: &Table) -> Vec<String> {
    rows(table).into_iter().map(|row| row.map_or_else(|told| told, |raw| raw.captions.join("|"))).collect()
}

#[test]
fn csv_as_open_clip_reads_it() {
    let disk = Disk::new();
    disk.write("images/1.png", "one");
    disk.write("2.png", "two");
    let text = "\u{feff}title,filepath,label,similarity\r\n\
                \"a cat, and a \"\"dog\"\"\nunder it\",images/1.png,3,0.25\r\n\
                \r\n\
                plain,2.png,,NaN\r\n\
                two columns,2.png\r\n\
                ,2.png,1,1\r\n\
                absent,3.png,2.0,7\r\n";
    let files = disk.write("pairs.csv", text);
    let mut config = config(&files, path("filepath"), "title");
    config.label = Some("label".into());
    config.json = vec!["similarity".into()];
    let table = open(&config).unwrap();
    assert_eq!(table.samples(), Some(5));
    let rows = rows(&table);
    let first = rows[0].as_ref().unwrap();
    assert_eq!(first.captions, ["a cat, and a \"dog\"\nunder it"]);
    assert_eq!((first.image.clone(), first.label), (Image::Encoded(b"one".to_vec()), Some(3)));
    assert_eq!(first.meta, Ok(Some(serde_json::json!({"similarity": 0.25}))));
    assert_eq!(first.key, "images/1.png");
    let second = rows[1].as_ref().unwrap();
    assert_eq!((second.label, &second.meta), (None, &Ok(Some(serde_json::json!({"similarity": "NaN"})))));
    let told: Vec<String> = rows[2..].iter().map(|row| disk.shown(row.clone().unwrap_err())).collect();
    assert_eq!(told[0], "row_columns: /pairs.csv: line 6: expected 4 columns, got 2");
    assert_eq!(told[1], "caption_empty: /pairs.csv: line 7: column `title`: nothing but white space");
    assert!(told[2].starts_with("image_missing: /pairs.csv: line 8: /3.png: No such file"), "{}", told[2]);
}

#[test]
fn tsv_without_a_header_and_packed() {
    let disk = Disk::new();
    disk.write("1.png", "one");
    let text = "a cat\t1.png\na dog\t1.png\n";
    let mut config = config(&disk.write("pairs.tsv", text), path("1"), "0");
    config.header = false;
    assert_eq!(captions(&open(&config).unwrap()), ["a cat", "a dog"]);
    let packed = zstd::encode_all(text.as_bytes(), 1).unwrap();
    config.files = disk.write("packed.tsv.zst", packed).as_str().into();
    assert_eq!(captions(&open(&config).unwrap()), ["a cat", "a dog"]);
    config.root = Some("/nowhere/".into());
    let told = open(&config).map(|_| ()).unwrap_err().to_string();
    assert!(told.starts_with("/nowhere/: No such file"), "{told}");
}

#[test]
fn json_lines_with_several_captions_and_bytes() {
    let disk = Disk::new();
    let text =
        "{\"image\": \"b25l\", \"text\": [\"a cat\", \"the cat\"], \"label\": 5, \"score\": {\"x\": 1}}\n\
                \n\
                {\"image\": \"***\", \"text\": \"a dog\"}\n\
                {\"image\": \"b25l\", \"text\": 3}\n\
                [1]\n\
                {\"image\": \"b25l\", \"text\": \"last\"";
    let mut config = config(&disk.write("x.jsonl", text), ImageColumn::Bytes("image".into()), "text");
    config.label = Some("label".into());
    config.json = vec!["score".into(), "none".into()];
    let table = open(&config).unwrap();
    let rows = rows(&table);
    let first = rows[0].as_ref().unwrap();
    assert_eq!((first.captions.join("|"), first.label), ("a cat|the cat".into(), Some(5)));
    assert_eq!(first.meta, Ok(Some(serde_json::json!({"score": {"x": 1}, "none": null}))));
    assert_eq!(first.image, Image::Encoded(b"one".to_vec()));
    let told: Vec<String> = rows[1..].iter().map(|row| disk.shown(row.clone().unwrap_err())).collect();
    assert!(told[0].starts_with("image_decode: /x.jsonl: line 3: column `image`: not base64"), "{}", told[0]);
    assert_eq!(told[1], "caption_missing: /x.jsonl: line 4: no text in column `text`");
    assert_eq!(told[2], "row_json: /x.jsonl: line 5: expected an object `{...}`");
    assert!(
        told[3].starts_with("row_json: /x.jsonl: line 6: EOF while parsing an object at column "),
        "{}",
        told[3]
    );
}

/// As LAION and CC3M are published: `"` is part of captions, at their beginning too.
#[test]
fn a_quote_in_a_tsv_is_a_character_and_fuses_no_rows() {
    let disk = Disk::new();
    disk.write("1.png", "one");
    let captions_of = |rows: &[&str]| {
        let text: String = rows.iter().map(|caption| format!("{caption}\t1.png\n")).collect();
        let files = disk.write("pairs.tsv", format!("title\tfilepath\n{text}"));
        captions(&open(&config(&files, path("filepath"), "title")).unwrap())
    };
    let rows = [
        "\"The Kiss\" by Klimt",
        "\"unclosed quote",
        "plain",
        "he said \"hi",
        "\"closing later\" x",
        "5\" nails and 3\" screws",
        "\"\"",
    ];
    assert_eq!(captions_of(&rows), rows);
    let files = disk.write("quoted.tsv", "title\tfilepath\n\"a \"\"cat\"\"\tand\nmore\"\t1.png\n");
    let mut quoted = config(&files, path("filepath"), "title");
    quoted.quoted = Some(true);
    assert_eq!(captions(&open(&quoted).unwrap()), ["a \"cat\"\tand\nmore"]);
}

#[test]
fn rows_that_a_stray_quote_fuses_are_counted_and_captions_of_two_lines_are_not() {
    let disk = Disk::new();
    let fused = |text: &str| {
        let file = OpenFile::open(Path::new(&disk.write("pairs.csv", text))).unwrap();
        let dialect = Dialect { delimiter: b',', quoted: true, header: true };
        let fused = text::count_csv(&file, dialect, &Progress::default()).unwrap().fused;
        (fused.rows, fused.first)
    };
    assert_eq!(fused("title,path\nplain,1\n\"open,2\nplain,3\n\"shut\" x,4\nplain,5\n"), (1, 3));
    assert_eq!(fused("path,title\n1,\"open\n2,plain\n3,\"shut\" x\n"), (1, 2));
    assert_eq!(fused("path,title\n1,\"two\nlines\"\n2,\"two\nmore\"\n"), (0, 0));
    assert_eq!(fused("title,path\n\"two\nlines\",1\n"), (0, 0));
    assert_eq!(fused(&format!("path,title\n1,\"{}\"\n", "line\n".repeat(20))), (1, 2));
}

#[test]
fn an_unquoted_comma_a_foreign_byte_and_a_mark_are_told_by_row() {
    let disk = Disk::new();
    disk.write("1.png", "one");
    let text = b"filepath,title\n1.png,a cat, a dog\n1.png,caf\xe9\n1.png,last\n";
    let table = open(&config(&disk.write("pairs.csv", text), path("filepath"), "title")).unwrap();
    let told: Vec<String> = captions(&table).into_iter().map(|told| disk.shown(told)).collect();
    assert_eq!(
        told[0],
        "row_columns: /pairs.csv: line 2: expected 2 columns, got 3; a value with a comma in it has to stand in quotes"
    );
    assert!(
        told[1].starts_with("caption_encoding: /pairs.csv: line 3: column `title`: not UTF-8: the byte 0xe9")
    );
    assert_eq!(told[2], "last");
    let mut bare = config(&disk.write("bare.csv", "\u{feff}1.png,a\n1.png,b\n"), path("0"), "1");
    bare.header = false;
    assert_eq!(captions(&open(&bare).unwrap()), ["a", "b"]);
    let lines = "\u{feff}{\"p\": \"1.png\", \"t\": \"a\", \"s\": NaN}\n{\"p\": \"1.png\", \"t\": \"b\"}\n";
    let mut object = config(&disk.write("x.jsonl", lines), path("p"), "t");
    object.json = vec!["s".into()];
    let rows = rows(&open(&object).unwrap());
    assert_eq!(rows[0].as_ref().unwrap().meta, Ok(Some(serde_json::json!({"s": "NaN"}))));
    assert_eq!(rows[1].as_ref().unwrap().captions, ["b"]);
    for name in ["wide.csv", "wide.tsv", "wide.jsonl"] {
        let wide = config(&disk.write(name, b"\xff\xfep\0,\0t\0"), path("p"), "t");
        let message = disk.shown(open(&wide).map(|_| ()).unwrap_err().to_string());
        assert!(message.starts_with(&format!("/{name}: this is UTF-16")), "{message}");
    }
}

/// Flickr30k with a row a caption: which rows are of one image is told by the file, not by how it is written.
#[test]
fn rows_that_name_the_same_file_are_of_the_same_image() {
    let disk = Disk::new();
    disk.write("a/1.png", "one");
    disk.write("b/1.png", "another");
    let one = disk.write("a/pairs.csv", "path,title\n1.png,first\n1.png,second\n2.png,third\n");
    let two = disk.write("b/pairs.csv", "path,title\n1.png,fourth\n");
    let table = open(&TableConfig::new(vec![one, two], path("path"), "title")).unwrap();
    let mut cursor = Cursor::default();
    let mut images = Vec::new();
    while let Some(ticket) = table.ticket(cursor, Order::Stored).unwrap() {
        let key = if images.len() == 2 { "2.png" } else { "1.png" };
        images.push(table.image_of(&ticket, key).unwrap());
        cursor = ticket.after;
    }
    assert_eq!(images[0], images[1]);
    assert_eq!(BTreeSet::from_iter(&images[1..4]).len(), 3, "another name, another folder");
}

#[test]
fn what_a_table_lacks_is_told_before_training() {
    let disk = Disk::new();
    let told = |name: &str, text: &str, image: ImageColumn| {
        let config = config(&disk.write(name, text), image, "title");
        disk.shown(open(&config).map(|_| ()).unwrap_err().to_string())
    };
    let columns = told("a.csv", "url,title\nx,y\n", path("filepath"));
    assert_eq!(columns, "/a.csv:1: no column `filepath`; the columns are `url`, `title`");
    assert!(told("a.table", "", path("x")).contains("write `format: Csv`"));
    assert!(told("b.csv", "x,title\n", path("x")).contains("have no rows"));
    assert!(told("c.parquet", "no parquet file", path("x")).starts_with("/c.parquet: "));
    let url = config(&disk.write("d.csv", "u,title\nx.png,y\n"), ImageColumn::Url("u".into()), "title");
    assert!(captions(&open(&url).unwrap())[0].contains("line 2: column `u`: expected a URL, got \"x.png\""));
}

/// `rows` rows in row groups of `group`, as Python libraries write them: images in a struct, every fifth
/// caption missing.
fn write_parquet(path: &Path, rows: usize, group: usize) {
    let schema = "message pairs {
        optional group image { optional binary bytes; optional binary path (UTF8); }
        optional binary text (UTF8);
        required int64 label;
        optional double score;
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = std::fs::File::create(path).unwrap();
    let packed = ::parquet::basic::Compression::SNAPPY;
    // Small pages, so that passing over rows crosses some.
    let properties = WriterProperties::builder()
        .set_compression(packed)
        .set_data_page_row_count_limit(7)
        .set_write_batch_size(5)
        .build();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    let text = |text: String| ByteArray::from(text.into_bytes());
    for first in (0..rows).step_by(group) {
        let numbers: Vec<usize> = (first..rows.min(first + group)).collect();
        let mut row_group = writer.next_row_group().unwrap();
        let mut bytes = |full: i16, there: &dyn Fn(usize) -> bool, value: &dyn Fn(usize) -> String| {
            let levels: Vec<i16> = numbers.iter().map(|&n| if there(n) { full } else { 0 }).collect();
            let values: Vec<_> = numbers.iter().filter(|&&n| there(n)).map(|&n| text(value(n))).collect();
            let mut column = row_group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
            column.close().unwrap();
        };
        bytes(2, &|_| true, &|n| format!("image {n}"));
        bytes(2, &|_| false, &|_| String::new());
        bytes(1, &|n| n % 5 != 4, &|n| format!("caption {n}"));
        let mut column = row_group.next_column().unwrap().unwrap();
        let labels: Vec<i64> = numbers.iter().map(|&n| n as i64).collect();
        column.typed::<Int64Type>().write_batch(&labels, None, None).unwrap();
        column.close().unwrap();
        let mut column = row_group.next_column().unwrap().unwrap();
        let scores: Vec<f64> = numbers.iter().map(|&n| n as f64 / 2.0).collect();
        column.typed::<DoubleType>().write_batch(&scores, Some(&vec![1; scores.len()]), None).unwrap();
        column.close().unwrap();
        row_group.close().unwrap();
    }
    writer.close().unwrap();
}

fn parquet_config(files: &str) -> TableConfig {
    TableConfig {
        label: Some("label".into()),
        json: vec!["score".into()],
        ..config(files, ImageColumn::Bytes("image.bytes".into()), "text")
    }
}

#[test]
fn parquet_with_embedded_images() {
    let disk = Disk::new();
    let file = disk.write("pairs.parquet", "");
    write_parquet(Path::new(&file), 53, 20);
    let table = open(&parquet_config(&file)).unwrap();
    let rows = rows(&table);
    assert_eq!((rows.len(), table.samples()), (53, Some(53)));
    for (n, row) in rows.into_iter().enumerate() {
        match row {
            Ok(raw) => {
                assert_eq!(raw.image, Image::Encoded(format!("image {n}").into_bytes()));
                assert_eq!(raw.captions, [format!("caption {n}")]);
                assert_eq!(raw.label, Some(n as i64));
                assert_eq!(raw.meta, Ok(Some(serde_json::json!({"score": n as f64 / 2.0}))));
                assert_eq!(raw.key, format!("pairs.parquet/{}", n + 1));
            }
            Err(told) => {
                assert_eq!(n % 5, 4);
                let place =
                    format!("caption_missing: /pairs.parquet: row {}: no text in column `text`", n + 1);
                assert_eq!(disk.shown(told), place);
            }
        }
    }
    let missing = TableConfig { caption: "caption".into(), ..parquet_config(&file) };
    let message = open(&missing).map(|_| ()).unwrap_err().to_string();
    assert!(
        message.contains("no column `caption`; the columns are `image.bytes`, `image.path`, `text`"),
        "{message}"
    );
}

/// Any byte of a Parquet file may be wrong: an error or skipped rows, never a panic that gets through.
#[test]
fn damaged_parquet_is_an_error() {
    let disk = Disk::new();
    let file = disk.write("pairs.parquet", "");
    write_parquet(Path::new(&file), 40, 20);
    let whole = std::fs::read(&file).unwrap();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for at in (0..whole.len()).step_by(11) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        let damaged = disk.write("damaged.parquet", &bytes);
        if let Ok(table) = open(&parquet_config(&damaged)) {
            let mut cursor = Cursor::default();
            while let Ok(Some(ticket)) = table.ticket(cursor, Order::Stored) {
                let _ = table.load(&ticket);
                cursor = ticket.after;
            }
        }
    }
    std::panic::set_hook(hook);
}

#[test]
fn blocks_begin_anywhere_in_a_row_group() {
    let disk = Disk::new();
    let file = disk.write("pairs.parquet", "");
    write_parquet(Path::new(&file), 100, 60);
    let file = Arc::new(OpenFile::open(Path::new(&file)).unwrap());
    let columns = Columns::of(&parquet_config("x.parquet"));
    for (before, rows) in [(0, 60), (1, 5), (6, 8), (7, 7), (33, 27), (59, 1)] {
        let place = Place { first: 1 + before, rows, access: block::Access::RowGroup { group: 0, before } };
        let read = parquet::read(&file, &place, &columns).unwrap();
        let numbers: Vec<u64> = read.iter().map(|row| row.number).collect();
        assert_eq!(numbers, (1 + before..=before + rows).collect::<Vec<_>>());
        for row in read {
            let n = row.number as usize - 1;
            assert_eq!(row.content.as_ref().unwrap().captions.is_ok(), n % 5 != 4);
            if let Some(content) = row.content.ok().filter(|content| content.captions.is_ok()) {
                assert_eq!(
                    (content.captions.unwrap()[0].clone(), content.label),
                    (format!("caption {n}"), Some(n as i64))
                );
            }
        }
    }
}

#[test]
fn large_tables_are_cut_into_blocks_and_shuffled_whole() {
    let disk = Disk::new();
    let mut text = String::from("path,title\n");
    for row in 0..150_000 {
        text.push_str(&format!("x.png,number {row}\n"));
    }
    let csv = disk.write("many.csv", &text);
    let table = open(&config(&csv, path("path"), "title")).unwrap();
    let places = &table.windows.shards().places;
    assert_eq!(places.iter().map(|(_, place)| place.rows).collect::<Vec<_>>(), [65_536, 65_536, 18_928]);
    assert_eq!(places[1].1.first, 65_538);
    let order = Order::Shuffled { seed: 3 };
    let mut cursor = Cursor::epoch(1);
    let mut seen = BTreeSet::new();
    while let Some(ticket) = table.ticket(cursor, order).unwrap() {
        assert!(seen.insert(ticket.item));
        cursor = ticket.after;
    }
    assert_eq!(seen.len(), 150_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_text_is_a_table_or_an_error(text in "[a,\"\n\t{}:1é]{0,60}") {
        let disk = Disk::new();
        for name in ["x.csv", "x.tsv", "x.jsonl"] {
            let mut config = config(&disk.write(name, format!("a,b\n{text}")), path("a"), "b");
            config.header = name != "x.tsv";
            if let Ok(table) = open(&config) {
                prop_assert_eq!(rows(&table).len() as u64, table.samples().unwrap());
            }
        }
    }
}
