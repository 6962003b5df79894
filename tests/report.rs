//! What a person gets to look at, made from the files of a run folder.

use std::fs;
use std::path::Path;

use flip::record::{Answer, EvaluationRow, Example, Examples, RecordError};
use flip::report::compare::{self, Run};
use flip::report::evaluation::{comparisons, stages, trajectories};
use flip::report::tensorboard::{self, What, START};
use flip::report::{contact_sheet, stage_titles, table, thumbnail, write, EventWriter, Masked, ReportError};
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

fn rows() -> Vec<EvaluationRow> {
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
    let text = table::text(&rows(), &stage_titles(RECIPE), None);
    let squeezed = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(squeezed(&text)[2..], squeezed(expected)[2..], "{text}");
    assert_eq!(squeezed(&text)[0], squeezed(expected)[0]);
    let ends: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
    assert!(ends.iter().all(|end| *end == ends[0]), "the last column is aligned:\n{text}");

    let untitled = table::text(&rows()[..1], &[], None);
    assert!(untitled.contains("stage 1") && !untitled.contains("change"), "{untitled}");
    assert_eq!(table::text(&[], &[], None), "");
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
    assert!(matches!(error, ReportError::Record(RecordError::Content { .. })));
    let message = error.to_string();
    assert!(message.contains("eval.json") && message.contains("line 1"), "{message}");
    let error = write(&dir.path().join("absent")).unwrap_err().to_string();
    assert!(error.contains("absent"), "{error}");
}

