//! What a person gets to look at, made from the files of a run folder.

use std::fs;
use std::path::Path;

use flip::report::evaluation::comparisons;
use flip::report::tensorboard::{self, What, START};
use flip::report::{contact_sheet, stage_titles, table, write, EvalRow, EventWriter, Masked, ReportError};
use image::Rgba;

const RECIPE: &str = r#"(
    name: "tiny <b>",
    stages: [
        Pretrain((length: Steps(200), batch: 8, schedule: Cosine(peak: 1e-3))),
        Evaluate([]),
        Unmask((length: Steps(20), batch: 8, schedule: Cosine(peak: 1e-5))),
        Evaluate([]),
    ],
)"#;

const EVAL: &str = r#"[
 {"stage":1,"kind":"zero_shot","dataset":"scenes","task":"held_out","metrics":{"top1":0.5,"top5":0.75},"n":400,
  "per_class":[{"name":"a <red> square","n":20,"top1":0.25}]},
 {"stage":1,"kind":"held_out_loss","dataset":"scenes","task":"","metrics":{"loss":0.9},"n":64,"per_class":[]},
 {"stage":3,"kind":"zero_shot","dataset":"scenes","task":"held_out","metrics":[["top1",0.925],["top5",1.0]],"n":400},
 {"stage":3,"kind":"held_out_loss","dataset":"scenes","task":"","metrics":{"loss":null},"n":64},
 {"stage":3,"kind":"retrieval","dataset":"pairs","metrics":{"image_to_text_r1":0.125},"n":1000}
]"#;

/// A run folder as a run leaves it, with a line that was being written.
fn run_folder(dir: &Path) {
    let mut metrics = String::new();
    let mut timing = String::new();
    for (stage, steps) in [(0, 200), (2, 20)] {
        for step in (10..=steps).step_by(10) {
            let loss = 5.0 / step as f64;
            metrics += &format!(
                "{{\"stage\":{stage},\"step\":{step},\"samples\":{},\"loss\":{loss},\"lr\":0.001,\"logit_scale\":14.2,\"grad_norm\":null}}\n",
                stage / 2 * 1_600 + step * 8
            );
            timing += &format!(
                "{{\"stage\":{stage},\"step\":{step},\"images_per_s\":{},\"data_wait\":0.1,\"step_ms\":4.0,\"elapsed_s\":1.0}}\n",
                2000 - step
            );
        }
    }
    fs::write(dir.join("metrics.jsonl"), metrics + "{\"stage\":2,\"st").unwrap();
    fs::write(dir.join("timing.jsonl"), timing).unwrap();
    fs::write(dir.join("eval.json"), EVAL).unwrap();
    fs::write(dir.join("recipe.ron"), RECIPE).unwrap();
}

fn rows() -> Vec<EvalRow> {
    serde_json::from_str(EVAL).unwrap()
}

#[test]
fn the_table_shows_before_and_after() {
    let expected = "\
evaluation                  metric            after pretrain  after unmask  change     n
----------------------------------------------------------------------------------------
zero shot scenes / held_out  top1                    50.00 %       92.50 %  +42.50   400
                             top5                    75.00 %      100.00 %  +25.00   400
held out loss scenes         loss                     0.9000    not finite            64
retrieval pairs              image_to_text_r1              -       12.50 %          1000
";
    let text = table::text(&rows(), &stage_titles(RECIPE));
    let squeezed = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(squeezed(&text)[2..], squeezed(expected)[2..], "{text}");
    assert_eq!(squeezed(&text)[0], squeezed(expected)[0]);
    let ends: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
    assert!(ends.iter().all(|end| *end == ends[0]), "the last column is aligned:\n{text}");

    let untitled = table::text(&rows()[..1], &[]);
    assert!(untitled.contains("stage 1") && !untitled.contains("change"), "{untitled}");
    assert_eq!(table::text(&[], &[]), "");
}

#[test]
fn a_loss_below_one_is_not_a_percentage_and_order_is_that_of_the_file() {
    let rows = rows();
    let comparisons = comparisons(&rows);
    let names: Vec<&str> = comparisons.iter().map(|comparison| comparison.metric).collect();
    assert_eq!(names, ["top1", "top5", "loss", "image_to_text_r1"]);
    assert!(comparisons[0].is_share() && !comparisons[2].is_share());
    assert_eq!(comparisons[0].values, [Some(0.5), Some(0.925)]);
    assert_eq!(comparisons[3].values, [None, Some(0.125)]);
}

#[test]
fn the_page_is_whole_escaped_and_needs_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    run_folder(dir.path());
    let pixels = vec![7u8; 8 * 8 * 3];
    let sheet = contact_sheet(&[Masked { pixels: &pixels, size: 8, kept: &[0, 3] }], 4).unwrap();
    fs::write(dir.path().join("masks.png"), sheet).unwrap();

    let path = write(dir.path()).unwrap();
    assert_eq!(path, dir.path().join("report.html"));
    let page = fs::read_to_string(&path).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    for expected in [
        "width=device-width",
        "prefers-color-scheme: dark",
        "1,760", // pairs of both stages
        "after unmask",
        "92.50 %",
        "+42.50",
        "a &lt;red&gt; square",
        "tiny &lt;b&gt;",
        "src=\"data:image/png;base64,iVBOR",
        "Contrastive loss (nats)",
        "Learning rate",
        "Speed (images/s)",
        "Evaluations (%)",
    ] {
        assert!(page.contains(expected), "{expected} is missing");
    }
    for unwanted in ["<red>", "tiny <b>", "<script", "src=\"http", "href=", "@import", "NaN", "inf\""] {
        assert!(!page.contains(unwanted), "{unwanted} is there");
    }
    // The gradient norm is null everywhere, so there is nothing to draw.
    assert!(!page.contains("Gradient norm"));
    assert!(!dir.path().join(".report.html.partial").exists());

    let svg = fs::read_to_string(dir.path().join("curves/loss.svg")).unwrap();
    assert!(svg.starts_with("<svg class=\"curve\"") && svg.trim_end().ends_with("</svg>"), "{svg}");
    assert!(svg.contains("currentColor") && !svg.contains("#010203"), "{svg}");
    assert!(svg.contains("pretrain") && svg.contains("unmask"), "stages are marked");
    // Balanced, so that it cannot spoil the page it is put into.
    for tag in ["svg", "text", "style"] {
        let opened = svg.matches(&format!("<{tag} ")).count() + svg.matches(&format!("<{tag}>")).count();
        assert_eq!(opened, svg.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn a_run_that_has_just_begun_has_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let page = fs::read_to_string(write(dir.path()).unwrap()).unwrap();
    assert!(page.contains("<h1>") && !page.contains("<h2>"), "{page}");
    assert!(!dir.path().join("curves").exists());

    // One point is no curve.
    fs::write(dir.path().join("metrics.jsonl"), "{\"stage\":0,\"step\":10,\"samples\":80,\"loss\":4.5}\n")
        .unwrap();
    let page = fs::read_to_string(write(dir.path()).unwrap()).unwrap();
    assert!(page.contains("4.5000") && !page.contains("<svg"), "{page}");
}

#[test]
fn curves_survive_flat_huge_and_missing_values() {
    let dir = tempfile::tempdir().unwrap();
    let lines = [
        "{\"stage\":0,\"step\":1,\"loss\":0.0,\"lr\":0.0,\"logit_scale\":100.0,\"grad_norm\":1e30}",
        "{\"stage\":0,\"step\":2,\"loss\":0.0,\"lr\":0.0,\"logit_scale\":100.0,\"grad_norm\":-1e30}",
        "{\"stage\":0,\"step\":3,\"loss\":null,\"lr\":\"x\"}",
        "[]",
        "3",
        "",
        "{\"stage\":-1,\"step\":2,\"loss\":1}",
        "not json",
        "{\"stage\":0,\"step\":18446744073709551615,\"loss\":1.0}",
    ];
    fs::write(dir.path().join("metrics.jsonl"), lines.join("\n")).unwrap();
    let page = fs::read_to_string(write(dir.path()).unwrap()).unwrap();
    assert_eq!(page.matches("<svg").count(), 4);
    assert!(!page.contains("NaN"));
}

#[test]
fn a_broken_eval_json_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("eval.json"), "[{\"stage\":1}]").unwrap();
    let error = write(dir.path()).unwrap_err();
    assert!(matches!(error, ReportError::Evaluations { .. }));
    let message = error.to_string();
    assert!(message.contains("eval.json") && message.contains("line 1"), "{message}");
    let error = write(&dir.path().join("absent")).unwrap_err().to_string();
    assert!(error.contains("absent"), "{error}");
}