#[test]
fn a_masked_image_is_grey_where_patches_were_removed() {
    // 4 by 4 pixels, patches of 2, every pixel its own colour.
    let pixels: Vec<u8> = (0..16u8).flat_map(|i| [i * 10, 0, 255 - i]).collect();
    let other = vec![9u8; 48];
    let pairs =
        [Masked { pixels: &pixels, size: 4, kept: &[3, 0] }, Masked { pixels: &other, size: 4, kept: &[] }];
    let png = contact_sheet(&pairs, 2).unwrap();
    let sheet = image::load_from_memory(&png).unwrap().to_rgba8();
    // Enlarged 32 times to 128 pixels: image, gap of 6, twin; below a gap of 18, the other pair.
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
    assert!(contact_sheet(&[], 2).unwrap_err().to_string().contains("no image"));
    assert!(one(Masked { size: 8, ..good }).contains("image 1: it has 8 pixels a side"));
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

/// An accuracy that was measured in the course of both training stages and after them.
fn rows_of_a_course() -> String {
    let row = |stage: usize, step: u64, samples: u64, top1: f64| {
        format!(
            "{{\"stage\":{stage},\"step\":{step},\"samples\":{samples},\"kind\":\"zero_shot\",\"dataset\":\"scenes\",\
             \"task\":\"t\",\"metrics\":{{\"top1\":{top1},\"k\":1}},\"n\":8,\"per_class\":[{{\"name\":\"<a>\",\"n\":4,\"top1\":0.5}}],\
             \"confusions\":[{{\"class\":\"<a>\",\"taken_for\":\"b & c\",\"n\":2}}]}}"
        )
    };
    let rows =
        [row(0, 100, 800, 0.25), row(0, 200, 1_600, 0.5), row(1, 0, 1_600, 0.5), row(2, 10, 1_680, 0.75)];
    format!("[{}]", rows.join(","))
}

#[test]
fn the_course_of_an_accuracy_is_a_curve_and_the_table_has_the_stages_of_evaluations() {
    let rows: Vec<EvaluationRow> = serde_json::from_str(&rows_of_a_course()).unwrap();
    assert_eq!(stages(&rows), [1]);
    assert_eq!(comparisons(&rows)[0].values, [Some(0.5)]);
    let course = trajectories(&rows);
    assert_eq!(course.len(), 1);
    let values: Vec<f64> = course[0].points.iter().map(|(_, value)| *value).collect();
    assert_eq!(values, [0.25, 0.5, 0.5, 0.75]);
    // A number of neighbours is no share, though it is 1.
    assert!(!comparisons(&rows)[1].is_share());
    assert_eq!(comparisons(&rows)[1].format(1.0), "1");
    // Where no stage of evaluations measured it, the table has the last of each training stage.
    let only: Vec<EvaluationRow> = rows.into_iter().filter(|row| row.step > 0).collect();
    assert_eq!(stages(&only), [0, 2]);
    assert_eq!(comparisons(&only)[0].values, [Some(0.5), Some(0.75)]);
}

#[test]
fn confusions_and_examples_are_shown_escaped() {
    let dir = tempfile::tempdir().unwrap();
    run_folder(dir.path());
    fs::write(dir.path().join("eval.json"), rows_of_a_course()).unwrap();
    let image = thumbnail(&[200; 8 * 8 * 3], 8).unwrap();
    assert!(image.starts_with("data:image/png;base64,"));
    let large = thumbnail(&vec![9; 224 * 224 * 3], 224).unwrap();
    assert!(large.starts_with("data:image/jpeg;base64,") && large.len() < 5_000, "{}", large.len());
    let answer = |what: &str, right| Answer { what: what.into(), similarity: 0.5, right };
    let example = |images| Example {
        image: image.clone(),
        caption: "a <b>bold</b> caption".into(),
        texts: vec![answer("first \"answer\"", false), answer("second", true)],
        images,
    };
    let examples = |stage, kind: &str, images| Examples {
        stage,
        kind: kind.into(),
        dataset: "scenes".into(),
        task: "t".into(),
        examples: vec![example(images)],
    };
    let folder = dir.path().join("examples");
    examples(1, "zero_shot", Vec::new()).write(&folder.join("stage1-0.json")).unwrap();
    examples(1, "retrieval", vec![answer(&image, true)]).write(&folder.join("stage1-1.json")).unwrap();
    let later = examples(3, "retrieval", vec![answer(&large, true)]);
    later.write(&folder.join("stage3-1.json")).unwrap();
    let read = Examples::read_all(&folder).unwrap();
    assert_eq!((read.len(), &read[2]), (3, &later));

    let page = fs::read_to_string(write(dir.path()).unwrap()).unwrap();
    for expected in [
        "<h2>Largest mistakes: zero shot scenes / t</h2>",
        "<h2>Top retrievals: retrieval scenes / t</h2>",
        "Measured after unmask. A caption; left its image",
        "a &lt;b&gt;bold&lt;/b&gt; caption",
        "first &quot;answer&quot;",
        "class=\"right\" alt=\"Found 1, similarity 0.50\"",
        "<h2>Confusions</h2>",
        "<td>&lt;a&gt;</td><td>b &amp; c</td><td class=\"number\">2</td><td class=\"number\">50 %</td>",
    ] {
        assert!(page.contains(expected), "{expected} is missing");
    }
    // Of two stages the later one is shown.
    assert_eq!(page.matches("<h2>Top retrievals").count(), 1);
    assert!(!page.contains("<b>bold") && !page.contains("<script"));

    fs::write(folder.join("stage4-0.json"), "{}").unwrap();
    let message = write(dir.path()).unwrap_err().to_string();
    assert!(message.contains("stage4-0.json"), "{message}");
    assert!(thumbnail(&[0; 5], 8).unwrap_err().to_string().contains("5 bytes are not [8, 8, 3]"));
}

#[test]
fn runs_stand_side_by_side_with_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    let folders = ["one", "elsewhere/one", "two"].map(|name| dir.path().join(name));
    for (at, folder) in folders.iter().enumerate() {
        fs::create_dir_all(folder).unwrap();
        run_folder(folder);
        let better = rows_of_a_course().replace("0.75", ["0.75", "0.75", "0.875"][at]);
        fs::write(folder.join("eval.json"), better.replace("\"stage\":1", "\"stage\":3")).unwrap();
    }
    let fields =
        |batch: &str| vec![("name".to_owned(), "same".to_owned()), ("stages.0.batch".into(), batch.into())];
    let read = |at: usize, batch: &str| Run::read(&folders[at], fields(batch)).unwrap();
    let mut runs = vec![read(0, "8"), read(1, "8"), read(2, "16")];
    compare::tell_apart(&mut runs, &folders);
    assert_eq!(runs[2].name, "two");
    assert!(runs[0].name.ends_with("/one") && runs[0].name != runs[1].name);

    let text = compare::text(&runs, None);
    let row = |start: &str| {
        let found = text.lines().find(|line| line.split_whitespace().any(|word| word == start));
        let line = found.unwrap_or_else(|| panic!("{start} is missing:\n{text}"));
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(row("stages.0.batch").ends_with(&["8".into(), "8".into(), "16".into()]), "{text}");
    assert!(!text.contains("same"), "{text}");
    assert!(row("loss").join(" ").contains("0.2500"), "{text}");

    let page = dir.path().join("compare.html");
    compare::write(&runs, &page).unwrap();
    let page = fs::read_to_string(page).unwrap();
    for expected in [
        "Contrastive loss (nats)",
        "pairs seen",
        "minutes of training",
        "scenes, zero shot: top1 (%)",
        "stages.0.batch",
        "tiny &lt;b&gt;",
    ] {
        assert!(page.contains(expected), "{expected} is missing");
    }
    for unwanted in ["<script", "src=\"http", "href=", "NaN", "tiny <b>"] {
        assert!(!page.contains(unwanted), "{unwanted} is there");
    }
    assert_eq!(page.matches("<svg").count(), 4);
}