#[test]
fn a_masked_picture_is_grey_where_patches_were_removed() {
    // 4 by 4 pixels, patches of 2, every pixel its own colour.
    let pixels: Vec<u8> = (0..16u8).flat_map(|i| [i * 10, 0, 255 - i]).collect();
    let other = vec![9u8; 48];
    let pairs =
        [Masked { pixels: &pixels, size: 4, kept: &[3, 0] }, Masked { pixels: &other, size: 4, kept: &[] }];
    let png = contact_sheet(&pairs, 2).unwrap();
    let sheet = image::load_from_memory(&png).unwrap().to_rgba8();
    // Enlarged 32 times to 128 pixels: picture, gap of 6, twin; below a gap of 18, the other pair.
    assert_eq!(sheet.dimensions(), (2 * 128 + 6, 2 * 128 + 18));
    let grey = Rgba([128, 128, 128, 255]);
    for y in 0..4u32 {
        for x in 0..4u32 {
            let i = y * 4 + x;
            let colour = Rgba([i as u8 * 10, 0, 255 - i as u8, 255]);
            let (left, top) = (x * 32 + 31, y * 32);
            assert_eq!(*sheet.get_pixel(left, top), colour);
            let kept = (x < 2) == (y < 2);
            assert_eq!(*sheet.get_pixel(134 + left, top), if kept { colour } else { grey }, "{x} {y}");
        }
    }
    assert_eq!(sheet.get_pixel(130, 5)[3], 0, "gaps are transparent");
    assert_eq!(*sheet.get_pixel(134, 146), grey);
    assert_eq!(*sheet.get_pixel(0, 146), Rgba([9, 9, 9, 255]));
}

#[test]
fn what_cannot_be_drawn_is_explained() {
    let pixels = vec![0u8; 48];
    let good = Masked { pixels: &pixels, size: 4, kept: &[0] };
    let one = |pair| contact_sheet(&[good, pair], 2).unwrap_err().to_string();
    assert!(contact_sheet(&[], 2).unwrap_err().to_string().contains("no picture"));
    assert!(one(Masked { size: 8, ..good }).contains("picture 1: it has 8 pixels a side"));
    assert!(one(Masked { pixels: &pixels[1..], ..good }).contains("47 bytes are not [4, 4, 3]"));
    assert!(one(Masked { kept: &[4], ..good }).contains("patch 4 is kept where there are 4"));
    for patch in [0, 3, 5] {
        assert!(contact_sheet(&[good], patch).unwrap_err().to_string().contains("do not divide"));
    }
}

fn scalars(path: &Path) -> Vec<(i64, String, f32)> {
    let mut all = Vec::new();
    for event in tensorboard::read(path).unwrap() {
        if let Some(What::Summary(summary)) = event.what {
            all.extend(summary.values.into_iter().map(|value| (event.step, value.tag, value.simple_value)));
        }
    }
    all
}

#[test]
fn events_are_read_back_and_framed_as_tensorboard_expects() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = EventWriter::create(dir.path(), 0).unwrap();
    writer.scalars(10, &[("train/loss", 2.5), ("train/lr", 1e-3)]).unwrap();
    writer.scalars(20, &[("train/loss", f32::NAN)]).unwrap();
    writer.scalars(30, &[]).unwrap();
    let bytes = fs::read(writer.path()).unwrap();
    // How every event file of TensorFlow begins: 24 bytes, and the masked CRC-32C of that length.
    assert_eq!(bytes[..12], [24, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]);
    assert!(bytes[12..36].ends_with(b"brain.Event:2"));

    let read = scalars(writer.path());
    assert_eq!(read[..2], [(10, "train/loss".into(), 2.5), (10, "train/lr".into(), 1e-3)]);
    assert!(read[2].2.is_nan());

    // A damaged record ends the reading without a panic, wherever the damage is.
    let path = dir.path().join("damaged");
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, &damaged).unwrap();
        assert!(tensorboard::read(&path).unwrap().len() < 5);
        fs::write(&path, &bytes[..at]).unwrap();
        assert!(tensorboard::read(&path).unwrap().len() < 5);
    }
}

/// TensorBoard reads files in the order of their names and drops, at a start, what came before from that
/// step on. Following these two rules gives one curve.
#[test]
fn a_resumed_run_is_one_curve() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = EventWriter::create(dir.path(), 0).unwrap();
    (0..50).for_each(|step| writer.scalars(step, &[("loss", 1.0)]).unwrap());
    for first in [40, 30] {
        let mut writer = EventWriter::create(dir.path(), first).unwrap();
        (first..60).for_each(|step| writer.scalars(step, &[("loss", first as f32)]).unwrap());
    }
    let mut files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 3);
    let mut curve: Vec<(i64, f32)> = Vec::new();
    for event in files.iter().flat_map(|file| tensorboard::read(file).unwrap()) {
        match event.what {
            Some(What::SessionLog(log)) if log.status == START => {
                curve.retain(|(step, _)| *step < event.step)
            }
            Some(What::Summary(summary)) => curve.push((event.step, summary.values[0].simple_value)),
            _ => {}
        }
    }
    let expected: Vec<(i64, f32)> = (0..60).map(|step| (step, if step < 30 { 1.0 } else { 30.0 })).collect();
    assert_eq!(curve, expected);
}

#[test]
fn an_event_file_that_cannot_be_created_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tensorboard");
    fs::write(&file, "").unwrap();
    let error = EventWriter::create(&file, 0).unwrap_err().to_string();
    assert!(error.contains("tensorboard"), "{error}");
}
